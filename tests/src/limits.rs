//! Limits of memory and of disk reads, by cgroups of whichever version has the
//! controller here.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup with one limit; it is removed when this is dropped.
pub struct Limited {
    directory: PathBuf,
    /// What lifts the limit, so that its tasks can end.
    lift: Option<(&'static str, String)>,
}

impl Limited {
    /// At most so many reads a second of a device. What is read must go to the
    /// device itself (`O_DIRECT`): v1 knows no other tasks' pages.
    ///
    /// # Errors
    /// Why there is none to be had here.
    pub fn reads(name: &str, device: &Path, a_second: u32) -> io::Result<Self> {
        let number = fs::metadata(device)?.rdev();
        let number = format!("{}:{}", libc::major(number), libc::minor(number));
        let cgroup = make(name, "blkio", "io")?;
        let (file, limit, none) = match &cgroup {
            Made::V1(_) => (
                "blkio.throttle.read_iops_device",
                format!("{number} {a_second}"),
                format!("{number} 0"),
            ),
            Made::V2(_) => (
                "io.max",
                format!("{number} riops={a_second}"),
                format!("{number} riops=max"),
            ),
        };
        let limited = Self {
            directory: cgroup.directory(),
            lift: Some((file, none)),
        };
        limited.set(file, &limit)?;
        Ok(limited)
    }

    /// At most so many bytes of memory, the page cache among them.
    ///
    /// # Errors
    /// Why there is none to be had here.
    pub fn memory(name: &str, bytes: u64) -> io::Result<Self> {
        let cgroup = make(name, "memory", "memory")?;
        let file = match &cgroup {
            Made::V1(_) => "memory.limit_in_bytes",
            Made::V2(_) => "memory.max",
        };
        let limited = Self {
            directory: cgroup.directory(),
            lift: None,
        };
        limited.set(file, &bytes.to_string())?;
        Ok(limited)
    }

    /// Where a task is put into it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        let path = self.directory.join(file);
        fs::write(&path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Some((file, none)) = &self.lift {
            let _ = self.set(file, none);
        }
        // A cgroup can be removed once its last task is reaped.
        crate::time::eventually(5.0, || fs::remove_dir(&self.directory).is_ok());
    }
}

enum Made {
    V1(PathBuf),
    V2(PathBuf),
}

impl Made {
    fn directory(self) -> PathBuf {
        match self {
            Self::V1(directory) | Self::V2(directory) => directory,
        }
    }
}

fn make(name: &str, v1: &str, v2: &str) -> io::Result<Made> {
    let name = format!("{name}-{}", std::process::id());
    let unified = Path::new(ROOT);
    let controllers = fs::read_to_string(unified.join("cgroup.controllers"));
    if controllers.is_ok_and(|all| all.split_whitespace().any(|one| one == v2)) {
        // The root's children get the controller; it may be on already.
        let _ = fs::write(unified.join("cgroup.subtree_control"), format!("+{v2}"));
        let directory = unified.join(name);
        fs::create_dir(&directory)?;
        return Ok(Made::V2(directory));
    }
    if !unified.join(v1).join("cgroup.procs").exists() {
        let missing = format!("no cgroup controller {v1} (v1) or {v2} (v2) below {ROOT}");
        return Err(io::Error::new(io::ErrorKind::NotFound, missing));
    }
    let directory = unified.join(v1).join(name);
    fs::create_dir(&directory)?;
    Ok(Made::V1(directory))
}
