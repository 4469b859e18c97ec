//! Throttled told from waiting.
//!
//! To a task's own counters a bandwidth limit looks like waiting. The kernel
//! keeps the throttled time of a cgroup, summed over the CPUs it was throttled
//! on (`cfs_bandwidth.throttled_time`, kernel/sched/fair.c), and adds to it when
//! the throttling ends. So a task's share is the cgroup's, divided by the CPUs on
//! which its tasks waited, and never more than the task waited. With one
//! task that is exact; with many it holds as far as they were throttled alike.

use std::collections::{HashMap, HashSet};

use super::{Reading, Used};
use crate::clock::MonotonicNs;

/// What could not be told apart yet is carried on for this long at most: the
/// kernel's figure lags by a period of the limit (100 ms by default, 1 s at most).
const MOST_CARRIED_NS: u64 = 1_000_000_000;

/// So many cgroups are known. Of others those are forgotten that were seen last the longest
/// ago: a host that makes cgroups by the thousand would fill memory.
const MOST_CGROUPS: usize = 4096;

/// The cgroups' throttled time, as counted so far.
#[derive(Debug, Default)]
pub struct Throttle {
    latest: Option<MonotonicNs>,
    cgroups: HashMap<u64, Throttled>,
}

#[derive(Debug, Default)]
struct Throttled {
    counted_ns: u64,
    /// Not yet given to a task, per CPU.
    carried_ns: u64,
    /// When a task of it was seen last.
    seen: MonotonicNs,
}

impl Throttle {
    /// Moves time from waiting to throttled.
    pub fn tell_apart(&mut self, reading: &Reading, used: &mut [Used]) {
        let new = self.count(reading);
        let is_limited = |cgroup: &u64| {
            new.contains_key(cgroup)
                || self
                    .cgroups
                    .get(cgroup)
                    .is_some_and(|throttled| throttled.carried_ns > 0)
        };
        let mut waiting: HashMap<u64, HashSet<u32>> = HashMap::new();
        for used in used
            .iter()
            .filter(|u| u.time.wait_ns > 0 && is_limited(&u.limit))
        {
            waiting.entry(used.limit).or_default().insert(used.cpu);
        }
        for (cgroup, new_ns) in &new {
            if let Some(throttled) = self.cgroups.get_mut(cgroup) {
                let cpus = waiting.get(cgroup).map_or(1, HashSet::len).max(1) as u64;
                throttled.carried_ns += new_ns / cpus;
            }
        }
        let mut most_given: HashMap<u64, u64> = HashMap::new();
        for used in used
            .iter_mut()
            .filter(|used| waiting.contains_key(&used.limit))
        {
            let Some(throttled) = self.cgroups.get(&used.limit) else {
                continue;
            };
            let share = used.time.wait_ns.min(throttled.carried_ns);
            used.time.wait_ns -= share;
            used.time.throttled_ns += share;
            let most = most_given.entry(used.limit).or_default();
            *most = share.max(*most);
        }
        for (cgroup, given) in most_given {
            if let Some(throttled) = self.cgroups.get_mut(&cgroup) {
                throttled.carried_ns = (throttled.carried_ns - given).min(MOST_CARRIED_NS);
            }
        }
    }

    /// Throttled time that is new in this reading, by cgroup.
    fn count(&mut self, reading: &Reading) -> HashMap<u64, u64> {
        let mut new = HashMap::new();
        let now = reading.clock.now;
        let elapsed_ns = now.since_ns(self.latest.replace(now).unwrap_or(now));
        let most_ns = elapsed_ns.saturating_mul(reading.cpus.into());
        for task in reading
            .tasks
            .iter()
            .chain(&reading.exits)
            .filter(|t| t.throttled_ns > 0)
        {
            let known = self
                .cgroups
                .entry(task.throttled_cgroup)
                .or_insert_with(|| Throttled {
                    // A limit can be new. What cannot be of the time since the
                    // latest reading is nobody's.
                    counted_ns: task.throttled_ns.saturating_sub(most_ns),
                    carried_ns: 0,
                    seen: now,
                });
            known.seen = now;
            let more = task.throttled_ns.saturating_sub(known.counted_ns);
            if more > 0 {
                known.counted_ns = task.throttled_ns;
                *new.entry(task.throttled_cgroup).or_default() += more;
            }
        }
        self.forget_oldest();
        new
    }

    fn forget_oldest(&mut self) {
        if self.cgroups.len() <= MOST_CGROUPS {
            return;
        }
        let seen = self.cgroups.iter();
        let mut seen: Vec<(MonotonicNs, u64)> = seen
            .map(|(cgroup, throttled)| (throttled.seen, *cgroup))
            .collect();
        seen.sort_unstable();
        let forget = seen.len() - MOST_CGROUPS / 4 * 3;
        for (_, cgroup) in seen.into_iter().take(forget) {
            self.cgroups.remove(&cgroup);
        }
    }
}
