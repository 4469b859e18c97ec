//! `bench`: what tracer costs, beside its peers and beside nothing.
//!
//! The measuring program (tests/src/bin/bench.rs) runs as root and writes one
//! JSON document; a second run of it, as the user, makes the pages of that. So
//! the pages can be made anew without measuring again, and belong to the user.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result};
use clap::Args;

use crate::setup::{self, Missing};
use crate::{build, process, root, workspace};

/// The status with which the measuring program says that a budget is not kept.
const OVER_BUDGET: i32 = 3;

/// Options of `cargo xtask bench`.
#[derive(Args)]
#[command(after_help = "\
The machine must be quiet: nothing else may run meanwhile.
The full run writes docs/bench.json, bench.md and bench.svg, and the table in README.md.")]
pub(crate) struct Options {
    /// Fewer and shorter rounds, about two minutes; written to target/bench only
    #[arg(long)]
    quick: bool,
    /// Only the workloads whose name contains this; written to target/bench only
    #[arg(long)]
    only: Option<String>,
}

/// Measures and makes the pages; a failure when a figure is over its budget.
pub(crate) fn task(options: &Options) -> Result<ExitCode> {
    let toolchain = setup::toolchain(Missing::Install)?;
    setup::bench_programs()?;
    let tracer = build::tracer(&toolchain, true)?;
    let programs = build::bench_programs()?;
    let (bench, provoke) = (programs.join("bench"), programs.join("provoke"));

    let folder = workspace::target("bench");
    fs::create_dir_all(&folder)?;
    let run = folder.join("run.json");
    let status = measure(options, &bench, &run, &tracer, &provoke)?;
    let is_over = status.code() == Some(OVER_BUDGET);
    if !status.success() && !is_over {
        anyhow::bail!("measuring failed ({status}); see above");
    }

    let mut report = Command::new(&bench);
    report.arg("report").arg(&run);
    if options.quick || options.only.is_some() {
        report.arg(&folder);
    } else {
        report
            .arg(workspace::root().join("docs"))
            .arg(workspace::root().join("README.md"));
    }
    process::run(&mut report, "the pages could not be made; see above")?;
    Ok(if is_over {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Measures into a file. What goes wrong or over budget is said on stderr.
fn measure(
    options: &Options,
    bench: &Path,
    run: &Path,
    tracer: &Path,
    provoke: &Path,
) -> Result<ExitStatus> {
    let object = build::kernel_object();
    root::ask_password()?;
    let variables = [
        ("TRACER_BIN", workspace::utf8(tracer)?),
        ("TRACER_BPF_OBJECT", workspace::utf8(&object)?),
        ("TRACER_PROVOKE", workspace::utf8(provoke)?),
    ];
    let mut command = root::command(bench, &variables)?;
    command.arg("measure");
    if options.quick {
        command.arg("--quick");
    }
    if let Some(word) = &options.only {
        command.args(["--only", word]);
    }
    let mut json = String::new();
    let status = process::stream(&mut command, |line| {
        json.push_str(line);
        json.push('\n');
    })?;
    fs::write(run, json).with_context(|| format!("cannot write {}", run.display()))?;
    Ok(status)
}
