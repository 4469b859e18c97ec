//! CPU time and memory of a process, as the kernel has them.

use std::fs;

use anyhow::{Context as _, Result};

/// CPU time of a process's tasks so far, in ns: /proc/PID/task/*/schedstat, which
/// unlike /proc/PID/stat counts in ns and not in ticks.
pub(super) fn cpu_ns(pid: u32) -> Result<u64> {
    let mut ns = 0;
    let gone = || format!("process {pid} is gone");
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(gone)? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        ns += first_number(&text);
    }
    Ok(ns)
}

/// Resident memory of a process, in bytes.
pub(super) fn rss_bytes(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))
        .with_context(|| format!("process {pid} is gone"))?;
    let pages = text
        .split_once(' ')
        .map_or(0, |(_, rest)| first_number(rest));
    Ok(pages * page_bytes())
}

fn first_number(text: &str) -> u64 {
    let word = text.split_whitespace().next();
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn page_bytes() -> u64 {
    // SAFETY: no memory is touched.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}
