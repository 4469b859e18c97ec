//! Workloads of TCP sockets, of which it is known what became of each, and what
//! the kernel itself says of sockets.
//!
//! A workload says one line of JSON between its begin and `done`; what is in it is
//! said at the workload. Namespaces that it makes, and the processes that it starts,
//! go with its process, also if that is killed.

pub mod closers;
pub mod connections;
pub mod counters;
pub mod diag;
pub mod hostile;
pub mod idle;
pub mod leak;
pub mod listener;
pub mod netns;
pub mod nginx;
pub mod python;
pub mod reused;
pub mod sampler;
pub mod seen;
pub mod servers;
pub mod socket;
pub mod states;
pub mod tracked;
pub mod untold;
pub mod wire;

mod at_once;
mod elf;
mod helper;
mod netlink;
mod shuffle;

use std::{ffi::CString, io, os::unix::ffi::OsStrExt as _, path::Path, ptr};

/// A server in another language that leaks, for python3.
pub const LEAK_PY: &str = include_str!("leak.py");

/// Takes a result that only a broken machine can make an error.
#[track_caller]
fn must<T>(what: &str, result: io::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// What a system call returned, or its error.
fn checked(returned: i32) -> io::Result<i32> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}

/// Makes a file appear at another path.
fn mount(from: &Path, at: &Path) -> io::Result<()> {
    let path = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let (from, at) = (path(from)?, path(at)?);
    // SAFETY: both end with a zero and live until the call returns, the others may be null.
    checked(unsafe {
        let (from, at) = (from.as_ptr(), at.as_ptr());
        libc::mount(from, at, ptr::null(), libc::MS_BIND, ptr::null())
    })
    .map(drop)
}

fn unmount(at: &Path) {
    if let Ok(at) = CString::new(at.as_os_str().as_bytes()) {
        // SAFETY: it ends with a zero and lives until the call returns.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Gives this process a name.
fn name(name: &str) {
    if let Ok(name) = CString::new(name) {
        // SAFETY: it ends with a zero and lives until the call returns.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
}
