//! Landlock: what a process can do to files, whatever its user may.
//!
//! A process under it cannot look at another one in /proc where that takes ptrace's right,
//! such as /proc/PID/ns, so it is for those that need not.

use std::{io, ptr};

use super::capabilities::checked;

/// What it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landlock {
    /// Nothing.
    No,
    /// To change a file.
    Changes,
    /// To open or run one.
    All,
}

/// include/uapi/linux/landlock.h: all but to run (bit 0), to read (2) and to list (3).
const CHANGES: u64 = !0b1101;
/// By ABI: how many of the rights to files there are.
const FILE_RIGHTS: [u32; 6] = [0, 13, 14, 15, 15, 16];
/// From ABI 4: bind and connect; from 6: abstract sockets and signals of others.
const NETWORK: (u32, u64) = (4, 0b11);
const SCOPES: (u32, u64) = (6, 0b11);
/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: u32 = 1;

#[repr(C)]
struct Ruleset {
    files: u64,
    network: u64,
    scopes: u64,
}

/// The version of this kernel's Landlock; 0 where there is none or it is off.
pub(crate) fn abi() -> u32 {
    let none = ptr::null::<Ruleset>();
    // SAFETY: no struct is read where its length is 0.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION) };
    u32::try_from(abi).unwrap_or(0)
}

impl Landlock {
    /// Puts it in force for the calling thread, where the kernel has it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn put_in_force(self) -> io::Result<()> {
        match (abi(), self) {
            (0, _) | (_, Self::No) => Ok(()),
            (abi, Self::Changes) => restrict(abi, CHANGES),
            (abi, Self::All) => restrict(abi, u64::MAX),
        }
    }
}

fn restrict(abi: u32, files: u64) -> io::Result<()> {
    let newest = FILE_RIGHTS.len() - 1;
    let known = FILE_RIGHTS[newest.min(abi as usize)];
    let from = |(least, bits): (u32, u64)| if abi >= least { bits } else { 0 };
    let ruleset = Ruleset {
        files: files & ((1 << known) - 1),
        network: from(NETWORK),
        scopes: from(SCOPES),
    };
    // The part that an older kernel does not know is zero, which it takes.
    let (rules, length) = (&raw const ruleset, size_of::<Ruleset>());
    // SAFETY: the kernel reads the struct, which is ours.
    let made = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, rules, length, 0) };
    checked(made)?;
    // SAFETY: touches no memory.
    let done = checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, made, 0) });
    // SAFETY: the descriptor is new, and nobody else's.
    unsafe { libc::close(made as i32) };
    done
}
