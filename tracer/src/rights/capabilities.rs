//! Capabilities: what each is kept for, and how a thread gives up the others.

use std::io;

use crate::text;

/// One of include/uapi/linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Without `CAP_`, in small letters.
    pub name: &'static str,
    /// Its bit.
    pub bit: u32,
    /// What tracer cannot do without it.
    pub why: &'static str,
}

const fn of(name: &'static str, bit: u32, why: &'static str) -> Capability {
    Capability { name, bit, why }
}

pub(super) const DAC_READ_SEARCH: Capability = of(
    "dac_read_search",
    2,
    "read directories and files that their users have closed",
);
pub(super) const KILL: Capability = of("kill", 5, "end the reader, which is another user");
pub(super) const SETGID: Capability = of("setgid", 6, "make the reader another group");
pub(super) const SETUID: Capability = of("setuid", 7, "make the reader another user");
pub(super) const SETPCAP: Capability = of("setpcap", 8, "empty the bounding sets of both");
pub(super) const IPC_LOCK: Capability = of("ipc_lock", 14, "keep its memory at an OOM kill");
pub(super) const SYS_PTRACE: Capability = of(
    "sys_ptrace",
    19,
    "read namespaces, descriptors and mappings of others in /proc",
);
pub(super) const SYS_ADMIN: Capability = of(
    "sys_admin",
    21,
    "enter network namespaces, and measure the time of its programs",
);
pub(super) const SYSLOG: Capability = of("syslog", 34, "read /dev/kmsg and /proc/kallsyms");
pub(super) const PERFMON: Capability = of("perfmon", 38, "attach programs");
pub(super) const BPF: Capability = of("bpf", 39, "use its programs and maps");
pub(super) const CHECKPOINT_RESTORE: Capability =
    of("checkpoint_restore", 40, "follow /proc/PID/map_files");

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Keeps these of the calling thread, as far as they are there, and no others.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn keep(kept: &[Capability]) -> io::Result<()> {
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut words = [Words::default(); 2];
    let (header, data) = (&raw mut header, words.as_mut_ptr());
    // SAFETY: version 3 has two of these structs, and they are ours.
    checked(unsafe { libc::syscall(libc::SYS_capget, header, data) })?;
    for (i, word) in words.iter_mut().enumerate() {
        let of_word = kept.iter().filter(|one| one.bit as usize / 32 == i);
        let mask = of_word.fold(0, |mask, one| mask | 1 << (one.bit % 32));
        word.permitted &= mask;
        word.effective = word.permitted;
        word.inheritable = 0;
    }
    let data = words.as_ptr();
    // SAFETY: as above; the kernel only reads them.
    checked(unsafe { libc::syscall(libc::SYS_capset, header, data) })?;
    let (clear, none) = (libc::PR_CAP_AMBIENT_CLEAR_ALL, 0);
    // SAFETY: touches no memory.
    checked(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, none, none, none) }.into())
}

/// Takes all others out of the bounding set: nothing that is run can have them.
///
/// # Errors
/// The kernel refuses (without CAP_SETPCAP).
pub(crate) fn bound(kept: &[Capability]) -> io::Result<()> {
    // SAFETY: touches no memory.
    let is_there = |bit: u32| unsafe { libc::prctl(libc::PR_CAPBSET_READ, bit, 0, 0, 0) };
    // SAFETY: touches no memory.
    let drop = |bit: u32| unsafe { libc::prctl(libc::PR_CAPBSET_DROP, bit, 0, 0, 0) };
    // The first that the kernel does not know is the end.
    for bit in (0..64).take_while(|bit| is_there(*bit) >= 0) {
        if is_there(bit) == 1 && kept.iter().all(|one| one.bit != bit) {
            checked(drop(bit).into())?;
        }
    }
    Ok(())
}

/// Whether the calling thread has any.
pub(super) fn has_any() -> bool {
    permitted() != 0
}

/// Whether the calling thread has all of these.
pub(crate) fn has(wanted: &[Capability]) -> bool {
    let permitted = permitted();
    wanted.iter().all(|one| permitted >> one.bit & 1 == 1)
}

fn permitted() -> u64 {
    let status = text::read("/proc/thread-self/status").unwrap_or_default();
    mask_of(&status, "CapPrm:")
}

/// A line of /proc/PID/status; 0 where it is missing.
pub(super) fn mask_of(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let mask = line.and_then(|word| u64::from_str_radix(word.trim(), 16).ok());
    mask.unwrap_or(0)
}

pub(crate) fn checked(returned: libc::c_long) -> io::Result<()> {
    match returned {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
