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
    /// Begin of the episode that was open then.
    pub was_blocked_since: Option<MonotonicNs>,
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
        // Of an episode that was open at the last reading, what was told then.
        let mut told = counted.was_blocked_since;
        told.take_if(|begin| task.is_blocked && task.blocked.open_ns == begin.0);
        let key = (task.tid, task.start);
        if let Some(ended) = self.0.get_mut(&key) {
            let is_counted =
                |one: &mut Ended| one.end.0 <= task.blocked.last_end_ns || task.is_dead;
            for one in ended.extract_if(.., is_counted) {
                if one.end <= counted.since {
                    // It was counted before, or is older than tracer.
                    continue;
                }
                delivered_ns += one.end.since_ns(one.begin);
                told.take_if(|begin| *begin == one.begin);
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
        let told_ns = told.map_or(0, |begin| counted.since.since_ns(begin));
        let lost_ns = counted.long_ns.saturating_sub(delivered_ns);
        credit(Why::Lost, lost_ns.saturating_sub(told_ns));
        credit(Why::Brief, u64::MAX);
        blame
    }
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::vec,
        prelude::{any, proptest},
    };
    use tracer_common::sched::BlockedTotals;

    use super::{Counted, KEPT_READINGS, Pending};
    use crate::{
        aggregate::why::{Place, Why},
        clock::MonotonicNs,
        decode::{block::EpisodeReading, task::TaskReading},
    };

    /// Keys of stacks tell the episodes apart.
    fn place(stack: u64) -> Place {
        Place {
            stack,
            ..Place::default()
        }
    }

    fn episode((begin, length): (u64, u64)) -> EpisodeReading {
        EpisodeReading {
            begin: MonotonicNs(begin),
            end: MonotonicNs(begin + length),
            tid: 7,
            ..EpisodeReading::default()
        }
    }

    fn task(last_end_ns: u64, open_ns: u64, is_dead: bool) -> TaskReading {
        TaskReading {
            tid: 7,
            is_dead,
            blocked: BlockedTotals {
                last_end_ns,
                open_ns,
                ..BlockedTotals::default()
            },
            ..TaskReading::default()
        }
    }

    proptest! {
        /// Whatever came and whatever got lost: how much is the counters' alone.
        #[test]
        fn parts_add_up_to_the_counters(
            records in vec((0..2_000_u64, 0..2_000_u64), 0..20),
            counters in (0..5_000_u64, any::<u64>()),
            times in (0..3_000_u64, 0..3_000_u64),
            (last_end, open, is_dead) in (0..4_000_u64, 0..4_000_u64, any::<bool>()),
            is_open in any::<bool>(),
        ) {
            let mut pending = Pending::default();
            let episodes: Vec<_> = records.into_iter().map(episode).collect();
            pending.add(&episodes, |episode| place(episode.begin.0));
            let counted = Counted {
                blocked_ns: counters.0,
                long_ns: counters.1,
                was_blocked_since: None,
                since: MonotonicNs(times.0),
                now: MonotonicNs(times.0 + times.1),
            };
            let open_at = is_open.then(|| place(u64::MAX));
            let blame = pending.blame(&task(last_end, open, is_dead), counted, open_at);
            let sum: u64 = blame.iter().map(|(_, ns)| ns).sum();
            assert_eq!(sum, counted.blocked_ns);
            assert!(blame.iter().all(|(_, ns)| *ns > 0));
        }

        /// When nothing was lost, each episode gets its own length, however it is cut
        /// into readings, and none of it is lost.
        #[test]
        fn readings_cut_an_episode_into_its_length(
            gaps in vec((1..2_000_u64, 1..2_000_u64), 1..10),
            every in 100..3_000_u64,
        ) {
            let mut at = 0;
            let mut episodes = Vec::new();
            for (gap, length) in gaps {
                episodes.push(episode((at + gap, length)));
                at += gap + length;
            }
            let mut pending = Pending::default();
            let mut parts = std::collections::HashMap::new();
            let mut before = (0, 0);
            for since in (0..=at).step_by(every as usize) {
                let now = since + every;
                let ended: Vec<_> = episodes.iter().filter(|e| e.end.0 <= now).collect();
                let new = ended.iter().filter(|e| e.end.0 > since);
                let new: Vec<_> = new.map(|e| (**e).clone()).collect();
                pending.add(&new, |episode| place(episode.begin.0));
                let open = episodes.iter().find(|e| e.begin.0 < now && e.end.0 > now);
                let long_ns: u64 = ended.iter().map(|e| e.end.since_ns(e.begin)).sum();
                let open_ns = open.map_or(0, |e| now - e.begin.0);
                let last_end = ended.last().map_or(0, |e| e.end.0);
                let counted = Counted {
                    blocked_ns: long_ns + open_ns - before.0,
                    long_ns: long_ns - before.1,
                    was_blocked_since: None,
                    since: MonotonicNs(since),
                    now: MonotonicNs(now),
                };
                before = (long_ns + open_ns, long_ns);
                let task = task(last_end, open.map_or(0, |e| e.begin.0), false);
                for (why, ns) in pending.blame(&task, counted, open.map(|e| place(e.begin.0))) {
                    *parts.entry(why).or_insert(0) += ns;
                }
            }
            let whole = |e: &EpisodeReading| (Why::At(place(e.begin.0)), e.end.since_ns(e.begin));
            assert_eq!(parts, episodes.iter().map(whole).collect());
        }
    }

    #[test]
    fn a_record_whose_task_never_ends_it_is_forgotten() {
        let mut pending = Pending::default();
        pending.add(&[episode((0, 10))], |_| place(1));
        for _ in 0..KEPT_READINGS {
            assert_eq!(pending.0.len(), 1);
            pending.add(&[], |_| place(1));
        }
        assert!(pending.0.is_empty());
    }
}
