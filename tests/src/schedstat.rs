//! Run and wait time of a process, as the kernel has it: /proc/PID/task/*/schedstat.

use std::fs;

/// (on a CPU, runnable and not on one), in ns.
pub fn of_process(pid: u32) -> (u64, u64) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    tasks
        .filter_map(Result::ok)
        .fold((0, 0), |(run, wait), task| {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let of_task = parse(&text);
            (run + of_task.0, wait + of_task.1)
        })
}

/// The same of one task, by its thread id.
pub fn of_task(tid: u32) -> (u64, u64) {
    parse(&fs::read_to_string(format!("/proc/{tid}/schedstat")).unwrap_or_default())
}

/// The same of the calling thread.
pub fn of_thread() -> (u64, u64) {
    parse(&fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default())
}

fn parse(text: &str) -> (u64, u64) {
    let mut words = text
        .split_whitespace()
        .map(|word| word.parse::<u64>().unwrap_or(0));
    (words.next().unwrap_or(0), words.next().unwrap_or(0))
}
