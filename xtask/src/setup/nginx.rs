//! The nginx that live tests talk to: the machine's own, else Debian's, unpacked and not
//! installed, since its package would start a server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{process, setup::packages, workspace};

/// Where it is in its package.
const PROGRAM: &str = "usr/sbin/nginx";

/// Its path; `None` where there is none and none can be had, which is said.
pub(crate) fn nginx() -> Option<PathBuf> {
    let installed = process::installed("nginx").next();
    installed.or_else(|| {
        let own = workspace::target("nginx");
        let program = own.join(PROGRAM);
        if !program.exists()
            && let Err(error) = unpack(&own)
        {
            eprintln!("no nginx (its test is skipped): {error:#}");
        }
        program.exists().then_some(program)
    })
}

fn unpack(folder: &Path) -> Result<()> {
    let apt_get = packages::apt_get().context("there is no apt-get")?;
    let downloads = folder.join("downloads");
    let _ = fs::remove_dir_all(&downloads);
    fs::create_dir_all(&downloads)?;
    let mut download = std::process::Command::new(apt_get);
    download.current_dir(&downloads).args(["download", "nginx"]);
    process::read(&mut download)?;
    for package in fs::read_dir(&downloads)? {
        let mut unpack = std::process::Command::new("dpkg-deb");
        process::read(unpack.arg("-x").arg(package?.path()).arg(folder))?;
    }
    fs::remove_dir_all(&downloads).context("the download cannot be removed")
}
