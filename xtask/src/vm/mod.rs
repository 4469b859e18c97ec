//! `vm`: the live tests on other kernels, in guests made on the spot.
//!
//! A guest is a Debian cloud kernel under QEMU without KVM, with an initramfs
//! of busybox, the static tracer and the static live tests, and two disks. What
//! its tests say is shown as it comes, the kernel's name in front. In the end
//! there is a table, tests by kernels, and the same as JSON under target/vm.
//!
//! Each kernel has its suite (`kernels::Suite`); `--all` runs the full one on each.
//! What `tracer doctor` says of each kernel is held against docs/kernels/.

mod apt;
mod emulator;
mod guest;
mod image;
mod job;
mod kernels;
mod results;
mod script;
mod turns;

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::build::{self, LiveTests};
use crate::flake::Repeat;
use crate::live::Tested;
use crate::setup::{self, Missing};
use crate::tally::{Skip, Tally};
use crate::{docs, workspace};
use job::{Base, DOCTOR_TEST, Job};
use kernels::{KERNELS, Kernel};
use results::Report;
use script::Plan;
use turns::{Turns, lock};

/// Guests at a time: each has two CPUs, which are emulated, and keeps one of the machine's
/// busy. With three on two CPUs nothing comes in time.
const AT_A_TIME: usize = 2;

/// The table of tests as a page, under target/vm after each run, and kept under docs/kernels.
const PAGE: &str = "tests.md";

/// Options of `cargo xtask vm`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask vm                              on every kernel its suite, as `cargo xtask test` does
  cargo xtask vm --all                        on every kernel all tests, each alone
  cargo xtask vm --kernel 6.1 --kernel 6.12   on these
  cargo xtask vm --test blocked               of all tests those whose name contains `blocked`
  cargo xtask vm --test causes::              tests of tests/tests/live/causes.rs
  cargo xtask vm --keep                       write docs/kernels/ anew, and the page made from it")]
pub(crate) struct Options {
    /// Boot only this kernel; may be given several times
    #[arg(long = "kernel", value_name = "NAME", value_parser = kernel_names())]
    kernels: Vec<String>,
    /// Run only the tests whose name, with its module, contains this
    #[arg(long, value_name = "PATTERN")]
    test: Option<String>,
    /// Run all tests on every kernel, each alone, and not side by side
    #[arg(long)]
    all: bool,
    /// Keep what `tracer doctor` says of each kernel, instead of comparing it; of a
    /// complete run also the table of tests
    #[arg(long)]
    keep: bool,
}

/// The names that kernels may be given by.
pub(crate) fn kernel_names() -> PossibleValuesParser {
    KERNELS.map(|kernel| kernel.name).into()
}

/// Runs the task: set-up, build, guests, report.
pub(crate) fn task(options: &Options) -> Result<ExitCode> {
    setup::guest_programs()?;
    let toolchain = setup::toolchain(Missing::Install)?;
    build::tracer(&toolchain, true)?;
    let live = build::live_tests()?;
    let plan = match (&options.test, options.all) {
        (Some(pattern), alone) => Plan::Some {
            pattern: pattern.clone(),
            alone,
        },
        (None, true) => Plan::All,
        (None, false) => Plan::Gate,
    };
    let reports = run(&live, plan, &options.kernels, options.keep)?;
    let mut tally = Tally::default();
    count(&reports, &mut tally);
    let is_complete = options.kernels.is_empty() && options.test.is_none();
    if options.keep {
        docs::task()?;
        // The page says what `-` and a number mean, and nothing of failures.
        if is_complete && tally.failed == 0 && reports.iter().all(|r| r.skipped.is_none()) {
            fs::copy(workspace::target("vm").join(PAGE), docs_folder().join(PAGE))?;
        }
    }
    // A pattern that fits nothing is a slip of the keyboard, not a success.
    let mut tests = reports.iter().flat_map(|report| &report.tests);
    let any_ran = tests.any(|test| test.name != DOCTOR_TEST);
    if !any_ran {
        println!("no test ran in a guest: is there one of that name?");
    }
    print!("{}{}", tally.failures(), tally.second_tries());
    println!("{}", tally.closing_line());
    Ok(if tally.failed > 0 || !any_ran {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The guests of `test` and `ci`; what is built is taken.
pub(crate) fn gate(live: &LiveTests, all: bool, tally: &mut Tally) -> Result<()> {
    let plan = if all { Plan::All } else { Plan::Gate };
    count(&run(live, plan, &[], false)?, tally);
    Ok(())
}

/// Tests many times, in a guest of one kernel: what became of each run.
pub(crate) fn repeat(kernel: &str, live: &LiveTests, repeat: Repeat) -> Result<Vec<Tested>> {
    let reports = run(live, Plan::Repeat(repeat), &[kernel.to_owned()], false)?;
    let report = reports
        .into_iter()
        .next()
        .context("there is no such kernel")?;
    if let Some(reason) = report.skipped {
        anyhow::bail!(reason);
    }
    Ok(report.tests)
}

/// Runs a plan on these kernels, on all of them if none is named.
fn run(live: &LiveTests, plan: Plan, kernels: &[String], keep: bool) -> Result<Vec<Report>> {
    let base = Base::provide(live);
    let is_wanted = |kernel: &&Kernel| {
        let is_named = kernels.iter().any(|name| name == kernel.name);
        plan.arguments(kernel).is_some() && (kernels.is_empty() || is_named)
    };
    let queue: VecDeque<&Kernel> = in_turn(&plan).into_iter().filter(is_wanted).collect();
    let turns = Turns::default();
    let job = Job { turns, plan, keep };
    let queue = Mutex::new(queue);
    let done: Mutex<Vec<Report>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(kernel) = take(&queue) {
                    let report = job.on(kernel, &base);
                    lock(&done).push(report);
                }
            });
        }
    });
    let mut reports = done.into_inner().unwrap_or_else(|e| e.into_inner());
    reports.sort_by_key(|report| {
        KERNELS
            .iter()
            .position(|kernel| kernel.name == report.kernel)
    });
    if job.plan.is_repeat() {
        return Ok(reports);
    }
    println!("\n{}", results::table(&reports));
    let folder = workspace::target("vm");
    fs::create_dir_all(&folder)?;
    fs::write(
        folder.join("results.json"),
        format!("{:#}\n", results::json(&reports)),
    )?;
    fs::write(folder.join(PAGE), results::page(&reports))?;
    Ok(reports)
}

/// The kernels in the order in which their guests begin: those with the most tests first,
/// of the same suite the newest, which take longest.
fn in_turn(plan: &Plan) -> Vec<&'static Kernel> {
    let mut kernels: Vec<&Kernel> = KERNELS.iter().rev().collect();
    kernels.sort_by_key(|kernel| plan.suite(kernel));
    kernels
}

fn take<'a>(queue: &Mutex<VecDeque<&'a Kernel>>) -> Option<&'a Kernel> {
    lock(queue).pop_front()
}

/// Adds the outcomes to the closing count, each with its kernel.
fn count(reports: &[Report], tally: &mut Tally) {
    for report in reports {
        if let Some(reason) = &report.skipped {
            tally.skipped.push(Skip {
                test: format!("all tests on {}", report.kernel),
                reason: reason.clone(),
            });
        }
        for test in &report.tests {
            tally.add(test, &format!("{} on {}", test.name, report.kernel));
        }
    }
}

fn docs_folder() -> PathBuf {
    workspace::root().join("docs/kernels")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::live::Outcome;
    use kernels::Suite;

    #[test]
    fn those_with_the_most_to_do_begin_first() {
        let names = |plan| in_turn(plan).iter().map(|k| k.name).collect::<Vec<_>>();
        assert_eq!(names(&Plan::Gate), ["7.x", "6.1", "6.18", "6.12", "5.10"]);
        assert_eq!(names(&Plan::All), ["7.x", "6.18", "6.12", "6.1", "5.10"]);
    }

    #[test]
    fn what_passed_at_the_second_try_is_named_with_its_kernel() {
        let test = |name: &str, tries| Tested {
            tries,
            outcome: Outcome::Passed,
            ..Tested::failed(name, "too slow")
        };
        let report = Report {
            kernel: "6.1",
            release: String::new(),
            suite: Suite::Full,
            skipped: None,
            tests: vec![test("b", 2), Tested::failed("c", "bad")],
            took: Duration::ZERO,
        };
        let mut tally = Tally::default();
        count(&[report], &mut tally);
        assert_eq!(tally.closing_line(), "1 passed, 1 failed, 0 skipped");
        assert_eq!(tally.second_tries(), "passed at the second try: b on 6.1\n");
        assert_eq!(
            tally.failures(),
            "failed b on 6.1: too slow\nfailed c on 6.1: bad\n"
        );
    }
}
