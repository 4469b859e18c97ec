//! TCP sockets of programs as they are: nginx; connections that are reset; a peer that is
//! gone.

use std::{io::Read as _, net::TcpListener, net::TcpStream, thread, time::Duration};

use serde_json::Value;
use tests::{
    lanes::Test,
    provoke::Workload,
    skip,
    tcp::{diag, netns::Joined, nginx::Nginx, seen},
    test,
    time::{NS, eventually, host_or_guest, monotonic_ns, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

pub(crate) const TESTS: &[Test] = &[
    test!(time_wait_of_nginx_is_put_on_who_closed_first)
        .serial("sockets in TIME_WAIT are shared out over the whole host"),
    test!(a_reset_storm_is_told)
        .serial("resets by reason are counted for the whole host")
        .contract(),
    test!(a_peer_that_is_gone_is_told).limit_s(240),
];

/// nginx closes a connection that was idle for a second: TIME_WAIT is its own. Where the
/// client closes, it is the client's.
fn time_wait_of_nginx_is_put_on_who_closed_first() {
    const CONNECTIONS: u64 = 200;
    let nginx = match Nginx::start() {
        Ok(nginx) => nginx,
        Err(e) => skip!(
            "time_wait_of_nginx_is_put_on_who_closed_first",
            "no nginx: {e}"
        ),
    };
    let port = nginx.port();
    let workers = nginx.workers();
    // Those of its start have been closed.
    thread::sleep(Duration::from_secs(2));
    let own = [std::process::id()];
    // Of connections that the port accepted, of those that were made to it.
    let of = |snapshot: &Snapshot, pids: &[u32], key: &str| -> f64 {
        let rows = pids.iter().flat_map(|pid| seen::time_wait(snapshot, *pid));
        let of_port = rows.filter(|row| row[key] == port);
        of_port.map(|row| number(&row["count"])).sum()
    };
    let both = |snapshot: &Snapshot| {
        [
            of(snapshot, &workers, "local_port"),
            of(snapshot, &own, "remote_port"),
        ]
    };
    let mut tracer = Tracer::start(&["--interval", "500ms"]);
    let before = tracer.snapshot_after(wall_ns());
    assert_eq!(both(&before), [0.0; 2]);
    for (closer, expected) in [
        ("nginx", [CONNECTIONS, 0]),
        ("client", [CONNECTIONS, CONNECTIONS]),
    ] {
        let ((), snapshots) = tracer.during(|| {
            let mut open: Vec<TcpStream> = (0..CONNECTIONS)
                .map(|_| nginx.connect().expect("an answer"))
                .collect();
            if closer == "nginx" {
                for stream in &mut open {
                    assert_eq!(stream.read(&mut [0]).expect("a FIN"), 0);
                }
            }
            drop(open);
            // The last acknowledgement is on its way for a moment.
            thread::sleep(Duration::from_millis(200));
        });
        let last = snapshots.last().expect("a snapshot");
        println!("{closer}: {}", last.0["tcp"]["time_wait"]);
        assert_eq!(both(last), expected.map(|n| n as f64), "{closer}");
        // Neither has any at the other's end.
        assert_eq!(of(last, &workers, "remote_port"), 0.0, "{closer}");
        assert_eq!(of(last, &own, "local_port"), 0.0, "{closer}");
        let ports = seen::list(&last.0["tcp"]["ports"]);
        let is_it = |row: &&Value| row["port"] == port && row["side"] == "accepted";
        let row = ports.iter().find(is_it).expect("a row of its port");
        assert_eq!(row["listener"]["pid"], nginx.pid(), "{row}");
        assert_eq!(row["listener"]["comm"], "nginx");
    }
}

/// Connections that are refused are resets that this host sends: told once, with their
/// rate.
fn a_reset_storm_is_told() {
    let mut tracer = Tracer::start(&["--interval", "500ms"]);
    let count = host_or_guest("3000", "1000");
    let mut workload = Workload::ready(&["tcp-connections", "refused", "v4", count, "2"]);
    tracer.snapshot_after(wall_ns());
    workload.go();
    let storm = tracer.event("reset_storm", 60);
    println!("{storm}");
    let sent = number(&storm["resets_sent_per_s"]);
    let most: f64 = count.parse().expect("a number");
    assert!((100.0..=most).contains(&sent), "{sent}");
    assert_eq!(storm["connections_reset_per_s"], 0.0);
    assert_eq!(storm["netns"]["own"], true);
    assert!(!workload.line().is_empty());
    tracer.snapshot_after(wall_ns());
    let is_known = tracer.has_hook("tcp_send_reset");
    let (_, end, _) = tracer.finish();
    let tcp = &end["totals"]["tcp"];
    let sent = tcp["counters"]["resets_sent"].as_u64().expect("a count");
    let reasons = seen::list(&tcp["resets_by_reason"]);
    println!("{sent} sent, {reasons:?}");
    let of = |row: &Value| row["count"].as_u64().expect("a count");
    if is_known {
        // Nobody listens; all that were sent have a reason.
        let refused = reasons.iter().find(|row| row["reason"] == "NO_SOCKET");
        assert_eq!(refused.map(of), Some(most as u64));
        assert_eq!(reasons.iter().map(of).sum::<u64>(), sent);
    } else {
        assert!(reasons.is_empty());
    }
}

/// A cable is cut, then connections are closed: their FIN is never acknowledged.
fn a_peer_that_is_gone_is_told() {
    const CONNECTIONS: u64 = 3;
    let joined = Joined::new().expect("two namespaces and a cable");
    let [far, near] = &joined.ends;
    // A process in it: else tracer cannot find it.
    let ready = || Ok(Workload::ready(&["sleepers", "0"]));
    let _inside = near.within(ready).expect("a process");
    let inode = near.inode().expect("its number");
    let address = Joined::address(0, false);
    let listener = far.within(|| TcpListener::bind((address, 0)));
    let listener = listener.expect("a listener");
    let to = listener.local_addr().expect("its address");
    let connect = || -> std::io::Result<Vec<TcpStream>> {
        (0..CONNECTIONS).map(|_| TcpStream::connect(to)).collect()
    };
    let mut open = None;
    // The cable may need a moment.
    let is_open = eventually(10.0, || {
        open = near.within(connect).ok();
        open.is_some()
    });
    assert!(is_open, "no connection");
    // Else it would take twice the usual 9 and 10 s.
    let ages = ["--dead-peer-age", "2s", "--recount-after", "1s"];
    let mut tracer = Tracer::start(&ages);
    tracer.snapshot();
    joined.cut().expect("it is cut");
    let closed_ns = monotonic_ns();
    drop(open);
    let is_it = |event: &Value| event["netns"]["inode"] == inode;
    let dead = tracer.event_of("dead_peer", 240, is_it);
    let since_closed = (monotonic_ns() - closed_ns) as f64 / NS;
    println!("after {since_closed:.1} s: {dead}");
    assert_eq!(dead["peer"], address.to_string());
    assert_eq!(dead["sockets"], CONNECTIONS);
    assert_eq!(dead["state"], "FIN_WAIT1");
    assert_eq!(dead["remote"], to.to_string());
    assert_eq!(dead["timer"]["kind"], "on");
    assert!(number(&dead["timer"]["retransmits"]) >= 1.0);
    let age = number(&dead["age_ns"]) / NS;
    // Sockets are counted each second, or after 500 times the CPU time that it takes: all that
    // others have are counted with them, in 60 ms on a host and 200 ms in a guest.
    let most = host_or_guest(34.0, 110.0);
    assert!((2.0..=most).contains(&age), "{age}");
    assert!(age <= since_closed, "{age} s of {since_closed}");
    // Else they would end in the middle of a test that counts all transitions.
    joined.mend().expect("it is whole again");
    drop(listener);
    let are_gone = || {
        let sockets = near.within(diag::sockets).expect("sock_diag");
        !sockets
            .iter()
            .any(|socket| socket.remote == to && !socket.is_remains)
    };
    assert!(
        eventually(20.0, are_gone),
        "its sockets end with their peers"
    );
}
