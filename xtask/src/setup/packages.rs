//! Packages of Debian and its kin: which are missing, and installing them.
//!
//! Packages for building are asked of dpkg. For the live tests the program
//! itself is looked for: other distributions package the same one otherwise.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::Missing;
use crate::{process, progress, root};

/// What the Debian route builds the kernel side and bpf-linker with.
pub(super) const TO_BUILD: [&str; 9] = [
    "rustc-web",
    "cargo-web",
    "libstd-rust-web-dev-bpf",
    "rust-web-llvm",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "libxml2-dev",
];

/// What gives `cc`, which rustc links with, to a machine without one.
const C_COMPILER: [&str; 2] = ["gcc", "libc6-dev"];

/// A program, and Debian's package of it.
pub(super) type Program = (&'static str, &'static str);

/// What only the live tests need.
pub(super) const TO_TEST: [Program; 6] = [
    ("stress-ng", "stress-ng"),
    ("ss", "iproute2"),
    ("free", "procps"),
    ("mpstat", "sysstat"),
    ("lsof", "lsof"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// What makes guests and runs them.
pub(super) const FOR_GUESTS: [Program; 3] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
];

/// What only the bench needs: tracer's peers, one program of each package.
pub(super) const TO_BENCH: [Program; 6] = [
    ("stress-ng", "stress-ng"),
    ("offcputime", "libbpf-tools"),
    ("bpftrace", "bpftrace"),
    ("top", "procps"),
    ("pidstat", "sysstat"),
    ("ss", "iproute2"),
];

/// The machine's apt-get, if it has one.
pub(super) fn apt_get() -> Option<PathBuf> {
    process::installed("apt-get").next()
}

/// The packages for building that dpkg does not have installed.
pub(super) fn missing_to_build() -> Result<Vec<&'static str>> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(TO_BUILD)
        .output()
        .context("`dpkg-query` did not start: apt-get is here, so where is dpkg?")?;
    // It fails when a package is unknown, and prints the others all the same.
    let mut missing = not_installed(&String::from_utf8_lossy(&output.stdout));
    if process::installed("cc").next().is_none() {
        missing.extend(C_COMPILER);
    }
    Ok(missing)
}

/// The packages of those programs that are not there.
pub(super) fn missing(wanted: &[Program]) -> Vec<&'static str> {
    wanted
        .iter()
        .filter(|(program, _)| process::installed(program).next().is_none())
        .map(|(_, package)| *package)
        .collect()
}

/// Installs packages as root with apt-get; nothing for an empty list.
pub(super) fn provide(packages: &[&str], log: &str, missing: Missing) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(", ");
    if missing == Missing::Refuse {
        bail!("not installed: {list}; run `cargo xtask setup` first");
    }
    root::ask_password().with_context(|| format!("cannot install {list}"))?;
    let update = progress::watch(
        apt()?.arg("update"),
        "fetching the lists of packages",
        "apt-get update, a few seconds",
        "apt-update",
        "going on with the lists that are here",
    );
    // One broken source of many fails the update; the install will tell.
    if let Err(error) = update {
        eprintln!("warning: {error:#}");
    }
    progress::watch(
        apt()?
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages),
        &format!("installing {list}"),
        "apt-get, about 30 s",
        log,
        "if this distribution has no such packages, take the other route: \
         `rustup toolchain install nightly --component rust-src`, then run this again",
    )
}

/// apt-get as root, asking nothing, and waiting for another apt to finish.
fn apt() -> Result<Command> {
    let program = apt_get().context("there is no apt-get")?;
    let mut command = root::command(&program, &[("DEBIAN_FRONTEND", "noninteractive")])?;
    command.args(["-o", "DPkg::Lock::Timeout=120"]);
    Ok(command)
}

/// Which packages for building are not `installed` in dpkg-query's answer.
fn not_installed(answer: &str) -> Vec<&'static str> {
    let installed = |package: &str| {
        answer
            .lines()
            .any(|line| line.split_once(' ') == Some((package, "installed")))
    };
    TO_BUILD
        .into_iter()
        .filter(|package| !installed(package))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_half_installed_and_unknown_packages_are_missing() {
        let all: String = TO_BUILD
            .map(|package| format!("{package} installed\n"))
            .concat();
        assert!(not_installed(&all).is_empty());
        let some = all
            .replace("llvm-22-dev installed", "llvm-22-dev config-files")
            .replace("cargo-web installed", "cargo-web half-installed")
            .replace("libxml2-dev installed\n", "");
        assert_eq!(
            not_installed(&some),
            ["cargo-web", "llvm-22-dev", "libxml2-dev"]
        );
    }
}
