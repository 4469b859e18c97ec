//! What is known, as the model that renderers show.

use std::{cmp::Ordering, collections::HashMap};

use tracer_common::lost;

use super::{
    LoadAggregate, TaskIdentity,
    groups::{Group as Account, GroupKey},
    itemise::{Span, visible},
    tcp::{StackLosses, TcpAggregate},
};
use crate::{
    snapshot::{
        BlockedTask, Group, GroupBy, LoadBreakdown, LongEpisode, Lost, OtherGroups, OwnCost,
        Snapshot, Summary, TaskMean, TcpBreakdown, Verdict,
    },
    text::Text,
};

/// At most so many blocked tasks are listed; all are counted.
const BLOCKED_LISTED: usize = 100;
/// So many groups are in the summary.
const SUMMARY_GROUPS: usize = 10;
/// The least figure that two decimals show.
const VISIBLE: f64 = 0.005;
/// Below this many tasks a CPU there is nothing to speak of.
const IDLE_PER_CPU: f64 = 0.1;

impl LoadAggregate {
    /// Ends the interval.
    pub fn snapshot(&mut self, own: OwnCost, hooks_in_force: (usize, usize)) -> Snapshot {
        let interval_ns = self.latest.since_ns(self.interval.began);
        let mean = self.groups.all().0.mean(interval_ns);
        let (groups, other) = self.rows(interval_ns);
        let mut blocked = self.blocked_now();
        let blocked_total = blocked.len() as u64;
        let queues = self.queues(&blocked);
        blocked.truncate(BLOCKED_LISTED);
        let (causes, devices) = self.turned_round(Span::Interval, interval_ns);
        let snapshot = Snapshot {
            time: self.latest_wall,
            interval_ns,
            uptime_s: self.uptime_s,
            cpus: self.cpus,
            load: LoadBreakdown {
                averages: self.averages.current(),
                per_cpu: self.averages.current()[0] / f64::from(self.cpus.max(1)),
                samples: std::mem::take(&mut self.interval.samples),
                last_sample: self.totals.last_sample,
                next_sample_in_ns: self.samples.next_at().map(|at| at.since_ns(self.latest)),
                mean,
                groups,
                before_start: self.averages.before_start,
                unexplained: self.averages.unexplained,
                delayed: self.averages.delayed,
                other,
                verdict: verdict(&mean, self.cpus),
                leaked: self.averages.leaked(),
            },
            blocked,
            blocked_total,
            queues,
            causes,
            devices,
            lengths: self.lengths(),
            tcp: self.tcp_of_interval(),
            syn: self
                .tcp
                .as_mut()
                .map_or_else(Default::default, TcpAggregate::syn_snapshot),
            oom: self.oom.snapshot(),
            lost: self.lost(),
            hooks_in_force,
            own,
        };
        self.totals.snapshots += 1;
        self.interval.began = self.latest;
        let floor = self.summary_floor();
        self.groups
            .begin_interval(|group| group.total.total_ns() >= floor);
        snapshot
    }

    fn tcp_of_interval(&mut self) -> TcpBreakdown {
        let Some(mut tcp) = self.tcp.take() else {
            return TcpBreakdown::default();
        };
        let breakdown = tcp.snapshot(|pid, cgroup| self.cgroup_of(pid, cgroup));
        self.tcp = Some(tcp);
        breakdown
    }

    /// The whole run.
    pub fn summary(&self, own: OwnCost) -> Summary {
        let duration_ns = self.latest.since_ns(self.began);
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.total.total_ns()));
        let threads = self.threads();
        let in_run = |(key, group): &(&GroupKey, &Account)| Group {
            mean: group.total.mean(duration_ns),
            exited: group.exited_total,
            causes: visible(self.shares(&group.causes.total, duration_ns)),
            episodes: group.total.episodes,
            ..self.row(key, group, duration_ns, &threads)
        };
        let open: Vec<_> = self
            .blocked_now()
            .into_iter()
            .take(BLOCKED_LISTED)
            .map(|task| LongEpisode {
                pid: task.pid,
                tid: task.tid,
                comm: task.comm,
                length_ns: task.age_ns,
                began_ago_ns: task.age_ns,
                is_open: true,
            })
            .collect();
        let samples = self.totals.samples;
        let (causes, devices) = self.turned_round(Span::Run, duration_ns);
        Summary {
            duration_ns,
            snapshots: self.totals.snapshots,
            mean: self.groups.all().1.mean(duration_ns),
            averages: self.averages.current(),
            groups: groups
                .iter()
                .map(in_run)
                .filter(is_visible)
                .take(SUMMARY_GROUPS)
                .collect(),
            episodes: self.longest.list(&open, self.latest),
            causes,
            devices,
            lengths: self.lengths(),
            samples,
            samples_named: self.totals.samples_named,
            sample_error: if samples == 0 {
                0.0
            } else {
                self.totals.sample_error as f64 / samples as f64
            },
            exited: self.totals.exited,
            tcp: self.tcp.as_ref().map_or_else(TcpBreakdown::default, |tcp| {
                tcp.summary(|pid, cgroup| self.cgroup_of(pid, cgroup))
            }),
            syn: self
                .tcp
                .as_ref()
                .map_or_else(Default::default, TcpAggregate::syn_summary),
            oom: self.oom.summary(),
            lost: self.lost(),
            own,
        }
    }

    /// The table: the largest groups, and what the others come to.
    fn rows(&self, interval_ns: u64) -> (Vec<Group>, OtherGroups) {
        let threads = self.threads();
        let mut rows: Vec<Group> = self
            .groups
            .iter()
            .filter(|(_, group)| group.interval.total_ns() > 0 || group.load != [0.0; 3])
            .map(|(key, group)| self.row(key, group, interval_ns, &threads))
            .collect();
        rows.sort_by(largest_first);
        let is_wanted = |row: &Group| match self.options.pid {
            Some(pid) => row.pid == Some(pid),
            None => is_visible(row),
        };
        let (mut shown, mut rest): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_wanted);
        rest.extend(shown.split_off(shown.len().min(self.options.top)));
        let mut other = OtherGroups {
            groups: rest.len() as u64,
            load: self.groups.faded(),
            ..OtherGroups::default()
        };
        for row in &rest {
            other.mean.running += row.mean.running;
            other.mean.waiting += row.mean.waiting;
            other.mean.throttled += row.mean.throttled;
            other.mean.blocked += row.mean.blocked;
            other
                .load
                .iter_mut()
                .zip(row.load)
                .for_each(|(sum, load)| *sum += load);
        }
        (shown, other)
    }

    fn row(
        &self,
        key: &GroupKey,
        group: &Account,
        interval_ns: u64,
        threads: &HashMap<GroupKey, u64>,
    ) -> Group {
        let process = match key {
            GroupKey::Process(id) => self.tasks.process(*id),
            _ => None,
        };
        Group {
            is_kernel: process.is_some_and(|process| process.is_kernel),
            threads: match process {
                Some(process) => process.threads,
                None => threads.get(key).copied().unwrap_or(0),
            },
            exited: group.exited,
            made_by: group.maker(),
            episodes: group.interval.episodes,
            mean: group.interval.mean(interval_ns),
            load: group.load,
            causes: visible(self.shares(&group.causes.interval, interval_ns)),
            ..self.named(key)
        }
    }

    /// A row that has no figures yet, only its names.
    pub(super) fn named(&self, key: &GroupKey) -> Group {
        let process = match key {
            GroupKey::Process(id) => self.tasks.process(*id),
            _ => None,
        };
        let of_account = || self.groups.get(key).map(|group| &group.identity);
        let identity = process.map(|process| &process.identity).or_else(of_account);
        let unknown = TaskIdentity::default();
        let identity = identity.unwrap_or(&unknown);
        let comm = || Some(identity.comm.clone());
        let cgroup = |id: u64| self.cgroup_names.get(&id).cloned();
        let user = |uid: u32| Some(self.options.users.name(uid));
        match key {
            GroupKey::Process(id) => Group {
                pid: Some(id.pid),
                comm: comm(),
                cgroup: cgroup(identity.cgroup),
                user: user(identity.uid),
                ..Group::default()
            },
            GroupKey::Exited(name) | GroupKey::Comm(name) => Group {
                comm: Some(name.clone()),
                ..Group::default()
            },
            GroupKey::Cgroup(id) => Group {
                cgroup: Some(cgroup(*id).unwrap_or_else(|| Text::from("(unknown)"))),
                ..Group::default()
            },
            GroupKey::User(uid) => Group {
                user: user(*uid),
                ..Group::default()
            },
            GroupKey::NameOnly => Group {
                comm: Some(Text::from("(exited)")),
                ..Group::default()
            },
        }
    }

    /// Living tasks by group, where a group is not a process, which knows its own.
    fn threads(&self) -> HashMap<GroupKey, u64> {
        let mut threads = HashMap::new();
        if self.options.by == GroupBy::Process {
            return threads;
        }
        for task in self.tasks.iter() {
            *threads.entry(self.groups.key(&task.identity)).or_default() += 1;
        }
        threads
    }

    /// Blocked at the latest reading, longest first.
    fn blocked_now(&self) -> Vec<BlockedTask> {
        let mut blocked: Vec<BlockedTask> = self
            .tasks
            .iter()
            .filter(|task| {
                self.options
                    .pid
                    .is_none_or(|pid| task.identity.process.pid == pid)
            })
            .filter_map(|task| self.blocked_task(task))
            .filter(|task| task.age_ns >= self.options.min_block_ns)
            .collect();
        blocked.sort_by_key(|task| (std::cmp::Reverse(task.age_ns), task.tid));
        blocked
    }

    /// The least total that makes the summary.
    fn summary_floor(&self) -> u64 {
        let mut totals: Vec<u64> = self
            .groups
            .iter()
            .map(|(_, group)| group.total.total_ns())
            .collect();
        totals.sort_unstable_by(|a, b| b.cmp(a));
        totals.get(SUMMARY_GROUPS * 2).copied().unwrap_or(0)
    }

    fn lost(&self) -> Vec<Lost> {
        let counter = |index: u32| {
            let at = |counters: &[u64]| counters.get(index as usize).copied().unwrap_or(0);
            at(&self.counters) - at(&self.counters_before)
        };
        let lost = |reason, count, meaning| Lost {
            reason,
            count,
            meaning,
        };
        let of_tcp = |of: fn(&TcpAggregate) -> u64| self.tcp.as_ref().map_or(0, of);
        let stacks = self.tcp.as_ref();
        let stacks = stacks.map_or_else(StackLosses::default, TcpAggregate::stack_losses);
        vec![
            lost(
                "task_storage",
                counter(lost::STORAGE),
                "a blocked episode had no slot: it is known from the next snapshot on",
            ),
            lost(
                "waking_without_slot",
                counter(lost::WAKING),
                "a blocked episode may have ended uncounted",
            ),
            lost(
                "exit_ring_full",
                counter(lost::EXIT_RING),
                "an exited task is known by name and totals only",
            ),
            lost(
                "exit_totals",
                counter(lost::EXIT_TABLE),
                "what an exited task did since the last snapshot is not counted",
            ),
            lost(
                "exit_unaccounted",
                self.exits.unaccounted,
                "an exit was seen, but neither reported nor counted as lost: a fault of tracer's",
            ),
            lost(
                "fold_ring_full",
                counter(lost::FOLD_RING),
                "a kernel sample lacks one CPU's names",
            ),
            lost(
                "fold_list_cut",
                counter(lost::FOLD_LIST),
                "the walk over a CPU's run queue did not come to its end: a kernel sample lacks names",
            ),
            lost(
                "episode_ring_full",
                counter(lost::EPISODE_RING),
                "a blocked episode is counted with its time, but not with its cause",
            ),
            lost(
                "episode_unaccounted",
                self.episodes.unaccounted,
                "a blocked episode was seen, but neither reported nor counted as lost: a fault of tracer's",
            ),
            lost(
                "stack_table_full",
                counter(lost::STACK_TABLE),
                "more different kernel stacks than are kept: a blocked episode has no cause",
            ),
            lost(
                "tcp_namespaces",
                counter(lost::NAMESPACES),
                "more network namespaces than are told apart: sockets by state are too few",
            ),
            lost(
                "tcp_actors",
                counter(lost::ACTORS) + of_tcp(TcpAggregate::dropped_actors),
                "more pairs of a process and a port than the table holds: a connection is not put on who opened or closed it, or not in the summary",
            ),
            lost(
                "tcp_ports",
                counter(lost::PORTS) + of_tcp(TcpAggregate::dropped_ports),
                "more ports than the table holds: a connection has no row by port, or none in the summary",
            ),
            lost(
                "tcp_waiting",
                counter(lost::WAITING),
                "more sockets in CLOSE_WAIT than the table holds: one is counted by its state only",
            ),
            lost(
                "tcp_listeners",
                counter(lost::LISTENERS) + of_tcp(TcpAggregate::listeners_left_out),
                "more listeners than the table holds: of one the queues are not known",
            ),
            lost(
                "tcp_cookies",
                counter(lost::COOKIES),
                "more listeners with SYN cookies, or more kinds of connections by cookie, than the tables hold: a cookie is counted for its namespace only",
            ),
            lost(
                "tcp_seed_ring_full",
                counter(lost::SEED_RING),
                "too many transitions while the sockets from before the start were counted: sockets by state may be off by so many",
            ),
            lost(
                "tcp_opening_ring_full",
                counter(lost::OPENING_RING),
                "a suspected process opened a connection: it is not known where",
            ),
            lost(
                "tcp_opening_unwatched",
                stacks.unwatched,
                "it was not looked where a suspected process opens connections: the hook on all system calls had been attached for as long as it may (10 s in 10 minutes, 5 s for a user)",
            ),
            lost(
                "tcp_opening_unnamed",
                stacks.unnamed,
                "the functions that opened a connection are not known: its process has gone, or there were too many",
            ),
            lost(
                "tcp_opening_given_up",
                stacks.given_up,
                "the functions that opened a connection are not known: to read the process's files took more than a second, or too much CPU time or memory",
            ),
            lost(
                "tcp_opening_partial",
                stacks.partial,
                "a file of the process was not read: it is no regular file, not the process's own, too large, or one too many; functions may be missing or told by their address",
            ),
            lost(
                "tcp_transition_missed",
                self.tcp.as_ref().map_or(0, TcpAggregate::missed),
                "an interrupt came into the hook on the same CPU: a transition is not counted",
            ),
            lost(
                "tcp_transition_unseen",
                self.tcp.as_ref().map_or(0, TcpAggregate::unseen),
                "a socket was found in another state when all were counted anew: the kernel ran no hook for a transition; states are right again",
            ),
            lost(
                "tcp_namespaces_unopened",
                self.tcp.as_ref().map_or(0, TcpAggregate::unopened),
                "a network namespace that could not be opened: its sockets from before the start, its TIME_WAIT and its counters are not known",
            ),
            lost(
                "kill_ring_full",
                counter(lost::KILL_RING),
                "more processes were killed than the ring holds: who it was is not told, unless the kernel's log has it",
            ),
            lost(
                "sigkill_ring_half_full",
                counter(lost::KILL_SIGNALS),
                "more SIGKILLs of processes than half of the ring of kills holds, the rest of which is for memory kills: one is not told",
            ),
            lost(
                "sigkill_sender_limit",
                self.oom.signals_of_one_sender(),
                "a process sent more SIGKILLs in a second than are told of one: it is counted only",
            ),
            lost(
                "kills_untold",
                self.oom.untold(),
                "more kills at once than are kept until they are told: one is counted only",
            ),
            lost(
                "kill_memory_unread",
                self.oom.unlooked(),
                "so many kills that to look at the memory of all processes each time would take more than a 32nd of a CPU: at one, what other processes had is some seconds old",
            ),
            lost(
                "kernel_log_overwritten",
                self.oom.log_lost(),
                "the kernel's log was overwritten before it was read: of a kill less is known",
            ),
            lost(
                "memory_cgroups_unread",
                self.oom.cgroups_unread(),
                "more memory cgroups than are looked at, or one that cannot be read: those that are full may not be listed",
            ),
            lost(
                "kernel_sample",
                self.samples.missed(),
                "a sample of the kernel's passed unread: its count is not known",
            ),
            lost(
                "exit_unseen",
                self.tasks.vanished(),
                "a task went without a word: its last moments are not counted",
            ),
            lost(
                "part_unread",
                self.failed_parts,
                "the kernel refused a part of a reading, such as the memory of processes or the sockets: what it has changed since is not known",
            ),
            lost(
                "output_unread",
                self.unwritten,
                "nothing read the output, and what waited was as much as is kept: a snapshot or an event is not written",
            ),
            lost(
                "undecodable_bytes",
                self.undecodable,
                "the kernel side wrote what this build does not know",
            ),
        ]
    }
}

fn largest_first(a: &Group, b: &Group) -> Ordering {
    let used =
        |row: &Group| row.mean.running + row.mean.waiting + row.mean.throttled + row.mean.blocked;
    b.load[0]
        .total_cmp(&a.load[0])
        .then(used(b).total_cmp(&used(a)))
        .then(a.pid.cmp(&b.pid))
        .then(a.comm.cmp(&b.comm))
}

/// Whether any figure of a row shows at two decimals; a busy host has hundreds
/// of rows of which none does.
fn is_visible(row: &Group) -> bool {
    let TaskMean {
        running,
        waiting,
        throttled,
        blocked,
    } = row.mean;
    let figures = row
        .load
        .into_iter()
        .chain([running, waiting, throttled, blocked]);
    figures.into_iter().any(|figure| figure.abs() >= VISIBLE)
}

/// What dominates. Running tasks alone are no trouble: they say something only
/// when nothing else does.
fn verdict(mean: &TaskMean, cpus: u32) -> Verdict {
    let TaskMean {
        running,
        waiting,
        throttled,
        blocked,
    } = *mean;
    let total = running + waiting + throttled + blocked;
    if total < IDLE_PER_CPU * f64::from(cpus) {
        return Verdict::Idle;
    }
    let parts = [
        (running, Verdict::MostlyRunning),
        (waiting, Verdict::MostlyWaiting),
        (throttled, Verdict::MostlyThrottled),
        (blocked, Verdict::MostlyBlocked),
    ];
    let largest = parts.iter().max_by(|a, b| a.0.total_cmp(&b.0));
    largest.map_or(Verdict::Idle, |(_, verdict)| *verdict)
}
