//! The largest directories of one file system, by what they take of it (`st_blocks`).
//!
//! It does not go to other mounts, does not even look at their roots, reads at the lowest
//! priority of I/O, and ends when its time is over.

use std::{
    collections::{BinaryHeap, HashSet},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{check::rows::disks::Largest, clock, text::Text};

/// Directories that are named.
const NAMED: usize = 5;
/// Directories that are told apart; what is in more of them counts for their parents.
const MOST_NODES: usize = 200_000;
/// Files with several names that are known by number, to count them once.
const MOST_LINKED: usize = 1_000_000;
const BLOCK: u64 = 512;

/// A directory.
#[derive(Debug)]
struct Node {
    path: PathBuf,
    parent: usize,
    children: Vec<usize>,
    /// With all below, once it is added up.
    bytes: u64,
}

/// Walks for so long at most.
pub(in crate::check) fn walk(root: &Path, others: &HashSet<PathBuf>, time: Duration) -> Largest {
    lower_priority();
    let until = clock::monotonic() + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let mut nodes = vec![Node {
        path: root.to_owned(),
        parent: 0,
        children: Vec::new(),
        bytes: 0,
    }];
    let Ok(device) = fs::symlink_metadata(root).map(|m| m.dev()) else {
        return Largest::default();
    };
    let mut linked = HashSet::new();
    let mut left = vec![(root.to_owned(), 0)];
    let mut is_cut_short = false;
    'walk: while let Some((path, node)) = left.pop() {
        // One that went meanwhile has nothing.
        let Ok(entries) = fs::read_dir(&path) else {
            continue;
        };
        for entry in entries.flatten() {
            if until <= clock::monotonic() {
                is_cut_short = true;
                break 'walk;
            }
            let path = entry.path();
            if others.contains(&path) {
                continue;
            }
            let Ok(stat) = entry.metadata() else {
                continue;
            };
            if stat.dev() != device {
                continue;
            }
            let is_known = stat.nlink() > 1
                && !stat.is_dir()
                && linked.len() < MOST_LINKED
                && !linked.insert(stat.ino());
            if is_known {
                continue;
            }
            let mut of = node;
            if stat.is_dir() {
                if nodes.len() < MOST_NODES {
                    of = add(&mut nodes, path.clone(), node);
                }
                left.push((path, of));
            }
            if let Some(node) = nodes.get_mut(of) {
                node.bytes += stat.blocks() * BLOCK;
            }
        }
    }
    add_up(&mut nodes);
    let directories = largest(&nodes).into_iter();
    Largest {
        point: Text::default(),
        directories: directories
            .map(|node| {
                (
                    Text::from_bytes(node.path.as_os_str().as_bytes()),
                    node.bytes,
                )
            })
            .collect(),
        seen_bytes: nodes.first().map_or(0, |node| node.bytes),
        is_cut_short,
    }
}

fn add(nodes: &mut Vec<Node>, path: PathBuf, parent: usize) -> usize {
    let at = nodes.len();
    nodes.push(Node {
        path,
        parent,
        children: Vec::new(),
        bytes: 0,
    });
    if let Some(parent) = nodes.get_mut(parent) {
        parent.children.push(at);
    }
    at
}

/// Children stand behind their parents.
fn add_up(nodes: &mut [Node]) {
    for at in (1..nodes.len()).rev() {
        let Some((parent, bytes)) = nodes.get(at).map(|node| (node.parent, node.bytes)) else {
            continue;
        };
        if let Some(parent) = nodes.get_mut(parent) {
            parent.bytes += bytes;
        }
    }
}

/// Directories that are not in each other. From the root on, one most of which is in one
/// of its directories gives way to what is in it.
fn largest(nodes: &[Node]) -> Vec<&Node> {
    let mut found = Vec::new();
    let mut heap: BinaryHeap<(u64, usize)> = BinaryHeap::new();
    heap.extend(nodes.first().map(|root| (root.bytes, 0)));
    while let Some((_, at)) = heap.pop() {
        let Some(node) = nodes.get(at) else {
            continue;
        };
        let children = node.children.iter();
        let children = children.filter_map(|&at| Some((nodes.get(at)?.bytes, at)));
        let children: Vec<_> = children.collect();
        let most = children.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0);
        if most > node.bytes / 2 || at == 0 && most > 0 {
            heap.extend(children);
        } else if node.bytes > 0 {
            found.push(node);
        }
        if found.len() == NAMED {
            break;
        }
    }
    found
}

/// Of this thread: it reads when nobody else does (`IOPRIO_CLASS_IDLE`).
fn lower_priority() {
    const WHO_PROCESS: i32 = 1;
    const IDLE: i32 = 3 << 13;
    // SAFETY: touches no memory; where it is refused the walk is one like any other.
    unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IDLE) };
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, path::PathBuf, time::Duration};

    use super::{Node, add, add_up, largest, walk};

    #[test]
    fn directories_are_disjoint_and_where_the_bytes_are() {
        let mut nodes: Vec<Node> = Vec::new();
        add(&mut nodes, "/".into(), 0);
        nodes[0].children.clear();
        let var = add(&mut nodes, "/var".into(), 0);
        let log = add(&mut nodes, "/var/log".into(), var);
        let usr = add(&mut nodes, "/usr".into(), 0);
        let (bin, lib) = (
            add(&mut nodes, "/usr/bin".into(), usr),
            add(&mut nodes, "/usr/lib".into(), usr),
        );
        for (at, bytes) in [(var, 1), (log, 100), (usr, 1), (bin, 40), (lib, 40)] {
            nodes[at].bytes = bytes;
        }
        nodes[0].parent = 0;
        add_up(&mut nodes);
        let found: Vec<_> = largest(&nodes)
            .iter()
            .map(|node| (node.path.to_str().unwrap(), node.bytes))
            .collect();
        assert_eq!(found, [("/var/log", 100), ("/usr", 81)]);
        assert_eq!(nodes[0].bytes, 182);
    }

    #[test]
    fn a_walk_counts_links_once_and_other_mounts_not_at_all() {
        let root = std::env::temp_dir().join(format!("tracer-du-{}", std::process::id()));
        for name in ["a", "b"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("a/file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(root.join("a/file"), root.join("a/again")).unwrap();
        fs::write(root.join("b/file"), vec![1; 1 << 20]).unwrap();
        let others = HashSet::from([root.join("b")]);
        let time = Duration::from_secs(60);
        let found = walk(&root, &others, time);
        let none = walk(&root, &others, Duration::ZERO);
        fs::remove_dir_all(&root).unwrap();
        let [(path, bytes)] = &found.directories[..] else {
            panic!("{found:?}");
        };
        assert!(PathBuf::from(path.as_str()).ends_with("a"));
        assert!((1 << 20..2 << 20).contains(bytes), "{bytes}");
        assert!(!found.is_cut_short && none.is_cut_short);
    }
}
