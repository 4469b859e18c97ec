//! What guests are made of, from the mirror of the machine: Debian's own cloud
//! kernels, and a static busybox.
//!
//! What a guest needs of a kernel is kept: the image and a few modules.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::vm::apt::{self, Apt, MAIN, SECURITY, tool};
use crate::{process, workspace};

/// A kernel to boot.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Its series, as the user names it.
    pub(super) name: &'static str,
    /// What the releases of the series begin with.
    prefix: &'static str,
    /// Debian's suite that has the series.
    debian: &'static str,
    /// The archive that has that.
    label: &'static str,
    /// Which of the live tests it has to pass.
    pub(super) suite: Suite,
}

/// Which live tests run on a kernel, in the order in which guests begin: those with
/// the most to do first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Suite {
    /// All that a guest can run.
    Full,
    /// Those that say that tracer keeps its word there. What is the same on the oldest
    /// and the newest is the same on those between.
    Contract,
    /// That tracer refuses the kernel, and says so clearly.
    Refused,
}

impl Suite {
    /// As the table of tests says it, and `live --suite`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Suite::Full => "full",
            Suite::Contract => "contract",
            Suite::Refused => "refused",
        }
    }
}

/// The newest that tracer refuses, then what Debian's releases run.
pub(super) const KERNELS: [Kernel; 5] = [
    Kernel {
        name: "5.10",
        prefix: "5.10.",
        debian: "bullseye-security",
        label: SECURITY,
        suite: Suite::Refused,
    },
    supported("6.1", "6.1.", "bookworm", Suite::Full),
    supported("6.12", "6.12.", "trixie", Suite::Contract),
    supported("6.18", "6.18.", "trixie-backports", Suite::Contract),
    supported("7.x", "7.", "sid", Suite::Full),
];

const fn supported(
    name: &'static str,
    prefix: &'static str,
    debian: &'static str,
    suite: Suite,
) -> Kernel {
    Kernel {
        name,
        prefix,
        debian,
        label: MAIN,
        suite,
    }
}

/// Modules that a guest needs where they are not built in: its disks, and what the
/// live tests block on, what lists TCP sockets, cables between network namespaces.
const MODULES: [&str; 7] = [
    "virtio_pci",
    "virtio_blk",
    "loop",
    "fuse",
    "ext4",
    "tcp_diag",
    "veth",
];

/// The modules that were asked for when a kernel was kept.
const ASKED: &str = "asked";

/// Its age is that of the last look for a newer kernel.
const LOOKED: &str = "looked";

/// Packages of a release; before 6.19 the first has it all.
const PACKAGES: [&str; 4] = ["image", "base", "binary", "modules"];

/// A kernel that is here.
#[derive(Debug)]
pub(super) struct Image {
    /// `uname -r` of it.
    pub(super) release: String,
    /// The file that QEMU boots.
    pub(super) vmlinuz: PathBuf,
    /// Modules, uncompressed, in the order in which they are to be loaded.
    pub(super) modules: Vec<PathBuf>,
}

/// The package of a busybox that needs no library, and the suite it is taken from.
const BUSYBOX: (&str, &str) = ("busybox-static", "bookworm");

/// Brings a static busybox here, or takes the one that is. Not the machine's own:
/// that one is mostly linked dynamically.
pub(super) fn busybox() -> Result<PathBuf> {
    let folder = workspace::target("vm/busybox");
    // Where it is depends on the release.
    let there = || {
        let places = ["bin/busybox", "usr/bin/busybox"].map(|place| folder.join(place));
        places.into_iter().find(|place| place.is_file())
    };
    if there().is_none() {
        let (package, suite) = BUSYBOX;
        let apt = Apt::new(suite, MAIN)?;
        apt.update()?;
        apt::replace(&folder, |aside| apt.unpack(&[package.to_owned()], aside))?;
    }
    there().context("the package of busybox has no busybox")
}

/// Brings the newest of a series here, or takes the one that is.
pub(super) fn provide(kernel: &Kernel) -> Result<Image> {
    let folder = workspace::target("vm/kernels").join(kernel.name);
    match (fetch(kernel, &folder), kept(&folder)) {
        (Ok(()), Some(image)) => Ok(image),
        (Ok(()), None) => bail!("the kernel was unpacked, but is not there"),
        (Err(error), Some(image)) => {
            eprintln!(
                "{}: {error:#}; going on with {}",
                kernel.name, image.release
            );
            Ok(image)
        }
        (Err(error), None) => Err(error),
    }
}

/// Puts the newest of a series into a folder, unless it is there.
fn fetch(kernel: &Kernel, folder: &Path) -> Result<()> {
    let asked = fs::read_to_string(folder.join(ASKED)).unwrap_or_default();
    // One that was kept with other modules is of no use.
    let is_of_use = asked == MODULES.join(" ") && kept(folder).is_some();
    let looked = folder.join(LOOKED);
    if is_of_use && apt::is_fresh(&looked) {
        return Ok(());
    }
    if is_of_use {
        // Before the look: an archive that cannot be reached is not waited for each time.
        fs::write(&looked, "")?;
    }
    let apt = Apt::new(kernel.debian, kernel.label)?;
    apt.update()?;
    let names = apt.names("linux-")?;
    let newest = newest(&names, kernel.prefix)
        .with_context(|| format!("{} has no cloud kernel {}", kernel.debian, kernel.name))?;
    if is_of_use && kept(folder).is_some_and(|image| image.release == newest) {
        return Ok(());
    }
    let packages = packages(&names, &newest);
    apt::replace(folder, |aside| {
        apt.unpack(&packages, &aside.join("packages"))?;
        keep(&newest, aside)?;
        fs::write(aside.join(LOOKED), "")?;
        Ok(fs::remove_dir_all(aside.join("packages"))?)
    })
}

/// The kernel of a folder that `keep` filled.
fn kept(folder: &Path) -> Option<Image> {
    let release = fs::read_to_string(folder.join("release")).ok()?;
    let mut modules: Vec<PathBuf> = fs::read_dir(folder.join("modules"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    modules.sort();
    Some(Image {
        release,
        vmlinuz: folder.join("vmlinuz"),
        modules,
    })
}

/// Takes out of unpacked packages what a guest needs.
fn keep(release: &str, folder: &Path) -> Result<()> {
    // Debian 14 has no /lib in packages any more.
    let packages = folder.join("packages");
    let root = [packages.clone(), packages.join("usr")]
        .into_iter()
        .find(|root| root.join("lib/modules").join(release).is_dir())
        .with_context(|| format!("the packages of {release} have no modules"))?;
    let vmlinuz = [
        packages.join("boot").join(format!("vmlinuz-{release}")),
        root.join("lib/modules").join(release).join("vmlinuz"),
    ];
    let vmlinuz = vmlinuz.iter().find(|path| path.is_file());
    let vmlinuz = vmlinuz.with_context(|| format!("the packages of {release} have no image"))?;
    fs::copy(vmlinuz, folder.join("vmlinuz"))?;
    fs::create_dir_all(folder.join("modules"))?;
    process::read(tool("depmod")?.arg("-b").arg(&root).arg(release))?;
    let mut count = 0;
    for module in MODULES {
        let mut modprobe = tool("modprobe")?;
        modprobe.arg("-d").arg(&root);
        modprobe.args(["-S", release, "--show-depends", module]);
        for path in to_load(&process::read(&mut modprobe)?) {
            let file = Path::new(path).file_name().unwrap_or_default();
            let name = format!("{count:02}-{}", file.to_string_lossy());
            count += 1;
            let copy = folder.join("modules").join(&name);
            fs::copy(path, &copy)?;
            if name.ends_with(".xz") {
                process::read(tool("xz")?.arg("-d").arg(&copy))?;
            }
        }
    }
    fs::write(folder.join(ASKED), MODULES.join(" "))?;
    Ok(fs::write(folder.join("release"), release)?)
}

/// Files in an answer of `modprobe --show-depends`: what is built in has none.
fn to_load(answer: &str) -> impl Iterator<Item = &str> {
    answer
        .lines()
        .filter_map(|line| line.strip_prefix("insmod ").map(str::trim))
}

/// The newest release among names of packages.
fn newest(names: &str, prefix: &str) -> Option<String> {
    let releases = names.lines().filter_map(|name| {
        let release = name.strip_prefix("linux-image-")?;
        (release.starts_with(prefix) && release.ends_with("-cloud-amd64")).then_some(release)
    });
    releases
        .max_by_key(|release| numbers(release))
        .map(str::to_owned)
}

/// Those of a release, among names of packages.
fn packages(names: &str, release: &str) -> Vec<String> {
    let wanted = PACKAGES.map(|kind| format!("linux-{kind}-{release}"));
    let is_there = |package: &String| names.lines().any(|name| name == package);
    wanted.into_iter().filter(is_there).collect()
}

/// The numbers in a release: what it is ordered by within a suite.
fn numbers(release: &str) -> Vec<u64> {
    let words = release.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_by_number_and_of_the_series() {
        let names = "linux-image-6.1-cloud-amd64\n\
                     linux-image-6.1.0-9-cloud-amd64\n\
                     linux-image-6.1.0-50-cloud-amd64\n\
                     linux-image-6.1.0-51-amd64\n\
                     linux-image-6.12.107+deb13-cloud-amd64\n\
                     linux-modules-6.1.0-60-cloud-amd64\n";
        let release = |prefix| newest(names, prefix);
        assert_eq!(release("6.1.").as_deref(), Some("6.1.0-50-cloud-amd64"));
        assert_eq!(
            release("6.12.").as_deref(),
            Some("6.12.107+deb13-cloud-amd64")
        );
        assert_eq!(release("7."), None);
    }

    #[test]
    fn what_is_built_in_is_not_loaded() {
        let answer = "builtin virtio_ring\ninsmod /a/virtio_pci.ko.xz \ninsmod /a/virtio_blk.ko\n";
        let files: Vec<_> = to_load(answer).collect();
        assert_eq!(files, ["/a/virtio_pci.ko.xz", "/a/virtio_blk.ko"]);
    }
}
