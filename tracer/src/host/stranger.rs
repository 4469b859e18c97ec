//! For tests: a process in a network namespace of its own.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

/// A process in a network namespace of its own, until it is dropped.
pub(super) struct Stranger(Child);

impl Stranger {
    /// Without root that takes a user namespace, which a host can forbid.
    pub(super) fn start() -> io::Result<Self> {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped());
        let leave = || {
            // SAFETY: no memory is touched.
            let status = unsafe {
                match libc::unshare(libc::CLONE_NEWNET) {
                    0 => 0,
                    _ => libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET),
                }
            };
            match status {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: a system call is all that the closure does.
        unsafe { command.pre_exec(leave) };
        command.spawn().map(Self)
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it, and waits until the kernel has seen to that.
    pub(super) fn end(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
