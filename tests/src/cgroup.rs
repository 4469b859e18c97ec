//! cgroups for the tests, of whichever version has the cpu controller here.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A cgroup that is removed at the end.
pub struct Cgroup {
    /// Path below the root of its hierarchy, as tracer names it.
    pub name: String,
    version: Version,
    directories: Vec<PathBuf>,
}

enum Version {
    V1,
    V2,
}

impl Cgroup {
    /// Makes one with the cpu controller.
    ///
    /// # Errors
    /// Why there is none to be had here.
    pub fn new(name: &str) -> io::Result<Self> {
        let name = format!("{name}-{}", std::process::id());
        let unified = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_to_string(unified.join("cgroup.controllers"));
        let (version, roots) = if controllers.is_ok_and(|c| c.contains("cpu")) {
            // The root's children get the controller; it may be on already.
            let _ = fs::write(unified.join("cgroup.subtree_control"), "+cpu");
            (Version::V2, vec![unified.to_path_buf()])
        } else {
            (
                Version::V1,
                vec![unified.join("cpu"), unified.join("cpuacct")],
            )
        };
        let directories: Vec<_> = roots.iter().map(|root| root.join(&name)).collect();
        for directory in &directories {
            fs::create_dir(directory)?;
        }
        Ok(Self {
            name: format!("/{name}"),
            version,
            directories,
        })
    }

    /// Where a task is put into it.
    pub fn directories(&self) -> Vec<&Path> {
        self.directories.iter().map(PathBuf::as_path).collect()
    }

    /// Limits it to `quota_us` of CPU time every 100 ms.
    ///
    /// # Errors
    /// The kernel has no bandwidth limits.
    pub fn limit(&self, quota_us: u32) -> io::Result<()> {
        match self.version {
            Version::V1 => fs::write(self.file("cpu.cfs_quota_us"), quota_us.to_string()),
            Version::V2 => fs::write(self.file("cpu.max"), format!("{quota_us} 100000")),
        }
    }

    /// How many processes are in it.
    pub fn processes(&self) -> usize {
        let ids = fs::read_to_string(self.file("cgroup.procs"));
        ids.expect("its processes").lines().count()
    }

    /// CPU time of all its tasks, living and dead, in ns.
    pub fn usage_ns(&self) -> u64 {
        match self.version {
            Version::V1 => self.directories.iter().rev().find_map(|directory| {
                fs::read_to_string(directory.join("cpuacct.usage"))
                    .ok()?
                    .trim()
                    .parse()
                    .ok()
            }),
            Version::V2 => self.stat("usage_usec").map(|us| us * 1000),
        }
        .expect("the cgroup accounts CPU time")
    }

    /// Time it was throttled, summed over CPUs, in ns.
    pub fn throttled_ns(&self) -> u64 {
        match self.version {
            Version::V1 => self.stat("throttled_time"),
            Version::V2 => self.stat("throttled_usec").map(|us| us * 1000),
        }
        .expect("the cgroup accounts throttled time")
    }

    /// Periods of its limit in which it wanted to run, and those in which it was throttled.
    pub fn periods(&self) -> [u64; 2] {
        ["nr_periods", "nr_throttled"]
            .map(|key| self.stat(key).expect("the cgroup accounts its periods"))
    }

    fn stat(&self, key: &str) -> Option<u64> {
        let text = fs::read_to_string(self.file("cpu.stat")).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directories
            .first()
            .map(|directory| directory.join(name))
            .unwrap_or_default()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for directory in &self.directories {
            // A cgroup can be removed once its last task is reaped.
            crate::time::eventually(5.0, || fs::remove_dir(directory).is_ok());
        }
    }
}
