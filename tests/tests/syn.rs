//! SYN floods, bursts, and servers that are slow to accept, within namespaces made for it
//! and held against the kernel's own counters there.

use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use serde_json::Value;
use tests::{
    assert_near,
    provoke::Workload,
    tcp::{counters::Counters, netns::Joined, seen::list, wire::Wire},
    time::{eventually, host_or_guest, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

const ARGS: [&str; 2] = ["--interval", "1s"];
/// The backlog of the listeners.
const BACKLOG: u32 = 64;

/// A listener in a namespace, and another namespace from which it is reached.
struct Server {
    joined: Joined,
    workload: Workload,
    to: SocketAddr,
}

impl Server {
    fn new(is_v6: bool, who: &str) -> Self {
        let joined = Joined::new().expect("two namespaces and a cable");
        joined.knows_strangers(1).expect("routes");
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
        assert!(after.since(&before, &["SyncookiesSent"]) > u64::from(syns / 2));
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
