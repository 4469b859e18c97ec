//! How long the hook at the end of every system call may be attached, where the kernel
//! lets functions not be hooked. It slows all of the host, and any user can leak sockets
//! for ever: so it is attached for [`SLICE_NS`] at a time, a process that was watched
//! rests for longer each time, all processes of a user have half of the host's time, and
//! the host has 10 s in 10 minutes.

use std::collections::HashMap;

use crate::clock::MonotonicNs;

const SECOND_NS: u64 = 1_000_000_000;
/// How long it is attached at a time.
const SLICE_NS: u64 = SECOND_NS / 4;
/// How long it is attached at most in a time of [`WITHIN_NS`].
const OF_HOST_NS: u64 = 10 * SECOND_NS;
const OF_USER_NS: u64 = OF_HOST_NS / 2;
const WITHIN_NS: u64 = 600 * SECOND_NS;
/// How long a process rests after the first time, and at most.
const LEAST_REST_NS: u64 = 2 * SECOND_NS;
const MOST_REST_NS: u64 = WITHIN_NS;
/// Processes whose rest is remembered.
const REMEMBERED: usize = 1024;

/// Who is watched, and what it has cost.
#[derive(Default)]
pub(super) struct Watching {
    /// Time taken in the last [`WITHIN_NS`], by all and by user.
    host: Taken,
    users: HashMap<u32, Taken>,
    rests: HashMap<u32, Rest>,
    slice: Option<Slice>,
    /// How often there was no time left for a suspected process.
    pub(super) refused: u64,
}

/// The hook is attached.
struct Slice {
    began: MonotonicNs,
    pids: Vec<u32>,
    users: Vec<u32>,
}

/// A process is not watched for so long.
#[derive(Clone, Copy)]
struct Rest {
    until: MonotonicNs,
    length_ns: u64,
}

/// Time that was taken; what was taken long ago counts less and less.
#[derive(Clone, Copy, Default)]
struct Taken {
    ns: u64,
    at: MonotonicNs,
}

impl Taken {
    /// What still counts, where `most_ns` come back within [`WITHIN_NS`].
    fn counts(&self, now: MonotonicNs, most_ns: u64) -> u64 {
        let back = now.since_ns(self.at) / (WITHIN_NS / most_ns);
        self.ns.saturating_sub(back)
    }

    fn add(&mut self, ns: u64, now: MonotonicNs, most_ns: u64) {
        self.ns = self.counts(now, most_ns).saturating_add(ns);
        self.at = now;
    }

    fn has_room(&self, now: MonotonicNs, most_ns: u64) -> bool {
        self.counts(now, most_ns) + SLICE_NS <= most_ns
    }
}

impl Watching {
    /// Which of the suspected processes are watched from now on; without any the hook is
    /// to be taken off. `user_of` says whose a process is, if it still is there.
    pub(super) fn choose(
        &mut self,
        now: MonotonicNs,
        suspects: &[u32],
        user_of: impl Fn(u32) -> Option<u32>,
    ) -> &[u32] {
        if self.ends_at().is_some_and(|end| end <= now) {
            self.end(now);
        }
        if self.slice.is_none() {
            self.begin(now, suspects, user_of);
        }
        self.slice.as_ref().map_or(&[], |slice| &slice.pids)
    }

    /// When [`Self::choose`] must be asked again.
    pub(super) fn ends_at(&self) -> Option<MonotonicNs> {
        self.slice.as_ref().map(|slice| slice.began + SLICE_NS)
    }

    fn begin(&mut self, now: MonotonicNs, suspects: &[u32], user_of: impl Fn(u32) -> Option<u32>) {
        // Who was let alone for as long again as it last rested begins anew.
        self.rests
            .retain(|_, rest| now < rest.until + rest.length_ns);
        self.users
            .retain(|_, taken| taken.counts(now, OF_USER_NS) > 0);
        let (mut pids, mut users) = (Vec::new(), Vec::new());
        for &pid in suspects {
            if self.rests.get(&pid).is_some_and(|rest| now < rest.until) {
                continue;
            }
            let Some(user) = user_of(pid) else {
                continue;
            };
            let of_user = self.users.get(&user).copied().unwrap_or_default();
            let is_known = self.rests.contains_key(&pid) || self.rests.len() < REMEMBERED;
            if is_known && self.host.has_room(now, OF_HOST_NS) && of_user.has_room(now, OF_USER_NS)
            {
                pids.push(pid);
                if !users.contains(&user) {
                    users.push(user);
                }
            } else {
                self.refused += 1;
                self.rest(pid, now);
            }
        }
        if !pids.is_empty() {
            let began = now;
            self.slice = Some(Slice { began, pids, users });
        }
    }

    fn end(&mut self, now: MonotonicNs) {
        let Some(slice) = self.slice.take() else {
            return;
        };
        let took = now.since_ns(slice.began);
        self.host.add(took, now, OF_HOST_NS);
        for user in slice.users {
            let of_user = self.users.entry(user).or_default();
            of_user.add(took, now, OF_USER_NS);
        }
        for pid in slice.pids {
            self.rest(pid, now);
        }
    }

    fn rest(&mut self, pid: u32, now: MonotonicNs) {
        let before = self.rests.get(&pid);
        if before.is_none() && self.rests.len() >= REMEMBERED {
            return;
        }
        let length_ns = before.map_or(LEAST_REST_NS, |rest| rest.length_ns * 2);
        let length_ns = length_ns.min(MOST_REST_NS);
        let until = now + length_ns;
        self.rests.insert(pid, Rest { until, length_ns });
    }
}

#[cfg(test)]
mod tests {
    use super::{
        LEAST_REST_NS, MOST_REST_NS, OF_HOST_NS, OF_USER_NS, REMEMBERED, SECOND_NS, SLICE_NS,
        WITHIN_NS, Watching,
    };
    use crate::clock::MonotonicNs;

    const STEP_NS: u64 = SECOND_NS / 10;
    const BEGIN: MonotonicNs = MonotonicNs(3600 * SECOND_NS);

    /// For how long the hook was attached, when asked ten times a second.
    fn attached(
        watching: &mut Watching,
        (from, length_ns): (MonotonicNs, u64),
        suspects: impl Fn(u64) -> Vec<u32>,
        user_of: impl Fn(u32) -> Option<u32>,
    ) -> u64 {
        let mut attached = 0;
        for step in 0..length_ns / STEP_NS {
            let pids = watching.choose(from + step * STEP_NS, &suspects(step), &user_of);
            attached += if pids.is_empty() { 0 } else { STEP_NS };
        }
        attached
    }

    #[test]
    fn a_process_is_watched_at_once_and_rests_for_longer_each_time() {
        let mut watching = Watching::default();
        let mut begins = Vec::new();
        let mut was = false;
        for step in 0..12_000 {
            let now = BEGIN + step * STEP_NS;
            let is = !watching.choose(now, &[7], |_| Some(1000)).is_empty();
            if is && !was {
                begins.push(now);
            }
            was = is;
        }
        assert_eq!(begins[0], BEGIN);
        let apart: Vec<u64> = begins
            .windows(2)
            .map(|two| two[1].since_ns(two[0]) / SECOND_NS)
            .collect();
        assert_eq!(apart, [2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(watching.refused, 0);
    }

    #[test]
    fn one_user_has_half_of_the_hosts_time_however_many_processes() {
        let mut watching = Watching::default();
        // Another process at each reading.
        let new = |step: u64| vec![step as u32 + 100];
        let took = attached(&mut watching, (BEGIN, WITHIN_NS), new, |_| Some(1000));
        // At once, and what comes back within that time.
        assert!(took <= 2 * OF_USER_NS + 10 * STEP_NS, "{took}");
        assert!(took >= OF_USER_NS, "{took}");
        assert!(watching.refused > 0);
        // There is time for another user.
        let now = BEGIN + WITHIN_NS;
        assert_eq!(watching.choose(now, &[7], |_| Some(1001)), [7]);
        assert_eq!(watching.ends_at(), Some(now + SLICE_NS));
    }

    #[test]
    fn all_users_together_have_the_hosts_time() {
        let mut watching = Watching::default();
        let new = |step: u64| vec![step as u32 + 100];
        let each = |pid: u32| Some(pid);
        attached(&mut watching, (BEGIN, WITHIN_NS), new, each);
        let later = (BEGIN + WITHIN_NS, 6 * WITHIN_NS);
        let took = attached(&mut watching, later, new, each);
        assert!(took <= 6 * OF_HOST_NS + 10 * STEP_NS, "{took}");
        assert!(took >= OF_HOST_NS, "{took}");
    }

    #[test]
    fn a_long_time_between_two_readings_is_paid_for() {
        let mut watching = Watching::default();
        assert_eq!(watching.choose(BEGIN, &[7], |_| Some(0)), [7]);
        let late = BEGIN + 8 * SECOND_NS;
        assert!(watching.choose(late, &[7], |_| Some(0)).is_empty());
        assert!(watching.choose(late, &[8], |_| Some(0)).is_empty());
        assert_eq!(watching.choose(late, &[9], |_| Some(1)), [9]);
    }

    #[test]
    fn who_has_gone_is_not_watched_and_tables_stay_small() {
        let mut watching = Watching::default();
        assert!(watching.choose(BEGIN, &[7], |_| None).is_empty());
        for pid in 0..10 * REMEMBERED as u32 {
            let now = BEGIN + u64::from(pid) * SLICE_NS;
            watching.choose(now, &[pid], Some);
            assert!(watching.rests.len() <= REMEMBERED);
            assert!(watching.users.len() as u64 <= 2 * OF_HOST_NS / SLICE_NS);
        }
        let over = BEGIN + 10 * MOST_REST_NS + LEAST_REST_NS;
        watching.choose(over, &[], Some);
        watching.choose(over + 2 * MOST_REST_NS, &[], Some);
        assert!(watching.rests.is_empty() && watching.users.is_empty());
    }
}
