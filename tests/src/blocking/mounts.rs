//! Mounts that nobody else sees, and that go when their process goes.

use std::{ffi::CString, io, ptr};

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
