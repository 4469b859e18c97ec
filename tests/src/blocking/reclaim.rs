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
    schedstat,
    time::{clock_ns, monotonic_ns, wall_ns},
};

use super::must;

const NS_PER_MS: u64 = 1_000_000;
const PAGE: usize = 4096;
const PIECE: usize = 1 << 20;
const SYNCED_MIB: u64 = 4;

/// Writes and reads a file of `mib`, which has no name, in `directory` for `ms`.
///
/// The second line is how many ns that was neither on a CPU nor a wait for one, how many
/// MiB were written, and how many were read.
pub fn reclaim(ms: u64, mib: u64, directory: &str) {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE);
    let file = must("a file", options.open(directory));
    paced(|| {
        let clock = OffCpu::begin();
        say_numbers([0, u64::from(std::process::id()), wall_ns()]);
        let end_ns = clock.began_ns + ms * NS_PER_MS;
        let (written, read) = must("the file", fill(&file, mib, end_ns));
        say_numbers([clock.ns(), written, read]);
    });
}

/// Writes to each page of `mib` of its memory, again and again, for `ms`.
///
/// In a cgroup that may have less, and with a swap area, it waits for pages that
/// come back. Nobody can keep them in memory instead: they are noise, which cannot be
/// compressed; nor read them ahead: each is far from the one before. The second line is
/// how many ns it was neither on a CPU nor waited for one, and how many times it wrote.
pub fn swap(ms: u64, mib: u64) {
    paced(|| {
        let clock = OffCpu::begin();
        let end_ns = clock.began_ns + ms * NS_PER_MS;
        say_numbers([0, u64::from(std::process::id()), wall_ns()]);
        let mut pages = vec![[0_u64; PAGE / 8]; (mib << 20) as usize / PAGE];
        let (mut noise, count) = (1_u64, pages.len());
        let mut writes = 0;
        for page in pages.iter_mut().take_while(|_| monotonic_ns() < end_ns) {
            page.fill_with(|| random(&mut noise));
            writes += 1;
        }
        while monotonic_ns() < end_ns {
            let place = random(&mut noise) as usize % count;
            let page = std::hint::black_box(&mut pages[place]);
            page[0] = page[0].wrapping_add(1);
            writes += 1;
        }
        say_numbers([clock.ns(), writes]);
    });
}

/// The next number of noise (xorshift64).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// How long the calling thread neither ran nor waited for a CPU.
struct OffCpu {
    began_ns: u64,
    spent_ns: u64,
}

impl OffCpu {
    fn begin() -> Self {
        Self {
            spent_ns: spent_ns(),
            began_ns: monotonic_ns(),
        }
    }

    fn ns(&self) -> u64 {
        let took_ns = monotonic_ns() - self.began_ns;
        took_ns.saturating_sub(spent_ns() - self.spent_ns)
    }
}

fn spent_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID) + schedstat::of_thread().1
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
