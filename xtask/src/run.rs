//! `run`: from a checkout to a running tracer with one command.
//!
//! xtask becomes tracer (exec), so signals and the exit status are tracer's
//! own, and stdout carries nothing else than what tracer writes.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use clap::Args;

use crate::setup::{self, Missing};
use crate::{build, process, root};

/// Options of `cargo xtask run`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask run
  cargo xtask run -- --format json | jq
  cargo xtask run -- doctor
  cargo xtask run -- --help")]
pub(crate) struct Options {
    /// Arguments for tracer; without one of its commands in front, they are for `tracer run`
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Builds tracer and becomes it. Only an error returns.
pub(crate) fn task(options: &Options) -> Result<Infallible> {
    let toolchain = setup::toolchain(Missing::Install)?;
    let tracer = build::tracer(&toolchain, true)?;
    let mut command = root::command(&tracer, &[])?;
    command.args(tracer_args(&options.args));
    let error = command.exec();
    Err(error).with_context(|| process::not_started(&command))
}

/// The arguments tracer gets: `run` is put in front unless a command of tracer
/// or a question about tracer itself is there already.
///
/// A first word that is no option is a command, whichever: `tracer run` takes
/// options only, so that no list of commands need be kept here.
fn tracer_args(args: &[OsString]) -> Vec<OsString> {
    let complete = args
        .first()
        .and_then(|first| first.to_str())
        .is_some_and(|first| {
            matches!(first, "-h" | "--help" | "-V" | "--version") || !first.starts_with('-')
        });
    let run = (!complete).then(|| OsString::from("run"));
    run.into_iter().chain(args.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_is_put_before_options_only() {
        let cases: [(&[&str], &[&str]); 6] = [
            (&[], &["run"]),
            (&["--format", "json"], &["run", "--format", "json"]),
            (&["run", "--format", "json"], &["run", "--format", "json"]),
            (&["doctor"], &["doctor"]),
            (&["--help"], &["--help"]),
            (&["--version"], &["--version"]),
        ];
        for (given, expected) in cases {
            let given: Vec<OsString> = given.iter().map(OsString::from).collect();
            assert_eq!(tracer_args(&given), expected, "{given:?}");
        }
    }
}
