//! `tracer events` and `tracer load`: one by one, and as files at the end.

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStdout, Stdio},
};

use serde_json::Value;
use tests::{
    kernel,
    known::Bursts,
    lanes::{Test, VDA},
    provoke::Workload,
    schedstat, skip, test,
    time::{NS, host_or_guest, wall_ns},
    tracer::{command, number, run},
};

pub(crate) const TESTS: &[Test] = &[
    test!(a_hung_task_is_told_while_it_hangs).contract(),
    test!(a_disk_read_is_woken_by_an_interrupt).needs(&[VDA]),
    test!(blocked_time_is_written_as_files),
    test!(a_file_that_cannot_be_written_is_told_at_once),
];

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
fn a_hung_task_is_told_while_it_hangs() {
    let mut workload = Workload::ready(&["vfork", "2500"]);
    let pid = workload.pid();
    let mut events = Events::start(&["--min-block", "10ms", "--pid", &pid.to_string()]);
    workload.go();
    let hung = events.of(pid);
    println!("{hung}");
    assert_eq!(hung["event"], "blocked_long");
    assert_eq!(number(&hung["threshold_ns"]), NS);
    assert_eq!(hung["cause"], "vfork");
    assert_eq!(hung["chain"][0]["role"], "child");
    assert_eq!(hung["waker"], Value::Null);
    // Until it slept; from its waking on, the kernel may count the sleep as well.
    let waited = schedstat::of_task(pid).1 as f64 / NS;
    // It looks four times a second: the threshold, and up to a look later. An emulated
    // CPU can be late.
    let late = host_or_guest(0.4, 1.0);
    let seen = number(&hung["length_ns"]) / NS;
    assert!((1.0..1.0 + late).contains(&seen), "seen at {seen} s");
    let woken = events.of(pid);
    println!("{woken}");
    assert_eq!(woken["event"], "blocked");
    // Its child sleeps for so long from a moment before it is waited for; who comes to
    // wait late, for want of a CPU, waits for less.
    let began_ns: u64 = workload.line().parse().expect("a time");
    assert_eq!(workload.line(), "done");
    let took = (wall_ns() - began_ns) as f64 / NS;
    let length = number(&woken["length_ns"]) / NS;
    println!("{length} s, of {took} s in which it waited {waited} s for a CPU");
    let late = host_or_guest(0.05, 0.3) + waited;
    assert!(
        length >= 2.5 - late,
        "it is shorter than 2.5 s by more than {late} s"
    );
    assert!(length <= took, "it is longer than all that it took");
    assert_eq!(woken["waker"]["kind"], "task");
    assert_eq!(woken["waker"]["pid"], hung["chain"][0]["pid"]);
}

/// A direct read of a disk: the device, and the interrupt that ends it.
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
fn blocked_time_is_written_as_files() {
    let place = |name: &str| {
        let path = std::env::temp_dir().join(format!("{}-{name}", std::process::id()));
        path.to_str().expect("UTF-8").to_owned()
    };
    let (flame, folded) = (place("flame.svg"), place("folded.txt"));
    // The files have all that was blocked by the name of the process: others vfork, too.
    let name = format!("burst-{}", std::process::id());
    let mut workload = Workload::ready(&["burst-measured", "50", "100", "30", &name]);
    let mut tracer = command()
        .args(["load", "--format", "json", "--flame", &flame, "--folded"])
        .arg(&folded)
        .stdout(Stdio::piped())
        .spawn()
        .expect("tracer starts");
    let mut lines = BufReader::new(tracer.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().map(|line| line.expect("UTF-8"));
    assert!(next().is_some_and(|line| line.contains("\"start\"")));
    workload.go();
    let (said, line) = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let line = workload.line();
            (workload.line(), line)
        });
        // Nobody else reads what it says.
        while !waiter.is_finished() && next().is_some() {}
        waiter.join().expect("the workload says what it did")
    });
    assert_eq!(said, "done");
    // SAFETY: no memory is touched.
    unsafe { libc::kill(tracer.id() as i32, libc::SIGTERM) };
    while next().is_some() {}
    let status = tracer.wait().expect("it can be waited for");
    assert!(status.success(), "{status}");
    let read = |path: &str| fs::read_to_string(path).expect("it is written");
    let (picture, stacks) = (read(&flame), read(&folded));
    for path in [flame, folded] {
        fs::remove_file(path).expect("it goes");
    }
    println!("{stacks}");
    assert!(picture.starts_with("<svg") || picture.starts_with("<?xml"));
    assert!(picture.contains("vfork"), "the cause is in the picture");
    assert!(picture.contains(&name), "and so is its name");
    let own = format!("{name};vfork;");
    let lines = stacks.lines().filter(|line| line.starts_with(&own));
    let us: u64 = lines
        .map(|line| {
            let count = line.rsplit(' ').next().expect("a count");
            count.parse::<u64>().expect("a number")
        })
        .sum();
    let Bursts {
        slept,
        waited_s,
        lengths_ns,
    } = Bursts::of(&line);
    assert!(slept >= 27, "its children were slept for: {slept}");
    // As in truth.rs.
    let blocked_s = lengths_ns.iter().sum::<u64>() as f64 / NS;
    let longer = if kernel::delays_dequeue() {
        waited_s
    } else {
        0.0
    };
    let (least, most) = (blocked_s, blocked_s + longer);
    let (of_vfork, tolerance) = (us as f64 / 1e6, blocked_s * host_or_guest(0.03, 0.1));
    println!("s of vfork: {of_vfork:.4}, expected {least:.4} to {most:.4} +- {tolerance:.4}");
    assert!(of_vfork >= least - tolerance && of_vfork <= most + tolerance);
}

/// A file that cannot be written is told before the run, not after it.
fn a_file_that_cannot_be_written_is_told_at_once() {
    let (status, stdout, stderr) = run(&["load", "--flame", "/nonexistent/flame.svg"]);
    assert_eq!(status.code(), Some(1));
    assert_eq!(stdout, "");
    assert!(stderr.contains("/nonexistent/flame.svg"), "{stderr}");
}
