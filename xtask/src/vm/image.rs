//! The initramfs of a guest: archives that the kernel unpacks one after another.
//!
//! The first has busybox, tracer, the live tests and `init`, and is the same
//! for every guest. The second has a kernel's modules and the job to run.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::Builder;

use crate::build::LiveTests;
use crate::vm::kernels::Image;
use crate::{build, workspace};

const INIT: &str = include_str!("init");
const FOLDERS: [&str; 11] = [
    "bin", "dev", "etc", "proc", "sys", "tmp", "mnt", "modules", "tests", "root", "run",
];
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// Where the job finds what the live tests need.
pub(super) const VARIABLES: [(&str, &str); 4] = [
    ("TRACER_BIN", "/bin/tracer"),
    ("TRACER_BPF_OBJECT", "/tests/tracer-ebpf"),
    ("TRACER_PROVOKE", "/bin/provoke"),
    ("TRACER_IN_GUEST", "1"),
];

/// The live tests' program in a guest.
pub(super) const LIVE: &str = "/tests/live";

/// The archive that all guests share.
pub(super) fn base(live: &LiveTests, busybox: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.add(folder, FOLDER, Vec::new());
    }
    archive.add("init", PROGRAM, INIT.as_bytes().to_vec());
    archive.add("etc/passwd", PROGRAM, b"root:x:0:0::/:/bin/sh\n".to_vec());
    archive.file("bin/busybox", busybox)?;
    archive.file("bin/tracer", &workspace::tracer_binary("release"))?;
    archive.file("bin/provoke", &live.provoke)?;
    archive.file("bin/leave", &live.provoke.with_file_name("leave"))?;
    archive.file("tests/tracer-ebpf", &build::kernel_object())?;
    archive.file(LIVE.trim_start_matches('/'), &live.live)?;
    archive.bytes()
}

/// The archive of one guest.
pub(super) fn own(image: &Image, job: String) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for module in &image.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{name}"), module)?;
    }
    archive.add("job", PROGRAM, job.into_bytes());
    archive.bytes()
}

#[derive(Default)]
struct Archive(Vec<(Builder, Cursor<Vec<u8>>)>);

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: Vec<u8>) {
        // The inode tells hard links; every file is one of its own.
        let inode = u32::try_from(self.0.len()).unwrap_or(0);
        let entry = Builder::new(name).ino(inode).mode(mode);
        self.0.push((entry, Cursor::new(content)));
    }

    fn file(&mut self, name: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.add(name, PROGRAM, content);
        Ok(())
    }

    fn bytes(self) -> Result<Vec<u8>> {
        Ok(cpio::write_cpio(self.0.into_iter(), Vec::new())?)
    }
}
