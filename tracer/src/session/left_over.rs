//! What is left of sockets in FIN_WAIT2: closed here, and the peer has not closed yet.
//!
//! Once no process has such a socket, the kernel keeps as little of it as of one in
//! TIME_WAIT (`tcp_time_wait(sk, TCP_FIN_WAIT2, ..)`), and counts it among those (`tw` of
//! /proc/net/sockstat). Only a list of them tells which is which.

use std::collections::HashMap;

use tracer_common::tcp::FIN_WAIT2;

use crate::{
    aggregate::tcp::NamespaceReading,
    clock::{self, MonotonicNs},
    host::{
        namespaces::{Namespace, Namespaces, within},
        sock_diag::{SockDiag, SocketEntry, States},
    },
};

use super::effort::Effort;

/// `idiag_timer` of what is left of a socket (`inet_twsk_diag_fill`, net/ipv4/inet_diag.c).
const TIMER_TIME_WAIT: u8 = 3;

/// How many there are, by namespace.
#[derive(Default)]
pub(super) struct LeftOver {
    counts: HashMap<u32, u64>,
    /// The kernel walks all its sockets for a list: when it may be asked again.
    look_at: MonotonicNs,
}

impl LeftOver {
    /// Tells those in FIN_WAIT2 from those in TIME_WAIT, by a list that is as old as the
    /// last look.
    pub(super) fn tell_apart(
        &mut self,
        namespaces: &Namespaces,
        readings: &mut [NamespaceReading],
    ) {
        if clock::monotonic() >= self.look_at {
            self.look(namespaces, readings);
        }
        for reading in readings {
            let count = self.counts.get(&reading.netns.inode).copied();
            reading.fin_wait2 = count.unwrap_or(0).min(reading.time_wait);
        }
    }

    fn look(&mut self, namespaces: &Namespaces, readings: &[NamespaceReading]) {
        let effort = Effort::begin();
        self.counts.clear();
        for reading in readings.iter().filter(|reading| reading.time_wait > 0) {
            let inode = reading.netns.inode;
            // A namespace that has gone by now has none.
            if let Some(count) = namespaces.get(inode).and_then(|one| count(one).ok()) {
                self.counts.insert(inode, count);
            }
        }
        self.look_at = clock::monotonic() + effort.pause(0);
    }
}

fn count(namespace: &Namespace) -> anyhow::Result<u64> {
    within(namespace, || -> anyhow::Result<u64> {
        let mut count = 0;
        SockDiag::open()?.dump(States(1 << FIN_WAIT2), |socket| {
            count += u64::from(is_left_over(&socket));
        })?;
        Ok(count)
    })?
}

/// Whether no process has it any more.
pub(super) fn is_left_over(socket: &SocketEntry) -> bool {
    u32::from(socket.state) == FIN_WAIT2 && socket.timer == TIMER_TIME_WAIT
}
