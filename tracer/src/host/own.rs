//! What tracer itself takes.

use std::{io, mem};

use super::user_stacks;

use crate::text;

/// CPU time of this process and of those that read for it so far, in ns.
pub fn cpu_ns() -> u64 {
    // SAFETY: all zeros is a valid struct of integers.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the kernel fills in the struct, which is ours.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1000;
    ns(usage.ru_utime) + ns(usage.ru_stime) + user_stacks::cpu_ns()
}

/// Resident memory of this process, in bytes (/proc/self/statm).
pub fn rss_bytes() -> u64 {
    let statm = text::read("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|f| f.parse().ok())
        .unwrap_or(0);
    pages * page_bytes()
}

/// Size of a page, in bytes.
pub fn page_bytes() -> u64 {
    // SAFETY: no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// Keeps this process's memory from being taken away when the host runs out of it, so
/// that a kill is told although there is none.
///
/// # Errors
/// The kernel refuses (without CAP_IPC_LOCK).
pub fn lock_memory() -> io::Result<()> {
    // What was mapped and never used takes no memory.
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: no memory is touched.
    match unsafe { libc::mlockall(flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts this process before others that wait for a CPU: the host one looks at is
/// overloaded, and with 200 tasks waiting on each CPU the start alone would take
/// a minute. Without CAP_SYS_NICE nothing changes.
pub fn raise_priority() {
    // SAFETY: no memory is touched.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
}

/// Has large blocks of memory mapped, and given back as soon as they are free. Otherwise
/// glibc takes the size of one that was freed for usual, and has later ones between small
/// ones on its heap, which does not shrink then.
pub fn map_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE_BYTES);
    }
}

/// From here on a block is large, in bytes: glibc's own first limit.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: libc::c_int = 128 << 10;

/// Gives memory back that only the start needed (type information, symbols).
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
