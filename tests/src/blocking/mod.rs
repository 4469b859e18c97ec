//! Workloads whose tasks block in D for a known reason and a known time.
//!
//! Each says two lines between its begin and `done`. The first, as soon as its
//! tasks are blocked: `HOLDER TASK BEGAN_NS [TASK BEGAN_NS]..`, who is waited for
//! (a tid, or 0 when nobody holds anything), then each task that blocks with the
//! wall clock in ns at which it went into the call that blocks. The second, when
//! it is over: `TOOK_NS..`, how long each of these tasks, in the same order, was in
//! that call by its own clock. What differs is said at the workload.
//!
//! All that a workload sets up goes with its process, also if that is killed:
//! mounts are in a mount namespace of its own, images in memory, and its children
//! die with it.

mod core_dump;
mod disk;
mod frozen;
mod fuse;
mod fuse_locks;
mod mmap_lock;
mod mounts;
mod reclaim;
mod stopped_fuse;
mod userfault;
mod vfork;
mod victim;

pub use core_dump::{core_dump, core_to};
pub use disk::{disk, filesystem, swap_area};
pub use frozen::frozen;
pub use fuse_locks::{chain, deep_chain, mutex, read, rwsem, statfs};
pub use mmap_lock::mmap_lock;
pub use reclaim::{reclaim, swap};
pub use stopped_fuse::StoppedFuse;
pub use userfault::userfault;
pub use vfork::{Blocked, block, block_and_measure, storm};

use std::{io, thread, time::Duration};

/// Takes a result that only a broken machine can make an error.
#[track_caller]
fn must<T>(what: &str, result: io::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// What a system call returned, or its error.
fn checked(returned: i32) -> io::Result<i32> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}

fn sleep_ms(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}
