//! Workloads that do one small thing as often as they can, for a given time.
//!
//! What slows the whole system down shows in how often they get through. Each
//! function works for `ms` and returns how many of its things were done. What
//! wakes each other stays on one CPU: where the scheduler puts such tasks changes
//! the figure more than any tool does (seven times, for round trips).

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    thread,
};

use crate::time::monotonic_ns;

const NS_PER_MS: u64 = 1_000_000;
/// What a direct write must be aligned to, on any block device.
const BLOCK_BYTES: usize = 4096;

/// A byte goes to another process and back, both on one CPU: two context
/// switches and two wakings a round trip, and nothing else worth naming.
///
/// # Errors
/// There are no pipes or no processes to be had, or the other one died.
pub fn round_trips(ms: u64) -> io::Result<u64> {
    stay_on_one_cpu()?;
    let (mut from_parent, mut to_child) = io::pipe()?;
    let (mut from_child, mut to_parent) = io::pipe()?;
    // SAFETY: there is one thread, and the child only reads and writes.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop((to_child, from_child));
        let mut byte = [0];
        while from_parent.read_exact(&mut byte).is_ok() && to_parent.write_all(&byte).is_ok() {}
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    drop((from_parent, to_parent));
    let count = repeat(ms, 16, || {
        to_child.write_all(&[0])?;
        from_child.read_exact(&mut [0])
    });
    drop(to_child);
    reap(child);
    count
}

/// Processes that are made, exit at once and are waited for.
///
/// # Errors
/// A process cannot be made.
pub fn processes(ms: u64) -> io::Result<u64> {
    stay_on_one_cpu()?;
    repeat(ms, 1, || {
        // SAFETY: there is one thread, and the child only exits.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: ends the child at once.
            0 => unsafe { libc::_exit(0) },
            child => {
                reap(child);
                Ok(())
            }
        }
    })
}

/// Signals that a process sends itself and ignores.
///
/// # Errors
/// A signal cannot be sent.
pub fn signals(ms: u64) -> io::Result<u64> {
    stay_on_one_cpu()?;
    // SAFETY: no handler runs, and no memory is touched.
    unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
    repeat(ms, 64, || {
        // SAFETY: as above.
        match unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })
}

/// TCP connections over loopback: connected, accepted, closed by both sides.
///
/// # Errors
/// Loopback is not up, or a connection fails.
pub fn connections(ms: u64) -> io::Result<u64> {
    stay_on_one_cpu()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    // This side closes first, and at once.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            drop(stream);
        }
    });
    repeat(ms, 1, || {
        let mut stream = TcpStream::connect(address)?;
        // A reset ends it: there are ports for some thirty thousand connections
        // in TIME_WAIT only.
        linger_zero(&stream)?;
        stream.read(&mut [0]).map(drop)
    })
}

/// Blocks written past the page cache, one at a time, into a file of their own.
///
/// # Errors
/// The file system has no direct writes, or no room.
pub fn writes(ms: u64) -> io::Result<u64> {
    let path = std::env::temp_dir().join(format!("tracer-bench-{}", std::process::id()));
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)?;
    // It has no name from here on, so nothing is left behind.
    std::fs::remove_file(&path)?;
    let bytes = vec![0_u8; 2 * BLOCK_BYTES];
    let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
    let block = bytes.get(start..start + BLOCK_BYTES).unwrap_or_default();
    repeat(ms, 1, || file.write_all_at(block, 0))
}

/// Does it until the time is over; the clock is asked every `stride` times.
fn repeat(ms: u64, stride: u64, mut once: impl FnMut() -> io::Result<()>) -> io::Result<u64> {
    let end = monotonic_ns() + ms * NS_PER_MS;
    let mut count = 0;
    while monotonic_ns() < end {
        for _ in 0..stride {
            once()?;
        }
        count += stride;
    }
    Ok(count)
}

/// Keeps this process, and those it makes, on the last CPU that it may use: the
/// first ones have the more interrupts.
fn stay_on_one_cpu() -> io::Result<()> {
    // SAFETY: an all-zero set is an empty one; the calls fill or read sets that
    // are ours, of the size that is given.
    let done = unsafe {
        let size = size_of::<libc::cpu_set_t>();
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        let mut last: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size, &raw mut allowed);
        let cpus = 0..libc::CPU_SETSIZE as usize;
        let cpu = cpus.rev().find(|&cpu| libc::CPU_ISSET(cpu, &allowed));
        libc::CPU_SET(cpu.unwrap_or(0), &mut last);
        libc::sched_setaffinity(0, size, &raw const last)
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn linger_zero(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the option is read from our memory, whose size is given.
    let done = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn reap(child: libc::pid_t) {
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}
