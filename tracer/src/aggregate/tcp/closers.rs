//! Who left the sockets in TIME_WAIT: the side that closes first keeps one for a
//! minute (`TCP_TIMEWAIT_LEN`, include/net/tcp.h), in which nobody holds it any more.
//!
//! So a process is given those that it closed first in the last minute. The kernel's
//! own count is the limit: a socket can be taken again before its time.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::{
    clock::MonotonicNs,
    decode::tcp::{ActorKey, ActorReading},
    snapshot::{Closer, Side},
    text::Text,
};

/// `TCP_TIMEWAIT_LEN`.
const TIME_WAIT_NS: u64 = 60_000_000_000;
/// No more are known. Any user can begin thousands of processes that close a connection each.
const MOST_KNOWN: usize = 4 * tracer_common::tcp::ACTORS as usize;
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
    closed: u64,
    /// When, and how many.
    within: VecDeque<(MonotonicNs, u64)>,
}

impl Recent {
    fn count(&self) -> u64 {
        self.within.iter().map(|(_, n)| n).sum()
    }
}

impl Closers {
    pub(super) fn observe(&mut self, now: MonotonicNs, actors: &[ActorReading]) {
        for actor in actors {
            let recent = self.known.entry(actor.key).or_default();
            let more = actor.closed_first.saturating_sub(recent.closed);
            if more > 0 {
                recent.within.push_back((now, more));
            }
            recent.comm = actor.comm.clone();
            recent.closed = actor.closed_first;
        }
        let there: HashSet<ActorKey> = actors.iter().map(|actor| actor.key).collect();
        self.known.retain(|key, recent| {
            while let Some((at, _)) = recent.within.front()
                && now.since_ns(*at) > TIME_WAIT_NS
            {
                recent.within.pop_front();
            }
            let is_there = there.contains(key);
            if !is_there {
                // It was let go: if it comes again, it is counted from none on.
                recent.closed = 0;
            }
            is_there || !recent.within.is_empty()
        });
        if self.known.len() > MOST_KNOWN {
            self.forget_smallest(&there);
        }
    }

    /// Forgets those that closed the fewest; the kernel side does not have them any more
    /// either. Their sockets have no name then.
    fn forget_smallest(&mut self, there: &HashSet<ActorKey>) {
        let gone = self.known.iter().filter(|(key, _)| !there.contains(key));
        let mut gone: Vec<(u64, ActorKey)> =
            gone.map(|(key, recent)| (recent.count(), *key)).collect();
        gone.sort_unstable();
        let forget = self.known.len() - MOST_KNOWN / 4 * 3;
        for (_, key) in gone.into_iter().take(forget) {
            self.known.remove(&key);
        }
    }

    /// The closers of so many sockets, the most first, and for how many there is none.
    pub(super) fn put(&self, total: u64) -> (Vec<Closer>, u64) {
        let all: u64 = self.known.values().map(Recent::count).sum();
        let mut closers: Vec<Closer> = self
            .known
            .iter()
            .map(|(key, recent)| Closer {
                pid: key.pid,
                comm: recent.comm.clone(),
                side: key.side,
                port: key.port,
                count: share(recent.count(), all, total),
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
