//! SYN floods, bursts, and servers that are slow to accept, within namespaces made for it
//! and held against the kernel's own counters there.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use serde_json::Value;
use tests::{
    assert_near,
    provoke::Workload,
    tcp::{counters::Counters, listener::Has, netns::Joined, seen::list, wire::Wire},
    time::{eventually, host_or_guest, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

const ARGS: [&str; 2] = ["--interval", "1s"];
/// The backlog of the listeners.
const BACKLOG: u32 = 64;

/// A listener in a namespace, and another namespace from which it is reached.
struct Server {
    /// Ends before its namespaces do.
    workload: Workload,
    joined: Arc<Joined>,
    to: SocketAddr,
}

impl Server {
    fn new(is_v6: bool, who: &str) -> Self {
        let joined = Joined::new().expect("two namespaces and a cable");
        joined.knows_strangers(1).expect("routes");
        Self::beside(Arc::new(joined), is_v6, who)
    }

    /// One in the same namespaces.
    fn beside(joined: Arc<Joined>, is_v6: bool, who: &str) -> Self {
        let family = if is_v6 { "v6" } else { "v4" };
        let args = ["tcp-listen", family, &BACKLOG.to_string(), who];
        let ready = || Ok(Workload::ready(&args));
        let mut workload = joined.ends[1].within(ready).expect("a server");
        workload.go();
        let port: u16 = workload.line().parse().expect("a port");
        let to = (Joined::address(1, is_v6), port).into();
        let server = Self {
            joined,
            workload,
            to,
        };
        // The cable may need a moment, and each end the other's address.
        let connect = || server.within(|| TcpStream::connect(to).is_ok());
        assert!(eventually(10.0, connect), "no connection");
        server
    }

    /// Does something where the clients are.
    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let done = self.joined.ends[0].within(|| Ok(work()));
        done.expect("a namespace")
    }

    fn counters(&self) -> Counters {
        Counters::of_process(self.workload.pid()).expect("counters")
    }

    /// Its row.
    fn row<'a>(&self, snapshot: &'a Snapshot) -> &'a Value {
        let rows = list(&snapshot.0["syn"]["listeners"]);
        let row = rows.iter().find(|row| row["pid"] == self.workload.pid());
        row.unwrap_or_else(|| panic!("no row of {}: {rows:?}", self.workload.pid()))
    }

    fn verdict<'a>(&self, snapshot: &'a Snapshot) -> &'a str {
        self.row(snapshot)["verdict"].as_str().expect("a verdict")
    }

    /// Sum of a figure over the intervals, where it is known.
    fn sum(&self, snapshots: &[Snapshot], figure: &str) -> f64 {
        let figures = snapshots.iter().map(|snapshot| &self.row(snapshot)[figure]);
        figures.filter(|f| f.is_number()).map(number).sum()
    }
}

/// SYNs at a rate, from addresses that nobody has; nobody answers the SYN-ACKs.
fn flood(wire: &Wire, syns: u32, per_s: u32) {
    for batch in 0..syns.div_ceil(per_s / 10) {
        for n in 0..per_s / 10 {
            wire.syn(wire.stranger(batch * per_s / 10 + n))
                .expect("a SYN");
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The verdict is a flood, cookies are those of the namespace, and it has an end.
#[test]
fn a_flood_is_told() {
    for is_v6 in [false, true] {
        let server = Server::new(is_v6, "accepts");
        let mut tracer = Tracer::start(&ARGS);
        tracer.snapshot_after(wall_ns());
        let before = server.counters();
        let syns = host_or_guest(6_000, 1_500);
        let attack = || {
            server.within(|| {
                let wire = Wire::new(server.to, true).expect("raw sockets");
                flood(&wire, syns, syns / 6);
            });
        };
        let ((), snapshots) = tracer.during(attack);
        let after = server.counters();
        let verdicts: Vec<_> = snapshots.iter().map(|s| server.verdict(s)).collect();
        println!("{verdicts:?} {}", server.row(&snapshots[3]));
        // It fills the queue at once; what it is shows a second later.
        assert!(verdicts.iter().filter(|v| **v == "syn_flood").count() >= 3);
        for (figure, counter) in [
            ("cookies_sent", "SyncookiesSent"),
            ("cookies_valid", "SyncookiesRecv"),
            ("cookies_failed", "SyncookiesFailed"),
        ] {
            let counted = after.since(&before, &[counter]) as f64;
            assert_near(figure, server.sum(&snapshots, figure), counted, 0.0);
        }
        let cookies = after.since(&before, &["SyncookiesSent"]);
        assert!(cookies > u64::from(syns / 2));
        let flooded = snapshots.iter().rev();
        let row = flooded.map(|snapshot| server.row(snapshot));
        let row = row.clone().find(|row| !row["sources"].is_null());
        assert_sources(&row.expect("sources")["sources"], is_v6, syns);
    }
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

/// The ways in which functions can be hooked here, by `--function-hooks`.
fn ways() -> &'static [&'static str] {
    host_or_guest(&["auto"], &["fentry", "kprobe", "off"])
}

/// Whether tracer has hooked the functions on cookies.
fn is_hooked(tracer: &Tracer) -> bool {
    [
        "tcp_conn_request",
        "cookie_v4_init_sequence",
        "cookie_v6_init_sequence",
        "cookie_v4_check",
        "cookie_v6_check",
    ]
    .iter()
    .all(|name| tracer.has_hook(name))
}

/// What connections by cookie have lost is what the server's own sockets say.
#[test]
fn what_cookies_cost_is_told() {
    const CLIENTS: u32 = 40;
    for way in ways() {
        for is_v6 in [false, true] {
            let mut server = Server::new(is_v6, "tells");
            // The connections that were tried until it answered.
            while Has::said(&server.workload.line()).is_none() {}
            let always = || std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2");
            server.joined.ends[1].within(always).expect("a setting");
            let args = [&ARGS[..], &["--function-hooks", way]].concat();
            let mut tracer = Tracer::start(&args);
            tracer.snapshot_after(wall_ns());
            let before = server.counters();
            let clients = || {
                server.within(|| {
                    for (kind, has_time, mss) in
                        [(0, true, 1460), (1, false, 1460), (2, false, 1400)]
                    {
                        let wire = Wire::new(server.to, has_time).expect("raw sockets");
                        let wire = wire.with_mss(mss);
                        for n in 0..CLIENTS {
                            wire.syn(wire.stranger(kind * 1_000 + n)).expect("a SYN");
                        }
                        thread::sleep(Duration::from_millis(300));
                        for answer in wire.answers() {
                            // Nobody knows the connection yet: it is looked at as a cookie.
                            wire.wrong_ack(&answer).expect("an ACK");
                            wire.ack(&answer).expect("an ACK");
                        }
                        thread::sleep(Duration::from_millis(300));
                    }
                });
            };
            tracer.during(clients);
            let mut has = Vec::new();
            for _ in 0..3 * CLIENTS {
                has.push(Has::said(&server.workload.line()).expect("what it has"));
            }
            let after = server.counters();
            assert_eq!(
                after.since(&before, &["SyncookiesRecv"]),
                u64::from(3 * CLIENTS)
            );
            let failed = after.since(&before, &["SyncookiesFailed"]);
            let hooked = is_hooked(&tracer);
            assert_eq!(hooked, *way == "fentry" || *way == "kprobe");
            let end = tracer.finish().1;
            let rows = list(&end["totals"]["syn"]["listeners"]);
            let row = rows.iter().find(|row| row["pid"] == server.workload.pid());
            let row = row.expect("its row");
            assert_eq!(
                (failed, &row["cookies_failed"]),
                ((3 * CLIENTS).into(), &failed.into())
            );
            assert_eq!(row["cookies_valid"], 3 * CLIENTS);
            let by = &row["by_cookie"];
            println!("{way} v6 {is_v6}: {by}");
            let without = |option: u8| has.iter().filter(|has| has.options & option == 0).count();
            assert_eq!(by["without_timestamps"], without(Has::TIMESTAMPS));
            assert_eq!(without(Has::TIMESTAMPS) as u32, 2 * CLIENTS);
            if !hooked {
                assert!(by["established"].is_null() && list(&by["mss"]).is_empty());
                continue;
            }
            assert_eq!(
                (&by["established"], &by["refused"]),
                (&(3 * CLIENTS).into(), &0.into())
            );
            for (figure, option) in [
                ("without_window_scaling", Has::WINDOW_SCALING),
                ("without_sack", Has::SACK),
                ("without_ecn", Has::ECN),
            ] {
                assert_eq!(by[figure], without(option), "{figure}");
            }
            // Timestamps take 12 bytes of each segment.
            let mut sizes: BTreeMap<u32, u32> = BTreeMap::new();
            for has in &has {
                let whole = has.mss
                    + if has.options & Has::TIMESTAMPS == 0 {
                        0
                    } else {
                        12
                    };
                *sizes.entry(whole).or_default() += 1;
            }
            let told = list(&by["mss"]).iter();
            let told: BTreeMap<u32, u32> = told
                .map(|row| {
                    (
                        number(&row["mss"]) as u32,
                        number(&row["connections"]) as u32,
                    )
                })
                .collect();
            assert_eq!(told, sizes);
        }
    }
}

/// Two listeners of a namespace that are full at once: with hooks each has its own
/// cookies, without them it is said that nobody knows.
#[test]
fn cookies_are_the_listener_s_own() {
    for way in ways() {
        let first = Server::new(false, "accepts");
        let second = Server::beside(first.joined.clone(), false, "accepts");
        let args = [&ARGS[..], &["--function-hooks", way]].concat();
        let mut tracer = Tracer::start(&args);
        tracer.snapshot_after(wall_ns());
        let before = first.counters();
        let attack = || {
            first.within(|| {
                let wires = [&first, &second]
                    .map(|server| Wire::new(server.to, true).expect("raw sockets"));
                for batch in 0..20 {
                    for n in 0..60 {
                        // Twice as many for the one as for the other.
                        wires[0]
                            .syn(wires[0].stranger(batch * 60 + n))
                            .expect("a SYN");
                        if n % 2 == 0 {
                            wires[1]
                                .syn(wires[1].stranger(batch * 60 + n))
                                .expect("a SYN");
                        }
                    }
                    thread::sleep(Duration::from_millis(100));
                }
            });
        };
        let ((), snapshots) = tracer.during(attack);
        let all = first.counters().since(&before, &["SyncookiesSent"]) as f64;
        let hooked = is_hooked(&tracer);
        let [one, other] = [&first, &second].map(|server| server.sum(&snapshots, "cookies_sent"));
        println!("{way}: {one} and {other} of {all}");
        if hooked {
            assert_near("both", one + other, all, 0.0);
            // What is in the queues had no cookie.
            let queued = f64::from(BACKLOG) + 1.0;
            assert_near("the one", one, 1_200.0 - queued, queued);
            assert_near("the other", other, 600.0 - queued, queued);
        } else {
            let rows = snapshots.iter().map(|snapshot| first.row(snapshot));
            assert!(rows.clone().any(|row| row["cookies_sent"].is_null()));
        }
    }
}

/// Without cookies the kernel drops SYNs before the queue is full.
#[test]
fn a_flood_is_told_without_cookies() {
    let server = Server::new(false, "accepts");
    let off = || {
        std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "0")?;
        std::fs::write("/proc/sys/net/ipv4/tcp_max_syn_backlog", "64")
    };
    server.joined.ends[1].within(off).expect("settings");
    let mut tracer = Tracer::start(&ARGS);
    tracer.snapshot_after(wall_ns());
    let syns = host_or_guest(3_000, 900);
    let attack = || {
        server.within(|| {
            let wire = Wire::new(server.to, true).expect("raw sockets");
            flood(&wire, syns, syns / 6);
        });
    };
    let ((), snapshots) = tracer.during(attack);
    let verdicts: Vec<_> = snapshots.iter().map(|s| server.verdict(s)).collect();
    println!("{verdicts:?} {}", server.row(&snapshots[3]));
    assert!(verdicts.iter().filter(|v| **v == "syn_flood").count() >= 3);
    assert_near("cookies", server.sum(&snapshots, "cookies_sent"), 0.0, 0.0);
    assert!(number(&server.row(&snapshots[3])["syn_queue"]) < f64::from(BACKLOG));
    let dropped = server.sum(&snapshots, "drops");
    assert!(dropped >= f64::from(syns / 2), "{dropped} dropped");
}

/// Clients that all come at once and then answer: the backlog is too small for them.
#[test]
fn a_burst_is_no_flood() {
    let server = Server::new(false, "accepts");
    let mut tracer = Tracer::start(&ARGS);
    tracer.snapshot_after(wall_ns());
    let bursts = || {
        server.within(|| {
            let wire = Wire::new(server.to, true).expect("raw sockets");
            for burst in 0..12_u32 {
                for n in 0..3 * BACKLOG {
                    wire.syn(wire.stranger(burst * 1_000 + n)).expect("a SYN");
                }
                // A round trip.
                thread::sleep(Duration::from_millis(100));
                for answer in wire.answers() {
                    wire.ack(&answer).expect("an ACK");
                }
                thread::sleep(Duration::from_millis(300));
            }
        });
    };
    let ((), snapshots) = tracer.during(bursts);
    let verdicts: Vec<_> = snapshots.iter().map(|s| server.verdict(s)).collect();
    println!("{verdicts:?} {}", server.row(&snapshots[2]));
    assert!(!verdicts.contains(&"syn_flood"), "{verdicts:?}");
    assert!(verdicts.contains(&"burst_or_small_backlog"), "{verdicts:?}");
}

/// A server that accepts nobody.
#[test]
fn a_slow_accept_is_no_flood() {
    let server = Server::new(false, "sleeps");
    let mut tracer = Tracer::start(&ARGS);
    tracer.snapshot_after(wall_ns());
    let clients = || {
        let connect = || {
            let timeout = Duration::from_millis(20);
            let connections =
                (0..2 * BACKLOG).map(|_| TcpStream::connect_timeout(&server.to, timeout));
            let open: Vec<_> = connections.filter_map(Result::ok).collect();
            thread::sleep(Duration::from_secs(4));
            drop(open);
        };
        server.within(connect);
    };
    let ((), snapshots) = tracer.during(clients);
    let verdicts: Vec<_> = snapshots.iter().map(|s| server.verdict(s)).collect();
    let last = server.row(&snapshots[snapshots.len() - 2]);
    println!("{verdicts:?} {last}");
    assert!(verdicts.iter().filter(|v| **v == "slow_accept").count() >= 2);
    assert!(!verdicts.contains(&"syn_flood"), "{verdicts:?}");
    // One more than the backlog (`sk_acceptq_is_full`, include/net/sock.h).
    assert_eq!(
        (&last["accept_queue"], &last["backlog"]),
        (&(BACKLOG + 1).into(), &BACKLOG.into())
    );
}

/// Many connections, each accepted at once.
#[test]
fn a_busy_server_is_healthy() {
    let server = Server::new(false, "accepts");
    let mut tracer = Tracer::start(&ARGS);
    tracer.snapshot_after(wall_ns());
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
    let verdicts: Vec<_> = snapshots.iter().map(|s| server.verdict(s)).collect();
    println!("{verdicts:?}");
    assert!(verdicts.iter().all(|verdict| *verdict == "healthy"));
}
