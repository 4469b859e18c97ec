//! A process that needs more memory than its cgroup may have: it waits for pages
//! to be read (`folio_wait_bit_common`) or written (`folio_wait_writeback`), and
//! for others who reclaim (`reclaim_throttle`).

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
const PAGE: usize = 4096;
const PIECE: usize = 1 << 20;
const SYNCED_MIB: u64 = 4;

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

/// Writes to each page of `mib` of its memory, again and again, for `ms`.
///
/// In a cgroup that may have less, and with a swap area, it waits for pages that
/// come back. The second line is how many ns it was off the CPU, and how many times
/// it wrote.
pub fn swap(ms: u64, mib: u64) {
    paced(|| {
        let cpu_ns = || clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
        let (cpu_before, before) = (cpu_ns(), monotonic_ns());
        let end_ns = before + ms * NS_PER_MS;
        say_numbers([0, u64::from(std::process::id()), wall_ns()]);
        let mut pages = vec![[0_u8; PAGE]; (mib << 20) as usize / PAGE];
        let mut writes = 0;
        while monotonic_ns() < end_ns {
            let until_end = |_: &&mut [u8; PAGE]| monotonic_ns() < end_ns;
            for page in pages.iter_mut().take_while(until_end) {
                let byte = &mut std::hint::black_box(page)[0];
                *byte = byte.wrapping_add(1);
                writes += 1;
            }
        }
        let off_cpu_ns = (monotonic_ns() - before).saturating_sub(cpu_ns() - cpu_before);
        say_numbers([off_cpu_ns, writes]);
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
            // A cgroup of v2 that is full of what cannot be written fast enough has
            // its tasks killed, not made to wait.
            if written % SYNCED_MIB == 0 {
                file.sync_data()?;
            }
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
