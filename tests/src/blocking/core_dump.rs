//! A process that dies with a core dump waits, in D, for its threads to stop.
//!
//! Who dumps waits for them uninterruptibly (`coredump_wait` of the kernel's
//! fs/coredump.c), and one in D cannot stop. Those that have stopped wait until the
//! dump is written: idle, which is no load, or in D before 6.12 and stable kernels
//! of 2026 (`coredump_task_exit` of kernel/exit.c, commit b8e753128ed0).

use std::{
    fs,
    io::{self, Read as _, Write as _},
    process, thread,
};

use crate::{
    pace::{paced, say_numbers},
    time::{eventually, wall_ns},
};

use super::{
    fuse::{Fuse, Held},
    mounts::{self, MOUNT_POINT},
    must, sleep_ms,
    victim::{Victim, is_blocked},
};

/// A process is to dump core while a thread of it waits for a mutex, for `ms`.
///
/// The holder is that thread. The process is said to be blocked from its abort, and
/// until it is dead. No core file is written.
pub fn core_dump(ms: u64) {
    must("a mount namespace", mounts::unshare());
    let (mut dying, mut say) = must("a pipe", io::pipe());
    let mut holder = Victim::fork(|| look_up("slow1"));
    let mut victim = Victim::fork(move || {
        // Too small for a file, and what tells a pipe of core_pattern to do without.
        let limit = libc::rlimit {
            rlim_cur: 1,
            rlim_max: 1,
        };
        // SAFETY: reads the limit.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) };
        thread::spawn(|| look_up("slow2"));
        if eventually(10.0, || blocked_sibling(u64::from(process::id())).is_some()) {
            let _ = say.write_all(&wall_ns().to_ne_bytes());
            process::abort();
        }
    });
    let fuse = must("FUSE", Fuse::mount(Held::LookUps));
    paced(|| {
        holder.go();
        fuse.until_one_is_held();
        victim.go();
        let mut began = [0; 8];
        must("its abort", dying.read_exact(&mut began));
        let began_ns = u64::from_ne_bytes(began);
        victim.until_blocked();
        let sibling = blocked_sibling(victim.pid()).unwrap_or(0);
        say_numbers([sibling, victim.pid(), began_ns]);
        sleep_ms(ms);
        fuse.answer();
        victim.until_dead();
        say_numbers([wall_ns() - began_ns]);
    });
}

/// A process with `threads` more, which sleep, dumps core into a directory of a file
/// system that is frozen by who started this, and thawed later.
///
/// The holder is 0. Then come the process, which waits for the thaw, and its other
/// threads, which wait for the process: idle, or in D (see above). The second line
/// has one time, until the process is dead. Only where core_pattern names a file.
pub fn core_to(directory: &str, threads: u64) {
    let directory = directory.to_owned();
    let mut victim = Victim::fork(move || {
        let limit = libc::rlimit {
            rlim_cur: libc::RLIM_INFINITY,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: reads the limit.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) };
        must("the directory", std::env::set_current_dir(directory));
        for _ in 0..threads {
            thread::spawn(|| sleep_ms(3_600_000));
        }
        process::abort();
    });
    paced(|| {
        victim.block();
        let [pid, began_ns] = victim.begun();
        let all = siblings(pid).flat_map(|tid| [tid, began_ns]);
        say_numbers([0, pid, began_ns].into_iter().chain(all));
        victim.until_dead();
        say_numbers([wall_ns() - began_ns]);
    });
}

fn look_up(name: &str) {
    drop(fs::metadata(format!("{MOUNT_POINT}/{name}")));
}

/// A thread of the process, but not its first, that is in D.
fn blocked_sibling(pid: u64) -> Option<u64> {
    siblings(pid).find(|tid| is_blocked(*tid))
}

/// All threads of a process but its first.
fn siblings(pid: u64) -> impl Iterator<Item = u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    threads
        .into_iter()
        .flatten()
        .filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok())
        .filter(move |tid| *tid != pid)
}
