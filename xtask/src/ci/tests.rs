//! The steps that run tests: unit tests as oneself, live tests as root.
//!
//! Both are libtest programs started by cargo; their output is shown as it
//! comes and counted on the way. Only the live test programs themselves run as
//! root, by cargo's `runner`: what cargo builds stays the user's.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::ci::Run;
use crate::ci::report::Outcome;
use crate::{build, process, root, workspace};

/// Tests of the default members: no root, no BPF.
pub(super) fn unit(run: &mut Run<'_>) -> Result<Outcome> {
    let mut command = workspace::cargo();
    command.args(["test", "--no-fail-fast"]).args(run.filter);
    counted(run, &mut command)
}

/// Tests of the finished program on the running kernel.
pub(super) fn live(run: &mut Run<'_>) -> Result<Outcome> {
    if !run.built {
        return Ok(Outcome::Skipped("the build failed".to_owned()));
    }
    let binary = workspace::tracer_binary("release");
    let binary = binary
        .to_str()
        .context("the path of the checkout is not UTF-8: move it")?;
    let object = build::kernel_object();
    let object = object.to_str().context("as above")?;
    let variables = [("TRACER_BIN", binary), ("TRACER_BPF_OBJECT", object)];
    let mut command = workspace::cargo();
    command
        .args(["test", "-p", "tests", "--release", "--no-fail-fast"])
        .envs(variables);
    let prefix = root::prefix(&variables)?;
    if !prefix.is_empty() {
        root::ask_password()?;
        // The words of a runner given as a list may hold spaces.
        let runner = format!("target.{}.runner={prefix:?}", workspace::host_triple()?);
        command.args(["--config", &runner]);
    }
    // One at a time: each provokes the one kernel and watches what comes of it.
    command
        .args(run.filter)
        .args(["--", "--test-threads=1", "--nocapture"]);
    counted(run, &mut command)
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
