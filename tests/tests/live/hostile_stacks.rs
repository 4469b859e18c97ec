//! Processes that leak sockets and whose files do harm to who reads them: tracer stays
//! small, says what it has not done, ends at once, and names the honest process beside.
//!
//! Each test has a tracer of its own, as it measures what that takes.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;
use tests::{
    lanes::Test,
    processes::descendants,
    provoke::Workload,
    tcp::{hostile, seen},
    test,
    time::{NS, eventually, monotonic_ns},
    tracer::{Snapshot, Tracer},
};

use crate::leaks::OPENINGS;

pub(crate) const TESTS: &[Test] = &[
    test!(tables_of_hostile_programs_do_no_harm)
        .host(EMULATED)
        .serial(MEASURED)
        .needs(&[OPENINGS]),
    test!(perf_maps_that_are_none_do_no_harm)
        .host(EMULATED)
        .serial(MEASURED)
        .needs(&[OPENINGS]),
    test!(a_file_system_that_does_not_answer_does_no_harm)
        .host(EMULATED)
        .serial(MEASURED)
        .needs(&[OPENINGS]),
];

const EMULATED: &str = "a share of an emulated CPU says nothing";
const MEASURED: &str = "it measures what tracer takes";

/// CPU time, as a share of a CPU.
const MOST_CPU: f64 = 0.05;
/// Resident memory of tracer and of those that read for it, in KiB.
const MOST_MEMORY: u64 = 64 << 10;
/// Descriptors that come and go: while two processes are started, three pairs of sockets
/// and a few pipes.
const DESCRIPTORS: usize = 12;
/// Within so many seconds it has ended: one, and as much again on a busy host.
const END_S: f64 = 2.0;
/// Sockets that each process leaks, and how many a second: for longer than a test looks.
const PACE: [&str; 2] = ["900", "10"];
/// A test looks for so many seconds at least, and at most.
const LOOK_S: [f64; 2] = [6.0, 60.0];

/// A tracer, an honest process that leaks, and hostile ones beside it.
struct Stage {
    tracer: Tracer,
    honest: Workload,
    hostile: Vec<(&'static str, Workload)>,
}

/// What a tracer and its children took.
#[derive(Default)]
struct Took {
    kib: u64,
    descriptors: usize,
}

impl Stage {
    fn begin(kinds: &[&'static str]) -> Self {
        let [count, rate] = PACE;
        let honest = Workload::ready(&["tcp-leak", "plain", count, rate, "5"]);
        let ready =
            |kind: &&'static str| (*kind, Workload::ready(&["tcp-hostile", kind, count, rate]));
        let hostile = kinds.iter().map(ready).collect();
        let mut tracer = Tracer::start(&["--interval", "500ms", "--leak-age", "2s"]);
        tracer.may_lose = true;
        Self {
            tracer,
            honest,
            hostile,
        }
    }

    /// Lets all of them leak until a snapshot says enough, or for as long as is looked, and
    /// gives the last one. What tracer takes is asserted.
    fn play(&mut self, is_enough: impl Fn(&Self, &Snapshot) -> bool) -> Snapshot {
        self.tracer.snapshots(2);
        let pid = self.tracer.pid();
        let (cpu, began) = (cpu_s(pid), monotonic_ns());
        let descriptors = of_descriptors(pid).len();
        let is_over = AtomicBool::new(false);
        let (last, took) = thread::scope(|scope| {
            let watch = scope.spawn(|| watch(pid, &is_over));
            let workloads = self.hostile.iter_mut().map(|(_, workload)| workload);
            workloads
                .chain([&mut self.honest])
                .for_each(|workload| workload.go());
            let last = loop {
                let snapshot = self.tracer.snapshot();
                let looked = (monotonic_ns() - began) as f64 / NS;
                let is_seen = looked > LOOK_S[0] && is_enough(self, &snapshot);
                if is_seen || looked > LOOK_S[1] {
                    break snapshot;
                }
            };
            is_over.store(true, Ordering::Relaxed);
            (last, watch.join().expect("no panic"))
        });
        let seconds = (monotonic_ns() - began) as f64 / NS;
        let share = (cpu_s(pid) - cpu) / seconds;
        println!("{:.1} % of a CPU over {seconds:.1} s", share * 100.0);
        println!(
            "{} KiB, {} descriptors after {descriptors}",
            took.kib, took.descriptors
        );
        println!("lost: {}", last.0["lost"]);
        for (kind, workload) in &self.hostile {
            println!("{kind}: {:?}", self.names(&last, workload));
        }
        assert!(share <= MOST_CPU, "{:.1} % of a CPU", share * 100.0);
        assert!(took.kib <= MOST_MEMORY, "{} KiB", took.kib);
        assert!(
            took.descriptors <= descriptors + DESCRIPTORS,
            "descriptors stay open"
        );
        last
    }

    /// The names of the functions of a process's usual stack; none before it has a row.
    fn names(&self, snapshot: &Snapshot, workload: &Workload) -> Vec<String> {
        let Some(row) = seen::close_wait(snapshot, workload.pid()) else {
            return Vec::new();
        };
        let names = seen::list(&row["stack"]).iter().filter_map(Value::as_str);
        names.map(str::to_owned).collect()
    }

    /// Whether the honest process is named, and these are.
    fn are_named(&self, snapshot: &Snapshot, kinds: &[&str]) -> bool {
        let is_named = |kind: &&str| !self.of(snapshot, kind).is_empty();
        !self.names(snapshot, &self.honest).is_empty() && kinds.iter().all(is_named)
    }

    fn of(&self, snapshot: &Snapshot, kind: &str) -> Vec<String> {
        let found = self.hostile.iter().find(|(its, _)| *its == kind);
        self.names(snapshot, &found.expect("it plays").1)
    }

    /// The honest process is named, no file of any of them is open, and tracer ends.
    fn end(self, snapshot: &Snapshot) {
        let names = self.names(snapshot, &self.honest);
        let is_named = names.iter().any(|name| name.contains("handle_client"));
        assert!(is_named, "the honest process: {names:?}");
        let pid = self.tracer.pid();
        let foreign = || {
            let all = descendants(pid)
                .into_iter()
                .chain([pid])
                .flat_map(of_descriptors);
            all.filter(|path| is_of_a_process(path)).collect::<Vec<_>>()
        };
        assert!(
            eventually(3.0, || foreign().is_empty()),
            "open: {:?}",
            foreign()
        );
        let began = monotonic_ns();
        let (_, _, status) = self.tracer.finish();
        let seconds = (monotonic_ns() - began) as f64 / NS;
        println!("ended after {seconds:.2} s");
        assert!(status.success());
        assert!(seconds <= END_S, "it ended after {seconds} s");
    }
}

/// Expressions that do not end, a name of 300 characters, tables of 30 MiB in twenty files,
/// and 30,000 mappings. What reads them has no rights.
fn tables_of_hostile_programs_do_no_harm() {
    let kinds = [
        "plain",
        "cfa-loop",
        "cfa-push",
        "long-symbol",
        "tables",
        "mappings",
    ];
    let mut stage = Stage::begin(&kinds);
    let last = stage.play(|stage, snapshot| {
        let lost = ["tcp_opening_given_up", "tcp_opening_partial"];
        let kinds = ["plain", "tables", "mappings", "long-symbol"];
        lost.iter().all(|reason| snapshot.lost(reason) > 0) && stage.are_named(snapshot, &kinds)
    });
    assert!(
        last.lost("tcp_opening_given_up") > 0,
        "the loop is not named"
    );
    assert!(
        last.lost("tcp_opening_partial") > 0,
        "the tables are too large"
    );
    assert_eq!(stage.of(&last, "cfa-loop"), Vec::<String>::new());
    // The innermost function needs no table. There may be no time for those that take
    // much of it, which is counted.
    for kind in ["cfa-push", "tables", "mappings"] {
        let names = stage.of(&last, kind);
        let is_counted = names.is_empty() && last.lost("tcp_opening_unnamed") > 0;
        let is_named = names.first().is_some_and(|name| name == hostile::FUNCTION);
        assert!(is_counted || is_named, "{kind}: {names:?}");
    }
    // The table of the control is an honest one, so its caller is found too.
    let plain = stage.of(&last, "plain");
    assert_eq!(plain[0], hostile::FUNCTION);
    let caller = plain.get(1).expect("a caller");
    assert!(caller.contains("hostile::accept"), "{plain:?}");
    let long = stage.of(&last, "long-symbol");
    assert_eq!(long[0], format!("{}…", "A".repeat(253)));
    assert_confined(stage.tracer.pid());
    stage.end(&last);
}

/// A perf map that is a link to a file of root's, a FIFO, has 3 GiB, is cut while it is
/// read, or has a name of 7 MiB.
fn perf_maps_that_are_none_do_no_harm() {
    let secret = std::env::temp_dir().join(format!("secret-{}", std::process::id()));
    fs::write(&secret, "0 ffffffffffffffff of_root\n").expect("a file");
    let link: &'static str = format!("map-link:{}", secret.display()).leak();
    let kinds = [
        "map-good",
        link,
        "map-fifo",
        "map-sparse",
        "map-cut",
        "map-name",
    ];
    let mut stage = Stage::begin(&kinds);
    let last = stage.play(|stage, snapshot| {
        snapshot.lost("tcp_opening_partial") > 0 && stage.are_named(snapshot, &kinds)
    });
    fs::remove_file(secret).expect("it is there");
    assert!(last.lost("tcp_opening_partial") > 0, "maps are not read");
    assert_eq!(stage.of(&last, "map-good")[0], hostile::JIT);
    assert_eq!(
        stage.of(&last, "map-name")[0],
        format!("{}…", "A".repeat(253))
    );
    for kind in [link, "map-fifo", "map-sparse", "map-cut"] {
        assert_eq!(stage.of(&last, kind)[0], "?", "{kind}");
    }
    stage.end(&last);
}

/// A program on a FUSE file system whose server has stopped: who opens it hangs, and
/// cannot be killed until the server has gone.
fn a_file_system_that_does_not_answer_does_no_harm() {
    let mut stage = Stage::begin(&["plain", "fuse"]);
    let last = stage.play(|stage, snapshot| {
        snapshot.lost("tcp_opening_given_up") > 0 && stage.are_named(snapshot, &["plain"])
    });
    assert!(last.lost("tcp_opening_given_up") > 0, "it is not named");
    assert_eq!(stage.of(&last, "plain")[0], hostile::FUNCTION);
    assert_eq!(stage.of(&last, "fuse"), Vec::<String>::new());
    // With the server goes what waits for it, killed long ago.
    stage.hostile.clear();
    stage.end(&last);
}

/// Who reads has no rights, and its system calls are filtered.
fn assert_confined(tracer: u32) {
    let of_name = |name: &str| {
        let status = |pid: u32| fs::read_to_string(format!("/proc/{pid}/status")).ok();
        let mut all = descendants(tracer).into_iter().filter_map(status);
        let is_it = |status: &String| status.starts_with(&format!("Name:\t{name}\n"));
        all.find(is_it).unwrap_or_else(|| panic!("no {name}"))
    };
    let word = |status: &str, key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.expect("a line of status").trim().to_owned()
    };
    let (reader, opener) = (of_name("tracer-reader"), of_name("tracer-opener"));
    for (key, value) in [
        ("Uid:", "65534\t65534\t65534\t65534"),
        ("Gid:", "65534\t65534\t65534\t65534"),
        ("Groups:", ""),
        ("CapInh:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("CapEff:", "0000000000000000"),
        ("CapBnd:", "0000000000000000"),
        ("CapAmb:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
        ("VmLck:", "0 kB"),
    ] {
        assert_eq!(word(&reader, key), value, "{key}");
    }
    // CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE.
    for (key, value) in [
        ("CapEff:", "0000010000080004"),
        ("CapBnd:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
    ] {
        assert_eq!(word(&opener, key), value, "{key}");
    }
}

/// The most of memory and descriptors until it is over.
fn watch(pid: u32, is_over: &AtomicBool) -> Took {
    let mut most = Took::default();
    while !is_over.load(Ordering::Relaxed) {
        let all = descendants(pid).into_iter().chain([pid]);
        most.kib = most.kib.max(all.map(resident_kib).sum());
        most.descriptors = most.descriptors.max(of_descriptors(pid).len());
        thread::sleep(Duration::from_millis(20));
    }
    most
}

/// Resident memory of a process, in KiB; what it shares with others by its part.
fn resident_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let word = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    word.unwrap_or(0)
}

/// What the descriptors of a process are of.
fn of_descriptors(pid: u32) -> Vec<PathBuf> {
    let all = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let link = |entry: std::io::Result<fs::DirEntry>| fs::read_link(entry.ok()?.path()).ok();
    all.filter_map(link).collect()
}

/// Of a program of the tests, or of what a hostile one has made.
fn is_of_a_process(path: &std::path::Path) -> bool {
    let path = path.to_string_lossy();
    ["provoke", "hostile-", "perf-", "/program", "secret-"]
        .iter()
        .any(|part| path.contains(part))
}

/// CPU time of a process, of its children that have ended and of those that have not,
/// in s.
fn cpu_s(pid: u32) -> f64 {
    let ticks = |pid: u32| -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        // utime, stime, cutime, cstime.
        let words = after.split_whitespace().skip(11).take(4);
        words.filter_map(|word| word.parse::<u64>().ok()).sum()
    };
    let all = descendants(pid).into_iter().chain([pid]);
    // USER_HZ is 100 everywhere.
    all.map(ticks).sum::<u64>() as f64 / 100.0
}
