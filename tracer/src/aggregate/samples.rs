//! The kernel's own samples: when each is taken, and who was counted.
//!
//! Every `LOAD_FREQ` (5 s and a tick) each CPU folds its count, and 10 ticks
//! later the averages change (kernel/sched/loadavg.c). The folds name who was
//! runnable; blocked episodes have a begin and an end, so who was blocked at
//! that moment can be said even when the snapshot comes later.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{TaskIdentity, groups::GroupKey, tasks::Task};
use crate::{
    clock::MonotonicNs,
    decode::{clock::ClockReading, fold::FoldReading, task::TaskReading},
};

/// The averages change this many ticks after the fold (`calc_global_load`).
const FOLD_TO_AVERAGES_TICKS: u64 = 10;
/// The moment of a fold is known to a tick, and the change comes within one.
const MARGIN_TICKS: u64 = 2;
/// A CPU can find out a tick or two late that a fold is due, no later.
const LATE_FOLD_TICKS: u64 = 3;
/// Tick rates that kernels are built with.
const RATES_HZ: &[u64] = &[100, 200, 250, 256, 300, 500, 512, 1000, 1024, 1200];
/// The rate is measured over at least this long: then 250 is told from 256.
const RATE_WINDOW_NS: u64 = 400_000_000;
const NS_PER_S: u64 = 1_000_000_000;

/// A sample that the averages do not show yet.
#[derive(Debug)]
pub struct Sample {
    /// When the first CPU folded.
    pub at: MonotonicNs,
    jiffy: u64,
    /// CPUs that reported who was queued, and when each did.
    cpus: HashMap<u32, MonotonicNs>,
    /// By thread id, and how often: CPUs fold some microseconds apart, and a task
    /// that moves from one to the other between is counted by both.
    counted: HashMap<u32, (Counted, u32)>,
}

/// Why a task was counted.
#[derive(Clone, Debug)]
enum Counted {
    /// It was queued; who it is is not known yet.
    Unknown,
    /// It was asleep, but still queued.
    Delayed,
    /// It was runnable or blocked.
    Of(GroupKey, TaskIdentity),
}

impl Sample {
    /// Tasks that can be named.
    pub fn named(&self) -> i64 {
        self.sum(|counted| !matches!(counted, Counted::Unknown))
    }

    /// Delayed dequeues.
    pub fn delayed(&self) -> i64 {
        self.sum(|counted| matches!(counted, Counted::Delayed))
    }

    fn sum(&self, is_wanted: impl Fn(&Counted) -> bool) -> i64 {
        let wanted = self
            .counted
            .values()
            .filter(|(counted, _)| is_wanted(counted));
        wanted.map(|(_, times)| i64::from(*times)).sum()
    }

    /// Tasks by account.
    pub fn by_group(&self) -> HashMap<&GroupKey, (u32, &TaskIdentity)> {
        let mut groups = HashMap::new();
        for (counted, times) in self.counted.values() {
            if let Counted::Of(key, identity) = counted {
                groups.entry(key).or_insert((0, identity)).0 += times;
            }
        }
        groups
    }
}

/// The tick rate, and what follows from it.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    ns: u64,
    per_period: u64,
}

impl Ticks {
    fn new(hz: u64) -> Self {
        // LOAD_FREQ, include/linux/sched/loadavg.h.
        Self {
            ns: NS_PER_S / hz,
            per_period: 5 * hz + 1,
        }
    }

    /// Whether the CPU folded when it was due, give or take what it can be late.
    fn is_timely(self, fold: &FoldReading) -> bool {
        let due = fold.next_fold_jiffy.wrapping_sub(self.per_period);
        fold.jiffies.wrapping_sub(due) <= LATE_FOLD_TICKS
    }

    /// The jiffy of the next fold. All dates lie on one grid, but a CPU may not
    /// have moved its own on: by a tick, or for long where it has none (`nohz_full`).
    fn next_fold(self, clock: &ClockReading) -> u64 {
        let behind = clock.jiffies.wrapping_sub(clock.next_fold_jiffy);
        if (behind as i64) < 0 {
            return clock.next_fold_jiffy;
        }
        let periods = behind / self.per_period + 1;
        clock
            .next_fold_jiffy
            .wrapping_add(periods * self.per_period)
    }
}

/// The samples since the start.
#[derive(Debug)]
pub struct Samples {
    began: ClockReading,
    ticks: Option<Ticks>,
    /// Jiffy of the latest fold that is in the averages or pending.
    latest_jiffy: Option<u64>,
    pending: VecDeque<Sample>,
    /// Folds that came in before the tick rate was known.
    early: Vec<FoldReading>,
    next_at: Option<MonotonicNs>,
    /// When the latest reading was.
    read_at: MonotonicNs,
    /// When jiffy 0 would have been, as the best fold tells (CLOCK_MONOTONIC, ns,
    /// wrapping).
    jiffy_zero: Option<u64>,
    missed: u64,
}

impl Samples {
    /// Begins with the clocks of the first reading.
    pub fn new(first: &ClockReading) -> Self {
        Self {
            began: *first,
            ticks: None,
            latest_jiffy: None,
            pending: VecDeque::new(),
            early: Vec::new(),
            next_at: None,
            read_at: first.now,
            jiffy_zero: None,
            missed: 0,
        }
    }

    /// Finds out which samples have begun since the last reading.
    pub fn begin(&mut self, clock: &ClockReading, folds: &[FoldReading]) {
        self.read_at = clock.now;
        self.early.extend_from_slice(folds);
        self.ticks = self.ticks.or_else(|| self.measure(clock));
        let Some(ticks) = self.ticks else { return };
        self.hold_ticks(ticks);
        self.expect(clock, ticks);
        for fold in std::mem::take(&mut self.early) {
            self.take_fold(&fold, ticks);
        }
    }

    /// Looks at a task: was it counted? Blocked tasks are; runnable ones of a
    /// CPU that did not report are when they have been so since before.
    ///
    /// `until` is up to when the reading holds: its own time, or for ever when the
    /// task has exited.
    pub fn see(
        &mut self,
        task: &TaskReading,
        until: MonotonicNs,
        clock: &ClockReading,
        identify: impl Fn() -> (GroupKey, TaskIdentity),
    ) {
        for sample in self.pending.iter_mut().filter(|sample| sample.at <= until) {
            let (known, times) = match sample.counted.get(&task.tid) {
                Some((counted, times)) => (Some(counted), *times),
                None => (None, 1),
            };
            let was_counted = match known {
                Some(Counted::Of(..)) => continue,
                Some(Counted::Unknown) => true,
                Some(Counted::Delayed) => task.was_blocked_at(|cpu| sample.at_on(cpu)),
                None => task.was_blocked_at(|cpu| sample.at_on(cpu)) || sample.missed(task, clock),
            };
            // The number alone comes again: this one must have lived then.
            if was_counted && task.start <= sample.latest() {
                let (key, identity) = identify();
                let counted = Counted::Of(key, identity);
                sample.counted.insert(task.tid, (counted, times));
            }
        }
    }

    /// Asks for the names of those still unknown.
    pub fn name<'a>(&mut self, find: impl Fn(u32) -> Option<(GroupKey, &'a Task)>) {
        for sample in &mut self.pending {
            let latest = sample.latest();
            for (tid, (counted, _)) in &mut sample.counted {
                if matches!(counted, Counted::Unknown)
                    && let Some((key, task)) = find(*tid)
                    // The number alone comes again: this one must have lived then.
                    && task.start <= latest
                {
                    *counted = Counted::Of(key, task.identity.clone());
                }
            }
        }
    }

    /// A group went on under another key.
    pub fn rename(&mut self, from: &GroupKey, to: &GroupKey) {
        for counted in self
            .pending
            .iter_mut()
            .flat_map(|sample| sample.counted.values_mut())
        {
            if let (Counted::Of(key, _), _) = counted
                && key == from
            {
                key.clone_from(to);
            }
        }
    }

    /// Samples that are in the averages by now. The kernel goes by its ticks, and
    /// these can be late: of a virtual machine that its host held up.
    ///
    /// The averages are read before the clock. `lag` says that they look as if they
    /// were still those before the sample: then the tick came between the two, and the
    /// next reading has them.
    pub fn take_due(&mut self, clock: &ClockReading, lag: bool) -> Vec<Sample> {
        let Some(ticks) = self.ticks else {
            return Vec::new();
        };
        let patience = if lag { ticks.per_period / 2 } else { 0 };
        let is_in = |sample: &Sample| {
            is_later(
                clock.jiffies,
                sample.jiffy.wrapping_add(FOLD_TO_AVERAGES_TICKS + patience),
            )
        };
        let mut due = Vec::new();
        while self.pending.front().is_some_and(is_in) {
            due.extend(self.pending.pop_front());
        }
        due
    }

    /// Whether averages read now may or may not contain the latest sample; while
    /// the tick rate is not known, nobody can say.
    pub fn is_pending(&self) -> bool {
        self.ticks.is_none() || !self.pending.is_empty()
    }

    /// When the next sample will be in the averages; soon, while the tick rate
    /// is not known.
    pub fn next_due(&self) -> Option<MonotonicNs> {
        let Some(ticks) = self.ticks else {
            return Some(self.began.now + RATE_WINDOW_NS);
        };
        let next = self
            .pending
            .front()
            .map(|sample| sample.at)
            .or(self.next_at)?;
        // One that should be in by now, and is not, will be with the next tick.
        Some(due_at(next, ticks).max(self.read_at + ticks.ns))
    }

    /// When the kernel counts next.
    pub fn next_at(&self) -> Option<MonotonicNs> {
        self.next_at
    }

    /// Counts a sample whose number could not be recovered: no reading was
    /// between it and another one.
    pub fn count_missed(&mut self) {
        self.missed += 1;
    }

    /// Samples missed.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    fn measure(&self, clock: &ClockReading) -> Option<Ticks> {
        let elapsed = clock.now.since_ns(self.began.now);
        if elapsed < RATE_WINDOW_NS {
            return None;
        }
        let jiffies = clock.jiffies.wrapping_sub(self.began.jiffies);
        let hz = (u128::from(jiffies) * u128::from(NS_PER_S) / u128::from(elapsed)) as u64;
        RATES_HZ
            .iter()
            .min_by_key(|rate| rate.abs_diff(hz))
            .map(|&rate| Ticks::new(rate))
    }

    /// Every fold up to now is pending, whether a CPU reported it or all were idle.
    fn expect(&mut self, clock: &ClockReading, ticks: Ticks) {
        let before = |next: u64| next.wrapping_sub(ticks.per_period);
        // A CPU can have reported a fold after the reading began.
        let reported = self.early.iter().filter(|fold| ticks.is_timely(fold));
        let fold = reported.map(|fold| before(fold.next_fold_jiffy)).fold(
            before(ticks.next_fold(clock)),
            |latest, jiffy| {
                if is_later(jiffy, latest) {
                    jiffy
                } else {
                    latest
                }
            },
        );
        self.next_at = Some(self.time_of(fold.wrapping_add(ticks.per_period), clock, ticks));
        // The latest fold before the start is in the averages, or about to be.
        let known = self
            .latest_jiffy
            .unwrap_or_else(|| before(ticks.next_fold(&self.began)));
        let mut jiffy = known;
        while is_later(fold, jiffy) {
            jiffy = jiffy.wrapping_add(ticks.per_period);
            let at = self.time_of(jiffy, clock, ticks);
            self.pending.push_back(Sample {
                at,
                jiffy,
                cpus: HashMap::new(),
                counted: HashMap::new(),
            });
        }
        self.latest_jiffy = Some(jiffy);
    }

    /// When a jiffy begins: to some microseconds once a fold was seen, which runs
    /// within the tick; before that to a tick, of which the earlier end is taken.
    fn time_of(&self, jiffy: u64, clock: &ClockReading, ticks: Ticks) -> MonotonicNs {
        match self.jiffy_zero {
            Some(zero) => MonotonicNs(zero.wrapping_add(jiffy.wrapping_mul(ticks.ns))),
            None => {
                let ahead = jiffy.wrapping_sub(clock.jiffies).wrapping_mul(ticks.ns);
                MonotonicNs(clock.now.0.wrapping_add(ahead))
            }
        }
    }

    /// A fold comes a little after its tick began, and can find `jiffies` not yet
    /// moved on: the earliest beginning that any fold tells is the best.
    fn hold_ticks(&mut self, ticks: Ticks) {
        for fold in &self.early {
            let zero = fold.at.0.wrapping_sub(fold.jiffies.wrapping_mul(ticks.ns));
            let is_earlier = |known: u64| (zero.wrapping_sub(known) as i64) < 0;
            if self.jiffy_zero.is_none_or(is_earlier) {
                self.jiffy_zero = Some(zero);
            }
        }
    }

    fn take_fold(&mut self, fold: &FoldReading, ticks: Ticks) {
        let jiffy = fold.next_fold_jiffy.wrapping_sub(ticks.per_period);
        let is_it = |sample: &&mut Sample| sample.jiffy == jiffy && ticks.is_timely(fold);
        // What is not pending was folded before the start.
        let Some(sample) = self.pending.iter_mut().find(is_it) else {
            return;
        };
        if sample.cpus.is_empty() || fold.at < sample.at {
            sample.at = fold.at;
        }
        sample.cpus.insert(fold.cpu, fold.at);
        // The queue can change under the walk: then tasks come by again, and one
        // that another CPU queued since the count is at the head of the list.
        let mut seen = HashSet::new();
        let tasks: Vec<_> = fold
            .tasks
            .iter()
            .filter(|task| seen.insert(task.tid))
            .collect();
        let too_many = tasks.len().saturating_sub(fold.nr_running as usize);
        for task in tasks.into_iter().skip(too_many) {
            let counted = if task.is_delayed {
                Counted::Delayed
            } else {
                Counted::Unknown
            };
            sample.counted.entry(task.tid).or_insert((counted, 0)).1 += 1;
        }
    }
}

impl Sample {
    /// When a CPU folded. One that did not was idle, and had counted before.
    fn at_on(&self, cpu: u32) -> MonotonicNs {
        self.cpus.get(&cpu).copied().unwrap_or(self.at)
    }

    /// When the last CPU folded.
    fn latest(&self) -> MonotonicNs {
        self.cpus.values().copied().max().unwrap_or(self.at)
    }

    /// Runnable since before the fold, on a CPU that did not report.
    fn missed(&self, task: &TaskReading, clock: &ClockReading) -> bool {
        let since = if task.is_running {
            task.last_arrival_sched
        } else {
            task.last_queued_sched
        };
        task.is_runnable
            && !task.is_throttled
            && since != 0
            && clock.from_sched(since) <= self.at
            && !self.cpus.contains_key(&task.cpu)
    }
}

fn is_later(jiffy: u64, than: u64) -> bool {
    (jiffy.wrapping_sub(than) as i64) > 0
}

fn due_at(fold: MonotonicNs, ticks: Ticks) -> MonotonicNs {
    fold + (FOLD_TO_AVERAGES_TICKS + MARGIN_TICKS) * ticks.ns
}
