//! Names of cgroups: the path behind an identity that the kernel side reports.
//!
//! The identity is the inode number of the cgroup's directory, so a walk over
//! the hierarchy finds it. The walk is made only when an unknown one shows up.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    os::unix::{
        ffi::OsStringExt as _,
        fs::{DirEntryExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use super::mountinfo::unescape;
use crate::{
    kernel::fields::CgroupVersion,
    text::{self, Text},
};

/// Walks are at least this many readings apart while one identity stays unknown
/// (a cgroup of another namespace, or gone before it could be seen).
const READINGS_BETWEEN_WALKS: u32 = 10;
/// No more names than this are kept; a host that makes cgroups by the thousand
/// a minute starts over.
const MOST_NAMES: usize = 65_536;

/// Paths by identity.
#[derive(Debug)]
pub struct Cgroups {
    root: Option<PathBuf>,
    version: CgroupVersion,
    names: HashMap<u64, Text>,
    readings_since_walk: u32,
}

impl Cgroups {
    /// Finds the hierarchy that has the cpu controller, among the mounts.
    pub fn new() -> Self {
        let mounts = text::read("/proc/self/mounts").unwrap_or_default();
        let (version, root) = choose(&mounts, |path| {
            text::read(path.join("cgroup.controllers")).unwrap_or_default()
        });
        Self {
            root,
            version,
            names: HashMap::new(),
            readings_since_walk: READINGS_BETWEEN_WALKS,
        }
    }

    /// Which version names a task's cgroup.
    pub fn version(&self) -> CgroupVersion {
        self.version
    }

    /// Where that hierarchy is mounted.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Names of those identities that were not asked for before.
    pub fn resolve(&mut self, ids: impl Iterator<Item = u64>) -> Vec<(u64, Text)> {
        let mut unknown: Vec<u64> = ids.filter(|id| !self.names.contains_key(id)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        self.readings_since_walk = self.readings_since_walk.saturating_add(1);
        if unknown.is_empty() || self.readings_since_walk < READINGS_BETWEEN_WALKS {
            return Vec::new();
        }
        if self.names.len() > MOST_NAMES {
            self.names.clear();
        }
        if let Some(root) = self.root.clone() {
            self.walk(&root);
        }
        let named = |id: u64| Some((id, self.names.get(&id)?.clone()));
        let new: Vec<_> = unknown.iter().copied().filter_map(named).collect();
        // Only what stays unknown makes the next walk wait.
        self.readings_since_walk = if new.len() == unknown.len() {
            READINGS_BETWEEN_WALKS
        } else {
            0
        };
        new
    }

    fn walk(&mut self, root: &Path) {
        if let Ok(meta) = fs::metadata(root) {
            self.names.insert(meta.ino(), Text::from("/"));
        }
        let mut open = vec![root.to_path_buf()];
        while let Some(directory) = open.pop() {
            // A cgroup can go while the walk is on: that is no error.
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.filter_map(Result::ok) {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let path = entry.path();
                    let below = path.strip_prefix(root).unwrap_or(&path).as_os_str();
                    let mut name = b"/".to_vec();
                    name.extend_from_slice(below.as_encoded_bytes());
                    self.names.insert(entry.ino(), Text::from_bytes(&name));
                    open.push(path);
                }
            }
        }
    }
}

impl Default for Cgroups {
    fn default() -> Self {
        Self::new()
    }
}

/// The unified hierarchy where the cpu controller is there or nowhere, else the
/// cpu controller's own.
fn choose(mounts: &str, controllers: impl Fn(&Path) -> String) -> (CgroupVersion, Option<PathBuf>) {
    let mut unified = None;
    let mut cpu = None;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(path), Some(kind), Some(options)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let path = PathBuf::from(OsString::from_vec(unescape(path.as_bytes())));
        match kind {
            "cgroup2" if unified.is_none() => unified = Some(path),
            "cgroup" if cpu.is_none() && options.split(',').any(|o| o == "cpu") => cpu = Some(path),
            _ => {}
        }
    }
    let has_cpu = |path: &PathBuf| controllers(path).split_whitespace().any(|c| c == "cpu");
    match (unified, cpu) {
        (Some(path), _) if has_cpu(&path) => (CgroupVersion::V2, Some(path)),
        (_, Some(path)) => (CgroupVersion::V1, Some(path)),
        (unified, None) => (CgroupVersion::V2, unified),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{CgroupVersion, choose};

    const UNIFIED: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
    const HYBRID: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
        cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

    #[test]
    fn the_hierarchy_with_the_cpu_controller_names_the_cgroup() {
        assert_eq!(
            choose(UNIFIED, |_| "cpuset cpu io\n".into()),
            (CgroupVersion::V2, Some(PathBuf::from("/sys/fs/cgroup"))),
        );
        assert_eq!(
            choose(HYBRID, |_| String::new()),
            (
                CgroupVersion::V1,
                Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"))
            ),
        );
        assert_eq!(choose("", |_| String::new()), (CgroupVersion::V2, None));
    }
}
