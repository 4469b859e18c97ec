//! A process whose code is on a file system that does not answer any more.

use std::{ffi::c_void, fs::File, io, os::fd::AsRawFd as _, ptr};

use super::{
    fuse::{Fuse, Held},
    mounts::{self, MOUNT_POINT},
};

const PAGE: usize = 4096;

/// The file system, until it is dropped.
pub struct StoppedFuse(#[expect(dead_code, reason = "it is held")] Fuse);

impl StoppedFuse {
    /// Mounts one in a mount namespace of this process's own, maps a page of a file, puts
    /// code into the copy of it, and stops to answer. Only while this process is one
    /// thread.
    ///
    /// # Errors
    /// There is no FUSE here.
    pub fn with_code(code: &[u8]) -> io::Result<(Self, *mut c_void)> {
        mounts::unshare()?;
        let fuse = Fuse::mount(Held::All)?;
        fuse.answer();
        let file = File::open(format!("{MOUNT_POINT}/program"))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE;
        // SAFETY: a new mapping, where nothing is.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                PAGE,
                protection,
                flags,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the page is ours, can be written to, and is larger than the code.
        unsafe { ptr::copy_nonoverlapping(code.as_ptr(), at.cast(), code.len()) };
        // To close it is a request too.
        drop(file);
        fuse.hold();
        Ok((Self(fuse), at))
    }
}
