//! The peer of the snapshot: reads the same three numbers of every task from
//! /proc, as tightly as /proc allows.
//!
//! Directories are listed with getdents64 into a buffer that is kept, files are
//! opened relative to their directory (openat) and read into one that is kept.
//! Nothing is allocated, kept, sorted or shown.

use std::{
    ffi::CStr,
    io::{self, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use crate::time::let_pass;

/// Large enough for some thousand names.
const LIST_BYTES: usize = 1 << 17;
/// Three numbers of up to 20 digits, twice that.
const TEXT_BYTES: usize = 128;
/// Offsets in `struct linux_dirent64`: `d_reclen`, `d_name`.
const RECORD_LENGTH_AT: usize = 16;
const NAME_AT: usize = 19;

/// Tasks seen, and the sums of their numbers, so that no reading is in vain.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Tasks whose file could be read.
    pub tasks: u64,
    /// On a CPU, in ns.
    pub run_ns: u64,
    /// Runnable and not on one, in ns.
    pub wait_ns: u64,
    /// Times on a CPU.
    pub runs: u64,
}

/// Walks once a second, and says so in a line each, for ever.
///
/// # Errors
/// /proc cannot be read, or nobody reads the lines.
pub fn every_second() -> io::Result<()> {
    let mut walker = Walker::new()?;
    loop {
        let walked = walker.walk()?;
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{} tasks ran {} ns, {} times, and waited {} ns",
            walked.tasks, walked.run_ns, walked.runs, walked.wait_ns
        )?;
        out.flush()?;
        let_pass(1.0);
    }
}

/// Its buffers, and /proc.
struct Walker {
    processes: Vec<u8>,
    tasks: Vec<u8>,
}

impl Walker {
    fn new() -> io::Result<Self> {
        Ok(Self {
            processes: vec![0; LIST_BYTES],
            tasks: vec![0; LIST_BYTES],
        })
    }

    fn walk(&mut self) -> io::Result<Walked> {
        let mut walked = Walked::default();
        let tasks = &mut self.tasks;
        let root = open(libc::AT_FDCWD, c"/proc", libc::O_DIRECTORY)?;
        numbers_in(&root, &mut self.processes, |process| {
            let mut path = Path::default();
            // A process that has ended since is no error.
            let Some(folder) = path
                .of(&[process, b"/task"])
                .and_then(|path| open(root.as_raw_fd(), path, libc::O_DIRECTORY).ok())
            else {
                return;
            };
            let _ = numbers_in(&folder, tasks, |task| {
                let mut path = Path::default();
                if let Some(numbers) = path
                    .of(&[task, b"/schedstat"])
                    .and_then(|path| read(&folder, path))
                {
                    walked.tasks += 1;
                    walked.run_ns += numbers[0];
                    walked.wait_ns += numbers[1];
                    walked.runs += numbers[2];
                }
            });
        })?;
        Ok(walked)
    }
}

/// A short path that ends with a zero.
#[derive(Default)]
struct Path([u8; 32]);

impl Path {
    fn of(&mut self, parts: &[&[u8]]) -> Option<&CStr> {
        let mut end = 0;
        for part in parts {
            self.0.get_mut(end..end + part.len())?.copy_from_slice(part);
            end += part.len();
        }
        *self.0.get_mut(end)? = 0;
        CStr::from_bytes_until_nul(&self.0).ok()
    }
}

/// Calls `each` with every name in a directory that begins with a digit.
fn numbers_in(folder: &OwnedFd, list: &mut [u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    loop {
        // SAFETY: the kernel writes into the list, whose length is given.
        let length = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                folder.as_raw_fd(),
                list.as_mut_ptr(),
                list.len(),
            )
        };
        let Ok(length) = usize::try_from(length) else {
            return Err(io::Error::last_os_error());
        };
        if length == 0 {
            return Ok(());
        }
        let mut rest = list.get(..length).unwrap_or_default();
        while let Some(&[low, high]) = rest.get(RECORD_LENGTH_AT..RECORD_LENGTH_AT + 2) {
            let next = usize::from(u16::from_ne_bytes([low, high]));
            let name = rest.get(NAME_AT..next).unwrap_or_default();
            if name.first().is_some_and(u8::is_ascii_digit) {
                let end = name.iter().position(|&byte| byte == 0);
                each(name.get(..end.unwrap_or(name.len())).unwrap_or_default());
            }
            rest = rest.get(next..).unwrap_or_default();
        }
    }
}

fn read(folder: &OwnedFd, path: &CStr) -> Option<[u64; 3]> {
    let file = open(folder.as_raw_fd(), path, 0).ok()?;
    let mut text = [0_u8; TEXT_BYTES];
    // SAFETY: the kernel writes into the text, whose length is given.
    let length = unsafe { libc::read(file.as_raw_fd(), text.as_mut_ptr().cast(), text.len()) };
    parse(text.get(..usize::try_from(length).ok()?)?)
}

fn open(folder: i32, path: &CStr, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: the path ends with a zero.
    let fd = unsafe { libc::openat(folder, path.as_ptr(), flags | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to us, and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Three numbers, each ended by a space or a newline.
fn parse(text: &[u8]) -> Option<[u64; 3]> {
    let mut numbers = [0_u64; 3];
    let mut which = numbers.iter_mut();
    let mut number = which.next()?;
    for &byte in text {
        match byte {
            b'0'..=b'9' => *number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')),
            b'\n' => break,
            _ => number = which.next()?,
        }
    }
    which.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_schedstat_is_three_numbers() {
        assert_eq!(parse(b"123 0 45\n"), Some([123, 0, 45]));
        assert_eq!(parse(b"123 4\n"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn it_finds_its_own_threads() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let before = Walker::new().unwrap().walk().unwrap().tasks;
        assert!(before >= 1);
        let thread = std::thread::spawn(move || wait.recv());
        let folder = open(libc::AT_FDCWD, c"/proc/self/task", libc::O_DIRECTORY).unwrap();
        let mut tasks = 0;
        numbers_in(&folder, &mut vec![0; 4096], |task| {
            let mut path = Path::default();
            let path = path.of(&[task, b"/schedstat"]).unwrap();
            tasks += u64::from(read(&folder, path).is_some());
        })
        .unwrap();
        assert!(tasks >= 2, "{tasks}");
        drop(stop);
        let _ = thread.join();
    }
}
