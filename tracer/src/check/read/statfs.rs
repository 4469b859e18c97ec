//! statfs(2) of a mount that may not answer.
//!
//! A task that waits for the answer of FUSE cannot be killed once the server has read the
//! request, and a process with such a thread does not end. So a child asks: it is left
//! behind where it hangs, killed already, and ends with the answer.

use std::{
    ffi::CString,
    io::{self, PipeReader, Read as _},
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::Path,
    time::Duration,
};

use rustix::fs::{AtFlags, StatxFlags};

use super::within;
use crate::check::rows::disks::Space;

/// What came of it.
#[derive(Debug)]
pub(in crate::check) enum Asked {
    /// An answer.
    Space {
        /// The number of the mount that is at this place.
        mount_id: u64,
        /// What stat(2) has as its device.
        device: (u32, u32),
        space: Space,
    },
    /// None in time.
    Silent,
    /// The kernel's.
    Error(io::Error),
}

/// An error, the mount, its device, then what [`space`] takes.
type Words = [u64; 10];

/// Asks, and waits for so long.
pub(in crate::check) fn ask(path: &Path, patience: Duration) -> Asked {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return Asked::Error(io::ErrorKind::InvalidInput.into());
    };
    let (reader, pid) = match child(&path) {
        Ok(child) => child,
        Err(error) => return Asked::Error(error),
    };
    let answer = within(patience, move || read(reader));
    // SAFETY: touches no memory. The child was not waited for yet: the pid is its own.
    unsafe {
        if answer.is_err() {
            libc::kill(pid, libc::SIGKILL);
        }
        // One that hangs is waited for by nobody; who has answered ends at once.
        let flags = if answer.is_err() { libc::WNOHANG } else { 0 };
        libc::waitpid(pid, std::ptr::null_mut(), flags);
    }
    match answer {
        Ok(Ok([0, mount_id, major, minor, rest @ ..])) => Asked::Space {
            mount_id,
            device: (major as u32, minor as u32),
            space: space(rest),
        },
        Ok(Ok([error, ..])) => Asked::Error(io::Error::from_raw_os_error(error as i32)),
        Ok(Err(error)) => Asked::Error(error),
        Err(_) => Asked::Silent,
    }
}

fn read(mut reader: PipeReader) -> io::Result<Words> {
    let mut bytes = [0; size_of::<Words>()];
    reader.read_exact(&mut bytes)?;
    let mut words: Words = Words::default();
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    Ok(words)
}

/// As df(1): what is not free is used, and what root keeps for itself is not left.
fn space([unit, blocks, free, available, inodes, inodes_free]: [u64; 6]) -> Space {
    Space {
        total: blocks.saturating_mul(unit),
        used: blocks.saturating_sub(free).saturating_mul(unit),
        left: available.saturating_mul(unit),
        inodes_total: inodes,
        inodes_used: inodes.saturating_sub(inodes_free),
    }
}

/// A process that asks and writes the answer into a pipe.
fn child(path: &CString) -> io::Result<(PipeReader, libc::pid_t)> {
    let (reader, writer) = io::pipe()?;
    let to = writer.as_raw_fd();
    // SAFETY: the child makes system calls alone, without memory or locks of others.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        let below = u32::try_from(to).unwrap_or(0);
        // SAFETY: what is open belongs to the parent, which must not wait for the child
        // at a pipe; the words live until they are written.
        unsafe {
            if below > 0 {
                libc::syscall(libc::SYS_close_range, 0_u32, below - 1, 0_u32);
            }
            libc::syscall(libc::SYS_close_range, below + 1, u32::MAX, 0_u32);
            let words = words(path);
            libc::write(to, words.as_ptr().cast(), size_of_val(&words));
            libc::_exit(0);
        }
    }
    Ok((reader, pid))
}

/// The number of the mount at a place. It asks no server, but may pass one on the way.
pub(in crate::check) fn mount_id(path: &Path) -> rustix::io::Result<u64> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::MNT_ID)?;
    Ok(stat.stx_mnt_id)
}

fn words(path: &CString) -> Words {
    let failed = |error: rustix::io::Errno| {
        let mut words = Words::default();
        if let Some(first) = words.first_mut() {
            *first = u64::from(error.raw_os_error().unsigned_abs());
        }
        words
    };
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let mask = StatxFlags::MNT_ID;
    let stat = match rustix::fs::statx(rustix::fs::CWD, path.as_c_str(), flags, mask) {
        Ok(stat) => stat,
        Err(error) => return failed(error),
    };
    match rustix::fs::statvfs(path.as_c_str()) {
        Ok(fs) => [
            0,
            stat.stx_mnt_id,
            stat.stx_dev_major.into(),
            stat.stx_dev_minor.into(),
            fs.f_frsize,
            fs.f_blocks,
            fs.f_bfree,
            fs.f_bavail,
            fs.f_files,
            fs.f_ffree,
        ],
        Err(error) => failed(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::{Asked, ask, space};

    #[test]
    fn what_root_keeps_is_neither_used_nor_left() {
        let space = space([4096, 1000, 200, 150, 10, 4]);
        assert_eq!(space.used, 800 * 4096);
        assert_eq!(space.left, 150 * 4096);
        assert_eq!((space.inodes_total, space.inodes_used), (10, 6));
    }

    #[test]
    fn a_directory_has_space_and_what_is_not_there_has_none() {
        let patience = Duration::from_secs(10);
        let Asked::Space { space, .. } = ask(Path::new("/"), patience) else {
            panic!("no answer");
        };
        assert!(space.total >= space.used && space.used > 0);
        let Asked::Error(error) = ask(Path::new("/nowhere/at/all"), patience) else {
            panic!("an answer");
        };
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
