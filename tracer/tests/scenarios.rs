//! The aggregation, as a specification: readings in, snapshots out. Each file of
//! `scenarios/` is one story; `scenarios/README.md` says how to write one.
//!
//! Whatever the story, after every reading the parts must add up to the kernel's
//! averages, and the groups to the mean of all tasks.

use std::{collections::BTreeMap, fmt::Debug, fs, path::Path};

use serde::Deserialize;
use toml::{Table, Value};
use tracer::{
    aggregate::{LoadAggregate, Options, Reading, load::advance},
    clock::{MonotonicNs, WallNs},
    decode::{
        clock::ClockReading,
        fold::{FoldReading, FoldTask},
        task::TaskReading,
    },
    host::load::AveragesReading,
    snapshot::{Group, GroupBy, OwnCost, Snapshot, Summary},
    text::Text,
};
use tracer_common::{lost, sched::BlockedTotals, task::ExitTotals};

#[path = "scenarios/format.rs"]
mod format;
use format::{Expected, ExpectedGroup, ExpectedSummary, Fold, Scenario, Step, Task};

/// Tracer begins so long after boot: what began before it has a date too.
const BOOT_MS: f64 = 1e9;
/// The scheduler's clock is behind CLOCK_MONOTONIC by this.
const SCHED_BEHIND_NS: u64 = 7_000_000_000;
/// jiffies as tracer begins.
const FIRST_JIFFY: u64 = 5_000_000;
/// Means and parts are given to three places; the kernel rounds by 1/2048.
const CLOSE: f64 = 0.002;

#[test]
fn every_scenario() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("folder of scenarios")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no scenario");
    let mut wrong = Vec::new();
    for file in files {
        let name = file
            .file_stem()
            .expect("name")
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&file).expect("readable");
        let scenario: Scenario = toml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut found = Vec::new();
        for every_step in [false, true] {
            Run::new(&scenario, every_step).play(&mut found);
        }
        found.dedup();
        if name.ends_with(".pending") {
            println!("pending: {name}: {}", scenario.about);
            for line in found {
                println!("    {line}");
            }
        } else {
            wrong.extend(found.into_iter().map(|line| format!("{name}: {line}")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// One pass over a scenario. The first pass takes a snapshot where something is
/// expected, the second after every step, to hold the sums.
struct Run<'a> {
    scenario: &'a Scenario,
    every_step: bool,
    tasks: BTreeMap<String, Table>,
    averages: [u64; 3],
    counters: [u64; lost::COUNTERS as usize],
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, every_step: bool) -> Self {
        Self {
            scenario,
            every_step,
            tasks: scenario.tasks.clone(),
            averages: scenario.clock.averages,
            counters: [0; lost::COUNTERS as usize],
        }
    }

    fn play(mut self, wrong: &mut Vec<String>) {
        let mut aggregate: Option<LoadAggregate> = None;
        for step in &self.scenario.steps {
            for round in 0..=step.repeat {
                let reading = self.reading(step, round);
                match &mut aggregate {
                    Some(aggregate) => aggregate.observe(&reading),
                    None => aggregate = Some(LoadAggregate::new(self.options(), &reading)),
                }
                let aggregate = aggregate.as_mut().expect("made above");
                let is_last = round == step.repeat;
                let expected = step.expect.as_ref().filter(|_| is_last);
                if expected.is_none() && !self.every_step {
                    continue;
                }
                let snapshot = aggregate.snapshot(OwnCost::default(), (0, 0));
                let mut check = Check { at: step.at, wrong };
                check.sums(&snapshot);
                if let Some(expected) = expected.filter(|_| !self.every_step) {
                    check.snapshot(expected, &snapshot);
                }
            }
        }
        if let (Some(expected), Some(aggregate)) = (&self.scenario.summary, aggregate) {
            let mut check = Check {
                at: f64::NAN,
                wrong,
            };
            check.summary(expected, &aggregate.summary(OwnCost::default()));
        }
    }

    fn options(&self) -> Options {
        let options = &self.scenario.options;
        Options {
            by: match options.by.as_str() {
                "comm" => GroupBy::Comm,
                "cgroup" => GroupBy::Cgroup,
                "user" => GroupBy::User,
                _ => GroupBy::Process,
            },
            top: options.top,
            pid: options.pid,
            min_block_ns: (options.min_block * 1e6) as u64,
            ..Options::default()
        }
    }

    fn reading(&mut self, step: &Step, round: u64) -> Reading {
        let clock = &self.scenario.clock;
        let shift = round as f64 * clock.period();
        let at = step.at + shift;
        for &active in &step.samples {
            self.averages = advance(self.averages, active);
        }
        self.averages = step.averages.unwrap_or(self.averages);
        for (name, count) in &step.counters {
            self.counters[counter(name)] = *count;
        }
        let jiffies = clock.jiffies(at);
        let lag = if step.own_cpu_lags { 1 } else { 0 };
        Reading {
            clock: ClockReading {
                now: moment(at),
                jiffies,
                next_fold_jiffy: clock.next_fold(jiffies) - lag * clock.period_jiffies(),
                sched_offset_ns: SCHED_BEHIND_NS,
                ..ClockReading::default()
            },
            wall: WallNs((at * 1e6) as u64),
            averages: AveragesReading {
                fixed: self.averages,
                uptime_s: 0,
            },
            cpus: 4,
            tasks: step
                .tasks
                .iter()
                .map(|(name, change)| self.task(name, change))
                .collect(),
            is_complete: step.complete,
            exits: step
                .exits
                .iter()
                .map(|(name, change)| TaskReading {
                    is_dead: true,
                    ..self.task(name, change)
                })
                .collect(),
            exit_table: step.exit_table.iter().map(exit_totals).collect(),
            folds: step
                .folds
                .iter()
                .map(|fold| self.fold(fold, shift))
                .collect(),
            counters: self.counters,
            undecodable: step.undecodable,
            cgroup_names: step
                .cgroups
                .iter()
                .map(|(name, id)| (*id, Text::from(name.as_str())))
                .collect(),
        }
    }

    /// A task as it was, but for what changed.
    fn task(&mut self, name: &str, change: &Table) -> TaskReading {
        let known = self.tasks.entry(name.to_owned()).or_default();
        // What a task is doing is said anew each time; all else stays.
        known.remove("is");
        known.remove("since");
        known.extend(change.clone());
        let task: Task = Value::Table(known.clone())
            .try_into()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        task.reading(name)
    }

    fn fold(&self, fold: &Fold, shift: f64) -> FoldReading {
        let clock = &self.scenario.clock;
        let jiffies = clock.jiffies(fold.at + shift);
        FoldReading {
            at: moment(fold.at + shift),
            next_fold_jiffy: clock.next_fold(jiffies),
            jiffies,
            active: fold.tasks.len() as i64,
            cpu: fold.cpu,
            nr_running: fold.tasks.len() as u32,
            tasks: fold.tasks.iter().map(|name| self.fold_task(name)).collect(),
        }
    }

    /// `~name` is a delayed dequeue.
    fn fold_task(&self, name: &str) -> FoldTask {
        let plain = name.trim_start_matches('~');
        let tid = self
            .tasks
            .get(plain)
            .and_then(|task| task.get("tid").or(task.get("pid")));
        let tid = tid
            .and_then(Value::as_integer)
            .unwrap_or_else(|| panic!("fold of {name}?"));
        FoldTask {
            tid: tid as u32,
            is_delayed: plain != name,
        }
    }
}

/// Holds what came against what was expected, and notes the differences.
struct Check<'a> {
    at: f64,
    wrong: &'a mut Vec<String>,
}

impl Check<'_> {
    fn sums(&mut self, snapshot: &Snapshot) {
        let load = &snapshot.load;
        let own = [
            load.before_start,
            load.unexplained,
            load.delayed,
            load.other.load,
        ];
        for i in 0..3 {
            let groups: f64 = load.groups.iter().map(|group| group.load[i]).sum();
            let sum = groups + own.iter().map(|part| part[i]).sum::<f64>();
            self.close(
                &format!("sum of parts of average {i}"),
                load.averages[i],
                sum,
                1e-6,
            );
        }
        let rows = load
            .groups
            .iter()
            .map(|group| group.mean)
            .chain([load.other.mean]);
        let sum = rows.map(|mean| mean.running + mean.waiting + mean.throttled + mean.blocked);
        let all = load.mean.running + load.mean.waiting + load.mean.throttled + load.mean.blocked;
        self.close("sum of means", all, sum.sum(), 1e-6);
    }

    fn snapshot(&mut self, expected: &Expected, snapshot: &Snapshot) {
        let load = &snapshot.load;
        let samples: Vec<_> = load.samples.iter().map(|s| [s.active, s.named]).collect();
        self.same(
            "samples [active, named]",
            expected.samples.as_ref(),
            &samples,
        );
        let named = [
            ("average1", expected.average1, load.averages[0]),
            (
                "before_start1",
                expected.before_start1,
                load.before_start[0],
            ),
            ("unexplained1", expected.unexplained1, load.unexplained[0]),
            ("delayed1", expected.delayed1, load.delayed[0]),
            ("other1", expected.other1, load.other.load[0]),
            ("running", expected.running, load.mean.running),
            ("waiting", expected.waiting, load.mean.waiting),
            ("throttled", expected.throttled, load.mean.throttled),
            ("blocked_mean", expected.blocked_mean, load.mean.blocked),
        ];
        for (what, expected, got) in named {
            self.maybe_close(what, expected, got);
        }
        self.same(
            "groups in other",
            expected.other_groups.as_ref(),
            &load.other.groups,
        );
        self.groups(&expected.groups, &load.groups);
        if expected.only {
            let extra = load
                .groups
                .iter()
                .map(label)
                .filter(|l| !expected.groups.contains_key(l));
            self.same("other rows", Some(&Vec::new()), &extra.collect::<Vec<_>>());
        }
        let ages = snapshot
            .blocked
            .iter()
            .map(|b| (b.tid.to_string(), b.age_ns as f64 / 1e6));
        self.same(
            "blocked {tid, age}",
            expected.blocked.as_ref(),
            &ages.collect(),
        );
        for (reason, count) in &expected.lost {
            let got = snapshot
                .lost
                .iter()
                .find(|l| l.reason == reason)
                .map(|l| l.count);
            self.same(reason, Some(&Some(*count)), &got);
        }
        self.same(
            "leaked",
            expected.leaked.as_ref(),
            &load.leaked.unwrap_or(0),
        );
    }

    fn groups(&mut self, expected: &BTreeMap<String, ExpectedGroup>, got: &[Group]) {
        for (name, expected) in expected {
            let Some(group) = got.iter().find(|group| label(group) == *name) else {
                let labels: Vec<_> = got.iter().map(label).collect();
                self.note(&format!("no row {name}, but {labels:?}"));
                continue;
            };
            let figures = [
                ("running", expected.running, group.mean.running),
                ("waiting", expected.waiting, group.mean.waiting),
                ("throttled", expected.throttled, group.mean.throttled),
                ("blocked", expected.blocked, group.mean.blocked),
                ("load1", expected.load1, group.load[0]),
                ("load15", expected.load15, group.load[2]),
            ];
            for (what, expected, got) in figures {
                self.maybe_close(&format!("{name} {what}"), expected, got);
            }
            self.same(
                &format!("{name} episodes"),
                expected.episodes.as_ref(),
                &group.episodes,
            );
            self.same(
                &format!("{name} exited"),
                expected.exited.as_ref(),
                &group.exited,
            );
            self.same(
                &format!("{name} threads"),
                expected.threads.as_ref(),
                &group.threads,
            );
        }
    }

    fn summary(&mut self, expected: &ExpectedSummary, summary: &Summary) {
        self.same(
            "summary samples",
            expected.samples.as_ref(),
            &summary.samples,
        );
        self.same(
            "summary named",
            expected.samples_named.as_ref(),
            &summary.samples_named,
        );
        self.same("summary exited", expected.exited.as_ref(), &summary.exited);
        self.maybe_close(
            "summary sample_error",
            expected.sample_error,
            summary.sample_error,
        );
        self.groups(&expected.groups, &summary.groups);
        let episodes = summary
            .episodes
            .iter()
            .map(|e| (e.tid, e.length_ns as f64 / 1e6, e.is_open));
        self.same("episodes", expected.episodes.as_ref(), &episodes.collect());
    }

    fn same<T: PartialEq + Debug>(&mut self, what: &str, expected: Option<&T>, got: &T) {
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            self.note(&format!("{what}: expected {expected:?}, got {got:?}"));
        }
    }

    fn maybe_close(&mut self, what: &str, expected: Option<f64>, got: f64) {
        if let Some(expected) = expected {
            self.close(what, expected, got, CLOSE);
        }
    }

    fn close(&mut self, what: &str, expected: f64, got: f64, within: f64) {
        if (expected - got).abs() > within || got.is_nan() {
            self.note(&format!("{what}: expected {expected}, got {got}"));
        }
    }

    fn note(&mut self, text: &str) {
        self.wrong.push(if self.at.is_nan() {
            format!("at the end: {text}")
        } else {
            format!("at {} ms: {text}", self.at)
        });
    }
}

/// The row's name, as the table shows it.
fn label(group: &Group) -> String {
    let text = |text: &Option<Text>| text.as_ref().map(ToString::to_string);
    let comm = text(&group.comm).unwrap_or_default();
    match group.pid {
        Some(pid) => format!("{comm}[{pid}]"),
        None => text(&group.cgroup).or(text(&group.user)).unwrap_or(comm),
    }
}

fn moment(ms: f64) -> MonotonicNs {
    MonotonicNs(((BOOT_MS + ms) * 1e6).round() as u64)
}

fn counter(name: &str) -> usize {
    (match name {
        "storage" => lost::STORAGE,
        "exit_ring" => lost::EXIT_RING,
        "exit_table" => lost::EXIT_TABLE,
        "fold_ring" => lost::FOLD_RING,
        _ => panic!("no counter {name}"),
    }) as usize
}

fn exit_totals(
    (comm, [exits, run, wait, blocked, episodes]): (&String, &[u64; 5]),
) -> (Text, ExitTotals) {
    let totals = ExitTotals {
        exits: *exits,
        run_ns: run * 1_000_000,
        run_delay_ns: wait * 1_000_000,
        blocked_ns: blocked * 1_000_000,
        episodes: *episodes,
    };
    (Text::from(comm.as_str()), totals)
}
