//! `tracer doctor`: what this kernel and these rights allow, and what to do
//! about it. `examine` asks, `report` shows.

mod examine;
mod report;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::{
    cli::{DoctorArgs, PlainFormat},
    snapshot::HookState,
};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    /// tracer runs, with less.
    Limited,
    /// tracer cannot run.
    Failed,
}

/// One thing looked at.
#[derive(Debug)]
struct Check {
    name: String,
    state: State,
    finding: String,
    /// What to do about it; empty when there is nothing to do.
    advice: String,
}

/// All that was looked at.
#[derive(Debug)]
struct Examination {
    checks: Vec<Check>,
    /// What became of each probe; empty when none was tried.
    hooks: Vec<HookState>,
}

/// Looks at everything and says it; 1 when tracer cannot run here.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let found = examine::all(args.btf.as_deref());
    let page = match args.format {
        PlainFormat::Text => crate::session::encode(report::text(&found.checks).into_bytes()),
        PlainFormat::Json => report::json(&found).into_bytes(),
    };
    match io::stdout().write_all(&page) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    let can_run = found
        .checks
        .iter()
        .all(|check| check.state != State::Failed);
    Ok(if can_run {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
