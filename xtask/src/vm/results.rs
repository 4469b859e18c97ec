//! What came of the guests: read from their output, as a table and as JSON.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::tally::{self, Panic, Tally};
use crate::vm::guest::End;

/// How a test came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    /// It did not run, for this reason.
    Skipped(String),
    Failed,
}

/// A test in a guest.
#[derive(Clone, Debug)]
pub(super) struct Tested {
    pub(super) name: String,
    pub(super) outcome: Outcome,
    /// Of its last run.
    pub(super) took: Duration,
    /// How often it was run: twice when it failed at first.
    pub(super) tries: u32,
}

/// What came of one kernel.
#[derive(Debug)]
pub(super) struct Report {
    /// The series.
    pub(super) kernel: &'static str,
    /// `uname -r`; empty when the kernel could not be had.
    pub(super) release: String,
    /// Why there was no guest at all.
    pub(super) skipped: Option<String>,
    /// Its tests, in the order in which they ran.
    pub(super) tests: Vec<Tested>,
    /// Why tests failed.
    pub(super) panics: Vec<Panic>,
    /// From QEMU's start to its end.
    pub(super) took: Duration,
}

/// The output of a guest, read as it comes.
#[derive(Default)]
pub(super) struct Log {
    tally: Tally,
    ended: Vec<Ended>,
    /// The test that runs, once its name is known.
    running: Option<String>,
    /// When it began: its name comes with its first line of output.
    began: Option<Instant>,
    /// What `tracer doctor --format json` said.
    pub(super) doctor: Option<Value>,
}

/// A test that is over, as far as its own line tells.
struct Ended {
    name: String,
    took: Duration,
    failed: bool,
    tries: u32,
}

/// Goes before what the job says to xtask, and not to a person.
pub(super) const DOCTOR: &str = "::doctor ";

/// A job says this when it needs the host's CPUs for itself, and when no more.
pub(super) const ALONE: &str = "::alone";
pub(super) const TOGETHER: &str = "::together";

/// A job asks which tests of the program that has just failed to run once more.
pub(super) const AGAIN: &str = "::again";

impl Log {
    /// Takes in a line; whether it is for people.
    pub(super) fn read(&mut self, line: &str, now: Instant) -> bool {
        if let Some(answer) = line.strip_prefix(DOCTOR) {
            self.doctor = serde_json::from_str(answer).ok();
            return false;
        }
        self.tally.read(line);
        if tally::is_start(line) {
            // One that is still running was taken down with its program.
            self.close(now, true);
            self.began = Some(now);
        }
        let mut said = line;
        if let Some((name, rest)) = tally::started(line) {
            self.running = Some(name.to_owned());
            said = rest;
        }
        if matches!(said, "ok" | "FAILED") {
            self.close(now, said == "FAILED");
        }
        true
    }

    /// The answer to [`AGAIN`]: names of tests, or nothing.
    pub(super) fn again(&mut self, now: Instant) -> String {
        // One that is still running was taken down with its program.
        self.close(now, true);
        self.tally.again().join(" ")
    }

    /// The test that was running when the last line came.
    pub(super) fn running(&self) -> Option<&str> {
        self.running.as_deref()
    }

    /// Why tests failed so far.
    pub(super) fn panics(&mut self) -> Vec<Panic> {
        std::mem::take(&mut self.tally.panics)
    }

    fn close(&mut self, now: Instant, failed: bool) {
        let Some(name) = self.running.take() else {
            return;
        };
        let took = now.duration_since(self.began.replace(now).unwrap_or(now));
        let mut before = self.ended.iter_mut();
        match before.find(|ended| ended.failed && ended.name == name) {
            // Whether its second try is a pass is the tally's to say.
            Some(first) => (first.took, first.tries) = (took, 2),
            None => self.ended.push(Ended {
                name,
                took,
                failed,
                tries: 1,
            }),
        }
    }

    /// The tests, once the guest has ended: one that was running then has
    /// failed, and so has an end that is no pass although every test is one.
    pub(super) fn tests(mut self, end: &End, now: Instant) -> Vec<Tested> {
        self.close(now, true);
        self.tally.end();
        let Tally {
            skipped, second, ..
        } = &self.tally;
        let outcome = |ended: &Ended| {
            let skip = skipped.iter().find(|skip| skip.test == ended.name);
            match skip {
                _ if second.contains(&ended.name) => Outcome::Passed,
                _ if ended.failed => Outcome::Failed,
                Some(skip) => Outcome::Skipped(skip.reason.clone()),
                None => Outcome::Passed,
            }
        };
        let mut tests: Vec<Tested> = self
            .ended
            .iter()
            .map(|ended| Tested {
                name: ended.name.clone(),
                outcome: outcome(ended),
                took: ended.took,
                tries: ended.tries,
            })
            .collect();
        let explained = tests.iter().any(|test| test.outcome == Outcome::Failed);
        if *end != End::Left(0) && !explained {
            tests.push(Tested {
                name: "the guest's end".to_owned(),
                outcome: Outcome::Failed,
                took: Duration::ZERO,
                tries: 1,
            });
        }
        tests
    }
}

/// Tests down, kernels across.
pub(super) fn table(reports: &[Report]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for test in reports.iter().flat_map(|report| &report.tests) {
        if !names.contains(&test.name.as_str()) {
            names.push(&test.name);
        }
    }
    let width = names
        .iter()
        .map(|name| name.len())
        .max()
        .unwrap_or(0)
        .max(8);
    let row = |first: &str, cell: &dyn Fn(&Report) -> String| {
        let cells = reports.iter().map(|report| format!("{:>12}", cell(report)));
        format!("{first:<width$}{}\n", cells.collect::<String>())
    };
    let mut table = row("", &|report| report.kernel.to_owned());
    for name in names {
        table += &row(name, &|report| {
            let test = report.tests.iter().find(|test| test.name == name);
            test.map_or_else(|| "-".to_owned(), cell)
        });
    }
    let count = |report: &Report, of: fn(&Outcome) -> bool| {
        let tests = report.tests.iter().filter(|test| of(&test.outcome));
        tests.count().to_string()
    };
    table += &row("passed", &|r| count(r, |o| *o == Outcome::Passed));
    table += &row("failed", &|r| count(r, |o| *o == Outcome::Failed));
    table += &row("skipped", &|r| {
        count(r, |o| matches!(o, Outcome::Skipped(_)))
    });
    table + &row("seconds", &|r| format!("{:.0}", r.took.as_secs_f64()))
}

fn cell(test: &Tested) -> String {
    let mark = if test.tries > 1 { " (2nd)" } else { "" };
    match test.outcome {
        Outcome::Passed => format!("{:.0} s{mark}", test.took.as_secs_f64()),
        Outcome::Skipped(_) => "skipped".to_owned(),
        Outcome::Failed => "FAILED".to_owned(),
    }
}

/// The table as a page, with what else there is to know.
pub(super) fn page(reports: &[Report]) -> String {
    let mut page = format!(
        "# Tests by kernel\n\n\
         Made by `cargo xtask vm --keep`; do not edit. Seconds of each test that passed; `-` is a \
         test that is not for this kernel. `(2nd)` is a test that failed at first, and passed when it \
         was run once more, by itself. A guest's seconds are from its start to its end, and \
         hold the time in which it was stopped to let another be alone.\n\n\
         ```\n{}```\n\n",
        table(reports)
    );
    for report in reports {
        let what = report.skipped.as_deref().unwrap_or(&report.release);
        page += &format!("- {}: {what}\n", report.kernel);
        for test in &report.tests {
            if let Outcome::Skipped(reason) = &test.outcome {
                page += &format!("  - skipped {}: {reason}\n", test.name);
            }
        }
    }
    page
}

/// The same for programs.
pub(super) fn json(reports: &[Report]) -> Value {
    let test = |test: &Tested| {
        let (outcome, reason) = match &test.outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Skipped(reason) => ("skipped", Some(reason)),
            Outcome::Failed => ("failed", None),
        };
        json!({
            "name": test.name, "outcome": outcome, "reason": reason,
            "seconds": test.took.as_secs_f64(), "tries": test.tries,
        })
    };
    let kernel = |report: &Report| {
        json!({
            "kernel": report.kernel, "release": report.release, "skipped": report.skipped,
            "seconds": report.took.as_secs_f64(),
            "tests": report.tests.iter().map(test).collect::<Vec<_>>(),
        })
    };
    json!({ "kernels": reports.iter().map(kernel).collect::<Vec<_>>() })
}

#[cfg(test)]
#[path = "results_tests.rs"]
mod tests;
