//! What only a guest can have done to it: see `cargo xtask vm`.
//!
//! Function hooks, a disk that is slow on purpose, a file system that is frozen,
//! all of the memory used up. /dev/vda is throttled, /dev/vdb is not.

use std::{fs, process::Command, thread};

use serde_json::Value;
use tests::{
    assert_near,
    bpf::{cost_of, length_of},
    hooks::{Hooks, Kind, ON_FUNCTIONS, ON_TRACEPOINTS},
    kernel,
    lanes::{Test, VDA, VDB},
    memory::{MemoryCgroup, host_oom_kills},
    provoke::Workload,
    schedstat,
    tcp::{counters::Counters, netns::Joined, wire::Wire},
    test,
    time::{NS, eventually, let_pass, parse_utc, wall_ns},
    tracer::{Snapshot, Tracer, number, run},
};

use crate::oom::MUCH_MEMORY;

pub(crate) const TESTS: &[Test] = &[
    test!(a_kernel_below_the_floor_is_refused)
        .guest("a kernel that tracer refuses")
        .serial("tracers do not start there"),
    test!(every_kind_of_hook_sees_every_event)
        .guest("hooks on functions")
        .serial("it counts all execs of the host")
        .contract(),
    test!(a_slow_disk_blocks_its_reader)
        .guest("its disk")
        .needs(&[VDA])
        .contract(),
    test!(a_frozen_file_system_blocks_its_writer)
        .guest("its disk")
        .needs(&[VDB]),
    test!(tracer_outlives_a_host_out_of_memory)
        .guest("its memory")
        .serial("the host is out of memory"),
    test!(a_kill_by_sysrq_is_told_apart)
        .guest("nobody else is there to be killed")
        .serial("the kernel chooses among all processes"),
    test!(who_was_dying_anyway_is_told_apart)
        .guest("its disk")
        .needs(&[VDB, MUCH_MEMORY]),
    test!(a_syn_of_a_flood_runs_each_hook_once)
        .guest("hooks on functions")
        .serial("it counts the runs of tracer's programs"),
];

/// Below 5.14 there is no task storage for tracing programs.
fn a_kernel_below_the_floor_is_refused() {
    let (status, stdout, stderr) = run(&["run", "--count", "1"]);
    println!("{stderr}");
    assert_eq!(status.code(), Some(1));
    assert_eq!(stdout, "");
    for word in ["5.10", "5.14", "tracer doctor"] {
        assert!(stderr.contains(word), "{word} is not in: {stderr}");
    }
    let (status, stdout, _) = run(&["doctor"]);
    println!("{stdout}");
    assert_eq!(status.code(), Some(1));
    assert!(stdout.contains("older than 5.14"), "{stdout}");
}

/// Six kinds of hook on the one place where every exec comes by.
fn every_kind_of_hook_sees_every_event() {
    const EXECS: u64 = 50;
    let mut hooks = Hooks::new();
    for kind in ON_TRACEPOINTS {
        let attached = hooks.attach(kind, "sched", "sched_process_exec");
        attached.unwrap_or_else(|e| panic!("{kind:?}: {e:?}"));
    }
    for kind in ON_FUNCTIONS {
        let attached = hooks.attach(kind, "", "begin_new_exec");
        attached.unwrap_or_else(|e| panic!("{kind:?}: {e:?}"));
    }
    let kinds = [ON_TRACEPOINTS, ON_FUNCTIONS].concat();
    let before: Vec<u64> = kinds.iter().map(|kind| hooks.calls(*kind)).collect();
    for _ in 0..EXECS {
        Workload::nothing();
    }
    for (kind, before) in kinds.iter().zip(before) {
        let calls = hooks.calls(*kind) - before;
        assert_near(&format!("{kind:?}"), calls as f64, EXECS as f64, 0.0);
    }
}

/// A disk that does four reads a second: its reader is blocked all the time.
fn a_slow_disk_blocks_its_reader() {
    const READS: f64 = 16.0;
    let mut reader = Workload::ready(&["read", "/dev/vda", &READS.to_string()]);
    let mut tracer = Tracer::shared();
    tracer.snapshot();
    let pid = reader.pid();
    let before = block_io_s(pid);
    let (ran_ns, waited_ns) = schedstat::of_process(pid);
    reader.go();
    let (line, snapshots) = tracer.during(|| reader.line());
    let took: f64 = line.parse::<f64>().expect("a time") / NS;
    let by_kernel = block_io_s(pid) - before;
    // Between two waits the reader is woken, waits for a CPU and runs.
    let (run_ns, wait_ns) = schedstat::of_process(pid);
    let on_cpu = (run_ns - ran_ns + wait_ns - waited_ns) as f64 / NS;
    println!("{on_cpu:.3} s on a CPU or waiting for one");
    let sum = |of: &dyn Fn(&Snapshot) -> f64| snapshots.iter().map(of).sum::<f64>();
    let blocked = sum(&|s| s.of_pid(pid, "blocked") * s.seconds());
    let off_cpu = took - on_cpu;
    assert_near(
        "blocked, by the reader's clock, in s",
        blocked,
        off_cpu,
        0.1,
    );
    // The first read is not held up, and can be over before its reader sleeps; nor is one
    // that comes late, as the reader had no CPU for as long as a read takes.
    let late = (on_cpu * 4.0).floor();
    let episodes = sum(&|s| s.of_pid(pid, "episodes"));
    let least = READS - 1.0 - late;
    assert!((least..=READS).contains(&episodes), "{episodes} episodes");
    println!("{by_kernel} s by delay accounting");
    // Delay accounting counts in ticks of 10 ms. From 6.12 it is at times too large: with
    // a delayed dequeue `__block_task` runs later, and notes the begin for whoever is
    // current then, so that a wait is counted from the begin of the one before, or from
    // boot where there was none (kernel/sched/sched.h, `delayacct_blkio_start`).
    if kernel::delays_dequeue() {
        assert!(by_kernel > blocked - 0.1, "{blocked} s blocked");
    } else {
        assert_near("the same by delay accounting", blocked, by_kernel, 0.1);
    }
}

/// Field 42 of /proc/PID/stat, delayacct_blkio_ticks, in s.
fn block_io_s(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    // The name in parentheses may hold spaces; the third field is after it.
    let fields = stat.rsplit(')').next().expect("a name");
    let ticks = fields.split_whitespace().nth(42 - 3).expect("42 fields");
    ticks.parse::<f64>().expect("a number") / 100.0
}

/// A writer to a file system that is frozen waits until it is not.
fn a_frozen_file_system_blocks_its_writer() {
    let _mounted = Mounted::now();
    let mut writer = Workload::ready(&["write", "/mnt/file"]);
    // Of this one alone: others are blocked for longer.
    let pid = writer.pid().to_string();
    let mut tracer = Tracer::start(&["--interval", "500ms", "--pid", &pid]);
    // What others have to do with it is judged where the whole stream is.
    tracer.may_lose = true;
    tracer.snapshot();
    let frozen = Frozen::now();
    writer.go();
    let began: u64 = writer.line().parse().expect("a time");
    assert!(eventually(60.0, || is_blocked(writer.pid())));
    let blocked_by = wall_ns();
    let mut snapshots = vec![tracer.snapshot_after(wall_ns())];
    snapshots.extend(tracer.snapshots(5));
    for snapshot in snapshots {
        assert_near(
            "blocked",
            snapshot.of_pid(writer.pid(), "blocked"),
            1.0,
            0.02,
        );
        let age = snapshot
            .blocked_age_ns(writer.pid())
            .expect("it is blocked");
        // It says when it begins, and was seen to be blocked: in between it blocked. Each
        // wall clock is read with an error.
        let [most, least] = [began, blocked_by].map(|at| (snapshot.wall_ns() - at) as f64 / 1e6);
        let age = age as f64 / 1e6;
        println!("age in ms: {age:.1}, expected {least:.1} to {most:.1}");
        assert!(
            (least - 100.0..=most + 100.0).contains(&age),
            "{age} is not of {least} to {most}"
        );
    }
    drop(frozen);
    let took: f64 = writer.line().parse::<f64>().expect("a time") / NS;
    let last = tracer.snapshot_after(wall_ns());
    assert_eq!(
        last.blocked_age_ns(writer.pid()),
        None,
        "it is blocked no more"
    );
    let longest = tracer.finish().1["totals"]["episodes"][0].take();
    println!("{longest}, and the write took {took:.4} s");
    assert_eq!(longest["pid"], writer.pid());
    writer.end();
}

/// Whether a process is in uninterruptible sleep.
fn is_blocked(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    stat.contains(") D ")
}

/// A new file system of /dev/vdb on /mnt, until this is dropped.
struct Mounted;

impl Mounted {
    fn now() -> Self {
        busybox(&["mke2fs", "-F", "/dev/vdb"]);
        busybox(&["mount", "-t", "ext4", "/dev/vdb", "/mnt"]);
        Self
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // After a failed test somebody may still write there.
        let lazily: &[&str] = if thread::panicking() { &["-l"] } else { &[] };
        busybox(&[&["umount"], lazily, &["/mnt"]].concat());
    }
}

/// /mnt, frozen until this is dropped: a test that fails leaves no D state behind.
struct Frozen;

impl Frozen {
    fn now() -> Self {
        busybox(&["fsfreeze", "--freeze", "/mnt"]);
        Self
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        busybox(&["fsfreeze", "--unfreeze", "/mnt"]);
    }
}

fn busybox(command: &[&str]) {
    let output = Command::new("/bin/busybox").args(command).output();
    let output = output.expect("busybox starts");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// The whole host out of memory: every hook sees the kill, tracer lives on.
fn tracer_outlives_a_host_out_of_memory() {
    let mut hooks = Hooks::new();
    let place = |kind| match kind {
        Kind::BtfTracepoint | Kind::RawTracepoint | Kind::Tracepoint => "mark_victim",
        Kind::Fentry | Kind::Fexit | Kind::Kprobe => "oom_kill_process",
    };
    let kinds = [ON_TRACEPOINTS, ON_FUNCTIONS].concat();
    for kind in &kinds {
        let attached = hooks.attach(*kind, "oom", place(*kind));
        attached.unwrap_or_else(|e| panic!("{kind:?}: {e:?}"));
    }
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    tracer.snapshot();
    let kills = host_oom_kills;
    let before = kills();
    let mut eater = Workload::ready(&["eat", "2048"]);
    let pid = eater.pid();
    fs::write(format!("/proc/{pid}/oom_score_adj"), "1000").expect("its score");
    eater.go();
    let event = tracer.event("oom_kill", 60);
    let told_ns = wall_ns();
    println!("{event}");
    assert_eq!(eater.line(), "", "it is killed, and says no more");
    assert!(
        eventually(10.0, || kills() > before),
        "the kernel counts it"
    );
    assert_eq!(
        (&event["pid"], &event["scope"]),
        (&pid.into(), &"host".into())
    );
    assert_eq!(
        (&event["memcg"], &event["oom_score_adj"]),
        (&Value::Null, &1000.into())
    );
    // Anybody may have wanted the page that was not there.
    assert!(event["trigger"]["pid"].is_number());
    let at_ns = parse_utc(event["time"].as_str().expect("a time")).expect("UTC");
    let told_ms = told_ns.saturating_sub(at_ns) as f64 / 1e6;
    println!("told {told_ms:.1} ms after the kill");
    // A guest's CPUs are emulated, and all of its page cache is gone.
    assert!(told_ms < 3_000.0);
    let snapshot = tracer.snapshot_after(wall_ns());
    let killed = number(&snapshot.0["oom"]["killed"]);
    assert_near("kills", killed, (kills() - before) as f64, 0.0);
    for kind in &kinds {
        let (calls, killed) = (hooks.calls(*kind), kills() - before);
        assert_near(&format!("{kind:?}"), calls as f64, killed as f64, 0.0);
    }
    drop(eater);
    let snapshots = tracer.snapshots(4);
    let is_it = |group: &serde_json::Value| group["pid"] == pid;
    let seen = |s: &Snapshot| s.sum("exited", is_it) + s.sum("running", is_it);
    let end = tracer.finish();
    assert!(end.2.success());
    println!(
        "after it: {:?}",
        snapshots.iter().map(seen).collect::<Vec<_>>()
    );
}

/// A kill that somebody asks for by SysRq is said to be one.
fn a_kill_by_sysrq_is_told_apart() {
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    tracer.snapshot();
    let mut eater = Workload::ready(&["eat", "50"]);
    let pid = eater.pid();
    fs::write(format!("/proc/{pid}/oom_score_adj"), "1000").expect("its score");
    eater.go();
    assert_eq!(eater.line(), "done");
    fs::write("/proc/sys/kernel/sysrq", "1").expect("SysRq");
    fs::write("/proc/sysrq-trigger", "f").expect("SysRq");
    let event = tracer.event("oom_kill", 20);
    println!("{event}");
    assert_eq!(
        (&event["pid"], &event["scope"]),
        (&pid.into(), &"sysrq".into())
    );
    assert_eq!(event["order"], -1);
}

/// A process that is chosen although it was sent a SIGKILL before, and cannot die yet: it
/// is let into the reserves, and nobody is killed.
fn who_was_dying_anyway_is_told_apart() {
    let _mounted = Mounted::now();
    let cgroup = MemoryCgroup::new("tracer-dying", 96).expect("a cgroup");
    let mut tracer = Tracer::shared();
    tracer.snapshot();
    let mut dying = cgroup.workload(&["eat-and-write", "64", "/mnt/file"]);
    let pid = dying.pid();
    let frozen = Frozen::now();
    dying.go();
    assert_eq!(dying.line(), "eaten");
    assert!(eventually(60.0, || is_blocked(pid)));
    // SAFETY: touches no memory.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    let mut trigger = cgroup.workload(&["eat", "50"]);
    trigger.go();
    let in_it = |event: &Value| event["memcg"] == cgroup.name || event["pid"] == pid;
    let event = tracer.event_of("oom_exiting", 30, in_it);
    println!("{event}");
    assert_eq!(
        (&event["pid"], &event["trigger"]["pid"]),
        (&pid.into(), &trigger.pid().into())
    );
    // Its memory is taken away although it cannot die (`oom_reaper`, mm/oom_kill.c).
    assert_eq!(trigger.line(), "done");
    let (killed, _) = tracer.events_until(wall_ns(), "oom_kill", in_it);
    assert_eq!((killed, cgroup.oom_kills()), (Vec::new(), 0));
    drop(frozen);
}

/// A SYN runs two programs where functions are hooked, and in a flood no more: one run
/// each, and no loop that a long queue makes longer. Time is said and not judged: that of
/// an emulated CPU, beside an empty program, was seen to differ tenfold.
fn a_syn_of_a_flood_runs_each_hook_once() {
    const SYNS: u32 = 4_000;
    const ROUNDS: usize = 5;
    for (way, kind) in [("fentry", Kind::Fentry), ("kprobe", Kind::Kprobe)] {
        let mut hooks = Hooks::new();
        hooks
            .attach(kind, "", "tcp_conn_request")
            .expect("an empty program");
        let tracer = Tracer::start(&["--interval", "1s", "--function-hooks", way]);
        let joined = Joined::new().expect("two namespaces and a cable");
        joined.knows_strangers(1).expect("routes");
        let ready = || Ok(Workload::ready(&["tcp-listen", "v4", "64", "accepts"]));
        let mut server = joined.ends[1].within(ready).expect("a server");
        server.go();
        let port: u16 = server.line().parse().expect("a port");
        let to = (Joined::address(1, false), port).into();
        let floor = if way == "fentry" {
            "floor_fentry"
        } else {
            "floor_kprobe"
        };
        let names = [floor, "tcp_conn_request", "cookie_v4_init_sequence"];
        // The programs for breakpoints are loaded after those for trampolines, if at all.
        let look = || names.map(cost_of);
        let arrived = || {
            let counters = Counters::of_process(server.pid()).expect("counters");
            counters.get("InSegs")
        };
        let mut looks = Vec::new();
        let flood = || {
            let wire = Wire::new(to, true)?;
            for round in 0..ROUNDS as u32 {
                for n in 0..SYNS {
                    wire.syn(wire.stranger(round * SYNS + n))?;
                    if n % 100 == 0 {
                        let_pass(0.005);
                    }
                }
                looks.push((arrived(), look()));
            }
            Ok(())
        };
        joined.ends[0].within(flood).expect("a flood");
        let [first, last] = [0, ROUNDS - 1].map(|round| &looks[round]);
        let [empty, syn, cookie] = [0, 1, 2].map(|program| {
            let (now, before) = (&last.1[program], &first.1[program]);
            let (calls, ns) = (now.calls - before.calls, now.ns_a_call_since(before));
            println!("{way}: {}: {calls} calls, {ns:.0} ns each", names[program]);
            calls as f64
        });
        // What came in by the kernel's count: one that is on its way at one look is
        // counted at the next.
        let syns = (last.0 - first.0) as f64;
        println!("{way}: {syns} SYNs came in");
        assert!(syns > f64::from(SYNS), "too few to judge by");
        assert_near("runs of an empty program", empty, syns, 64.0);
        assert_near("runs for SYNs", syn, empty, 64.0);
        // All but those that the queue still had room for.
        assert!(cookie > 0.9 * syns && cookie <= syn, "{cookie} cookies");
        let [syn, cookie] = [names[1], names[2]].map(length_of);
        println!("{way}: {syn} instructions for a SYN, {cookie} for a cookie");
        assert!(
            syn <= 50 && cookie <= 4_000,
            "they walk {syn} and {cookie} instructions"
        );
        assert!(tracer.finish().2.success());
    }
}
