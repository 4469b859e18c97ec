//! `setup`: makes a machine able to build tracer's kernel side.
//!
//! Stable Rust comes without a core library for the BPF target, and without a
//! linker for it. Two routes give both (see `route`); this finds out which one
//! the machine can have, takes it, and says what it does. When all is there it
//! only looks, in well under a second, so every other task begins with it.

mod linker;
mod nginx;
mod packages;
mod route;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

pub(crate) use nginx::nginx;
pub(crate) use route::{DEBIAN_RUSTC, Route};

/// Options of `cargo xtask setup`.
#[derive(Args)]
pub(crate) struct Options {
    /// Also install the programs that only the live tests need
    #[arg(long)]
    tests: bool,
}

/// What to do about something that is not installed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Install it.
    Install,
    /// Fail, and say how to install it.
    Refuse,
}

/// What builds the kernel side on this machine.
pub(crate) struct Toolchain {
    /// Where the compiler and the core library come from.
    pub(crate) route: Route,
    /// The bpf-linker to link with.
    pub(crate) linker: PathBuf,
}

/// Runs the task, and says what the machine has in the end.
pub(crate) fn task(options: &Options) -> Result<()> {
    let toolchain = toolchain(Missing::Install)?;
    if options.tests {
        test_programs()?;
        guest_programs()?;
    }
    eprintln!(
        "ready: the kernel side builds with {} and bpf-linker {} ({})",
        toolchain.route,
        linker::VERSION,
        toolchain.linker.display()
    );
    Ok(())
}

/// The machine's toolchain for the kernel side; says nothing when it is there.
pub(crate) fn toolchain(missing: Missing) -> Result<Toolchain> {
    let facts = route::look();
    let route = route::choose(&facts).with_context(|| route::advice(&facts))?;
    let packages = match route {
        Route::Nightly => Vec::new(),
        Route::Debian => packages::missing_to_build()?,
    };
    packages::provide(&packages, "packages", missing)?;
    let linker = linker::provide(route, missing)?;
    Ok(Toolchain { route, linker })
}

/// Installs the programs that only the live tests need.
pub(crate) fn test_programs() -> Result<()> {
    programs(&packages::TO_TEST, "test-packages")
}

/// Installs the programs that make and run guests.
pub(crate) fn guest_programs() -> Result<()> {
    programs(&packages::FOR_GUESTS, "guest-packages")
}

/// Installs the packages of programs that are not there.
///
/// Without apt-get the missing ones are only named: the tests that need them
/// are skipped, and say so.
fn programs(wanted: &[packages::Program], log: &str) -> Result<()> {
    let missing = packages::missing(wanted);
    if missing.is_empty() || packages::apt_get().is_some() {
        return packages::provide(&missing, log, Missing::Install);
    }
    eprintln!(
        "not installed, and no apt-get to install with: {} (tests that need them are skipped)",
        missing.join(", ")
    );
    Ok(())
}

/// Installs the peers that the bench measures beside tracer.
///
/// What cannot be installed is only named: that peer is skipped, and the pages
/// say so. Each package is tried by itself, so that one that this distribution
/// does not have keeps no other away.
pub(crate) fn bench_programs() -> Result<()> {
    for package in packages::missing(&packages::TO_BENCH) {
        let installed = match packages::apt_get() {
            Some(_) => packages::provide(&[package], "bench-packages", Missing::Install),
            None => Err(anyhow::anyhow!("there is no apt-get")),
        };
        if let Err(error) = installed {
            eprintln!("not installed, what is in it is skipped: {package}: {error:#}");
        }
    }
    Ok(())
}
