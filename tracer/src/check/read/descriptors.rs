//! Every descriptor of every process, at the begin of the sample: how many each has, which
//! sockets, and regular files with what they hold. No file system is asked: the size of a
//! file is what the kernel knows of it (`AT_STATX_DONT_SYNC`).

use std::{collections::HashMap, fs, os::unix::ffi::OsStrExt as _};

use rustix::fs::{AtFlags, FileType, StatxFlags};

use crate::{check::context::sleep_until, clock::MonotonicNs, host::living, text::Text};

/// Descriptors of all processes.
#[derive(Debug, Default)]
pub(in crate::check) struct Descriptors {
    /// How many each process has, and its limit (RLIMIT_NOFILE), by process id.
    pub(in crate::check) counts: HashMap<u32, Count>,
    /// Who has a socket, by its inode: the first process found, and the descriptor.
    pub(in crate::check) sockets: HashMap<u64, (u32, u32)>,
    /// Regular files that are open for writing or deleted, as of the begin.
    pub(in crate::check) files: Vec<OpenFile>,
    /// The sizes of `files` at the end of the sample, in the same order; `None` for what
    /// was closed meanwhile.
    pub(in crate::check) sizes_at_end: Vec<Option<u64>>,
    /// Processes whose descriptors may not be looked at.
    pub(in crate::check) refused: u64,
}

/// The descriptors of a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Count {
    /// The thread that its descriptors were seen through.
    pub(in crate::check) tid: u32,
    /// Its name.
    pub(in crate::check) comm: Text,
    /// Descriptors that are open.
    pub(in crate::check) open: u64,
    /// The soft limit; `None` for no limit.
    pub(in crate::check) limit: Option<u64>,
    /// inotify instances among them.
    pub(in crate::check) inotify: u64,
    /// User id.
    pub(in crate::check) uid: u32,
}

/// A regular file that a process has open.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct OpenFile {
    /// Process id.
    pub(in crate::check) pid: u32,
    /// The thread that it was seen through.
    pub(in crate::check) tid: u32,
    /// Descriptor.
    pub(in crate::check) fd: u32,
    /// Name of the process.
    pub(in crate::check) comm: Text,
    /// Its path, without what the kernel adds to that of a deleted one.
    pub(in crate::check) path: Text,
    /// Whether it has no name any more (no links).
    pub(in crate::check) is_deleted: bool,
    /// Major and minor number of its file system.
    pub(in crate::check) device: (u32, u32),
    /// Inode number.
    pub(in crate::check) inode: u64,
    /// Length in bytes.
    pub(in crate::check) size_bytes: u64,
    /// What it takes of the file system, in bytes.
    pub(in crate::check) used_bytes: u64,
}

/// Not even this process was found: /proc is not there, or shows none.
pub(in crate::check) const NO_PROCESSES: &str = "/proc shows no process";

impl Descriptors {
    /// Whether nothing could be looked at.
    pub(in crate::check) fn are_none(&self) -> bool {
        self.counts.is_empty()
    }
}

pub(super) const DELETED: &[u8] = b" (deleted)";

/// Walks now, and asks for the sizes again at the end of the sample.
pub(in crate::check) fn read(until: MonotonicNs) -> Descriptors {
    let mut all = walk();
    sleep_until(until);
    all.sizes_at_end = all
        .files
        .iter()
        .map(|file| {
            let now = stat(&link(file.tid, file.fd))?;
            let is_same = (now.stx_ino, device(&now)) == (file.inode, file.device);
            is_same.then_some(now.stx_size)
        })
        .collect();
    all
}

fn link(tid: u32, fd: u32) -> String {
    format!("/proc/{tid}/fd/{fd}")
}

fn device(stat: &rustix::fs::Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

fn stat(path: &str) -> Option<rustix::fs::Statx> {
    let flags = AtFlags::STATX_DONT_SYNC;
    rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::BASIC_STATS).ok()
}

fn walk() -> Descriptors {
    let mut all = Descriptors::default();
    let Ok(processes) = procfs::process::all_processes() else {
        return all;
    };
    for process in processes.flatten() {
        let Ok(pid) = u32::try_from(process.pid) else {
            continue;
        };
        let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let mut count = Count {
            comm: Text::from_bytes(comm.trim_ascii_end()),
            uid: process.uid().unwrap_or(0),
            ..Count::default()
        };
        let tid = living::thread(pid);
        count.tid = tid;
        let links = match fs::read_dir(format!("/proc/{tid}/fd")) {
            Ok(links) => links,
            Err(error) => {
                if error.kind() == std::io::ErrorKind::PermissionDenied {
                    all.refused += 1;
                }
                continue;
            }
        };
        for entry in links.flatten() {
            let name = entry.file_name();
            let Some(fd) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            count.open += 1;
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            let target = target.as_os_str().as_bytes();
            if let Some(inode) = socket(target) {
                all.sockets.entry(inode).or_insert((pid, fd));
            } else if target == b"anon_inode:inotify" {
                count.inotify += 1;
            } else if target.starts_with(b"/") {
                let place = Place { pid, tid, fd };
                all.files.extend(file(place, &count.comm, target));
            }
        }
        let limits = process.limits().ok();
        count.limit = limits.and_then(|limits| match limits.max_open_files.soft_limit {
            procfs::process::LimitValue::Unlimited => None,
            procfs::process::LimitValue::Value(most) => Some(most),
        });
        all.counts.insert(pid, count);
    }
    all
}

/// `N` of `socket:[N]`.
pub(super) fn socket(target: &[u8]) -> Option<u64> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// A descriptor, and the thread that it is seen through.
#[derive(Clone, Copy)]
struct Place {
    pid: u32,
    tid: u32,
    fd: u32,
}

/// A regular file with content; others are of no interest.
fn file(place: Place, comm: &Text, target: &[u8]) -> Option<OpenFile> {
    let Place { pid, tid, fd } = place;
    let stat = stat(&link(tid, fd))?;
    let is_regular = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
    if !is_regular {
        return None;
    }
    Some(OpenFile {
        pid,
        tid,
        fd,
        comm: comm.clone(),
        path: Text::from_bytes(target.strip_suffix(DELETED).unwrap_or(target)),
        is_deleted: stat.stx_nlink == 0,
        device: device(&stat),
        inode: stat.stx_ino,
        size_bytes: stat.stx_size,
        used_bytes: stat.stx_blocks * 512,
    })
}

#[cfg(test)]
mod tests {
    use super::socket;

    #[test]
    fn sockets_by_their_links() {
        assert_eq!(socket(b"socket:[4711]"), Some(4711));
        for other in [
            &b"socket:[]"[..],
            b"pipe:[1]",
            b"/socket:[1]",
            b"socket:[1",
            b"",
        ] {
            assert_eq!(socket(other), None);
        }
    }
}
