//! Truth: tracer's figures against the kernel's own counters, on this kernel.

use std::fs;

use serde_json::Value;
use tests::{
    affinity::{Shuffle, Stay},
    assert_near,
    cgroup::Cgroup,
    freezer::Freezer,
    kernel,
    known::{Bursts, assert_kept, beside},
    lanes::{GUEST_CPUS, Test},
    provoke::Workload,
    schedstat, skip, test,
    time::{NS, eventually, host_or_guest, let_pass, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

pub(crate) const TESTS: &[Test] = &[
    test!(blocked_is_one_task_each_and_ages_are_true),
    test!(every_short_episode_is_counted).contract(),
    test!(what_is_frozen_is_not_blocked),
    test!(run_and_wait_are_those_of_schedstat)
        .contract()
        .needs(&[GUEST_CPUS]),
    test!(what_sleeps_does_not_wait).needs(&[GUEST_CPUS]),
    test!(short_lived_processes_are_counted).needs(&[GUEST_CPUS]),
    test!(a_cgroup_has_what_its_tasks_used).needs(&[GUEST_CPUS]),
    test!(throttled_is_told_from_waiting)
        .contract()
        .needs(&[GUEST_CPUS]),
];

/// A figure of a process over snapshots, in seconds.
fn seconds_of(snapshots: &[Snapshot], pid: u32, figure: &str) -> f64 {
    let of = |s: &Snapshot| s.of_pid(pid, figure) * s.seconds();
    snapshots.iter().map(of).sum()
}

/// A workload's next line, and that it sleeps again then: what it ran and waited is in the
/// kernel's figures of it.
fn line_and_rest(workload: &mut Workload) -> String {
    let said = workload.line();
    let stat = format!("/proc/{}/stat", workload.pid());
    let sleeps = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") S "));
    assert!(
        eventually(10.0, sleeps),
        "it waits for the end of its input"
    );
    said
}

/// Three tasks in D for 30 s, one of them since before tracer.
fn blocked_is_one_task_each_and_ages_are_true() {
    let vfork = || {
        let mut workload = Workload::ready(&["vfork", "30000"]);
        workload.go();
        let began: u64 = workload.line().parse().expect("a time");
        (workload, began)
    };
    let early = vfork();
    let_pass(2.0);
    let mut tracer = beside(&["--interval", "1s"]);
    tracer.shows_stacks = false;
    tracer.snapshot();
    let late = [vfork(), vfork()];
    // The interval in which they began is not full.
    let mut snapshots = vec![tracer.snapshot_after(wall_ns())];
    snapshots.extend(tracer.snapshots(host_or_guest(23, 5)));
    for (workload, began) in late.iter().chain([&early]) {
        for snapshot in &snapshots {
            // The interval is exact, and the block lasts through it.
            let blocked = snapshot.of_pid(workload.pid(), "blocked");
            assert_near("blocked", blocked, 1.0, 0.02);
            let age = snapshot
                .blocked_age_ns(workload.pid())
                .expect("it is blocked");
            let expected = snapshot.wall_ns() - began;
            // A CPU that stands still adds to the offset between the clocks, until a
            // better reading comes. And from its word to its wait for the child it may
            // wait for a CPU: no longer than it ever did.
            let waited_ms = schedstat::of_task(workload.pid()).1 as f64 / 1e6;
            let tolerance = host_or_guest(10.0, 100.0) + waited_ms;
            assert_near(
                "age in ms",
                age as f64 / 1e6,
                expected as f64 / 1e6,
                tolerance,
            );
        }
    }
    let (_, end, status) = tracer.finish();
    assert!(status.success());
    assert_kept(&end);
    assert_longest(&end["totals"]["episodes"], early.0.pid());
}

/// The longest episodes are sorted, and that of a process is among them, open; unless all
/// of them are as long as it was seen: other tasks may be blocked for longer.
fn assert_longest(episodes: &Value, pid: u32) {
    /// So many are kept.
    const KEPT: usize = 10;
    let episodes = episodes.as_array().expect("episodes");
    let length = |episode: &Value| number(&episode["length_ns"]);
    assert!(
        episodes.is_sorted_by(|a, b| length(a) >= length(b)),
        "the longest come first: {episodes:?}"
    );
    match episodes.iter().position(|episode| episode["pid"] == pid) {
        Some(place) => {
            println!("{place} episodes of others are longer");
            assert_eq!(episodes[place]["open"], true);
        }
        None => {
            let least = host_or_guest(25.0, 7.0) * NS;
            let is_longer = |episode| length(episode) >= least;
            let others = episodes.iter().filter(|episode| is_longer(episode));
            assert!(others.count() >= KEPT, "it is missing: {episodes:?}");
        }
    }
}

/// Bursts: 50 ms in every 100 ms, for 10 s.
fn every_short_episode_is_counted() {
    let count: u32 = host_or_guest(100, 60);
    let mut workload = Workload::ready(&["burst-measured", "50", "100", &count.to_string()]);
    let pid = workload.pid();
    let mut tracer = Tracer::shared();
    workload.go();
    let (line, snapshots) = tracer.during(|| {
        let line = workload.line();
        assert_eq!(workload.line(), "done");
        line
    });
    let Bursts {
        slept,
        waited_s,
        lengths_ns,
    } = Bursts::of(&line);
    // While its parent stands still or waits for a CPU, the child sleeps on; it may have
    // slept enough before its parent comes to wait for it, which then is not blocked.
    let missed = f64::from(count) * 0.1;
    assert_near("sleeps", slept as f64, count.into(), missed);
    let episodes: f64 = snapshots.iter().map(|s| s.of_pid(pid, "episodes")).sum();
    assert_near("episodes", episodes, slept as f64, 0.0);
    // Of 50 ms at least, or they would not say much.
    let blocked_s = lengths_ns.iter().sum::<u64>() as f64 / NS;
    assert!(blocked_s >= 0.045 * slept as f64, "{blocked_s} s");
    // By its own clock, less its CPU time and its wait for a CPU, which the kernel counts
    // from a moment after the waking on: on an emulated CPU that is a while.
    let tolerance = blocked_s * host_or_guest(0.02, 0.1);
    // From 6.12 the kernel may call a part of the sleep a wait.
    let longer = if kernel::delays_dequeue() {
        waited_s
    } else {
        0.0
    };
    let blocked = seconds_of(&snapshots, pid, "blocked");
    println!("blocked in s: {blocked:.4}, expected {blocked_s:.4} to {longer:.4} more");
    assert!(
        blocked >= blocked_s - tolerance,
        "{blocked} s, less than {blocked_s}"
    );
    assert!(
        blocked <= blocked_s + longer + tolerance,
        "{blocked} s, more than {blocked_s}"
    );
}

/// What is frozen is D to procfs, and nothing to the load: neither a task that was stopped
/// as it ran, nor one that slept.
fn what_is_frozen_is_not_blocked() {
    let mut runs = Workload::nicely(&["hog", "1", "60000"]);
    let sleeps = Workload::ready(&["sleepers", "0"]);
    let freezer = match Freezer::new() {
        Ok(freezer) => freezer,
        Err(e) => skip!("what_is_frozen_is_not_blocked", "no freezer of v1: {e}"),
    };
    for pid in [runs.pid(), sleeps.pid()] {
        freezer.take(pid).expect("it lives");
    }
    let mut tracer = Tracer::shared();
    tracer.snapshot();
    runs.go();
    let is_running = |snapshot: &Snapshot| snapshot.of_pid(runs.pid(), "running") > 0.0;
    let ran = eventually(20.0, || is_running(&tracer.snapshot()));
    assert!(ran, "it runs before it is frozen");
    freezer.freeze();
    for pid in [runs.pid(), sleeps.pid()] {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        assert!(stat.contains(") D "), "{stat}");
    }
    // Of the interval in which it was frozen it ran a part.
    tracer.snapshot_after(wall_ns());
    for snapshot in tracer.snapshots(3) {
        for pid in [runs.pid(), sleeps.pid()] {
            assert!(snapshot.blocked(pid).is_none(), "{pid} is blocked");
            for figure in ["running", "waiting", "blocked"] {
                assert_eq!(snapshot.of_pid(pid, figure), 0.0, "{pid} {figure}");
            }
        }
    }
}

/// Hogs, twice as many as CPUs: run and wait against schedstat.
fn run_and_wait_are_those_of_schedstat() {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let seconds: usize = host_or_guest(10, 6);
    let ms = (seconds * 1000).to_string();
    // Each begins on the CPU where it stays: one that is moved while it sleeps has the sleep
    // in the kernel's figure from 6.12 on (`affinity::stay`), also if it sleeps on after it.
    let mut hogs: Vec<_> = (0..cpus * 2)
        .map(|n| {
            let _on = Stay::on(n % cpus);
            Workload::ready(&["hog", "1", &ms, "nicely"])
        })
        .collect();
    let mut tracer = Tracer::shared();
    tracer.snapshot();
    let read = |hogs: &[Workload]| -> Vec<_> {
        let hogs = hogs.iter();
        hogs.map(|hog| schedstat::of_process(hog.pid())).collect()
    };
    let before = read(&hogs);
    hogs.iter_mut().for_each(Workload::go);
    let lines = |hogs: &mut [Workload]| hogs.iter_mut().map(line_and_rest).collect::<Vec<_>>();
    let (said, snapshots) = tracer.during(|| lines(&mut hogs));
    assert!(said.iter().all(|line| line == "done"), "{said:?}");
    // All hogs sleep: none is in a wait that schedstat would not have yet.
    let after = read(&hogs);
    tracer.assert_averages();
    for (hog, (before, after)) in hogs.iter().zip(before.iter().zip(&after)) {
        let total = |figure: &str| seconds_of(&snapshots, hog.pid(), figure);
        let (run, wait) = (after.0 - before.0, after.1 - before.1);
        let (run, wait) = (run as f64 / NS, wait as f64 / NS);
        // Besides 0.3 %, 5 ms: an interval with less than 2.5 ms of a process has no row
        // for it, and there are two that it does not fill.
        let tolerance = |all: f64| all * 0.003 + 0.005;
        assert_near("run in s", total("running"), run, tolerance(run));
        assert_near("wait in s", total("waiting"), wait, tolerance(wait));
    }
}

/// Threads that run a little, sleep a lot and are moved from CPU to CPU. From 6.12
/// one that sleeps can still be queued; when it is moved then, the kernel calls its
/// sleep run delay (`sched_info_enqueue`, kernel/sched/stats.h).
fn what_sleeps_does_not_wait() {
    let seconds: usize = host_or_guest(10, 6);
    let ms = (seconds * 1000).to_string();
    let mut hog = Workload::nicely(&["hog", "1", &ms]);
    let mut naps = Workload::ready(&["naps", "12", "2", "60", &ms]);
    let mut tracer = Tracer::shared();
    tracer.snapshot();
    hog.go();
    naps.go();
    let pid = naps.pid();
    let shuffle = Shuffle::of(pid);
    let (most, snapshots) = tracer.during(|| {
        let most = naps.line().parse::<f64>().expect("a time") / NS;
        drop(shuffle);
        assert_eq!(naps.line(), "done");
        most
    });
    let by_kernel = schedstat::of_process(pid).1 as f64 / NS;
    let sum = |figure: &str| seconds_of(&snapshots, pid, figure);
    let total = sum("waiting");
    assert!(sum("running") > 0.1, "it is seen: {}", sum("running"));
    // What a thread neither ran nor had asked to sleep is its wait, and timers that
    // came late. A wait that began at a waking is known to some microseconds.
    println!("waiting: {total:.4} s, at most {most:.4} s; by schedstat {by_kernel:.4} s");
    // The thread that starts them and is woken by the last of them waits, too.
    let most = most * 1.01 + 0.1;
    assert!(total <= most, "{total} s is more than {most} s");
}

/// 200 processes a second that live for 5 ms of CPU.
fn short_lived_processes_are_counted() {
    let cgroup = match Cgroup::new("tracer-storm") {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("short_lived_processes_are_counted", "no cpu cgroup: {e}"),
    };
    // An emulated CPU takes longer to make a process than the process lives.
    let (rate, length_s): (u32, u32) = host_or_guest((200, 10), (40, 6));
    let (each_s, ms) = (rate.to_string(), (length_s * 1000).to_string());
    // A name of its own: others of the same name would be counted, too.
    let name = format!("storm-{}", std::process::id());
    let args = ["storm", &each_s, "5", &ms, &name];
    let mut storm = Workload::ready_in(&args, &cgroup.directories());
    let (pid, count) = (storm.pid(), f64::from(rate * length_s));
    // The totals of the end have the ten largest groups alone. By name, the storm is one
    // of them, whatever else runs.
    let mut of_name = beside(&["--interval", "1s", "--by", "comm"]);
    of_name.shows_stacks = false;
    let mut of_each = Tracer::shared();
    let before = cgroup.usage_ns();
    storm.go();
    // Until the last children have ended: on a busy host hundreds of them pile up.
    let until_all_ended = || {
        let said = storm.line();
        let is_alone = eventually(60.0, || cgroup.processes() <= 1);
        assert!(is_alone, "{} processes", cgroup.processes());
        said
    };
    let ((said, snapshots), _) = of_name.during(|| of_each.during(until_all_ended));
    assert_eq!(said, "done");
    let used = (cgroup.usage_ns() - before) as f64 / NS;
    let mut end = of_name.finish().1;
    assert_kept(&end);
    let totals = end["totals"].take();
    let seconds = number(&totals["duration_ns"]) / NS;
    let sum = |figure: &str| -> f64 {
        let groups = totals["groups"].as_array().expect("groups").iter();
        groups
            .filter(|group| group["comm"] == name.as_str())
            .map(|group| number(&group[figure]))
            .sum()
    };
    assert_near("exited", sum("exited"), count, 0.0);
    assert_near("CPU in s", sum("running") * seconds, used, used * 0.03);
    // By process those that have ended are a row, unless they did so little in an interval
    // that it is part of `other`.
    let is_storm = |group: &Value| group["comm"] == name.as_str();
    let of = |s: &Snapshot| s.sum("running", is_storm) * s.seconds();
    let running: f64 = snapshots.iter().map(of).sum();
    println!(
        "the storm itself: {:.3} s",
        seconds_of(&snapshots, pid, "running")
    );
    assert_near("CPU in s by process", running, used, used * 0.03);
}

/// The same by cgroup: the group has the cgroup's path.
fn a_cgroup_has_what_its_tasks_used() {
    let cgroup = match Cgroup::new("tracer-group") {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("a_cgroup_has_what_its_tasks_used", "no cpu cgroup: {e}"),
    };
    let seconds: usize = host_or_guest(6, 4);
    let ms = (seconds * 1000).to_string();
    let mut hog = Workload::nicely_in(&["hog", "2", &ms], &cgroup.directories());
    let mut tracer = beside(&["--interval", "1s", "--by", "cgroup"]);
    tracer.shows_stacks = false;
    tracer.snapshot();
    let before = cgroup.usage_ns();
    hog.go();
    let (said, snapshots) = tracer.during(|| hog.line());
    assert_eq!(said, "done");
    let used = (cgroup.usage_ns() - before) as f64 / NS;
    let is_it = |group: &serde_json::Value| group["cgroup"] == cgroup.name.as_str();
    let total: f64 = snapshots
        .iter()
        .map(|s| s.sum("running", is_it) * s.seconds())
        .sum();
    // A second with less than 5 ms of a group has no row for it, and there are two that it
    // does not fill.
    assert_near("CPU in s", total, used, used * 0.003 + 0.01);
    assert_kept(&tracer.finish().1);
    hog.end();
}

/// One thread limited to 10 % of a CPU.
fn throttled_is_told_from_waiting() {
    let cgroup = match Cgroup::new("tracer-limit") {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("throttled_is_told_from_waiting", "no cpu cgroup: {e}"),
    };
    if let Err(e) = cgroup.limit(10_000) {
        skip!("throttled_is_told_from_waiting", "no bandwidth limits: {e}");
    }
    let ms = host_or_guest("8000", "6000");
    let mut hog = Workload::ready_in(&["hog", "1", ms], &cgroup.directories());
    let pid = hog.pid();
    let mut tracer = Tracer::shared();
    // What it did to become ready was in the interval before.
    tracer.snapshot_after(wall_ns());
    let (run_before, before) = (schedstat::of_process(pid).0, cgroup.throttled_ns());
    let began_ns = wall_ns();
    hog.go();
    let ((said, elapsed), snapshots) = tracer.during(|| {
        let said = line_and_rest(&mut hog);
        (said, (wall_ns() - began_ns) as f64 / NS)
    });
    assert_eq!(said, "done");
    // It sleeps, and the next period has begun: none of its time is still to be counted.
    let run = (schedstat::of_process(pid).0 - run_before) as f64 / NS;
    let throttled = (cgroup.throttled_ns() - before) as f64 / NS;
    let total = |figure: &str| seconds_of(&snapshots, pid, figure);
    // Other load makes it wait, and leaves less of its time to be throttled.
    let share = throttled / elapsed;
    assert!(share > 0.2, "it needs to be throttled, and was for {share}");
    let tolerance = throttled * host_or_guest(0.05, 0.1);
    assert_near("throttled in s", total("throttled"), throttled, tolerance);
    // As in `run_and_wait_are_those_of_schedstat`.
    let tolerance = run * 0.003 + 0.005;
    assert_near("running in s", total("running"), run, tolerance);
    // What it neither ran nor was throttled of its time it waited, for others.
    let all = total("running") + total("waiting") + total("throttled");
    let tolerance = elapsed * host_or_guest(0.02, 0.05);
    assert_near("all in s", all, elapsed, tolerance);
    let waiting = elapsed - run - throttled;
    let tolerance = elapsed * host_or_guest(0.05, 0.1);
    assert_near("waiting in s", total("waiting"), waiting, tolerance);
    hog.end();
}
