//! The longest blocked episodes of the run, one a task.

use std::collections::HashSet;

use crate::{clock::MonotonicNs, decode::task::TaskReading, snapshot::LongEpisode, text::Text};

/// So many are kept.
const KEPT: usize = 10;

/// The longest ended episodes.
#[derive(Debug, Default)]
pub struct Longest(Vec<Ended>);

#[derive(Clone, Debug)]
struct Ended {
    pid: u32,
    tid: u32,
    start: MonotonicNs,
    comm: Text,
    length_ns: u64,
    begin: MonotonicNs,
}

impl Longest {
    /// Looks at a task's longest episode.
    pub fn see(&mut self, task: &TaskReading) {
        let length_ns = task.blocked.longest_ns;
        let is_full = self.0.len() >= KEPT;
        if length_ns == 0 || (is_full && self.0.last().is_some_and(|l| l.length_ns >= length_ns)) {
            return;
        }
        self.0
            .retain(|known| known.tid != task.tid || known.start != task.start);
        self.0.push(Ended {
            pid: task.pid,
            tid: task.tid,
            start: task.start,
            comm: task.comm.clone(),
            length_ns,
            begin: MonotonicNs(task.blocked.longest_begin_ns),
        });
        self.0
            .sort_by_key(|ended| std::cmp::Reverse(ended.length_ns));
        self.0.truncate(KEPT);
    }

    /// The longest, those still open at the end included.
    pub fn list(&self, open: &[LongEpisode], now: MonotonicNs) -> Vec<LongEpisode> {
        let ended = self.0.iter().map(|ended| LongEpisode {
            pid: ended.pid,
            tid: ended.tid,
            comm: ended.comm.clone(),
            length_ns: ended.length_ns,
            began_ago_ns: now.since_ns(ended.begin),
            is_open: false,
        });
        let mut all: Vec<_> = ended.chain(open.iter().cloned()).collect();
        all.sort_by_key(|episode| std::cmp::Reverse(episode.length_ns));
        let mut seen = HashSet::new();
        all.retain(|episode| seen.insert(episode.tid));
        all.truncate(KEPT);
        all
    }
}
