//! Sockets that a process does not close when its peers have: who leaks, and who does not.

use std::net::TcpListener;

use serde_json::Value;
use tests::{
    assert_near, bpf,
    lanes::Test,
    provoke::Workload,
    skip,
    tcp::{diag, netns::Netns, python::Server, seen},
    test,
    time::{NS, eventually, host_or_guest, monotonic_ns, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

pub(crate) const TESTS: &[Test] = &[
    test!(a_leak_is_told_with_process_descriptor_and_peer)
        .needs(&[OPENINGS])
        .contract(),
    test!(a_leak_is_told_though_descriptor_tables_change).needs(&[NAMES[0]]),
    test!(a_leak_of_a_python_program_is_told).needs(&[NAMES[1]]),
    test!(a_leak_in_another_namespace_is_told).needs(&[NAMES[2]]),
    test!(sockets_from_before_the_start_are_found),
    test!(a_suspected_process_slows_no_other_system_call).needs(&[OPENINGS]),
    test!(who_closes_is_no_leak).needs(&[OPENINGS]),
];

/// Where suspected processes open connections is told through a ring, with a stack of 8 KiB
/// each: it has room for 63 in an interval (`OPENINGS`, tracer-ebpf/src/maps.rs). And no more
/// than 16 are watched at a time. So tests that open many, or in many processes, go one
/// after the other, and all of them at a rate that leaves room for the others.
pub(crate) const OPENINGS: &str = "room for where connections are opened";

/// Sockets that a process leaks, and how many a second.
fn pace() -> [&'static str; 2] {
    host_or_guest(["40", "10"], ["60", "10"])
}

/// These may run beside each other, but not beside processes that use up the CPU time in
/// which stacks are named.
pub(crate) const NAMES: [&str; 3] = [
    "names of the shuffled leak",
    "names of the leak in Python",
    "names of the leak in a namespace",
];

/// `--leak-age` of the shared tracer, in s.
const LEAK_AGE: f64 = 2.0;
/// Bytes that nobody reads, of each socket that is leaked.
const UNREAD: u64 = 5;

/// A process that leaks, and what it said of it.
struct Leak<'a> {
    variant: &'a str,
    said: Value,
}

/// The line of JSON that a workload says before it is done.
fn said(workload: &mut Workload) -> Value {
    let line = workload.line();
    let said = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
    assert_eq!(workload.line(), "done");
    said
}

impl<'a> Leak<'a> {
    /// Lets a workload leak.
    fn of(variant: &'a str, workload: &mut Workload) -> Self {
        workload.go();
        let said = said(workload);
        Self { variant, said }
    }

    fn pid(&self) -> u32 {
        self.said["pid"].as_u64().expect("a pid") as u32
    }

    /// The sockets.
    fn made(&self) -> &[Value] {
        seen::list(&self.said["sockets"])
    }

    fn row<'s>(&self, snapshot: &'s Snapshot) -> &'s Value {
        let row = seen::close_wait(snapshot, self.pid());
        row.unwrap_or_else(|| panic!("{}: no row", self.variant))
    }

    /// It is told within the age, an interval of the tracer's, and what it takes to look up
    /// who holds a socket.
    fn assert_in_time(&self, meanwhile: &[Snapshot]) {
        let variant = self.variant;
        let closed = self.made().iter().map(|made| number(&made["over_ns"]));
        let first_ns = closed.fold(f64::INFINITY, f64::min);
        let told = meanwhile.iter().find(|s| seen::leaks(s, self.pid()));
        let told = told.unwrap_or_else(|| panic!("{variant}: no leak was told"));
        let began = (told.began_ns() as f64 - first_ns) / NS;
        let after = (told.wall_ns() as f64 - first_ns) / NS;
        println!("{variant}: told {after:.2} s after the first, {began:.2} s to the interval");
        let is_in_time = began <= LEAK_AGE + host_or_guest(0.5, 4.5);
        assert!(is_in_time, "{variant}: late");
    }

    /// Whether all its sockets are in a snapshot: the last ones wait for long, and who
    /// holds them is looked up; and where they were opened is named: all stacks together
    /// have a 64th of a CPU, and an emulated one is slow.
    fn is_whole(&self, snapshot: &Snapshot) -> bool {
        let row = self.row(snapshot);
        let is_named = !seen::list(&row["stack"]).is_empty();
        let all = self.made().len() as u64;
        row["sockets"].as_u64() == Some(all) && is_named == self.function().is_some()
    }

    /// The function that opened its sockets. Who was passed them has opened none.
    fn function(&self) -> Option<&'static str> {
        match self.variant {
            "passed" => None,
            "connected" => Some("open_connection"),
            "python" => Some("PyEval"),
            _ => Some("handle_client"),
        }
    }

    /// The leak is told with its process, descriptors, peers, bytes, ages, and the function
    /// that opened the sockets.
    fn assert_told(&self, snapshot: &Snapshot) {
        let (variant, row) = (self.variant, self.row(snapshot));
        println!("{variant}: {row}");
        assert_eq!(row["comm"], self.said["comm"]);
        let function = self.function();
        let names = |stack: &Value, function: &str| {
            let mut frames = seen::list(stack).iter();
            frames.any(|frame| frame.as_str().is_some_and(|frame| frame.contains(function)))
        };
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
            let made = self.made().iter().find(is_it);
            let made = made.unwrap_or_else(|| panic!("no such descriptor: {sample}"));
            for end in ["local", "remote"] {
                assert_eq!(sample[end], made[end]);
            }
            assert_eq!(sample["unread_bytes"], UNREAD, "{sample}");
            assert_eq!(sample["is_least"], false);
            // The FIN goes out as the peer closes, which takes as long as the peer says; the
            // clocks are read a moment apart.
            let since = |key: &str| (snapshot.wall_ns() as f64 - number(&made[key])) / NS;
            let (least, most) = (since("over_ns"), since("closed_ns"));
            let (middle, half) = ((least + most) / 2.0, (most - least) / 2.0);
            let apart = host_or_guest(0.05, 0.5);
            let age = number(&sample["age_ns"]) / NS;
            assert_near("age in s", age, middle, half + apart);
        }
    }
}

/// Leaks are told in time, and whole once the last sockets wait for long.
fn assert_leaks(tracer: &mut Tracer, leaks: &[Leak<'_>], meanwhile: &[Snapshot]) {
    leaks.iter().for_each(|leak| leak.assert_in_time(meanwhile));
    let begin = monotonic_ns();
    let snapshot = loop {
        let snapshot = tracer.snapshot_after(wall_ns());
        let mut part = leaks.iter().filter(|leak| !leak.is_whole(&snapshot));
        let Some(part) = part.next() else {
            break snapshot;
        };
        let waited = (monotonic_ns() - begin) as f64 / NS;
        assert!(
            waited < host_or_guest(15.0, 90.0),
            "{}: {} of them: {}",
            part.variant,
            part.made().len(),
            part.row(&snapshot)
        );
    };
    leaks.iter().for_each(|leak| leak.assert_told(&snapshot));
}

/// By one thread and by four, passed to another process, and of connections that the
/// process itself made, side by side. Sockets are still added after the leak has been told.
fn a_leak_is_told_with_process_descriptor_and_peer() {
    const VARIANTS: [&str; 4] = ["plain", "threads", "passed", "connected"];
    let [count, rate] = pace();
    let ready = |variant| Workload::ready(&["tcp-leak", variant, count, rate, "5"]);
    let mut workloads = VARIANTS.map(ready);
    let mut tracer = Tracer::shared();
    tracer.snapshot_after(wall_ns());
    let (leaks, meanwhile) = tracer.during(|| {
        workloads.iter_mut().for_each(Workload::go);
        let leak = |(variant, workload)| Leak {
            variant,
            said: said(workload),
        };
        let all = VARIANTS.into_iter().zip(&mut workloads);
        all.map(leak).collect::<Vec<_>>()
    });
    assert_leaks(&mut tracer, &leaks, &meanwhile);
}

/// The walk over descriptors finds them too while tables change under it: threads of the
/// process open and close, its table grows, and processes come and go.
fn a_leak_is_told_though_descriptor_tables_change() {
    let rate = host_or_guest("200", "20");
    let mut storm = Workload::nicely(&["storm", rate, "1", "20000"]);
    let [count, rate] = pace();
    let mut workload = Workload::ready(&["tcp-leak", "shuffled", count, rate, "5"]);
    let mut tracer = Tracer::shared();
    tracer.snapshot_after(wall_ns());
    storm.go();
    let (leak, meanwhile) = tracer.during(|| Leak::of("shuffled", &mut workload));
    assert_leaks(&mut tracer, &[leak], &meanwhile);
}

/// While a process is watched, as stacks of it are named, no program of BPF runs once a
/// system call of another process. Where functions cannot be hooked, one does for a
/// moment: it is taken off while the process is still suspected.
fn a_suspected_process_slows_no_other_system_call() {
    let calls = host_or_guest(500_000, 100_000);
    let _stats = bpf::statistics();
    let [count, rate] = pace();
    let mut workload = Workload::ready(&["tcp-leak", "plain", count, rate, "5"]);
    let mut tracer = Tracer::shared();
    tracer.snapshot_after(wall_ns());
    workload.go();
    let pid = workload.pid();
    let is_watched = |snapshot: &Snapshot| {
        seen::close_wait(snapshot, pid).is_some_and(|row| !seen::list(&row["stack"]).is_empty())
    };
    let seconds = host_or_guest(30.0, 90.0);
    assert!(eventually(seconds, || is_watched(&tracer.snapshot())));
    let is_free = || {
        let before = bpf::calls();
        for _ in 0..calls {
            // SAFETY: the call has no preconditions.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
        let since = bpf::calls().into_iter().map(|(program, calls)| {
            let earlier = before.get(&program).copied().unwrap_or_default();
            (program, calls.saturating_sub(earlier))
        });
        let (program, most) = since.max_by_key(|(_, calls)| *calls).expect("tracer's");
        println!("{calls} system calls, and {most} calls of program {program}");
        most < calls
    };
    match tracer.has_hook("tcp_connect") {
        true => assert!(is_free()),
        // Others are watched beside it.
        false => assert!(eventually(20.0, is_free)),
    }
}

/// The same of a program in Python, whose threads accept: its interpreter keeps no frame
/// pointers.
fn a_leak_of_a_python_program_is_told() {
    let mut server = match Server::start() {
        Ok(server) => server,
        Err(e) => skip!("a_leak_of_a_python_program_is_told", "no python3: {e}"),
    };
    let mut tracer = Tracer::shared();
    tracer.snapshot_after(wall_ns());
    let (leak, meanwhile) = tracer.during(|| Leak {
        variant: "python",
        said: server.leak(40, 10, UNREAD as usize),
    });
    assert_leaks(&mut tracer, &[leak], &meanwhile);
}

/// The same in another network namespace.
fn a_leak_in_another_namespace_is_told() {
    let netns = Netns::new().expect("a namespace");
    let inode = netns.inode().expect("its number");
    let [count, rate] = pace();
    let args = ["tcp-leak", "plain", count, rate, "5"];
    let ready = || Ok(Workload::ready(&args));
    let mut workload = netns.within(ready).expect("a workload");
    let mut tracer = Tracer::shared();
    tracer.snapshot_after(wall_ns());
    let (leak, meanwhile) = tracer.during(|| Leak::of("namespace", &mut workload));
    let last = meanwhile.last().expect("a snapshot");
    let samples = seen::list(&leak.row(last)["samples"]).to_vec();
    assert!(!samples.is_empty());
    for sample in samples {
        assert_eq!(sample["netns"]["inode"], inode);
        assert_eq!(sample["netns"]["own"], false);
    }
    assert_leaks(&mut tracer, &[leak], &meanwhile);
}

/// Sockets that were in CLOSE_WAIT before the start are there, with who holds them; as
/// long as none is added they are held, and no leak. They are in a namespace of their own,
/// and so counted there.
fn sockets_from_before_the_start_are_found() {
    let netns = Netns::new().expect("a namespace");
    let inode = netns.inode().expect("its number");
    let inside = |args: &[&str]| {
        let ready = || Ok(Workload::ready(args));
        netns.within(ready).expect("a workload")
    };
    // Somebody stays in it, and a socket: else tracer does not know it any more.
    let _stays = inside(&["sleepers", "0"]);
    let listen = || TcpListener::bind("127.0.0.1:0");
    let _listener = netns.within(listen).expect("a listener");
    let mut workload = inside(&["tcp-leak", "before", "20", "0", "5"]);
    let leak = Leak::of("before", &mut workload);
    let mut tracer = Tracer::start(&["--interval", "500ms", "--leak-age", "2s"]);
    let snapshots = tracer.snapshots(8);
    let last = snapshots.last().expect("eight");
    let row = leak.row(last);
    println!("{row}");
    assert_eq!(row["sockets"], 20);
    assert_eq!(row["leak"], false);
    assert_near("growth a second", number(&row["growth_per_s"]), 0.0, 0.0);
    for sample in seen::list(&row["samples"]) {
        let is_it =
            |made: &&Value| made["fd"] == sample["fd"] && made["remote"] == sample["remote"];
        assert!(leak.made().iter().any(|made| is_it(&made)));
        assert_eq!(sample["is_least"], true);
    }
    let states = seen::states_within(last, inode);
    let listed = netns.within(diag::sockets).expect("sock_diag");
    assert_eq!(states, diag::count(&listed));
    assert_eq!(states.get("CLOSE_WAIT"), Some(&20));
    assert_sums(last);
    drop(workload);
    let over = tracer.snapshot_after(wall_ns());
    assert!(seen::close_wait(&over, leak.pid()).is_none());
    let namespaces = seen::list(&over.0["tcp"]["namespaces"]);
    let its = namespaces.iter().find(|row| row["netns"]["inode"] == inode);
    let its = its.expect("its namespace is still there");
    assert_eq!(its["states"]["CLOSE_WAIT"], 0);
    assert_sums(&over);
}

/// Sockets of the host in CLOSE_WAIT are those of its namespaces.
#[track_caller]
fn assert_sums(snapshot: &Snapshot) {
    let tcp = &snapshot.0["tcp"];
    let namespaces = seen::list(&tcp["namespaces"]).iter();
    let sum = namespaces.map(|one| number(&one["states"]["CLOSE_WAIT"]));
    assert_near(
        "CLOSE_WAIT",
        number(&tcp["states"]["CLOSE_WAIT"]),
        sum.sum(),
        0.0,
    );
}

/// Servers that close late, but always, and busy ones that close at once are no leaks.
fn who_closes_is_no_leak() {
    let seconds = host_or_guest("20", "8");
    let rate = host_or_guest("50", "20");
    let mut tracer = Tracer::shared();
    let mut slow = Workload::ready(&["tcp-slow", rate, seconds, "1500"]);
    let mut busy = Workload::ready(&["tcp-busy", rate, seconds]);
    tracer.snapshot_after(wall_ns());
    let ((), snapshots) = tracer.during(|| {
        for workload in [&mut slow, &mut busy] {
            workload.go();
        }
        for workload in [&mut slow, &mut busy] {
            said(workload);
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
        for pid in [slow.pid(), busy.pid()] {
            if let Some(row) = seen::close_wait(snapshot, pid) {
                assert_eq!(row["leak"], false, "{row}");
            }
        }
    }
}
