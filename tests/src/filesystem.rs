//! A disk, and a file system to freeze, that nobody else has; and a swap area.
//!
//! Each belongs to a process of `provoke`, and goes with it; and that ends, having
//! thawed, when the test that started it is gone, however that ended.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use crate::provoke::Workload;

const DISK_MIB: &str = "64";
// _IOWR('X', 119, int) and 120, of the kernel's include/uapi/linux/fs.h.
const FIFREEZE: u64 = 0xc004_5877;
const FITHAW: u64 = 0xc004_5878;

/// A loop device of 64 MiB of memory.
pub struct Disk {
    device: PathBuf,
    _owner: Workload,
}

impl Disk {
    /// Makes one.
    ///
    /// # Errors
    /// There are no loop devices here.
    pub fn new() -> io::Result<Self> {
        let (owner, device) = owner(&["disk", DISK_MIB])?;
        Ok(Self {
            device,
            _owner: owner,
        })
    }

    /// Its path, `/dev/loop7`.
    pub fn device(&self) -> &Path {
        &self.device
    }
}

/// An ext4 file system; it is thawed and gone when this is dropped.
pub struct FileSystem {
    device: PathBuf,
    directory: PathBuf,
    root: File,
    // Dropped last: the mount goes with it.
    _owner: Workload,
}

impl FileSystem {
    /// Makes one on a disk of its own.
    ///
    /// # Errors
    /// There are no loop devices here, or no ext4.
    pub fn new() -> io::Result<Self> {
        Self::of(owner(&["filesystem", DISK_MIB])?)
    }

    /// Makes one on a device, whose content is lost.
    ///
    /// # Errors
    /// There is no such device, or no ext4.
    pub fn on(device: &str) -> io::Result<Self> {
        Self::of(owner(&["filesystem", DISK_MIB, device])?)
    }

    fn of((owner, device): (Workload, PathBuf)) -> io::Result<Self> {
        // The mount is in the owner's namespace alone; this leads there.
        let directory = PathBuf::from(format!("/proc/{}/root/mnt", owner.pid()));
        let root = File::open(&directory)?;
        Ok(Self {
            device,
            directory,
            root,
            _owner: owner,
        })
    }

    /// Its root directory, for any process.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Path of its device.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Writers wait from now on.
    ///
    /// # Errors
    /// It is frozen already.
    pub fn freeze(&self) -> io::Result<()> {
        self.ask(FIFREEZE)
    }

    /// Writers go on.
    ///
    /// # Errors
    /// It is not frozen.
    pub fn thaw(&self) -> io::Result<()> {
        self.ask(FITHAW)
    }

    fn ask(&self, what: u64) -> io::Result<()> {
        // SAFETY: touches no memory.
        if unsafe { libc::ioctl(self.root.as_raw_fd(), what as _, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // It fails if it is not frozen.
        let _ = self.thaw();
    }
}

/// A swap area; it is given up when this is dropped.
pub struct Swap(Option<Workload>);

impl Swap {
    /// Makes one of 128 MiB in a file in a directory, or on a device. Not on a
    /// [`Disk`]: its memory may itself be swapped out.
    ///
    /// # Errors
    /// Files of this file system cannot be swapped to, or swap is not to be had.
    pub fn on(place: &str) -> io::Result<Self> {
        Workload::try_ready(&["swap-area", "128", place]).map(|owner| Self(Some(owner)))
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // It ends by itself, since only then it gives the area up.
        self.0.take().into_iter().for_each(Workload::end);
    }
}

fn owner(args: &[&str]) -> io::Result<(Workload, PathBuf)> {
    let mut owner = Workload::try_ready(args)?;
    owner.go();
    let device = PathBuf::from(owner.line());
    Ok((owner, device))
}
