//! How much memory tracer's own cgroup leaves it. A process that goes beyond is killed by
//! the kernel, and nothing says why.

use std::path::{Component, Path, PathBuf};

use super::{files::Files, hierarchy::Hierarchy};
use crate::{
    kernel::fields::CgroupVersion,
    text::{self, Text},
};

const OWN_CGROUPS: &str = "/proc/self/cgroup";

/// The cgroup that leaves tracer the least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its path from the root of the mounted hierarchy.
    pub cgroup: Text,
    /// Its limit.
    pub limit_bytes: u64,
    /// What is left until there; the cache of files can be taken back, and counts as left.
    pub left_bytes: u64,
}

/// Of tracer's own cgroup and those above it, the one that leaves it the least; `None`
/// where none has a limit, or it cannot be read.
pub fn room() -> Option<Room> {
    let hierarchy = Hierarchy::find()?;
    let own = own_cgroup(&text::read(OWN_CGROUPS).ok()?, hierarchy.version)?;
    let levels = own.ancestors();
    let rooms = levels.filter_map(|level| room_of(&hierarchy, level));
    rooms.min_by_key(|room| room.left_bytes)
}

fn room_of(hierarchy: &Hierarchy, level: &Path) -> Option<Room> {
    let files = Files {
        directory: &hierarchy.root.join(level),
        version: hierarchy.version,
    };
    let limit_bytes = files.limit().ok()??;
    let usage_bytes = files.usage(Some(limit_bytes)).ok()?.bytes;
    let held_bytes = usage_bytes.saturating_sub(files.cache().map_or(0, |cache| cache.bytes));
    Some(Room {
        cgroup: Text::from(format!("/{}", level.display()).as_str()),
        limit_bytes,
        left_bytes: limit_bytes.saturating_sub(held_bytes),
    })
}

/// The path below the hierarchy's root, of a line `ID:CONTROLLERS:PATH`
/// (`proc_cgroup_show`, kernel/cgroup/cgroup.c).
fn own_cgroup(text: &str, version: CgroupVersion) -> Option<PathBuf> {
    let is_it = |controllers: &str| match version {
        CgroupVersion::V1 => controllers.split(',').any(|name| name == "memory"),
        CgroupVersion::V2 => controllers.is_empty(),
    };
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let below = Path::new(path.strip_prefix('/')?);
        // One outside of the cgroup namespace begins with `..`.
        let is_inside = below
            .components()
            .all(|c| matches!(c, Component::Normal(_)));
        (is_it(controllers) && is_inside).then(|| below.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{CgroupVersion, own_cgroup};

    #[test]
    fn the_own_cgroup_is_that_of_the_memory_controller() {
        let text = "5:memory,hugetlb:/a/b\n1:name=memory:/x\n0::/c.slice/d:e\n";
        let of = |text, version| own_cgroup(text, version);
        let (v1, v2) = (CgroupVersion::V1, CgroupVersion::V2);
        assert_eq!(of(text, v1).as_deref(), Some(Path::new("a/b")));
        assert_eq!(of(text, v2).as_deref(), Some(Path::new("c.slice/d:e")));
        assert_eq!(of("0::/\n", v2).as_deref(), Some(Path::new("")));
        assert_eq!(of("0::/../x\n", v2), None);
        assert_eq!(of("0::/\n", v1), None);
        assert_eq!(of("rubbish\n:\n", v2), None);
    }
}
