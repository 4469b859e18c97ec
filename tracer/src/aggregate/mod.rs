//! Pure: (state, reading) -> state -> model. Time comes in with the readings;
//! nothing here opens a file, reads a clock or knows BPF.
//!
//! `tasks.rs` turns counters of tasks into used time, `throttle.rs` tells held
//! back from waiting, `groups.rs` adds it up, `samples.rs` names the kernel's own
//! samples, `load.rs` keeps each group's part of the averages. `mod.rs` is the order
//! of it all.

pub mod blame;
pub mod blocked;
pub mod causes;
mod events;
pub mod groups;
mod itemise;
pub mod load;
mod model;
pub mod oom;
pub mod processes;
pub mod samples;
pub mod syn;
pub mod tasks;
pub mod tcp;
pub mod throttle;
pub mod wakers;
pub mod why;

use std::collections::{HashMap, HashSet};

use tracer_common::{lost, task::ExitTotals};

use self::{
    blame::Blame,
    blocked::Longest,
    groups::{GroupKey, Groups},
    load::Averages,
    oom::{OomAggregate, OomReading},
    processes::{Process, ProcessId},
    samples::{Sample, Samples},
    tasks::TaskTable,
    tcp::{TcpAges, TcpAggregate, TcpReading},
    throttle::Throttle,
    why::{Names, NewNames},
};
use crate::{
    clock::{MonotonicNs, WallNs},
    decode::{block::EpisodeReading, clock::ClockReading, fold::FoldReading, task::TaskReading},
    host::{load::AveragesReading, users::Users},
    snapshot::{Event, GroupBy, KernelSample, Kill, TaskMean},
    text::Text,
};

/// Most names of cgroups that are kept without asking which are in use.
const MOST_NAMES: usize = 65_536;

/// Everything read at one moment.
#[derive(Debug, Default)]
pub struct Reading {
    /// When, by the kernel's clocks.
    pub clock: ClockReading,
    /// When, by the wall clock.
    pub wall: WallNs,
    /// The kernel's averages, read just before the tasks.
    pub averages: AveragesReading,
    /// CPUs online.
    pub cpus: u32,
    /// Tasks that may have changed; all of them when `is_complete`.
    pub tasks: Vec<TaskReading>,
    /// Whether every task was read.
    pub is_complete: bool,
    /// Tasks that exited, in order.
    pub exits: Vec<TaskReading>,
    /// Exits by name that the ring could not take, cumulative.
    pub exit_table: Vec<(Text, ExitTotals)>,
    /// Folds of the kernel's samples.
    pub folds: Vec<FoldReading>,
    /// Counters of the kernel side, cumulative.
    pub counters: Counters,
    /// Bytes that no reading could be made of.
    pub undecodable: u64,
    /// Parts that could not be read.
    pub failed_parts: u64,
    /// Names of cgroups that were not known before.
    pub cgroup_names: Vec<(u64, Text)>,
    /// Episodes over the threshold that ended, in order.
    pub episodes: Vec<EpisodeReading>,
    /// Names of what tasks wait for that were not known before.
    pub names: NewNames,
    /// TCP sockets; `None` where there is no hook on them.
    pub tcp: Option<TcpReading>,
    /// Memory and kills.
    pub oom: OomReading,
}

/// What the aggregation is asked for.
#[derive(Debug, Default)]
pub struct Options {
    /// What a group is.
    pub by: GroupBy,
    /// At most this many groups in a snapshot.
    pub top: usize,
    /// Only this process, when given: the others become *other*.
    pub pid: Option<u32>,
    /// Blocked tasks younger than this are not listed, in ns.
    pub min_block_ns: u64,
    /// When a socket is taken for leaked.
    pub leaks: TcpAges,
    /// Names of users.
    pub users: Users,
}

/// All that is known of the load.
#[derive(Debug)]
pub struct LoadAggregate {
    options: Options,
    began: MonotonicNs,
    latest: MonotonicNs,
    latest_wall: WallNs,
    uptime_s: u64,
    cpus: u32,
    tasks: TaskTable,
    throttle: Throttle,
    groups: Groups,
    samples: Samples,
    averages: Averages,
    longest: Longest,
    exit_table: HashMap<Text, ExitTotals>,
    cgroup_names: HashMap<u64, Text>,
    names: Names,
    episodes: Balance,
    counters: Counters,
    /// What was counted before the first reading concerns no figure.
    counters_before: Counters,
    exits: Balance,
    undecodable: u64,
    failed_parts: u64,
    unwritten: u64,
    tcp: Option<TcpAggregate>,
    oom: OomAggregate,
    interval: Interval,
    totals: RunTotals,
}

/// What a ring was to take, against what came and what it refused: equal in the end.
#[derive(Debug, Default)]
struct Balance {
    delivered: u64,
    unaccounted: u64,
}

impl Balance {
    /// What was seen until the reading before has come by now, in one way or the other.
    fn settle(&mut self, seen_before: u64, refused: u64, delivered: usize) {
        self.delivered += delivered as u64;
        self.unaccounted = seen_before.saturating_sub(self.delivered + refused);
    }
}

/// The counters of the kernel side, by the indices of `tracer_common::lost`.
pub type Counters = [u64; lost::COUNTERS as usize];

/// What was gathered since the last snapshot.
#[derive(Debug, Default)]
struct Interval {
    began: MonotonicNs,
    samples: Vec<KernelSample>,
}

/// What was gathered since the start.
#[derive(Debug, Default)]
struct RunTotals {
    snapshots: u64,
    samples: u64,
    samples_named: u64,
    sample_error: u64,
    exited: u64,
    last_sample: Option<KernelSample>,
}

impl LoadAggregate {
    /// Begins with a complete reading: what was used before it is not counted.
    pub fn new(options: Options, first: &Reading) -> Self {
        let now = first.clock.now;
        let mut aggregate = Self {
            groups: Groups::new(options.by),
            began: now,
            latest: now,
            latest_wall: first.wall,
            uptime_s: first.averages.uptime_s,
            cpus: first.cpus,
            tasks: TaskTable::new(now),
            throttle: Throttle::default(),
            samples: Samples::new(&first.clock),
            averages: Averages::new(first.averages.fixed),
            longest: Longest::default(),
            exit_table: first.exit_table.iter().cloned().collect(),
            cgroup_names: HashMap::new(),
            names: Names::default(),
            episodes: Balance::default(),
            counters: [0; lost::COUNTERS as usize],
            counters_before: first.counters,
            exits: Balance::default(),
            undecodable: 0,
            failed_parts: 0,
            unwritten: 0,
            tcp: first
                .tcp
                .as_ref()
                .map(|tcp| TcpAggregate::new(options.leaks, &first.clock, tcp)),
            oom: OomAggregate::default(),
            interval: Interval {
                began: now,
                samples: Vec::new(),
            },
            totals: RunTotals::default(),
            options,
        };
        aggregate.observe(first);
        // What exited between the first hook and this reading is nobody's.
        aggregate.groups = Groups::new(aggregate.options.by);
        aggregate.totals = RunTotals::default();
        aggregate
    }

    /// Snapshots and events that could not be written so far.
    pub fn set_unwritten(&mut self, unwritten: u64) {
        self.unwritten = unwritten;
    }

    /// Takes a reading in.
    pub fn observe(&mut self, reading: &Reading) {
        let now = reading.clock.now;
        self.latest = now;
        self.latest_wall = reading.wall;
        self.uptime_s = reading.averages.uptime_s;
        self.cpus = reading.cpus;
        let before = std::mem::replace(&mut self.counters, reading.counters);
        self.exits.settle(
            before[lost::EXITS_SEEN as usize],
            reading.counters[lost::EXIT_RING as usize],
            reading.exits.len(),
        );
        self.episodes.settle(
            before[lost::EPISODES_SEEN as usize],
            reading.counters[lost::EPISODE_RING as usize],
            reading.episodes.len(),
        );
        self.undecodable += reading.undecodable;
        self.failed_parts += reading.failed_parts;
        self.name_cgroups(&reading.cgroup_names);
        self.names.learn(&reading.names);

        self.samples.begin(&reading.clock, &reading.folds);
        let mut used = Vec::with_capacity(reading.tasks.len() + reading.exits.len());
        self.tasks.read(reading, &self.names, &mut used);
        self.throttle.tell_apart(reading, &mut used);
        for used in &used {
            self.groups.credit(used);
        }
        let living = reading.tasks.iter().map(|task| (task, now));
        let exited = reading
            .exits
            .iter()
            .map(|task| (task, MonotonicNs(u64::MAX)));
        for (task, until) in living.chain(exited) {
            if self.options.pid.is_none_or(|pid| pid == task.pid) {
                self.longest.see(task);
            }
            self.samples.see(task, until, &reading.clock, || {
                let identity = self.tasks.identify(task);
                (self.groups.key(&identity), identity)
            });
        }
        self.samples.name(|tid| {
            let task = self.tasks.get(tid)?;
            Some((self.groups.key(&task.identity), task))
        });
        self.fold_averages(reading);
        self.totals.exited += reading.exits.len() as u64;
        let ended = self.tasks.take_ended();
        let by_pid: HashMap<u32, &Process> = ended.iter().map(|p| (p.id.pid, p)).collect();
        for process in &ended {
            let maker = self.tasks.maker(process, self.interval.began, &by_pid);
            if let Some(key) = self.groups.retire(process, maker) {
                self.samples.rename(&GroupKey::Process(process.id), &key);
            }
        }
        self.take_exit_table(&reading.exit_table);
        if let (Some(tcp), Some(reading_of_tcp)) = (&mut self.tcp, &reading.tcp) {
            tcp.observe(&reading.clock, reading.wall, reading_of_tcp);
        }
        self.oom.set_clock(&reading.clock);
        self.observe_kills((now, reading.wall), &reading.oom);
    }

    /// Takes in what was read of memory and kills alone.
    pub fn observe_kills(&mut self, now: (MonotonicNs, WallNs), reading: &OomReading) {
        let users = &self.options.users;
        self.oom.observe(now, self.began, users, reading);
    }

    /// Kills that can be told at a time.
    pub fn kills(&mut self, now: MonotonicNs) -> Vec<Event> {
        let mut kills = self.oom.take_kills(now, &self.options.users);
        if let Some(pid) = self.options.pid {
            let trigger = |kill: &Kill| kill.trigger.as_ref().map(|trigger| trigger.pid);
            kills.retain(|kill| kill.victim.pid == pid || trigger(kill) == Some(pid));
        }
        let event = |kill| Event::Kill(Box::new(kill));
        kills.into_iter().map(event).collect()
    }

    /// When the next kill can be told.
    pub fn next_kill_due(&self) -> Option<MonotonicNs> {
        self.oom.settles_at()
    }

    /// What the next reading of sockets should bring, and what may be forgotten.
    pub fn tcp(&mut self) -> Option<&mut TcpAggregate> {
        self.tcp.as_mut()
    }

    /// What is notable of sockets since this was asked last.
    pub fn socket_events(&mut self) -> Vec<Event> {
        let Some(mut tcp) = self.tcp.take() else {
            return Vec::new();
        };
        let events = tcp.take_events(|pid, cgroup| self.cgroup_of(pid, cgroup));
        self.tcp = Some(tcp);
        events
    }

    /// The cgroup of a socket by its own identity, else that of the process.
    fn cgroup_of(&self, pid: u32, cgroup: u64) -> Option<Text> {
        if let Some(name) = self.cgroup_names.get(&cgroup) {
            return Some(name.clone());
        }
        let of_process = self.tasks.get(pid)?.identity.cgroup;
        self.cgroup_names.get(&of_process).cloned()
    }

    /// When the next reading is due, so that no sample of the kernel's is missed.
    pub fn next_sample_due(&self) -> Option<MonotonicNs> {
        self.samples.next_due()
    }

    /// Whether the next reading should be of every task, because an exit was missed.
    pub fn wants_complete(&self) -> bool {
        self.tasks
            .wants_complete(self.counters[lost::EXIT_RING as usize])
    }

    /// Keeps the names; of a host that makes cgroups without end those in use.
    fn name_cgroups(&mut self, names: &[(u64, Text)]) {
        if self.cgroup_names.len() > MOST_NAMES {
            let used: HashSet<u64> = self.tasks.iter().map(|task| task.identity.cgroup).collect();
            self.cgroup_names.retain(|id, _| used.contains(id));
        }
        self.cgroup_names.extend(names.iter().cloned());
    }

    /// Applies the samples whose averages are out by now.
    fn fold_averages(&mut self, reading: &Reading) {
        if !self.samples.is_pending() {
            self.averages.hold_against(reading.averages.fixed);
        }
        let lag = self.averages.stand_still(reading.averages.fixed);
        let due = self.samples.take_due(&reading.clock, lag);
        let is_only = due.len() == 1;
        for (i, sample) in due.iter().enumerate() {
            let is_last = i + 1 == due.len();
            let new = is_last.then_some(reading.averages.fixed);
            match self.averages.fold(new, is_only, sample, &mut self.groups) {
                Some(active) => self.count_sample(reading, sample, active),
                None => self.samples.count_missed(),
            }
        }
    }

    fn count_sample(&mut self, reading: &Reading, sample: &Sample, active: i64) {
        let age = reading.clock.now.since_ns(sample.at);
        let sample = KernelSample {
            at: sample.at,
            time: WallNs(reading.wall.0.saturating_sub(age)),
            active,
            named: sample.named(),
        };
        self.totals.samples += 1;
        self.totals.samples_named += u64::from(sample.active == sample.named);
        self.totals.sample_error += sample.active.abs_diff(sample.named);
        self.totals.last_sample = Some(sample);
        self.averages.watch_for_leak(sample.active - sample.named);
        self.interval.samples.push(sample);
    }

    fn take_exit_table(&mut self, table: &[(Text, ExitTotals)]) {
        for (comm, totals) in table {
            let before = self
                .exit_table
                .insert(comm.clone(), *totals)
                .unwrap_or_default();
            let exits = totals.exits.saturating_sub(before.exits);
            if exits > 0 {
                self.totals.exited += exits;
                self.groups.credit_exited(
                    comm,
                    exits,
                    Spent {
                        run_ns: totals.run_ns.saturating_sub(before.run_ns),
                        wait_ns: totals.run_delay_ns.saturating_sub(before.run_delay_ns),
                        throttled_ns: 0,
                        blocked_ns: totals.blocked_ns.saturating_sub(before.blocked_ns),
                        episodes: totals.episodes.saturating_sub(before.episodes),
                        ..Spent::default()
                    },
                );
            }
        }
    }
}

/// What a task did with its time, in ns, and how often it blocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// On a CPU.
    pub run_ns: u64,
    /// Runnable, not on a CPU.
    pub wait_ns: u64,
    /// Held by a bandwidth limit.
    pub throttled_ns: u64,
    /// In uninterruptible sleep.
    pub blocked_ns: u64,
    /// Blocked episodes that ended.
    pub episodes: u64,
    /// Length of those over the threshold, each with all of it.
    pub long_ns: u64,
}

impl Spent {
    /// All of it.
    pub fn total_ns(&self) -> u64 {
        self.run_ns + self.wait_ns + self.throttled_ns + self.blocked_ns
    }

    /// Averaged over a length of time, in tasks.
    pub fn mean(&self, over_ns: u64) -> TaskMean {
        let ratio = |ns: u64| {
            if over_ns == 0 {
                0.0
            } else {
                ns as f64 / over_ns as f64
            }
        };
        TaskMean {
            running: ratio(self.run_ns),
            waiting: ratio(self.wait_ns),
            throttled: ratio(self.throttled_ns),
            blocked: ratio(self.blocked_ns),
        }
    }
}

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.run_ns += other.run_ns;
        self.wait_ns += other.wait_ns;
        self.throttled_ns += other.throttled_ns;
        self.blocked_ns += other.blocked_ns;
        self.episodes += other.episodes;
        self.long_ns += other.long_ns;
    }
}

/// What one task used since the last reading.
#[derive(Clone, Debug, Default)]
pub struct Used {
    /// To whose account.
    pub key: TaskIdentity,
    /// How much.
    pub time: Spent,
    /// What its blocked time was for.
    pub blame: Blame,
    /// The cgroup that limits it.
    pub limit: u64,
    /// The CPU it is on, or was on last.
    pub cpu: u32,
    /// Whether it exited.
    pub has_exited: bool,
}

/// What a group can be made by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskIdentity {
    /// Its process.
    pub process: ProcessId,
    /// Name of the task.
    pub comm: Text,
    /// Identity of its cgroup.
    pub cgroup: u64,
    /// User id.
    pub uid: u32,
}

impl TaskIdentity {
    /// Of a task of a known process.
    pub fn of(task: &TaskReading, process: ProcessId) -> Self {
        Self {
            process,
            comm: task.comm.clone(),
            cgroup: task.cgroup,
            uid: task.uid,
        }
    }
}
