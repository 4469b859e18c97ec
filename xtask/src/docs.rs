//! `docs`: writes the generated pages anew.
//!
//! The table of probes, the options and the metrics are described once, in
//! tracer's own sources; an example of the crate prints them as pages, since
//! only it can see them all.

use anyhow::Result;

use crate::{process, workspace};

/// Runs the task.
pub(crate) fn task() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args([
        "run",
        "-q",
        "-p",
        "tracer",
        "--example",
        "docs",
        "--",
        "docs",
    ]);
    process::run(&mut cargo, "the pages under docs/ are not up to date")
}
