//! The steps that run tests: unit tests as oneself, live tests as root.
//!
//! Both are libtest programs; their output is shown as it comes and counted on
//! the way. Only the live test programs themselves run as root: what cargo
//! builds stays the user's.

use std::process::Command;

use anyhow::{Result, bail};

use crate::ci::Run;
use crate::ci::report::Outcome;
use crate::{build, process, root, vm, workspace};

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
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, path)| Ok((*name, workspace::utf8(path)?)))
        .collect::<Result<_>>()?;
    root::ask_password()?;
    let mut failed = Vec::new();
    let programs = live.programs.into_iter();
    for (name, program) in programs.filter(|(name, _)| name != vm::GUEST_ONLY) {
        println!("live tests of {name}");
        let mut command = root::command(&program, &variables)?;
        // One at a time: each provokes the one kernel and watches what comes of it.
        command
            .args(["--test-threads=1", "--nocapture"])
            .args(run.filter);
        if let Err(error) = counted(run, &mut command) {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(Outcome::Passed)
}

/// Runs tests, showing and counting them.
fn counted(run: &mut Run<'_>, command: &mut Command) -> Result<Outcome> {
    let failed_before = run.tally.failed;
    let status = process::stream(command, |line| {
        println!("{line}");
        run.tally.read(line);
    })?;
    run.tally.end();
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
