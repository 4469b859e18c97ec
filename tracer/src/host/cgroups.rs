//! Names of cgroups: the path behind an identity that the kernel side reports.
//!
//! The identity is the inode number of the cgroup's directory. A process that is in it says
//! its path; where none does any more, a walk over the hierarchy finds it. Both are made
//! only when an unknown one shows up.

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

use super::{living, mountinfo::unescape};
use crate::{
    kernel::fields::CgroupVersion,
    text::{self, Text},
};

/// Walks are at least this many readings apart while one identity stays unknown
/// (a cgroup of another namespace, or gone before it could be seen).
const READINGS_BETWEEN_WALKS: u32 = 10;
/// Identities that are asked of a process in a reading.
const MOST_ASKED: usize = 64;
/// Processes of a cgroup that are asked: one can have gone elsewhere since.
const PROCESSES_ASKED: usize = 4;
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

    /// Names of those identities that were not asked for before, each with a process that
    /// was seen in it.
    pub fn resolve(&mut self, ids: impl Iterator<Item = (u64, u32)>) -> Vec<(u64, Text)> {
        let mut unknown: HashMap<u64, Vec<u32>> = HashMap::new();
        for (id, pid) in ids.filter(|(id, _)| !self.names.contains_key(id)) {
            let pids = unknown.entry(id).or_default();
            if pids.len() < PROCESSES_ASKED && !pids.contains(&pid) {
                pids.push(pid);
            }
        }
        self.readings_since_walk = self.readings_since_walk.saturating_add(1);
        if unknown.is_empty() {
            return Vec::new();
        }
        if self.names.len() > MOST_NAMES {
            self.names.clear();
        }
        // A few are asked of their processes; many come from one walk.
        for (id, pids) in unknown.iter().take(MOST_ASKED) {
            if let Some(name) = pids.iter().find_map(|pid| self.ask(*id, *pid)) {
                self.names.insert(*id, name);
            }
        }
        let is_named = |id: &u64| self.names.contains_key(id);
        let is_due = self.readings_since_walk >= READINGS_BETWEEN_WALKS;
        if is_due && !unknown.keys().all(is_named) {
            if let Some(root) = self.root.clone() {
                self.walk(&root);
            }
            // Only what stays unknown makes the next walk wait.
            let is_named = |id: &u64| self.names.contains_key(id);
            self.readings_since_walk = if unknown.keys().all(is_named) {
                READINGS_BETWEEN_WALKS
            } else {
                0
            };
        }
        let named = |id: u64| Some((id, self.names.get(&id)?.clone()));
        unknown.into_keys().filter_map(named).collect()
    }

    /// The cgroup that a process says it is in, when that is the one of this identity.
    fn ask(&self, id: u64, pid: u32) -> Option<Text> {
        let text = fs::read(living::path(pid, "cgroup")).ok()?;
        let path = path_in(&text, self.version)?;
        if let Some(below) = path.strip_prefix(b"/..") {
            // tracer is in a cgroup namespace of its own, and the process outside of it:
            // the mount does not show it. Its path goes up first, then down.
            let mut below = below;
            while let Some(rest) = below.strip_prefix(b"/..") {
                below = rest;
            }
            return Some(Text::from_bytes(below)).filter(|name| !name.as_str().is_empty());
        }
        let mut directory = self.root.clone()?.into_os_string().into_vec();
        directory.extend_from_slice(path);
        let found = fs::metadata(PathBuf::from(OsString::from_vec(directory))).ok()?;
        (found.ino() == id).then(|| Text::from_bytes(path))
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

/// Where the hierarchy with a controller is mounted: one of v1 that has it, else the unified
/// one.
pub fn mounted_with(controller: &str) -> Option<PathBuf> {
    let mounts = text::read("/proc/self/mounts").unwrap_or_default();
    of_controller(&mounts, controller)
}

fn of_controller(mounts: &str, controller: &str) -> Option<PathBuf> {
    let mut unified = None;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(path), Some(kind), Some(options)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let path = || PathBuf::from(OsString::from_vec(unescape(path.as_bytes())));
        match kind {
            "cgroup" if options.split(',').any(|option| option == controller) => {
                return Some(path());
            }
            "cgroup2" => unified = unified.or_else(|| Some(path())),
            _ => {}
        }
    }
    unified
}

/// The path of the hierarchy that names cgroups, in /proc/PID/cgroup: `0::PATH`, or
/// `N:cpu,cpuacct:PATH` (`proc_cgroup_show`, kernel/cgroup/cgroup.c).
fn path_in(text: &[u8], version: CgroupVersion) -> Option<&[u8]> {
    let path = |line: &'_ [u8]| -> Option<(usize, usize)> {
        let mut colons = line.iter().enumerate().filter(|(_, byte)| **byte == b':');
        Some((colons.next()?.0, colons.next()?.0))
    };
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let (first, second) = path(line)?;
        let controllers = line.get(first + 1..second)?;
        let is_it = match version {
            CgroupVersion::V2 => controllers.is_empty(),
            CgroupVersion::V1 => controllers.split(|&byte| byte == b',').any(|c| c == b"cpu"),
        };
        line.get(second + 1..).filter(|_| is_it)
    })
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

    use super::{CgroupVersion, Cgroups, choose, of_controller, path_in};

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

    #[test]
    fn where_a_controller_is_mounted() {
        let found = |controller| of_controller(HYBRID, controller);
        assert_eq!(found("cpu"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(found("pids"), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(of_controller("", "pids"), None);
    }

    #[test]
    fn the_path_that_a_process_says() {
        let text = b"12:pids:/a\n5:cpu,cpuacct:/ci.slice/a:b\n1:name=systemd:/c\n0::/d\n";
        assert_eq!(
            path_in(text, CgroupVersion::V1),
            Some(&b"/ci.slice/a:b"[..])
        );
        assert_eq!(path_in(text, CgroupVersion::V2), Some(&b"/d"[..]));
        assert_eq!(path_in(b"0::/d\n", CgroupVersion::V1), None);
        assert_eq!(path_in(b"\n:\nx", CgroupVersion::V2), None);
    }

    /// Evidence 57: one that never gets a name holds up no other.
    #[test]
    fn an_identity_that_stays_unknown_holds_up_no_other() {
        let mut cgroups = Cgroups::new();
        let own = std::process::id();
        // No walk is due.
        cgroups.resolve([(u64::MAX, own)].into_iter());
        cgroups.names.clear();
        let path = std::fs::read("/proc/self/cgroup").unwrap();
        let path = path_in(&path, cgroups.version()).unwrap();
        let root = cgroups.root().unwrap().to_owned();
        let below = std::str::from_utf8(path).unwrap();
        let directory = root.join(below.trim_start_matches('/'));
        let Ok(found) = std::fs::metadata(directory) else {
            return println!("SKIPPED an_identity_that_stays_unknown_holds_up_no_other: {below}");
        };
        let id = std::os::unix::fs::MetadataExt::ino(&found);
        let named = cgroups.resolve([(u64::MAX, own), (id, own)].into_iter());
        assert_eq!(named, [(id, below.into())]);
    }
}
