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

use super::{must, vfork::sleeps};

const NS_PER_MS: u64 = 1_000_000;
const PAGE: usize = 4096;
const PIECE: usize = 1 << 20;
const SYNCED_MIB: u64 = 4;

/// Writes and reads a file of `mib`, which has no name, in `directory` for `ms`.
///
/// The second line is how many ns that was off the CPU, how often it slept, how many MiB
/// were written, and how many were read.
pub fn reclaim(ms: u64, mib: u64, directory: &str) {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE);
    let file = must("a file", options.open(directory));
    paced(|| {
        say_numbers([0, u64::from(std::process::id()), wall_ns()]);
        let clock = OffCpu::begin();
        let end_ns = clock.began_ns + ms * NS_PER_MS;
        let (written, read) = must("the file", fill(&file, mib, end_ns));
        let [off_cpu_ns, slept] = clock.end();
        say_numbers([off_cpu_ns, slept, written, read]);
    });
}

/// Writes to each page of `mib` of its memory, again and again, for `ms`.
///
/// In a cgroup that may have less, and with a swap area, it waits for pages that
/// come back. They are noise, so nobody can keep them in memory instead, compressed. And
/// each comes round as late as can be: of pages in any order the kernel takes many for
/// those that are needed most, has none to give back, and kills. The second line is
/// how many ns it was off the CPU, how often it slept, and how many times it wrote.
pub fn swap(ms: u64, mib: u64) {
    paced(|| {
        say_numbers([0, u64::from(std::process::id()), wall_ns()]);
        let clock = OffCpu::begin();
        let end_ns = clock.began_ns + ms * NS_PER_MS;
        let mut memory = vec![0_u64; (mib << 20) as usize / 8];
        let (mut noise, mut writes) = (1_u64, 0);
        let pages = memory.chunks_mut(PAGE / 8);
        for page in pages.take_while(|_| monotonic_ns() < end_ns) {
            page.fill_with(|| random(&mut noise));
            writes += 1;
        }
        while monotonic_ns() < end_ns {
            let pages = memory.chunks_mut(PAGE / 8);
            for page in pages.take_while(|_| monotonic_ns() < end_ns) {
                let word = &mut std::hint::black_box(page)[0];
                *word = word.wrapping_add(1);
                writes += 1;
            }
        }
        let [off_cpu_ns, slept] = clock.end();
        say_numbers([off_cpu_ns, slept, writes]);
    });
}

/// The next number of noise (xorshift64).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// How long the calling thread does not run, and how often it sleeps meanwhile.
struct OffCpu {
    began_ns: u64,
    cpu_ns: u64,
    sleeps: u64,
}

impl OffCpu {
    fn begin() -> Self {
        Self {
            sleeps: sleeps(),
            cpu_ns: clock_ns(libc::CLOCK_THREAD_CPUTIME_ID),
            began_ns: monotonic_ns(),
        }
    }

    fn end(&self) -> [u64; 2] {
        let took_ns = monotonic_ns() - self.began_ns;
        let ran_ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID) - self.cpu_ns;
        [took_ns.saturating_sub(ran_ns), sleeps() - self.sleeps]
    }
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
