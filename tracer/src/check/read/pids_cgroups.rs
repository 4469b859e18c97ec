//! Cgroups with a limit of tasks: `pids.current` and `pids.max` of each, and how often a fork
//! was refused (`pids_can_fork`, kernel/cgroup/pids.c), in the hierarchy that has the pids
//! controller.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use super::throttled::{below, pids};
use crate::{
    check::rows::processes::FullCgroup,
    host::cgroups,
    text::{self, Text},
};

/// No more cgroups than this are looked at, level by level.
const MOST: usize = 10_000;
/// The fullest, whose processes are asked for.
const ASKED: usize = 5;

/// The fullest cgroups with a limit, the fullest first, and whether some were not looked at.
pub(in crate::check) fn read() -> (Vec<FullCgroup>, bool) {
    let Some(root) = cgroups::mounted_with("pids") else {
        return (Vec::new(), false);
    };
    let mut open = VecDeque::from([root.clone()]);
    let mut all: Vec<(PathBuf, FullCgroup)> = Vec::new();
    let mut seen = 0;
    while let Some(directory) = open.pop_front() {
        if seen == MOST {
            break;
        }
        seen += 1;
        open.extend(below(&directory));
        if let Some(cgroup) = one(&root, &directory) {
            all.push((directory, cgroup));
        }
    }
    let is_cut = !open.is_empty();
    all.sort_by(|(_, a), (_, b)| b.ratio().total_cmp(&a.ratio()).then(a.path.cmp(&b.path)));
    all.truncate(ASKED);
    for (directory, cgroup) in &mut all {
        cgroup.names = names(&pids(directory));
    }
    (all.into_iter().map(|(_, cgroup)| cgroup).collect(), is_cut)
}

fn one(root: &Path, directory: &Path) -> Option<FullCgroup> {
    let read = |name: &str| text::read(directory.join(name)).ok();
    // `max` is no number: there is no limit.
    let most = read("pids.max")?.trim().parse().ok()?;
    let tasks = read("pids.current")?.trim().parse().ok()?;
    let path = directory.strip_prefix(root).unwrap_or(directory);
    let mut name = b"/".to_vec();
    name.extend_from_slice(path.as_os_str().as_encoded_bytes());
    Some(FullCgroup {
        path: Text::from_bytes(&name),
        tasks,
        most,
        refused: read("pids.events")
            .and_then(|text| refused(&text))
            .unwrap_or(0),
        names: Vec::new(),
    })
}

/// `max N` of pids.events: forks that this limit, or one above it, refused.
fn refused(events: &str) -> Option<u64> {
    let number = events.lines().find_map(|line| line.strip_prefix("max "));
    number?.trim().parse().ok()
}

/// The names of its processes: how many there are of each, the most first; with the first
/// process id.
fn names(pids: &[u32]) -> Vec<(Text, u64, u32)> {
    let mut by_name: BTreeMap<Text, (u64, u32)> = BTreeMap::new();
    for pid in pids {
        let Ok(comm) = fs::read(format!("/proc/{pid}/comm")) else {
            continue;
        };
        let comm = Text::from_bytes(comm.trim_ascii_end());
        by_name.entry(comm).or_insert((0, *pid)).0 += 1;
    }
    let all = by_name
        .into_iter()
        .map(|(name, (count, pid))| (name, count, pid));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(_, count, pid)| (std::cmp::Reverse(*count), *pid));
    all
}

#[cfg(test)]
mod tests {
    use super::refused;

    #[test]
    fn forks_that_were_refused() {
        assert_eq!(refused("max 17\n"), Some(17));
        assert_eq!(refused("max.imposed 2\nmax 17\n"), Some(17));
        assert_eq!(refused(""), None);
    }
}
