//! Puts the blocked time of each task on what it was blocked by.
//!
//! How much time there is comes from the task's own counters, which lose nothing.
//! Records of episodes and what is in flight say what it was for. What is left over
//! is of episodes below the threshold, or of records that were lost.

use std::collections::HashMap;

use super::why::{Place, Why};
use crate::{
    clock::MonotonicNs,
    decode::{block::EpisodeReading, task::TaskReading},
};

/// A record whose task is in none of so many readings is forgotten: its exit was lost.
const KEPT_READINGS: u32 = 3;

/// Parts of a time, in ns.
pub type Blame = Vec<(Why, u64)>;

/// Episodes whose tasks were not yet seen to have ended them.
#[derive(Debug, Default)]
pub struct Pending(HashMap<(u32, MonotonicNs), Vec<Ended>>);

#[derive(Debug)]
struct Ended {
    begin: MonotonicNs,
    end: MonotonicNs,
    place: Place,
    readings: u32,
}

/// What a task's counters say.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Blocked since the last reading, in ns.
    pub blocked_ns: u64,
    /// Of that, in episodes over the threshold that ended, with all of their length.
    pub long_ns: u64,
    /// When the last reading was.
    pub since: MonotonicNs,
    /// When this one is.
    pub now: MonotonicNs,
}

impl Pending {
    /// Takes records in; `place` says what each was for.
    pub fn add(&mut self, episodes: &[EpisodeReading], place: impl Fn(&EpisodeReading) -> Place) {
        self.0.retain(|_, ended| {
            ended.iter_mut().for_each(|one| one.readings += 1);
            ended.retain(|one| one.readings < KEPT_READINGS);
            !ended.is_empty()
        });
        for episode in episodes {
            let of_task = self.0.entry((episode.tid, episode.start)).or_default();
            of_task.push(Ended {
                begin: episode.begin,
                end: episode.end,
                place: place(episode),
                readings: 0,
            });
        }
    }

    /// Splits a task's blocked time; the parts add up to `counted.blocked_ns`.
    ///
    /// `open` is what it is blocked by now.
    pub fn blame(&mut self, task: &TaskReading, counted: Counted, open: Option<Place>) -> Blame {
        let mut blame = Blame::new();
        let mut left_ns = counted.blocked_ns;
        let mut credit = |why, ns: u64| {
            let ns = ns.min(left_ns);
            left_ns -= ns;
            if ns > 0 {
                blame.push((why, ns));
            }
        };
        let mut delivered_ns = 0;
        let key = (task.tid, task.start);
        if let Some(ended) = self.0.get_mut(&key) {
            let is_counted =
                |one: &mut Ended| one.end.0 <= task.blocked.last_end_ns || task.is_dead;
            for one in ended.extract_if(.., is_counted) {
                delivered_ns += one.end.since_ns(one.begin);
                let ns = one.end.since_ns(one.begin.max(counted.since));
                credit(Why::At(one.place), ns);
            }
        }
        if self.0.get(&key).is_some_and(Vec::is_empty) {
            self.0.remove(&key);
        }
        if let Some(place) = open {
            let since = MonotonicNs(task.blocked.open_ns).max(counted.since);
            credit(Why::At(place), counted.now.since_ns(since));
        }
        credit(Why::Lost, counted.long_ns.saturating_sub(delivered_ns));
        credit(Why::Brief, u64::MAX);
        blame
    }
}
