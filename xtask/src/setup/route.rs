//! Which of the two routes to a BPF compiler a machine can have.
//!
//! Nightly: rustup's nightly compiles `core` for the BPF target from source,
//! which needs the component rust-src. Debian: the distribution's compiler for
//! its browsers comes with `core` for the BPF target already compiled. Nightly
//! comes first because a machine that has it needs no root. Nothing here makes
//! rustup download: a toolchain that is not installed counts as absent.

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::process;
use crate::setup::packages;

/// The compiler that Debian's package rustc-web installs.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Where the compiler and the core library for the BPF target come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// rustup's nightly with rust-src, and `-Zbuild-std=core`.
    Nightly,
    /// Debian's rustc-web with its prebuilt core library.
    Debian,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Route::Nightly => "rustup's nightly and rust-src",
            Route::Debian => "Debian's rustc-web",
        })
    }
}

/// What rustup has of a nightly toolchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nightly {
    Absent,
    WithoutSource,
    WithSource,
}

/// What a machine has, as far as the choice needs it.
pub(super) struct Facts {
    pub(super) nightly: Nightly,
    pub(super) apt_get: bool,
}

/// Finds the facts of this machine.
pub(super) fn look() -> Facts {
    Facts {
        nightly: nightly(),
        apt_get: packages::apt_get().is_some(),
    }
}

/// The route to take, or none that this machine can have.
pub(super) fn choose(facts: &Facts) -> Option<Route> {
    match (facts.nightly, facts.apt_get) {
        (Nightly::WithSource, _) => Some(Route::Nightly),
        (_, true) => Some(Route::Debian),
        (_, false) => None,
    }
}

/// What is missing and what to do, for a machine that can have neither route.
pub(super) fn advice(facts: &Facts) -> String {
    let (lacks, command) = match facts.nightly {
        Nightly::Absent => (
            "rustup has no nightly toolchain",
            "rustup toolchain install nightly --component rust-src",
        ),
        _ => (
            "the nightly toolchain has no rust-src",
            "rustup component add rust-src --toolchain nightly",
        ),
    };
    format!(
        "nothing here can compile for the kernel: {lacks}, and there is no apt-get.\n\
         Do one of these, then run the same command again:\n  \
         any Linux: {command}\n  \
         Debian 12 or later, with apt-get: nothing by hand, it installs {}",
        packages::TO_BUILD.join(" ")
    )
}

fn nightly() -> Nightly {
    let mut rustc = Command::new("rustc");
    rustc
        .args(["+nightly", "--print", "sysroot"])
        .env("RUSTUP_AUTO_INSTALL", "0");
    // A rustc that is not rustup's takes `+nightly` for a file and fails.
    let Ok(sysroot) = process::read(&mut rustc) else {
        return Nightly::Absent;
    };
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    if core.is_dir() {
        Nightly::WithSource
    } else {
        Nightly::WithoutSource
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINES: [(Nightly, bool, Option<Route>); 6] = [
        (Nightly::WithSource, true, Some(Route::Nightly)),
        (Nightly::WithSource, false, Some(Route::Nightly)),
        (Nightly::WithoutSource, true, Some(Route::Debian)),
        (Nightly::WithoutSource, false, None),
        (Nightly::Absent, true, Some(Route::Debian)),
        (Nightly::Absent, false, None),
    ];

    #[test]
    fn the_route_follows_from_what_the_machine_has() {
        for (nightly, apt_get, expected) in MACHINES {
            let facts = Facts { nightly, apt_get };
            assert_eq!(choose(&facts), expected, "{nightly:?}, apt-get {apt_get}");
        }
    }

    #[test]
    fn without_a_route_the_advice_names_the_command_that_opens_one() {
        let advice_for = |nightly| {
            advice(&Facts {
                nightly,
                apt_get: false,
            })
        };
        assert!(advice_for(Nightly::Absent).contains("rustup toolchain install nightly"));
        assert!(advice_for(Nightly::WithoutSource).contains("rustup component add rust-src"));
    }
}
