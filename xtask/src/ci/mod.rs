//! `test` and `ci`: every check and test of the project, in order.
//!
//! A step that fails does not stop the others, except where its product is
//! needed: a person sees all that is wrong at once. The report closes with a
//! table of the steps, the tests that were skipped and why, what failing tests said,
//! those that passed only when they were run once more, and one line that counts the tests. `test` differs
//! from `ci` by installing what is missing.

mod checks;
mod report;
mod tests;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::setup::{self, Missing};
use crate::tally::Tally;
use crate::{build, clock, vm};
use report::{Outcome, Report};

/// Options of `cargo xtask test` and `cargo xtask ci`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask test          every check, every test
  cargo xtask test oom      only the unit and live tests whose name contains `oom`
  cargo xtask ci            the same checks, installing nothing")]
pub(crate) struct Options {
    /// Run only the unit and live tests whose name contains this, and no checks
    filter: Option<String>,
}

/// What the steps know of each other.
struct Run<'a> {
    missing: Missing,
    filter: Option<&'a str>,
    built: bool,
    tally: Tally,
}

type Step = (&'static str, fn(&mut Run<'_>) -> Result<Outcome>);

const SETUP: Step = ("setup", set_up);
const CHECKS_FIRST: [Step; 2] = [("format", checks::format), ("clippy", checks::clippy)];
const TESTS: [Step; 3] = [
    ("build", build),
    ("unit tests", tests::unit),
    ("live tests", tests::live),
];
const GUESTS: Step = ("guests", guests);
const CHECKS_LAST: [Step; 2] = [("docs", checks::docs), ("licences", checks::licences)];

/// Runs the steps and prints the report; success only when none failed.
pub(crate) fn task(options: &Options, missing: Missing) -> Result<ExitCode> {
    let filter = options.filter.as_deref();
    let mut run = Run {
        missing,
        filter,
        built: false,
        tally: Tally::default(),
    };
    let mut reports = Vec::new();
    for (name, step) in steps(missing, filter.is_some()) {
        println!("==> {name}");
        let started = clock::now();
        let outcome = step(&mut run).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        reports.push(Report {
            name,
            took: started.elapsed(),
            outcome,
        });
    }
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

/// The steps in their order: quick checks first, live tests last.
fn steps(missing: Missing, filtered: bool) -> Vec<Step> {
    let [build, unit, live] = TESTS;
    let mut steps = Vec::new();
    if missing == Missing::Install {
        steps.push(SETUP);
    }
    if filtered {
        steps.extend(TESTS);
    } else {
        steps.extend(CHECKS_FIRST);
        steps.extend([build, unit]);
        steps.extend(CHECKS_LAST);
        steps.extend([live, GUESTS]);
    }
    steps
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
    build::tracer(&toolchain, true)?;
    run.built = true;
    Ok(Outcome::Passed)
}

fn guests(run: &mut Run<'_>) -> Result<Outcome> {
    if !run.built {
        return Ok(Outcome::Skipped("the build failed".to_owned()));
    }
    let (failed_before, passed_before) = (run.tally.failed, run.tally.passed);
    vm::all(&mut run.tally).inspect_err(|_| run.tally.failed += 1)?;
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
