//! apt, which brings what guests are made of from the mirror of the machine.
//!
//! It has lists and a cache of its own under target/vm: it finds the mirror that the
//! machine is configured with, checks the signature of a suite's index and the SHA-256
//! of a package, and installs nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// What Debian's archives call themselves.
pub(super) const MAIN: &str = "Debian";
pub(super) const SECURITY: &str = "Debian-Security";

/// Its age is that of the index.
const UPDATED: &str = "updated";
/// How long an index is taken for fresh.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// apt, with one suite, and with lists and a cache of its own.
pub(super) struct Apt {
    folder: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// `suite` is one of the archive that calls itself `label`.
    pub(super) fn new(suite: &str, label: &str) -> Result<Self> {
        let folder = workspace::target("vm/apt").join(suite);
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(below))?;
        }
        let source = format!("{} {suite} main\n", mirror(label)?);
        let list = folder.join("sources.list");
        if fs::read_to_string(&list).ok().as_ref() != Some(&source) {
            // Another mirror: what was fetched from the one before does not count.
            let _ = fs::remove_file(folder.join(UPDATED));
            fs::write(&list, source)?;
        }
        let path = |below: &str| folder.join(below).display().to_string();
        let options = [
            format!("Dir::State={}", path("")),
            format!("Dir::State::lists={}", path("lists")),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Cache={}", path("cache")),
            format!("Dir::Etc::SourceList={}", path("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // What a desktop adds to the lists, and a package of any kernel is not in.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ]
        .into();
        Ok(Self { folder, options })
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut command = tool(program)?;
        command.current_dir(&self.folder);
        for option in &self.options {
            command.args(["-o", option]);
        }
        Ok(command)
    }

    /// Fetches the suite's index, unless it is fresh.
    pub(super) fn update(&self) -> Result<()> {
        let stamp = self.folder.join(UPDATED);
        if is_fresh(&stamp) {
            return Ok(());
        }
        process::read(self.command("apt-get")?.args(["--error-on=any", "update"]))?;
        Ok(fs::write(stamp, "")?)
    }

    /// Names of the suite's packages that begin like this, one a line.
    pub(super) fn names(&self, beginning: &str) -> Result<String> {
        process::read(self.command("apt-cache")?.args(["pkgnames", beginning]))
    }

    /// Downloads packages and unpacks them into a folder.
    pub(super) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let downloads = self.folder.join("downloads");
        let _ = fs::remove_dir_all(&downloads);
        fs::create_dir_all(&downloads)?;
        let mut download = self.command("apt-get")?;
        download
            .current_dir(&downloads)
            .arg("download")
            .args(packages);
        // A package that is not there any more: the index is not fresh after all.
        process::read(&mut download).inspect_err(|_| {
            let _ = fs::remove_file(self.folder.join(UPDATED));
        })?;
        fs::create_dir_all(into)?;
        for package in fs::read_dir(&downloads)? {
            process::read(tool("dpkg-deb")?.arg("-x").arg(package?.path()).arg(into))?;
        }
        Ok(fs::remove_dir_all(&downloads)?)
    }
}

/// Whether a file was written within the last day.
pub(super) fn is_fresh(stamp: &Path) -> bool {
    let age = fs::metadata(stamp)
        .and_then(|stamp| stamp.modified())
        .ok()
        .and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age < FRESH)
}

/// The beginning of a line of sources.list, up to the mirror that this machine
/// is configured with.
fn mirror(label: &str) -> Result<String> {
    let mut apt_get =
        tool("apt-get").context("guests are made of Debian's packages, which come through apt")?;
    apt_get.args(["indextargets", "--format", "$(LABEL)|$(REPO_URI)"]);
    let targets = process::read(apt_get.arg("Created-By: Packages"))?;
    let uri = of_label(&targets, label).with_context(|| {
        format!("apt is configured with no mirror of {label} (or `apt-get update` never ran)")
    })?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let signed_by = if Path::new(keyring).exists() {
        format!(" signed-by={keyring}")
    } else {
        String::new()
    };
    Ok(format!("deb [arch=amd64{signed_by}] {uri}"))
}

/// The repository of a label in apt's answer.
fn of_label<'a>(targets: &'a str, label: &str) -> Option<&'a str> {
    targets
        .lines()
        .filter_map(|line| line.split_once('|'))
        .find_map(|(of, uri)| (of == label).then_some(uri))
}

/// A program of the machine.
pub(super) fn tool(name: &str) -> Result<Command> {
    let program = process::installed(name).next();
    program
        .map(Command::new)
        .with_context(|| format!("`{name}` is not installed"))
}

/// Fills a folder anew, of which there is never a half.
pub(super) fn replace(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut aside = folder.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    let _ = fs::remove_dir_all(&aside);
    fs::create_dir_all(&aside)?;
    fill(&aside)?;
    let _ = fs::remove_dir_all(folder);
    Ok(fs::rename(&aside, folder)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_found_by_its_label() {
        let targets =
            "Debian Backports|http://a/\nDebian|http://b/debian/\nDebian-Security|http://c/\n";
        assert_eq!(of_label(targets, "Debian"), Some("http://b/debian/"));
        assert_eq!(of_label(targets, "Debian-Security"), Some("http://c/"));
        assert_eq!(of_label(targets, "Ubuntu"), None);
    }
}
