//! Becoming root, for the few programs that need it: apt-get, tracer itself,
//! the live tests. xtask and the compilers stay what they are, so that no file
//! of the checkout ends up owned by root.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// Whether this process is root already.
fn is_root() -> bool {
    // The kernel gives a process's /proc folder its effective user.
    std::fs::metadata("/proc/self").is_ok_and(|folder| folder.uid() == 0)
}

/// The words to put before a program to run it as root with these variables:
/// empty when root already, `sudo env NAME=VALUE` otherwise.
///
/// sudo drops the environment, and may be forbidden to keep it: `env` after it
/// always works. An error when neither root nor sudo is there.
pub(crate) fn prefix(variables: &[(&str, &str)]) -> Result<Vec<String>> {
    if is_root() {
        return Ok(Vec::new());
    }
    if process::installed("sudo").next().is_none() {
        bail!("this needs root, and there is no sudo: run the same command as root");
    }
    let variables = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    Ok(["sudo", "env"]
        .map(str::to_owned)
        .into_iter()
        .chain(variables)
        .collect())
}

/// A command that runs `program` as root with these variables set.
pub(crate) fn command(program: &Path, variables: &[(&str, &str)]) -> Result<Command> {
    let prefix =
        prefix(variables).with_context(|| format!("cannot run `{}` as root", program.display()))?;
    let Some((sudo, rest)) = prefix.split_first() else {
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        return Ok(command);
    };
    let mut command = Command::new(sudo);
    command.args(rest).arg(program);
    Ok(command)
}

/// Lets sudo ask for its password now, before anything else is drawn on the
/// terminal. Nothing when root already.
pub(crate) fn ask_password() -> Result<()> {
    // Root needs no prefix, and without sudo this says what to do.
    if prefix(&[])?.is_empty() {
        return Ok(());
    }
    process::run(
        Command::new("sudo").arg("-v"),
        "sudo refused: run the same command as root",
    )
}
