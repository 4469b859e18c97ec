//! `tracer doctor`: what this kernel and these rights allow, and what to do
//! about it. `examine` asks, `report` shows.

mod examine;
mod report;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::cli::{DoctorArgs, DoctorFormat};

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

/// Looks at everything and says it; 1 when tracer cannot run here.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let checks = examine::all(args.btf.as_deref());
    let page = match args.format {
        DoctorFormat::Text => report::text(&checks),
        DoctorFormat::Json => report::json(&checks),
    };
    match io::stdout().write_all(page.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    let can_run = checks.iter().all(|check| check.state != State::Failed);
    Ok(if can_run {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
