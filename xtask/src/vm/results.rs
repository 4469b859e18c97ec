//! What came of the guests: read from their output, as a table and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::live::{NO_MATCH, Outcome, Reader, Tested};
use crate::vm::guest::End;
use crate::vm::kernels::Suite;

/// What came of one kernel.
#[derive(Debug)]
pub(super) struct Report {
    /// The series.
    pub(super) kernel: &'static str,
    /// `uname -r`; empty when the kernel could not be had.
    pub(super) release: String,
    /// Which tests it was to run.
    pub(super) suite: Suite,
    /// Why there was no guest at all.
    pub(super) skipped: Option<String>,
    /// Its tests, in the order in which they ended.
    pub(super) tests: Vec<Tested>,
    /// From QEMU's start to its end.
    pub(super) took: Duration,
}

/// The output of a guest, read as it comes.
#[derive(Default)]
pub(super) struct Log {
    reader: Reader,
    ended: Vec<Tested>,
    /// What `tracer doctor --format json` said.
    pub(super) doctor: Option<Value>,
}

/// Goes before what the job says to xtask, and not to a person.
pub(super) const DOCTOR: &str = "::doctor ";

/// A job says this when it needs the host's CPUs for itself, and when no more.
pub(super) const ALONE: &str = "::alone";
pub(super) const TOGETHER: &str = "::together";

/// Of a guest, not of a test in it.
pub(super) const END_TEST: &str = "the guest's end";

impl Log {
    /// Takes in a line; whether it is for people.
    pub(super) fn read(&mut self, line: &str) -> bool {
        if let Some(answer) = line.strip_prefix(DOCTOR) {
            // Only the job itself says it, before any test can.
            if self.doctor.is_none() {
                self.doctor = serde_json::from_str(answer).ok();
            }
            return false;
        }
        self.ended.extend(self.reader.read(line));
        true
    }

    /// The tests, once the guest has ended: an end that is no pass although every test is
    /// one is a failure, and so is a pass without a test, unless there `may_be_none`.
    pub(super) fn tests(self, end: &End, may_be_none: bool) -> Vec<Tested> {
        let mut tests = self.ended;
        let explained = tests.iter().any(|test| test.outcome == Outcome::Failed);
        let why = match end {
            // Its own words are elsewhere (`bad_end`).
            End::TimedOut(_) | End::Died(_) => None,
            End::Left(_) if self.reader.is_running() => {
                Some("the live tests' program ended without a result".to_owned())
            }
            End::Left(0) if tests.is_empty() => Some("no live test ran".to_owned()),
            End::Left(NO_MATCH) if tests.is_empty() && may_be_none => None,
            End::Left(status) if *status != 0 && !explained => {
                Some(format!("status {status}, though no test failed"))
            }
            End::Left(_) => None,
        };
        tests.extend(why.map(|why| Tested::failed(END_TEST, why)));
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
    table += &row("suite", &|report| report.suite.word().to_owned());
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
         test that is not for this kernel, or not in the suite that ran there. `full` is all that \
         a guest can run, `contract` what is asked of a kernel between the oldest and the newest \
         (`cargo xtask vm --all` runs the full suite on it too), `refused` is a kernel that tracer \
         refuses. `(2nd)` is a test that failed at first, and passed when it was run once more. \
         Tests of a guest run side by side, so that its seconds are fewer than those of its tests; \
         they are from its start to its end.\n\n\
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
            "kernel": report.kernel, "release": report.release, "suite": report.suite.word(),
            "skipped": report.skipped,
            "seconds": report.took.as_secs_f64(),
            "tests": report.tests.iter().map(test).collect::<Vec<_>>(),
        })
    };
    json!({ "kernels": reports.iter().map(kernel).collect::<Vec<_>>() })
}

#[cfg(test)]
#[path = "results_tests.rs"]
mod tests;
