//! Parents of vfork, who wait in D until their child ends: `kernel_clone`.

use std::{ffi::c_void, io, ptr, thread};

use crate::{
    pace::{paced, say_numbers},
    schedstat,
    time::{clock_ns, monotonic_ns, wall_ns},
};

const NS_PER_MS: u64 = 1_000_000;
const STACK: usize = 64 << 10;

/// Blocks for so many ms: until a child, which sleeps, ends.
pub fn block(ms: u64) {
    reap(vfork(&mut vec![0; STACK], ms));
}

/// What the calls of a thread that blocked came to, by its own clock and the kernel's
/// figures of it.
#[derive(Clone, Debug, Default)]
pub struct Blocked {
    /// How often it slept: a child that has ended before its parent comes to wait for it
    /// is not slept for.
    pub slept: u64,
    /// For how long it waited for a CPU, in ns. From 6.12 that may have some of a sleep.
    pub waited_ns: u64,
    /// For how long it neither ran nor waited for a CPU, in ns, each time.
    pub lengths_ns: Vec<u64>,
}

/// The same as [`block`], measured.
pub fn block_and_measure(ms: u64, sum: &mut Blocked) {
    let cpu_ns = || clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
    let waited_ns = || schedstat::of_thread().1;
    let mut stack = vec![0; STACK];
    let (slept, waited) = (sleeps(), waited_ns());
    let (ran, began) = (cpu_ns(), monotonic_ns());
    let child = vfork(&mut stack, ms);
    let (took, ran) = (monotonic_ns() - began, cpu_ns() - ran);
    let (slept, waited) = (sleeps() - slept, waited_ns() - waited);
    sum.slept += slept;
    sum.waited_ns += waited;
    sum.lengths_ns.push(took.saturating_sub(ran + waited));
    // Its child is not gone yet; this wait for it is not uninterruptible.
    reap(child);
}

/// Threads that vfork children, which end at once, as fast as they can for `ms`.
/// Its second line is how often each slept for one, as the kernel counts it, and
/// then how many children there were: a child that is faster than its parent is not
/// slept for. They live on: what is known of a thread that ends can be lost in a storm.
pub fn storm(threads: u64, ms: u64) {
    paced(|| {
        let began_ns = wall_ns();
        let end = monotonic_ns() + ms * NS_PER_MS;
        let (sender, tids) = std::sync::mpsc::channel();
        let (counted, counts) = std::sync::mpsc::channel();
        let all = (0..threads)
            .map(|_| {
                let (sender, counted) = (sender.clone(), counted.clone());
                let work = move || {
                    // SAFETY: touches no memory.
                    let _ = sender.send(unsafe { libc::gettid() });
                    let mut stack = vec![0; STACK];
                    let (mut slept, mut count) = (0, 0);
                    while monotonic_ns() < end {
                        let before = sleeps();
                        let child = vfork(&mut stack, 0);
                        // At most once, if it waits for no lock.
                        slept += sleeps() - before;
                        reap(child);
                        count += 1;
                    }
                    let _ = counted.send((slept, count));
                    loop {
                        thread::park();
                    }
                };
                let thread = thread::Builder::new().stack_size(STACK);
                thread.spawn(work).expect("a thread")
            })
            .collect::<Vec<thread::JoinHandle<()>>>();
        let tids: Vec<i32> = tids.iter().take(all.len()).collect();
        let begun = tids
            .iter()
            .flat_map(|tid| [u64::from(tid.unsigned_abs()), began_ns]);
        say_numbers([0].into_iter().chain(begun));
        let counts: Vec<(u64, u64)> = counts.iter().take(all.len()).collect();
        let slept = counts.iter().map(|(slept, _)| *slept);
        let children = counts.iter().map(|(_, count)| count).sum();
        say_numbers(slept.chain([children]));
    });
}

/// A child that sleeps for so long; returns when it has left its parent's memory.
fn vfork(stack: &mut [u8], ms: u64) -> i32 {
    // SAFETY: the stack is the child's alone and outlives it, since the parent
    // sleeps until the child has left it.
    unsafe {
        let top = stack.as_mut_ptr().add(stack.len());
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let child = libc::clone(sleep_and_exit, top.cast(), flags, ms as *mut c_void);
        assert!(child > 0, "clone: {}", io::Error::last_os_error());
        child
    }
}

fn reap(child: i32) {
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
}

/// How often this thread has gone to sleep.
pub(super) fn sleeps() -> u64 {
    // SAFETY: all zeroes are a valid rusage, which the kernel fills in.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_nvcsw as u64
    }
}

extern "C" fn sleep_and_exit(ms: *mut c_void) -> i32 {
    let ns = ms as u64 * NS_PER_MS;
    let time = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    };
    // SAFETY: a plain system call, and the end of the child.
    unsafe {
        if ns > 0 {
            libc::nanosleep(&raw const time, ptr::null_mut());
        }
        libc::_exit(0)
    }
}
