//! What differs from kernel to kernel, as far as tests must know.

use std::fs;

use crate::time::host_or_guest;

/// Version of the running kernel, such as `(6, 12)`.
pub fn version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split('.').map(|word| word.parse().ok());
    let mut next = || numbers.next().flatten().expect("a number");
    (next(), next())
}

/// From 6.12 a task that sleeps can stay on the run queue for a while.
pub fn delays_dequeue() -> bool {
    version() >= (6, 12)
}

/// From 6.16 a task that sleeps uninterruptibly for a lock has a note of it
/// (`task_struct.blocker`, with `CONFIG_DETECT_HUNG_TASK_BLOCKER`).
pub fn notes_blockers() -> bool {
    version() >= (6, 16)
}

/// How much of a reason of loss is the kernel's doing, and no fault.
///
/// Before 6.2 task storage refuses a tracing program while its CPU is at another
/// task's storage (`bpf_task_storage_trylock`, kernel/bpf/bpf_task_storage.c):
/// rare, and counted.
///
/// A guest's CPUs can all stand still from one of the kernel's samples to the next.
pub fn may_lose(reason: &str) -> u64 {
    if reason == "kernel_sample" {
        return host_or_guest(0, 3);
    }
    if matches!(
        reason,
        "tcp_opening_unwatched"
            | "tcp_opening_unnamed"
            | "tcp_opening_given_up"
            | "tcp_opening_partial"
    ) {
        // All stacks of the host together have a 64th of a CPU: those of other tests too, of
        // which some are not to be read.
        return u64::MAX;
    }
    if reason == "tcp_transition_unseen" {
        // See tcp/untold.rs; those tests hold each against the kernel's own trace.
        // In a guest: what was missed, by the count anew.
        return host_or_guest(20, 5);
    }
    if reason == "tcp_transition_missed" {
        // A program that is preempted on an emulated CPU, for so long that the second one
        // is found running too. Tests of the matrix itself assert each cell all the same.
        return host_or_guest(0, 20);
    }
    let is_refused = matches!(reason, "waking_without_slot" | "task_storage");
    if is_refused && version() < (6, 2) {
        3
    } else if reason == "waking_without_slot" {
        // On a host as in tcp/untold.rs, of a task that the agent is switched away for.
        // Seen once each in guests of 6.12 and 6.18 too, and not explained there.
        1
    } else {
        0
    }
}
