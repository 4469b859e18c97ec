//! The part of the model that says why tasks are blocked.

use crate::{clock::WallNs, text::Text};

/// Number of buckets of [`CauseLengths`].
pub const LENGTH_BUCKETS: usize = tracer_common::block::LENGTH_BUCKETS;

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
