//! Kills in cgroups of v1, in guests that have the memory controller on v2 otherwise: see
//! `cargo xtask vm`. On a host that has it on v1, oom.rs does the same.

use tests::{
    assert_near,
    lanes::Test,
    memory::{MemoryCgroup, v1},
    provoke::Workload,
    skip,
    tcp::seen::list,
    test,
    time::wall_ns,
    tracer::{Tracer, number},
};

pub(crate) const TESTS: &[Test] = &[test!(a_kill_in_a_cgroup_of_v1_is_told)
    .guest("a host that has v1 does the same in oom.rs")
    .last("it moves the memory controller for good")];

const MIB: f64 = (1 << 20) as f64;

/// Victim, trigger, cgroup and limit, with every way to hook a function: all of them see
/// the same kill.
fn a_kill_in_a_cgroup_of_v1_is_told() {
    match v1::move_to_v1() {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => skip!(
            "a_kill_in_a_cgroup_of_v1_is_told",
            "the kernel has no memory controller of cgroup v1 (CONFIG_MEMCG_V1)"
        ),
        // Seen on 6.1 in two of three runs after all other tests.
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => skip!(
            "a_kill_in_a_cgroup_of_v1_is_told",
            "cgroups that were removed still hold the memory controller after a minute"
        ),
        Err(e) => panic!("the memory controller cannot be moved to cgroup v1: {e}"),
    }
    let cgroup = MemoryCgroup::new("tracer-oom-v1", 64).expect("a cgroup of v1");
    assert!(!cgroup.is_v2());
    let mut tracers = ["auto", "kprobe", "off"].map(|functions| {
        let tracer = Tracer::start(&["--interval", "500ms", "--function-hooks", functions]);
        (functions, tracer)
    });
    for (_, tracer) in &mut tracers {
        tracer.snapshot();
    }
    let victim = cgroup.holder(40, 0);
    let mut trigger = cgroup.workload(&["eat", "36"]);
    trigger.go();
    // Newer kernels may kill it too; both are counted.
    println!("the trigger lives: {}", trigger.line() == "done");
    for (functions, tracer) in &mut tracers {
        println!("{functions}:");
        assert_told(tracer, &cgroup, (&victim, &trigger));
    }
}

fn assert_told(
    tracer: &mut Tracer,
    cgroup: &MemoryCgroup,
    (victim, trigger): (&Workload, &Workload),
) {
    let event = tracer.event("oom_kill", 20);
    println!("{event}");
    assert_eq!(
        (&event["pid"], &event["trigger"]["pid"]),
        (&victim.pid().into(), &trigger.pid().into())
    );
    let name = cgroup.name.as_str();
    for cgroup in [
        &event["cgroup"],
        &event["trigger"]["cgroup"],
        &event["memcg"],
    ] {
        assert_eq!(cgroup, name);
    }
    assert_eq!(
        (&event["scope"], &event["order"]),
        (&"memcg".into(), &0.into())
    );
    assert_near(
        "limit in MiB",
        number(&event["limit_bytes"]) / MIB,
        64.0,
        0.0,
    );
    let anon_mib = number(&event["anon_rss_bytes"]) / MIB;
    assert_near("anonymous MiB", anon_mib, 40.0, 2.0);
    assert_eq!(event["others_from_log"], true);
    assert_eq!(list(&event["others"])[0]["pid"], trigger.pid());
    let snapshot = tracer.snapshot_after(wall_ns());
    let killed = number(&snapshot.0["oom"]["killed"]);
    // `oom_kill` of memory.oom_control.
    assert_near("kills", killed, cgroup.oom_kills() as f64, 0.0);
    let cgroups = list(&snapshot.0["oom"]["cgroups"]);
    let row = cgroups.iter().find(|row| row["path"] == name);
    let row = row.expect("a cgroup with a limit");
    assert_near(
        "limit of the row",
        number(&row["limit_bytes"]) / MIB,
        64.0,
        0.0,
    );
}
