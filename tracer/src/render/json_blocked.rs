//! The part of the JSON lines that says why tasks are blocked.

use serde::Serialize;

use super::{json::Number, time::rfc3339};
use crate::{
    snapshot::{self, BlockedEventKind, Role},
    text::Text,
};

/// A task that is blocked. `waker` is who will wake it, as far as that is known: the
/// first of `chain`.
#[derive(Serialize)]
pub(super) struct Blocked<'a> {
    pid: u32,
    tid: u32,
    comm: &'a str,
    age_ns: u64,
    cause: &'a str,
    detail: Option<&'a str>,
    stack: Vec<&'a str>,
    waker: Option<Link<'a>>,
    chain: Vec<Link<'a>>,
}

impl<'a> From<&'a snapshot::BlockedTask> for Blocked<'a> {
    fn from(task: &'a snapshot::BlockedTask) -> Self {
        Self {
            pid: task.pid,
            tid: task.tid,
            comm: task.comm.as_str(),
            age_ns: task.age_ns,
            cause: task.cause,
            detail: text(&task.detail),
            stack: task.stack.iter().map(Text::as_str).collect(),
            waker: task.waits_for.first().map(Link::from),
            chain: task.waits_for.iter().map(Link::from).collect(),
        }
    }
}

/// A task that another waits for.
#[derive(Serialize)]
pub(super) struct Link<'a> {
    pid: u32,
    tid: u32,
    comm: &'a str,
    role: &'a str,
    cause: Option<&'a str>,
    detail: Option<&'a str>,
    sleeps_in: Option<&'a str>,
}

impl<'a> From<&'a snapshot::Link> for Link<'a> {
    fn from(link: &'a snapshot::Link) -> Self {
        Self {
            pid: link.pid,
            tid: link.tid,
            comm: link.comm.as_str(),
            role: match link.role {
                Role::Holder => "holder",
                Role::Child => "child",
            },
            cause: link.cause,
            detail: text(&link.detail),
            sleeps_in: text(&link.sleeps_in),
        }
    }
}

/// Something notable about a blocked task.
#[derive(Serialize)]
pub(super) struct BlockedEvent<'a> {
    time: String,
    event: &'a str,
    threshold_ns: Option<u64>,
    pid: u32,
    tid: u32,
    comm: &'a str,
    began: String,
    length_ns: u64,
    cause: &'a str,
    detail: Option<&'a str>,
    device: Option<&'a str>,
    stack: Vec<&'a str>,
    waker: Option<Waker<'a>>,
    chain: Vec<Link<'a>>,
}

/// Who woke a task: `kind` is `task`, `softirq` or `interrupt`.
#[derive(Serialize)]
struct Waker<'a> {
    kind: &'a str,
    pid: Option<u32>,
    tid: Option<u32>,
    comm: Option<&'a str>,
    source: Option<&'a str>,
}

impl<'a> From<&'a snapshot::BlockedEvent> for BlockedEvent<'a> {
    fn from(event: &'a snapshot::BlockedEvent) -> Self {
        let (name, threshold_ns) = match event.kind {
            BlockedEventKind::Woken => ("blocked", None),
            BlockedEventKind::Still(ns) => ("blocked_long", Some(ns)),
        };
        Self {
            time: rfc3339(event.time),
            event: name,
            threshold_ns,
            pid: event.pid,
            tid: event.tid,
            comm: event.comm.as_str(),
            began: rfc3339(event.began),
            length_ns: event.length_ns,
            cause: event.cause,
            detail: text(&event.detail),
            device: text(&event.device),
            stack: event.stack.iter().map(Text::as_str).collect(),
            waker: event.waker.as_ref().map(Waker::from),
            chain: event.waits_for.iter().map(Link::from).collect(),
        }
    }
}

impl<'a> From<&'a snapshot::Waker> for Waker<'a> {
    fn from(waker: &'a snapshot::Waker) -> Self {
        match waker {
            snapshot::Waker::Task { pid, tid, comm } => Self {
                kind: "task",
                pid: Some(*pid),
                tid: Some(*tid),
                comm: Some(comm.as_str()),
                source: None,
            },
            snapshot::Waker::Interrupt { is_soft, source } => Self {
                kind: if *is_soft { "softirq" } else { "interrupt" },
                pid: None,
                tid: None,
                comm: None,
                source: Some(source),
            },
        }
    }
}

/// Tasks behind one and the same.
#[derive(Serialize)]
pub(super) struct Queue<'a> {
    cause: &'a str,
    waiting: u64,
    circle: bool,
    root: Link<'a>,
}

impl<'a> From<&'a snapshot::Queue> for Queue<'a> {
    fn from(queue: &'a snapshot::Queue) -> Self {
        Self {
            cause: queue.cause,
            waiting: queue.waiting,
            circle: queue.is_circle,
            root: Link::from(&queue.root),
        }
    }
}

/// A cause's part of a group's blocked time.
#[derive(Serialize)]
pub(super) struct CauseShare<'a> {
    cause: &'a str,
    detail: Option<&'a str>,
    blocked: Number,
}

impl<'a> From<&'a snapshot::CauseShare> for CauseShare<'a> {
    fn from(share: &'a snapshot::CauseShare) -> Self {
        Self {
            cause: share.cause,
            detail: text(&share.detail),
            blocked: Number(share.blocked),
        }
    }
}

/// Blocked time of one cause.
#[derive(Serialize)]
pub(super) struct CauseRow<'a> {
    cause: &'a str,
    detail: Option<&'a str>,
    device: Option<&'a str>,
    blocked: Number,
    waiters: Vec<Waiter<'a>>,
    waiters_total: u64,
}

impl<'a> From<&'a snapshot::CauseRow> for CauseRow<'a> {
    fn from(row: &'a snapshot::CauseRow) -> Self {
        Self {
            cause: row.cause,
            detail: text(&row.detail),
            device: text(&row.device),
            blocked: Number(row.blocked),
            waiters: row.waiters.iter().map(Waiter::from).collect(),
            waiters_total: row.waiters_total,
        }
    }
}

/// Blocked time at one block device; at none where that is null.
#[derive(Serialize)]
pub(super) struct DeviceRow<'a> {
    device: Option<&'a str>,
    blocked: Number,
    waiters: Vec<Waiter<'a>>,
    waiters_total: u64,
}

impl<'a> From<&'a snapshot::DeviceRow> for DeviceRow<'a> {
    fn from(row: &'a snapshot::DeviceRow) -> Self {
        Self {
            device: text(&row.device),
            blocked: Number(row.blocked),
            waiters: row.waiters.iter().map(Waiter::from).collect(),
            waiters_total: row.waiters_total,
        }
    }
}

#[derive(Serialize)]
struct Waiter<'a> {
    pid: Option<u32>,
    name: &'a str,
    blocked: Number,
}

impl<'a> From<&'a snapshot::Waiter> for Waiter<'a> {
    fn from(waiter: &'a snapshot::Waiter) -> Self {
        Self {
            pid: waiter.pid,
            name: waiter.name.as_str(),
            blocked: Number(waiter.blocked),
        }
    }
}

/// Episodes of one cause by length; buckets that are empty are left out.
#[derive(Serialize)]
pub(super) struct Lengths<'a> {
    cause: &'a str,
    episodes: u64,
    buckets: Vec<Bucket>,
}

#[derive(Serialize)]
struct Bucket {
    from_us: u64,
    episodes: u64,
}

impl<'a> From<&'a snapshot::CauseLengths> for Lengths<'a> {
    fn from(lengths: &'a snapshot::CauseLengths) -> Self {
        let bucket = |(power, episodes): (u32, &u64)| Bucket {
            from_us: if power == 0 { 0 } else { 1 << power },
            episodes: *episodes,
        };
        let buckets = (0..).zip(&lengths.buckets).filter(|(_, n)| **n > 0);
        Self {
            cause: lengths.cause,
            episodes: lengths.episodes,
            buckets: buckets.map(bucket).collect(),
        }
    }
}

fn text(text: &Option<Text>) -> Option<&str> {
    text.as_ref().map(Text::as_str)
}
