//! `tracer events` and `tracer load`: one by one, and as files at the end.

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStdout, Stdio},
};

use serde_json::Value;
use tests::{
    assert_near,
    provoke::Workload,
    skip,
    time::{NS, host_or_guest, wall_ns},
    tracer::{command, number, run},
};

/// A running `tracer events --format json`.
struct Events {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Events {
    fn start(args: &[&str]) -> Self {
        let mut child = command()
            .args(["events", "--format", "json"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("tracer starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut events = Self { child, lines };
        assert_eq!(events.next()["type"], "start");
        events
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("tracer goes on").expect("UTF-8");
        serde_json::from_str(&line).expect("JSON")
    }

    /// The next event of a process; its losses are looked at by other tests.
    fn of(&mut self, pid: u32) -> Value {
        loop {
            let line = self.next();
            assert_eq!(line["type"], "event", "{line}");
            if line["pid"] == pid {
                return line;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Told when it passes a second, and again when it is woken.
#[test]
fn a_hung_task_is_told_while_it_hangs() {
    let mut events = Events::start(&["--min-block", "10ms"]);
    let mut workload = Workload::ready(&["vfork", "2500"]);
    workload.go();
    let pid = workload.pid();
    let hung = events.of(pid);
    println!("{hung}");
    assert_eq!(hung["event"], "blocked_long");
    assert_eq!(number(&hung["threshold_ns"]), NS);
    assert_eq!(hung["cause"], "vfork");
    assert_eq!(hung["chain"][0]["role"], "child");
    assert_eq!(hung["waker"], Value::Null);
    // It looks four times a second: the threshold, and up to a look later. An emulated
    // CPU can be late.
    let late = host_or_guest(0.4, 1.0);
    let seen = number(&hung["length_ns"]) / NS;
    assert!((1.0..1.0 + late).contains(&seen), "seen at {seen} s");
    let woken = events.of(pid);
    println!("{woken}");
    assert_eq!(woken["event"], "blocked");
    // The child sleeps for so long, its exit takes a moment; on a CPU that stands still
    // it may take whatever the workload took.
    let began_ns: u64 = workload.line().parse().expect("a time");
    assert_eq!(workload.line(), "done");
    let took = (wall_ns() - began_ns) as f64 / NS;
    let most = host_or_guest(0.05, (took - 2.5).max(0.3));
    assert_near("length in s", number(&woken["length_ns"]) / NS, 2.5, most);
    assert_eq!(woken["waker"]["kind"], "task");
    assert_eq!(woken["waker"]["pid"], hung["chain"][0]["pid"]);
}

/// A direct read of a disk: the device, and the interrupt that ends it.
#[test]
fn a_disk_read_is_woken_by_an_interrupt() {
    const READS: u32 = 16;
    let in_guest = host_or_guest(None, Some("/dev/vda".to_owned()));
    let file = std::env::temp_dir().join(format!("read-{}", std::process::id()));
    let path = in_guest.clone().unwrap_or_else(|| {
        fs::write(&file, vec![7; 4 << 20]).expect("a file");
        file.to_str().expect("UTF-8").to_owned()
    });
    let reader = Workload::try_ready(&["read", &path, &READS.to_string()]);
    let mut reader = match reader {
        Ok(reader) => reader,
        Err(e) => {
            let _ = fs::remove_file(&file);
            skip!(
                "a_disk_read_is_woken_by_an_interrupt",
                "no direct reads: {e}"
            );
        }
    };
    let mut events = Events::start(&["--min-block", "1us", "--pid", &reader.pid().to_string()]);
    reader.go();
    assert!(!reader.line().is_empty(), "it tells its time");
    // A read can be over before its reader sleeps; most are not.
    let seen: Vec<Value> = (0..READS / 2).map(|_| events.of(reader.pid())).collect();
    let _ = fs::remove_file(&file);
    println!("{}", seen[0]);
    for event in &seen {
        assert_eq!(event["cause"], "disk", "{event}");
        assert!(event["stack"].as_array().is_some_and(|s| s.len() > 4));
        assert!(event["device"].is_string(), "{event}");
        if in_guest.is_some() {
            assert_eq!(event["device"], "vda");
            assert_ne!(event["waker"]["kind"], "task", "{event}");
        }
    }
}

/// The files that `tracer load` writes say what the workload did.
#[test]
fn blocked_time_is_written_as_files() {
    let place = |name: &str| {
        let path = std::env::temp_dir().join(format!("{}-{name}", std::process::id()));
        path.to_str().expect("UTF-8").to_owned()
    };
    let (flame, folded) = (place("flame.svg"), place("folded.txt"));
    // Half of the time, for longer than a slow machine takes to start tracer.
    let mut workload = Workload::ready(&["burst", "50", "100", "200"]);
    workload.go();
    let (status, _, stderr) = run(&[
        "load",
        "--duration",
        "3s",
        "--flame",
        &flame,
        "--folded",
        &folded,
    ]);
    assert!(status.success(), "{stderr}");
    let read = |path: &str| fs::read_to_string(path).expect("it is written");
    let (picture, stacks) = (read(&flame), read(&folded));
    for path in [flame, folded] {
        fs::remove_file(path).expect("it goes");
    }
    println!("{stacks}");
    assert!(picture.starts_with("<svg") || picture.starts_with("<?xml"));
    assert!(picture.contains("vfork"), "the cause is in the picture");
    let lines = stacks
        .lines()
        .filter(|line| line.starts_with("provoke;vfork;"));
    let us: u64 = lines
        .map(|line| {
            let count = line.rsplit(' ').next().expect("a count");
            count.parse::<u64>().expect("a number")
        })
        .sum();
    // An emulated CPU takes longer to make the process that sleeps.
    let tolerance = host_or_guest(0.15, 1.0);
    assert_near("s of vfork", us as f64 / 1e6, 1.5, tolerance);
}

/// A file that cannot be written is told before the run, not after it.
#[test]
fn a_file_that_cannot_be_written_is_told_at_once() {
    let (status, stdout, stderr) = run(&["load", "--flame", "/nonexistent/flame.svg"]);
    assert_eq!(status.code(), Some(1));
    assert_eq!(stdout, "");
    assert!(stderr.contains("/nonexistent/flame.svg"), "{stderr}");
}
