//! Processes that run out of memory within a cgroup made for it, and what the kernel
//! itself counts of that.

pub mod reports;
pub mod table;
pub mod v1;
pub mod workloads;

use std::{
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{provoke::Workload, time::eventually};

/// A cgroup with a limit of memory and no swap, of whichever version has the memory
/// controller here; removed at the end.
pub struct MemoryCgroup {
    /// Path below the root of its hierarchy, as tracer names it.
    pub name: String,
    directory: PathBuf,
    is_v2: bool,
}

const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";

impl MemoryCgroup {
    /// Makes one with so many MiB.
    ///
    /// # Errors
    /// Why there is none to be had here.
    pub fn new(name: &str, mib: u64) -> io::Result<Self> {
        let name = format!("{name}-{}", std::process::id());
        let controllers = fs::read_to_string(Path::new(V2).join("cgroup.controllers"));
        let is_v2 = controllers.is_ok_and(|names| names.contains("memory"));
        let root = Path::new(if is_v2 { V2 } else { V1 });
        if is_v2 {
            fs::write(root.join("cgroup.subtree_control"), "+memory")?;
        }
        let directory = root.join(&name);
        fs::create_dir(&directory)?;
        let cgroup = Self {
            name: format!("/{name}"),
            directory,
            is_v2,
        };
        let limit = if is_v2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        cgroup.write(limit, &(mib << 20).to_string())?;
        // Not there without swap accounting, and then there is nothing to limit. v1 limits
        // memory and swap together.
        let (swap, most) = if is_v2 {
            ("memory.swap.max", 0)
        } else {
            ("memory.memsw.limit_in_bytes", mib << 20)
        };
        let _ = cgroup.write(swap, &most.to_string());
        Ok(cgroup)
    }

    /// Has all of it die when one of it is chosen.
    ///
    /// # Errors
    /// v1 has no such thing.
    pub fn kill_whole(&self) -> io::Result<()> {
        if !self.is_v2 {
            return Err(io::Error::other("cgroup v1 has no memory.oom.group"));
        }
        self.write("memory.oom.group", "1")
    }

    /// Whether it is of v2.
    pub fn is_v2(&self) -> bool {
        self.is_v2
    }

    /// Processes that were killed in it, as the kernel counts them.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.is_v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = fs::read_to_string(self.directory.join(file)).expect("counters");
        let mut lines = text.lines();
        let count = lines.find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.expect("oom_kill")
    }

    /// What is charged to it now.
    pub fn usage_bytes(&self) -> u64 {
        let file = if self.is_v2 {
            "memory.current"
        } else {
            "memory.usage_in_bytes"
        };
        let text = fs::read_to_string(self.directory.join(file)).expect("its usage");
        text.trim().parse().expect("a number")
    }

    /// A workload in it.
    pub fn workload(&self, args: &[&str]) -> Workload {
        Workload::ready_in(args, &[&self.directory])
    }

    /// Has a command run in it from its first instruction on.
    pub fn contain(&self, command: &mut Command) {
        let procs = CString::new(self.directory.join("cgroup.procs").as_os_str().as_bytes());
        let procs = procs.expect("no zero in a path");
        let enter = move || {
            // SAFETY: three system calls, with a string that lives on.
            unsafe {
                let file = libc::open(procs.as_ptr(), libc::O_WRONLY);
                let written = libc::write(file, c"0".as_ptr().cast(), 1);
                libc::close(file);
                match written {
                    1 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            }
        };
        // SAFETY: it neither allocates nor takes a lock.
        unsafe { command.pre_exec(enter) };
    }

    /// One that holds so many MiB, with its score set right.
    pub fn holder(&self, mib: u64, score_adj: i32) -> Workload {
        let mut holder = self.workload(&["eat", &mib.to_string()]);
        let file = format!("/proc/{}/oom_score_adj", holder.pid());
        fs::write(file, score_adj.to_string()).expect("its score can be raised");
        holder.go();
        assert_eq!(holder.line(), "done");
        holder
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.directory.join(file), value)
    }
}

/// Processes that were killed for memory on the host, as the kernel counts them
/// (`oom_kill` of /proc/vmstat).
pub fn host_oom_kills() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").expect("the kernel's counters");
    let mut lines = text.lines();
    let count = lines.find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
    count.expect("oom_kill")
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // It can be removed once its last task is reaped.
        eventually(5.0, || fs::remove_dir(&self.directory).is_ok());
    }
}
