//! Processes that block when they are told to, and say when and how long.

use std::{
    fs,
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    mem, ptr,
};

use crate::time::{eventually, monotonic_ns, wall_ns};

use super::must;

/// A process that does one thing, once, and lives on until its parent dies.
pub(super) struct Victim {
    pid: i32,
    go: PipeWriter,
    times: PipeReader,
    began_ns: u64,
}

impl Victim {
    /// Forks, so this must be called while there is one thread, and before there is
    /// a file of which the victim may have no copy.
    pub(super) fn fork(work: impl FnOnce()) -> Self {
        let (begin, go) = must("a pipe", io::pipe());
        let (times, say) = must("a pipe", io::pipe());
        let parent = std::process::id();
        // SAFETY: there is one thread, so the child may do whatever it likes. It asks
        // for its death before it looks whether the parent is there.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => panic!("fork: {}", io::Error::last_os_error()),
            0 => {
                // SAFETY: touches no memory.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                if std::os::unix::process::parent_id() == parent {
                    drop((go, times));
                    let _ = once(begin, say, work);
                }
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) }
            }
            _ => Self {
                pid,
                go,
                times,
                began_ns: 0,
            },
        }
    }

    /// Lets it begin: it is about to go into the call that blocks.
    pub(super) fn go(&mut self) {
        must("the victim listens", self.go.write_all(b"g"));
        self.began_ns = must("when it began", number(&mut self.times));
    }

    /// Lets it begin, and waits until the kernel says that it is blocked.
    pub(super) fn block(&mut self) {
        self.go();
        self.until_blocked();
    }

    /// Waits until the kernel says that it is blocked.
    pub(super) fn until_blocked(&self) {
        let is_so = eventually(10.0, || is_blocked(self.pid()));
        assert!(is_so, "process {} never blocked", self.pid);
    }

    /// Waits until it has died by itself.
    pub(super) fn until_dead(&self) {
        // SAFETY: fills in the record, which may be all zeroes before. The child is
        // left to be reaped, so that its pid stays its own.
        unsafe {
            let mut info: libc::siginfo_t = mem::zeroed();
            let how = libc::WEXITED | libc::WNOWAIT;
            libc::waitid(libc::P_PID, self.pid.unsigned_abs(), &raw mut info, how);
        }
    }

    /// How long the call took it; waits until it is over.
    pub(super) fn took_ns(&mut self) -> u64 {
        must("how long it took", number(&mut self.times))
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u64 {
        u64::from(self.pid.unsigned_abs())
    }

    /// Its process id, and when it began.
    pub(super) fn begun(&self) -> [u64; 2] {
        [self.pid(), self.began_ns]
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: i32) {
        // SAFETY: touches no memory; the child is not reaped, so the pid is its own.
        unsafe { libc::kill(self.pid, signal) };
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
        // One that cannot be killed yet is left to whoever inherits it.
        eventually(1.0, || {
            // SAFETY: reaps the child; no status is asked for.
            unsafe { libc::waitpid(self.pid, ptr::null_mut(), libc::WNOHANG) != 0 }
        });
    }
}

/// Whether the kernel says that a task is in D.
pub(super) fn is_blocked(tid: u64) -> bool {
    // The state follows the name, which is in parentheses.
    let stat = fs::read_to_string(format!("/proc/{tid}/stat"));
    stat.is_ok_and(|stat| stat.contains(") D "))
}

fn once(mut begin: PipeReader, mut say: PipeWriter, work: impl FnOnce()) -> io::Result<()> {
    begin.read_exact(&mut [0])?;
    say.write_all(&wall_ns().to_ne_bytes())?;
    let from_ns = monotonic_ns();
    work();
    say.write_all(&(monotonic_ns() - from_ns).to_ne_bytes())?;
    loop {
        // SAFETY: touches no memory.
        unsafe { libc::pause() };
    }
}

fn number(from: &mut PipeReader) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
