//! How many SIGKILLs of each sender are told: one that ends hundreds of processes shall
//! not push out the kills of others.

use std::collections::HashMap;

use crate::clock::MonotonicNs;

/// So many of one sender are told within [`WINDOW_NS`].
const MOST: u32 = 64;
const WINDOW_NS: u64 = 1_000_000_000;

/// What each process sent within the current window.
#[derive(Debug, Default)]
pub(super) struct Senders {
    began: MonotonicNs,
    /// By process id. One process a SIGKILL at most: the ring bounds them.
    sent: HashMap<u32, u32>,
}

impl Senders {
    /// Whether one more SIGKILL of this process is told.
    pub(super) fn allow(&mut self, pid: u32, at: MonotonicNs) -> bool {
        if at.since_ns(self.began) >= WINDOW_NS {
            self.began = at;
            self.sent.clear();
        }
        let sent = self.sent.entry(pid).or_default();
        *sent = sent.saturating_add(1);
        *sent <= MOST
    }
}
