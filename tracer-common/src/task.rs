//! What the task iterator and a task's last context switch say of one task.

use crate::{COMM_BYTES, sched::BlockedTotals};

/// One task, as the kernel has it at this moment.
///
/// The iterator writes one for each task that may have changed, a dying task
/// one into the ring of exits. Scheduler-clock values (`rq_clock`) are in ns of
/// `sched_clock`, which [`SnapshotClock::sched_offset_ns`] converts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskRecord {
    /// `se.sum_exec_runtime`: time on a CPU, in ns.
    pub run_ns: u64,
    /// `sched_info.run_delay`: time runnable and not running, ended waits only, in ns.
    pub run_delay_ns: u64,
    /// `sched_info.last_queued`: since when it waits (scheduler clock), 0 when it does not.
    pub last_queued: u64,
    /// `sched_info.last_arrival`: when it last got a CPU (scheduler clock).
    pub last_arrival: u64,
    /// `se.exec_start`: until when it last ran (scheduler clock less interrupt and stolen time).
    pub exec_start: u64,
    /// `start_time`: when it was forked (CLOCK_MONOTONIC, ns). With the tid it names a task for good.
    pub start_ns: u64,
    /// Identity of its cgroup: `kernfs_node::id`, the inode number of its directory.
    pub cgroup: u64,
    /// `cfs_bandwidth.throttled_time` of its task group, or of the ancestor that
    /// was throttled longest; summed over CPUs, in ns.
    pub throttled_ns: u64,
    /// Its blocked episodes.
    pub blocked: BlockedTotals,
    /// Process: thread group id.
    pub tgid: u32,
    /// Task: thread id (`task_struct::pid`).
    pub tid: u32,
    /// `__state`.
    pub state: u32,
    /// `flags` (PF_*).
    pub flags: u32,
    /// `cred->uid`, as the initial user namespace has it.
    pub uid: u32,
    /// The CPU it is on, or was on last.
    pub cpu: u32,
    /// [`ON_RQ`], [`ON_CPU`], [`DELAYED`], [`THROTTLED`].
    pub queued: u32,
    /// Its parent (`real_parent->tgid`): who made it, or who took over its children.
    pub parent: u32,
    /// Identity of the cgroup whose `throttled_ns` this is.
    pub throttled_cgroup: u64,
    /// `comm`: foreign bytes, ended by a zero.
    pub comm: [u8; COMM_BYTES],
}

/// `on_rq` is set: runnable, throttled, or a delayed dequeue.
pub const ON_RQ: u32 = 1;
/// `on_cpu` is set: running.
pub const ON_CPU: u32 = 2;
/// `se.sched_delayed` is set (from 6.12): asleep, yet still queued and counted.
pub const DELAYED: u32 = 4;
/// Held by a CFS bandwidth limit: `throttled` (from 6.18), else `cfs_rq.throttle_count`.
pub const THROTTLED: u32 = 8;

/// `PF_KTHREAD` (include/linux/sched.h): a kernel thread.
pub const PF_KTHREAD: u32 = 0x0020_0000;

/// What user space tells the iterator before each run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotControl {
    /// Emit tasks whose `last_arrival` is not below this (scheduler clock).
    pub arrived_since: u64,
    /// Emit tasks whose `exec_start` is not below this (scheduler clock).
    pub ran_since: u64,
    /// When the snapshot before was taken (CLOCK_MONOTONIC, ns): younger tasks are
    /// not known to user space.
    pub previous_ns: u64,
}

/// The clocks of one iterator run; user space zeroes it before, but for the offset.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotClock {
    /// When the run began (CLOCK_MONOTONIC, ns).
    pub now_ns: u64,
    /// `jiffies` then.
    pub jiffies: u64,
    /// `rq->calc_load_update` of the CPU it began on: the jiffy of the next fold.
    pub next_fold_jiffy: u64,
    /// CLOCK_MONOTONIC less scheduler clock, in ns (wrapping).
    pub sched_offset_ns: u64,
    /// `last_arrival` of the reading task: a scheduler-clock time before the run.
    pub reader_arrival: u64,
    /// The least `exec_start` of any task on a CPU; 0 when none was seen.
    pub oldest_running: u64,
    /// Tasks visited.
    pub visited: u64,
    /// Tasks emitted.
    pub emitted: u64,
}

/// Totals of exited tasks that the ring of exits could not take, by comm.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitTotals {
    /// Number of tasks.
    pub exits: u64,
    /// Their time on a CPU over their whole life, in ns.
    pub run_ns: u64,
    /// Their time runnable and not running, in ns.
    pub run_delay_ns: u64,
    /// Their blocked time, in ns.
    pub blocked_ns: u64,
    /// Their blocked episodes.
    pub episodes: u64,
}
