//! Task states and blocked episodes.
//!
//! The bits are those of include/linux/sched.h; they have the same values in
//! all kernels from 5.15 to 7.2. Times are nanoseconds of CLOCK_MONOTONIC
//! unless a field says otherwise.

use crate::block::WaitsFor;

/// `TASK_UNINTERRUPTIBLE`: the D of ps.
pub const TASK_UNINTERRUPTIBLE: u32 = 0x2;
/// `TASK_DEAD`: the task is in its last `__schedule` and never runs again.
pub const TASK_DEAD: u32 = 0x80;
/// `TASK_NOLOAD`: uninterruptible, yet not counted into the load (`TASK_IDLE`).
pub const TASK_NOLOAD: u32 = 0x400;
/// `TASK_FROZEN`: held by the freezer, not counted (from 6.1).
pub const TASK_FROZEN: u32 = 0x8000;

/// What is kept of a task. Its blocked episodes: the open one, the totals, and
/// what is needed to say later whether it was blocked when the kernel took its load
/// sample. Its stale waits: by how much the kernel's own `run_delay` is too large.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockedTotals {
    /// Begin of the open episode; 0 when there is none.
    pub open_ns: u64,
    /// `se.exec_start` when it was opened (scheduler clock). Once it moved, the
    /// task ran again and the open episode is void.
    pub open_exec_start: u64,
    /// Length of all ended episodes, in ns.
    pub total_ns: u64,
    /// Number of ended episodes.
    pub episodes: u64,
    /// Begin of the episode that ended last.
    pub last_begin_ns: u64,
    /// End of the episode that ended last.
    pub last_end_ns: u64,
    /// The CPU it went to sleep on, of the open episode: there it is counted.
    pub open_cpu: u32,
    /// The CPU it went to sleep on, of the episode that ended last.
    pub last_cpu: u32,
    /// The latest kernel fold that fell into an ended episode; 0 for none.
    pub at_fold_ns: u64,
    /// Length of the longest ended episode, in ns.
    pub longest_ns: u64,
    /// Begin of the longest ended episode.
    pub longest_begin_ns: u64,
    /// At each stale waking, CLOCK_MONOTONIC less `sched_info.last_queued`, which is of
    /// the scheduler's clock; added up, wrapping, in ns.
    pub stale_ns: u64,
    /// Number of stale wakings.
    pub stale_wakings: u64,
    /// Length of the ended episodes that were not shorter than the threshold, in ns:
    /// of each there is a record, or a lost one.
    pub long_ns: u64,
    /// What the open episode waits for.
    pub waits: WaitsFor,
}
