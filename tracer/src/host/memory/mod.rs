//! The host's memory as `free` shows it, and the cgroups that limit it.
//!
//! Read when it is wanted, not measured: the figures of a reading are not of one
//! moment. All amounts are in bytes.

mod cgroups;
mod files;
mod hierarchy;
mod room;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf};

pub use self::{
    cgroups::{MOST_CGROUPS, MemoryCgroup, MemoryCgroups},
    files::Cache,
    room::{Room, room},
};
use crate::{error::KernelError, text};

const MEMINFO: &str = "/proc/meminfo";
const VMSTAT: &str = "/proc/vmstat";

/// Memory and swap of the host (`meminfo_proc_show`, fs/proc/meminfo.c).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostMemory {
    /// `MemTotal`: what the kernel has to give away.
    pub total_bytes: u64,
    /// `MemAvailable`: what new work could have without swapping, the kernel's
    /// estimate (`si_mem_available`).
    pub available_bytes: u64,
    /// `MemFree`: what nobody uses, not for the page cache either.
    pub free_bytes: u64,
    /// `SwapTotal`; 0 where there is no swap.
    pub swap_total_bytes: u64,
    /// `SwapFree`.
    pub swap_free_bytes: u64,
    /// Processes that the OOM killer has killed since boot, those killed for the
    /// limit of a cgroup among them: `oom_kill` of /proc/vmstat (`__oom_kill_process`,
    /// mm/oom_kill.c; from 4.13). `None` where the kernel does not count events.
    pub oom_kills: Option<u64>,
}

/// Reads the host's memory.
///
/// # Errors
/// /proc/meminfo cannot be read, or lacks a line.
pub fn host() -> Result<HostMemory, KernelError> {
    let cannot = |source| KernelError::Read {
        path: PathBuf::from(MEMINFO),
        source,
    };
    let text = text::read(MEMINFO).map_err(cannot)?;
    let memory = meminfo(&text).map_err(|name| {
        let reason = format!("it has no number after {name}");
        cannot(io::Error::new(io::ErrorKind::InvalidData, reason))
    })?;
    Ok(HostMemory {
        oom_kills: host_oom_kills(),
        ..memory
    })
}

/// `oom_kills` of the host.
fn host_oom_kills() -> Option<u64> {
    files::counter(&text::read(VMSTAT).ok()?, "oom_kill")
}

/// The amounts in /proc/meminfo, or the name of the one that is not there.
fn meminfo(text: &str) -> Result<HostMemory, &'static str> {
    let bytes = |name| {
        let kib = files::counter(text, name).ok_or(name)?;
        kib.checked_mul(1024).ok_or(name)
    };
    Ok(HostMemory {
        total_bytes: bytes("MemTotal:")?,
        available_bytes: bytes("MemAvailable:")?,
        free_bytes: bytes("MemFree:")?,
        swap_total_bytes: bytes("SwapTotal:")?,
        swap_free_bytes: bytes("SwapFree:")?,
        oom_kills: None,
    })
}
