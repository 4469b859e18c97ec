//! Readers of `tracer check`: procfs, sysfs, netlink. What goes away while it is read is
//! no error.

pub(super) mod cpu;
pub(super) mod deleted;
pub(super) mod descriptors;
pub(super) mod disks;
pub(super) mod diskstats;
pub(super) mod du;
pub(super) mod files;
pub(super) mod kernel;
pub(super) mod memory;
pub(super) mod network;
pub(super) mod owners;
pub(super) mod pids;
pub(super) mod pids_cgroups;
mod ports;
pub(super) mod processes;
pub(super) mod sockets;
pub(super) mod statfs;
pub(super) mod throttled;

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

/// Runs something that may hang on a thread of its own, and waits for so long.
///
/// # Errors
/// It has not answered in time; the thread is left behind.
pub(super) fn within<T: Send + 'static>(
    time: Duration,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RecvTimeoutError> {
    let (answer, answers) = mpsc::channel();
    thread::spawn(move || answer.send(read()));
    answers.recv_timeout(time)
}
