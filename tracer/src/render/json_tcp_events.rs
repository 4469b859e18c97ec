//! What is notable of TCP sockets, as JSON.

use serde::Serialize;

use super::{
    json::Number,
    json_tcp::{Netns, Socket, Timer},
    time::rfc3339,
    words,
};
use crate::{snapshot, text::Text};

/// A socket that was forgotten.
#[derive(Serialize)]
pub(super) struct LeakEvent<'a> {
    time: String,
    event: &'a str,
    pid: Option<u32>,
    comm: &'a str,
    sockets: u64,
    stack: Vec<&'a str>,
    socket: Socket<'a>,
}

impl<'a> From<&'a snapshot::LeakEvent> for LeakEvent<'a> {
    fn from(event: &'a snapshot::LeakEvent) -> Self {
        Self {
            time: rfc3339(event.time),
            event: "close_wait_leak",
            pid: event.pid,
            comm: event.comm.as_str(),
            sockets: event.sockets,
            stack: event.stack.iter().map(Text::as_str).collect(),
            socket: (&event.socket).into(),
        }
    }
}

/// Many resets.
#[derive(Serialize)]
pub(super) struct ResetStorm<'a> {
    time: String,
    event: &'a str,
    netns: Netns<'a>,
    resets_sent_per_s: Number,
    connections_reset_per_s: Number,
}

impl<'a> From<&'a snapshot::ResetStorm> for ResetStorm<'a> {
    fn from(event: &'a snapshot::ResetStorm) -> Self {
        Self {
            time: rfc3339(event.time),
            event: "reset_storm",
            netns: (&event.netns).into(),
            resets_sent_per_s: Number(event.sent_per_s),
            connections_reset_per_s: Number(event.connections_per_s),
        }
    }
}

/// A peer that does not answer.
#[derive(Serialize)]
pub(super) struct DeadPeer<'a> {
    time: String,
    event: &'a str,
    netns: Netns<'a>,
    peer: String,
    sockets: u64,
    state: &'a str,
    age_ns: u64,
    local: String,
    remote: String,
    timer: Timer,
}

impl<'a> From<&'a snapshot::DeadPeer> for DeadPeer<'a> {
    fn from(event: &'a snapshot::DeadPeer) -> Self {
        Self {
            time: rfc3339(event.time),
            event: "dead_peer",
            netns: (&event.netns).into(),
            peer: event.peer.to_string(),
            sockets: event.sockets,
            state: words::state(event.state),
            age_ns: event.age_ns,
            local: words::address(event.local),
            remote: words::address(event.remote),
            timer: event.timer.into(),
        }
    }
}
