//! Descriptor tables that change all the time.

use std::{fs::File, os::fd::AsRawFd as _, thread};

/// Descriptors that one thread has open at the most.
const MOST: usize = 200;
/// Where a table is made longer, again and again: at 64 a step the kernel makes a new
/// one each time (`alloc_fdtable`, fs/file.c).
const STEP: i32 = 64;

/// Two threads that open and close descriptors for good, in a table that grows from so
/// many descriptors on. They run at nice 10: they would take the CPUs of all others.
pub(super) fn shuffle(from: i32) {
    for thread in 0..2 {
        thread::spawn(move || {
            // SAFETY: touches no memory; on Linux this is the thread's own.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
            let mut at = from;
            loop {
                let files: Vec<_> = (0..MOST)
                    .map_while(|_| File::open("/dev/null").ok())
                    .collect();
                let Some(first) = files.first() else {
                    continue;
                };
                at += STEP;
                // SAFETY: no memory is touched; it is closed at once. Once no more are
                // allowed it fails, and the table has its length.
                unsafe {
                    let copy = libc::fcntl(first.as_raw_fd(), libc::F_DUPFD_CLOEXEC, at);
                    if copy >= 0 {
                        libc::close(copy);
                    }
                }
                if thread == 0 {
                    thread::yield_now();
                }
            }
        });
    }
}
