//! Which file system a deleted file that is still open is on, so that memory of the kernel
//! (memfd, System V shared memory) is told from files that take space.

use std::{collections::HashMap, fs};

use super::descriptors::{Descriptors, OpenFile};
use crate::{
    check::rows::deleted::Held,
    host::{
        living,
        mountinfo::{Line, unescape},
    },
    text::{self, Text},
};

/// More deleted files than this are not looked up.
const MOST: usize = 100_000;

/// Each file once, and what was not looked at.
pub(in crate::check) fn held(descriptors: &Descriptors) -> (Vec<Held>, Vec<String>) {
    let mut unseen = Vec::new();
    if descriptors.refused > 0 {
        unseen.push(format!(
            "the descriptors of {} processes: needs root",
            descriptors.refused
        ));
    }
    let own = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let points = points(&own);
    let mut mounts_of: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut at: HashMap<((u32, u32), u64), Option<usize>> = HashMap::new();
    let mut all: Vec<Held> = Vec::new();
    let deleted = descriptors.files.iter().filter(|file| file.is_deleted);
    for (count, file) in deleted.enumerate() {
        if count == MOST {
            unseen.push(format!("deleted files beyond the first {MOST}"));
            break;
        }
        match at.get(&(file.device, file.inode)) {
            Some(Some(known)) => {
                if let Some(held) = all.get_mut(*known) {
                    held.more += 1;
                }
                continue;
            }
            Some(None) => continue,
            None => {}
        }
        let mount = points.get(&file.device).cloned();
        let mount = mount.or_else(|| elsewhere(file, &mut mounts_of));
        let place = mount.as_ref().map(|_| all.len());
        at.insert((file.device, file.inode), place);
        all.extend(mount.map(|mount| Held {
            mount,
            pid: file.pid,
            tid: file.tid,
            fd: file.fd,
            comm: file.comm.clone(),
            path: file.path.clone(),
            size: file.size_bytes,
            used: file.used_bytes,
            more: 0,
        }));
    }
    (all, unseen)
}

/// The best mount point of each device.
fn points(mountinfo: &[u8]) -> HashMap<(u32, u32), Text> {
    let mut lines: Vec<Line<'_>> = Line::all(mountinfo).collect();
    lines.sort_by_key(|line| (line.root == b"/", std::cmp::Reverse(line.point.len())));
    let pair = |line: &Line<'_>| {
        let device = (line.device >> 20, line.device & 0xf_ffff);
        (device, Text::from_bytes(&unescape(line.point)))
    };
    lines.iter().map(pair).collect()
}

/// By the number of its mount, among the mounts of its process: of a container, or of a
/// btrfs, whose files have other devices than mountinfo says.
fn elsewhere(file: &OpenFile, mounts_of: &mut HashMap<u32, Vec<u8>>) -> Option<Text> {
    let (pid, fd) = (file.pid, file.fd);
    let text = text::read(living::path(pid, &format!("fdinfo/{fd}"))).ok()?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    let id: u64 = id.trim().parse().ok()?;
    let find = |mountinfo: &[u8]| {
        let line = Line::all(mountinfo).find(|line| line.id == id)?;
        Some(Text::from_bytes(&unescape(line.point)))
    };
    let its = mounts_of
        .entry(pid)
        .or_insert_with(|| fs::read(living::path(pid, "mountinfo")).unwrap_or_default());
    let point = find(its)?;
    let is_own =
        fs::read_link(living::path(pid, "ns/mnt")).ok() == fs::read_link("/proc/self/ns/mnt").ok();
    if is_own {
        return Some(point);
    }
    let words = format!("{point} of {}[{pid}]", file.comm);
    Some(Text::from(words.as_str()))
}

#[cfg(test)]
mod tests {
    use super::points;

    #[test]
    fn the_best_point_of_a_device() {
        let points = points(
            b"1 0 8:1 /a /x rw - ext4 /dev/a rw\n\
              2 0 8:1 / /data rw - ext4 /dev/a rw\n\
              3 0 8:1 / /data/again rw - ext4 /dev/a rw\n\
              4 0 259:70000 /b /y rw - ext4 /dev/b rw\n",
        );
        assert_eq!(points[&(8, 1)].as_str(), "/data");
        assert_eq!(points[&(259, 70_000)].as_str(), "/y");
        assert_eq!(points.len(), 2);
    }
}
