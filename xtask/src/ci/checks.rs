//! The steps that look at the sources: format, clippy, docs, licences.
//!
//! Clippy leaves tracer-ebpf out: it is compiled for the BPF target only, and
//! its build is a step of its own.

use anyhow::{Context, Result};

use crate::ci::Run;
use crate::ci::report::Outcome;
use crate::{process, workspace};

pub(super) fn format(run: &mut Run<'_>) -> Result<Outcome> {
    needs("fmt", "rustup component add rustfmt")?;
    cargo(run, &["fmt", "--all", "--check"], "run `cargo fmt --all`")
}

pub(super) fn clippy(run: &mut Run<'_>) -> Result<Outcome> {
    needs("clippy", "rustup component add clippy")?;
    let mut words = vec!["clippy", "--workspace", "--exclude", "tracer-ebpf"];
    words.extend(["--all-targets", "--", "-D", "warnings"]);
    cargo(run, &words, "see above")
}

pub(super) fn docs(run: &mut Run<'_>) -> Result<Outcome> {
    let mut command = workspace::cargo();
    command
        .args(["doc", "--no-deps"])
        .env("RUSTDOCFLAGS", "-Dwarnings");
    run.voice.run(command, "see above")?;
    Ok(Outcome::Passed)
}

pub(super) fn licences(run: &mut Run<'_>) -> Result<Outcome> {
    if process::installed("cargo-deny").next().is_none() {
        let reason = "cargo-deny is not installed (`cargo install cargo-deny --locked`)";
        return Ok(Outcome::Skipped(reason.to_owned()));
    }
    // Not advisories: they need a database from the network at every run.
    cargo(
        run,
        &["deny", "check", "licenses", "bans", "sources"],
        "see above, and deny.toml for what is allowed",
    )
}

fn cargo(run: &Run<'_>, words: &[&str], advice: &str) -> Result<Outcome> {
    let mut command = workspace::cargo();
    command.args(words);
    run.voice.run(command, advice)?;
    Ok(Outcome::Passed)
}

/// An error that says how to install a subcommand of cargo that is not there.
fn needs(subcommand: &str, install: &str) -> Result<()> {
    process::read(workspace::cargo().args([subcommand, "--version"]))
        .map(|_| ())
        .with_context(|| format!("`cargo {subcommand}` is not installed: run `{install}`"))
}
