//! A tracer that is stopped, not read, or shown nothing, and processes that send it more
//! than it tells.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
    ptr, thread,
    time::Duration,
};

use serde_json::Value;
use tests::{
    assert_near,
    lanes::{OOM_TABLE, Test},
    memory::MemoryCgroup,
    provoke::Workload,
    skip, test,
    time::{NS, eventually, host_or_guest, monotonic_ns, wall_ns},
    tracer::{Tracer, command, number, output},
};

use crate::oom::MUCH_MEMORY;

pub(crate) const TESTS: &[Test] = &[
    test!(output_that_is_not_read_holds_up_nothing)
        .host("a guest has too few processes to fill what is kept"),
    test!(a_cgroup_called_like_a_kill_kills_nobody).needs(&[OOM_TABLE, MUCH_MEMORY]),
    test!(a_start_goes_on_after_signals),
    test!(a_terminal_that_is_stopped_does_not_keep_tracer).host("a guest has no terminals"),
    test!(an_output_that_is_full_is_an_error),
    test!(check_without_proc_is_no_ok).host("no kernel has a part in it"),
    test!(a_flood_of_sigkills_hides_no_memory_kill)
        .serial("SIGKILLs of other tests are counted too")
        .needs(&[OOM_TABLE, MUCH_MEMORY]),
    test!(memory_kills_without_end_are_all_told)
        .host("no kernel has a part in it")
        .serial("it fills the kernel's log")
        .needs(&[OOM_TABLE, MUCH_MEMORY]),
];

/// What is kept while nothing is read, and some more.
const MOST_LINES: usize = 1_000;

const RUN: [&str; 5] = ["run", "--format", "json", "--interval", "100ms"];

/// Ends it by SIGTERM; how long that took.
fn ends_after(child: &mut Child) -> Duration {
    let began = monotonic_ns();
    // SAFETY: sends a signal to a child that was not waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let has_ended = eventually(10.0, || child.try_wait().expect("a child").is_some());
    let took = Duration::from_nanos(monotonic_ns() - began);
    if !has_ended {
        child.kill().expect("it can be killed");
    }
    assert!(has_ended, "it ends");
    took
}

/// A guest's CPU is emulated.
fn assert_soon(took: Duration) {
    println!("ended after {took:?}");
    assert!(took < host_or_guest(Duration::from_secs(1), Duration::from_secs(5)));
}

/// Signals that stop it and let it go on, at every moment of the start: it starts with
/// the same hooks as one that is left alone (the verifier answers EAGAIN).
fn a_start_goes_on_after_signals() {
    let missing = |text: &str| -> Vec<Value> {
        let first = text.lines().next().expect("a first line");
        let start: Value = serde_json::from_str(first).expect("JSON");
        let hooks = start["hooks"].as_array().expect("hooks").iter();
        let missing = hooks.filter(|hook| hook["state"] != "ok");
        missing.map(|hook| hook["name"].clone()).collect()
    };
    let run = || {
        let mut command = command();
        command.args(RUN).args(["--duration", "100ms"]);
        command
    };
    let (status, calm, _) = output(&mut run());
    assert!(status.success());
    for _ in 0..host_or_guest(5, 1) {
        let child = run().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("tracer starts");
        let until = monotonic_ns() + 2 * NS as u64;
        let mut stops = 0;
        while child.try_wait().expect("a child").is_none() && monotonic_ns() < until {
            for signal in [libc::SIGSTOP, libc::SIGCONT] {
                // SAFETY: as above.
                unsafe { libc::kill(child.id() as i32, signal) };
            }
            stops += 1;
            thread::sleep(Duration::from_millis(1));
        }
        let output = child.wait_with_output().expect("its output");
        let error = String::from_utf8_lossy(&output.stderr);
        println!("stopped {stops} times, {}: {error}", output.status);
        assert!(stops > 10 && output.status.success());
        let stopped = String::from_utf8_lossy(&output.stdout);
        assert_eq!(missing(&stopped), missing(&calm));
    }
}

/// A pipe of one page that is not read for seconds: what has no room is dropped and
/// counted, every line that is written is whole, and SIGTERM ends it.
fn output_that_is_not_read_holds_up_nothing() {
    let start = || {
        let mut ends = [0; 2];
        // SAFETY: the kernel fills in two descriptors, which become ours.
        let (read, write) = unsafe {
            assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
            libc::fcntl(ends[1], libc::F_SETPIPE_SZ, 4096);
            (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
        };
        // Many rows fill what is kept the sooner.
        let args = ["--top", "1000", "--stacks"];
        let child = command().args(RUN).args(args).stdout(write).spawn();
        (child.expect("tracer starts"), File::from(read))
    };
    let (mut unread, pipe) = start();
    let (mut late, late_pipe) = start();
    thread::sleep(Duration::from_secs(5));
    assert_soon(ends_after(&mut unread));
    drop(pipe);
    // What is kept is half a MiB.
    thread::sleep(Duration::from_secs(10));
    // The other one is read from now on, until it says what was dropped.
    let mut lines = BufReader::new(late_pipe).lines();
    let said = lines.by_ref().take(MOST_LINES).find_map(|line| {
        let line = line.expect("its output");
        let line: Value = serde_json::from_str(&line).expect("every line is whole");
        let dropped = line["lost"]["output_unread"].as_u64()?;
        (dropped > 0).then_some(dropped)
    });
    println!("dropped: {said:?}");
    assert!(said.is_some());
    assert_soon(ends_after(&mut late));
}

/// Ctrl-S stops a terminal.
fn a_terminal_that_is_stopped_does_not_keep_tracer() {
    let (mut main, mut other) = (0, 0);
    let none = ptr::null_mut();
    // SAFETY: the kernel fills in two descriptors, which become ours.
    let (main, other) = unsafe {
        let opened = libc::openpty(
            &raw mut main,
            &raw mut other,
            none,
            ptr::null(),
            ptr::null(),
        );
        assert_eq!(opened, 0);
        (OwnedFd::from_raw_fd(main), OwnedFd::from_raw_fd(other))
    };
    let mut child = command()
        .args(["run", "--interval", "100ms"])
        .stdout(other.try_clone().expect("a descriptor"))
        .spawn()
        .expect("tracer starts");
    let mut main = File::from(main);
    let mut first = [0; 1024];
    assert!(main.read(&mut first).expect("a page") > 0);
    // SAFETY: a descriptor of ours.
    let stopped = unsafe { libc::tcflow(other.as_raw_fd(), libc::TCOOFF) };
    assert_eq!(stopped, 0);
    thread::sleep(Duration::from_secs(1));
    assert_soon(ends_after(&mut child));
}

fn an_output_that_is_full_is_an_error() {
    let full = || File::options().write(true).open("/dev/full").expect("it");
    let child = command()
        .args(RUN)
        .stdout(full())
        .stderr(Stdio::piped())
        .spawn();
    let output = child.expect("tracer starts").wait_with_output();
    let output = output.expect("it ends by itself");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("cannot write to standard output: No space"),
        "{error}"
    );
    // And where not even that can be said.
    let args = ["run", "--btf", "/nowhere"];
    let status = command()
        .args(args)
        .stderr(full())
        .status()
        .expect("tracer starts");
    assert_eq!(status.code(), Some(1));
}

/// Hides /proc in a mount namespace of its own.
fn without_proc(command: &mut Command) -> &mut Command {
    let hide = || {
        let nothing = ptr::null();
        let (root, tmpfs, proc) = (c"/".as_ptr(), c"tmpfs".as_ptr(), c"/proc".as_ptr());
        // SAFETY: system calls with strings that live for ever.
        let hidden = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(
                    nothing,
                    root,
                    nothing,
                    libc::MS_REC | libc::MS_PRIVATE,
                    nothing.cast(),
                ) == 0
                && libc::mount(tmpfs, proc, tmpfs, 0, nothing.cast()) == 0
        };
        hidden.then_some(()).ok_or_else(io::Error::last_os_error)
    };
    // SAFETY: nothing but system calls between fork and exec.
    unsafe { command.pre_exec(hide) }
}

/// Rows that could not look are no `ok`, are counted, and fail with `--fail-on`.
fn check_without_proc_is_no_ok() {
    let look = |more: &[&str]| {
        let args = ["check", "--sample", "1s", "--format", "json"];
        output(without_proc(command().args(args).args(more)))
    };
    let (status, text, error) = look(&[]);
    assert!(status.success(), "{error}");
    let page: Value = serde_json::from_str(&text).expect("JSON");
    for row in page["rows"].as_array().expect("rows") {
        println!("{} {} {}", row["row"], row["verdict"], row["unseen"]);
        let unseen = row["unseen"].as_array().expect("a list");
        assert!(!unseen.is_empty(), "{row}");
        // The load's averages come from sysinfo(2), the log from /dev/kmsg.
        if row["row"] != "kernel" {
            assert_ne!(row["verdict"], "ok", "{row}");
        }
    }
    let (status, ..) = look(&["--only", "memory", "--fail-on", "critical"]);
    assert_eq!(status.code(), Some(1));
    let args = ["check", "--sample", "1s", "--only", "memory"];
    let (_, text, _) = output(without_proc(command().args(args)));
    assert!(
        text.contains("0 warning, 1 unknown (memory), 0 note, 0 ok"),
        "{text}"
    );
    // With /proc it is looked at.
    let (status, text, _) = output(command().args(args).args(["--format", "json"]));
    assert!(status.success() && !text.contains("\"unknown\""), "{text}");
}

/// A path of a cgroup stands in several lines of the kernel's report of a kill.
fn a_cgroup_called_like_a_kill_kills_nobody() {
    const NAME: &str = "Killed process 1 (init) total-vm:1kB, anon-rss:1kB, file-rss:1kB, \
                        shmem-rss:1kB, UID:0 pgtables:1kB oom_score_adj:0";
    let cgroup = match MemoryCgroup::new(NAME, 32) {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("a_cgroup_called_like_a_kill_kills_nobody", "no cgroup: {e}"),
    };
    let mut tracer = Tracer::shared();
    tracer.snapshot();
    let mut eater = cgroup.workload(&["eat", "100"]);
    eater.go();
    assert_eq!(eater.line(), "", "it is killed");
    let is_one = |kill: &Value| kill["cgroup"] == cgroup.name || kill["pid"] == 1;
    let (kills, _) = tracer.events_until(wall_ns(), "oom_kill", is_one);
    println!("{kills:?}");
    assert_eq!(kills.len(), 1);
    let kill = &kills[0];
    assert_eq!(
        (&kill["pid"], &kill["memcg"]),
        (&eater.pid().into(), &cgroup.name.clone().into())
    );
    assert_eq!(kill["trigger"]["pid"], eater.pid());
}

/// Hundreds of children killed by one process, beside a memory kill: that is told, and
/// what is told of the others and what is not are all there were.
fn a_flood_of_sigkills_hides_no_memory_kill() {
    const CHILDREN: usize = 400;
    let cgroup = match MemoryCgroup::new("tracer-flood", 32) {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("a_flood_of_sigkills_hides_no_memory_kill", "no cgroup: {e}"),
    };
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    tracer.may_lose = true;
    let before = tracer.snapshot();
    let mut eater = cgroup.workload(&["eat", "100"]);
    let sleep = || Command::new("sleep").arg("60").spawn().expect("sleep");
    let mut children: Vec<Child> = (0..CHILDREN).map(|_| sleep()).collect();
    let (first, second) = children.split_at_mut(CHILDREN / 2);
    let kill = |children: &mut [Child]| {
        for child in children {
            child.kill().expect("it lives");
        }
    };
    kill(first);
    eater.go();
    kill(second);
    assert_eq!(eater.line(), "", "it is killed");
    for child in &mut children {
        child.wait().expect("it ends");
    }
    let own = std::process::id();
    let (told, after) = tracer.told_until(wall_ns() + NS as u64, |kill| {
        kill["event"] == "oom_kill" && kill["pid"] == eater.pid()
            || kill["event"] == "sigkill" && kill["trigger"]["pid"] == own
    });
    let of = |name: &str| told.iter().filter(|kill| kill["event"] == name).count();
    let reasons = [
        "sigkill_sender_limit",
        "sigkill_ring_half_full",
        "kill_ring_full",
        "kills_untold",
    ];
    let lost = reasons.map(|reason| after.lost(reason) - before.lost(reason));
    println!("{} told, lost {lost:?}", of("sigkill"));
    assert_eq!(of("oom_kill"), 1);
    assert!(of("sigkill") >= 64);
    let all = of("sigkill") as u64 + lost.iter().sum::<u64>();
    assert_near("SIGKILLs", all as f64, CHILDREN as f64, 0.0);
}

/// Beside thousands of processes, whose memory tracer looks at for some of the kills only.
fn memory_kills_without_end_are_all_told() {
    const PROCESSES: &str = "5000";
    const KILLS: u64 = 120;
    let cgroup = match MemoryCgroup::new("tracer-kills", 16) {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("memory_kills_without_end_are_all_told", "no cgroup: {e}"),
    };
    let crowd = Workload::ready(&["crowd", PROCESSES]);
    let mut tracer = Tracer::start(&["--interval", "500ms"]);
    tracer.may_lose = true;
    tracer.snapshots(2);
    let kill = |_| {
        let mut eater = cgroup.workload(&["eat", "64"]);
        eater.go();
        assert_eq!(eater.line(), "", "it is killed");
        eater.pid()
    };
    let is_kill = |event: &Value| event["event"] == "oom_kill";
    let mut shares = Vec::new();
    let (victims, mut told, last) = thread::scope(|scope| {
        let killer = scope.spawn(|| (0..KILLS).map(kill).collect::<Vec<u32>>());
        let mut told = Vec::new();
        while !killer.is_finished() {
            let (kills, snapshot) = tracer.told_until(wall_ns(), is_kill);
            told.extend(kills);
            shares.push(number(&snapshot.0["self"]["cpu_ratio"]));
        }
        let (kills, last) = tracer.told_until(wall_ns() + 3 * NS as u64, is_kill);
        told.extend(kills);
        (killer.join().expect("kills"), told, last)
    });
    // The kernel logs the cgroup of ten kills in five seconds, so they are asked by pid.
    told.retain(|kill| victims.iter().any(|pid| kill["pid"] == *pid));
    drop(crowd);
    println!(
        "{} kills a snapshot, CPU {shares:.3?}",
        KILLS as f64 / shares.len() as f64
    );
    let unread = last.lost("kill_memory_unread");
    let lost = ["kill_ring_full", "kills_untold"].map(|reason| last.lost(reason));
    println!(
        "{} told, lost {lost:?}; at {unread} there was no look",
        told.len()
    );
    let told = told.len() as u64 + lost.iter().sum::<u64>();
    assert_near("kills", told as f64, cgroup.oom_kills() as f64, 0.0);
}
