//! Where sockets were opened: kept for those of processes that may leak.

use std::collections::HashMap;

use super::{sockets::Sockets, waiting::Socket};
use crate::{clock::MonotonicNs, decode::opening::Opening, text::Text};

/// So many are kept before those that are not in CLOSE_WAIT are forgotten.
const KEPT: usize = 4096;
/// So many of a process say where it opens sockets.
const ENOUGH: usize = 64;

/// A connection that a suspected process opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpeningReading {
    /// Which.
    pub opening: Opening,
    /// In which function, innermost first.
    pub stack: Vec<Text>,
}

/// Stacks of openings that have no names, or not all, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackLosses {
    /// The process had gone, or there were too many.
    pub unnamed: u64,
    /// To read its files took too long, or too much.
    pub given_up: u64,
    /// Those that have names, but of which a file was not read.
    pub partial: u64,
    /// How often a suspected process could not be watched, as the hook had had its time.
    pub unwatched: u64,
}

/// The latest opening of each socket.
#[derive(Debug, Default)]
pub(super) struct Openings {
    known: HashMap<u64, OpeningReading>,
}

impl Openings {
    pub(super) fn observe(&mut self, openings: &[OpeningReading], waiting: &Sockets) {
        if self.known.len() + openings.len() > KEPT {
            self.known.retain(|socket, _| waiting.has(*socket));
        }
        for reading in openings {
            if self.known.len() < KEPT {
                self.known.insert(reading.opening.socket, reading.clone());
            }
        }
    }

    /// Whether so many are known of a process that there is no need for more.
    pub(super) fn are_enough(&self, pid: u32, start: MonotonicNs) -> bool {
        let is_it = |known: &&OpeningReading| {
            let program = &known.opening.program;
            (program.pid, program.start) == (pid, start)
        };
        self.known.values().filter(is_it).count() >= ENOUGH
    }

    /// Where a socket was opened. An address can come again: then the ports differ, or
    /// it was opened after the peer had closed.
    pub(super) fn stack(&self, socket: &Socket) -> &[Text] {
        let reading = &socket.reading;
        let is_it = |known: &&OpeningReading| {
            let opening = &known.opening;
            let ports = (opening.local_port, opening.remote_port);
            ports == (reading.local.port(), reading.remote.port())
                && reading.since.is_some_and(|since| opening.at < since)
        };
        let known = self.known.get(&reading.socket).filter(is_it);
        known.map_or(&[], |known| &known.stack)
    }

    /// The stack at which the most of some sockets were opened.
    pub(super) fn usual(&self, sockets: &[&Socket]) -> Vec<Text> {
        let mut counts: HashMap<&[Text], u32> = HashMap::new();
        for socket in sockets {
            let stack = self.stack(socket);
            if !stack.is_empty() {
                *counts.entry(stack).or_default() += 1;
            }
        }
        let most = counts
            .into_iter()
            .max_by_key(|(stack, count)| (*count, std::cmp::Reverse(*stack)));
        most.map_or_else(Vec::new, |(stack, _)| stack.to_vec())
    }
}
