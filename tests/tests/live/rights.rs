//! What every thread and process of tracer may do, by the kernel's account, for each
//! command. The tables here say it a second time: `tracer/src/rights` is not asked.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::fd::AsRawFd as _,
    process::{Child, Command, Stdio},
};

use tests::{
    lanes::Test,
    processes::{ThreadRights, descendants, rights, threads},
    provoke::Workload,
    test,
    time::{eventually, host_or_guest},
    tracer::{Tracer, command, run},
};

use crate::leaks::OPENINGS;

pub(crate) const TESTS: &[Test] = &[
    test!(what_watches_keeps_seven_capabilities).contract(),
    test!(what_looks_once_keeps_fewer).contract(),
    test!(who_reads_foreign_files_has_next_to_nothing)
        .needs(&[OPENINGS])
        .contract(),
    test!(files_are_made_before_the_right_to_make_them_goes),
    test!(doctor_prints_the_rights_of_every_command),
];

/// include/uapi/linux/capability.h.
const DAC_READ_SEARCH: u32 = 2;
const KILL: u32 = 5;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const SETPCAP: u32 = 8;
const IPC_LOCK: u32 = 14;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const SYSLOG: u32 = 34;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
const CHECKPOINT_RESTORE: u32 = 40;

const WATCH: &[u32] = &[
    DAC_READ_SEARCH,
    IPC_LOCK,
    SYS_PTRACE,
    SYS_ADMIN,
    SYSLOG,
    PERFMON,
    BPF,
];
const CHECK: &[u32] = &[DAC_READ_SEARCH, SYS_PTRACE, SYS_ADMIN, SYSLOG, PERFMON, BPF];
const CHECK_FILES: &[u32] = &[DAC_READ_SEARCH, SYS_PTRACE, SYSLOG];
const DOCTOR: &[u32] = &[DAC_READ_SEARCH, IPC_LOCK, SYS_ADMIN, SYSLOG, PERFMON, BPF];
const LAUNCHER: &[u32] = &[
    DAC_READ_SEARCH,
    KILL,
    SETGID,
    SETUID,
    SETPCAP,
    SYS_PTRACE,
    CHECKPOINT_RESTORE,
];
const OPENER: &[u32] = &[DAC_READ_SEARCH, SYS_PTRACE, CHECKPOINT_RESTORE];
/// The user and group that own nothing.
const NOBODY: u32 = 65534;

/// What this test has itself, and hands on: on some hosts root lacks a capability.
fn own() -> ThreadRights {
    let pid = std::process::id();
    rights(pid, pid).expect("this test is there").1
}

/// What a thread must have: these capabilities and no others, a filter, `no_new_privs`.
fn expected(kept: &[u32], bounding: &[u32], nice: i32, user: u32) -> ThreadRights {
    let has = own().capabilities[1];
    let mask = |bits: &[u32]| has & bits.iter().fold(0, |mask, bit| mask | 1 << bit);
    ThreadRights {
        capabilities: [0, mask(kept), mask(kept), mask(bounding), 0],
        no_new_privs: true,
        seccomp: 2,
        nice,
        user,
    }
}

/// The processes that read for tracer, by their name.
fn expected_of_helper(name: &str) -> Option<ThreadRights> {
    match name {
        "tracer-launcher" => Some(expected(LAUNCHER, LAUNCHER, 0, 0)),
        "tracer-opener" => Some(expected(OPENER, &[], 0, NOBODY)),
        "tracer-reader" => Some(expected(&[], &[], 19, NOBODY)),
        _ => None,
    }
}

/// Compares every thread of a process with what it must have; how many there are.
fn assert_threads(what: &str, pid: u32, wanted: &ThreadRights) -> usize {
    let all = threads(pid).into_iter();
    let all: Vec<_> = all.filter_map(|thread| rights(pid, thread)).collect();
    for (name, has) in &all {
        assert_eq!(has, wanted, "{what}: thread {name}");
    }
    all.len()
}

/// A command that is ended when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn what_watches_keeps_seven_capabilities() {
    // All of them are one program; what differs is what is shown.
    let all = ["run", "load", "tcp", "syn", "oom", "events"];
    let wanted = expected(WATCH, &[], -20, 0);
    for name in host_or_guest(&all[..], &["run", "events"]) {
        let started = command()
            .args([name, "--format", "json"])
            .stdout(Stdio::piped())
            .spawn();
        let mut running = Running(started.expect("tracer starts"));
        let pid = running.0.id();
        let mut lines = BufReader::new(running.0.stdout.take().expect("a pipe")).lines();
        // The first line comes once everything is attached.
        let first = lines.next().expect("a line").expect("UTF-8");
        assert!(first.contains(r#""notes":["#), "{first}");
        assert!(!first.contains("rights:"), "not given up: {first}");
        let count = assert_threads(name, pid, &wanted);
        println!("{name}: {count} threads, {wanted:x?}");
        // The thread that writes is there by now.
        assert!(count >= 2, "{count} threads");
        // Leaks of other tests can have it start the two others, which are looked at below.
        let helpers = descendants(pid).into_iter();
        let helpers: Vec<_> = helpers.filter_map(|pid| rights(pid, pid)).collect();
        let launcher = expected_of_helper("tracer-launcher");
        let is_launcher = |(name, has): &(String, ThreadRights)| {
            name == "tracer-launcher" && launcher.as_ref() == Some(has)
        };
        assert!(helpers.iter().any(is_launcher), "{helpers:x?}");
        // SAFETY: touches no memory.
        unsafe { libc::kill(pid as i32, libc::SIGTERM) };
        lines.for_each(drop);
        assert!(running.0.wait().expect("it ends").success(), "{name}");
    }
}

/// They end by themselves, so they write into a pipe that is full: it holds them up.
fn what_looks_once_keeps_fewer() {
    let nice = own().nice;
    for (args, kept) in [
        (&["check", "--sample", "1s"][..], CHECK),
        (&["check", "--only", "network", "--sample", "1s"], CHECK),
        (
            &["check", "--only", "memory,disks", "--sample", "1s"],
            CHECK_FILES,
        ),
        (&["doctor"], DOCTOR),
    ] {
        let wanted = expected(kept, &[], nice, 0);
        let (mut reader, writer) = full_pipe();
        let started = command().args(args).stdout(writer).spawn();
        let mut running = Running(started.expect("tracer starts"));
        let pid = running.0.id();
        // It has one thread until then.
        let has_given_up = || {
            let of_first = rights(pid, pid);
            of_first.is_some_and(|(_, has)| has.seccomp == 2)
        };
        assert!(eventually(60.0, has_given_up), "{args:?}: no filter");
        let mut most = 0;
        // Whenever it is looked at: until it waits for the pipe, which is its end.
        let is_at_its_end = || {
            most = most.max(assert_threads(&args.join(" "), pid, &wanted));
            for child in descendants(pid) {
                // A copy that asks a mount, which may not answer.
                assert_threads("child", child, &wanted);
            }
            waits_for_a_pipe(pid)
        };
        assert!(eventually(90.0, is_at_its_end), "{args:?} goes on");
        println!("{args:?}: at most {most} threads, {wanted:x?}");
        assert!(most > 1 || args[0] == "doctor", "{most} threads");
        let mut said = String::new();
        reader.read_to_string(&mut said).expect("UTF-8");
        assert!(running.0.wait().expect("it ends").success(), "{said}");
    }
}

/// A pipe without room, whose writing end waits.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let set = |flags: i32| {
        // SAFETY: touches no memory.
        let done = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, flags) };
        assert_eq!(done, 0);
    };
    set(libc::O_NONBLOCK);
    while (&mut &writer).write(&[b'\n'; 4096]).is_ok() {}
    set(0);
    writer.flush().expect("nothing is held back");
    (reader, writer)
}

/// Whether the first thread of a process is in write(2), by /proc/PID/syscall.
fn waits_for_a_pipe(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let mut words = call.split_whitespace();
    let number = words.next().and_then(|word| word.parse().ok());
    number == Some(libc::SYS_write) && words.next() == Some("0x1")
}

/// The launcher, the opener and the reader, while stacks are named with these rights.
fn who_reads_foreign_files_has_next_to_nothing() {
    let mut workload = Workload::ready(&["tcp-leak", "plain", "900", "10", "5"]);
    let mut tracer = Tracer::start(&["--interval", "500ms", "--leak-age", "2s"]);
    tracer.may_lose = true;
    workload.go();
    let pid = tracer.pid();
    let all = || {
        let helpers = descendants(pid).into_iter();
        let mut all: Vec<_> = helpers.filter_map(|pid| rights(pid, pid)).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    };
    let names = ["tracer-launcher", "tracer-opener", "tracer-reader"];
    let wanted = names.map(|name| (name.to_owned(), expected_of_helper(name).expect("known")));
    // They start when the first stack is to be named, and give up theirs at once.
    let have_given_up = (0..120).any(|_| {
        tracer.snapshot();
        all() == wanted
    });
    assert!(have_given_up, "{:x?}, expected {wanted:x?}", all());
    for (name, has) in &wanted {
        println!("{name}: {has:x?}");
    }
    // With these rights it is named.
    let is_named = (0..120).any(|_| {
        let snapshot = tracer.snapshot();
        tests::tcp::seen::close_wait(&snapshot, workload.pid())
            .is_some_and(|row| !tests::tcp::seen::list(&row["stack"]).is_empty())
    });
    assert!(is_named, "the leak has no stack");
    assert_threads("run", pid, &expected(WATCH, &[], -20, 0));
    let (_, _, status) = tracer.finish();
    assert!(status.success());
}

/// Where only root can make a file by its right to, as in a user's closed directory.
fn files_are_made_before_the_right_to_make_them_goes() {
    let directory = std::env::temp_dir().join(format!("closed-{}", std::process::id()));
    fs::create_dir(&directory).expect("a directory");
    let closed: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&directory, closed).expect("it is ours");
    std::os::unix::fs::chown(&directory, Some(NOBODY), Some(NOBODY)).expect("root may");
    let [flame, folded] = ["flame.svg", "folded.txt"].map(|name| directory.join(name));
    let paths = [&flame, &folded].map(|path| path.to_str().expect("UTF-8"));
    let args = ["load", "--duration", "1s", "--format", "json"];
    let (status, _, stderr) =
        run(&[&args[..], &["--flame", paths[0], "--folded", paths[1]]].concat());
    let picture = fs::read_to_string(&flame).unwrap_or_default();
    let has_folded = File::open(&folded).is_ok();
    fs::remove_dir_all(&directory).expect("it is ours");
    assert!(status.success(), "{stderr}");
    assert!(picture.ends_with("</svg>\n"), "{picture}");
    assert!(has_folded);
}

fn doctor_prints_the_rights_of_every_command() {
    let output = Command::new(command().get_program()).arg("doctor").output();
    let said = String::from_utf8(output.expect("it starts").stdout).expect("UTF-8");
    println!("{said}");
    let finding = |name: &str| {
        let line = said
            .lines()
            .find(|line| line[8..].trim_start().starts_with(name));
        line.unwrap_or_else(|| panic!("no {name}")).to_owned()
    };
    assert!(finding("rights kept ").starts_with("ok "));
    let watch = "dac_read_search, ipc_lock, sys_ptrace, sys_admin, syslog, perfmon, bpf;";
    assert!(finding("rights of run ").contains(watch));
    let files = "dac_read_search, sys_ptrace, syslog;";
    assert!(finding("rights of check --only ").contains(files));
    assert!(finding("rights of tracer-reader ").contains(" none;"));
    finding("Landlock ");
}
