//! What the files of a memory cgroup say: `memory_files` and `swap_files` of v2 in
//! mm/memcontrol.c, `mem_cgroup_legacy_files` and `memsw_files` of v1 there too
//! (mm/memcontrol-v1.c from 6.11).

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use crate::{kernel::fields::CgroupVersion, text};

/// The longest of the files, memory.events, has about 100 bytes.
const MOST_BYTES: usize = 1024;
/// A v1 limit from here on is none: `PAGE_COUNTER_MAX` (include/linux/page_counter.h)
/// is `i64::MAX` cut down to whole pages, of up to 256 KiB.
const V1_UNLIMITED: u64 = i64::MAX as u64 - 0xf_ffff;

/// Kills by the OOM killer, as a cgroup counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kills {
    /// As the kernel adds them up in v2, else the own ones.
    pub(super) all: Option<u64>,
    pub(super) own: Option<u64>,
    /// v2 only.
    pub(super) of_groups: Option<u64>,
}

/// Memory and swap in use, and the limit of swap, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bytes: u64,
    pub(super) swap_limit_bytes: Option<u64>,
    pub(super) swap_bytes: Option<u64>,
}

/// The cache of files that is charged to a cgroup and those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// On the lists of what can be taken back: `inactive_file` and `active_file`.
    pub bytes: u64,
    /// Pages that had been given up and were read again, since the cgroup was made:
    /// `workingset_refault_file` (`workingset_refault()`, mm/workingset.c; from 5.9).
    pub refaulted: Option<u64>,
}

/// The files of a cgroup.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files<'a> {
    pub(super) directory: &'a Path,
    pub(super) version: CgroupVersion,
}

impl Files<'_> {
    /// The limit of memory in bytes, if there is one. Not found where the memory
    /// controller is not in force, and in the root of v2.
    pub(super) fn limit(&self) -> io::Result<Option<u64>> {
        match self.version {
            CgroupVersion::V1 => self.read("memory.limit_in_bytes", v1_limit),
            CgroupVersion::V2 => self.read("memory.max", v2_limit),
        }
    }

    /// Kills so far. What a kernel does not count is `None`.
    pub(super) fn kills(&self) -> Kills {
        if self.version == CgroupVersion::V1 {
            // v1 has no event counted in the cgroups above (`memcg_memory_event`).
            let own = self.read("memory.oom_control", |text| counter(text, "oom_kill"));
            let own = own.ok();
            return Kills {
                all: own,
                own,
                of_groups: None,
            };
        }
        let events = self.read("memory.events", |text| {
            Some((counter(text, "oom_kill")?, counter(text, "oom_group_kill")))
        });
        let Ok((all, of_groups)) = events else {
            return Kills::default();
        };
        let own = match all {
            // None in all is none here, and a file less to read.
            0 => Some(0),
            _ => self.read_optional("memory.events.local", |text| counter(text, "oom_kill")),
        };
        Kills {
            all: Some(all),
            own,
            of_groups,
        }
    }

    /// Memory and swap in use. `limit_bytes` is that of memory.
    pub(super) fn usage(&self, limit_bytes: Option<u64>) -> io::Result<Usage> {
        match self.version {
            CgroupVersion::V1 => self.v1_usage(limit_bytes),
            CgroupVersion::V2 => Ok(Usage {
                bytes: self.read("memory.current", number)?,
                swap_limit_bytes: self.read_optional("memory.swap.max", v2_limit).flatten(),
                swap_bytes: self.read_optional("memory.swap.current", number),
            }),
        }
    }

    /// v1 limits and counts memory and swap together.
    fn v1_usage(&self, limit_bytes: Option<u64>) -> io::Result<Usage> {
        let bytes = self.read("memory.usage_in_bytes", number)?;
        let both = self.read_optional("memory.memsw.usage_in_bytes", number);
        let both_limit = self.read_optional("memory.memsw.limit_in_bytes", v1_limit);
        let limits = both_limit.flatten().zip(limit_bytes);
        Ok(Usage {
            bytes,
            swap_limit_bytes: limits.map(|(both, memory)| both.saturating_sub(memory)),
            swap_bytes: both.map(|both| both.saturating_sub(bytes)),
        })
    }

    /// What memory.stat says of the cache of files.
    pub(super) fn cache(&self) -> Option<Cache> {
        // Longer than the others.
        let text = text::read(self.directory.join("memory.stat")).ok()?;
        let [inactive, active, refaulted] = match self.version {
            CgroupVersion::V1 => [
                "total_inactive_file",
                "total_active_file",
                "total_workingset_refault_file",
            ],
            CgroupVersion::V2 => ["inactive_file", "active_file", "workingset_refault_file"],
        };
        Some(Cache {
            bytes: counter(&text, inactive)?.saturating_add(counter(&text, active)?),
            refaulted: counter(&text, refaulted),
        })
    }

    /// Processes in it, not those below it.
    pub(super) fn processes(&self) -> Vec<u32> {
        let text = text::read(self.directory.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Whether one out of memory takes all processes with it. v1 has no such thing.
    pub(super) fn is_oom_group(&self) -> bool {
        self.version == CgroupVersion::V2
            && self.read_optional("memory.oom.group", number) == Some(1)
    }

    /// For a file that kernels without swap, or old ones, do not have.
    fn read_optional<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.read(name, parse).ok()
    }

    fn read<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> io::Result<T> {
        let mut buffer = [0; MOST_BYTES];
        // The kernel hands out a file of this size at once: one call, where reading
        // to the end takes four.
        let length = File::open(self.directory.join(name))?.read(&mut buffer)?;
        let text = buffer.get(..length).and_then(|b| str::from_utf8(b).ok());
        text.and_then(parse).ok_or_else(|| {
            let reason = format!("{name} has not the form that tracer knows");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })
    }
}

/// Whether the error says no more than that the cgroup has gone: there is no such
/// file, or its file was open when it went (`kernfs_seq_start`, fs/kernfs/file.c).
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// The number behind a name that begins a line.
pub(super) fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? != name {
            return None;
        }
        words.next()?.parse().ok()
    })
}

fn number(text: &str) -> Option<u64> {
    text.trim_ascii().parse().ok()
}

/// `max` is no limit.
fn v2_limit(text: &str) -> Option<Option<u64>> {
    match text.trim_ascii() {
        "max" => Some(None),
        limit => Some(Some(limit.parse().ok()?)),
    }
}

fn v1_limit(text: &str) -> Option<Option<u64>> {
    let limit = number(text)?;
    Some((limit < V1_UNLIMITED).then_some(limit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::{counter, number, v1_limit, v2_limit};

    #[test]
    fn limits() {
        assert_eq!(v2_limit("max\n"), Some(None));
        assert_eq!(v2_limit("0\n"), Some(Some(0)));
        assert_eq!(v2_limit("1073741824\n"), Some(Some(1 << 30)));
        assert_eq!(v1_limit("1073741824\n"), Some(Some(1 << 30)));
        for page_bytes in [4096, 16_384, 65_536, 262_144] {
            let most = i64::MAX as u64 / page_bytes * page_bytes;
            assert_eq!(v1_limit(&format!("{most}\n")), Some(None), "{page_bytes}");
        }
        for rubbish in [
            "",
            "\n",
            "-1",
            "max 1",
            "1 2",
            "1\u{1b}[0m",
            "99999999999999999999",
        ] {
            assert_eq!((v1_limit(rubbish), v2_limit(rubbish)), (None, None));
        }
    }

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let events = "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n";
        assert_eq!(counter(events, "oom_kill"), Some(5));
        assert_eq!(counter(events, "oom_group_kill"), Some(6));
        assert_eq!(counter(events, "oom_"), None);
        let oom_control = "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n";
        assert_eq!(counter(oom_control, "oom_kill"), Some(7));
        for rubbish in [
            "",
            "oom_kill",
            "oom_kill \n",
            "oom_kill -1",
            "oom_kill x",
            "x oom_kill 1",
        ] {
            assert_eq!(counter(rubbish, "oom_kill"), None);
        }
        // A line that is not to be made out does not hide the one that is.
        assert_eq!(counter("\n\noom_kill\noom_kill 8", "oom_kill"), Some(8));
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "((oom_kill|max|[0-9]{1,21}|\\PC{0,4})[ \n\t]{0,2}){0,6}") {
            counter(&text, "oom_kill");
            number(&text);
            assert!(v1_limit(&text).flatten().is_none_or(|limit| limit < i64::MAX as u64));
            v2_limit(&text);
        }
    }
}
