//! TCP sockets: every transition counted, sockets by state as the kernel lists them,
//! who leaks and who closed first.

use std::{fs, path::Path};

use serde_json::Value;
use tests::{
    assert_near,
    provoke::Workload,
    tcp::{
        self,
        netns::Netns,
        sampler::Sampler,
        seen,
        states::{States, Transitions},
    },
    time::{NS, host_or_guest, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

/// What is done with connections, over which family, how often on a host.
const WAYS: [(&str, &str, u64); 17] = [
    ("client-closes", "v4", 4000),
    ("client-closes", "v6", 2000),
    ("client-closes", "mapped", 2000),
    ("server-closes", "v4", 2000),
    ("server-closes", "v6", 2000),
    ("server-closes", "mapped", 2000),
    ("client-resets", "v4", 1000),
    ("client-resets", "v6", 1000),
    ("server-resets", "v4", 1000),
    ("server-resets", "mapped", 1000),
    ("waiter-resets", "v4", 500),
    ("unread", "v6", 500),
    ("at-once", "v4", 200),
    ("at-once", "v6", 200),
    ("refused", "v4", 500),
    ("refused", "v6", 500),
    ("times-out", "v4", 100),
];

/// A line of JSON that a workload says.
fn said(workload: &mut Workload) -> Value {
    let line = workload.line();
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"))
}

/// Lets a workload run to its end: what it says, and the snapshots meanwhile.
fn play(tracer: &mut Tracer, workload: &mut Workload) -> (Value, Vec<Snapshot>) {
    tracer.snapshot_after(wall_ns());
    tracer.during(|| {
        workload.go();
        let said = said(workload);
        assert_eq!(workload.line(), "done");
        said
    })
}

/// Every cell of the matrix is what the workload made, exactly.
#[track_caller]
fn assert_transitions(what: &str, snapshots: &[Snapshot], said: &Value) {
    let made = Transitions::of(&said["transitions"]);
    let seen = seen::transitions(snapshots);
    println!(
        "{what}: {} connections\n{}",
        said["connections"],
        seen.table()
    );
    let left = seen.less(&made);
    assert!(left.is_empty(), "{what}: seen less made: {left:?}");
}

/// Over IPv4, IPv6 and v4-mapped addresses, however a connection ends.
#[test]
fn every_transition_on_loopback_is_counted() {
    let mut tracer = Tracer::start(&["--interval", "500ms"]);
    for (kind, family, count) in WAYS {
        let count = host_or_guest(count, (count / 40).max(10));
        let (connections, threads) = (count.to_string(), "2");
        let args = ["tcp-connections", kind, family, &connections, threads];
        let mut workload = Workload::ready(&args);
        let (said, snapshots) = play(&mut tracer, &mut workload);
        assert_transitions(&format!("{kind} {family}"), &snapshots, &said);
    }
}

/// Two namespaces with a cable between them: the transitions, and at rest the sockets
/// of each as sock_diag lists them.
#[test]
fn every_transition_between_namespaces_is_counted() {
    let mut tracer = Tracer::start(&["--interval", "500ms"]);
    for (kind, family) in [
        ("client-closes", "v4"),
        ("server-closes", "v6"),
        ("client-resets", "mapped"),
    ] {
        let count = host_or_guest("2000", "50");
        let mut workload = Workload::ready(&["tcp-namespaces", kind, family, count, "2"]);
        let (said, snapshots) = play(&mut tracer, &mut workload);
        assert_transitions(&format!("{kind} {family}"), &snapshots, &said);
        let last = snapshots.last().expect("a snapshot");
        for end in seen::list(&said["namespaces"]) {
            let path = Path::new(end["path"].as_str().expect("a path"));
            let netns = Netns::open(path).expect("a namespace");
            let listed = netns.within(tcp::diag::sockets).expect("sock_diag");
            let inode = end["inode"].as_u64().expect("a number");
            assert_eq!(seen::states_within(last, inode), tcp::diag::count(&listed));
        }
    }
}

/// While connections come and go, and at rest, sockets by state are those that
/// sock_diag lists: of the whole namespace, those of others in it too.
#[test]
fn sockets_by_state_are_those_of_sock_diag() {
    /// A listing takes a few ms, and is not of one moment.
    const WITHIN_MS: u64 = 50;
    let mut tracer = Tracer::start(&["--interval", "100ms"]);
    let count = host_or_guest("20000", "400");
    let mut workload = Workload::ready(&["tcp-connections", "client-closes", "v4", count, "2"]);
    let own = Netns::current().expect("this namespace");
    let inode = own.inode().expect("its number");
    let sampler = Sampler::start(own);
    let (_, snapshots) = play(&mut tracer, &mut workload);
    let rest = tracer.snapshot_after(wall_ns());
    let samples = sampler.stop();
    let agrees = |snapshot: &Snapshot| {
        let states = seen::states_within(snapshot, inode);
        samples.agree(&states, snapshot.wall_ns(), WITHIN_MS)
    };
    let agreeing = snapshots.iter().filter(|s| agrees(s)).count();
    println!(
        "{agreeing} of {} snapshots agree, of {} different counts",
        snapshots.len(),
        samples.different()
    );
    assert!(samples.different() > 10, "nothing came and went");
    assert!(
        agreeing * 100 >= snapshots.len() * 95,
        "fewer than 95 of 100"
    );
    assert!(
        agrees(&rest),
        "at rest: {:?}",
        seen::states_within(&rest, inode)
    );
}

/// A leak is told, with its process, descriptor, peer and age.
fn assert_leak(tracer: &mut Tracer, variant: &str, count: u64, leak_age: f64) {
    /// Bytes that nobody reads.
    const UNREAD: u64 = 5;
    let args = [variant, &count.to_string(), "20", &UNREAD.to_string()];
    let mut workload = Workload::ready(&[&["tcp-leak"], &args[..]].concat());
    workload.go();
    let mut found = None;
    let (said, _) = tracer.during(|| {
        let said = said(&mut workload);
        assert_eq!(workload.line(), "done");
        said
    });
    let pid = said["pid"].as_u64().expect("a pid") as u32;
    let made = seen::list(&said["sockets"]);
    let closed = |socket: &Value| number(&socket["closed_ns"]);
    let first_ns = made.iter().map(closed).fold(f64::INFINITY, f64::min);
    // The last of them has to pass the age, too; then all is known.
    let limit_ns = wall_ns() + ((leak_age + 5.0) * NS) as u64;
    while found.is_none() {
        let snapshot = tracer.snapshot();
        if seen::leaks(&snapshot, pid) {
            found = Some(snapshot);
        } else {
            let row = seen::close_wait(&snapshot, pid);
            assert!(snapshot.wall_ns() < limit_ns, "{variant}: no leak: {row:?}");
        }
    }
    let snapshot = found.expect("just found");
    let row = seen::close_wait(&snapshot, pid).expect("a row");
    println!("{variant}: {row}");
    assert_eq!(row["comm"], said["comm"]);
    assert_eq!(row["sockets"], count);
    for sample in seen::list(&row["samples"]) {
        let is_it = |made: &&Value| made["fd"] == sample["fd"];
        let made = made
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{sample}"));
        for end in ["local", "remote"] {
            assert_eq!(sample[end], made[end]);
        }
        // The peer closes right before the FIN comes.
        let age = (snapshot.wall_ns() as f64 - closed(made)) / NS;
        if variant == "before" {
            // By the last ACK: the bytes were sent before the FIN, by some ms.
            assert_eq!(sample["is_least"], true);
            let most = host_or_guest(0.1, 0.5);
            assert_near("age in s", number(&sample["age_ns"]) / NS, age, most);
        } else {
            let most = host_or_guest(0.02, 0.2);
            assert_near("age in s", number(&sample["age_ns"]) / NS, age, most);
        }
        assert_eq!(sample["unread_bytes"], UNREAD, "{sample}");
    }
    let after = (snapshot.wall_ns() as f64 - first_ns) / NS;
    println!("{variant}: told {after:.2} s after the first of them");
}

/// By one thread and by four, from before the start, passed to another process, and of
/// connections that the process itself made.
#[test]
fn a_leak_is_told_with_process_descriptor_and_peer() {
    const LEAK_AGE: f64 = 2.0;
    for (variant, count) in [
        ("plain", 30),
        ("threads", 30),
        ("passed", 10),
        ("connected", 30),
    ] {
        let mut tracer = Tracer::start(&["--interval", "500ms", "--leak-age", "2s"]);
        assert_leak(&mut tracer, variant, count, LEAK_AGE);
    }
}
