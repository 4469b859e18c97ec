//! The steps that run tests: unit tests as oneself, live tests as root.
//!
//! Both are libtest programs; their output is shown as it comes and counted on
//! the way. Only the live test programs themselves run as root: what cargo
//! builds stays the user's.
//!
//! A live test that fails is run once more: a machine that stood still for a
//! moment is no error of tracer's. A unit test is not, as no machine excuses it.

use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Result, bail};

use crate::ci::Run;
use crate::ci::report::Outcome;
use crate::{build, process, root, setup, vm, workspace};

/// Tests of the default members, and those within the live tests' own harness:
/// no root, no BPF.
pub(super) fn unit(run: &mut Run<'_>) -> Result<Outcome> {
    let of_members = unit_of(run, &[]);
    let of_harness = unit_of(run, &["-p", "tests", "--lib"]);
    of_members.and(of_harness)
}

fn unit_of(run: &mut Run<'_>, which: &[&str]) -> Result<Outcome> {
    let mut command = workspace::cargo();
    command
        .args(["test", "--no-fail-fast"])
        .args(which)
        .args(run.filter);
    counted(run, &mut command)
}

/// Tests of the finished program on the running kernel.
pub(super) fn live(run: &mut Run<'_>) -> Result<Outcome> {
    if !run.built {
        return Ok(Outcome::Skipped("the build failed".to_owned()));
    }
    // What does not compile has no counts, and "0 failed" would be a lie.
    let live = build::live_tests().inspect_err(|_| run.tally.failed += 1)?;
    let variables = [
        ("TRACER_BIN", workspace::tracer_binary("release")),
        ("TRACER_BPF_OBJECT", build::kernel_object()),
        ("TRACER_PROVOKE", live.provoke),
    ];
    let nginx = setup::nginx().map(|path| ("TRACER_NGINX", path));
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .chain(&nginx)
        .map(|(name, path)| Ok((*name, workspace::utf8(path)?)))
        .collect::<Result<_>>()?;
    root::ask_password()?;
    let mut failed = Vec::new();
    let programs = live.programs.into_iter();
    for (name, program) in programs.filter(|(name, _)| !vm::GUEST_ONLY.contains(&name.as_str())) {
        println!("live tests of {name}");
        if let Err(error) = live_of(run, &program, &variables) {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(Outcome::Passed)
}

/// Runs the tests of a live test program, and once more those that fail.
fn live_of(run: &mut Run<'_>, program: &Path, variables: &[(&str, &str)]) -> Result<Outcome> {
    let failed_before = run.tally.failed;
    let command = || -> Result<Command> {
        let mut command = root::command(program, variables)?;
        // One at a time: each provokes the one kernel and watches what comes of it.
        command.args(["--test-threads=1", "--nocapture"]);
        Ok(command)
    };
    let mut last = command()?;
    let mut status = shown(run, last.args(run.filter))?;
    let again = run.tally.again();
    if !again.is_empty() {
        println!("once more, by themselves: {}", again.join(" "));
        last = command()?;
        status = shown(run, last.arg("--exact").args(&again))?;
        run.tally.end();
    }
    judged(run, &last, status, failed_before)
}

/// Runs tests, showing and counting them.
fn counted(run: &mut Run<'_>, command: &mut Command) -> Result<Outcome> {
    let failed_before = run.tally.failed;
    let status = shown(run, command)?;
    run.tally.end();
    judged(run, command, status, failed_before)
}

fn shown(run: &mut Run<'_>, command: &mut Command) -> Result<ExitStatus> {
    process::stream(command, |line| {
        println!("{line}");
        run.tally.read(line);
    })
}

/// What became of tests that have run: as counted, and by how their program ended.
fn judged(
    run: &mut Run<'_>,
    command: &Command,
    status: ExitStatus,
    failed_before: usize,
) -> Result<Outcome> {
    let failed = run.tally.failed - failed_before;
    if failed > 0 {
        bail!("{failed} failed");
    }
    if !status.success() {
        // They did not compile: no counts were printed, and "0 failed" would
        // be a lie.
        run.tally.failed += 1;
    }
    process::check(
        command,
        status,
        "the tests did not build or start; see above",
    )?;
    Ok(Outcome::Passed)
}
