//! Which file system a deleted file that is still open is on, so that memory of the kernel
//! (memfd, System V shared memory) is told from files that take space.

use std::{collections::HashMap, fs};

use super::descriptors::{DELETED, Descriptors, OpenFile};
use crate::{
    check::rows::deleted::{Held, SWAP},
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
            by_kernel: None,
        }));
    }
    all.extend(by_kernel(&own));
    (all, unseen)
}

/// Deleted files that the kernel has open for itself: images of loop devices
/// (`loop_attr_backing_file_show`, drivers/block/loop.c) and swap areas (`swap_show`,
/// mm/swapfile.c). Of their space only the length is known.
fn by_kernel(mountinfo: &[u8]) -> Vec<Held> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let directory = entry.path();
        let path = fs::read(directory.join("loop/backing_file")).unwrap_or_default();
        let sectors = fs::read(directory.join("size")).unwrap_or_default();
        let sectors = str::from_utf8(sectors.trim_ascii()).ok();
        let bytes = sectors.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 512;
        if let Some(path) = path.trim_ascii_end().strip_suffix(DELETED) {
            let name = Text::from_bytes(entry.file_name().as_encoded_bytes());
            all.push(of_kernel(name, path, bytes, mountinfo));
        }
    }
    let swaps = fs::read("/proc/swaps").unwrap_or_default();
    for line in swaps.split(|&byte| byte == b'\n').skip(1) {
        let mut words = line
            .split(u8::is_ascii_whitespace)
            .filter(|w| !w.is_empty());
        let (Some(path), Some(b"file"), Some(kib)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let kib: u64 = str::from_utf8(kib)
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        if let Some(path) = unescape(path).strip_suffix(DELETED) {
            all.push(of_kernel(SWAP.into(), path, kib * 1024, mountinfo));
        }
    }
    all
}

fn of_kernel(holder: Text, path: &[u8], bytes: u64, mountinfo: &[u8]) -> Held {
    Held {
        mount: mount_of(mountinfo, path),
        path: Text::from_bytes(path),
        size: bytes,
        used: bytes,
        by_kernel: Some(holder),
        ..Held::default()
    }
}

/// The mount that a path is below: the longest point of all.
fn mount_of(mountinfo: &[u8], path: &[u8]) -> Text {
    let points = Line::all(mountinfo).map(|line| unescape(line.point));
    let is_above = |point: &Vec<u8>| {
        let rest = path.strip_prefix(point.as_slice());
        rest.is_some_and(|rest| point == b"/" || rest.first() == Some(&b'/'))
    };
    let longest = points.filter(is_above).max_by_key(Vec::len);
    Text::from_bytes(&longest.unwrap_or_else(|| b"/".to_vec()))
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
    use super::{mount_of, points};

    #[test]
    fn the_mount_that_a_path_is_below() {
        let mountinfo = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
              2 1 8:2 / /var rw - ext4 /dev/b rw\n\
              3 1 8:3 / /var/lib rw - ext4 /dev/c rw\n";
        for (path, mount) in [
            (&b"/var/lib/x.img"[..], "/var/lib"),
            (b"/var/library/x", "/var"),
            (b"/x", "/"),
        ] {
            assert_eq!(mount_of(mountinfo, path).as_str(), mount);
        }
    }

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
