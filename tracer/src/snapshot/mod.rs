//! The model of one tick: every figure an output shows, computed. Renderers
//! choose, order and format, but never calculate.
//!
//! Rates are in tasks (1.0 = one task all the time), times in ns, sizes in
//! bytes. [`crate::figures`] says of each figure what it is and where it comes from.

mod blocked;
mod oom;
mod syn;
mod tcp;
mod tcp_events;

pub use self::blocked::{
    BlockedEvent, BlockedEventKind, BlockedStack, BlockedTask, CauseLengths, CauseRow, CauseShare,
    DeviceRow, LENGTH_BUCKETS, Link, LongEpisode, Queue, Role, Waiter, Waker,
};
pub use self::oom::{
    Candidate, CgroupMemory, HostMemory, Kill, KillKind, KillScope, Named, OomBreakdown,
    ProcessMemory,
};
pub use self::syn::{
    ByCookie, Cookies, Listener, NamespaceSyn, Prefix, SourcesOf, SynBreakdown, SynEvent,
    SynSettings, SynSources, SynVerdict,
};
pub use self::tcp::{
    Actor, CloseWait, Closer, NamespaceStates, Netns, Port, Side, StateCount, TcpBreakdown,
    TcpCounters, TcpState, TimeWait, Timer, TimerKind, Times, Transition, WaitingSocket,
    per_second,
};
pub use self::tcp_events::{DeadPeer, LeakEvent, ResetStorm};
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
    /// What a text is about.
    pub subject: Subject,
    /// Whether transitions are shown as a grid, and not as a list.
    pub matrix: bool,
    /// Whether of memory only those are shown who are next.
    pub next: bool,
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

/// What a text is about. JSON Lines carry everything always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// All there is.
    #[default]
    All,
    /// The load alone.
    Load,
    /// TCP sockets alone.
    Tcp,
    /// Listeners alone: what waits at them.
    Syn,
    /// Memory alone: kills, and who is next.
    Oom,
}

/// Something notable.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A blocked task.
    Blocked(BlockedEvent),
    /// A socket that was forgotten in CLOSE_WAIT.
    Leak(LeakEvent),
    /// Many connections that end in resets.
    ResetStorm(ResetStorm),
    /// A peer that does not answer.
    DeadPeer(DeadPeer),
    /// A listener in trouble.
    Syn(Box<SynEvent>),
    /// A process that was killed.
    Kill(Box<Kill>),
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
    /// TCP sockets.
    pub tcp: TcpBreakdown,
    /// Listeners.
    pub syn: SynBreakdown,
    /// Memory, kills, and who is next.
    pub oom: OomBreakdown,
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
    /// Of processes that ended: who made them, where one made at least half of what they did.
    pub made_by: Option<(u32, Text)>,
    /// Blocked episodes that ended within the interval.
    pub episodes: u64,
    /// Time-averaged over the interval.
    pub mean: TaskMean,
    /// Its part of load1, load5, load15.
    pub load: [f64; 3],
    /// What its blocked time was for, the largest part first.
    pub causes: Vec<CauseShare>,
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
    /// TCP sockets at the end; its interval is the whole run.
    pub tcp: TcpBreakdown,
    /// Listeners at the end; what is counted is of the run.
    pub syn: SynBreakdown,
    /// Memory at the end, and kills of the run.
    pub oom: OomBreakdown,
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
