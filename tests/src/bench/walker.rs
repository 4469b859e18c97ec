//! The peer of the snapshot: reads run and wait time of every task from /proc, as
//! tightly as /proc allows.
//!
//! Directories are listed with getdents64 into a buffer that is kept, files are
//! opened relative to their directory (openat) and read onto the stack. Nothing
//! is allocated, kept, sorted or shown. schedstat alone does not say which tasks
//! are blocked; with their state, which is in stat, it comes closer to what a
//! snapshot of tracer says.

use std::{
    ffi::CStr,
    io::{self, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use crate::time::let_pass;

/// Large enough for some thousand names.
const LIST_BYTES: usize = 1 << 17;
/// A line of stat, which is the longer one.
const TEXT_BYTES: usize = 512;
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
    /// In uninterruptible sleep, where states are asked for.
    pub blocked: u64,
}

/// Walks once a second, and says so in a line each, for ever.
///
/// # Errors
/// /proc cannot be read, or nobody reads the lines.
pub fn every_second(with_states: bool) -> io::Result<()> {
    let mut walker = Walker::new(with_states);
    loop {
        let walked = walker.walk()?;
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{} tasks ran {} ns, {} times, and waited {} ns; {} are blocked",
            walked.tasks, walked.run_ns, walked.runs, walked.wait_ns, walked.blocked
        )?;
        out.flush()?;
        let_pass(1.0);
    }
}

/// Its buffers.
struct Walker {
    processes: Vec<u8>,
    tasks: Vec<u8>,
    with_states: bool,
}

impl Walker {
    fn new(with_states: bool) -> Self {
        Self {
            processes: vec![0; LIST_BYTES],
            tasks: vec![0; LIST_BYTES],
            with_states,
        }
    }

    fn walk(&mut self) -> io::Result<Walked> {
        let mut walked = Walked::default();
        let (tasks, with_states) = (&mut self.tasks, self.with_states);
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
                let mut text = [0; TEXT_BYTES];
                let schedstat = path
                    .of(&[task, b"/schedstat"])
                    .and_then(|path| numbers(read(&folder, path, &mut text)?));
                if let Some([run_ns, wait_ns, runs]) = schedstat {
                    walked.tasks += 1;
                    walked.run_ns += run_ns;
                    walked.wait_ns += wait_ns;
                    walked.runs += runs;
                }
                if with_states {
                    let state = path
                        .of(&[task, b"/stat"])
                        .and_then(|path| state(read(&folder, path, &mut text)?));
                    walked.blocked += u64::from(state == Some(b'D'));
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

fn read<'a>(folder: &OwnedFd, path: &CStr, text: &'a mut [u8]) -> Option<&'a [u8]> {
    let file = open(folder.as_raw_fd(), path, 0).ok()?;
    // SAFETY: the kernel writes into the text, whose length is given.
    let length = unsafe { libc::read(file.as_raw_fd(), text.as_mut_ptr().cast(), text.len()) };
    text.get(..usize::try_from(length).ok()?)
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

/// The state in a line of stat: what follows the name, which may hold anything.
fn state(text: &[u8]) -> Option<u8> {
    let name_ends = text.iter().rposition(|&byte| byte == b')')?;
    text.get(name_ends + 2).copied()
}

/// The numbers of a line of schedstat, ended by a space or a newline.
fn numbers(text: &[u8]) -> Option<[u64; 3]> {
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
        assert_eq!(numbers(b"123 0 45\n"), Some([123, 0, 45]));
        assert_eq!(numbers(b"123 4\n"), None);
        assert_eq!(numbers(b""), None);
    }

    #[test]
    fn the_state_stands_behind_the_name() {
        assert_eq!(state(b"7 (a) D (b) S 1 7 7"), Some(b'S'));
        assert_eq!(state(b"7"), None);
    }

    #[test]
    fn it_finds_a_thread_of_its_own() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        let walked = Walker::new(true).walk().unwrap();
        assert!(walked.tasks >= 2, "{walked:?}");
        assert!(walked.run_ns > 0 && walked.runs > 0, "{walked:?}");
        drop(stop);
        let _ = thread.join();
    }
}
