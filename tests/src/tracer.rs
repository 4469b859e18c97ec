//! A run of tracer, read line by line.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead as _, BufReader, Read},
    panic::resume_unwind,
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread,
};

use serde_json::Value;

use crate::{
    assert_near,
    lanes::stream::{self, Follow},
    time::{host_or_guest, wall_ns},
};

pub use crate::snapshot::{Snapshot, mean, number};

/// The program under test: `TRACER_BIN`, as xtask sets it.
pub fn command() -> Command {
    let path = std::env::var_os("TRACER_BIN").expect("TRACER_BIN names the tracer to test");
    Command::new(path)
}

/// A running `tracer run --format json`: a test's own, or the one that the parallel lane
/// shares.
pub struct Tracer {
    lines: Lines,
    /// Its first line.
    pub start: Value,
    /// Whether losses are expected, and not failures.
    pub may_lose: bool,
    /// Whether stacks of blocked tasks are printed, each once.
    pub shows_stacks: bool,
    shown: HashSet<String>,
}

/// Where its lines come from.
enum Lines {
    Own(Child, BufReader<ChildStdout>),
    /// The file that the shared one writes.
    Shared(Follow),
}

impl Lines {
    /// The next one; none at the end of the test's own.
    fn next(&mut self) -> Option<Value> {
        let line = match self {
            Self::Own(_, lines) => {
                let mut line = String::new();
                let length = lines.read_line(&mut line).expect("tracer writes UTF-8");
                (length > 0).then_some(line)?
            }
            Self::Shared(follow) => follow.next().expect("the shared tracer goes on"),
        };
        Some(serde_json::from_str(&line).expect("every line is JSON"))
    }
}

impl Tracer {
    /// Starts one and waits until every hook is attached.
    pub fn start(args: &[&str]) -> Self {
        let mut child = command()
            .args(stream::RUN)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("tracer starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut lines = Lines::Own(child, lines);
        let start = lines.next().expect("tracer says how it began");
        Self::begun(lines, start, args)
    }

    /// The tracer that tests of the parallel lane share, from now on: its next snapshot is
    /// the first. A test that runs alone gets one of its own with the same options.
    pub fn shared() -> Self {
        Self::shared_by(stream::AUTO)
    }

    /// The one with a way to hook functions; `test!(..).streams(..)` names ways other than
    /// `auto`.
    pub fn shared_by(way: &str) -> Self {
        let args = ["--function-hooks", way];
        match stream::of(way) {
            Some(path) => Self::follow(&path),
            // `start` asks for JSON and many rows itself.
            None => Self::start(&[&stream::ARGS[4..], &args[..]].concat()),
        }
    }

    /// Reads what a tracer writes into a file, from now on.
    pub(crate) fn follow(path: &Path) -> Self {
        // It is there from the beginning; its first line may not be yet.
        let (first, follow) = Follow::from_now(path).expect("the file of a shared tracer");
        let start = serde_json::from_str(&first).expect("every line is JSON");
        let way = path.file_stem().and_then(|stem| stem.to_str());
        let way = way.expect("a name");
        Self::begun(Lines::Shared(follow), start, &["--function-hooks", way])
    }

    fn begun(lines: Lines, start: Value, args: &[&str]) -> Self {
        assert_eq!(start["type"], "start");
        for hook in start["hooks"].as_array().expect("hooks") {
            let has_it = hook["state"] == "ok"
                || is_too_old(&start, hook)
                || is_on_a_function(hook) && may_lack_functions(args);
            assert!(has_it, "this kernel has every hook: {hook}");
        }
        Self {
            may_lose: matches!(lines, Lines::Shared(_)),
            lines,
            start,
            shows_stacks: false,
            shown: HashSet::new(),
        }
    }

    /// Whether others read it too.
    pub fn is_shared(&self) -> bool {
        matches!(self.lines, Lines::Shared(_))
    }

    fn child(&self) -> &Child {
        match &self.lines {
            Lines::Own(child, _) => child,
            Lines::Shared(_) => panic!("the shared tracer is not this test's to end"),
        }
    }

    /// Whether a probe is in force.
    pub fn has_hook(&self, name: &str) -> bool {
        let mut hooks = self.start["hooks"].as_array().expect("hooks").iter();
        hooks.any(|hook| hook["name"] == name && hook["state"] == "ok")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: no memory is touched.
        unsafe { libc::kill(self.child().id() as i32, signal) };
    }

    /// The next snapshot, checked for what is always true.
    pub fn snapshot(&mut self) -> Snapshot {
        let mut line = self.lines.next().expect("tracer goes on");
        // Of tasks that hang; tests/events.rs looks at those.
        while line["type"] == "event" {
            line = self.lines.next().expect("tracer goes on");
        }
        assert_eq!(line["type"], "snapshot", "{line}");
        self.checked(line)
    }

    fn checked(&mut self, line: Value) -> Snapshot {
        let snapshot = Snapshot(line);
        if self.shows_stacks {
            for line in snapshot.stacks() {
                if self.shown.insert(line.clone()) {
                    println!("stack: {line}");
                }
            }
        }
        snapshot.check(self.may_lose);
        snapshot
    }

    /// The next event of a name; there must be one within so many snapshots.
    pub fn event(&mut self, name: &str, snapshots: usize) -> Value {
        self.event_of(name, snapshots, |_| true)
    }

    /// The next one for which something holds: what others do beside the test has events of
    /// the same name.
    pub fn event_of(
        &mut self,
        name: &str,
        snapshots: usize,
        is_it: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut passed = 0;
        loop {
            let line = self.lines.next().expect("tracer goes on");
            if line["event"] == name {
                if is_it(&line) {
                    return line;
                }
                println!("not this one: {line}");
            }
            passed += usize::from(line["type"] == "snapshot");
            assert!(passed <= snapshots, "no {name} in {snapshots} snapshots");
        }
    }

    /// The events of a name for which something holds, up to the next snapshot whose
    /// interval began after a time by the wall clock; and that snapshot.
    pub fn events_until(
        &mut self,
        wall_ns: u64,
        name: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> (Vec<Value>, Snapshot) {
        self.told_until(wall_ns, |line| line["event"] == name && is_it(line))
    }

    /// The same, of events of any name.
    pub fn told_until(
        &mut self,
        wall_ns: u64,
        is_it: impl Fn(&Value) -> bool,
    ) -> (Vec<Value>, Snapshot) {
        let mut events = Vec::new();
        loop {
            let line = self.lines.next().expect("tracer goes on");
            if line["type"] == "snapshot" {
                let snapshot = self.checked(line);
                if snapshot.began_ns() >= wall_ns {
                    return (events, snapshot);
                }
            } else if is_it(&line) {
                events.push(line);
            }
        }
    }

    /// When the line that was read last had been written at the latest, by the wall clock:
    /// a test that waits for a CPU of its own reads it later.
    pub fn written_ns(&self) -> u64 {
        match &self.lines {
            Lines::Own(..) => wall_ns(),
            Lines::Shared(follow) => follow.written_ns().expect("a file"),
        }
    }

    /// The next `n` snapshots.
    pub fn snapshots(&mut self, n: usize) -> Vec<Snapshot> {
        (0..n).map(|_| self.snapshot()).collect()
    }

    /// The next snapshot whose interval began after a time by the wall clock, in ns
    /// since 1970. On a slow machine some from before are still in the pipe.
    pub fn snapshot_after(&mut self, wall_ns: u64) -> Snapshot {
        loop {
            let snapshot = self.snapshot();
            if snapshot.began_ns() >= wall_ns {
                return snapshot;
            }
        }
    }

    /// Waits for something, and reads snapshots meanwhile: what it came to, and the
    /// snapshots up to one whose interval began after it. A number of snapshots would
    /// bet on the machine's pace; and where nobody reads, the pipe fills up.
    pub fn during<T: Send>(&mut self, wait: impl FnOnce() -> T + Send) -> (T, Vec<Snapshot>) {
        thread::scope(|scope| {
            let waiter = scope.spawn(|| (wait(), wall_ns()));
            let mut snapshots = Vec::new();
            while !waiter.is_finished() {
                snapshots.push(self.snapshot());
            }
            let (came_to, over_ns) = waiter.join().unwrap_or_else(|e| resume_unwind(e));
            let is_after = |snapshot: &Snapshot| snapshot.began_ns() >= over_ns;
            while !snapshots.last().is_some_and(is_after) {
                snapshots.push(self.snapshot());
            }
            (came_to, snapshots)
        })
    }

    /// A snapshot, its averages held against /proc/loadavg: one around which the kernel made
    /// no new ones. The reading of the first that is asked for may have begun before that.
    pub fn assert_averages(&mut self) -> Snapshot {
        let quiet = (0..20).find_map(|_| {
            let (asked_ns, before) = (wall_ns(), loadavg());
            while self.snapshot().wall_ns() <= asked_ns {}
            let snapshot = self.snapshot();
            (loadavg() == before).then_some((snapshot, before))
        });
        let (snapshot, kernel) = quiet.expect("the kernel makes new ones every 5 s");
        for (i, kernel) in kernel.into_iter().enumerate() {
            let ours = number(&snapshot.0["load"]["averages"][i]);
            // /proc/loadavg rounds to two decimals.
            assert_near("average", ours, kernel, 0.0051);
        }
        snapshot
    }

    /// Ends it by SIGTERM: the snapshots still to come, the last line, the status.
    pub fn finish(self) -> (Vec<Snapshot>, Value, ExitStatus) {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Reads to the end.
    pub fn wait(mut self) -> (Vec<Snapshot>, Value, ExitStatus) {
        let mut snapshots = Vec::new();
        let mut end = Value::Null;
        while let Some(line) = self.lines.next() {
            if line["type"] == "snapshot" {
                snapshots.push(self.checked(line));
            } else if line["type"] == "end" {
                end = line;
            }
        }
        let status = match &mut self.lines {
            Lines::Own(child, _) => child.wait().expect("tracer can be waited for"),
            Lines::Shared(_) => panic!("the shared tracer is not this test's to end"),
        };
        (snapshots, end, status)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // A failed test leaves nothing behind; after wait() this does nothing.
        if let Lines::Own(child, _) = &mut self.lines {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs tracer to its end: status, standard output, standard error.
pub fn run(args: &[&str]) -> (ExitStatus, String, String) {
    output(command().args(args))
}

/// The same for a command made ready by the test.
pub fn output(command: &mut Command) -> (ExitStatus, String, String) {
    let output = command.output().expect("tracer starts");
    (
        output.status,
        String::from_utf8(output.stdout).expect("UTF-8"),
        String::from_utf8(output.stderr).expect("UTF-8"),
    )
}

/// The averages of /proc/loadavg.
fn loadavg() -> Vec<f64> {
    let text = fs::read_to_string("/proc/loadavg").expect("/proc/loadavg");
    let words = text.split(' ').take(3);
    words.map(|word| word.parse().expect("a number")).collect()
}

/// All that a command still has to say.
pub fn rest(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).expect("UTF-8");
    text
}

/// Hooks that only later kernels have, each with the first that has it.
const LATER: [(&str, (u32, u32)); 1] = [("tcp_send_reset", (6, 10))];

fn is_on_a_function(hook: &Value) -> bool {
    let via = hook["via"].as_str().expect("how it is attached");
    let kind = via.split(' ').next();
    matches!(kind, Some("fentry" | "fexit" | "kprobe" | "kretprobe"))
}

/// A host may refuse hooks on functions; every guest has both kinds.
fn may_lack_functions(args: &[&str]) -> bool {
    args.contains(&"off") || host_or_guest(true, false)
}

fn is_too_old(start: &Value, hook: &Value) -> bool {
    let release = start["host"]["kernel"].as_str().expect("a release");
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|word| word.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    LATER
        .iter()
        .any(|(name, since)| hook["name"] == *name && version < *since)
}
