//! Where things are: the workspace's root, its build folders, its cargo.
//!
//! The two sides of tracer are built with different flags. Each has a target
//! folder of its own, so that neither throws away the other's work nor that of
//! a plain `cargo build`; the finished program is then put where a plain
//! `cargo build` would put it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// The folder of the workspace's Cargo.toml.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// A path under the workspace's `target` folder.
pub(crate) fn target(below: &str) -> PathBuf {
    root().join("target").join(below)
}

/// The finished program of a profile's folder, `release` or `debug`.
pub(crate) fn tracer_binary(profile: &str) -> PathBuf {
    target(profile).join("tracer")
}

/// A path as text, as the variables of a command want it.
pub(crate) fn utf8(path: &Path) -> Result<&str> {
    path.to_str()
        .context("the path of the checkout is not UTF-8: move it")
}

/// The cargo that runs xtask, to be run in the workspace's root.
pub(crate) fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root());
    command
}

/// The target triple of this machine, as `rustc -vV` names it.
pub(crate) fn host_triple() -> Result<String> {
    let version = process::read(Command::new("rustc").arg("-vV").current_dir(root()))?;
    version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("`rustc -vV` names no host: is `rustc` on PATH a Rust compiler?")
}
