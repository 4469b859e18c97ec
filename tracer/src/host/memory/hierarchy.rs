//! Which cgroup hierarchy has the memory controller, and where it is mounted, from
//! mountinfo (`cgroup_show_options` and `cgroup1_show_options`, kernel/cgroup).
//!
//! A controller belongs to one hierarchy only. Which one is the host's choice at
//! boot, and the unified one being there does not say that it has the memory.

use std::{cmp::Reverse, ffi::OsString, fs, os::unix::ffi::OsStringExt as _, path::PathBuf};

use crate::{
    host::mountinfo::{Line, unescape},
    kernel::fields::CgroupVersion,
    text,
};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// A mounted hierarchy with the memory controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) root: PathBuf,
    pub(super) version: CgroupVersion,
    /// Whether a cgroup's events are those of all below it, too: so in v2, unless
    /// mounted with `memory_localevents` (from 5.2).
    pub(super) events_add_up: bool,
}

impl Hierarchy {
    /// Looks for it among tracer's own mounts, as it is to read the files there.
    pub(super) fn find() -> Option<Self> {
        let mounts = fs::read(MOUNTINFO).unwrap_or_default();
        Self::choose(&mounts, |hierarchy| {
            let file = hierarchy.root.join("cgroup.controllers");
            text::read(file).unwrap_or_default()
        })
    }

    /// `controllers` gives those of a unified hierarchy.
    pub(super) fn choose(mounts: &[u8], controllers: impl Fn(&Self) -> String) -> Option<Self> {
        let has_memory = |mount: &Line<'_>| match mount.kind {
            b"cgroup" => mount.has_option(b"memory"),
            b"cgroup2" => controllers(&mount.into())
                .split_ascii_whitespace()
                .any(|controller| controller == "memory"),
            _ => false,
        };
        let best = Line::all(mounts).filter(has_memory).min_by_key(rank)?;
        Some((&best).into())
    }
}

/// The least shows the most. A container's own mount has its cgroup as the root, and from
/// inside its cgroup namespace the host's is called `/..`.
fn rank(mount: &Line<'_>) -> (bool, Reverse<usize>, usize) {
    let steps = || mount.root.split(|&b| b == b'/').filter(|s| !s.is_empty());
    let is_part = steps().any(|step| step != b"..");
    (is_part, Reverse(steps().count()), mount.point.len())
}

impl From<&Line<'_>> for Hierarchy {
    fn from(mount: &Line<'_>) -> Self {
        let version = match mount.kind {
            b"cgroup2" => CgroupVersion::V2,
            _ => CgroupVersion::V1,
        };
        Self {
            root: PathBuf::from(OsString::from_vec(unescape(mount.point))),
            version,
            events_add_up: version == CgroupVersion::V2 && !mount.has_option(b"memory_localevents"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::{any, prop, proptest};

    use super::{CgroupVersion, Hierarchy};

    const HYBRID: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=memory\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";

    fn choose(mounts: &str, controllers: &str) -> Option<(CgroupVersion, String, bool)> {
        let found = Hierarchy::choose(mounts.as_bytes(), |_| controllers.into())?;
        let root = found.root.to_str().unwrap().to_owned();
        Some((found.version, root, found.events_add_up))
    }

    #[test]
    fn the_hierarchy_with_the_memory_controller_is_found() {
        let v1 = (CgroupVersion::V1, "/sys/fs/cgroup/memory".into(), false);
        assert_eq!(choose(HYBRID, "hugetlb\n"), Some(v1));
        let v2 = (CgroupVersion::V2, "/sys/fs/cgroup".into(), true);
        assert_eq!(choose(UNIFIED, "cpu memory io\n"), Some(v2));
        assert_eq!(choose(UNIFIED, "cpu io\n"), None);
        assert_eq!(choose("", "memory"), None);
    }

    #[test]
    fn local_events_do_not_add_up() {
        let mounts = UNIFIED.replace("nsdelegate", "nsdelegate,memory_localevents");
        assert!(!choose(&mounts, "memory").unwrap().2);
    }

    #[test]
    fn the_mount_that_shows_most_is_preferred() {
        let mounts = "\
            1 1 0:1 /docker/a /a rw - cgroup2 cgroup2 rw\n\
            2 1 0:1 / /longer rw - cgroup2 cgroup2 rw\n\
            3 1 0:1 / /own rw - cgroup2 cgroup2 rw\n\
            4 1 0:1 /../../b /b rw - cgroup2 cgroup2 rw\n\
            5 1 0:1 /.. /up rw - cgroup2 cgroup2 rw\n\
            6 1 0:1 /../.. /the\\040host rw - cgroup2 cgroup2 rw\n";
        let root = |lines: usize| {
            let mounts: String = mounts.split_inclusive('\n').take(lines).collect();
            choose(&mounts, "memory").unwrap().1
        };
        let roots = [1, 2, 3, 4, 5, 6].map(root);
        assert_eq!(roots, ["/a", "/longer", "/own", "/own", "/up", "/the host"]);
    }

    #[test]
    fn controllers_are_asked_of_each_unified_mount() {
        let mounts = format!("{UNIFIED}31 23 0:27 / /other rw - cgroup2 cgroup2 rw\n");
        let found = Hierarchy::choose(mounts.as_bytes(), |hierarchy| {
            let is_it = hierarchy.root == Path::new("/sys/fs/cgroup");
            String::from(if is_it { "memory" } else { "cpu" })
        });
        assert_eq!(found.unwrap().root, Path::new("/sys/fs/cgroup"));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_parsed(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            Hierarchy::choose(&bytes, |_| "memory".into());
        }

        #[test]
        fn any_line_can_be_parsed(line in "[0-9] [0-9] 0:1( [-/a-z.\\\\0-9:,]{0,6}){0,5} - cgroup2?( [a-z,]{0,8}){0,3}") {
            Hierarchy::choose(line.as_bytes(), |_| "memory".into());
        }
    }
}
