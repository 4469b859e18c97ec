//! The QEMU that guests run under: the machine's own, unless it is too old.
//!
//! Before 8.1, QEMU may run a translation of code that the guest's kernel has patched
//! meanwhile (its commit deba78709a, "accel/tcg: Always lock pages before translation"):
//! each hook that a test attaches patches code, and a guest that dies or hangs of it says
//! nothing of tracer. Debian has a newer one among the backports of each release; that
//! is unpacked, not installed, and runs with the libraries of the machine's own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::vm::apt::{self, Apt, MAIN};
use crate::{process, workspace};

const QEMU: &str = "qemu-system-x86_64";
/// The first that is right, (major, minor).
const LEAST: (u32, u32) = (8, 1);
/// Packages of the program, of what it boots a kernel with, and of its BIOS.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "qemu-system-data", "seabios"];
/// Where those keep their files.
const FILES: [&str; 2] = ["usr/share/seabios", "usr/share/qemu"];

/// A QEMU, ready to be run.
#[derive(Clone, Debug)]
pub(super) struct Emulator {
    program: PathBuf,
    /// Folders of its files; none where it finds them itself.
    files: Vec<PathBuf>,
}

impl Emulator {
    /// The machine's, or a newer one; one that is too old where no other can be had,
    /// which is said.
    ///
    /// # Errors
    /// There is none at all.
    pub(super) fn provide() -> Result<Self> {
        let program = process::installed(QEMU).next();
        let own = Self {
            program: program.with_context(|| format!("`{QEMU}` is not installed"))?,
            files: Vec::new(),
        };
        if own.version()? >= LEAST {
            return Ok(own);
        }
        Ok(Self::newer().unwrap_or_else(|error| {
            eprintln!("guests may die of this machine's old QEMU: no other can be had: {error:#}");
            own
        }))
    }

    /// Debian's backport, unpacked.
    fn newer() -> Result<Self> {
        let folder = workspace::target("vm/qemu");
        let newer = Self {
            program: folder.join("usr/bin").join(QEMU),
            files: FILES.map(|files| folder.join(files)).into(),
        };
        if !newer.program.is_file() {
            let suite = format!("{}-backports", release()?);
            let apt = Apt::new(&suite, MAIN)?;
            apt.update()?;
            apt::replace(&folder, |aside| {
                apt.unpack(&PACKAGES.map(str::to_owned), aside)
            })?;
        }
        // It may need a library that the machine has not.
        match newer.version()? {
            version if version < LEAST => bail!("the backport is old too"),
            _ => Ok(newer),
        }
    }

    /// The command, without options for a guest.
    pub(super) fn words(&self) -> Vec<PathBuf> {
        let files = self.files.iter();
        let options = files.flat_map(|folder| [PathBuf::from("-L"), folder.clone()]);
        std::iter::once(self.program.clone())
            .chain(options)
            .collect()
    }

    fn version(&self) -> Result<(u32, u32)> {
        let said = process::read(Command::new(&self.program).arg("--version"))?;
        version(&said).with_context(|| format!("{}: no version", self.program.display()))
    }
}

/// The version in what `--version` says: `QEMU emulator version 7.2.22 (Debian ..)`.
fn version(said: &str) -> Option<(u32, u32)> {
    let (_, numbers) = said.split_once("version ")?;
    let mut numbers = numbers.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

/// The code name of the machine's Debian.
fn release() -> Result<String> {
    let said = fs::read_to_string("/etc/os-release").context("which Debian is this?")?;
    let name = said
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.context("/etc/os-release has no VERSION_CODENAME")?;
    Ok(name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        let said = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright";
        assert_eq!(version(said), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(version("QEMU emulator"), None);
        assert!(version("version 10.0.2") > Some(LEAST));
    }
}
