//! Every process, at the begin and at the end of the sample: /proc/PID/stat.

use std::collections::HashMap;

use crate::{
    check::context::sleep_until,
    clock::{self, MonotonicNs},
    host::living,
    text::{self, Text},
};

/// Two walks over /proc.
#[derive(Debug, Default)]
pub(in crate::check) struct Processes {
    /// By process id, as of the begin.
    pub(in crate::check) before: HashMap<u32, Process>,
    /// By process id, as of the end.
    pub(in crate::check) now: HashMap<u32, Process>,
    /// Time between, in seconds.
    pub(in crate::check) elapsed_s: f64,
}

/// A process (`do_task_stat`, fs/proc/array.c).
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Process {
    /// Its id.
    pub(in crate::check) pid: u32,
    /// Its parent's.
    pub(in crate::check) parent: u32,
    /// Its name.
    pub(in crate::check) comm: Text,
    /// `R`, `S`, `D`, `Z`, ..: that of its first thread.
    pub(in crate::check) state: char,
    /// CPU time, in seconds.
    pub(in crate::check) cpu_s: f64,
    /// Threads.
    pub(in crate::check) threads: u64,
    /// Resident memory, in bytes.
    pub(in crate::check) rss_bytes: u64,
    /// When it began, in ticks since boot: with the id, which one it is.
    pub(in crate::check) start_ticks: u64,
    /// The CPU that its first thread ran on last.
    pub(in crate::check) cpu: u32,
}

impl Process {
    /// Whether it has ended and its parent does not wait for it. A first thread that ended
    /// before the others has the same letter.
    pub(in crate::check) fn is_zombie(&self) -> bool {
        self.state == 'Z' && self.threads <= 1
    }
}

impl Processes {
    /// CPU time that each process of the end used over the sample, as a part of one CPU;
    /// the most first.
    pub(in crate::check) fn by_cpu(&self) -> Vec<(f64, &Process)> {
        let used = |now: &Process| {
            let before = self.before.get(&now.pid);
            let before = before.filter(|before| before.start_ticks == now.start_ticks);
            (now.cpu_s - before.map_or(0.0, |before| before.cpu_s)) / self.elapsed_s.max(0.001)
        };
        let mut all: Vec<_> = self.now.values().map(|now| (used(now), now)).collect();
        all.sort_by(|(a, p), (b, q)| b.total_cmp(a).then(p.pid.cmp(&q.pid)));
        all
    }
}

/// Walks now, and at the end of the sample.
pub(in crate::check) fn read(until: MonotonicNs) -> Processes {
    let began = clock::monotonic();
    let before = walk();
    sleep_until(until);
    Processes {
        before,
        now: walk(),
        elapsed_s: clock::monotonic().since_ns(began) as f64 / 1e9,
    }
}

fn walk() -> HashMap<u32, Process> {
    let Ok(all) = procfs::process::all_processes() else {
        return HashMap::new();
    };
    let ticks = procfs::ticks_per_second() as f64;
    let page = procfs::page_size();
    let one = |process: procfs::ProcResult<procfs::process::Process>| {
        let stat = process.ok()?.stat().ok()?;
        let pid = u32::try_from(stat.pid).ok()?;
        let mut rss = stat.rss;
        if stat.state == 'Z' && stat.num_threads > 1 {
            // The first thread has no memory any more, the others have.
            rss = resident_pages(&living::path(pid, "statm")).unwrap_or(rss);
        }
        let process = Process {
            pid,
            parent: u32::try_from(stat.ppid).unwrap_or(0),
            comm: Text::from_bytes(stat.comm.as_bytes()),
            state: stat.state,
            cpu_s: (stat.utime + stat.stime) as f64 / ticks,
            threads: u64::try_from(stat.num_threads).unwrap_or(0),
            rss_bytes: rss * page,
            start_ticks: stat.starttime,
            cpu: stat
                .processor
                .and_then(|cpu| cpu.try_into().ok())
                .unwrap_or(0),
        };
        Some((pid, process))
    };
    all.filter_map(one).collect()
}

/// The second number of statm (`proc_pid_statm`, fs/proc/array.c).
fn resident_pages(statm: &str) -> Option<u64> {
    let text = text::read(statm).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}
