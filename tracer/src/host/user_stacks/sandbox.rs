//! What the launcher, the opener and the reader give up before they read anything:
//! descriptors, memory, CPU time, their user, and what `rights` has for them.
//!
//! The reader keeps nothing but memory, the descriptors that it is sent, and its two
//! channels: whatever runs in it can give wrong names, and use the CPU time and memory
//! of one reading.

use std::{ffi::CStr, fs, io, ptr};

use crate::{
    clock,
    rights::{
        self, Rights,
        capabilities::{self, checked},
    },
};

use super::{CPU_US, MOST_CPU_US, TIMES_START};

/// The user and group that own nothing.
const NOBODY: u32 = 65534;
/// Address space of the reader, in bytes: its program and what [`super::cache`] keeps.
const READER_MEMORY: u64 = 64 << 20;
/// The same of the opener, which reads no file that is not the kernel's.
const OPENER_MEMORY: u64 = 64 << 20;
/// CPU time of a whole life, in s: one that takes so much is replaced.
const LIFE_S: u64 = 60;
/// Descriptors: three of its own, those of a reading, and a few more.
const DESCRIPTORS: u64 = 64;

/// The same of the launcher, of which two processes are made and nothing else.
const LAUNCHER_MEMORY: u64 = 64 << 20;
/// tracer's own program.
pub(super) const PROGRAM: &str = "/proc/self/exe";

/// Gives up what the launcher does not need.
///
/// # Errors
/// The kernel refuses, tracer has gone, or had not the rights itself.
pub(super) fn of_launcher(parent: i32) -> io::Result<()> {
    if !capabilities::has(rights::TO_START_READERS) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    close_all()?;
    limit(&[
        (libc::RLIMIT_AS, LAUNCHER_MEMORY),
        (libc::RLIMIT_NOFILE, DESCRIPTORS),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_MEMLOCK, 0),
    ])?;
    call_and_calm(c"tracer-launcher")?;
    die_with(parent)?;
    strictly(&rights::LAUNCHER)
}

/// Gives up what the opener does not need.
///
/// # Errors
/// The kernel refuses, or tracer has gone.
pub(super) fn of_opener(parent: i32) -> io::Result<()> {
    enclose(c"tracer-opener", OPENER_MEMORY)?;
    capabilities::bound(&[])?;
    // Files are opened as this user, so nothing of root's can be changed. The user itself
    // stays: FUSE asks for it.
    // SAFETY: no list is read where its length is 0; the others touch no memory.
    unsafe {
        checked(libc::setgroups(0, ptr::null()).into())?;
        libc::setfsgid(NOBODY);
        libc::setfsuid(NOBODY);
        // Both answer what was before, and say in no other way that they failed.
        let are_set =
            libc::setfsgid(NOBODY) as u32 == NOBODY && libc::setfsuid(NOBODY) as u32 == NOBODY;
        if !are_set {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    die_with(parent)?;
    strictly(&rights::OPENER)
}

/// Gives up everything that the reader could give up.
///
/// # Errors
/// As [`of_opener`].
pub(super) fn of_reader(parent: i32) -> io::Result<()> {
    enclose(c"tracer-reader", READER_MEMORY)?;
    // SAFETY: touches no memory.
    checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) }.into())?;
    capabilities::bound(&[])?;
    // SAFETY: no list is read where its length is 0; the others touch no memory.
    unsafe {
        checked(libc::setgroups(0, ptr::null()).into())?;
        checked(libc::setresgid(NOBODY, NOBODY, NOBODY).into())?;
        checked(libc::setresuid(NOBODY, NOBODY, NOBODY).into())?;
    }
    // After the change of user, which takes it back.
    die_with(parent)?;
    // A panic's message would be a system call that ends it without.
    std::panic::set_hook(Box::new(|_| {
        // SAFETY: ends the process.
        unsafe { libc::_exit(1) }
    }));
    strictly(&rights::READER)
}

/// Who cannot give up all of it does not begin.
fn strictly(rights: &Rights) -> io::Result<()> {
    match rights.give_up().is_empty() {
        true => Ok(()),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// CPU time for a reading, in us: asked for once, when the start is over.
pub(super) fn cpu_limit_us() -> i64 {
    let took_ns = clock::cpu_of(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or(0);
    let start_us = i64::try_from(took_ns / 1000).unwrap_or(i64::MAX);
    start_us
        .saturating_mul(TIMES_START)
        .clamp(CPU_US, MOST_CPU_US)
}

/// Lets the kernel end this process once it has taken so much CPU time, in us; with 0 not
/// any more.
pub(super) fn arm_timer(limit_us: i64) -> io::Result<()> {
    let value = libc::timeval {
        tv_sec: 0,
        tv_usec: limit_us,
    };
    let timer = libc::itimerval {
        it_interval: libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        },
        it_value: value,
    };
    let timer = &raw const timer;
    // SAFETY: the kernel reads the struct, which is ours, and the old one is not asked for.
    let set = unsafe {
        libc::syscall(
            libc::SYS_setitimer,
            libc::ITIMER_PROF,
            timer,
            ptr::null_mut::<libc::itimerval>(),
        )
    };
    checked(set)
}

/// What the opener and the reader do.
fn enclose(name: &CStr, memory: u64) -> io::Result<()> {
    close_all()?;
    // Who runs out of memory shall not take another with it.
    fs::write("/proc/self/oom_score_adj", "1000")?;
    limit(&[
        (libc::RLIMIT_AS, memory),
        (libc::RLIMIT_CPU, LIFE_S),
        (libc::RLIMIT_NOFILE, DESCRIPTORS),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_NPROC, 0),
    ])?;
    call_and_calm(name)
}

fn close_all() -> io::Result<()> {
    // SAFETY: closes descriptors that are not in use: the three that tracer gave remain.
    checked(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) })
}

fn limit(limits: &[(libc::__rlimit_resource_t, u64)]) -> io::Result<()> {
    for &(resource, limit) in limits {
        let limit = libc::rlimit {
            rlim_cur: limit,
            rlim_max: limit,
        };
        // SAFETY: the kernel reads the struct, which is ours.
        checked(unsafe { libc::setrlimit(resource, &raw const limit) }.into())?;
    }
    Ok(())
}

/// Gives this process its name and the usual priority: no memory is locked after an exec,
/// but it is still before others.
fn call_and_calm(name: &CStr) -> io::Result<()> {
    // SAFETY: the name ends with a zero; the other touches no memory.
    unsafe {
        checked(libc::prctl(libc::PR_SET_NAME, name.as_ptr()).into())?;
        checked(libc::setpriority(libc::PRIO_PROCESS, 0, 0).into())
    }
}

/// Ends with tracer, and shows nothing to others of the same user.
fn die_with(parent: i32) -> io::Result<()> {
    // SAFETY: touch no memory.
    unsafe {
        checked(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).into())?;
        checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into())?;
        // It may have ended just before.
        if libc::getppid() != parent {
            return Err(io::ErrorKind::NotConnected.into());
        }
    }
    Ok(())
}
