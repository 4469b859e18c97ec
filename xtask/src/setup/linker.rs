//! bpf-linker: finding the one of the right version, or installing it.
//!
//! rustc leaves linking for the BPF target to this program, which links LLVM
//! bitcode and writes the BTF. It must know the LLVM of the compiler: on the
//! Debian route it is built against Debian's LLVM, otherwise it uses the one
//! that comes with the Rust toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::{Missing, Route};
use crate::{process, progress, workspace};

/// The version the kernel side is linked with.
pub(super) const VERSION: &str = "0.13.0";

const DEBIAN_LLVM: &str = "/usr/lib/llvm-22";

/// The path of the right bpf-linker, installed with `cargo install` if need be.
pub(super) fn provide(route: Route, missing: Missing) -> Result<PathBuf> {
    if let Some(linker) = find() {
        return Ok(linker);
    }
    if missing == Missing::Refuse {
        bail!("bpf-linker {VERSION} is not installed; run `cargo xtask setup` first");
    }
    progress::watch(
        &mut install(route),
        &format!("installing bpf-linker {VERSION}"),
        "cargo install, about 75 s",
        "bpf-linker",
        "the log's end above says why; cargo needs its registry to be within reach",
    )?;
    find().with_context(|| {
        format!("cargo installed bpf-linker {VERSION}, but not on PATH nor in cargo's bin folder")
    })
}

/// The first bpf-linker of the right version; others are passed over.
fn find() -> Option<PathBuf> {
    process::installed("bpf-linker").find(|linker| has_version(linker))
}

fn has_version(linker: &Path) -> bool {
    process::read(Command::new(linker).arg("--version"))
        .is_ok_and(|answer| version(&answer) == Some(VERSION))
}

/// The version in an answer like `bpf-linker 0.13.0`.
fn version(answer: &str) -> Option<&str> {
    answer.split_whitespace().nth(1)
}

fn install(route: Route) -> Command {
    let mut command = workspace::cargo();
    command.args(["install", "bpf-linker", "--version", VERSION, "--locked"]);
    if route == Route::Debian {
        command
            .args(["--no-default-features", "--features", "llvm-22"])
            .env("LLVM_PREFIX", DEBIAN_LLVM);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_second_word() {
        assert_eq!(version("bpf-linker 0.13.0\n"), Some("0.13.0"));
        assert_eq!(version("bpf-linker"), None);
    }

    #[test]
    fn only_the_debian_route_builds_against_debians_llvm() {
        let debian = install(Route::Debian);
        assert!(process::describe(&debian).ends_with("--no-default-features --features llvm-22"));
        assert!(process::describe(&install(Route::Nightly)).ends_with("--version 0.13.0 --locked"));
    }
}
