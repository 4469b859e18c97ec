//! Connections are put on the process and the program that made them, although ids come
//! again; tables that any user can fill have room again afterwards, and what they could not
//! take is counted.

use serde_json::Value;
use tests::{
    lanes::Test,
    provoke::Workload,
    tcp::{
        reused::{FIRST, HONEST, INTRUDER, SECOND},
        seen,
    },
    test,
    time::host_or_guest,
    tracer::{Snapshot, Tracer, number},
};

pub(crate) const TESTS: &[Test] = &[
    test!(an_id_that_comes_again_is_another_process).contract(),
    test!(what_a_program_did_before_execve_is_its_own).contract(),
    test!(tables_of_ports_that_were_full_have_room_again)
        .serial("it fills tables that all of the host share"),
    test!(a_listener_without_room_is_lost_once)
        .host("a guest has no memory for so many sockets")
        .serial("it fills a table that all of the host share"),
];

/// Ports that are connected to: more than the table of ports has slots, and on a host more
/// than that of actors.
const PORTS: (u64, u64) = (12_000, 3_000);
/// Sockets that listen: more than the table of them has room for.
const LISTENERS: u64 = 8192 + 500;
/// A walk over all descriptors comes within so many snapshots of half a second.
const A_WALK: usize = 60;
/// A service is seen within so many snapshots of a second.
const SOON: usize = 10;

/// Who listens on a port that has connections.
fn listener<'a>(snapshot: &'a Snapshot, said: &Value) -> Option<&'a Value> {
    let rows = seen::list(&snapshot.0["tcp"]["ports"]).iter();
    let mut of_it = rows.filter(|row| row["side"] == "accepted" && row["port"] == said["port"]);
    Some(&of_it.next()?["listener"])
}

/// A table of listeners that is full, and is not: what had no room is counted when it came,
/// and not again by each walk over all descriptors; one that comes later is known.
fn a_listener_without_room_is_lost_once() {
    let mut tracer = Tracer::start(&["--interval", "500ms"]);
    tracer.may_lose = true;
    let mut flood = Workload::nicely(&["tcp-listeners", &LISTENERS.to_string()]);
    let (who, snapshots) = said(&mut flood, &mut tracer);
    let mut last = snapshots.into_iter().last().expect("a snapshot");
    let lost = last.lost("tcp_listeners");
    println!("{lost} had no room");
    assert!(lost >= 500, "the table was full");
    // The last one is among them: a walk alone knows whose it is.
    let mut passed = 0;
    while !listener(&last, &who).is_some_and(|listener| listener["pid"] == who["pid"]) {
        assert!(passed < A_WALK, "no walk in {A_WALK} snapshots");
        last = tracer.snapshot();
        passed += 1;
    }
    println!("walked after {passed} snapshots");
    assert_eq!(last.lost("tcp_listeners"), lost, "counted once");
    flood.end();
    let mut service = Workload::ready(&["tcp-service", "late-listener"]);
    service.go();
    let who: Value = serde_json::from_str(&service.line()).expect("JSON");
    let is_known = |last: &Snapshot| {
        let listener = listener(last, &who);
        listener.is_some_and(|one| one["pid"] == who["pid"] && one["comm"] == "late-listener")
    };
    let mut passed = 0;
    while !is_known(&last) {
        assert!(passed < 2 * SOON, "not seen in {} snapshots", 2 * SOON);
        last = tracer.snapshot();
        passed += 1;
    }
    println!("seen after {passed} snapshots");
    assert_eq!(last.lost("tcp_listeners"), lost);
}

/// The numbers that a workload says.
fn said(workload: &mut Workload, tracer: &mut Tracer) -> (Value, Vec<Snapshot>) {
    workload.go();
    tracer.during(|| {
        let said = serde_json::from_str(&workload.line()).expect("JSON");
        assert_eq!(workload.line(), "done");
        said
    })
}

/// Connections that a process of this name opened, by its rows with this id and port.
fn opened(snapshots: &[Snapshot], said: &Value, comm: &str) -> u64 {
    seen::sum(snapshots, "actors", "opened", |row| {
        row["pid"] == said["pid"]
            && row["side"] == "connected"
            && row["port"] == said["port"]
            && row["comm"] == comm
    })
}

/// One connection of the first, seven of the second; both are over before tracer looks.
fn an_id_that_comes_again_is_another_process() {
    let mut tracer = Tracer::shared();
    let mut workload = Workload::ready(&["tcp-reused"]);
    let (said, snapshots) = said(&mut workload, &mut tracer);
    println!("{said}");
    let told = [HONEST, INTRUDER].map(|comm| opened(&snapshots, &said, comm));
    assert_eq!(told, [FIRST, SECOND]);
}

/// The process is the same, and the program is not.
fn what_a_program_did_before_execve_is_its_own() {
    let mut tracer = Tracer::shared();
    let mut workload = Workload::ready(&["tcp-exec"]);
    let (said, snapshots) = said(&mut workload, &mut tracer);
    println!("{said}");
    let told = [HONEST, INTRUDER].map(|comm| opened(&snapshots, &said, comm));
    assert_eq!(told, [FIRST, SECOND]);
}

/// Filled and released: each connection has a row or is counted as lost, in the
/// summary as in the intervals, and a service that comes later is seen.
fn tables_of_ports_that_were_full_have_room_again() {
    let count = host_or_guest(PORTS.0, PORTS.1);
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    tracer.may_lose = true;
    let mut flood = Workload::nicely(&["tcp-ports", &count.to_string()]);
    let (_, snapshots) = said(&mut flood, &mut tracer);
    let last = snapshots.last().expect("a snapshot");
    let lost = ["tcp_ports", "tcp_actors"].map(|reason| last.lost(reason));
    println!("lost {lost:?} of {count}");
    assert!(lost[0] > 0, "the table of ports was full");
    let mut service = Workload::ready(&["tcp-service", "late-service"]);
    service.go();
    let who: Value = serde_json::from_str(&service.line()).expect("JSON");
    let mut passed = Vec::new();
    let is_seen = |snapshots: &[Snapshot]| {
        let is_port = |row: &Value| row["side"] == "accepted" && row["port"] == who["port"];
        let accepted = seen::sum(snapshots, "ports", "established", is_port);
        accepted > 0 && opened(snapshots, &who, "late-service") > 0
    };
    while !is_seen(&passed) {
        assert!(passed.len() < SOON, "not seen in {SOON} snapshots");
        passed.push(tracer.snapshot());
    }
    println!("seen after {} snapshots", passed.len());
    drop(service);
    let (_, end, _) = tracer.finish();
    let total = |is_it: &dyn Fn(&Value) -> bool| -> u64 {
        let transitions = seen::list(&end["totals"]["tcp"]["transitions"]).iter();
        let counts = transitions
            .filter(|row| is_it(row))
            .map(|row| number(&row["count"]));
        counts.sum::<f64>() as u64
    };
    let rows = |rows: &str, figures: &[&str]| -> u64 {
        let rows = seen::list(&end["totals"]["tcp"][rows]).iter();
        let figures = rows.flat_map(|row| figures.iter().map(|figure| number(&row[*figure])));
        figures.sum::<f64>() as u64
    };
    let lost = |reason: &str| number(&end["lost"][reason]) as u64;
    let acted = total(&|row| {
        row["to"] == "SYN_SENT" || row["from"] == "ESTABLISHED" && row["to"] == "FIN_WAIT1"
    });
    let actors = rows("actors", &["opened", "closed_first"]);
    println!(
        "actors: {actors} told, {} lost, of {acted}",
        lost("tcp_actors")
    );
    assert_eq!(actors + lost("tcp_actors"), acted);
    let established = total(&|row| row["to"] == "ESTABLISHED");
    let closed_later = total(&|row| row["from"] == "CLOSE_WAIT" && row["to"] != "CLOSE");
    let ports = rows("ports", &["established"]);
    println!(
        "ports: {ports} told, {} lost, of {established} (+{closed_later})",
        lost("tcp_ports")
    );
    assert!(
        ports + lost("tcp_ports") >= established,
        "each has a row or is lost"
    );
    assert!(
        ports + lost("tcp_ports") <= established + closed_later,
        "and is so once"
    );
}
