//! bpftrace scripts that do what the tools of the same names do.
//!
//! bpftrace ships a runqlat.bt, but it includes a kernel header that Debian's
//! own headers cannot compile, and it ships no cpudist and no offcputime.

/// Time from runnable to running, as a histogram.
pub(super) const RUNQLAT: &str = include_str!("scripts/runqlat.bt");
/// Time on a CPU, as a histogram.
pub(super) const CPUDIST: &str = include_str!("scripts/cpudist.bt");
/// Time off the CPU, by stacks.
pub(super) const OFFCPUTIME: &str = include_str!("scripts/offcputime.bt");
/// The first, for a second.
pub(super) const RUNQLAT_ONCE: &str = concat!(
    include_str!("scripts/runqlat.bt"),
    "interval:s:1 { exit(); }"
);
