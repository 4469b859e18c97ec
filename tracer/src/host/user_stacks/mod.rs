//! The functions of a process's user stack, read by processes that have little to lose.
//!
//! To name a stack, files are read that any user can have made. tracer itself reads none
//! of them. It runs its own program thrice more, with a hidden first argument:
//!
//! - the *launcher* (`launcher`) starts the other two and ends them. tracer starts it
//!   before it gives up root's rights, and asks it for as long as it runs;
//! - the *opener* (`opener`) reads /proc/PID/maps and opens what is needed. It keeps
//!   the rights for that and no others, and can be killed when an open hangs;
//! - the *reader* (`reader`) gets the descriptors, unwinds and finds names. It is
//!   user 65534, has no rights, and may use a handful of system calls (`sandbox`).
//!
//! [`Client`] is tracer's side: one reading at a time, at most a second each. What the
//! reader answers is foreign bytes.

mod cache;
mod channel;
mod client;
mod demangle;
mod elf;
mod known;
mod launcher;
mod maps;
mod opener;
mod perf_map;
mod protocol;
mod reader;
mod sandbox;
mod unwind;

use std::process::ExitCode;

pub(crate) use client::cpu_ns;
pub use client::{Client, Named};
pub use launcher::Launcher;

/// Frames of a stack.
const FRAMES: usize = 32;
/// Bytes of a function's name, with the mark where it was cut.
const NAME_BYTES: usize = 256;
/// CPU time that each of the two processes may take for one reading, in us. The kernel
/// ends one that takes more.
const CPU_US: i64 = 80_000;
/// Where a CPU is slow, as an emulated one, it is so many times what the start took, up to
/// the second.
const TIMES_START: i64 = 8;
const MOST_CPU_US: i64 = 800_000;

/// What the program was asked to be, by its hidden first argument. `None`: tracer.
pub fn run_if_asked() -> Option<ExitCode> {
    // Other arguments are clap's, and need not be UTF-8.
    let mut words = std::env::args_os().skip(1);
    let role = words.next()?;
    let parent = words.next();
    let parent = parent.and_then(|word| word.to_str()?.parse().ok());
    let parent = parent.unwrap_or_default();
    let done = match role.to_str()? {
        launcher::LAUNCHER => sandbox::of_launcher(parent).and_then(|()| launcher::serve()),
        client::OPENER => sandbox::of_opener(parent).and_then(|()| opener::serve()),
        client::READER => sandbox::of_reader(parent).and_then(|()| reader::serve()),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}
