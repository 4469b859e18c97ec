//! Who left the sockets in TIME_WAIT: the side that closes first keeps one for a
//! minute (`TCP_TIMEWAIT_LEN`, include/net/tcp.h), in which nobody holds it any more.
//!
//! So a process is given those that it closed first in the last minute. The kernel's
//! own count is the limit: a socket can be taken again before its time.

use std::collections::{HashMap, VecDeque};

use crate::{
    clock::MonotonicNs,
    decode::tcp::{ActorKey, ActorReading},
    snapshot::{Closer, Side},
    text::Text,
};

/// `TCP_TIMEWAIT_LEN`.
const TIME_WAIT_NS: u64 = 60_000_000_000;
/// The kernel side finds a free slot near the right one as long as half of them are free.
const NEARLY_FULL: usize = tracer_common::tcp::ACTORS as usize / 8 * 3;
/// From so many on there is something to say. The usual range of local ports has
/// 28,232, to each peer.
const WORTH_ADVICE: u64 = 5_000;

/// What processes closed first.
#[derive(Debug, Default)]
pub(super) struct Closers {
    known: HashMap<ActorKey, Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    comm: Text,
    opened: u64,
    closed: u64,
    last: MonotonicNs,
    /// When, and how many.
    within: VecDeque<(MonotonicNs, u64)>,
}

impl Closers {
    pub(super) fn observe(&mut self, now: MonotonicNs, actors: &[ActorReading]) {
        for actor in actors {
            let recent = self.known.entry(actor.key).or_default();
            let more = actor.closed_first.saturating_sub(recent.closed);
            if more > 0 || actor.opened != recent.opened {
                recent.last = now;
                recent.comm = actor.comm.clone();
            }
            if more > 0 {
                recent.within.push_back((now, more));
            }
            (recent.opened, recent.closed) = (actor.opened, actor.closed_first);
        }
        for recent in self.known.values_mut() {
            while let Some((at, _)) = recent.within.front()
                && now.since_ns(*at) > TIME_WAIT_NS
            {
                recent.within.pop_front();
            }
        }
    }

    /// Once the kernel side's table is nearly full: those that have done nothing for
    /// longer than a socket stays in TIME_WAIT.
    pub(super) fn take_idle(&mut self, now: MonotonicNs) -> Vec<ActorKey> {
        if self.known.len() < NEARLY_FULL {
            return Vec::new();
        }
        let idle = |recent: &Recent| now.since_ns(recent.last) > 2 * TIME_WAIT_NS;
        let keys = self.known.iter().filter(|(_, recent)| idle(recent));
        let keys: Vec<ActorKey> = keys.map(|(key, _)| *key).collect();
        for key in &keys {
            self.known.remove(key);
        }
        keys
    }

    /// The closers of so many sockets, the most first, and for how many there is none.
    pub(super) fn put(&self, total: u64) -> (Vec<Closer>, u64) {
        let closed = |recent: &Recent| recent.within.iter().map(|(_, n)| n).sum::<u64>();
        let all: u64 = self.known.values().map(closed).sum();
        let mut closers: Vec<Closer> = self
            .known
            .iter()
            .map(|(key, recent)| Closer {
                pid: key.pid,
                comm: recent.comm.clone(),
                side: key.side,
                port: key.port,
                count: share(closed(recent), all, total),
            })
            .filter(|closer| closer.count > 0)
            .collect();
        closers.sort_by_key(|c| (std::cmp::Reverse(c.count), c.pid, c.port));
        let named: u64 = closers.iter().map(|closer| closer.count).sum();
        (closers, total.saturating_sub(named))
    }
}

/// All of its own, or in proportion when fewer are left than were closed.
fn share(own: u64, all: u64, total: u64) -> u64 {
    if all <= total {
        return own;
    }
    (u128::from(own) * u128::from(total) / u128::from(all)) as u64
}

/// What an operator can do.
pub(super) fn advice(total: u64, closers: &[Closer]) -> Option<&'static str> {
    let largest = closers.first().filter(|_| total >= WORTH_ADVICE)?;
    Some(match largest.side {
        Side::Connected => {
            "this host opens and closes many connections: keep them open and use them again \
             (keep-alive, a connection pool); net.ipv4.tcp_tw_reuse=1 lets ports be taken again"
        }
        Side::Accepted => {
            "the server closes first: a longer keep-alive timeout, or more requests a connection, \
             leaves the close to the clients; the sockets themselves are cheap"
        }
    })
}
