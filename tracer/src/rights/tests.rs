//! What a filter refuses, asked of the kernel: each call is made by a child that has it.

use std::{fs, io};

use super::{
    READER, TABLE, attached, calls,
    capabilities::mask_of,
    landlock,
    seccomp::{self, Filter},
};

const AT_CWD: libc::c_long = libc::AT_FDCWD as libc::c_long;
const TO_WRITE: libc::c_long = libc::O_WRONLY as libc::c_long;

/// How a call came out in a child.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Error(i32),
    Signal(i32),
}

const REFUSED: Outcome = Outcome::Error(libc::EPERM);
const UNKNOWN: Outcome = Outcome::Error(libc::ENOSYS);
const ENDED: Outcome = Outcome::Signal(libc::SIGSYS);

/// Does something in a child; how it ended, with the number that it gave.
fn in_child(act: impl FnOnce() -> i32) -> Outcome {
    // SAFETY: the child allocates a filter and makes system calls, nothing else.
    let child = unsafe { libc::fork() };
    assert_ne!(child, -1);
    if child == 0 {
        // SAFETY: the process is to end here, one way or the other.
        unsafe { libc::_exit(act()) };
    }
    let mut status = 0;
    // SAFETY: the child is this test's own.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    match (libc::WIFSIGNALED(status), libc::WEXITSTATUS(status)) {
        (true, _) => Outcome::Signal(libc::WTERMSIG(status)),
        (false, 0) => Outcome::Done,
        (false, error) => Outcome::Error(error),
    }
}

/// A call behind filters, in the order in which they are put in force.
fn behind(
    filters: &[fn() -> Filter],
    number: libc::c_long,
    arguments: [libc::c_long; 6],
) -> Outcome {
    in_child(|| {
        let is_confined = seccomp::no_new_privs().is_ok()
            && filters.iter().all(|filter| filter().install().is_ok());
        if !is_confined {
            return 255;
        }
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: as the tests give them, no call changes memory that is not its own.
        match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
            -1 => io::Error::last_os_error().raw_os_error().unwrap_or(254),
            _ => 0,
        }
    })
}

/// Calls that no process of tracer's may make, with arguments that do nothing where they
/// are allowed.
fn of_nobody() -> Vec<(&'static str, libc::c_long, [libc::c_long; 6])> {
    let none = [-1, -1, -1, -1, -1, -1];
    vec![
        ("ptrace", libc::SYS_ptrace, none),
        ("process_vm_writev", libc::SYS_process_vm_writev, none),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, none),
        ("mount", libc::SYS_mount, none),
        ("move_mount", libc::SYS_move_mount, none),
        ("unshare", libc::SYS_unshare, none),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, none),
        ("finit_module", libc::SYS_finit_module, none),
        ("kexec_load", libc::SYS_kexec_load, none),
        ("reboot", libc::SYS_reboot, none),
        ("keyctl", libc::SYS_keyctl, none),
        ("io_uring_setup", libc::SYS_io_uring_setup, none),
        ("userfaultfd", libc::SYS_userfaultfd, none),
        (
            "TIOCSTI",
            libc::SYS_ioctl,
            [-1, libc::TIOCSTI as _, 0, 0, 0, 0],
        ),
    ]
}

#[test]
fn nothing_of_tracer_controls_the_host() {
    let filters = [calls::watch, calls::check, calls::check_files];
    for filter in filters.into_iter().chain([calls::doctor, calls::launcher]) {
        for (what, number, arguments) in of_nobody() {
            assert_eq!(behind(&[filter], number, arguments), REFUSED, "{what}");
        }
        // A call that only newer kernels have, and the same calls by x32's numbers.
        for number in [libc::SYS_mseal + 1, 0x4000_0000] {
            assert_eq!(behind(&[filter], number, [0; 6]), UNKNOWN, "{number}");
        }
    }
}

/// What only the filter refuses: without it these end otherwise.
#[test]
fn without_a_filter_they_are_not_refused() {
    for (what, number, arguments) in [
        ("tgkill", libc::SYS_tgkill, [-1, -1, 0, 0, 0, 0]),
        ("socket", libc::SYS_socket, [1, 1, 0, 0, 0, 0]),
        ("execve", libc::SYS_execve, [0, 0, 0, 0, 0, 0]),
        ("mkdirat", libc::SYS_mkdirat, [-1, 0, 0, 0, 0, 0]),
    ] {
        assert_ne!(behind(&[], number, arguments), REFUSED, "{what}");
        assert_eq!(
            behind(&[calls::watch], number, arguments),
            REFUSED,
            "{what}"
        );
    }
}

#[test]
fn who_watches_changes_no_file_and_starts_no_process() {
    let path = c"/dev/null".as_ptr() as libc::c_long;
    let inet = libc::AF_INET as libc::c_long;
    for (what, number, arguments) in [
        (
            "to write",
            libc::SYS_openat,
            [AT_CWD, path, TO_WRITE, 0, 0, 0],
        ),
        ("to both", libc::SYS_openat, [AT_CWD, path, 2, 0, 0, 0]),
        ("O_CREAT", libc::SYS_openat, [AT_CWD, path, 0o100, 0, 0, 0]),
        ("unlinkat", libc::SYS_unlinkat, [-1, 0, 0, 0, 0, 0]),
        ("fchmod", libc::SYS_fchmod, [-1, 0, 0, 0, 0, 0]),
        ("execve", libc::SYS_execve, [0; 6]),
        ("clone", libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
        ("kill", libc::SYS_kill, [0, 0, 0, 0, 0, 0]),
        ("inet", libc::SYS_socket, [inet, 1, 0, 0, 0, 0]),
        ("connect", libc::SYS_connect, [-1, 0, 0, 0, 0, 0]),
        (
            "setns",
            libc::SYS_setns,
            [-1, libc::CLONE_NEWNS as _, 0, 0, 0, 0],
        ),
        ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0, 0]),
        ("setuid", libc::SYS_setuid, [0; 6]),
        (
            "prlimit of another",
            libc::SYS_prlimit64,
            [1, 0, 0, 0, 0, 0],
        ),
        ("setpriority", libc::SYS_setpriority, [9, 0, 0, 0, 0, 0]),
        ("F_SETSIG", libc::SYS_fcntl, [-1, 10, 0, 0, 0, 0]),
        ("SIOCSPGRP", libc::SYS_ioctl, [-1, 0x8902, 0, 0, 0, 0]),
    ] {
        assert_eq!(
            behind(&[calls::watch], number, arguments),
            REFUSED,
            "{what}"
        );
    }
    let bad = Outcome::Error(libc::EBADF);
    let net = libc::CLONE_NEWNET as libc::c_long;
    for (what, number, arguments, outcome) in [
        (
            "to read",
            libc::SYS_openat,
            [AT_CWD, path, 0, 0, 0, 0],
            Outcome::Done,
        ),
        (
            "netlink",
            libc::SYS_socket,
            [16, 3, 0, 0, 0, 0],
            Outcome::Done,
        ),
        ("setns", libc::SYS_setns, [-1, net, 0, 0, 0, 0], bad),
        ("own prlimit", libc::SYS_prlimit64, [0; 6], Outcome::Done),
        ("clone3", libc::SYS_clone3, [0; 6], UNKNOWN),
        ("openat2", libc::SYS_openat2, [0; 6], UNKNOWN),
    ] {
        assert_eq!(
            behind(&[calls::watch], number, arguments),
            outcome,
            "{what}"
        );
    }
    // Threads start all the same.
    let thread = || {
        i32::from(calls::watch().install().is_err() || std::thread::spawn(|| ()).join().is_err())
    };
    let started = in_child(|| i32::from(seccomp::no_new_privs().is_err()) + thread());
    assert_eq!(started, Outcome::Done);
}

#[test]
fn nothing_is_loaded_once_everything_is_attached() {
    let filters: [fn() -> Filter; 2] = [calls::watch, calls::attached];
    for command in [0, 5, 6, 8, 10, 13, 18] {
        let call =
            |filters: &[fn() -> Filter]| behind(filters, libc::SYS_bpf, [command, 0, 0, 0, 0, 0]);
        assert_eq!(call(&filters), REFUSED, "{command}");
    }
    let lookup = behind(&filters, libc::SYS_bpf, [1, 0, 0, 0, 0, 0]);
    assert_eq!(lookup, behind(&[], libc::SYS_bpf, [1, 0, 0, 0, 0, 0]));
    let perf = behind(&filters, libc::SYS_perf_event_open, [0; 6]);
    assert_eq!(perf, REFUSED);
}

#[test]
fn the_opener_cannot_write_run_or_signal() {
    let filters: [fn() -> Filter; 2] = [calls::launcher, calls::opener];
    let path = c"/dev/null".as_ptr() as libc::c_long;
    for (what, number, arguments) in of_nobody().into_iter().chain([
        (
            "to write",
            libc::SYS_openat,
            [AT_CWD, path, TO_WRITE, 0, 0, 0],
        ),
        ("write", libc::SYS_write, [-1, 0, 0, 0, 0, 0]),
        ("ftruncate", libc::SYS_ftruncate, [-1, 0, 0, 0, 0, 0]),
        ("execve", libc::SYS_execve, [0; 6]),
        ("clone", libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
        ("kill", libc::SYS_kill, [0; 6]),
        ("socket", libc::SYS_socket, [16, 3, 0, 0, 0, 0]),
        ("setfsuid", libc::SYS_setfsuid, [0; 6]),
        ("bpf", libc::SYS_bpf, [1, 0, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [-1; 6]),
    ]) {
        assert_eq!(behind(&filters, number, arguments), REFUSED, "{what}");
    }
    let opened = behind(&filters, libc::SYS_openat, [AT_CWD, path, 0, 0, 0, 0]);
    assert_eq!(opened, Outcome::Done);
}

#[test]
fn the_reader_cannot_open_connect_or_run_anything() {
    let path = c"/etc/passwd".as_ptr() as libc::c_long;
    for (what, number, arguments) in [
        ("openat", libc::SYS_openat, [AT_CWD, path, 0, 0, 0, 0]),
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
        assert_eq!(behind(&[calls::reader], number, arguments), ENDED, "{what}");
    }
    let bad = Outcome::Error(libc::EBADF);
    for (what, number, arguments, outcome) in [
        ("pread", libc::SYS_pread64, [-1, 0, 0, 0, 0, 0], &bad),
        (
            "mmap",
            libc::SYS_mmap,
            [0, 4096, 3, 0x22, -1, 0],
            &Outcome::Done,
        ),
        ("close", libc::SYS_close, [-1, 0, 0, 0, 0, 0], &bad),
    ] {
        assert_eq!(
            behind(&[calls::reader], number, arguments),
            *outcome,
            "{what}"
        );
    }
}

/// By the kernel's own account. Without rights there are none to keep, and the bounding
/// set stays, which is of no use then. The reader cannot read its account: the live tests do.
#[test]
fn each_row_keeps_what_it_says_and_no_more() {
    let before = fs::read_to_string("/proc/self/status").expect("a status");
    let had = mask_of(&before, "CapPrm:");
    for rights in TABLE.into_iter().filter(|row| row.of != READER.of) {
        let wanted = rights.keeps.iter().fold(0, |mask, one| mask | 1 << one.bit);
        let in_bounding_set = if rights.runs_programs { wanted } else { 0 };
        let outcome = in_child(|| {
            let kept = rights.give_up();
            let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
            let is = |key: &str, mask: u64| mask_of(&status, key) == mask;
            first_that_is_not(&[
                kept.is_empty(),
                is("CapEff:", wanted & had),
                is("CapPrm:", wanted & had),
                is("CapInh:", 0),
                is("CapAmb:", 0),
                had == 0 || is("CapBnd:", in_bounding_set & had),
                is("NoNewPrivs:", 1),
                is("Seccomp:", 2),
            ])
        });
        assert_eq!(outcome, Outcome::Done, "{}", rights.of);
    }
}

/// Its place, from 1 on; 0 when all are so.
fn first_that_is_not(facts: &[bool]) -> i32 {
    let at = facts.iter().position(|is_so| !is_so);
    at.map_or(0, |at| at as i32 + 1)
}

#[test]
fn landlock_refuses_what_root_may() {
    if landlock::abi() == 0 {
        return println!("SKIPPED landlock_refuses_what_root_may: this kernel has none");
    }
    let path = std::env::temp_dir().join(format!("tracer-landlock-{}", std::process::id()));
    fs::write(&path, "before").expect("a file");
    let outcome = in_child(|| {
        let is_in_force = seccomp::no_new_privs()
            .and_then(|()| landlock::Landlock::Changes.put_in_force())
            .is_ok();
        let facts = [
            is_in_force,
            fs::write(&path, "after").is_err(),
            fs::remove_file(&path).is_err(),
            fs::read(&path).is_ok(),
            landlock::Landlock::All.put_in_force().is_ok(),
            fs::read(&path).is_err(),
        ];
        first_that_is_not(&facts)
    });
    let left = fs::read_to_string(&path).expect("it is there");
    fs::remove_file(&path).expect("it is ours");
    assert_eq!((outcome, left.as_str()), (Outcome::Done, "before"));
}

#[test]
fn every_capability_has_a_reason_and_a_place() {
    for rights in TABLE {
        for (i, one) in rights.keeps.iter().enumerate() {
            assert!(!one.why.is_empty() && one.bit <= 40, "{}", one.name);
            assert!(rights.keeps[..i].iter().all(|before| before.bit < one.bit));
        }
    }
    // For all threads of this process: it must not be this one.
    assert_eq!(
        in_child(|| i32::from(seccomp::no_new_privs().is_err() || attached().is_some())),
        Outcome::Done
    );
}
