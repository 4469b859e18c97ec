//! Processes with much memory.

use std::{fs, hint::black_box, io, ptr, thread, time::Duration};

use crate::pace::{paced, say};

/// Threads that a process of many has.
const THREADS: usize = 16;
/// Room for what the twin does.
const STACK_BYTES: usize = 64 << 10;

/// Takes so many MiB of memory, for good.
pub fn eat(mib: u64) {
    // Piece by piece: the kernel refuses at once what it could never give.
    let memory: Vec<Vec<u8>> = (0..mib).map(|_| vec![1; 1 << 20]).collect();
    black_box(memory.leak());
}

/// `eat-threads MIB`: the same, in a process of many threads.
pub fn of_threads(mib: u64) {
    for _ in 0..THREADS {
        thread::spawn(|| {
            loop {
                thread::sleep(Duration::from_secs(3600));
            }
        });
    }
    paced(|| eat(mib));
}

/// `eat-and-write MIB PATH`: the same, says `eaten`, then writes to a new file.
pub fn and_write(mib: u64, path: &str) {
    paced(|| {
        eat(mib);
        say("eaten");
        fs::write(path, "x").expect("a file");
    });
}

/// `eat-shared MIB`: the same, with a second process that shares the memory and is no
/// thread; it says its process id first.
pub fn shared(mib: u64) {
    let stack = vec![0_u8; STACK_BYTES].leak();
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack is as large as it says and lives for good, and what runs on it
    // touches no memory but its own. It goes with its parent.
    let pid = unsafe {
        let flags = libc::CLONE_VM | libc::SIGCHLD;
        libc::clone(sleep, top.cast(), flags, ptr::null_mut())
    };
    assert!(pid > 0, "clone: {}", io::Error::last_os_error());
    paced(|| {
        say(&pid.to_string());
        eat(mib);
    });
    // SAFETY: touches no memory.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

extern "C" fn sleep(_: *mut libc::c_void) -> i32 {
    // SAFETY: touches no memory.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}

/// `eat-of-node MIB NODE`: the same, of the memory of one node alone.
pub fn of_node(mib: u64, node: u32) {
    let nodes: u64 = 1 << node;
    // SAFETY: a mask of as many bits as it says; the kernel takes one less.
    let result = unsafe {
        let (mode, bits) = (libc::MPOL_BIND, u64::BITS + 1);
        libc::syscall(libc::SYS_set_mempolicy, mode, &raw const nodes, bits)
    };
    assert_eq!(result, 0, "set_mempolicy: {}", io::Error::last_os_error());
    paced(|| eat(mib));
}
