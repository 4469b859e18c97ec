//! Truth: tracer's figures against the kernel's own counters, on this kernel.

use std::fs;

use serde_json::Value;
use tests::{
    affinity::Shuffle,
    assert_near,
    cgroup::Cgroup,
    kernel,
    known::{Bursts, assert_kept, beside},
    lanes::{
        GUEST_CPUS, Test,
        stream::{losses, recorded},
    },
    memory::host_oom_kills,
    provoke::Workload,
    schedstat, skip, test,
    time::{NS, eventually, host_or_guest, let_pass, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

pub(crate) const TESTS: &[Test] = &[
    test!(the_load_of_the_samples)
        .contract()
        .needs(&[GUEST_CPUS])
        .limit_s(240),
    test!(blocked_is_one_task_each_and_ages_are_true),
    test!(every_short_episode_is_counted).contract(),
    test!(run_and_wait_are_those_of_schedstat)
        .contract()
        .needs(&[GUEST_CPUS]),
    test!(what_sleeps_does_not_wait).needs(&[GUEST_CPUS]),
    test!(short_lived_processes_are_counted).needs(&[GUEST_CPUS]),
    test!(a_cgroup_has_what_its_tasks_used).needs(&[GUEST_CPUS]),
    test!(throttled_is_told_from_waiting)
        .contract()
        .needs(&[GUEST_CPUS]),
    test!(kills_are_those_that_the_kernel_counts).stream(),
    test!(the_kernels_samples_are_named)
        .stream()
        .contract()
        .limit_s(300),
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

/// Hogs, twice as many as CPUs: run and wait against schedstat.
fn run_and_wait_are_those_of_schedstat() {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let seconds: usize = host_or_guest(10, 6);
    let ms = (seconds * 1000).to_string();
    let mut hogs: Vec<_> = (0..cpus * 2)
        .map(|_| Workload::ready(&["hog", "1", &ms, "nicely"]))
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
    // With an interval more, in which the last children end.
    let ((said, snapshots), _) = of_name.during(|| of_each.during(|| storm.line()));
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

/// How long the load of the kernel's samples lasts, in s: at least, and where too many of
/// them were missed.
fn length_of_samples() -> (u32, u32) {
    host_or_guest((121, 121), (26, 61))
}

/// Hogs, sleepers in D, a burst and a fork storm, for so many seconds.
struct SampledLoad(Vec<Workload>);

impl SampledLoad {
    fn begin(seconds: u32) -> Self {
        let ms = ((seconds + 1) * 1000).to_string();
        let bursts = (seconds * 1000 / 70).to_string();
        let storms = host_or_guest("100", "20");
        let hog = || Workload::nicely(&["hog", "1", &ms]);
        let sleeper = || Workload::ready(&["vfork", &ms]);
        let burst = || Workload::ready(&["burst", "30", "70", &bursts]);
        // Not `storm`: those are counted by their name.
        // Before the hogs: its processes would pile up behind them, by the hundred.
        let storm = || Workload::ready(&["storm", storms, "5", &ms, "shower"]);
        let mut all = vec![hog(), hog(), hog(), sleeper(), sleeper(), burst(), storm()];
        all.iter_mut().for_each(Workload::go);
        Self(all)
    }
}

/// What `the_kernels_samples_are_named` looks at, beside all that other tests do.
fn the_load_of_the_samples() {
    if recorded().is_none() {
        println!("the test of the samples makes the load itself");
        return;
    }
    let (seconds, _) = length_of_samples();
    let load = SampledLoad::begin(seconds);
    let_pass(f64::from(seconds));
    assert_eq!(load.0.len(), 7);
}

/// Hogs, sleepers in D and a fork storm for two minutes: the kernel's samples. Beside other
/// tests: all the samples of their time.
///
/// A CPU that stands still for longer than the kernel waits for its count, ten
/// ticks, is counted as it was five seconds before, and nobody can say who that
/// was. An emulated one does now and then: a guest that begins with too many
/// such samples is watched for longer, and half of them may be off.
fn the_kernels_samples_are_named() {
    let heard = recorded().map(|(lines, _)| Heard::of(lines));
    // One that was asked for without the load beside it makes it itself.
    let is_enough = |heard: &Heard| heard.seconds >= f64::from(length_of_samples().0);
    let (heard, is_shared) = match heard.filter(is_enough) {
        Some(heard) => (heard, true),
        None => (of_own_load(), false),
    };
    let last = heard.last.as_ref().expect("a snapshot");
    let lost = losses(&last.0);
    let lost = |reason: &str| lost.get(reason).copied().unwrap_or(0);
    let cut = lost("fold_list_cut");
    let mut found = heard.samples;
    println!("kernel samples (counted, named): {:?}", found.0);
    println!("named equals counted in {:.1} %", found.share() * 100.0);
    // One every 5 s and a tick.
    let expected = heard.seconds / 5.004;
    let tolerance = 1.0 + lost("kernel_sample") as f64;
    assert_near("samples", found.0.len() as f64, expected, tolerance);
    // A queue that is too long, or changes meanwhile, cannot be named in full; it is told.
    found.leave_out(cut);
    println!("off by {:.3} on average", found.off());
    assert!(
        found.is_good(is_shared),
        "off by {} on average",
        found.off()
    );
    // What was named is what the load is made of, from the first sample on.
    let unexplained = number(&last.0["load"]["unexplained"]["load1"]);
    let tolerance = most_off(is_shared);
    assert_near("unexplained load1", unexplained, 0.0, tolerance);
    if is_shared {
        // One of a test's own is held to what may be lost in every snapshot.
        for (reason, count) in losses(&last.0) {
            let most = may_lose(&reason, heard.seconds);
            println!("lost: {count} {reason}, at most {most}");
            assert!(count <= most, "lost: {count} {reason}, at most {most}");
        }
    }
}

/// With a tracer of its own.
fn of_own_load() -> Heard {
    let (seconds, longest) = length_of_samples();
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    let _load = SampledLoad::begin(longest);
    let mut heard = Heard::default();
    let take = |heard: &mut Heard, snapshots: Vec<Snapshot>| {
        snapshots.into_iter().for_each(|s| heard.take(s));
    };
    take(&mut heard, tracer.snapshots(seconds as usize));
    while !heard.samples.is_good(false) && heard.seconds < f64::from(longest) {
        take(&mut heard, tracer.snapshots(5));
    }
    heard.take(tracer.assert_averages());
    heard
}

/// How much may be lost of a reason while many tests run side by side for so long.
fn may_lose(reason: &str, seconds: f64) -> u64 {
    let times = |most: u64| most * (seconds / 30.0).ceil() as u64;
    match reason {
        // What one test may lose in its half minute, or less.
        "kernel_sample"
        | "waking_without_slot"
        | "task_storage"
        | "tcp_transition_unseen"
        | "tcp_transition_missed" => times(kernel::may_lose(reason)),
        // One that is reaped, and is kept from its last switch by others, is in no list of
        // tasks and has not been told of yet.
        "exit_unseen" => times(1),
        // A CPU has more tasks than can be named, or its queue changes meanwhile.
        "fold_list_cut" => times(1),
        _ => kernel::may_lose(reason),
    }
}

/// What was heard of a stream: no more of it than is asked for.
#[derive(Default)]
struct Heard {
    samples: Samples,
    seconds: f64,
    last: Option<Snapshot>,
}

impl Heard {
    fn of(lines: impl Iterator<Item = Value>) -> Self {
        let mut heard = Self::default();
        let snapshots = lines.filter(|line| line["type"] == "snapshot");
        snapshots.for_each(|line| heard.take(Snapshot(line)));
        heard
    }

    fn take(&mut self, snapshot: Snapshot) {
        self.samples.0.extend(snapshot.samples());
        self.seconds += snapshot.seconds();
        self.last = Some(snapshot);
    }
}

/// How many tasks the names may be off, on average; and how many beside other tests: CPUs
/// fold up to a tick apart, and every task that comes, goes or moves within it is counted
/// on one of them twice or not at all.
fn most_off(is_shared: bool) -> f64 {
    host_or_guest(if is_shared { 0.2 } else { 0.1 }, 5.0)
}

/// The kernel's samples of a run: (counted, named).
#[derive(Default)]
struct Samples(Vec<(i64, i64)>);

impl Samples {
    /// Whether as many were named as must be. Where many tests run side by side, many
    /// more tasks come and go while the CPUs count: of 500 one may be off.
    fn is_good(&self, is_shared: bool) -> bool {
        let counted: i64 = self.0.iter().map(|(active, _)| active.abs()).sum();
        let mean = counted as f64 / self.0.len() as f64;
        let most_off = most_off(is_shared).max(mean / 500.0);
        let least = host_or_guest(if is_shared { 0.9 } else { 0.95 }, 0.5);
        self.share() >= least && self.off() <= most_off
    }

    /// Leaves so many out, those that are off the most.
    fn leave_out(&mut self, most: u64) {
        let off = |(active, named): &(i64, i64)| active.abs_diff(*named);
        self.0.sort_by_key(off);
        let keeps = self.0.len().saturating_sub(most as usize);
        self.0.truncate(keeps);
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

/// All kills of the lane, by limits of cgroups and otherwise, are told, and each once.
fn kills_are_those_that_the_kernel_counts() {
    let Some((mut lines, before)) = recorded() else {
        println!("alone, each test of a kill counts its own");
        return;
    };
    // The kernel's count of the host, with each snapshot: since boot.
    let counted = |snapshot: &Value| number(&snapshot["oom"]["memory"]["oom_kills"]);
    let killed = |snapshot: &Value| number(&snapshot["oom"]["killed"]);
    let first = lines.find(|line| line["type"] == "snapshot");
    let first = first.expect("a snapshot");
    let mut groups = 0;
    let is_group = |line: &Value| line["group"].as_array().is_some_and(|all| !all.is_empty());
    let lines = lines.inspect(|line| groups += u32::from(is_group(line)));
    let last = Heard::of(lines).last.expect("another").0;
    let at_start = counted(&first) - killed(&first);
    println!("{before} before it began, {at_start} at its start");
    assert!(at_start >= before as f64, "none before the start is told");
    assert!(counted(&last) <= host_oom_kills() as f64);
    // Of a cgroup that is killed whole the kernel visits the first one again, and counts it
    // again if its memory is still there (`oom_kill_memcg_member`, mm/oom_kill.c).
    let twice = f64::from(groups) / 2.0;
    let expected = counted(&last) - at_start - twice;
    assert_near("killed", killed(&last), expected, twice);
}
