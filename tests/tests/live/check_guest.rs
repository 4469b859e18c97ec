//! `tracer check` of trouble that only a guest can have: process ids that run out, a task
//! that hangs until the kernel complains of it, and a slow clock. See `cargo xtask vm`.

use std::fs;

use tests::{
    assert_near, check::Look, filesystem::FileSystem, lanes::Test, provoke::Workload,
    sysctl::Sysctl, test, time::eventually,
};

pub(crate) const TESTS: &[Test] = &[
    test!(process_ids_that_run_out_are_found)
        .guest("so few process ids")
        .serial("there are process ids for nobody else"),
    test!(a_task_that_hangs_is_found_in_the_log)
        .guest("its disk")
        .serial("the kernel is told to complain of the next task that hangs"),
    test!(a_slow_clock_source_is_found)
        .guest("its clock")
        .serial("each look at a clock is slow then"),
];

/// What the kernel reads time from, and can be told to.
const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// Processes and threads of the whole kernel: what stands behind the slash in
/// /proc/loadavg.
fn threads() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").expect("loadavg");
    let counts = text.split_whitespace().nth(3).expect("its counts");
    let (_, all) = counts.split_once('/').expect("two of them");
    all.parse().expect("a number")
}

/// Few process ids, and nearly all of them in use.
fn process_ids_that_run_out_are_found() {
    // With fewer, the first 300 would be missed: those the kernel gives once only
    // (`RESERVED_PIDS`, kernel/pid.c).
    const PID_MAX: f64 = 2_000.0;
    const THREADS: f64 = 1_720.0;
    let sleepers = (THREADS - threads()).to_string();
    let _sleepers = Workload::ready(&["sleepers", &sleepers]);
    let _pid_max = Sysctl::set("kernel.pid_max", PID_MAX).expect("so few");
    let before = threads();
    let look = Look::now(&["--only", "processes", "--sample", "200ms"]);
    let after = threads();
    println!("{before} threads before the look, {after} after it");
    let used = look.figure("processes", "pids_used_ratio", "");
    // Tracer's own threads are among them: 20 or so, that is 1 %. Kernel threads come and
    // go by the dozen.
    assert_near("ids in use", used, before / PID_MAX, 0.02);
    let words = ["of 2,000 threads and processes there can be", "provoke: "];
    assert_eq!(look.found("processes", &words), "warning");
}

/// The kernel's own words on a task that hangs are found, and nothing else is.
fn a_task_that_hangs_is_found_in_the_log() {
    // Once is enough for the test, and the count is exact then.
    let _once = Sysctl::set("kernel.hung_task_warnings", 1).expect("hung tasks are watched");
    let hung = |look: &Look| look.figure("kernel", "kernel_hung_task_messages", "");
    let before = Look::now(&["--only", "kernel", "--sample", "100ms"]);
    let disk = FileSystem::on("/dev/vdb").expect("a file system");
    let file = disk.directory().join("file");
    let mut writer = Workload::ready(&["write", file.to_str().expect("UTF-8")]);
    // Of both, this must go first: a writer ends when it is thawed.
    let disk = disk;
    disk.freeze().expect("it can be frozen");
    writer.go();
    let began = writer.line();
    println!("blocked since {began}");
    let _timeout = Sysctl::set("kernel.hung_task_timeout_secs", 1).expect("a timeout");
    let task = format!("task provoke:{} ", writer.pid());
    let told = || {
        let log = std::process::Command::new("dmesg").output();
        let log = String::from_utf8_lossy(&log.expect("dmesg").stdout).into_owned();
        let line = log.lines().find(|line| line.contains(&task));
        line.map(|line| println!("{line}")).is_some()
    };
    // It looks every second, and at what was blocked for a whole one.
    assert!(eventually(10.0, told), "the kernel complains of {task}");
    let look = Look::now(&["--only", "kernel", "--sample", "100ms"]);
    let words = ["in the kernel's log, the last", &task];
    assert_eq!(look.found("kernel", &words), "warning");
    assert_near("hung tasks", hung(&look), hung(&before) + 1.0, 0.0);
    disk.thaw().expect("it can be thawed");
}

/// The chipset's timer as the clock: each look at it leaves the CPU.
fn a_slow_clock_source_is_found() {
    let look = || Look::now(&["--only", "kernel", "--sample", "100ms"]);
    let before = fs::read_to_string(CLOCK).expect("a clock source");
    fs::write(CLOCK, "hpet").expect("it is there");
    let during = look();
    fs::write(CLOCK, before.trim()).expect("it was there");
    assert_eq!(
        during.found("kernel", &["the clock source is hpet,"]),
        "warning"
    );
    assert_eq!(look().finding("kernel", &["the clock source"]), None);
}
