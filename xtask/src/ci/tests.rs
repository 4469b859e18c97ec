//! The steps that run tests: unit tests as oneself, live tests as root.
//!
//! Their output is counted on the way. A live test that fails may have a second try, which
//! its program gives it, by a ledger: a machine that stood still for a moment is no error
//! of tracer's. A unit test has none, as no machine excuses it.

use std::process::{Command, ExitStatus};

use anyhow::{Result, bail};

use crate::ci::report::Outcome;
use crate::ci::{Run, host};
use crate::live::NO_MATCH;
use crate::{process, workspace};

/// On how many models the gate tries a property; `--all`, and cargo by itself, take four
/// times as many. Properties of whole snapshots took a third of the CPU time of all unit
/// tests.
const CASES_OF_THE_GATE: &str = "64";

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
    if !run.all {
        command.env("PROPTEST_CASES", CASES_OF_THE_GATE);
    }
    let failed_before = run.tally.failed;
    let tally = &mut run.tally;
    let status = run.voice.stream(&mut command, |line| tally.read(line))?;
    run.tally.end();
    let advice = "the tests did not build or start; see above";
    judged(run, &command, status, failed_before, advice)
}

/// Tests of the finished program on the running kernel.
pub(super) fn live(run: &mut Run<'_>) -> Result<Outcome> {
    let Some(live) = &run.live else {
        return Ok(Outcome::Skipped("the build failed".to_owned()));
    };
    let mut command = host::command(live)?;
    if run.all {
        command.arg("--serial");
    }
    command.args(run.filter);
    let (failed_before, before) = (run.tally.failed, run.tally.tests());
    let tally = &mut run.tally;
    let status = run
        .voice
        .stream(&mut command, |line| tally.read_live(line))?;
    run.tally.end();
    let is_none = run.tally.tests() == before && status.code() == Some(NO_MATCH);
    if let Some(filter) = run.filter.filter(|_| is_none) {
        let reason = format!("none has `{filter}` in its name");
        return Ok(Outcome::Skipped(reason));
    }
    if run.tally.tests() == before && status.success() {
        run.tally.failed += 1;
        bail!("no live test ran");
    }
    let advice = "no test failed, but the whole did; see above";
    judged(run, &command, status, failed_before, advice)
}

/// What became of tests that have run: as counted, and by how their program ended.
fn judged(
    run: &mut Run<'_>,
    command: &Command,
    status: ExitStatus,
    failed_before: usize,
    advice: &str,
) -> Result<Outcome> {
    let failed = run.tally.failed - failed_before;
    if failed > 0 {
        bail!("{failed} failed");
    }
    if !status.success() {
        // They did not compile, say: no counts were printed, and "0 failed"
        // would be a lie.
        run.tally.failed += 1;
    }
    process::check(command, status, advice)?;
    Ok(Outcome::Passed)
}
