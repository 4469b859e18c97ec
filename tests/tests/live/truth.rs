//! Truth: tracer's figures against the kernel's own counters, on this kernel.

use tests::{
    affinity::Shuffle,
    assert_near,
    cgroup::Cgroup,
    provoke::Workload,
    schedstat, skip,
    time::{NS, host_or_guest, let_pass, wall_ns},
    tracer::{Snapshot, Tracer, mean, number},
};

/// Three tasks in D for 30 s, one of them since before tracer.
#[test]
fn blocked_is_one_task_each_and_ages_are_true() {
    let vfork = || {
        let mut workload = Workload::ready(&["vfork", "30000"]);
        workload.go();
        let began: u64 = workload.line().parse().expect("a time");
        (workload, began)
    };
    let early = vfork();
    let_pass(2.0);
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    tracer.snapshot();
    let late = [vfork(), vfork()];
    // The interval in which they began is not full.
    let mut snapshots = vec![tracer.snapshot_after(wall_ns())];
    snapshots.extend(tracer.snapshots(host_or_guest(23, 5)));
    for (workload, began) in late.iter().chain([&early]) {
        for snapshot in &snapshots {
            // The interval is exact, the block lasts through it: the tolerance is the issue's.
            let blocked = snapshot.of_pid(workload.pid(), "blocked");
            assert_near("blocked", blocked, 1.0, 0.02);
            let age = snapshot
                .blocked_age_ns(workload.pid())
                .expect("it is blocked");
            let expected = snapshot.wall_ns() - began;
            // A CPU that stands still adds to the offset between the clocks, until a
            // better reading comes.
            let tolerance = host_or_guest(10.0, 100.0);
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
    let longest = &end["totals"]["episodes"][0];
    assert_eq!(longest["pid"], early.0.pid(), "{longest}");
    assert_eq!(longest["open"], true);
}

/// Bursts: 50 ms in every 100 ms, for 10 s.
#[test]
fn every_short_episode_is_counted() {
    let count: u32 = host_or_guest(100, 60);
    let mut workload = Workload::ready(&["burst", "50", "100", &count.to_string()]);
    let pid = workload.pid();
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    let began_ns = wall_ns();
    workload.go();
    let ((said, ended_ns), mut snapshots) = tracer.during(|| (workload.line(), wall_ns()));
    assert_eq!(said, "done");
    let episodes: f64 = snapshots.iter().map(|s| s.of_pid(pid, "episodes")).sum();
    // While an emulated CPU stands still, the child sleeps for longer; it may have slept
    // enough before its parent comes to wait for it, which then is not blocked.
    let missed = host_or_guest(0.0, 2.0);
    assert_near("episodes", episodes, count.into(), missed);
    // 50 ms is what the child sleeps; waking and exit add some 0.1 ms each.
    snapshots.retain(|s| s.began_ns() >= began_ns && s.wall_ns() <= ended_ns);
    assert_near(
        "blocked",
        mean(&snapshots, |s| s.of_pid(pid, "blocked")),
        0.5,
        host_or_guest(0.03, 0.1),
    );
}

/// Hogs, twice as many as CPUs: run and wait against schedstat.
#[test]
fn run_and_wait_are_those_of_schedstat() {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let seconds: usize = host_or_guest(10, 6);
    let ms = (seconds * 1000).to_string();
    let mut hogs: Vec<_> = (0..cpus * 2)
        .map(|_| Workload::ready(&["hog", "1", &ms]))
        .collect();
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    tracer.snapshot();
    let read = |hogs: &[Workload]| -> Vec<_> {
        let hogs = hogs.iter();
        hogs.map(|hog| schedstat::of_process(hog.pid())).collect()
    };
    let before = read(&hogs);
    hogs.iter_mut().for_each(Workload::go);
    let lines = |hogs: &mut [Workload]| hogs.iter_mut().map(Workload::line).collect::<Vec<_>>();
    let (said, snapshots) = tracer.during(|| lines(&mut hogs));
    assert!(said.iter().all(|line| line == "done"), "{said:?}");
    // All hogs sleep: none is in a wait that schedstat would not have yet.
    let after = read(&hogs);
    tracer.assert_averages();
    for (hog, (before, after)) in hogs.iter().zip(before.iter().zip(&after)) {
        let total = |figure: &str| -> f64 {
            snapshots
                .iter()
                .map(|s| s.of_pid(hog.pid(), figure) * s.seconds())
                .sum()
        };
        // 0.3 %: a second with less than 5 ms of a process has no row for it.
        let (run, wait) = (after.0 - before.0, after.1 - before.1);
        let (run, wait) = (run as f64 / NS, wait as f64 / NS);
        assert_near("run in s", total("running"), run, run * 0.003);
        assert_near("wait in s", total("waiting"), wait, wait * 0.003);
    }
}

/// Threads that run a little, sleep a lot and are moved from CPU to CPU. From 6.12
/// one that sleeps can still be queued; when it is moved then, the kernel calls its
/// sleep run delay (`sched_info_enqueue`, kernel/sched/stats.h).
#[test]
fn what_sleeps_does_not_wait() {
    let seconds: usize = host_or_guest(10, 6);
    let ms = (seconds * 1000).to_string();
    let mut hog = Workload::ready(&["hog", "1", &ms]);
    let mut naps = Workload::ready(&["naps", "12", "2", "60", &ms]);
    let mut tracer = Tracer::start(&["--interval", "1s"]);
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
    let sum = |figure: &str| -> f64 {
        let sum = |s: &Snapshot| s.of_pid(pid, figure) * s.seconds();
        snapshots.iter().map(sum).sum()
    };
    let total = sum("waiting");
    assert!(sum("running") > 0.1, "it is seen: {}", sum("running"));
    // What a thread neither ran nor had asked to sleep is its wait, and timers that
    // came late. A wait that began at a waking is known to some microseconds.
    println!("waiting: {total:.4} s, at most {most:.4} s; by schedstat {by_kernel:.4} s");
    // Threads also wait before they begin, and so does the one that started them.
    let most = most * 1.01 + 0.1;
    assert!(total <= most, "{total} s is more than {most} s");
}

/// 200 processes a second that live for 5 ms of CPU.
#[test]
fn short_lived_processes_are_counted() {
    let cgroup = match Cgroup::new("tracer-storm") {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("short_lived_processes_are_counted", "no cpu cgroup: {e}"),
    };
    // An emulated CPU takes longer to make a process than the process lives.
    let (rate, length_s): (u32, u32) = host_or_guest((200, 10), (40, 6));
    let (each_s, ms) = (rate.to_string(), (length_s * 1000).to_string());
    let mut storm = Workload::ready_in(&["storm", &each_s, "5", &ms], &cgroup.directories());
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    let before = cgroup.usage_ns();
    storm.go();
    // With an interval more, in which the last children end.
    let (said, _) = tracer.during(|| storm.line());
    assert_eq!(said, "done");
    let used = (cgroup.usage_ns() - before) as f64 / NS;
    // Of the whole run: a row of an interval in which a single one ended is so
    // small that it is part of `other`.
    let totals = tracer.finish().1["totals"].take();
    let seconds = number(&totals["duration_ns"]) / NS;
    let sum = |figure: &str| -> f64 {
        let groups = totals["groups"].as_array().expect("groups").iter();
        groups
            .filter(|group| group["comm"] == "storm")
            .map(|group| number(&group[figure]))
            .sum()
    };
    assert_near("exited", sum("exited"), f64::from(rate * length_s), 0.0);
    assert_near("CPU in s", sum("running") * seconds, used, used * 0.03);
}

/// The same by cgroup: the group has the cgroup's path.
#[test]
fn a_cgroup_has_what_its_tasks_used() {
    let cgroup = match Cgroup::new("tracer-group") {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("a_cgroup_has_what_its_tasks_used", "no cpu cgroup: {e}"),
    };
    let seconds: usize = host_or_guest(6, 4);
    let ms = (seconds * 1000).to_string();
    let mut hog = Workload::ready_in(&["hog", "2", &ms], &cgroup.directories());
    let mut tracer = Tracer::start(&["--interval", "1s", "--by", "cgroup"]);
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
    // A second with less than 5 ms of a group has no row for it.
    assert_near("CPU in s", total, used, used * 0.003);
    hog.end();
}

/// One thread limited to 20 % of a CPU.
#[test]
fn throttled_is_told_from_waiting() {
    let cgroup = match Cgroup::new("tracer-limit") {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("throttled_is_told_from_waiting", "no cpu cgroup: {e}"),
    };
    if let Err(e) = cgroup.limit(20_000) {
        skip!("throttled_is_told_from_waiting", "no bandwidth limits: {e}");
    }
    let mut hog = Workload::ready_in(&["hog", "1", "17000"], &cgroup.directories());
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    hog.go();
    tracer.snapshots(2);
    let before = cgroup.throttled_ns();
    let snapshots = tracer.snapshots(host_or_guest(12, 6));
    let seconds: f64 = snapshots.iter().map(Snapshot::seconds).sum();
    let throttled = (cgroup.throttled_ns() - before) as f64 / NS;
    let total = |figure: &str| -> f64 {
        snapshots
            .iter()
            .map(|s| s.of_pid(hog.pid(), figure) * s.seconds())
            .sum()
    };
    // The kernel's own is read when the test gets to it.
    let tolerance = throttled * host_or_guest(0.05, 0.1);
    assert_near("throttled in s", total("throttled"), throttled, tolerance);
    assert_near("running in s", total("running"), 0.2 * seconds, 0.2);
    assert_near("waiting in s", total("waiting"), 0.0, 0.05 * seconds);
    hog.end();
}

/// Hogs, sleepers in D and a fork storm for two minutes: the kernel's samples.
///
/// A CPU that stands still for longer than the kernel waits for its count, ten
/// ticks, is counted as it was five seconds before, and nobody can say who that
/// was. An emulated one does now and then: a guest that begins with too many
/// such samples is watched for longer, and half of them may be off.
#[test]
fn the_kernels_samples_are_named() {
    let (seconds, longest): (u32, u32) = host_or_guest((121, 121), (26, 61));
    let ms = ((longest + 1) * 1000).to_string();
    let bursts = (longest * 1000 / 70).to_string();
    let storms = host_or_guest("100", "20");
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    let hog = || Workload::ready(&["hog", "1", &ms]);
    let sleeper = || Workload::ready(&["vfork", &ms]);
    let burst = || Workload::ready(&["burst", "30", "70", &bursts]);
    let storm = || Workload::ready(&["storm", storms, "5", &ms]);
    let mut all = [hog(), hog(), hog(), sleeper(), sleeper(), burst(), storm()];
    all.iter_mut().for_each(Workload::go);
    let (least, most_off) = host_or_guest((0.95, 0.1), (0.5, 5.0));
    let mut snapshots = tracer.snapshots(seconds as usize);
    let is_good = |found: &Samples| found.share() >= least && found.off() <= most_off;
    while !is_good(&Samples::of(&snapshots)) && snapshots.len() < longest as usize {
        snapshots.extend(tracer.snapshots(5));
    }
    let found = Samples::of(&snapshots);
    println!("kernel samples (counted, named): {:?}", found.0);
    println!("named equals counted in {:.1} %", found.share() * 100.0);
    // One every 5 s and a tick.
    let expected = snapshots.iter().map(Snapshot::seconds).sum::<f64>() / 5.004;
    assert_near("samples", found.0.len() as f64, expected, 1.0);
    assert!(is_good(&found), "off by {} on average", found.off());
    let last = tracer.assert_averages();
    // What was named is what the load is made of, from the first sample on.
    let unexplained = number(&last.0["load"]["unexplained"]["load1"]);
    let tolerance = host_or_guest(0.1, most_off);
    assert_near("unexplained load1", unexplained, 0.0, tolerance);
}

/// The kernel's samples of a run: (counted, named).
struct Samples(Vec<(i64, i64)>);

impl Samples {
    fn of(snapshots: &[Snapshot]) -> Self {
        Self(snapshots.iter().flat_map(Snapshot::samples).collect())
    }

    /// Share of those that were named to the last task.
    fn share(&self) -> f64 {
        let exact = self.0.iter().filter(|(active, named)| active == named);
        exact.count() as f64 / self.0.len() as f64
    }

    /// By how many tasks the names were off, on average.
    fn off(&self) -> f64 {
        let off = self.0.iter().map(|(active, named)| active.abs_diff(*named));
        off.sum::<u64>() as f64 / self.0.len() as f64
    }
}
