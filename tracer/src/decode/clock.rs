//! The clocks of one iterator run.

use tracer_common::task::SnapshotClock;

use crate::clock::MonotonicNs;

/// When a snapshot was taken, and how the kernel's clocks stood then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockReading {
    /// The moment the snapshot stands for.
    pub now: MonotonicNs,
    /// `jiffies` then.
    pub jiffies: u64,
    /// The jiffy at which the kernel folds next.
    pub next_fold_jiffy: u64,
    /// CLOCK_MONOTONIC less scheduler clock, in ns, wrapping.
    pub sched_offset_ns: u64,
    /// A scheduler-clock time before the run, and the least `exec_start` of a
    /// task on a CPU: what changes later is not below both.
    pub changed_since: [u64; 2],
    /// Tasks visited.
    pub visited: u64,
}

/// `sched_clock` of two CPUs may differ by this much where the TSC is not
/// stable; a few tasks too many are emitted for it.
const CLOCK_SKEW_NS: u64 = 20_000_000;

impl ClockReading {
    /// Decodes the words of a `SnapshotClock`.
    pub fn new(words: [u64; 8]) -> Self {
        let [
            now_ns,
            jiffies,
            next_fold_jiffy,
            sched_offset_ns,
            arrival,
            running,
            visited,
            emitted,
        ] = words;
        let clock = SnapshotClock {
            now_ns,
            jiffies,
            next_fold_jiffy,
            sched_offset_ns,
            reader_arrival: arrival,
            oldest_running: running,
            visited,
            emitted,
        };
        Self {
            now: MonotonicNs(clock.now_ns),
            jiffies: clock.jiffies,
            next_fold_jiffy: clock.next_fold_jiffy,
            sched_offset_ns: clock.sched_offset_ns,
            changed_since: [clock.reader_arrival, clock.oldest_running]
                .map(|t| t.saturating_sub(CLOCK_SKEW_NS)),
            visited: clock.visited,
        }
    }

    /// A scheduler-clock time as CLOCK_MONOTONIC.
    pub fn from_sched(&self, sched_ns: u64) -> MonotonicNs {
        MonotonicNs(sched_ns.wrapping_add(self.sched_offset_ns))
    }
}
