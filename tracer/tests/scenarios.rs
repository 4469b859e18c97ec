//! The aggregation, as a specification: readings in, snapshots out. Each file of
//! `scenarios/` is one story; `scenarios/README.md` says how to write one.
//!
//! Whatever the story, after every reading the parts must add up to the kernel's
//! averages, and the groups to the mean of all tasks.

use std::{collections::BTreeMap, fs, path::Path};

use toml::{Table, Value};
use tracer::{
    aggregate::{LoadAggregate, Options, Reading, load::advance},
    clock::WallNs,
    decode::{
        clock::ClockReading,
        fold::{FoldReading, FoldTask},
        task::TaskReading,
    },
    host::load::AveragesReading,
    snapshot::{GroupBy, OwnCost},
    text::Text,
};
use tracer_common::lost;

#[path = "scenarios/check.rs"]
mod check;
#[path = "scenarios/format.rs"]
mod format;
#[path = "scenarios/why.rs"]
mod why;

use check::Check;
use format::{Fold, SCHED_BEHIND_NS, Scenario, Step, Task, counter, exit_totals, moment};
use why::Named;

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
        match (&scenario.pending, name.ends_with(".pending")) {
            (Some(_), true) if found.is_empty() => {
                wrong.push(format!("{name}: it is right by now: pending no longer"));
            }
            (Some(why), true) => println!("pending: {name}: {why}"),
            (None, false) => {
                wrong.extend(found.into_iter().map(|line| format!("{name}: {line}")));
            }
            _ => wrong.push(format!(
                "{name}: pending is said by the name and by a reason"
            )),
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
    /// Names up to here were given.
    named: f64,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, every_step: bool) -> Self {
        Self {
            scenario,
            every_step,
            tasks: scenario.tasks.clone(),
            averages: scenario.clock.averages,
            counters: [0; lost::COUNTERS as usize],
            named: f64::NEG_INFINITY,
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
        let jiffies = clock.jiffies(at) - step.late_ticks;
        let lag = if step.own_cpu_lags { 1 } else { 0 };
        Reading {
            oom: Default::default(),
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
            failed_parts: 0,
            cgroup_names: step
                .cgroups
                .iter()
                .map(|(name, id)| (*id, Text::from(name.as_str())))
                .collect(),
            episodes: step
                .ended
                .iter()
                .map(|episode| self.scenario.episode(episode, |name| self.named(name)))
                .collect(),
            names: self
                .scenario
                .names(std::mem::replace(&mut self.named, at), at, &step.lengths),
            tcp: None,
        }
    }

    /// A task as it was, but for what changed.
    fn task(&mut self, name: &str, change: &Table) -> TaskReading {
        let known = self.tasks.entry(name.to_owned()).or_default();
        // What a task is doing is said anew each time; all else stays.
        known.remove("is");
        known.remove("since");
        known.remove("waits");
        known.extend(change.clone());
        let task = self.known(name);
        let began = moment(task.since.unwrap_or_default());
        let waits = self
            .scenario
            .waits(&task.waits, began, |name| self.named(name).tid);
        task.reading(name, waits)
    }

    fn known(&self, name: &str) -> Task {
        let known = self.tasks.get(name).unwrap_or_else(|| panic!("no {name}"));
        Value::Table(known.clone())
            .try_into()
            .unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn named(&self, name: &str) -> Named {
        let task = self.known(name);
        Named {
            pid: task.pid,
            tid: task.tid.unwrap_or(task.pid),
            comm: task.comm.unwrap_or_else(|| name.to_owned()),
            start: moment(task.start),
        }
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
            nr_running: fold.nr_running.unwrap_or(fold.tasks.len() as u32),
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
