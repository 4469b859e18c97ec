//! A process that needs more of the page cache than its cgroup may have.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
};

use crate::{
    pace::{paced, say_numbers},
    time::{clock_ns, monotonic_ns, wall_ns},
};

use super::must;

const NS_PER_MS: u64 = 1_000_000;
const PIECE: usize = 1 << 20;

/// Writes and reads a file of `mib`, which has no name, in `directory` for `ms`.
///
/// The second line is how many ns that was off the CPU, how many MiB were written,
/// and how many were read.
pub fn reclaim(ms: u64, mib: u64, directory: &str) {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE);
    let file = must("a file", options.open(directory));
    paced(|| {
        let cpu_ns = || clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
        let (cpu_before, before) = (cpu_ns(), monotonic_ns());
        say_numbers([0, u64::from(std::process::id()), wall_ns()]);
        let (written, read) = must("the file", fill(&file, mib, before + ms * NS_PER_MS));
        let off_cpu_ns = (monotonic_ns() - before).saturating_sub(cpu_ns() - cpu_before);
        say_numbers([off_cpu_ns, written, read]);
    });
}

fn fill(file: &File, mib: u64, end_ns: u64) -> io::Result<(u64, u64)> {
    let mut piece = vec![1; PIECE];
    let (mut written, mut read) = (0, 0);
    loop {
        for i in 0..mib {
            if monotonic_ns() >= end_ns {
                return Ok((written, read));
            }
            file.write_all_at(&piece, i << 20)?;
            written += 1;
        }
        for i in 0..mib {
            if monotonic_ns() >= end_ns {
                return Ok((written, read));
            }
            file.read_exact_at(&mut piece, i << 20)?;
            read += 1;
        }
    }
}
