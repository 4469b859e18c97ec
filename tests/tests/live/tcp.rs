//! TCP sockets: every transition counted, sockets by state as the kernel lists them,
//! who closed first, namespaces that come and go.

use std::{
    collections::BTreeMap,
    net::{TcpListener, TcpStream},
    path::Path,
};

use serde_json::Value;
use tests::{
    kernel,
    lanes::{Test, stream::losses},
    provoke::Workload,
    schedstat,
    tcp::{
        self,
        netns::Netns,
        sampler::Sampler,
        seen,
        states::{States, Transitions, kept_alike},
        untold::{All, Untold},
    },
    test,
    time::{NS, eventually, host_or_guest, monotonic_ns, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

pub(crate) const TESTS: &[Test] = &[
    // Before the others leave thousands of sockets in TIME_WAIT, which are counted too.
    test!(sockets_by_state_are_those_of_sock_diag)
        .serial("it holds two lists of sockets against each other that are not of one moment"),
    test!(every_transition_on_loopback_is_counted)
        .serial("it counts the transitions of all sockets")
        .contract(),
    test!(every_transition_between_namespaces_is_counted)
        .serial("it counts the transitions of all sockets"),
    test!(time_wait_is_put_on_who_closed_first)
        .serial("sockets in TIME_WAIT are shared out over the whole host")
        .contract(),
    test!(what_is_in_fin_wait2_is_not_in_time_wait),
    test!(namespaces_come_and_go).serial("numbers of namespaces that went come again"),
    test!(with_many_idle_sockets_the_start_is_little_later)
        .serial("it measures how long tracer takes to begin"),
];

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

/// Lets workloads run to their ends, side by side: what each says, and the snapshots
/// meanwhile. In a guest one after the other: on emulated CPUs a program takes so long that
/// with many threads both are found running, which tracer counts as missed.
fn play(tracer: &mut Tracer, workloads: &mut [Workload]) -> (Vec<Value>, Vec<Snapshot>) {
    tracer.snapshot_after(wall_ns());
    tracer.during(|| {
        let at_once = host_or_guest(workloads.len(), 1);
        let mut all = Vec::new();
        for workloads in workloads.chunks_mut(at_once) {
            workloads.iter_mut().for_each(Workload::go);
            all.extend(workloads.iter_mut().map(said));
        }
        all
    })
}

/// The line of JSON that a workload says before it is done.
fn said(workload: &mut Workload) -> Value {
    let line = workload.line();
    let said = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
    assert_eq!(workload.line(), "done");
    said
}

/// What the kernel's own trace says of transitions that are not the workloads', and of those
/// that no program is told of.
struct Beside {
    all: All,
    untold: Untold,
}

impl Beside {
    fn watch() -> Self {
        Self {
            all: All::watch(),
            untold: Untold::watch(),
        }
    }
}

/// Every cell of the matrix is what the workloads made together, exactly; but for what
/// others made beside them, and what no program was told of. By the kernel's own trace: a
/// connection of the workloads' that a slow machine sends a SYN for twice is one more. What
/// tracer says it missed is what may be missing.
#[track_caller]
fn assert_transitions(snapshots: &[Snapshot], said: &[Value], beside: &Beside) {
    let mut made = Transitions::default();
    for said in said {
        made.extend(&Transitions::of(&said["transitions"]));
    }
    let seen = seen::transitions(snapshots);
    let connections = said.iter().map(|said| number(&said["connections"]));
    println!("{} connections\n{}", connections.sum::<f64>(), seen.table());
    let ports = said.iter().flat_map(|said| seen::list(&said["ports"]));
    let ports: Vec<u16> = ports.map(|port| number(port) as u16).collect();
    let nothing = Transitions::default();
    let (own, others) = beside.all.of(&ports);
    let (own, others) = (own.less(&made), others.less(&nothing));
    let untold = beside.untold.take().less(&nothing);
    let mut left = seen.less(&made);
    let last = snapshots.last().expect("a snapshot");
    let missed = last.lost("tcp_transition_missed") as i64;
    println!("seen less made: {left:?}, of others: {others:?}, untold: {untold:?}");
    println!("by the kernel's trace less made: {own:?}; missed: {missed}");
    left.retain(|pair, less| {
        let of = |all: &BTreeMap<String, i64>| all.get(pair).copied().unwrap_or(0);
        let expected = of(&own);
        !(expected - of(&untold) - missed..=expected + of(&others)).contains(less)
    });
    assert!(left.is_empty(), "{left:?}");
}

/// Over IPv4, IPv6 and v4-mapped addresses, however a connection ends, all at once.
fn every_transition_on_loopback_is_counted() {
    let beside = Beside::watch();
    let mut tracer = Tracer::start(&["--interval", "500ms"]);
    let mut workloads: Vec<Workload> = WAYS
        .into_iter()
        .map(|(kind, family, count)| {
            let count = host_or_guest(count, (count / 40).max(10)).to_string();
            let args = ["tcp-connections", kind, family, &count, "2"];
            // Two FINs must cross before the kernel sends either again: it comes first.
            match kind {
                "at-once" => Workload::ready(&args),
                _ => Workload::nicely(&args),
            }
        })
        .collect();
    let (said, snapshots) = play(&mut tracer, &mut workloads);
    assert_transitions(&snapshots, &said, &beside);
}

/// Two namespaces with a cable between them, for each of three ways to end a connection:
/// the transitions, and at rest the sockets of each as sock_diag lists them.
fn every_transition_between_namespaces_is_counted() {
    let beside = Beside::watch();
    let mut tracer = Tracer::start(&["--interval", "500ms"]);
    let mut workloads: Vec<Workload> = [
        ("client-closes", "v4"),
        ("server-closes", "v6"),
        ("client-resets", "mapped"),
    ]
    .into_iter()
    .map(|(kind, family)| {
        let count = host_or_guest("2000", "50");
        Workload::ready(&["tcp-namespaces", kind, family, count, "2"])
    })
    .collect();
    let (said, snapshots) = play(&mut tracer, &mut workloads);
    assert_transitions(&snapshots, &said, &beside);
    let last = snapshots.last().expect("a snapshot");
    let mut counts = BTreeMap::new();
    for end in said.iter().flat_map(|said| seen::list(&said["namespaces"])) {
        let path = Path::new(end["path"].as_str().expect("a path"));
        let netns = Netns::open(path).expect("a namespace");
        let listed = netns.within(tcp::diag::sockets).expect("sock_diag");
        let inode = end["inode"].as_u64().expect("a number");
        let listed = tcp::diag::count(&listed);
        assert_eq!(seen::states_within(last, inode), listed);
        counts.insert(inode, listed);
    }
    assert_eq!(counts.len(), 6, "two namespaces each: {counts:?}");
}

/// While connections of two programs come and go in a namespace, and at rest, its sockets
/// by state are those that sock_diag lists, whosever they are.
fn sockets_by_state_are_those_of_sock_diag() {
    /// A listing takes a few ms, and is not of one moment.
    const WITHIN_MS: u64 = 50;
    /// Sockets that are made or closed right now, of both: most of them come and go
    /// between two listings. An ACK is delayed by 40 ms, and one interrupt brings several.
    const UNDER_WAY: u64 = 20;
    // Sockets are counted anew after a second, or after 500 times the CPU time that it takes
    // (`Effort`, tracer/src/session/effort.rs): at most twice as long as it takes this test.
    let recounted = || {
        let begin = monotonic_ns();
        tcp::diag::sockets().expect("sock_diag");
        let took = (monotonic_ns() - begin) as f64 / NS;
        f64::max(1.0, 2.0 * 500.0 * took) + 2.0
    };
    let untold = Untold::watch();
    let netns = Netns::new().expect("a namespace");
    let inode = netns.inode().expect("its number");
    let rate = host_or_guest("500", "50");
    let mut workloads = [
        ["tcp-slow", rate, "4", "300"].as_slice(),
        &["tcp-busy", rate, "4"],
    ]
    .map(|args| {
        let ready = || Ok(Workload::ready(args));
        netns.within(ready).expect("a workload")
    });
    let mut tracer = Tracer::start(&["--interval", "100ms", "--recount-after", "1s"]);
    // Held against what the kernel did not tell, at the end.
    tracer.may_lose = true;
    let pid = workloads[0].pid();
    let again = || Netns::of_process(pid).expect("the namespace");
    let sampler = Sampler::start(again());
    let (_, snapshots) = play(&mut tracer, &mut workloads);
    let samples = sampler.stop();
    let alike = samples.kept_alike();
    let trace = untold;
    let untold = trace.take().total();
    println!("transitions while process 1 was current: {untold}");
    let agrees = |snapshot: &Snapshot, by: u64| {
        let states = kept_alike(seen::states_within(snapshot, inode));
        let agrees = alike.agree(&states, snapshot.wall_ns(), WITHIN_MS, by);
        if !agrees {
            let listed = alike.nearest(snapshot.wall_ns());
            println!("tracer {states:?}, listed {listed:?}");
        }
        agrees
    };
    let agreeing = snapshots
        .iter()
        .filter(|s| agrees(s, UNDER_WAY + untold))
        .count();
    let (all, different) = (snapshots.len(), samples.different());
    println!("{agreeing} of {all} snapshots agree, of {different} different counts");
    assert!(different > 10, "nothing came and went");
    assert!(agreeing * 100 >= all * 95, "fewer than 95 of 100");
    // What a kernel did not tell of is counted anew.
    let (begin, most) = (monotonic_ns(), recounted());
    let rest = loop {
        let sampler = Sampler::start(again());
        let rest = tracer.snapshot_after(wall_ns());
        let (samples, at_ns) = (sampler.stop(), rest.wall_ns());
        let states = seen::states_within(&rest, inode);
        if samples.agree(&states, at_ns, WITHIN_MS, 0) {
            break rest;
        }
        let waited = (monotonic_ns() - begin) as f64 / NS;
        println!("at rest, {waited:.1} s of {most:.1}: {states:?}");
        assert!(waited < most, "listed {:?}", samples.nearest(at_ns));
    };
    let untold = untold + trace.take().total();
    for (reason, count) in losses(&rest.0) {
        let unseen = if reason == "tcp_transition_unseen" {
            untold
        } else {
            0
        };
        let most = kernel::may_lose(&reason).saturating_add(unseen);
        println!("lost: {count} {reason}, at most {most}");
        assert!(count <= most, "{count} {reason}, at most {most}");
    }
}

/// A socket that was closed here, and whose peer has not closed yet, is in FIN_WAIT2, although
/// the kernel keeps it like one in TIME_WAIT and counts it there.
fn what_is_in_fin_wait2_is_not_in_time_wait() {
    const OPEN: usize = 30;
    const CLOSED: usize = 20;
    let mut tracer = Tracer::shared();
    let netns = Netns::new().expect("a namespace");
    let inode = netns.inode().expect("its number");
    let connect = || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let mut clients = Vec::new();
        for _ in 0..OPEN + CLOSED {
            clients.push(TcpStream::connect(address)?);
            // The server closes first.
            drop(listener.accept()?);
        }
        clients.truncate(OPEN);
        Ok(clients)
    };
    // Without a process there no namespace is found.
    let ready = || Ok(Workload::ready(&["sleepers", "0"]));
    let _stays = netns.within(ready).expect("a process");
    let clients = netns.within(connect).expect("connections");
    let expected: States = [
        ("FIN_WAIT2", OPEN),
        ("TIME_WAIT", CLOSED),
        ("CLOSE_WAIT", OPEN),
    ]
    .map(|(state, count)| (state.to_owned(), count as u64))
    .into();
    // An ACK can be late.
    let is_listed = || {
        let listed = netns.within(tcp::diag::sockets).expect("sock_diag");
        tcp::diag::count(&listed) == expected
    };
    assert!(eventually(5.0, is_listed));
    // A list of them is made again after 500 times the CPU time that it took.
    let seen = (0..20).find_map(|_| {
        let snapshot = tracer.snapshot_after(wall_ns());
        let states = seen::states_within(&snapshot, inode);
        println!("{states:?}");
        (states == expected).then_some(snapshot)
    });
    let seen = seen.expect("the states that the kernel lists");
    let [total, fin_wait2] = ["time_wait_total", "time_wait_fin_wait2"]
        .map(|name| seen.0["tcp"][name].as_u64().expect("a count"));
    // Of the whole host.
    assert!(total >= (OPEN + CLOSED) as u64 && fin_wait2 >= OPEN as u64);
    drop(clients);
}

/// TIME_WAIT is put on who closed first, on the server as on the client, and on a
/// process that closes by its end: of three pairs side by side.
fn time_wait_is_put_on_who_closed_first() {
    const WHO: [&str; 3] = ["server", "client", "exit"];
    let count = host_or_guest(1000, 50);
    let mut tracer = Tracer::start(&["--interval", "500ms"]);
    let mut workloads = WHO.map(|who| Workload::ready(&["tcp-closers", who, &count.to_string()]));
    let (all, snapshots) = play(&mut tracer, &mut workloads);
    let last = snapshots.last().expect("a snapshot");
    for (who, said) in WHO.into_iter().zip(all) {
        let [server, client] = ["pid", "client_pid"].map(|key| said[key].as_u64().expect("a pid"));
        let closer = if who == "server" { server } else { client } as u32;
        let first = seen::sum(&snapshots, "actors", "closed_first", |row| {
            row["pid"] == closer
        });
        assert_eq!(first, count, "{who}");
        let opened = seen::sum(&snapshots, "actors", "opened", |row| row["pid"] == client);
        assert_eq!(opened, count, "{who}");
        let rows = seen::time_wait(last, closer);
        println!("{who}: {rows:?}");
        let [row] = rows.as_slice() else {
            panic!("{who}: one row of {closer}: {}", last.0["tcp"]["time_wait"]);
        };
        assert_eq!(row["count"], count);
        assert_eq!(row["local_port"].is_number(), who == "server");
        let other = if who == "server" { client } else { server } as u32;
        assert!(seen::time_wait(last, other).is_empty(), "{who}");
    }
}

/// A namespace without a name and one that has one, found as they come; one that goes
/// while tracer looks does no harm.
fn namespaces_come_and_go() {
    let untold = Untold::watch();
    let mut tracer = Tracer::start(&["--interval", "200ms"]);
    let inodes: Vec<u64> = (0..host_or_guest(30, 5))
        .map(|_| {
            let netns = Netns::new().expect("a namespace");
            let listener = netns.within(|| {
                let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
                std::net::TcpStream::connect(listener.local_addr()?)?;
                Ok(listener)
            });
            let inode = netns.inode().expect("its number");
            drop(listener.expect("a listener"));
            inode
        })
        .collect();
    let name = format!("tracer-{}", std::process::id());
    let named = Netns::new().expect("a namespace");
    let named = named.named(&name).expect("a name");
    let listen = || std::net::TcpListener::bind("127.0.0.1:0");
    let _listener = named.within(listen).expect("a listener");
    let inode = named.inode().expect("its number");
    // Where the number is that of one before, it is looked for again a while later.
    let began = monotonic_ns();
    let (snapshot, row) = loop {
        let snapshot = tracer.snapshot_after(wall_ns());
        let namespaces = seen::list(&snapshot.0["tcp"]["namespaces"]);
        let row = namespaces.iter().find(|row| row["netns"]["inode"] == inode);
        let row = row.unwrap_or_else(|| panic!("no {inode} in {namespaces:?}"));
        let row = row.clone();
        if row["netns"]["name"] == *name {
            break (snapshot, row);
        }
        let waited = (monotonic_ns() - began) as f64 / NS;
        assert!(waited < 10.0, "no {name} after {waited} s: {row}");
    };
    assert_eq!(row["states"]["LISTEN"], 1);
    // Nothing is left of those that went, but for a socket that no program was told the end of.
    let mut left = BTreeMap::new();
    for gone in inodes.into_iter().filter(|gone| *gone != inode) {
        left.insert(gone, seen::states_within(&snapshot, gone));
    }
    let untold = untold.take().total();
    let all: u64 = left.values().flat_map(BTreeMap::values).sum();
    println!("transitions while process 1 was current: {untold}");
    assert!(all <= untold, "{left:?}");
}

/// With many sockets that do nothing tracer begins at most a second later, without the time
/// that it waits for a CPU.
fn with_many_idle_sockets_the_start_is_little_later() {
    let connections: u64 = host_or_guest(50_000, 500);
    let started = || {
        let begin = monotonic_ns();
        let tracer = Tracer::start(&["--interval", "1s"]);
        let (took_ns, (_, wait_ns)) = (monotonic_ns() - begin, schedstat::of_task(tracer.pid()));
        (tracer, took_ns.saturating_sub(wait_ns) as f64 / NS)
    };
    let memory = |snapshot: &Snapshot| number(&snapshot.0["self"]["rss_bytes"]) / 1e6;
    let (mut tracer, without) = started();
    let least = memory(&tracer.snapshot());
    drop(tracer);
    let mut workload = Workload::ready(&["tcp-idle", &connections.to_string()]);
    let (mut tracer, with) = started();
    let snapshot = tracer.snapshot();
    println!(
        "begins after {with:.2} s in place of {without:.2}, with {:.1} MB in place of {least:.1}",
        memory(&snapshot)
    );
    let established = number(&snapshot.0["tcp"]["states"]["ESTABLISHED"]);
    assert!(established >= 2.0 * connections as f64, "{established}");
    assert!(
        with - without <= host_or_guest(1.0, 3.0),
        "{with} s, and {without} s without them"
    );
    workload.go();
    drop((workload, tracer));
    // Their processes need a moment to close them, in which others would count them.
    let are_gone = || {
        let sockets = tcp::diag::sockets().expect("sock_diag");
        let states = tcp::diag::count(&sockets);
        states.get("ESTABLISHED").copied().unwrap_or(0) < connections / 100
    };
    assert!(eventually(60.0, are_gone), "the connections are closed");
}
