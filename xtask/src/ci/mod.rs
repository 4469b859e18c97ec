//! `test` and `ci`: every check and test of the project.
//!
//! The guests take longest, so all that they need is built first, and they begin. Beside
//! them, on a thread of its own and with the least priority, is done what only compiles,
//! where there are CPUs for both. The live tests of this machine come last and alone: they
//! measure what tracer costs. `--all` does nothing side by side.
//!
//! A step that fails does not stop the others, except where its product is
//! needed: a person sees all that is wrong at once. The report closes with a
//! table of the steps, the tests that were skipped and why, what failing tests said,
//! those that passed only when they were run once more, and one line that counts the
//! tests. `test` differs from `ci` by installing what is missing.

mod checks;
pub(crate) mod host;
mod report;
mod tests;
mod voice;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::build::{self, LiveTests};
use crate::setup::{self, Missing};
use crate::tally::Tally;
use crate::{clock, vm};
use report::{Outcome, Report};
use voice::Voice;

/// Options of `cargo xtask test` and `cargo xtask ci`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask test          every check; of the live tests, on each kernel its suite
  cargo xtask test --all    every live test on every kernel, each alone: much longer
  cargo xtask test oom      only the unit and live tests whose name contains `oom`
  cargo xtask ci            the same checks as `test`, installing nothing")]
pub(crate) struct Options {
    /// Run only the unit and live tests whose name contains this, and no checks
    filter: Option<String>,
    /// Run every live test, alone, here and on every kernel, and nothing side by side
    #[arg(long, conflicts_with = "filter")]
    all: bool,
}

/// Two guests keep two CPUs busy: with fewer than this, what is compiled beside them makes
/// them late, and nothing is done sooner.
const CPUS_FOR_BOTH: usize = 4;

/// What the steps know of each other.
struct Run<'a> {
    missing: Missing,
    filter: Option<&'a str>,
    all: bool,
    /// Once the build is done.
    live: Option<LiveTests>,
    tally: Tally,
    voice: Voice,
}

type Step = (&'static str, fn(&mut Run<'_>) -> Result<Outcome>);

const SETUP: Step = ("setup", set_up);
const FORMAT: Step = ("format", checks::format);
const BUILD: Step = ("build", build);
/// What only compiles, and runs what needs no machine for itself.
const COMPILED: [Step; 4] = [
    ("clippy", checks::clippy),
    UNIT,
    ("docs", checks::docs),
    ("licences", checks::licences),
];
const UNIT: Step = ("unit tests", tests::unit);
const LIVE: Step = ("live tests", tests::live);
const GUESTS: Step = ("guests", guests);

/// Steps in their order.
#[derive(Default)]
struct Steps {
    first: Vec<Step>,
    /// Beside each other: these one after another, and `guests`.
    beside: Vec<Step>,
    guests: Option<Step>,
    last: Vec<Step>,
}

/// Runs the steps and prints the report; success only when none failed.
pub(crate) fn task(options: &Options, missing: Missing) -> Result<ExitCode> {
    let filter = options.filter.as_deref();
    let mut run = Run {
        missing,
        filter,
        all: options.all,
        live: None,
        tally: Tally::default(),
        voice: Voice::Shown,
    };
    let has_cpus = thread::available_parallelism().is_ok_and(|cpus| cpus.get() >= CPUS_FOR_BOTH);
    let steps = steps(missing, filter.is_some(), options.all || !has_cpus);
    let mut reports: Vec<Report> = steps
        .first
        .iter()
        .map(|step| shown(step, &mut run))
        .collect();
    if let Some(guests) = steps.guests {
        reports.extend(side_by_side(&steps.beside, &guests, &mut run));
    }
    reports.extend(steps.last.iter().map(|step| shown(step, &mut run)));
    // A filter that fits nothing is a slip of the keyboard, not a success.
    let no_match = filter.filter(|_| run.tally.tests() == 0);
    report::print(&reports, &run.tally, no_match);
    let failed = reports.iter().any(Report::failed) || no_match.is_some();
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Which steps there are, and in which order; `in_turn`: nothing side by side. Before the guests there is only what they
/// need, and the check that takes a second.
fn steps(missing: Missing, filtered: bool, in_turn: bool) -> Steps {
    let mut steps = Steps::default();
    steps
        .first
        .extend((missing == Missing::Install).then_some(SETUP));
    if filtered {
        steps.first.extend([BUILD, UNIT, LIVE]);
    } else if in_turn {
        steps.first.extend([FORMAT, BUILD]);
        steps.first.extend(COMPILED);
        steps.first.extend([GUESTS, LIVE]);
    } else {
        steps.first.extend([FORMAT, BUILD]);
        steps.beside.extend(COMPILED);
        steps.guests = Some(GUESTS);
        steps.last.push(LIVE);
    }
    steps
}

/// A step whose output is shown.
fn shown(step: &Step, run: &mut Run<'_>) -> Report {
    println!("==> {}", step.0);
    perform(step, run)
}

fn perform((name, step): &Step, run: &mut Run<'_>) -> Report {
    let started = clock::now();
    let outcome = step(run).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    Report {
        name,
        took: started.elapsed(),
        outcome,
    }
}

/// The guests, and the other steps in the background; what those that failed said is shown
/// when all have ended.
fn side_by_side(beside: &[Step], guests: &Step, run: &mut Run<'_>) -> Vec<Report> {
    let mut quiet = Run {
        missing: run.missing,
        filter: None,
        all: run.all,
        live: None,
        tally: Tally::default(),
        voice: Voice::Shown,
    };
    let names: Vec<&str> = beside.iter().map(|(name, _)| *name).collect();
    println!("==> {}, beside {}", guests.0, names.join(", "));
    let (mut reports, mut said) = (Vec::new(), String::new());
    let of_guests = thread::scope(|scope| {
        scope.spawn(|| {
            for step in beside {
                let report = in_background(step, &mut quiet);
                println!("==> {}", report.line());
                if report.failed() {
                    said += &format!("\n==> {}\n{}", report.name, quiet.voice.said());
                }
                reports.push(report);
            }
        });
        let report = perform(guests, run);
        println!("==> {}", report.line());
        report
    });
    print!("{said}");
    run.tally.merge(quiet.tally);
    reports.push(of_guests);
    reports
}

/// A step whose output is kept.
fn in_background(step: &Step, run: &mut Run<'_>) -> Report {
    match Voice::kept(step.0) {
        Ok(voice) => {
            run.voice = voice;
            perform(step, run)
        }
        Err(error) => Report {
            name: step.0,
            took: Duration::ZERO,
            outcome: Outcome::Failed(format!("{error:#}")),
        },
    }
}

fn set_up(run: &mut Run<'_>) -> Result<Outcome> {
    setup::toolchain(run.missing)?;
    setup::test_programs()?;
    setup::guest_programs()?;
    Ok(Outcome::Passed)
}

fn build(run: &mut Run<'_>) -> Result<Outcome> {
    // What `test` installs, its first step has: here nothing is installed.
    let toolchain = setup::toolchain(Missing::Refuse)?;
    // Side by side: the end of either build is one crate on one CPU.
    let (tracer, live) = thread::scope(|scope| {
        let live = scope.spawn(build::live_tests);
        let tracer = build::tracer(&toolchain, true);
        (tracer, live.join())
    });
    // What does not compile has no counts, and "0 failed" would be a lie.
    let live = live.unwrap_or_else(|_| bail!("building the live tests panicked"));
    let live = live.inspect_err(|_| run.tally.failed += 1)?;
    tracer?;
    run.live = Some(live);
    Ok(Outcome::Passed)
}

fn guests(run: &mut Run<'_>) -> Result<Outcome> {
    let Some(live) = &run.live else {
        return Ok(Outcome::Skipped("the build failed".to_owned()));
    };
    let (failed_before, passed_before) = (run.tally.failed, run.tally.passed);
    vm::gate(live, run.all, &mut run.tally).inspect_err(|_| run.tally.failed += 1)?;
    let failed = run.tally.failed - failed_before;
    if failed > 0 {
        bail!("{failed} failed");
    }
    if run.tally.passed == passed_before {
        let reason = "no guest could be had; see below";
        return Ok(Outcome::Skipped(reason.to_owned()));
    }
    Ok(Outcome::Passed)
}

#[cfg(test)]
mod order {
    use super::*;

    fn names(steps: &[Step]) -> Vec<&str> {
        steps.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn guests_wait_for_format_and_build_only() {
        let steps = steps(Missing::Install, false, false);
        assert_eq!(names(&steps.first), ["setup", "format", "build"]);
        assert_eq!(
            names(&steps.beside),
            ["clippy", "unit tests", "docs", "licences"]
        );
        assert!(steps.guests.is_some());
        assert_eq!(names(&steps.last), ["live tests"]);
    }

    #[test]
    fn one_after_another_the_steps_are_the_same() {
        let gate = steps(Missing::Refuse, false, false);
        let all = steps(Missing::Refuse, false, true);
        let mut expected = names(&gate.first);
        expected.extend(names(&gate.beside));
        expected.extend(["guests", "live tests"]);
        assert_eq!(names(&all.first), expected);
        assert!(all.guests.is_none() && all.beside.is_empty() && all.last.is_empty());
    }

    #[test]
    fn a_word_runs_no_checks_and_no_guests() {
        let steps = steps(Missing::Install, true, false);
        let expected = ["setup", "build", "unit tests", "live tests"];
        assert_eq!(names(&steps.first), expected);
        assert!(steps.guests.is_none() && steps.last.is_empty());
    }

    #[test]
    fn what_is_beside_the_guests_is_counted_with_them() {
        fn passes(run: &mut Run<'_>) -> Result<Outcome> {
            run.tally.passed += 1;
            Ok(Outcome::Passed)
        }
        fn fails(run: &mut Run<'_>) -> Result<Outcome> {
            run.tally.failed += 1;
            bail!("no")
        }
        let mut run = Run {
            missing: Missing::Refuse,
            filter: None,
            all: false,
            live: None,
            tally: Tally::default(),
            voice: Voice::Shown,
        };
        let beside: [Step; 2] = [("order fails", fails), ("order passes", passes)];
        let reports = side_by_side(&beside, &("guests", passes), &mut run);
        let failed: Vec<bool> = reports.iter().map(Report::failed).collect();
        assert_eq!(failed, [true, false, false]);
        assert_eq!((run.tally.passed, run.tally.failed), (2, 1));
        for step in beside {
            std::fs::remove_file(crate::workspace::target("ci").join(voice::file_name(step.0)))
                .unwrap();
        }
    }
}
