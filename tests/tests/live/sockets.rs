//! TCP sockets of programs as they are: nginx; connections that are reset; a peer that is
//! gone.

use std::{io::Read as _, net::TcpListener, net::TcpStream, thread, time::Duration};

use tests::{
    provoke::Workload,
    skip,
    tcp::{netns::Joined, nginx::Nginx, seen},
    time::{eventually, host_or_guest, wall_ns},
    tracer::{Tracer, number},
};

/// nginx closes a connection that was idle for a second: TIME_WAIT is its own. Where the
/// client closes, it is the client's.
#[test]
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
    for closer in ["nginx", "client"] {
        let mut tracer = Tracer::start(&["--interval", "500ms"]);
        tracer.snapshot_after(wall_ns());
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
        let own = [std::process::id()];
        let (those, others) = match closer {
            "nginx" => (workers.as_slice(), own.as_slice()),
            _ => (own.as_slice(), workers.as_slice()),
        };
        let of = |pids: &[u32], key: &str| -> f64 {
            let rows = pids.iter().flat_map(|pid| seen::time_wait(last, *pid));
            let of_port = rows.filter(|row| row[key] == port);
            of_port.map(|row| number(&row["count"])).sum()
        };
        let [key, other_key] = match closer {
            "nginx" => ["local_port", "remote_port"],
            _ => ["remote_port", "local_port"],
        };
        println!("{closer}: {}", last.0["tcp"]["time_wait"]);
        assert_eq!(of(those, key), CONNECTIONS as f64, "{closer}");
        assert_eq!(of(others, other_key), 0.0, "{closer}");
        let ports = seen::list(&last.0["tcp"]["ports"]);
        let is_it = |row: &&serde_json::Value| row["port"] == port && row["side"] == "accepted";
        let row = ports.iter().find(is_it).expect("a row of its port");
        assert_eq!(row["listener"]["pid"], nginx.pid(), "{row}");
        assert_eq!(row["listener"]["comm"], "nginx");
    }
}

/// Connections that are refused are resets that this host sends: told once, with their
/// rate.
#[test]
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
    let of = |row: &serde_json::Value| row["count"].as_u64().expect("a count");
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
#[test]
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
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    tracer.snapshot_after(wall_ns());
    joined.cut().expect("it is cut");
    drop(open);
    let dead = tracer.event("dead_peer", 60);
    println!("{dead}");
    assert_eq!(dead["peer"], address.to_string());
    assert_eq!(dead["sockets"], CONNECTIONS);
    assert_eq!(dead["state"], "FIN_WAIT1");
    assert_eq!(dead["remote"], to.to_string());
    assert_eq!(dead["netns"]["inode"], inode);
    assert_eq!(dead["timer"]["kind"], "on");
    assert!(number(&dead["timer"]["retransmits"]) >= 3.0);
    let age = number(&dead["age_ns"]) / 1e9;
    // Sockets are counted each 10 s, later where that takes long.
    assert!((9.0..=host_or_guest(25.0, 60.0)).contains(&age), "{age}");
}
