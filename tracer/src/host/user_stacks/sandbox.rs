//! What the opener and the reader give up before they read anything.
//!
//! The reader keeps nothing but memory, the descriptors that it is sent, and its two
//! channels: whatever runs in it can give wrong names, and use the CPU time and memory
//! of one reading.

use std::{fs, io, ptr};

use crate::clock;

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

/// include/uapi/linux/capability.h: what it takes to read /proc/PID/maps of any process,
/// to follow /proc/PID/root and /proc/PID/map_files, and to open what is there. Before
/// 5.9 the last but one asked for CAP_SYS_ADMIN.
const OPENER_RIGHTS: [u32; 3] = [CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE];
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_CHECKPOINT_RESTORE: u32 = 40;
/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Gives up what the opener does not need.
///
/// # Errors
/// The kernel refuses, or tracer has gone.
pub(super) fn of_opener(parent: i32) -> io::Result<()> {
    enclose(c"tracer-opener", OPENER_MEMORY)?;
    drop_bounding_set()?;
    keep_rights(&OPENER_RIGHTS)?;
    // SAFETY: touches no memory.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    die_with(parent)
}

/// Gives up everything that the reader could give up.
///
/// # Errors
/// As [`of_opener`].
pub(super) fn of_reader(parent: i32) -> io::Result<()> {
    enclose(c"tracer-reader", READER_MEMORY)?;
    // SAFETY: touches no memory.
    checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) }.into())?;
    drop_bounding_set()?;
    // SAFETY: no list is read where its length is 0; the others touch no memory.
    unsafe {
        checked(libc::setgroups(0, ptr::null()).into())?;
        checked(libc::setresgid(NOBODY, NOBODY, NOBODY).into())?;
        checked(libc::setresuid(NOBODY, NOBODY, NOBODY).into())?;
    }
    keep_rights(&[])?;
    // SAFETY: touches no memory.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    // After the change of user, which takes it back.
    die_with(parent)?;
    // A panic's message would be a system call that ends it without.
    std::panic::set_hook(Box::new(|_| {
        // SAFETY: ends the process.
        unsafe { libc::_exit(1) }
    }));
    filter()
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

/// What both do.
fn enclose(name: &std::ffi::CStr, memory: u64) -> io::Result<()> {
    // SAFETY: closes descriptors that are not in use: the three that tracer gave remain.
    checked(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) })?;
    // Who runs out of memory shall not take another with it.
    fs::write("/proc/self/oom_score_adj", "1000")?;
    for (resource, limit) in [
        (libc::RLIMIT_AS, memory),
        (libc::RLIMIT_CPU, LIFE_S),
        (libc::RLIMIT_NOFILE, DESCRIPTORS),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_NPROC, 0),
    ] {
        let limit = libc::rlimit {
            rlim_cur: limit,
            rlim_max: limit,
        };
        // SAFETY: the kernel reads the struct, which is ours.
        checked(unsafe { libc::setrlimit(resource, &raw const limit) }.into())?;
    }
    // SAFETY: the name ends with a zero; the others touch no memory.
    unsafe {
        checked(libc::prctl(libc::PR_SET_NAME, name.as_ptr()).into())?;
        // No memory is locked after an exec, but the process is still before others.
        checked(libc::setpriority(libc::PRIO_PROCESS, 0, 0).into())?;
    }
    Ok(())
}

/// Nothing that is run from here can have more rights.
fn drop_bounding_set() -> io::Result<()> {
    // SAFETY: touches no memory.
    let drop = |right: u32| unsafe { libc::prctl(libc::PR_CAPBSET_DROP, right, 0, 0, 0) };
    // The first that the kernel does not know ends it.
    for right in 0..64 {
        if drop(right) < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EINVAL) if right > CAP_CHECKPOINT_RESTORE => Ok(()),
                _ => Err(error),
            };
        }
    }
    Ok(())
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct CapabilityWords {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Keeps these rights, as far as they are there, and no others.
fn keep_rights(rights: &[u32]) -> io::Result<()> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut words = [CapabilityWords::default(); 2];
    let (header, data) = (&raw mut header, words.as_mut_ptr());
    // SAFETY: version 3 has two of these structs, and they are ours.
    checked(unsafe { libc::syscall(libc::SYS_capget, header, data) })?;
    for (i, word) in words.iter_mut().enumerate() {
        let of_word = rights.iter().filter(|right| **right as usize / 32 == i);
        let mask = of_word.fold(0, |mask, right| mask | 1 << (right % 32));
        word.permitted &= mask;
        word.effective = word.permitted;
        word.inheritable = 0;
    }
    let data = words.as_ptr();
    // SAFETY: as above; the kernel only reads them.
    checked(unsafe { libc::syscall(libc::SYS_capset, header, data) })?;
    let (clear, none) = (libc::PR_CAP_AMBIENT_CLEAR_ALL, 0);
    // SAFETY: touches no memory.
    checked(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, none, none, none) }.into())
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

/// System calls of the reader: packets, descriptors that it was sent, its own memory, its
/// timer, and its end.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_pread64,
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_setitimer,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Where `struct seccomp_data` has what is asked for (include/uapi/linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
/// The low half of an argument; both architectures are little endian.
const fn argument(i: u32) -> u32 {
    16 + 8 * i
}

/// The program, in classic BPF. It looks at the architecture, then at the number. What is
/// in no list ends the process.
fn program() -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUALS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const HAS_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let allow = || step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0);
    let kill = || step(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0);
    let mut steps = vec![
        step(LOAD, ARCHITECTURE_AT, 0, 0),
        step(EQUALS, ARCHITECTURE, 1, 0),
        kill(),
        step(LOAD, NUMBER, 0, 0),
    ];
    for number in ALLOWED {
        steps.extend([step(EQUALS, *number as u32, 0, 1), allow()]);
    }
    // Memory without a file, and none of it is code.
    steps.extend([
        step(EQUALS, libc::SYS_mmap as u32, 0, 6),
        step(LOAD, argument(4), 0, 0),
        step(EQUALS, u32::MAX, 0, 3),
        step(LOAD, argument(2), 0, 0),
        step(HAS_BITS, libc::PROT_EXEC as u32, 1, 0),
        allow(),
        kill(),
        step(EQUALS, libc::SYS_mprotect as u32, 0, 3),
        step(LOAD, argument(2), 0, 0),
        step(HAS_BITS, libc::PROT_EXEC as u32, 1, 0),
        allow(),
        kill(),
    ]);
    steps
}

/// From here on the kernel ends this process at any other system call.
fn filter() -> io::Result<()> {
    let mut steps = program();
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    let (mode, program) = (libc::SECCOMP_MODE_FILTER, &raw const program);
    // SAFETY: the program and its steps are ours, and live until the call returns.
    checked(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, program) }.into())
}

fn checked(returned: libc::c_long) -> io::Result<()> {
    match returned {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{ALLOWED, filter};

    /// How a process ends that makes a system call behind the filter: by the signal, or 0
    /// when it goes on.
    fn signal_of(number: libc::c_long, arguments: [libc::c_long; 6]) -> i32 {
        // SAFETY: the child allocates the filter and makes system calls, nothing else.
        let child = unsafe { libc::fork() };
        assert_ne!(child, -1);
        if child == 0 {
            // SAFETY: the process is to end here, one way or the other.
            unsafe {
                let confined =
                    libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && filter().is_ok();
                if !confined {
                    libc::_exit(1);
                }
                let [a, b, c, d, e, f] = arguments;
                libc::syscall(number, a, b, c, d, e, f);
                libc::_exit(0);
            }
        }
        let mut status = 0;
        // SAFETY: the child is this test's own.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(waited, child);
        assert!(libc::WIFSIGNALED(status) || libc::WEXITSTATUS(status) == 0);
        match libc::WIFSIGNALED(status) {
            true => libc::WTERMSIG(status),
            false => 0,
        }
    }

    #[test]
    fn the_reader_cannot_open_connect_or_run_anything() {
        let path = c"/etc/passwd".as_ptr() as libc::c_long;
        let at_cwd = libc::c_long::from(libc::AT_FDCWD);
        for (what, number, arguments) in [
            ("openat", libc::SYS_openat, [at_cwd, path, 0, 0, 0, 0]),
            ("socket", libc::SYS_socket, [1, 1, 0, 0, 0, 0]),
            ("connect", libc::SYS_connect, [0, path, 16, 0, 0, 0]),
            ("execve", libc::SYS_execve, [path, 0, 0, 0, 0, 0]),
            ("clone", libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
            ("ptrace", libc::SYS_ptrace, [0; 6]),
            ("kill", libc::SYS_kill, [0; 6]),
            ("prctl", libc::SYS_prctl, [0; 6]),
            ("write", libc::SYS_write, [2, path, 1, 0, 0, 0]),
            ("bpf", libc::SYS_bpf, [0; 6]),
            ("io_uring", libc::SYS_io_uring_setup, [0; 6]),
            // Of a file, and code.
            ("mmap of a file", libc::SYS_mmap, [0, 4096, 1, 2, 0, 0]),
            ("mmap of code", libc::SYS_mmap, [0, 4096, 5, 0x22, -1, 0]),
            ("mprotect to code", libc::SYS_mprotect, [0, 0, 5, 0, 0, 0]),
        ] {
            assert_eq!(signal_of(number, arguments), libc::SIGSYS, "{what}");
        }
    }

    #[test]
    fn the_reader_can_read_and_have_memory() {
        for (what, number, arguments) in [
            ("pread", libc::SYS_pread64, [-1, 0, 0, 0, 0, 0]),
            ("mmap", libc::SYS_mmap, [0, 4096, 3, 0x22, -1, 0]),
            ("close", libc::SYS_close, [-1, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(signal_of(number, arguments), 0, "{what}");
        }
        assert!(!ALLOWED.contains(&libc::SYS_open_by_handle_at));
    }
}
