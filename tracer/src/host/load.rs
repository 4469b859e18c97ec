//! The kernel's averages at full precision.

use std::{io, mem};

/// Bits of a fixed-point average: 2048 is 1.0 (`FSHIFT`, include/linux/sched/loadavg.h).
const FSHIFT: u32 = 11;
/// sysinfo(2) shifts them up to this (`SI_LOAD_SHIFT`).
const SI_LOAD_SHIFT: u32 = 16;

/// load1, load5, load15 as `avenrun` has them (2048 = 1.0), and the uptime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AveragesReading {
    /// `avenrun`, kernel/sched/loadavg.c.
    pub fixed: [u64; 3],
    /// Time since boot, in seconds.
    pub uptime_s: u64,
}

/// Reads them: one system call, no parsing, no rounding as in /proc/loadavg.
///
/// # Errors
/// The kernel refuses sysinfo(2), which only a system-call filter makes it do.
pub fn read() -> io::Result<AveragesReading> {
    // SAFETY: all zeros is a valid struct of integers.
    let mut info: libc::sysinfo = unsafe { mem::zeroed() };
    // SAFETY: the kernel fills in the struct, which is ours.
    if unsafe { libc::sysinfo(&raw mut info) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(AveragesReading {
        fixed: info.loads.map(|load| load >> (SI_LOAD_SHIFT - FSHIFT)),
        uptime_s: info.uptime.unsigned_abs(),
    })
}
