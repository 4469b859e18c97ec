//! Mounts that nobody else sees, and that go when their process goes.

use std::{ffi::CString, fs::File, io, os::fd::AsRawFd as _, ptr};

use super::checked;

/// Where the one mount of a workload is: a directory that every system has.
pub(super) const MOUNT_POINT: &str = "/mnt";

/// Gives this process a mount namespace of its own. Only while it is one thread.
pub(super) fn unshare() -> io::Result<()> {
    // SAFETY: touches no memory of this process.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // SAFETY: the target ends with a zero, and the others may be null here.
    checked(unsafe {
        libc::mount(
            ptr::null(),
            c"/".as_ptr(),
            ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            ptr::null(),
        )
    })?;
    Ok(())
}

/// Goes into the mount namespace of the process whose root a path such as
/// `/proc/7/root/mnt` leads through, if it does: a task has a name for the mounts of
/// its own namespace only. The path from there. Only while this is one thread.
pub(super) fn enter(path: &str) -> io::Result<String> {
    let through = path.strip_prefix("/proc/");
    let Some((pid, below)) = through.and_then(|rest| rest.split_once("/root")) else {
        return Ok(path.to_owned());
    };
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    // SAFETY: touches no memory.
    checked(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) })?;
    Ok(below.to_owned())
}

/// Mounts `source` at the mount point.
pub(super) fn mount(source: &str, kind: &str, options: &str) -> io::Result<()> {
    let (source, kind) = (CString::new(source)?, CString::new(kind)?);
    let (target, options) = (CString::new(MOUNT_POINT)?, CString::new(options)?);
    // SAFETY: all four end with a zero and live until the call returns.
    checked(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV,
            options.as_ptr().cast(),
        )
    })?;
    Ok(())
}
