//! The memory of one node of two used up: see `cargo xtask vm`. The rest of the host has
//! memory left; the processes here may not take it.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tests::{
    assert_near,
    lanes::Test,
    memory::host_oom_kills,
    provoke::Workload,
    test,
    time::{eventually, wall_ns},
    tracer::{Tracer, number},
};

const WHY_ALONE: &str = "the kernel chooses among all processes that may use the node";
pub(crate) const TESTS: &[Test] = &[
    test!(a_kill_for_a_memory_policy_is_told_apart)
        .guest("two nodes")
        .serial(WHY_ALONE),
    test!(a_kill_for_a_cpuset_is_told_apart)
        .guest("two nodes")
        .serial(WHY_ALONE),
];

/// The small one of a guest's two nodes (xtask/src/vm/guest.rs).
const NODE: &str = "1";
/// More than it has, less than the host has.
const MIB: &str = "200";

/// A process with a memory policy (`set_mempolicy`).
fn a_kill_for_a_memory_policy_is_told_apart() {
    assert_told("policy", || Workload::ready(&["eat-of-node", MIB, NODE]));
}

/// A process in a cgroup with memory of one node (`cpuset.mems`).
fn a_kill_for_a_cpuset_is_told_apart() {
    let cpuset = Cpuset::new();
    assert_told("cpuset", || Workload::ready_in(&["eat", MIB], &[&cpuset.0]));
}

/// With a function hook, and by the kernel's log alone: two tracers see the same kill.
fn assert_told(scope: &str, start: impl Fn() -> Workload) {
    let mut tracers = ["auto", "off"].map(|functions| {
        let tracer = Tracer::start(&["--interval", "500ms", "--function-hooks", functions]);
        (functions, tracer)
    });
    for (_, tracer) in &mut tracers {
        tracer.snapshot();
    }
    let before = host_oom_kills();
    let mut eater = start();
    eater.go();
    assert_eq!(eater.line(), "", "it is killed, and says no more");
    assert!(
        eventually(10.0, || host_oom_kills() > before),
        "the kernel counts it"
    );
    for (functions, tracer) in &mut tracers {
        let event = tracer.event("oom_kill", 60);
        println!("{functions}: {event}");
        assert_eq!(
            (&event["pid"], &event["trigger"]["pid"], &event["scope"]),
            (&eater.pid().into(), &eater.pid().into(), &scope.into())
        );
        assert_eq!(
            (&event["memcg"], &event["order"]),
            (&Value::Null, &0.into())
        );
        if *functions == "auto" {
            assert_points(&event);
        } else {
            assert_eq!(event["points"], Value::Null, "nobody says how large it is");
        }
        let snapshot = tracer.snapshot_after(wall_ns());
        let killed = number(&snapshot.0["oom"]["killed"]);
        assert_near("kills", killed, (host_oom_kills() - before) as f64, 0.0);
    }
}

/// They are of the node, not of the host.
fn assert_points(event: &Value) {
    let sizes = [
        "anon_rss_bytes",
        "file_rss_bytes",
        "shmem_rss_bytes",
        "page_table_bytes",
    ];
    let bytes: f64 = sizes.iter().map(|size| number(&event[size])).sum();
    let of_node = present_bytes();
    // `oom_badness` and `proc_oom_score`, which know whole numbers only.
    let expected = ((1000.0 + (1000.0 * bytes / of_node).floor()) * 2.0 / 3.0).floor();
    assert_near("points", number(&event["points"]), expected, 0.0);
}

/// What the node has, also what the kernel itself took at its start
/// (`node_present_pages`, include/linux/mmzone.h).
fn present_bytes() -> f64 {
    let text = fs::read_to_string("/proc/zoneinfo").expect("zones");
    let node = format!("Node {NODE},");
    let zones = text
        .split("Node ")
        .filter(|zone| format!("Node {zone}").starts_with(&node));
    let present = |zone: &str| {
        let mut words = zone
            .split_whitespace()
            .skip_while(|word| *word != "present");
        words.nth(1)?.parse::<f64>().ok()
    };
    zones.filter_map(present).sum::<f64>() * 4096.0
}

/// A cgroup with memory of one node; removed at the end.
struct Cpuset(PathBuf);

impl Cpuset {
    fn new() -> Self {
        let directory = PathBuf::from("/sys/fs/cgroup/tracer-cpuset");
        fs::create_dir(&directory).expect("a cgroup");
        fs::write(directory.join("cpuset.mems"), NODE).expect("memory of one node");
        Self(directory)
    }
}

impl Drop for Cpuset {
    fn drop(&mut self) {
        // It can be removed once its last task is reaped.
        eventually(5.0, || fs::remove_dir(&self.0).is_ok());
    }
}
