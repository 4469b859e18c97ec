//! TCP sockets: every transition counted, sockets by state as the kernel lists them,
//! who leaks and who closed first.

use std::path::Path;

use serde_json::Value;
use tests::{
    assert_near,
    provoke::Workload,
    skip,
    tcp::{
        self, netns::Netns, python::Server, sampler::Sampler, seen, states::Transitions,
        untold::Untold,
    },
    time::{NS, host_or_guest, monotonic_ns, wall_ns},
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

/// Every cell of the matrix is what the workload made, exactly; but for what no program
/// was told of, as the kernel's own trace says.
#[track_caller]
fn assert_transitions(what: &str, snapshots: &[Snapshot], said: &Value, untold: &Untold) {
    let made = Transitions::of(&said["transitions"]);
    let seen = seen::transitions(snapshots);
    println!(
        "{what}: {} connections\n{}",
        said["connections"],
        seen.table()
    );
    let untold = untold.take();
    let (mut left, untold) = (seen.less(&made), untold.less(&Transitions::default()));
    println!("{what}: seen less made: {left:?}, while process 1 was current: {untold:?}");
    left.retain(|pair, less| {
        let most = untold.get(pair).copied().unwrap_or(0);
        !(-most..=0).contains(less)
    });
    assert!(left.is_empty(), "{what}: {left:?}");
}

/// Over IPv4, IPv6 and v4-mapped addresses, however a connection ends.
#[test]
fn every_transition_on_loopback_is_counted() {
    let untold = Untold::watch();
    let mut tracer = Tracer::start(&["--interval", "500ms"]);
    for (kind, family, count) in WAYS {
        let count = host_or_guest(count, (count / 40).max(10));
        let (connections, threads) = (count.to_string(), "2");
        let args = ["tcp-connections", kind, family, &connections, threads];
        let mut workload = Workload::ready(&args);
        let (said, snapshots) = play(&mut tracer, &mut workload);
        assert_transitions(&format!("{kind} {family}"), &snapshots, &said, &untold);
    }
}

/// Two namespaces with a cable between them: the transitions, and at rest the sockets
/// of each as sock_diag lists them.
#[test]
fn every_transition_between_namespaces_is_counted() {
    let untold = Untold::watch();
    let mut tracer = Tracer::start(&["--interval", "500ms"]);
    for (kind, family) in [
        ("client-closes", "v4"),
        ("server-closes", "v6"),
        ("client-resets", "mapped"),
    ] {
        let count = host_or_guest("2000", "50");
        let mut workload = Workload::ready(&["tcp-namespaces", kind, family, count, "2"]);
        let (said, snapshots) = play(&mut tracer, &mut workload);
        assert_transitions(&format!("{kind} {family}"), &snapshots, &said, &untold);
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
    /// Sockets that are made or closed right now: most of them come and go between two
    /// listings. An ACK is delayed by 40 ms, and one interrupt brings several.
    const UNDER_WAY: u64 = 10;
    /// Sockets are counted anew after 10 s, in s.
    const RECOUNTED: f64 = 12.0;
    let untold = Untold::watch();
    let mut tracer = Tracer::start(&["--interval", "100ms"]);
    let rate = host_or_guest("500", "50");
    for args in [
        ["tcp-slow", rate, "4", "300"].as_slice(),
        &["tcp-busy", rate, "4"],
    ] {
        let mut workload = Workload::ready(args);
        let own = Netns::current().expect("this namespace");
        let inode = own.inode().expect("its number");
        let sampler = Sampler::start(own);
        let (_, snapshots) = play(&mut tracer, &mut workload);
        let samples = sampler.stop();
        let untold = untold.take().total();
        println!("transitions while process 1 was current: {untold}");
        let agrees = |snapshot: &Snapshot, by: u64| {
            let states = seen::states_within(snapshot, inode);
            let agrees = samples.agree(&states, snapshot.wall_ns(), WITHIN_MS, by);
            if !agrees {
                let listed = samples.nearest(snapshot.wall_ns());
                println!("tracer {states:?}, listed {listed:?}");
            }
            agrees
        };
        let agreeing = snapshots
            .iter()
            .filter(|s| agrees(s, UNDER_WAY + untold))
            .count();
        let (all, different) = (snapshots.len(), samples.different());
        println!("{args:?}: {agreeing} of {all} snapshots agree, of {different} different counts");
        assert!(different > 10, "nothing came and went");
        assert!(agreeing * 100 >= all * 95, "fewer than 95 of 100");
        // What a kernel did not tell of is counted anew.
        let begin = monotonic_ns();
        loop {
            let sampler = Sampler::start(Netns::current().expect("this namespace"));
            let rest = tracer.snapshot_after(wall_ns());
            let (samples, at_ns) = (sampler.stop(), rest.wall_ns());
            let states = seen::states_within(&rest, inode);
            if samples.agree(&states, at_ns, WITHIN_MS, 0) {
                break;
            }
            let waited = (monotonic_ns() - begin) as f64 / NS;
            println!("at rest, {waited:.1} s: {states:?}");
            assert!(waited < RECOUNTED, "listed {:?}", samples.nearest(at_ns));
        }
    }
}

/// Lets a workload leak; what it says.
fn leaked(workload: &mut Workload) -> Value {
    workload.go();
    let said = said(workload);
    assert_eq!(workload.line(), "done");
    said
}

/// The leak is told with its process, descriptors, peers, bytes, ages, and the function
/// that opened the sockets, within the age and an interval, and what it takes to look up
/// who holds a socket.
fn assert_leak(tracer: &mut Tracer, variant: &str, said: &Value, meanwhile: &[Snapshot]) {
    let pid = said["pid"].as_u64().expect("a pid") as u32;
    let made = seen::list(&said["sockets"]);
    let closed = |socket: &Value| number(&socket["closed_ns"]);
    let first_ns = made.iter().map(closed).fold(f64::INFINITY, f64::min);
    let told = meanwhile.iter().find(|snapshot| seen::leaks(snapshot, pid));
    let told = told.unwrap_or_else(|| panic!("{variant}: no leak was told"));
    let after = (told.wall_ns() as f64 - first_ns) / NS;
    println!("{variant}: told {after:.2} s after the first of them");
    assert!(
        after <= LEAK_AGE + host_or_guest(1.0, 5.0),
        "{variant}: late"
    );
    // The last ones wait for long, and who holds them is looked up.
    let begin = monotonic_ns();
    let snapshot = loop {
        let snapshot = tracer.snapshot_after(wall_ns());
        let row = seen::close_wait(&snapshot, pid).expect("a row");
        if row["sockets"].as_u64() == Some(made.len() as u64) {
            break snapshot;
        }
        let waited = (monotonic_ns() - begin) as f64 / NS;
        assert!(
            waited < host_or_guest(5.0, 20.0),
            "{} of them: {row}",
            made.len()
        );
    };
    let row = seen::close_wait(&snapshot, pid).expect("a row");
    println!("{variant}: {row}");
    assert_eq!(row["comm"], said["comm"]);
    let function = match variant {
        "passed" => None,
        "connected" => Some("open_connection"),
        "python" => Some("PyEval"),
        _ => Some("handle_client"),
    };
    let names = |stack: &Value, function: &str| {
        let mut frames = seen::list(stack).iter();
        frames.any(|frame| frame.as_str().is_some_and(|frame| frame.contains(function)))
    };
    // Who was passed its sockets has opened none.
    assert_eq!(row["stack"] == Value::Array(Vec::new()), function.is_none());
    let samples = seen::list(&row["samples"]);
    assert!(!samples.is_empty());
    if let Some(function) = function {
        assert!(names(&row["stack"], function), "{}", row["stack"]);
        let mut stacks = samples.iter().map(|sample| &sample["stack"]);
        assert!(stacks.any(|stack| names(stack, function)));
    }
    for sample in samples {
        let is_it = |made: &&Value| made["fd"] == sample["fd"];
        let made = made.iter().find(is_it);
        let made = made.unwrap_or_else(|| panic!("no such descriptor: {sample}"));
        for end in ["local", "remote"] {
            assert_eq!(sample[end], made[end]);
        }
        assert_eq!(sample["unread_bytes"], UNREAD, "{sample}");
        assert_eq!(sample["is_least"], false);
        // The FIN goes out as the peer closes; the clocks are read a moment apart.
        let age = (snapshot.wall_ns() as f64 - closed(made)) / NS;
        let most = host_or_guest(0.05, 0.5);
        assert_near("age in s", number(&sample["age_ns"]) / NS, age, most);
    }
}

/// `--leak-age` of the tests, in s.
const LEAK_AGE: f64 = 2.0;
/// Its argument, and a short interval.
const LEAK_ARGS: [&str; 4] = ["--interval", "500ms", "--leak-age", "2s"];
/// Bytes that nobody reads, of each socket that is leaked.
const UNREAD: u64 = 5;

/// By one thread and by four, passed to another process, and of connections that the
/// process itself made. Sockets are still added after the leak has been told.
#[test]
fn a_leak_is_told_with_process_descriptor_and_peer() {
    for variant in ["plain", "threads", "passed", "connected"] {
        let mut tracer = Tracer::start(&LEAK_ARGS);
        let (count, rate) = (host_or_guest("80", "60"), host_or_guest("20", "10"));
        let mut workload = Workload::ready(&["tcp-leak", variant, count, rate, "5"]);
        tracer.snapshot_after(wall_ns());
        let (said, meanwhile) = tracer.during(|| leaked(&mut workload));
        assert_leak(&mut tracer, variant, &said, &meanwhile);
    }
}

/// The walk over descriptors finds them too while tables change under it: threads of the
/// process open and close, its table grows, and processes come and go.
#[test]
fn a_leak_is_told_though_descriptor_tables_change() {
    let rate = host_or_guest("200", "20");
    let mut storm = Workload::ready(&["storm", rate, "1", "20000"]);
    let mut tracer = Tracer::start(&LEAK_ARGS);
    let count = host_or_guest("80", "60");
    let mut workload = Workload::ready(&["tcp-leak", "shuffled", count, "10", "5"]);
    tracer.snapshot_after(wall_ns());
    storm.go();
    let (said, meanwhile) = tracer.during(|| leaked(&mut workload));
    assert_leak(&mut tracer, "shuffled", &said, &meanwhile);
}

/// The same of a program in Python, whose threads accept: its interpreter keeps no frame
/// pointers.
#[test]
fn a_leak_of_a_python_program_is_told() {
    let mut server = match Server::start() {
        Ok(server) => server,
        Err(e) => skip!("a_leak_of_a_python_program_is_told", "no python3: {e}"),
    };
    let mut tracer = Tracer::start(&LEAK_ARGS);
    tracer.snapshot_after(wall_ns());
    let (said, meanwhile) = tracer.during(|| server.leak(80, 20, UNREAD as usize));
    assert_leak(&mut tracer, "python", &said, &meanwhile);
}

/// The same in another network namespace.
#[test]
fn a_leak_in_another_namespace_is_told() {
    let netns = Netns::new().expect("a namespace");
    let inode = netns.inode().expect("its number");
    let mut tracer = Tracer::start(&LEAK_ARGS);
    let (count, rate) = (host_or_guest("80", "60"), host_or_guest("20", "10"));
    let args = ["tcp-leak", "plain", count, rate, "5"];
    let ready = || Ok(Workload::ready(&args));
    let mut workload = netns.within(ready).expect("a workload");
    tracer.snapshot_after(wall_ns());
    let (said, meanwhile) = tracer.during(|| leaked(&mut workload));
    assert_leak(&mut tracer, "namespace", &said, &meanwhile);
    let pid = said["pid"].as_u64().expect("a pid") as u32;
    let row = seen::close_wait(meanwhile.last().expect("a snapshot"), pid).expect("a row");
    for sample in seen::list(&row["samples"]) {
        assert_eq!(sample["netns"]["inode"], inode);
        assert_eq!(sample["netns"]["own"], false);
    }
}

/// Sockets that were in CLOSE_WAIT before the start are there, with who holds them; as
/// long as none is added they are held, and no leak.
#[test]
fn sockets_from_before_the_start_are_found() {
    let mut workload = Workload::ready(&["tcp-leak", "before", "20", "0", "5"]);
    let said = leaked(&mut workload);
    let pid = said["pid"].as_u64().expect("a pid") as u32;
    let mut tracer = Tracer::start(&LEAK_ARGS);
    let snapshots = tracer.snapshots(8);
    let last = snapshots.last().expect("eight");
    let row = seen::close_wait(last, pid).expect("a row");
    println!("{row}");
    assert_eq!(row["sockets"], 20);
    assert_eq!(row["leak"], false);
    assert_near("growth a second", number(&row["growth_per_s"]), 0.0, 0.0);
    for sample in seen::list(&row["samples"]) {
        let is_it =
            |made: &&Value| made["fd"] == sample["fd"] && made["remote"] == sample["remote"];
        assert!(seen::list(&said["sockets"]).iter().any(|made| is_it(&made)));
        assert_eq!(sample["is_least"], true);
    }
    assert_eq!(last.0["tcp"]["states"]["CLOSE_WAIT"], 20);
    drop(workload);
    let over = tracer.snapshot_after(wall_ns());
    assert!(seen::close_wait(&over, pid).is_none());
    assert_eq!(over.0["tcp"]["states"]["CLOSE_WAIT"], 0);
}

/// Servers that close late, but always, and busy ones that close at once are no leaks.
#[test]
fn who_closes_is_no_leak() {
    let seconds = host_or_guest("20", "8");
    let rate = host_or_guest("100", "20");
    let mut tracer = Tracer::start(&LEAK_ARGS);
    let mut slow = Workload::ready(&["tcp-slow", rate, seconds, "1500"]);
    let mut busy = Workload::ready(&["tcp-busy", rate, seconds]);
    tracer.snapshot_after(wall_ns());
    let (_, snapshots) = tracer.during(|| {
        for workload in [&mut slow, &mut busy] {
            workload.go();
        }
        for workload in [&mut slow, &mut busy] {
            said(workload);
            assert_eq!(workload.line(), "done");
        }
    });
    let seen_slow = snapshots
        .iter()
        .filter_map(|s| seen::close_wait(s, slow.pid()));
    assert!(
        seen_slow.count() > 5,
        "its sockets wait for more than a second"
    );
    for snapshot in &snapshots {
        for row in seen::list(&snapshot.0["tcp"]["close_wait"]) {
            assert_eq!(row["leak"], false, "{row}");
        }
    }
}

/// TIME_WAIT is put on who closed first, on the server as on the client, and on a
/// process that closes by its end.
#[test]
fn time_wait_is_put_on_who_closed_first() {
    let count = host_or_guest(1000, 50);
    for who in ["server", "client", "exit"] {
        let mut tracer = Tracer::start(&["--interval", "500ms"]);
        let mut workload = Workload::ready(&["tcp-closers", who, &count.to_string()]);
        let (said, snapshots) = play(&mut tracer, &mut workload);
        let [server, client] = ["pid", "client_pid"].map(|key| said[key].as_u64().expect("a pid"));
        let closer = if who == "server" { server } else { client } as u32;
        let first = seen::sum(&snapshots, "actors", "closed_first", |row| {
            row["pid"] == closer
        });
        assert_eq!(first, count, "{who}");
        let opened = seen::sum(&snapshots, "actors", "opened", |row| row["pid"] == client);
        assert_eq!(opened, count, "{who}");
        let last = snapshots.last().expect("a snapshot");
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
#[test]
fn namespaces_come_and_go() {
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
    for gone in inodes.into_iter().filter(|gone| *gone != inode) {
        let states = seen::states_within(&snapshot, gone);
        assert!(
            states.values().all(|count| *count == 0),
            "{gone}: {states:?}"
        );
    }
}

/// With many sockets that do nothing tracer begins at most a second later.
#[test]
fn with_many_idle_sockets_the_start_is_little_later() {
    let connections: u64 = host_or_guest(50_000, 500);
    let started = || {
        let begin = monotonic_ns();
        let tracer = Tracer::start(&["--interval", "1s"]);
        (tracer, (monotonic_ns() - begin) as f64 / NS)
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
        with - without <= 1.0,
        "{with} s, and {without} s without them"
    );
    workload.go();
}
