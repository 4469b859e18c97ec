//! A process that forks holds its mmap_lock for as long as it copies page tables.

use std::{io, ptr, sync::mpsc, thread};

use crate::{
    affinity,
    pace::{paced, say_numbers},
    schedstat,
    time::{clock_ns, monotonic_ns, wall_ns},
};

use super::{checked, must};

const NS_PER_MS: u64 = 1_000_000;
const PAGE: usize = 4096;
/// Who waits for the lock longer than this is said to have been blocked.
const LONG_NS: u64 = NS_PER_MS;

/// Forks for `ms` from a process with `mib` of mapped memory, while another thread
/// maps and unmaps a page.
///
/// The memory is the zero page, mapped again and again: it costs its page tables
/// alone, 2 KiB a MiB. The second line is how long the other thread was off the CPU
/// in all, without what it waited for one; how many of its calls were off it for more
/// than 1 ms, and how long these were in sum; how many forks there were, how long
/// these took, and how long the forking thread was off the CPU in them, without what it
/// waited for one: the other thread has the lock, too, and may wait for a CPU with it.
/// The last is how long the other thread waited for a CPU, by the kernel.
pub fn mmap_lock(ms: u64, mib: u64) {
    must("memory to fork", populate((mib as usize) << 20));
    paced(|| {
        let began_ns = wall_ns();
        let end_ns = monotonic_ns() + ms * NS_PER_MS;
        let (sender, tid) = mpsc::channel();
        let mapper = thread::spawn(move || {
            // Its clock runs before the first fork, which it may wait for anywhere.
            map_until(end_ns, || {
                // SAFETY: touches no memory.
                let _ = sender.send(unsafe { libc::gettid() });
            })
        });
        let tid = tid.recv().map_or(0, i32::unsigned_abs);
        say_numbers([u64::from(std::process::id()), u64::from(tid), began_ns]);
        // Its wait for a CPU is taken off below.
        affinity::stay();
        let (mut forks, mut fork_ns, mut off_cpu_ns) = (0, 0, 0);
        while monotonic_ns() < end_ns {
            let (spent_before, before) = (spent_ns(), monotonic_ns());
            let child = fork();
            let took_ns = monotonic_ns() - before;
            off_cpu_ns += took_ns.saturating_sub(spent_ns() - spent_before);
            fork_ns += took_ns;
            forks += 1;
            // SAFETY: reaps the child; no status is asked for.
            unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
        }
        let mapped = mapper.join().expect("the other thread");
        let of_mapper = [mapped.off_cpu_ns, mapped.long, mapped.long_ns];
        let of_forks = [forks, fork_ns, off_cpu_ns, mapped.waited_ns];
        say_numbers(of_mapper.into_iter().chain(of_forks));
    });
}

/// What the calling thread ran and waited for a CPU.
fn spent_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID) + schedstat::of_thread().1
}

#[derive(Default)]
struct Mapped {
    off_cpu_ns: u64,
    long: u64,
    long_ns: u64,
    waited_ns: u64,
}

fn map_until(end_ns: u64, begins: impl FnOnce()) -> Mapped {
    // Its wait for a CPU is taken off below.
    affinity::stay();
    let mut sum = Mapped::default();
    let cpu_ns = || clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
    let waited_ns = || schedstat::of_thread().1;
    let waited_at_begin = waited_ns();
    let (spent_at_begin, begin) = (spent_ns(), monotonic_ns());
    begins();
    while monotonic_ns() < end_ns {
        let (cpu_before, before) = (cpu_ns(), monotonic_ns());
        // SAFETY: maps and unmaps a page that nobody else knows.
        unsafe {
            let page = anonymous(PAGE);
            libc::munmap(page, PAGE);
        }
        let off_cpu_ns = (monotonic_ns() - before).saturating_sub(cpu_ns() - cpu_before);
        if off_cpu_ns > LONG_NS {
            sum.long += 1;
            sum.long_ns += off_cpu_ns;
        }
    }
    // Of the whole, since its page faults wait for the lock, too.
    let spent = spent_ns() - spent_at_begin;
    sum.off_cpu_ns = (monotonic_ns() - begin).saturating_sub(spent);
    sum.waited_ns = waited_ns() - waited_at_begin;
    sum
}

/// One fork, whose child ends at once.
fn fork() -> i32 {
    // SAFETY: the child ends at once.
    let child = unsafe { libc::syscall(libc::SYS_fork) };
    if child == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    child as i32
}

fn populate(bytes: usize) -> io::Result<()> {
    // SAFETY: the mapping is new; one byte of it is written, so that the kernel
    // copies its page tables at a fork (`vma_needs_copy`).
    unsafe {
        let memory = anonymous(bytes);
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let _ = libc::madvise(memory, bytes, libc::MADV_NOHUGEPAGE);
        checked(libc::madvise(memory, bytes, libc::MADV_POPULATE_READ))?;
        memory.cast::<u8>().write_volatile(1);
    }
    Ok(())
}

unsafe fn anonymous(bytes: usize) -> *mut libc::c_void {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, wherever there is room for it.
    unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) }
}
