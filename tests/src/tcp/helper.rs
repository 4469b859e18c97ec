//! A second process of a workload, with a pipe both ways.

use std::{io, os::unix::net::UnixStream};

use super::must;

/// A process that this one started; it dies with this one.
pub(super) struct Helper {
    pid: i32,
    /// What is said to it and by it.
    pub(super) pipe: UnixStream,
}

impl Helper {
    /// Starts it, under a name of its own. Only while this process is one thread.
    pub(super) fn start(name: &str, work: impl FnOnce(UnixStream) -> io::Result<()>) -> Self {
        let (pipe, its) = must("a pipe", UnixStream::pair());
        let parent = std::process::id();
        // SAFETY: there is one thread, so the child may do whatever it likes. It asks
        // for its death before it looks whether the parent is there.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => panic!("fork: {}", io::Error::last_os_error()),
            0 => {
                super::name(name);
                // SAFETY: touches no memory.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                if std::os::unix::process::parent_id() == parent {
                    drop(pipe);
                    if let Err(error) = work(its) {
                        eprintln!("{name}: {error}");
                    }
                }
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) }
            }
            _ => Self { pid, pipe },
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Waits until it has ended by itself.
    pub(super) fn until_ended(&self) {
        // SAFETY: reaps the child; no status is asked for.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
    }
}
