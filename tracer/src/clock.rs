//! The only place that asks for the time. Everything else takes it as an
//! argument: monotonic inside, wall clock where an output shows it.

use std::{
    ops::{Add, Sub},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A moment of CLOCK_MONOTONIC, in ns, as `bpf_ktime_get_ns` counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicNs(pub u64);

impl MonotonicNs {
    /// Nanoseconds since an earlier moment; 0 when it is later.
    pub fn since_ns(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for MonotonicNs {
    type Output = Self;

    fn add(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}

impl Sub<u64> for MonotonicNs {
    type Output = Self;

    fn sub(self, ns: u64) -> Self {
        Self(self.0.saturating_sub(ns))
    }
}

/// A moment of the wall clock, in ns since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallNs(pub u64);

/// Monotonic now.
pub fn monotonic() -> MonotonicNs {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills in the timespec, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    MonotonicNs(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The time of one of the kernel's clocks of CPU time, in ns; `None` when its process has
/// been reaped.
pub(crate) fn cpu_of(clock: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills in the timespec, which is ours.
    let read = unsafe { libc::clock_gettime(clock, &raw mut time) };
    (read == 0).then_some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// CPU time of a process, in ns: its clock by include/linux/posix-timers_types.h,
/// `make_process_cpuclock(pid, CPUCLOCK_SCHED)`.
pub(crate) fn cpu_of_process(pid: u32) -> Option<u64> {
    cpu_of(!(pid as i32) << 3 | 2)
}

/// Wall clock now.
#[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
pub fn wall() -> WallNs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    WallNs(since.as_nanos() as u64)
}

/// The wall clock at a moment that is a little while ago.
pub fn wall_at(at: MonotonicNs) -> WallNs {
    let (now, wall) = (monotonic(), wall());
    WallNs(wall.0.saturating_sub(now.since_ns(at)))
}

/// An `Instant` for timers of the async runtime, `ns` from a moment that was `now`.
#[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
pub fn deadline(at: MonotonicNs) -> Instant {
    Instant::now() + Duration::from_nanos(at.since_ns(monotonic()))
}
