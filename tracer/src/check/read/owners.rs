//! Who has sockets open, asked when something is wrong with them: by the links of
//! /proc/PID/fd at that moment. A socket that was opened after the first walk over all
//! descriptors is found too, and every process that shares it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::ffi::OsStrExt as _,
};

use super::descriptors::socket;
use crate::{host::living, text::Text};

/// A process that has a socket open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::check) struct Owner {
    pub(in crate::check) pid: u32,
    pub(in crate::check) comm: Text,
    /// Stopped by a signal or a debugger (state T or t): it does nothing until it goes on.
    pub(in crate::check) is_stopped: bool,
}

impl Owner {
    /// `web[7]`.
    pub(in crate::check) fn name(&self) -> String {
        format!("{}[{}]", self.comm, self.pid)
    }
}

/// The processes that have each of these sockets, by its inode, ascending.
pub(in crate::check) fn of(inodes: &HashSet<u32>) -> HashMap<u32, Vec<Owner>> {
    let mut owners: HashMap<u32, Vec<Owner>> = HashMap::new();
    if inodes.is_empty() {
        return owners;
    }
    let mut pids: Vec<u32> = pids().collect();
    pids.sort_unstable();
    for pid in pids {
        let mut has: HashSet<u32> = HashSet::new();
        let links = fs::read_dir(living::path(pid, "fd"));
        for link in links.into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(link.path()) else {
                continue;
            };
            let inode = socket(target.as_os_str().as_bytes());
            has.extend(inode.and_then(|inode| u32::try_from(inode).ok()));
        }
        let mut owner = None;
        for inode in has.intersection(inodes) {
            let owner = owner.get_or_insert_with(|| describe(pid));
            owners.entry(*inode).or_default().push(owner.clone());
        }
    }
    owners
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn describe(pid: u32) -> Owner {
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    Owner {
        pid,
        comm: Text::from_bytes(comm.trim_ascii_end()),
        is_stopped: living::is_stopped(pid),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, net::TcpListener, os::fd::AsRawFd as _};

    use super::of;
    use crate::check::read::descriptors::socket;

    #[test]
    fn a_socket_of_this_process_is_its() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode = socket(link.as_os_str().as_encoded_bytes()).unwrap() as u32;
        let owners = of(&HashSet::from([inode]));
        // A test beside this one may fork, and share it for a moment.
        let own = std::process::id();
        let owner = owners[&inode].iter().find(|owner| owner.pid == own);
        assert!(!owner.unwrap().is_stopped);
        assert!(of(&HashSet::new()).is_empty());
    }
}
