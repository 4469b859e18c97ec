//! Blocked time by cause, by device, by stack; who waits for whom.

use std::{cmp::Reverse, collections::HashMap};

use super::{
    LoadAggregate,
    causes::Cause,
    groups::GroupKey,
    tasks::Task,
    why::{Reason, Why},
};
use crate::{
    snapshot::{
        BlockedStack, BlockedTask, CauseLengths, CauseRow, CauseShare, DeviceRow, Group, Link,
        Queue, Role, Waiter,
    },
    text::Text,
};

/// Longest chain of tasks that wait for each other which is followed.
const LONGEST_CHAIN: usize = 8;
/// So many groups are named for a cause or a device.
const WAITERS: usize = 8;
/// So many queues of tasks behind one are told.
const QUEUES: usize = 10;
/// The least part that two decimals show.
const VISIBLE: f64 = 0.005;

/// Over which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// Since the last snapshot.
    Interval,
    /// Since the start.
    Run,
}

impl LoadAggregate {
    /// What an account's blocked time was for, the largest part first.
    pub(super) fn shares(&self, causes: &HashMap<Why, u64>, over_ns: u64) -> Vec<CauseShare> {
        let mut parts: HashMap<Reason, u64> = HashMap::new();
        for (why, ns) in causes {
            *parts.entry(self.names.reason(why)).or_default() += ns;
        }
        let share = |(reason, ns): (Reason, u64)| CauseShare {
            cause: reason.cause.word(),
            detail: reason.detail,
            blocked: ratio(ns, over_ns),
        };
        let mut shares: Vec<_> = parts.into_iter().map(share).collect();
        shares.sort_by(|a, b| {
            let order = b.blocked.total_cmp(&a.blocked);
            order.then_with(|| (a.cause, &a.detail).cmp(&(b.cause, &b.detail)))
        });
        shares
    }

    /// The table by cause, and the one by device.
    pub(super) fn turned_round(&self, span: Span, over_ns: u64) -> (Vec<CauseRow>, Vec<DeviceRow>) {
        let mut by_cause: HashMap<Reason, HashMap<&GroupKey, u64>> = HashMap::new();
        let mut by_device: HashMap<Option<Text>, HashMap<&GroupKey, u64>> = HashMap::new();
        for (key, group) in self.groups.iter() {
            let causes = match span {
                Span::Interval => &group.causes.interval,
                Span::Run => &group.causes.total,
            };
            for (why, ns) in causes {
                let reason = self.names.reason(why);
                let device = reason.device.clone();
                *by_device.entry(device).or_default().entry(key).or_default() += ns;
                *by_cause.entry(reason).or_default().entry(key).or_default() += ns;
            }
        }
        let blocked = |groups: &HashMap<&GroupKey, u64>| ratio(groups.values().sum(), over_ns);
        let mut causes: Vec<_> = by_cause
            .into_iter()
            .map(|(reason, groups)| CauseRow {
                cause: reason.cause.word(),
                detail: reason.detail,
                device: reason.device,
                blocked: blocked(&groups),
                waiters_total: groups.len() as u64,
                waiters: self.waiters(groups, over_ns),
            })
            .collect();
        causes.sort_by(|a, b| {
            let order = b.blocked.total_cmp(&a.blocked);
            order.then_with(|| (a.cause, &a.detail).cmp(&(b.cause, &b.detail)))
        });
        let mut devices: Vec<_> = by_device
            .into_iter()
            .map(|(device, groups)| DeviceRow {
                device,
                blocked: blocked(&groups),
                waiters_total: groups.len() as u64,
                waiters: self.waiters(groups, over_ns),
            })
            .collect();
        devices.sort_by(|a, b| {
            let order = b.blocked.total_cmp(&a.blocked);
            order.then_with(|| a.device.cmp(&b.device))
        });
        (causes, devices)
    }

    fn waiters(&self, groups: HashMap<&GroupKey, u64>, over_ns: u64) -> Vec<Waiter> {
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(key, ns)| (Reverse(*ns), self.pid_of(key)));
        let waiter = |(key, ns): (&GroupKey, u64)| {
            let Group {
                pid,
                comm,
                cgroup,
                user,
                ..
            } = self.named(key);
            Waiter {
                pid,
                name: comm.or(cgroup).or(user).unwrap_or_default(),
                blocked: ratio(ns, over_ns),
            }
        };
        groups.into_iter().take(WAITERS).map(waiter).collect()
    }

    fn pid_of(&self, key: &GroupKey) -> u32 {
        match key {
            GroupKey::Process(id) => id.pid,
            _ => 0,
        }
    }

    /// Episodes by length, for each cause; the kernel counted them.
    pub(super) fn lengths(&self) -> Vec<CauseLengths> {
        let lengths = self.names.lengths().into_iter();
        lengths
            .map(|(cause, buckets)| CauseLengths {
                cause: cause.word(),
                episodes: buckets.iter().sum(),
                buckets,
            })
            .collect()
    }

    /// All blocked time of the run by process, cause and kernel stack.
    pub fn stacks(&self) -> Vec<BlockedStack> {
        let mut stacks = Vec::new();
        for (key, group) in self.groups.iter() {
            let Group { pid, comm, .. } = self.named(key);
            for (why, ns) in &group.causes.total {
                let reason = self.names.reason(why);
                let frames = match why {
                    Why::At(place) => self.names.frames(place.stack).to_vec(),
                    Why::Brief | Why::Lost => Vec::new(),
                };
                stacks.push(BlockedStack {
                    pid,
                    comm: comm.clone().unwrap_or_default(),
                    cause: reason.cause.word(),
                    detail: reason.detail,
                    frames,
                    blocked_ns: *ns,
                });
            }
        }
        stacks.sort_by(|a, b| {
            let order = b.blocked_ns.cmp(&a.blocked_ns);
            order.then_with(|| (a.pid, &a.comm, &a.frames).cmp(&(b.pid, &b.comm, &b.frames)))
        });
        stacks
    }

    /// A task that is blocked now; `None` when it is not.
    pub(super) fn blocked_task(&self, task: &Task) -> Option<BlockedTask> {
        let since = task.blocked_since?;
        let reason = self.reason_of(task);
        let frames = self.names.frames(task.waits.stack);
        Some(BlockedTask {
            pid: task.identity.process.pid,
            tid: task.tid,
            comm: task.identity.comm.clone(),
            age_ns: self.latest.since_ns(since),
            cause: reason.cause.word(),
            detail: reason.detail,
            stack: frames.to_vec(),
            waits_for: self.chain(task),
        })
    }

    /// Why a task is blocked; nothing known when it is not.
    pub(super) fn reason_of(&self, task: &Task) -> Reason {
        let Some(since) = task.blocked_since else {
            return Reason::default();
        };
        let find = |tid| self.tasks.process_of(tid);
        let place = self.names.place(&task.waits, since, None, find);
        self.names.reason(&Why::At(place))
    }

    /// Whom a blocked task waits for, whom that one waits for, and so on.
    fn chain(&self, first: &Task) -> Vec<Link> {
        let mut links: Vec<Link> = Vec::new();
        let mut task = first;
        while let Some((role, next)) = self.next_in_chain(task) {
            let is_round = next.tid == first.tid || links.iter().any(|link| link.tid == next.tid);
            if is_round || links.len() >= LONGEST_CHAIN {
                break;
            }
            links.push(self.link(role, next));
            task = next;
        }
        links
    }

    fn link(&self, role: Role, task: &Task) -> Link {
        let reason = task.blocked_since.map(|_| self.reason_of(task));
        let (cause, detail) = match reason {
            Some(reason) => (Some(reason.cause.word()), reason.detail),
            None => (None, None),
        };
        Link {
            pid: task.identity.process.pid,
            tid: task.tid,
            comm: task.identity.comm.clone(),
            role,
            cause,
            detail,
            sleeps_in: self.names.sleeps_in(task.tid).cloned(),
        }
    }

    fn next_in_chain(&self, task: &Task) -> Option<(Role, &Task)> {
        task.blocked_since?;
        let cause = self.names.finding(task.waits.stack).cause;
        let (role, tid) = if cause.is_lock() {
            (Role::Holder, task.waits.holder)
        } else if cause == Cause::Vfork {
            (Role::Child, task.waits.child)
        } else {
            return None;
        };
        Some((role, self.tasks.get(tid)?))
    }

    /// Tasks that wait behind one and the same, the longest queue first.
    pub(super) fn queues(&self, blocked: &[BlockedTask]) -> Vec<Queue> {
        let mut queues: HashMap<u32, Queue> = HashMap::new();
        for task in blocked {
            let is_behind = |link: &Link| link.role == Role::Holder;
            if !task.waits_for.first().is_some_and(is_behind) {
                continue;
            }
            let Some((root, is_circle)) = self.tasks.get(task.tid).map(|task| self.root(task))
            else {
                continue;
            };
            let queue = queues.entry(root.tid).or_insert_with(|| Queue {
                root: self.link(Role::Holder, root),
                cause: task.cause,
                waiting: 0,
                is_circle,
            });
            queue.waiting += 1;
        }
        let mut queues: Vec<_> = queues.into_values().collect();
        queues.sort_by_key(|queue| (Reverse(queue.waiting), queue.root.tid));
        queues.truncate(QUEUES);
        queues
    }

    /// Whom a task waits for in the end; of tasks that wait for each other the one
    /// with the least number, and that it is so.
    fn root<'a>(&'a self, first: &'a Task) -> (&'a Task, bool) {
        let mut way = vec![first];
        while let Some((_, next)) = way.last().and_then(|task| self.next_in_chain(task)) {
            if let Some(at) = way.iter().position(|task| task.tid == next.tid) {
                let circle = way.iter().skip(at);
                let least = circle.min_by_key(|task| task.tid);
                return (least.unwrap_or(&first), true);
            }
            way.push(next);
        }
        (way.last().unwrap_or(&first), false)
    }
}

/// The parts that two decimals show.
pub(super) fn visible(mut shares: Vec<CauseShare>) -> Vec<CauseShare> {
    shares.retain(|share| share.blocked >= VISIBLE);
    shares
}

fn ratio(ns: u64, over_ns: u64) -> f64 {
    if over_ns == 0 {
        0.0
    } else {
        ns as f64 / over_ns as f64
    }
}
