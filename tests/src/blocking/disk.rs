//! A disk in memory, and a file system on it, that go with their process; and a
//! swap area.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::Path,
    process::{Command, Stdio},
};

use crate::pace::{paced, say};

use super::{checked, mounts, must};

const LOOP_CTL_GET_FREE: u64 = 0x4c82;
const LOOP_CONFIGURE: u64 = 0x4c0a;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const EBUSY: Option<i32> = Some(libc::EBUSY);
// _IOWR('X', 120, int), of the kernel's include/uapi/linux/fs.h.
const FITHAW: u64 = 0xc004_5878;

/// A loop device of so many MiB of memory; its only line is its path.
pub fn disk(mib: u64) {
    let image = must("memory", image(mib));
    let (path, device) = must("a loop device", attach(&image));
    paced(|| say(&path));
    drop(device);
}

/// An ext4 file system of so many MiB on a loop device, or on the device that is
/// named, at /mnt of this process: /proc/PID/root/mnt for others. Its only line is
/// the path of its device. It is thawed at the end.
pub fn filesystem(mib: u64, device: &str) {
    live_on();
    must("a mount namespace", mounts::unshare());
    let (path, device) = if device.is_empty() {
        let image = must("memory", image(mib));
        let (path, device) = must("a loop device", attach(&image));
        (path, Some(device))
    } else {
        (device.to_owned(), None)
    };
    must("mke2fs", make(&path));
    must("the mount", mounts::mount(&path, "ext4", ""));
    drop(device);
    let root = must("its root", File::open(mounts::MOUNT_POINT));
    paced(|| say(&path));
    // SAFETY: touches no memory. It fails if the file system is not frozen.
    unsafe { libc::ioctl(root.as_raw_fd(), FITHAW as _, 0) };
}

/// A swap area of so many MiB on a loop device over a file without a name in a
/// directory, or on the device that is named. Its only line is the path of its
/// device. It is given up at the end of the input: not if this process is killed.
pub fn swap_area(mib: u64, place: &str) {
    live_on();
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let (path, device) = if Path::new(place).is_dir() {
        let image = options.clone().custom_flags(libc::O_TMPFILE).open(place);
        let image = must("a file", image);
        must("its length", image.set_len(mib << 20));
        must("a loop device", attach(&image))
    } else {
        (place.to_owned(), must("a device", options.open(place)))
    };
    must("its content", format_swap(&device, mib));
    let name = CString::new(path.as_str()).expect("no zero in it");
    // SAFETY: the name ends with a zero.
    must("swapon", checked(unsafe { libc::swapon(name.as_ptr(), 0) }));
    paced(|| say(&path));
    // SAFETY: the name ends with a zero.
    must("swapoff", checked(unsafe { libc::swapoff(name.as_ptr()) }));
    drop(device);
}

/// All zeroes but for `union swap_header` of the kernel's include/linux/swap.h.
fn format_swap(area: &File, mib: u64) -> io::Result<()> {
    let piece = vec![0; 1 << 20];
    for i in 0..mib {
        area.write_all_at(&piece, i << 20)?;
    }
    let version = 1_u32;
    let last_page = (mib << 20) as u32 / 4096 - 1;
    area.write_all_at(&version.to_ne_bytes(), 1024)?;
    area.write_all_at(&last_page.to_ne_bytes(), 1028)?;
    area.write_all_at(b"SWAPSPACE2", 4086)?;
    area.sync_all()
}

/// Ends at the end of its input alone, not of an interrupt that its test gets too:
/// what it has set up must be undone.
fn live_on() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: no handler runs.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

fn image(mib: u64) -> io::Result<File> {
    // SAFETY: the name ends with a zero.
    let fd = checked(unsafe { libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the descriptor is new, and nobody else's.
    let image = unsafe { File::from_raw_fd(fd) };
    image.set_len(mib << 20)?;
    Ok(image)
}

/// The device, which is free again once nobody has it open.
fn attach(image: &File) -> io::Result<(String, File)> {
    let mut both = OpenOptions::new();
    both.read(true).write(true);
    let control = both.open("/dev/loop-control")?;
    loop {
        // SAFETY: touches no memory.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        let path = format!("/dev/loop{}", checked(number)?);
        let device = both.open(&path)?;
        let config = LoopConfig::new(image);
        // SAFETY: reads the record, which is as long as the kernel's.
        let set = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &config) };
        match checked(set) {
            Ok(_) => return Ok((path, device)),
            // Another process was faster.
            Err(error) if error.raw_os_error() == EBUSY => {}
            Err(error) => return Err(error),
        }
    }
}

/// `struct loop_config` of the kernel's include/uapi/linux/loop.h.
#[repr(C)]
struct LoopConfig {
    image: u32,
    block_bytes: u32,
    before_flags: [u32; 13],
    flags: u32,
    rest: [u32; 60],
}

impl LoopConfig {
    fn new(image: &File) -> Self {
        Self {
            image: image.as_raw_fd() as u32,
            block_bytes: 0,
            before_flags: [0; 13],
            flags: LO_FLAGS_AUTOCLEAR,
            rest: [0; 60],
        }
    }
}

/// Makes an ext4, or what busybox can: an ext2, which ext4 mounts as well.
fn make(device: &str) -> io::Result<()> {
    let mke2fs = ["/sbin/mke2fs", "/usr/sbin/mke2fs"];
    let mke2fs = mke2fs.into_iter().find(|path| Path::new(path).exists());
    let mut command = if let Some(mke2fs) = mke2fs {
        let mut command = Command::new(mke2fs);
        command.args(["-q", "-t", "ext4"]);
        command
    } else {
        let mut command = Command::new("/bin/busybox");
        command.arg("mke2fs");
        command
    };
    command.args(["-F", device]);
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{command:?}: {status}")))
    }
}
