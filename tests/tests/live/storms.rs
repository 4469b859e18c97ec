//! Causes of blocked time in sum: devices, memory, lengths, storms, all at once.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;
use tests::{
    assert_near,
    filesystem::{Disk, FileSystem, Swap},
    known::{Bursts, Known, assert_kept, beside, named, numbers, tracer},
    lanes::{GUEST_CPUS, Test, VDA, VDB, stream::recorded},
    limits::Limited,
    provoke::Workload,
    schedstat, skip,
    sysctl::Sysctl,
    test,
    time::{NS, host_or_guest, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

pub(crate) const TESTS: &[Test] = &[
    test!(a_limited_disk_is_named_with_its_reader),
    test!(a_slow_disk_of_a_guest_is_named_with_its_reader)
        .guest("a host has no disk that slow")
        .needs(&[VDA])
        .contract(),
    test!(reclaim_of_a_cgroup_has_causes).needs(&[VDB, GUEST_CPUS]),
    test!(swapping_in_a_cgroup_has_causes)
        .serial("a swap area is for all: what others are to be killed for is swapped out")
        .needs(&[VDB]),
    test!(lengths_are_counted_in_their_buckets)
        .serial("lengths are of all tasks with a cause, and others vfork too"),
    test!(a_storm_of_episodes_is_counted)
        .serial("it fills the rings, and counts all that vforked on the host"),
    test!(a_mixture_has_causes).needs(&[GUEST_CPUS]),
    test!(all_that_was_blocked_has_causes).stream().limit_s(240),
];

/// A figure of snapshots, in seconds.
fn seconds_of(snapshots: &[Snapshot], figure: impl Fn(&Snapshot) -> f64) -> f64 {
    snapshots.iter().map(|s| figure(s) * s.seconds()).sum()
}

/// Rows of a snapshot's table, with the blocked time of one of their waiters.
fn of_waiter<'a>(s: &'a Snapshot, table: &str, pid: u32) -> Vec<(&'a Value, f64)> {
    let rows = s.0[table].as_array().expect("a table").iter();
    let of_row = |row: &'a Value| {
        let waiters = row["waiters"].as_array().expect("waiters");
        let waiter = waiters.iter().find(|waiter| waiter["pid"] == pid)?;
        Some((row, number(&waiter["blocked"])))
    };
    rows.filter_map(of_row).collect()
}

/// Seconds that a process was blocked at a device.
fn at_device(snapshots: &[Snapshot], device: &str, pid: u32) -> f64 {
    seconds_of(snapshots, |s| {
        let rows = of_waiter(s, "devices", pid).into_iter();
        rows.filter(|(row, _)| row["device"] == device)
            .map(|(_, blocked)| blocked)
            .sum()
    })
}

/// What a process was blocked by, in seconds, by cause.
fn by_cause(snapshots: &[Snapshot], is_wanted: impl Fn(&Value) -> bool) -> BTreeMap<String, f64> {
    let mut causes = BTreeMap::new();
    for snapshot in snapshots {
        let groups = snapshot.0["load"]["groups"].as_array().expect("groups");
        for group in groups.iter().filter(|group| is_wanted(group)) {
            for share in group["causes"].as_array().expect("causes") {
                let cause = share["cause"].as_str().expect("a cause").to_owned();
                let s = number(&share["blocked"]) * snapshot.seconds();
                *causes.entry(cause).or_default() += s;
                if share["cause"] == "unknown" {
                    println!("unknown: {} {}: {s:.4} s", group["comm"], share["detail"]);
                }
            }
        }
    }
    for (cause, s) in &causes {
        println!("{cause}: {s:.4} s");
    }
    causes
}

/// Reads past the page cache, a few a second.
fn a_limited_disk_is_named_with_its_reader() {
    const A_SECOND: u32 = 5;
    let disk = match Disk::new() {
        Ok(disk) => disk,
        Err(e) => skip!(
            "a_limited_disk_is_named_with_its_reader",
            "no loop device: {e}"
        ),
    };
    let limit = match Limited::reads("tracer-reads", disk.device(), A_SECOND) {
        Ok(limit) => limit,
        Err(e) => skip!("a_limited_disk_is_named_with_its_reader", "no limit: {e}"),
    };
    let device = disk.device().to_str().expect("UTF-8");
    let reads = host_or_guest(40, 20).to_string();
    let reader = Workload::ready_in(&["read", device, &reads], &[limit.directory()]);
    let device = device.trim_start_matches("/dev/");
    let found = read(reader, &["disk", "io limit"]);
    let blocked = at_device(&found.snapshots, device, found.pid);
    // An emulated CPU waits for one of its host's now and then.
    let tolerance = found.blocked_s * host_or_guest(0.05, 0.25);
    assert_near("s at the device", blocked, found.blocked_s, tolerance);
}

/// The disk of a guest that does four reads a second, against the block layer.
fn a_slow_disk_of_a_guest_is_named_with_its_reader() {
    let reader = Workload::ready(&["read", "/dev/vda", "20"]);
    let before = reading_ms("vda");
    let found = read(reader, &["disk"]);
    // One reader, so one request at a time: their sum is the time of reading.
    let reading_s = (reading_ms("vda") - before) / 1e3;
    let blocked = at_device(&found.snapshots, "vda", found.pid);
    // The reader sleeps a moment after its request has begun, and is woken one after it has
    // ended: a moment without a CPU can be long.
    let tolerance = reading_s * 0.05 + 0.1 + found.awake_s;
    assert_near("s at the device", blocked, reading_s, tolerance);
    let tolerance = found.blocked_s * 0.25;
    assert_near(
        "s by the reader's clock",
        blocked,
        found.blocked_s,
        tolerance,
    );
}

struct Read {
    pid: u32,
    /// What it took, less what the reader ran and waited for a CPU meanwhile.
    blocked_s: f64,
    /// The rest.
    awake_s: f64,
    snapshots: Vec<Snapshot>,
}

/// Lets a reader read, and asserts that it was blocked by these causes.
fn read(mut reader: Workload, causes: &[&str]) -> Read {
    let pid = reader.pid();
    let mut tracer = Tracer::shared();
    named(&mut tracer);
    let spent_ns = || {
        let (run, wait) = schedstat::of_task(pid);
        (run + wait) as f64
    };
    let before_ns = spent_ns();
    reader.go();
    let (line, snapshots) = tracer.during(|| reader.line());
    let took_s = line.parse::<f64>().expect("a time") / NS;
    let blocked_s = took_s - (spent_ns() - before_ns) / NS;
    println!("it took {took_s:.3} s, of which {blocked_s:.3} s off the CPU");
    let by_cause = by_cause(&snapshots, |group| group["pid"] == pid);
    let named: f64 = causes.iter().filter_map(|cause| by_cause.get(*cause)).sum();
    let all = seconds_of(&snapshots, |s| s.of_pid(pid, "blocked"));
    assert_near("s blocked by the disk", named, all, all * 0.05);
    Read {
        pid,
        blocked_s,
        awake_s: took_s - blocked_s,
        snapshots,
    }
}

/// Field 4 of /sys/block/NAME/stat: ms that reads took, from their begin to their end.
fn reading_ms(device: &str) -> f64 {
    let stat = fs::read_to_string(format!("/sys/block/{device}/stat")).expect("a disk");
    numbers(&stat).get(3).copied().expect("11 fields") as f64
}

/// A cgroup with less memory than its process writes and reads of a file.
fn reclaim_of_a_cgroup_has_causes() {
    let limit = match Limited::memory("tracer-memory", 24 << 20) {
        Ok(limit) => limit,
        Err(e) => skip!("reclaim_of_a_cgroup_has_causes", "no limit of memory: {e}"),
    };
    // The disk of a guest; a directory on a disk of the host.
    let of_guest = host_or_guest(false, true).then(|| FileSystem::on("/dev/vdb"));
    let directory = match &of_guest {
        None => "/var/tmp".to_owned(),
        Some(Ok(disk)) => disk.directory().to_str().expect("UTF-8").to_owned(),
        Some(Err(e)) => skip!("reclaim_of_a_cgroup_has_causes", "no file system: {e}"),
    };
    let mib = host_or_guest("128", "48");
    let args = ["reclaim", host_or_guest("8000", "5000"), mib, &directory];
    memory(&args, limit.directory()).expect("it waits for its file");
}

/// The same with memory that is swapped out.
fn swapping_in_a_cgroup_has_causes() {
    let limit = match Limited::memory("tracer-swap", 24 << 20) {
        Ok(limit) => limit,
        Err(e) => skip!("swapping_in_a_cgroup_has_causes", "no limit of memory: {e}"),
    };
    let _area = match Swap::on(host_or_guest("/var/tmp", "/dev/vdb")) {
        Ok(area) => area,
        Err(e) => skip!("swapping_in_a_cgroup_has_causes", "no swap: {e}"),
    };
    // Each page is waited for by itself: none is read ahead. Who cannot set that waits less.
    let _one_by_one = Sysctl::set("vm.page-cluster", 0);
    let args = ["swap", host_or_guest("8000", "5000"), "64"];
    if let Err(e) = memory(&args, limit.directory()) {
        skip!("swapping_in_a_cgroup_has_causes", "{e}");
    }
}

/// What is blocked for want of memory has a cause, mostly; or why nothing was.
fn memory(args: &[&str], cgroup: &Path) -> Result<(), String> {
    let workload = Workload::ready_in(args, &[cgroup]);
    let pid = workload.pid();
    // The longer of the waits: many are of a disk that answers at once.
    let mut tracer = beside(&["--interval", "200ms", "--min-block", "100us"]);
    named(&mut tracer);
    let before = swapped();
    let mut known = Known::begin(workload).expect("a task that needs memory");
    let (line, mut snapshots) = tracer.during(|| known.numbers());
    println!("ns off the CPU, sleeps, and what was done: {line:?}");
    let [off_cpu_ns, slept, ..] = line[..] else {
        panic!("it was killed for memory: see the kernel's log");
    };
    let after = swapped();
    for (name, count) in &after {
        println!("{name}: {}", count - before.get(name).unwrap_or(&0));
    }
    let (more, end, _) = tracer.finish();
    snapshots.extend(more);
    assert_kept(&end);
    let all = seconds_of(&snapshots, |s| s.of_pid(pid, "blocked"));
    let causes = by_cause(&snapshots, |group| group["pid"] == pid);
    let of = |cause: &str| causes.get(cause).copied().unwrap_or(0.0);
    println!("blocked: {all:.4} s");
    // Every sleep of it is one of these. A waking can overtake the switch it belongs to,
    // and makes no episode: that of a disk that answers at once does now and then, and where
    // a CPU is emulated every second time.
    let episodes: f64 = snapshots.iter().map(|s| s.of_pid(pid, "episodes")).sum();
    let slept = slept as f64;
    let overtaken = slept * host_or_guest(0.03, 0.7) + 3.0;
    assert_near("episodes", episodes, slept, overtaken);
    // The time in which it did not run, by its own clock: in part it waited for a CPU.
    // The way to sleep and back is neither; the longest of it is from the waking to the
    // queue of a CPU that is to be told by an interrupt.
    let off_cpu_s = off_cpu_ns as f64 / NS;
    let way_s = slept * host_or_guest(5e-5, 1e-3);
    let tolerance = off_cpu_s * host_or_guest(0.05, 0.2) + 0.02;
    let waiting = seconds_of(&snapshots, |s| s.of_pid(pid, "waiting"));
    println!(
        "off the CPU {off_cpu_s:.3} s; blocked and waiting {:.3} s",
        all + waiting
    );
    assert!(
        all + waiting <= off_cpu_s + tolerance,
        "it is more than that"
    );
    assert!(all + waiting >= off_cpu_s - way_s - tolerance, "it is less");
    let looked_at = all - of("brief") - of("lost");
    // How often memory runs short is the kernel's to say, and a disk may have answered
    // before the task comes to sleep for it: on a busy or an emulated CPU often.
    let (least, least_often) = host_or_guest((0.002, 20.0), (0.001, 5.0));
    if slept < least_often {
        let needs = format!("the task needs to sleep for memory {least_often} times");
        return Err(format!("{needs}: by the kernel it did {slept} times"));
    }
    assert!(all > least, "it was blocked: {all} s");
    let share = (looked_at - of("unknown")) / looked_at;
    // Every wait that was looked at is one of memory, a disk or a lock.
    assert_near("share with a cause", share, 1.0, 0.05);
    Ok(())
}

/// What went to swap and came back, by the kernel's counters, in pages: also to memory,
/// compressed, or to nothing, as they were all zeroes. That makes nobody wait for a disk.
fn swapped() -> BTreeMap<String, u64> {
    let text = fs::read_to_string("/proc/vmstat").expect("the kernel's counters");
    let names = [
        "pswpin",
        "pswpout",
        "zswpin",
        "zswpout",
        "swpin_zero",
        "swpout_zero",
    ];
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter(|(name, _)| names.contains(name))
        .filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?)))
        .collect()
}

/// 60 of 50 ms and 20 of 200 ms.
fn lengths_are_counted_in_their_buckets() {
    let mut tracer = tracer(&["--interval", "1s"]);
    named(&mut tracer);
    // The nap by which the symbols were found to be there has ended before it.
    let before = tracer.snapshot_after(wall_ns());
    let before = lengths(&before.0["lengths"], "vfork");
    let short: u64 = host_or_guest(60, 40);
    let long = short / 3;
    let burst = |ms: &str, every_ms: &str, count: u64| {
        Workload::ready(&["burst-measured", ms, every_ms, &count.to_string()])
    };
    let mut both = [burst("50", "60", short), burst("200", "220", long)];
    both.iter_mut().for_each(Workload::go);
    let (lines, _) = tracer.during(|| {
        let lines = both.each_mut().map(|one| (one.line(), one.line()));
        assert!(lines.iter().all(|(_, said)| said == "done"), "{lines:?}");
        lines.map(|(line, _)| Bursts::of(&line))
    });
    let end = tracer.finish().1;
    let after = lengths(&end["totals"]["lengths"], "vfork");
    println!("vfork: {before:?}, then {after:?}");
    let between = |from: u64, to: u64| -> f64 {
        let of = |buckets: &BTreeMap<u64, u64>| buckets.range(from..to).map(|(_, n)| n).sum();
        let (before, after): (u64, u64) = (of(&before), of(&after));
        (after - before) as f64
    };
    let slept: u64 = lines.iter().map(|bursts| bursts.slept).sum();
    let missed = (short + long) as f64 * 0.1;
    assert_near("sleeps", slept as f64, (short + long) as f64, missed);
    // By the workloads' own clocks: 2^15 us are the least that 50 ms fit in, and 2^17 us
    // that 200 ms do. On a CPU that stands still or is busy some get longer.
    let all_us = || {
        lines
            .iter()
            .flat_map(|one| &one.lengths_ns)
            .map(|ns| ns / 1000)
    };
    // None is missing: whoever stretches them shortens none.
    let (least, most) = (1_u64 << 15, 1_u64 << 22);
    let own = all_us().filter(|us| *us >= least).count();
    assert_near(
        "episodes",
        between(least, most),
        own as f64,
        host_or_guest(1.0, 0.0),
    );
    for bucket in 15..20 {
        let (from, to) = (1_u64 << bucket, 1 << (bucket + 1));
        let own = all_us().filter(|us| (from..to).contains(us)).count();
        // Those so near to a border that the clocks may differ.
        let is_near = |us: &u64| {
            [from, to]
                .iter()
                .any(|border| us.abs_diff(*border) < border / 20)
        };
        let near = all_us().filter(is_near).count();
        let what = format!("episodes from {from} us");
        let tolerance = near as f64 + host_or_guest(0.0, 4.0);
        assert_near(&what, between(from, to), own as f64, tolerance);
    }
}

/// Episodes of a cause by the least length of their bucket, in us.
fn lengths(of: &Value, cause: &str) -> BTreeMap<u64, u64> {
    let rows = of.as_array().expect("lengths").iter();
    let buckets = rows
        .filter(|row| row["cause"] == cause)
        .flat_map(|row| row["buckets"].as_array().expect("buckets"));
    let whole = |value: &Value| value.as_u64().expect("a number");
    let pair = |bucket: &Value| (whole(&bucket["from_us"]), whole(&bucket["episodes"]));
    buckets.map(pair).collect()
}

/// Every episode looked at, as many a second as this machine can.
fn a_storm_of_episodes_is_counted() {
    let threads = "16";
    let ms: u64 = host_or_guest(5000, 4000);
    let mut storm = Workload::ready(&["vfork-storm", threads, &ms.to_string()]);
    let pid = storm.pid();
    let mut tracer = tracer(&["--interval", "500ms", "--min-block", "0s"]);
    tracer.may_lose = true;
    named(&mut tracer);
    storm.go();
    let (line, mut snapshots) = tracer.during(|| {
        storm.line();
        storm.line()
    });
    let mut counts = numbers(&line);
    let vforks = counts.pop().expect("a number");
    let slept: u64 = counts.iter().sum();
    println!(
        "{vforks} vforks, {} a second, of which {slept} slept",
        vforks * 1000 / ms
    );
    let (more, end, _) = tracer.finish();
    snapshots.extend(more);
    let episodes: f64 = snapshots.iter().map(|s| s.of_pid(pid, "episodes")).sum();
    by_cause(&snapshots, |group| group["pid"] == pid);
    println!("lost: {}", end["lost"]);
    let by_vfork: u64 = lengths(&end["totals"]["lengths"], "vfork").values().sum();
    println!("{episodes} episodes of the process, {by_vfork} by vfork of all");
    // The kernel counts sleeps within the call. Of some hundred thousand a few dozen
    // are for the lock of the address space, and some of those are outside of it.
    // Other processes of the host vfork, too.
    // In a guest, with a tenth of the vforks, more of the sleeps are for the lock.
    let share = host_or_guest(0.002, 0.02);
    let (slept, tolerance) = (slept as f64, slept as f64 * share + 20.0);
    assert_near("episodes by length", by_vfork as f64, slept, tolerance);
    let by_lock: u64 = lengths(&end["totals"]["lengths"], "mmap_lock")
        .values()
        .sum();
    let most = slept + tolerance + by_lock as f64;
    println!("{by_lock} episodes by mmap_lock of all");
    assert!(
        (slept - tolerance..=most).contains(&episodes),
        "{episodes} of {slept}"
    );
    assert_eq!(number(&end["lost"]["episode_unaccounted"]), 0.0);
    for (reason, count) in end["lost"].as_object().expect("lost") {
        // Each child is an exit as well.
        let is_expected = reason == "episode_ring_full" || reason.starts_with("exit_");
        let most = tests::kernel::may_lose(reason);
        assert!(
            is_expected || count.as_u64() <= Some(most),
            "{count} {reason}"
        );
    }
}

/// All at once: what is looked at of its own has a cause.
fn a_mixture_has_causes() {
    let seconds: usize = host_or_guest(20, 8);
    let ms = (seconds * 1000).to_string();
    let mut tracer = Tracer::shared();
    named(&mut tracer);
    let file_system = FileSystem::new();
    let mut known = Vec::new();
    let mut missing = Vec::new();
    let mut take = |name: &str, begun: std::io::Result<Known>| match begun {
        Ok(one) => known.push(one),
        Err(_) => missing.push(name.to_owned()),
    };
    for mode in [
        "fuse-read",
        "fuse-mutex",
        "fuse-rwsem",
        "chain",
        "deep-chain",
        "userfault",
    ] {
        take(mode, Known::blocked(&[mode, &ms]));
    }
    take("core-dump", Known::blocked(&["core-dump", &ms]));
    take(
        "mmap-lock",
        Known::begin(Workload::nicely(&[
            "mmap-lock",
            &ms,
            host_or_guest("4096", "1024"),
        ])),
    );
    if let Ok(file_system) = &file_system {
        let directory = file_system.directory().to_str().expect("UTF-8");
        let workload = Workload::ready(&["frozen", directory, "4"]);
        file_system.freeze().expect("it can be frozen");
        take("frozen", Known::begin(workload));
    }
    let count = (seconds * 10).to_string();
    let mut bursts = ["50", "5"].map(|long| Workload::ready(&["burst", long, "100", &count]));
    bursts.iter_mut().for_each(Workload::go);
    // The guests' disks are other tests'.
    if host_or_guest(true, false) {
        let reclaim = Workload::try_ready(&["reclaim", &ms, "64", "/var/tmp"]);
        take("reclaim", reclaim.and_then(Known::begin));
    }
    println!("not to be had here: {missing:?}");
    let snapshots = tracer.snapshots(seconds * 2 - 4);
    let mut pids: Vec<u32> = bursts.iter().map(Workload::pid).collect();
    for one in &known {
        assert!(!one.tasks.is_empty());
        pids.extend(one.tasks.iter().map(|(tid, _)| *tid));
        pids.extend([one.workload.pid(), one.holder]);
    }
    let is_own = |group: &Value| pids.iter().any(|pid| group["pid"] == *pid);
    assert_have_causes(&by_cause(&snapshots, is_own));
}

/// What is looked at has a cause: neither too brief for it, nor was its record lost.
fn assert_have_causes(causes: &BTreeMap<String, f64>) {
    let of = |cause: &str| causes.get(cause).copied().unwrap_or(0.0);
    let all: f64 = causes.values().sum();
    println!(
        "of {all:.2} s: brief {:.4}, lost {:.4}",
        of("brief") / all,
        of("lost") / all
    );
    let share = 1.0 - of("unknown") / (all - of("brief") - of("lost"));
    // What no rule fits: 5 % at most.
    assert_near("share with a cause", share, 1.0, 0.05);
}

/// All that was blocked while tests ran side by side.
fn all_that_was_blocked_has_causes() {
    let Some((lines, _)) = recorded() else {
        println!("a_mixture_has_causes looks at its own");
        return;
    };
    let mut causes = BTreeMap::new();
    for line in lines.filter(|line| line["type"] == "snapshot") {
        let seconds = number(&line["interval_ns"]) / NS;
        for share in line["causes"].as_array().expect("causes") {
            let cause = share["cause"].as_str().expect("a cause").to_owned();
            *causes.entry(cause).or_default() += number(&share["blocked"]) * seconds;
        }
    }
    for (cause, s) in &causes {
        println!("{cause}: {s:.4} s");
    }
    assert_have_causes(&causes);
}
