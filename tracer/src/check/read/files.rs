//! The kernel's table of open files, and what inotify watches: /proc/sys/fs and the
//! `inotify` lines of /proc/PID/fdinfo (`inotify_fdinfo`, fs/notify/fdinfo.c).

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use crate::{host::living, text};

/// Watches that are counted; each is a line that the kernel writes.
const MOST_WATCHES: u64 = 1_000_000;

/// `fs.file-nr`: files that are in use, and `fs.file-max`.
pub(in crate::check) fn table() -> Option<(u64, u64)> {
    let state = procfs::sys::fs::file_nr().ok()?;
    Some((state.allocated.saturating_sub(state.free), state.max))
}

/// `fs.inotify.max_user_instances` and `max_user_watches`.
pub(in crate::check) fn inotify_limits() -> (Option<u64>, Option<u64>) {
    let of = |name: &str| {
        let text = text::read(format!("/proc/sys/fs/inotify/{name}")).ok()?;
        text.trim().parse().ok()
    };
    (of("max_user_instances"), of("max_user_watches"))
}

/// The watches of each of these processes, and whether some were left out.
pub(in crate::check) fn watches(pids: impl Iterator<Item = u32>) -> (HashMap<u32, u64>, bool) {
    let mut all = HashMap::new();
    let mut left = MOST_WATCHES;
    for pid in pids {
        let links = fs::read_dir(living::path(pid, "fd"));
        for link in links.into_iter().flatten().flatten() {
            let is_inotify = fs::read_link(link.path())
                .is_ok_and(|to| to.as_os_str().as_bytes() == b"anon_inode:inotify");
            if !is_inotify {
                continue;
            }
            let fd = link.file_name();
            let Ok(info) = File::open(Path::new(&living::path(pid, "fdinfo")).join(fd)) else {
                continue;
            };
            let lines = BufReader::new(info).split(b'\n').map_while(Result::ok);
            let count = lines.filter(|line| line.starts_with(b"inotify "));
            let count = count.take(usize::try_from(left).unwrap_or(usize::MAX));
            let count = count.count() as u64;
            left -= count;
            *all.entry(pid).or_insert(0) += count;
            if left == 0 {
                return (all, true);
            }
        }
    }
    (all, false)
}

#[cfg(test)]
mod tests {
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

    use super::watches;

    #[test]
    fn watches_of_this_process_are_counted() {
        let own = std::process::id();
        let instance = inotify::init(CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&instance, "/", WatchFlags::CREATE).unwrap();
        inotify::add_watch(&instance, "/proc", WatchFlags::CREATE).unwrap();
        let (counts, is_cut) = watches([own].into_iter());
        assert_eq!((counts.get(&own), is_cut), (Some(&2), false));
    }
}
