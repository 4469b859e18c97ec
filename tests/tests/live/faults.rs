//! Faults: wrong use, missing rights, signals, hostile names, crowds.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::Stdio,
};

use serde_json::Value;
use tests::{
    assert_near, bpf,
    lanes::Test,
    provoke::Workload,
    skip, test,
    time::{eventually, let_pass},
    tracer::{Tracer, command, number, output, rest, run},
};

const NO_KERNEL: &str = "no kernel makes a difference to it";
const SLOW_IN_GUESTS: &str = "an emulated CPU takes too long for so many";
pub(crate) const TESTS: &[Test] = &[
    test!(a_stopped_tracer_says_what_it_missed).host(NO_KERNEL),
    test!(a_hostile_name_never_reaches_the_output).host(NO_KERNEL),
    test!(signals_end_it_with_a_summary).host(NO_KERNEL),
    test!(a_reader_that_goes_away_ends_it_quietly).host(NO_KERNEL),
    test!(without_rights_it_says_what_to_do).host(NO_KERNEL),
    test!(without_type_information_it_says_what_to_do).host(NO_KERNEL),
    test!(type_information_from_another_place_works).host(NO_KERNEL),
    test!(bad_usage_exits_2_and_names_the_argument).host(NO_KERNEL),
    test!(a_killed_tracer_leaves_nothing_in_the_kernel)
        .host(NO_KERNEL)
        .serial("it counts all programs, maps and links of the kernel"),
    test!(exits_beyond_the_ring_are_kept_by_name)
        .host(SLOW_IN_GUESTS)
        .serial("it fills the ring of exits"),
    test!(a_reused_pid_is_two_processes)
        .host(NO_KERNEL)
        .serial("nobody else takes the process id"),
    test!(twenty_thousand_tasks_are_no_trouble)
        .host(SLOW_IN_GUESTS)
        .serial("it is of all tasks of the host"),
];

const NOBODY: u32 = 65534;

fn without_rights_it_says_what_to_do() {
    let path = std::env::var_os("TRACER_BIN").expect("TRACER_BIN");
    // nobody cannot look into the build's folder: the program is handed over open.
    let copy = std::env::temp_dir().join(format!("tracer-{}", std::process::id()));
    fs::copy(path, &copy).expect("a copy");
    let mut command = std::process::Command::new(&copy);
    command.arg("run").uid(NOBODY).gid(NOBODY).current_dir("/");
    let (status, stdout, stderr) = output(&mut command);
    fs::remove_file(&copy).expect("the copy goes");
    assert_eq!(status.code(), Some(1));
    assert_eq!(stdout, "");
    assert!(stderr.contains("not enough rights"), "{stderr}");
    assert!(stderr.contains("sudo tracer"), "{stderr}");
}

fn without_type_information_it_says_what_to_do() {
    for (path, word) in [
        ("/nonexistent/btf", "cannot read"),
        ("/etc/passwd", "is not BTF"),
    ] {
        let (status, stdout, stderr) = run(&["run", "--btf", path]);
        assert_eq!(status.code(), Some(1));
        assert_eq!(stdout, "");
        assert!(stderr.contains(word) && stderr.contains(path), "{stderr}");
        assert!(stderr.contains("--btf FILE"), "{stderr}");
    }
}

fn type_information_from_another_place_works() {
    let copy = std::env::temp_dir().join(format!("btf-{}", std::process::id()));
    fs::copy("/sys/kernel/btf/vmlinux", &copy).expect("a copy");
    let path = copy.to_str().expect("UTF-8");
    let (status, stdout, stderr) =
        run(&["run", "--btf", path, "--count", "1", "--interval", "100ms"]);
    fs::remove_file(&copy).expect("the copy goes");
    assert!(status.success(), "{stderr}");
    assert!(stdout.contains("SUMMARY"), "{stdout}");
}

fn bad_usage_exits_2_and_names_the_argument() {
    for (args, word) in [
        (&["run", "--colour"][..], "--colour"),
        (&["run", "--interval", "0s"], "zero"),
        (&["run", "--interval", "-1s"], "negative"),
        (&["run", "--interval", "1ns"], "100ms"),
        (&["run", "--interval", "1000000h"], "1h"),
        (&["run", "--interval", "later"], "500ms"),
        (&["run", "--count", "0"], "--count"),
        (&["run", "--by", "colour"], "cgroup"),
        (&["run", "--pid", "1", "--by", "comm"], "--by process"),
        (&["walk"], "walk"),
        (&[], "Usage"),
    ] {
        let (status, stdout, stderr) = run(args);
        assert_eq!(status.code(), Some(2), "{args:?}: {stderr}");
        assert_eq!(stdout, "", "{args:?}");
        assert!(stderr.contains(word), "{args:?}: {stderr}");
    }
}

fn a_reader_that_goes_away_ends_it_quietly() {
    for format in ["text", "json"] {
        let mut child = command()
            .args(["run", "--interval", "100ms", "--format", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tracer starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut String::new()).expect("a first line");
        drop(stdout);
        let mut status = None;
        eventually(30.0, || {
            status = child.try_wait().expect("tracer can be waited for");
            status.is_some()
        });
        assert!(status.expect("it ends").success());
        assert_eq!(rest(child.stderr.take().expect("a pipe")), "");
    }
}

fn signals_end_it_with_a_summary() {
    let running = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP].map(|signal| {
        let mut tracer = Tracer::start(&["--interval", "200ms"]);
        // What others have to do with it is judged where the whole stream is.
        tracer.may_lose = true;
        (signal, tracer)
    });
    for (signal, mut tracer) in running {
        tracer.snapshot();
        tracer.signal(signal);
        let (_, end, status) = tracer.wait();
        assert_eq!(status.code(), Some(0));
        assert_eq!(end["type"], "end");
        assert!(number(&end["totals"]["duration_ns"]) > 0.0);
    }
}

/// What is said to be in force is, and nothing else: by the kernel's list of links. An
/// iterator has its link while it reads, and one hook is linked when it is needed only.
fn assert_linked(tracer: &Tracer, linked: &[String]) {
    let hooks = tracer.start["hooks"].as_array().expect("hooks").iter();
    let in_force = hooks.filter(|hook| {
        let via = hook["via"].as_str().expect("a way");
        hook["state"] == "ok" && !via.starts_with("iter") && hook["name"] != "sys_exit"
    });
    let name = |hook: &Value| {
        hook["name"]
            .as_str()
            .map(|name| name[..name.len().min(15)].to_owned())
    };
    let mut said: Vec<String> = in_force.filter_map(name).collect();
    let mut linked = linked.to_vec();
    linked.retain(|name| !name.starts_with("each_") && name != "sys_exit");
    said.sort();
    linked.sort();
    println!("{linked:?}");
    assert_eq!(said, linked);
}

/// Its hooks are there while it runs, and go with it.
fn a_killed_tracer_leaves_nothing_in_the_kernel() {
    let before = bpf::inventory();
    let mut tracer = Tracer::start(&["--interval", "200ms"]);
    tracer.snapshot();
    let during = bpf::inventory();
    let is_new = during.difference(&before).count();
    // Three tracepoints' links, four programs, eight maps at the least.
    assert!(is_new >= 15, "the test can see what tracer loads: {is_new}");
    assert_linked(&tracer, &bpf::linked(&(&during - &before)));
    tracer.signal(libc::SIGKILL);
    drop(tracer);
    // The kernel frees programs and maps after a grace period.
    let is_gone = || bpf::inventory().is_subset(&before);
    assert!(
        eventually(10.0, is_gone),
        "{:?}",
        bpf::inventory().difference(&before)
    );
}

/// Stopped for 12 s: the figures stay right, what was lost is counted.
fn a_stopped_tracer_says_what_it_missed() {
    let mut workload = Workload::ready(&["vfork", "100000"]);
    workload.go();
    let mut hog = Workload::nicely(&["hog", "1", "100000"]);
    hog.go();
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    tracer.may_lose = true;
    tracer.snapshots(2);
    tracer.signal(libc::SIGSTOP);
    let_pass(12.0);
    tracer.signal(libc::SIGCONT);
    let snapshots = tracer.snapshots(3);
    let long = snapshots
        .iter()
        .max_by(|a, b| a.seconds().total_cmp(&b.seconds()))
        .expect("three");
    assert!(long.seconds() > 11.0, "{}", long.seconds());
    assert_near("blocked", long.of_pid(workload.pid(), "blocked"), 1.0, 0.01);
    let hog = long.of_pid(hog.pid(), "running") + long.of_pid(hog.pid(), "waiting");
    assert_near("hog", hog, 1.0, 0.01);
    // One every 5.004 s, of which none can be told from the others; the first one may come
    // at once.
    let samples = long.seconds() / 5.004;
    assert_near(
        "missed samples",
        long.lost("kernel_sample") as f64,
        samples,
        1.0,
    );
    // The next ones are as before. Beside others some task is about to sleep at many of
    // them: one of several is named in full.
    let is_named = (0..60).any(|_| {
        let snapshot = tracer.snapshot();
        let lost = snapshot.lost("kernel_sample");
        assert_eq!(lost, long.lost("kernel_sample"), "none is missed any more");
        let samples = snapshot.samples();
        println!("samples, counted and named: {samples:?}");
        samples.iter().any(|(active, named)| active == named)
    });
    assert!(is_named, "a sample is named in full");
}

/// More exits than the ring holds while nobody reads: by name they are all there.
fn exits_beyond_the_ring_are_kept_by_name() {
    let mut storm = Workload::ready(&["storm", "5000", "0", "6000"]);
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    tracer.snapshots(2);
    tracer.may_lose = true;
    tracer.signal(libc::SIGSTOP);
    storm.go();
    assert_eq!(storm.line(), "done");
    tracer.signal(libc::SIGCONT);
    let snapshots = tracer.snapshots(3);
    let is_storm = |group: &serde_json::Value| group["comm"] == "storm";
    let exited: f64 = snapshots.iter().map(|s| s.sum("exited", is_storm)).sum();
    assert_near("exited", exited, 30_000.0, 0.0);
    let last = snapshots.last().expect("three");
    let diverted = last.lost("exit_ring_full");
    println!("exits that found the ring full: {diverted}");
    assert!(diverted > 5_000, "4 MiB hold some 19,000 exits: {diverted}");
    // Tasks of others that were there before the stop and ended in it.
    let others = last.lost("exit_totals");
    assert!(others < 20, "{others} exits are in no total");
    assert_eq!(last.lost("exit_unaccounted"), 0);
    // Nobody but those went without a word.
    let unseen = last.lost("exit_unseen");
    assert!(unseen <= others, "{unseen} exits were not seen");
}

fn a_hostile_name_never_reaches_the_output() {
    let names = [
        &b"\x1b[2J\x1b[31mX"[..],
        "\u{202e}gnimaner".as_bytes(),
        b"a\"b\\c\n{}\t'",
        b"\xff\xfe\x9b1m",
        b"\r\x07\x08\x7f",
    ];
    // All at once: they are there in each look.
    let workloads = names.map(|hostile| {
        let hex: String = hostile.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut workload = Workload::ready(&["name", &hex, "100000"]);
        workload.go();
        workload.line();
        workload
    });
    for format in ["text", "json"] {
        let args = [
            "run",
            "--top",
            "1000",
            "--count",
            "1",
            "--interval",
            "300ms",
        ];
        let args = [&args[..], &["--format", format]].concat();
        let (status, stdout, _) = run(&args);
        assert!(status.success());
        let is_bad = |c: &char| {
            (c.is_control() && *c != '\n')
                || ('\u{202a}'..='\u{202e}').contains(c)
                || ('\u{2066}'..='\u{2069}').contains(c)
        };
        let is_bad_in = |line: &&str| line.chars().any(|c| is_bad(&c));
        let bad: Vec<&str> = stdout.split('\n').filter(is_bad_in).collect();
        assert!(bad.is_empty(), "{format}: {bad:?}");
        for (hostile, workload) in names.iter().zip(&workloads) {
            let pid = workload.pid().to_string();
            assert!(stdout.contains(&pid), "{hostile:?} is shown: {stdout}");
        }
        if format == "json" {
            for line in stdout.lines() {
                serde_json::from_str::<serde_json::Value>(line).expect("JSON");
            }
        }
    }
}

/// Two processes of one id, one after the other within an interval.
fn a_reused_pid_is_two_processes() {
    let mut tracer = Tracer::start(&["--interval", "3s"]);
    tracer.snapshot();
    let spend = |name: &str, ms: &str| {
        let mut workload = Workload::ready(&["spend", name, ms]);
        workload.go();
        assert_eq!(workload.line(), "done");
        let pid = workload.pid();
        workload.end();
        pid
    };
    let first = spend("reuse-a", "400");
    if fs::write("/proc/sys/kernel/ns_last_pid", (first - 1).to_string()).is_err() {
        skip!(
            "a_reused_pid_is_two_processes",
            "ns_last_pid cannot be written"
        );
    }
    let second = spend("reuse-b", "700");
    if first != second {
        skip!(
            "a_reused_pid_is_two_processes",
            "another process took the pid"
        );
    }
    let mut snapshots = tracer.snapshots(1);
    snapshots.extend(tracer.finish().0);
    for (name, expected) in [("reuse-a", 0.4), ("reuse-b", 0.7)] {
        let total: f64 = snapshots
            .iter()
            .map(|s| s.sum("running", |group| group["comm"] == name) * s.seconds())
            .sum();
        // Start and end of a process take some ms of CPU of their own.
        assert_near(name, total, expected, 0.02);
    }
}

fn twenty_thousand_tasks_are_no_trouble() {
    let limit = fs::read_to_string("/proc/sys/kernel/threads-max").unwrap_or_default();
    let pids = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    let least = [limit, pids]
        .iter()
        .filter_map(|s| s.trim().parse().ok())
        .min()
        .unwrap_or(0_u64);
    if least < 22_000 {
        skip!(
            "twenty_thousand_tasks_are_no_trouble",
            "this host allows {least} tasks"
        );
    }
    // Several processes: one cannot map that many stacks (vm.max_map_count).
    let crowd: Vec<_> = (0..4)
        .map(|_| Workload::ready(&["sleepers", "5000"]))
        .collect();
    let mut blocked = Workload::ready(&["vfork", "10000"]);
    blocked.go();
    blocked.line();
    let mut tracer = Tracer::start(&["--interval", "1s", "--pid", &blocked.pid().to_string()]);
    let snapshots = tracer.snapshots(4);
    for snapshot in snapshots.iter().skip(1) {
        assert_near(
            "blocked",
            snapshot.of_pid(blocked.pid(), "blocked"),
            1.0,
            0.02,
        );
        let rss = number(&snapshot.0["self"]["rss_bytes"]) / 1_048_576.0;
        println!("RSS with 20,000 tasks: {rss:.1} MiB");
        assert!(rss <= 60.0, "{rss}");
    }
    drop(crowd);
}
