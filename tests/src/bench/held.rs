//! What a process holds of BPF: programs, memory of maps, attachments.
//!
//! Asked of /proc/PID/fdinfo, which names the ids behind each descriptor
//! (kernel/bpf/syscall.c: `bpf_prog_show_fdinfo`, `bpf_map_show_fdinfo`). So what
//! others load at the same time is never taken for a contender's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use aya::programs::loaded_programs;

use crate::bpf::Cost;

/// BPF objects of a process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Ids of its programs.
    pub(super) programs: BTreeSet<u32>,
    /// Memory of each of its maps, by id, in bytes.
    maps: BTreeMap<u32, u64>,
    /// Its links and perf events: what attaches a program.
    pub(super) attachments: usize,
}

impl Held {
    /// Memory of all its maps, in bytes, as the kernel accounts for it.
    pub(super) fn map_bytes(&self) -> u64 {
        self.maps.values().sum()
    }
}

/// Looks through the descriptors of a process.
pub(super) fn by(pid: u32) -> io::Result<Held> {
    let mut held = Held::default();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        // A descriptor may be closed between the look at the list and at it.
        let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{name}")) else {
            continue;
        };
        let is_perf_event = fs::read_link(format!("/proc/{pid}/fd/{name}"))
            .is_ok_and(|target| target.as_os_str() == "anon_inode:[perf_event]");
        held.take(&info, is_perf_event);
    }
    Ok(held)
}

impl Held {
    fn take(&mut self, info: &str, is_perf_event: bool) {
        let number = |key: &str| -> Option<u64> {
            info.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?
                .trim()
                .parse()
                .ok()
        };
        let id = |key| u32::try_from(number(key)?).ok();
        if is_perf_event || info.contains("link_type:") {
            self.attachments += 1;
        }
        self.programs.extend(id("prog_id"));
        if let (Some(map), Some(bytes)) = (id("map_id"), number("memlock")) {
            self.maps.insert(map, bytes);
        }
    }
}

/// Name and cost so far of each program, by id.
pub(super) fn costs(programs: &BTreeSet<u32>) -> BTreeMap<u32, (String, Cost)> {
    loaded_programs()
        .filter_map(Result::ok)
        .filter(|program| programs.contains(&program.id()))
        .map(|program| {
            let cost = Cost {
                calls: program.run_count(),
                ns: u64::try_from(program.run_time().as_nanos()).unwrap_or(u64::MAX),
            };
            let name = program.name_as_str().unwrap_or("?").to_owned();
            (program.id(), (name, cost))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_maps_and_attachments_are_told_apart() {
        let mut held = Held::default();
        held.take(
            "pos:\t0\nprog_type:\t26\nmemlock:\t4096\nprog_id:\t12\n",
            false,
        );
        held.take("link_type:\ttracing\nlink_id:\t3\nprog_id:\t12\n", false);
        held.take(
            "map_type:\t1\nmemlock:\t320\nmap_id:\t7\nfrozen:\t0\n",
            false,
        );
        held.take(
            "map_type:\t1\nmemlock:\t320\nmap_id:\t7\nfrozen:\t0\n",
            false,
        );
        held.take("pos:\t0\n", true);
        assert_eq!(held.programs, BTreeSet::from([12]));
        assert_eq!(held.map_bytes(), 320);
        assert_eq!(held.attachments, 2);
    }
}
