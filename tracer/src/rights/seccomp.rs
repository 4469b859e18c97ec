//! Filters of system calls, in classic BPF (include/uapi/linux/seccomp.h).

use std::io;

use super::capabilities::checked;

/// What becomes of a call: it is done, refused with an error, or ends the process.
#[derive(Clone, Copy)]
pub(crate) struct Answer(u32);

pub(crate) const ALLOW: Answer = Answer(libc::SECCOMP_RET_ALLOW);
pub(crate) const END: Answer = Answer(libc::SECCOMP_RET_KILL_PROCESS);
pub(crate) const REFUSE: Answer = Answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
/// As a kernel that has no such call: the C library takes another one.
pub(crate) const UNKNOWN: Answer = Answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Where `struct seccomp_data` has what is asked for.
const NUMBER: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
/// The low half of an argument; both architectures are little endian.
const fn argument(i: u32) -> u32 {
    16 + 8 * i
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUALS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const EXCEEDS: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const HAS_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// A filter while it is made. The first rule that a call meets decides.
pub(crate) struct Filter {
    steps: Vec<libc::sock_filter>,
    otherwise: Answer,
    is_for_all_threads: bool,
}

impl Filter {
    /// One that answers so to calls that no rule is for, of another architecture too.
    pub(crate) fn of_one_thread(otherwise: Answer) -> Self {
        Self::new(otherwise, otherwise, false)
    }

    /// One for all threads, that allows what no rule is for.
    pub(crate) fn of_all_threads() -> Self {
        Self::new(REFUSE, ALLOW, true)
    }

    fn new(foreign: Answer, otherwise: Answer, is_for_all_threads: bool) -> Self {
        let mut filter = Self {
            steps: Vec::new(),
            otherwise,
            is_for_all_threads,
        };
        filter.step(LOAD, ARCHITECTURE_AT, 0, 0);
        filter.step(EQUALS, ARCHITECTURE, 1, 0);
        filter.give(foreign);
        filter.step(LOAD, NUMBER, 0, 0);
        filter
    }

    /// Calls, whatever their arguments are.
    pub(crate) fn calls(mut self, calls: &[libc::c_long], answer: Answer) -> Self {
        for call in calls {
            self.step(EQUALS, *call as u32, 0, 1);
            self.give(answer);
        }
        self
    }

    /// Calls of a higher number.
    pub(crate) fn above(mut self, call: libc::c_long, answer: Answer) -> Self {
        self.step(EXCEEDS, call as u32, 0, 1);
        self.give(answer);
        self
    }

    /// A call of which an argument has any of these bits.
    pub(crate) fn with(self, call: libc::c_long, at: u32, bits: u32, answer: Answer) -> Self {
        self.of_bits(call, at, bits, (0, 1), answer)
    }

    /// A call of which an argument has none of these bits.
    pub(crate) fn without(self, call: libc::c_long, at: u32, bits: u32, answer: Answer) -> Self {
        self.of_bits(call, at, bits, (1, 0), answer)
    }

    fn of_bits(
        mut self,
        call: libc::c_long,
        at: u32,
        bits: u32,
        (if_set, if_not): (u8, u8),
        answer: Answer,
    ) -> Self {
        self.step(EQUALS, call as u32, 0, 4);
        self.step(LOAD, argument(at), 0, 0);
        self.step(HAS_BITS, bits, if_set, if_not);
        self.give(answer);
        self.step(LOAD, NUMBER, 0, 0);
        self
    }

    /// A call of which an argument is this.
    pub(crate) fn is(mut self, call: libc::c_long, at: u32, value: u32, answer: Answer) -> Self {
        self.step(EQUALS, call as u32, 0, 4);
        self.step(LOAD, argument(at), 0, 0);
        self.step(EQUALS, value, 0, 1);
        self.give(answer);
        self.step(LOAD, NUMBER, 0, 0);
        self
    }

    /// A call of which an argument is none of these.
    pub(crate) fn unless(
        mut self,
        call: libc::c_long,
        at: u32,
        values: &[u32],
        answer: Answer,
    ) -> Self {
        let count = values.len() as u8;
        self.step(EQUALS, call as u32, 0, count + 3);
        self.step(LOAD, argument(at), 0, 0);
        for (left, value) in (1..=count).rev().zip(values) {
            self.step(EQUALS, *value, left, 0);
        }
        self.give(answer);
        self.step(LOAD, NUMBER, 0, 0);
        self
    }

    /// Puts it in force for the calling thread, those that it starts, and where it is for
    /// all threads for them too.
    ///
    /// # Errors
    /// The kernel has no filters, or another thread has one that this thread has not.
    pub(crate) fn install(mut self) -> io::Result<()> {
        self.give(self.otherwise);
        let program = libc::sock_fprog {
            len: self.steps.len() as u16,
            filter: self.steps.as_mut_ptr(),
        };
        // It runs no foreign code: without the flag kernels before 5.16 would make it
        // slower, to hide from itself what it knows.
        let flags = match self.is_for_all_threads {
            true => libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            false => 0,
        };
        let (mode, program) = (libc::SECCOMP_SET_MODE_FILTER, &raw const program);
        // SAFETY: the program and its steps are ours, and live until the call returns.
        match unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, program) } {
            0 => Ok(()),
            -1 => Err(io::Error::last_os_error()),
            thread => Err(io::Error::other(format!("thread {thread} has another one"))),
        }
    }

    fn give(&mut self, answer: Answer) {
        self.step(RETURN, answer.0, 0, 0);
    }

    fn step(&mut self, code: u32, k: u32, jt: u8, jf: u8) {
        let code = code as u16;
        self.steps.push(libc::sock_filter { code, jt, jf, k });
    }
}

/// Nothing that is run from here can have more rights.
pub(crate) fn no_new_privs() -> io::Result<()> {
    // SAFETY: touches no memory.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())
}
