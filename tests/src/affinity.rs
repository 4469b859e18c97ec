//! Moves the tasks of a process from CPU to CPU, also while they sleep.

use std::{
    fs, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Goes on until it is dropped.
pub struct Shuffle {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Shuffle {
    /// Every few ms all tasks of the process go to the next CPU.
    pub fn of(pid: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let shuffle = move || {
            for cpu in (0..cpus).cycle() {
                if until.load(Ordering::Relaxed) {
                    return;
                }
                let tasks = fs::read_dir(format!("/proc/{pid}/task"));
                let tids = tasks.into_iter().flatten().filter_map(|task| {
                    let name = task.ok()?.file_name();
                    name.to_str()?.parse().ok()
                });
                tids.for_each(|tid| put(tid, cpu));
                thread::sleep(Duration::from_millis(3));
            }
        };
        Self {
            is_over,
            thread: Some(thread::spawn(shuffle)),
        }
    }
}

impl Drop for Shuffle {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Keeps the calling thread, and what it starts, on the CPU that it is on. From 6.12 the
/// kernel's `run_delay` of a task that is moved while it sleeps has the sleep in it
/// (tracer-ebpf/src/sched.rs); that of one that stays is true.
pub fn stay() {
    // SAFETY: no preconditions.
    let cpu = unsafe { libc::sched_getcpu() };
    put(0, cpu.max(0) as usize);
}

/// The same until this is dropped: then it may go wherever it could before.
pub struct Stay(libc::cpu_set_t);

impl Stay {
    /// From now on.
    pub fn here() -> Self {
        let before = Self(may_be_on());
        stay();
        before
    }

    /// From now on, on this CPU.
    pub fn on(cpu: usize) -> Self {
        let before = Self(may_be_on());
        put(0, cpu);
        before
    }
}

/// Where the calling thread may be.
fn may_be_on() -> libc::cpu_set_t {
    // SAFETY: plain old data of ours, which the kernel fills in.
    unsafe {
        let mut cpus: libc::cpu_set_t = mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&cpus), &raw mut cpus);
        cpus
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        // SAFETY: plain old data of ours, which the kernel reads.
        unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), &raw const self.0) };
    }
}

fn put(tid: i32, cpu: usize) {
    // SAFETY: plain old data of ours, which the kernel reads. A task may be gone.
    unsafe {
        let mut cpus: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut cpus);
        libc::sched_setaffinity(tid, size_of_val(&cpus), &raw const cpus);
    }
}
