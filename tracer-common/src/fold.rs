//! Who was runnable on a CPU when the kernel folded that CPU's count into the
//! load (`calc_global_load_tick`, kernel/sched/loadavg.c).

/// Most tasks of one CPU that a fold can name: a record of them has 2 KiB.
pub const FOLD_TASKS: usize = 512;

/// Bit of a listed tid: the task was asleep, yet still queued (`se.sched_delayed`).
pub const FOLD_DELAYED: u32 = 1 << 31;

/// Bit of a record's flags: every queued task of the fair class is listed.
pub const FOLD_LISTED_ALL: u32 = 1;
/// Bit of a record's flags: the task on the CPU is one of them.
pub const FOLD_LISTED_CURRENT: u32 = 2;

/// One CPU's fold: the run queue's own counts, then its tasks.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FoldRecord {
    /// When (CLOCK_MONOTONIC, ns), a few microseconds after the fold.
    pub time_ns: u64,
    /// `rq->calc_load_update`: the jiffy of the *next* fold.
    pub next_fold_jiffy: u64,
    /// `jiffies` now.
    pub jiffies: u64,
    /// `rq->calc_load_active`: what this CPU gave to the sample.
    pub active: i64,
    /// The CPU.
    pub cpu: u32,
    /// `rq->nr_running` as it was counted.
    pub nr_running: u32,
    /// Tasks listed below.
    pub listed: u32,
    /// [`FOLD_LISTED_ALL`], [`FOLD_LISTED_CURRENT`].
    pub flags: u32,
    /// Thread ids, with [`FOLD_DELAYED`].
    pub tids: [u32; FOLD_TASKS],
}
