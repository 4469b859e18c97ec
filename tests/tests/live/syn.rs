//! SYN floods, bursts, and servers that are slow to accept, within namespaces made for it
//! and held against the kernel's own counters there.

use std::{net::TcpStream, thread, time::Duration};

use serde_json::Value;
use tests::{
    assert_near,
    lanes::{GUEST_CPUS, Test},
    skip,
    tcp::wire::Wire,
    test,
    time::{NS, eventually, host_or_guest, monotonic_ns, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

use crate::listeners::{BACKLOG, Server};

pub(crate) const TESTS: &[Test] = &[
    test!(a_flood_is_told).contract(),
    test!(a_flood_is_told_without_cookies),
    test!(a_burst_is_no_flood).needs(&[GUEST_CPUS]),
    test!(a_slow_accept_is_no_flood),
    test!(a_busy_server_is_healthy),
];

/// What an interval is told of a flood of 6 s: it fills the queue at once, what it is shows
/// a second later, in s.
const FLOOD_TOLD_S: f64 = 3.0;

/// SYNs at a rate, from addresses that nobody has; nobody answers the SYN-ACKs.
fn flood(server: &Server, syns: u32, per_s: u32) {
    server.within(|| {
        let wire = Wire::new(server.to, true).expect("raw sockets");
        for batch in 0..syns.div_ceil(per_s / 10) {
            for n in 0..per_s / 10 {
                wire.syn(wire.stranger(batch * per_s / 10 + n))
                    .expect("a SYN");
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
}

/// The shared tracer, once it knows these servers.
fn tracer_of(servers: &[Server]) -> Tracer {
    let mut tracer = Tracer::shared();
    servers
        .iter()
        .for_each(|server| server.is_known_to(&mut tracer));
    tracer.snapshot_after(wall_ns());
    tracer
}

/// For how long a listener had a verdict, in s.
fn seconds_of(server: &Server, snapshots: &[Snapshot], verdict: &str) -> f64 {
    let its = snapshots.iter().filter(|s| server.verdict(s) == verdict);
    its.map(Snapshot::seconds).sum()
}

/// Verdicts in their order, each once, and what there is of the row in the middle.
fn print_verdicts(server: &Server, snapshots: &[Snapshot]) {
    let mut verdicts: Vec<_> = snapshots.iter().map(|s| server.verdict(s)).collect();
    verdicts.dedup();
    let row = server.row(&snapshots[snapshots.len() / 2]);
    println!("{verdicts:?} {row}");
}

/// The verdict is a flood, cookies are those of the namespace, and it has an end: over IPv4
/// and IPv6 at once.
fn a_flood_is_told() {
    let servers = [false, true].map(|is_v6| Server::new(is_v6, "accepts"));
    let mut tracer = tracer_of(&servers);
    let before = servers.each_ref().map(Server::counters);
    let syns = host_or_guest(6_000, 1_500);
    let attack = |count| {
        thread::scope(|scope| {
            for server in &servers {
                scope.spawn(move || flood(server, count, syns / 6));
            }
        });
    };
    let ((), snapshots) = tracer.during(|| attack(syns));
    for (server, before) in servers.iter().zip(&before) {
        let after = server.counters();
        print_verdicts(server, &snapshots);
        let told = seconds_of(server, &snapshots, "syn_flood");
        assert!(told >= FLOOD_TOLD_S, "for {told} s");
        for (figure, counter) in [
            ("cookies_sent", "SyncookiesSent"),
            ("cookies_valid", "SyncookiesRecv"),
            ("cookies_failed", "SyncookiesFailed"),
        ] {
            let counted = after.since(before, &[counter]) as f64;
            assert_near(figure, server.sum(&snapshots, figure), counted, 0.0);
        }
        let cookies = after.since(before, &["SyncookiesSent"]);
        assert!(cookies > u64::from(syns / 2));
    }
    // Where functions cannot be hooked SYN queues are looked into each 2 s, or after 500 times
    // as long as that takes: the same strangers go on until they were looked at.
    let sources = |snapshots: &[Snapshot]| {
        servers.each_ref().map(|server| {
            let rows = snapshots.iter().rev().map(|s| &server.row(s)["sources"]);
            rows.clone().find(|sources| !sources.is_null()).cloned()
        })
    };
    let mut found = sources(&snapshots);
    let are_known = || {
        if found.iter().any(Option::is_none) {
            let ((), more) = tracer.during(|| attack(syns / 6));
            for (found, new) in found.iter_mut().zip(sources(&more)) {
                *found = found.take().or(new);
            }
        }
        found.iter().all(Option::is_some)
    };
    assert!(eventually(60.0, are_known), "no sources");
    for (sources, is_v6) in found.iter().flatten().zip([false, true]) {
        assert_sources(sources, is_v6, syns);
    }
    let is_over = || {
        let snapshot = tracer.snapshot();
        servers.iter().all(|s| s.verdict(&snapshot) == "healthy")
    };
    assert!(eventually(host_or_guest(20.0, 60.0), is_over), "no end");
}

/// Strangers that all have other addresses, and begin alike.
fn assert_sources(sources: &Value, is_v6: bool, syns: u32) {
    println!("{sources}");
    let addresses = number(&sources["addresses"]);
    let sampled = number(&sources["sampled"]);
    match sources["of"].as_str() {
        // HyperLogLog of 256 registers: four times its standard error of 6.5 %.
        Some("cookies") => assert_near("addresses", addresses, syns.into(), 0.26 * f64::from(syns)),
        // One more than its backlog may be in the queue.
        Some("syn_queue") => {
            assert_near("addresses", addresses, f64::from(BACKLOG), 1.0);
            assert_near("sampled", sampled, addresses, 0.0);
        }
        other => panic!("{other:?}"),
    }
    let prefix = &sources["prefixes"][0];
    let expected = if is_v6 { "2001:2:" } else { "198.18." };
    let named = prefix["prefix"].as_str().expect("a prefix");
    assert!(named.starts_with(expected), "{named}");
    assert!(number(&prefix["sampled"]) >= sampled / 10.0);
}

/// Without cookies the kernel drops SYNs before the queue is full.
fn a_flood_is_told_without_cookies() {
    let settings = [("tcp_syncookies", "0"), ("tcp_max_syn_backlog", "64")];
    let server = &Server::with(&settings, false, "accepts");
    let mut tracer = tracer_of(std::slice::from_ref(server));
    let syns = host_or_guest(3_000, 900);
    let attack = || flood(server, syns, syns / 6);
    let ((), snapshots) = tracer.during(attack);
    print_verdicts(server, &snapshots);
    let told = seconds_of(server, &snapshots, "syn_flood");
    assert!(told >= FLOOD_TOLD_S, "for {told} s");
    assert_near("cookies", server.sum(&snapshots, "cookies_sent"), 0.0, 0.0);
    let flooded = snapshots
        .iter()
        .filter(|s| server.verdict(s) == "syn_flood");
    for snapshot in flooded {
        let queue = number(&server.row(snapshot)["syn_queue"]);
        assert!(queue < f64::from(BACKLOG), "{queue} in the queue");
    }
    let dropped = server.sum(&snapshots, "drops");
    assert!(dropped >= f64::from(syns / 2), "{dropped} dropped");
}

/// Clients that all come at once and then answer: the backlog is too small for them.
fn a_burst_is_no_flood() {
    /// A peer answers within this time, in s: the kernel sends a SYN-ACK again after a
    /// second.
    const ANSWERS_S: f64 = 0.9;
    let server = &Server::new(false, "accepts");
    let mut tracer = tracer_of(std::slice::from_ref(server));
    let bursts = || {
        server.within_promptly(|| {
            let wire = Wire::new(server.to, true).expect("raw sockets");
            let (mut slowest, mut all) = (0.0_f64, Vec::new());
            for burst in 0..12_u32 {
                let began_ns = monotonic_ns();
                for n in 0..host_or_guest(3, 2) * BACKLOG {
                    wire.syn(wire.stranger(burst * 1_000 + n)).expect("a SYN");
                }
                // A round trip.
                thread::sleep(Duration::from_millis(100));
                let answers = wire.answers();
                for answer in &answers {
                    wire.ack(answer).expect("an ACK");
                }
                all.extend(answers);
                slowest = slowest.max((monotonic_ns() - began_ns) as f64 / NS);
                thread::sleep(Duration::from_millis(300));
            }
            let mut each = all.iter();
            each.try_for_each(|answer| wire.reset(answer))
                .expect("resets");
            slowest
        })
    };
    let (slowest, snapshots) = tracer.during(bursts);
    println!("all answered within {slowest:.3} s");
    if slowest >= ANSWERS_S {
        skip!(
            "a_burst_is_no_flood",
            "peers need to answer within {ANSWERS_S} s, and took {slowest:.2} s here"
        );
    }
    print_verdicts(server, &snapshots);
    let of = |verdict| seconds_of(server, &snapshots, verdict);
    assert_near("flood in s", of("syn_flood"), 0.0, 0.0);
    assert!(of("burst_or_small_backlog") > 0.0);
}

/// A server that accepts nobody.
fn a_slow_accept_is_no_flood() {
    /// One more than the backlog (`sk_acceptq_is_full`, include/net/sock.h).
    const WAIT: u32 = BACKLOG + 1;
    let server = &Server::new(false, "sleeps");
    let mut tracer = tracer_of(std::slice::from_ref(server));
    let clients = || {
        let connect = || {
            let connect = || TcpStream::connect_timeout(&server.to, Duration::from_millis(20)).ok();
            // As many as wait, however slow the machine is, and as many who find no room.
            let mut open: Vec<_> = (0..20 * WAIT)
                .filter_map(|_| connect())
                .take(WAIT as usize - 1)
                .collect();
            open.extend((0..BACKLOG).filter_map(|_| connect()));
            thread::sleep(Duration::from_secs(4));
            let until_ns = wall_ns();
            drop(open);
            until_ns
        };
        server.within(connect)
    };
    let (until_ns, snapshots) = tracer.during(clients);
    print_verdicts(server, &snapshots);
    let told = seconds_of(server, &snapshots, "slow_accept");
    assert!(told >= 2.0, "for {told} s");
    let flood = seconds_of(server, &snapshots, "syn_flood");
    assert_near("flood in s", flood, 0.0, 0.0);
    let mut held = snapshots.iter().rev();
    let held = held.find(|s| s.wall_ns() <= until_ns).expect("one of them");
    let row = server.row(held);
    assert_eq!(row["verdict"], "slow_accept");
    assert_eq!(
        (&row["accept_queue"], &row["backlog"]),
        (&WAIT.into(), &BACKLOG.into())
    );
}

/// Many connections, each accepted at once.
fn a_busy_server_is_healthy() {
    let server = &Server::new(false, "accepts");
    let mut tracer = tracer_of(std::slice::from_ref(server));
    let clients = || {
        let connect = || {
            for _ in 0..host_or_guest(400, 100) {
                TcpStream::connect(server.to).expect("a connection");
                thread::sleep(Duration::from_millis(10));
            }
        };
        server.within(connect);
    };
    let ((), snapshots) = tracer.during(clients);
    print_verdicts(server, &snapshots);
    let mut verdicts = snapshots.iter().map(|s| server.verdict(s));
    assert!(verdicts.all(|verdict| verdict == "healthy"));
}
