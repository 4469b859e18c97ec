//! The model of one tick: every figure an output shows, computed. Renderers
//! choose, order and format, but never calculate.
//!
//! Rates are in tasks (1.0 = one task all the time), times in ns, sizes in
//! bytes. [`crate::figures`] says of each figure what it is and where it comes from.

use crate::{
    clock::{MonotonicNs, WallNs},
    text::Text,
};

/// The run's unchanging facts.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Version of tracer.
    pub version: &'static str,
    /// The host.
    pub host: Host,
    /// Time between two snapshots that was asked for.
    pub interval_ns: u64,
    /// What the table groups by.
    pub by: GroupBy,
    /// What the table is of.
    pub rows: Rows,
    /// Each probe, and whether it is in force.
    pub hooks: Vec<HookState>,
    /// What is worth knowing of this host before any figure, a sentence each.
    pub notes: Vec<String>,
}

/// The host's facts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// CPUs online.
    pub cpus: u32,
    /// `uname -r`.
    pub kernel: Text,
    /// `uname -n`.
    pub hostname: Text,
}

/// A probe's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    /// Name of the probe.
    pub name: &'static str,
    /// How it is attached.
    pub via: String,
    /// Why it is not in force, and `None` when it is.
    pub why: Option<String>,
    /// What is lost without it.
    pub without: &'static str,
}

/// What a group is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GroupBy {
    /// A thread group; those that exited are put together by name.
    #[default]
    Process,
    /// All tasks of one name.
    Comm,
    /// All tasks of one cgroup.
    Cgroup,
    /// All tasks of one user.
    User,
}

/// What a text's table is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rows {
    /// Groups; what they are blocked by comes second.
    #[default]
    Groups,
    /// Why tasks are blocked; who they are comes second.
    Causes,
    /// The block devices that tasks are blocked at; who they are comes second.
    Devices,
}

/// One tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Wall clock at the snapshot.
    pub time: WallNs,
    /// Length of the interval it speaks of; the mean is over this.
    pub interval_ns: u64,
    /// Time since boot, in seconds.
    pub uptime_s: u64,
    /// CPUs online.
    pub cpus: u32,
    /// What the load is made of.
    pub load: LoadBreakdown,
    /// Blocked at the snapshot, longest first.
    pub blocked: Vec<BlockedTask>,
    /// How many are blocked, those beyond the limit of the list included.
    pub blocked_total: u64,
    /// Blocked tasks that wait behind one and the same, the longest queue first.
    pub queues: Vec<Queue>,
    /// Blocked time of the interval by cause, the largest part first.
    pub causes: Vec<CauseRow>,
    /// The same by block device.
    pub devices: Vec<DeviceRow>,
    /// Lengths of the episodes over the threshold since the start, by cause.
    pub lengths: Vec<CauseLengths>,
    /// What was lost since the start, by reason; every reason, zeros too.
    pub lost: Vec<Lost>,
    /// Probes in force, of how many.
    pub hooks_in_force: (usize, usize),
    /// What tracer itself takes.
    pub own: OwnCost,
}

/// Load, itemised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadBreakdown {
    /// load1, load5, load15 as the kernel has them, at full precision.
    pub averages: [f64; 3],
    /// load1 divided by the CPUs online.
    pub per_cpu: f64,
    /// The kernel's samples that fell into this interval.
    pub samples: Vec<KernelSample>,
    /// The latest sample since the start.
    pub last_sample: Option<KernelSample>,
    /// When the kernel takes its next sample, in ns from the snapshot; `None` while unknown.
    pub next_sample_in_ns: Option<u64>,
    /// Time-averaged over the interval, all tasks.
    pub mean: TaskMean,
    /// The groups, the largest first, at most as many as asked for.
    pub groups: Vec<Group>,
    /// What the averages held when tracer began, fading.
    pub before_start: [f64; 3],
    /// What the kernel counted and tracer could not name.
    pub unexplained: [f64; 3],
    /// Asleep, yet still queued and counted (from 6.12).
    pub delayed: [f64; 3],
    /// The groups that did not fit.
    pub other: OtherGroups,
    /// What dominates, and what that suggests.
    pub verdict: Verdict,
    /// The same whole number missing from sample after sample: the kernel's
    /// `nr_uninterruptible` has leaked by so many tasks.
    pub leaked: Option<i64>,
}

/// One sample of the kernel's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KernelSample {
    /// When (CLOCK_MONOTONIC).
    pub at: MonotonicNs,
    /// When (wall clock).
    pub time: WallNs,
    /// Tasks the kernel folded into the averages, recovered from them.
    pub active: i64,
    /// Tasks that tracer can name for that moment, delayed dequeues included.
    pub named: i64,
}

/// Time-averaged numbers of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TaskMean {
    /// On a CPU.
    pub running: f64,
    /// Runnable, not on a CPU, not throttled.
    pub waiting: f64,
    /// Runnable, held by a bandwidth limit.
    pub throttled: f64,
    /// In uninterruptible sleep.
    pub blocked: f64,
}

/// One row of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Process id; `None` for exited processes and for other groupings.
    pub pid: Option<u32>,
    /// Name of the process, or of all tasks of the group.
    pub comm: Option<Text>,
    /// cgroup path.
    pub cgroup: Option<Text>,
    /// User.
    pub user: Option<Text>,
    /// Whether it is a kernel thread.
    pub is_kernel: bool,
    /// Tasks alive.
    pub threads: u64,
    /// Tasks that exited within the interval.
    pub exited: u64,
    /// Blocked episodes that ended within the interval.
    pub episodes: u64,
    /// Time-averaged over the interval.
    pub mean: TaskMean,
    /// Its part of load1, load5, load15.
    pub load: [f64; 3],
    /// What its blocked time was for, the largest part first.
    pub causes: Vec<CauseShare>,
}

/// A cause's part of blocked time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CauseShare {
    /// A fixed word, such as `disk`.
    pub cause: &'static str,
    /// On what: device, file system, operation, mount, holder.
    pub detail: Option<Text>,
    /// Time-averaged, in tasks.
    pub blocked: f64,
}

/// A row of the table by cause.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CauseRow {
    /// A fixed word, such as `disk`.
    pub cause: &'static str,
    /// On what: device, file system, operation, mount, holder.
    pub detail: Option<Text>,
    /// The block device by itself.
    pub device: Option<Text>,
    /// Time-averaged, in tasks.
    pub blocked: f64,
    /// Who, the largest part first.
    pub waiters: Vec<Waiter>,
    /// How many groups, those beyond the limit of the list included.
    pub waiters_total: u64,
}

/// A row of the table by block device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceRow {
    /// `None` for what is not at a device.
    pub device: Option<Text>,
    /// Time-averaged, in tasks.
    pub blocked: f64,
    /// Who, the largest part first.
    pub waiters: Vec<Waiter>,
    /// How many groups, those beyond the limit of the list included.
    pub waiters_total: u64,
}

/// A group's part of a cause.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waiter {
    /// Process id; `None` for exited processes and for other groupings.
    pub pid: Option<u32>,
    /// Name of the process, or of the group.
    pub name: Text,
    /// Time-averaged, in tasks.
    pub blocked: f64,
}

/// Number of buckets of [`CauseLengths`].
pub const LENGTH_BUCKETS: usize = tracer_common::block::LENGTH_BUCKETS;

/// Lengths of the episodes that ended, of one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CauseLengths {
    /// A fixed word, such as `disk`.
    pub cause: &'static str,
    /// How many in all.
    pub episodes: u64,
    /// How many by length: bucket `n` from 2^n us on, the first from 0 on.
    pub buckets: [u64; LENGTH_BUCKETS],
}

/// Blocked time of one process for one cause in one kernel stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockedStack {
    /// Process id; `None` for exited processes.
    pub pid: Option<u32>,
    /// Name of the process.
    pub comm: Text,
    /// A fixed word, such as `disk`.
    pub cause: &'static str,
    /// On what, such as `vdb ext4 read /data`.
    pub detail: Option<Text>,
    /// Functions, innermost first; none for what nobody looked at.
    pub frames: Vec<Text>,
    /// How long, in ns.
    pub blocked_ns: u64,
}

/// The rest of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OtherGroups {
    /// How many groups.
    pub groups: u64,
    /// Time-averaged over the interval, together.
    pub mean: TaskMean,
    /// Their part of the averages, together.
    pub load: [f64; 3],
}

/// What a performance engineer would say of the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to speak of.
    #[default]
    Idle,
    /// Tasks run, and few wait.
    MostlyRunning,
    /// Tasks wait for a CPU.
    MostlyWaiting,
    /// Tasks are held by their own limits.
    MostlyThrottled,
    /// Tasks are blocked.
    MostlyBlocked,
}

/// A task that is blocked right now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockedTask {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the task.
    pub comm: Text,
    /// Since when, in ns before the snapshot.
    pub age_ns: u64,
    /// Why; a fixed word, `unknown` below the threshold.
    pub cause: &'static str,
    /// On what: device, file system, operation, mount, holder.
    pub detail: Option<Text>,
    /// Kernel functions, innermost first.
    pub stack: Vec<Text>,
    /// Whom it waits for, whom that one waits for, and so on.
    pub waits_for: Vec<Link>,
}

/// A task that another waits for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the task.
    pub comm: Text,
    /// What it is to the one that waits.
    pub role: Role,
    /// Why it is blocked itself; `None` when it is not.
    pub cause: Option<&'static str>,
    /// On what.
    pub detail: Option<Text>,
    /// The kernel function that it sleeps in, when it sleeps without being blocked.
    pub sleeps_in: Option<Text>,
}

/// What a task is to one that waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It holds the lock.
    #[default]
    Holder,
    /// It is the child that a vfork waits for.
    Child,
}

/// Tasks behind one and the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queue {
    /// Whom all of them wait for in the end.
    pub root: Link,
    /// What the first of them waits for.
    pub cause: &'static str,
    /// How many tasks.
    pub waiting: u64,
    /// They wait for each other: the root is one of them.
    pub is_circle: bool,
}

/// Something notable about a blocked task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockedEvent {
    /// When the task was woken, or when it was seen to be still blocked.
    pub time: WallNs,
    /// What happened.
    pub kind: BlockedEventKind,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the task.
    pub comm: Text,
    /// When it blocked.
    pub began: WallNs,
    /// How long, in ns; so far, while it is blocked.
    pub length_ns: u64,
    /// Why; a fixed word.
    pub cause: &'static str,
    /// On what: device, file system, operation, mount, holder.
    pub detail: Option<Text>,
    /// The block device by itself.
    pub device: Option<Text>,
    /// Kernel functions, innermost first.
    pub stack: Vec<Text>,
    /// Who woke it; `None` while it is blocked.
    pub waker: Option<Waker>,
    /// Whom it waits for, whom that one waits for, and so on; only while it is blocked.
    pub waits_for: Vec<Link>,
}

/// What happened to a blocked task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockedEventKind {
    /// It was woken.
    #[default]
    Woken,
    /// It has been blocked for this long, in ns, and still is.
    Still(u64),
}

/// Who woke a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waker {
    /// A task.
    Task {
        /// Process id.
        pid: u32,
        /// Thread id.
        tid: u32,
        /// Name of the task.
        comm: Text,
    },
    /// An interrupt.
    Interrupt {
        /// A softirq, else a handler.
        is_soft: bool,
        /// What for, such as `timer`; a fixed word.
        source: &'static str,
    },
}

/// Something that was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Why; a fixed word.
    pub reason: &'static str,
    /// How often since the start.
    pub count: u64,
    /// What that means for the figures.
    pub meaning: &'static str,
}

/// What tracer itself takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnCost {
    /// CPU time of the process over the interval (1.0 = one CPU).
    pub cpu_ratio: f64,
    /// Time in tracer's kernel programs, in ns a second, as last measured;
    /// `None` until it was.
    pub bpf_ns: Option<u64>,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Memory of the BPF maps.
    pub map_bytes: u64,
}

/// The whole run, for the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Length of the run.
    pub duration_ns: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Time-averaged over the run.
    pub mean: TaskMean,
    /// The kernel's averages at the end.
    pub averages: [f64; 3],
    /// Top contributors over the whole run; their `load` is that of the end.
    pub groups: Vec<Group>,
    /// The longest episodes, one a task; those still open included.
    pub episodes: Vec<LongEpisode>,
    /// Blocked time by cause, the largest part first.
    pub causes: Vec<CauseRow>,
    /// The same by block device.
    pub devices: Vec<DeviceRow>,
    /// Lengths of the episodes over the threshold, by cause.
    pub lengths: Vec<CauseLengths>,
    /// Kernel samples taken during the run.
    pub samples: u64,
    /// Of those, how many had every task named.
    pub samples_named: u64,
    /// Mean over all samples of |tasks counted less tasks named|.
    pub sample_error: f64,
    /// Tasks that exited.
    pub exited: u64,
    /// What was lost.
    pub lost: Vec<Lost>,
    /// What tracer took, over the whole run.
    pub own: OwnCost,
}

/// A long blocked episode.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LongEpisode {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the task.
    pub comm: Text,
    /// Length, in ns.
    pub length_ns: u64,
    /// Begin, in ns before the end of the run.
    pub began_ago_ns: u64,
    /// Whether it still lasts.
    pub is_open: bool,
}
