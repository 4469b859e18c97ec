//! Workloads of [`crate::blocking`], with what they say of themselves.

use std::{fs, io};

use serde_json::Value;

use crate::{
    provoke::Workload,
    time::{eventually, host_or_guest, wall_ns},
    tracer::{Snapshot, Tracer},
};

/// A workload whose tasks are blocked for a reason that is known.
pub struct Known {
    /// It.
    pub workload: Workload,
    /// Who is waited for, 0 for nobody.
    pub holder: u32,
    /// Tasks that block, each with the wall clock in ns at which it began to.
    pub tasks: Vec<(u32, u64)>,
    /// When each of them was seen blocked.
    seen: Vec<Seen>,
}

/// A task that is in D, from outside.
struct Seen {
    /// By the wall clock, in ns.
    at_ns: u64,
    /// How often it had left a CPU: as long as it sleeps on, that stays.
    switches: u64,
}

impl Seen {
    /// Waits until it is in D.
    fn wait(tid: u32) -> Self {
        let mut seen = None;
        let is_blocked = eventually(host_or_guest(10.0, 60.0), || {
            let at_ns = wall_ns();
            let (state, switches) = state_and_switches(tid);
            seen = (state == 'D').then_some(Self { at_ns, switches });
            seen.is_some()
        });
        assert!(is_blocked, "{tid} is not blocked");
        seen.expect("it was seen")
    }
}

/// A task's state, and how often it has left a CPU; ` ` and 0 where it is gone.
fn state_and_switches(tid: u32) -> (char, u64) {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("", str::trim)
    };
    let switches = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
    let switches = switches.map(|name| of(name).parse().unwrap_or(0));
    let state = of("State:").chars().next().unwrap_or(' ');
    (state, switches.iter().sum())
}

impl Known {
    /// Starts one and waits until its tasks are blocked.
    ///
    /// # Errors
    /// It cannot be had here, and has said why on stderr.
    pub fn blocked(args: &[&str]) -> io::Result<Self> {
        Self::begin(Workload::try_ready(args)?)
    }

    /// Lets one that is ready begin, and waits until its tasks are blocked.
    ///
    /// # Errors
    /// It ended instead, and has said why on stderr.
    pub fn begin(mut workload: Workload) -> io::Result<Self> {
        workload.go();
        let mut numbers = numbers(&workload.line()).into_iter();
        let (Some(holder), true) = (numbers.next(), numbers.len() >= 2) else {
            return Err(io::Error::other("the workload failed: see stderr"));
        };
        let mut tasks = Vec::new();
        while let (Some(tid), Some(began_ns)) = (numbers.next(), numbers.next()) {
            tasks.push((tid as u32, began_ns));
        }
        let seen = tasks.iter().map(|(tid, _)| Seen::wait(*tid)).collect();
        Ok(Self {
            workload,
            holder: holder as u32,
            tasks,
            seen,
        })
    }

    /// Numbers of its next line.
    pub fn numbers(&mut self) -> Vec<u64> {
        numbers(&self.workload.line())
    }

    /// A task of it, by its place.
    pub fn tid(&self, i: usize) -> u32 {
        self.tasks.get(i).expect("so many tasks").0
    }

    /// Its tasks in a snapshot: all are there, with the right ages. One cannot have begun
    /// before it said that it would, nor after it was seen blocked, if it still is.
    pub fn all_in<'a>(&self, snapshot: &'a Snapshot) -> Vec<&'a Value> {
        let tasks = self.tasks.iter().zip(&self.seen);
        let of_task = |((tid, began_ns), seen): (&(u32, u64), &Seen)| {
            let blocked = snapshot.blocked(*tid).expect("it is blocked");
            let age_ms = blocked["age_ns"].as_u64().expect("an age") as f64 / 1e6;
            let since_ms = |ns: u64| (snapshot.wall_ns() as f64 - ns as f64) / 1e6;
            // What it is off by: the clocks of both are read one after the other.
            let tolerance = host_or_guest(5.0, 50.0);
            let most = since_ms(*began_ns) + tolerance;
            let is_the_same = state_and_switches(*tid).1 == seen.switches;
            let least = if is_the_same {
                since_ms(seen.at_ns) - tolerance
            } else {
                0.0
            };
            println!("{tid} is {age_ms:.1} ms old, {least:.1} to {most:.1}");
            assert!(
                (least..=most).contains(&age_ms),
                "{tid}: {age_ms} ms, {least} to {most}"
            );
            blocked
        };
        tasks.map(of_task).collect()
    }
}

/// What the workload `burst-measured` says of itself.
pub struct Bursts {
    /// How often the kernel says that it slept.
    pub slept: u64,
    /// For how long it waited for a CPU in its calls, in s.
    pub waited_s: f64,
    /// For how long it was blocked, each time, in ns.
    pub lengths_ns: Vec<u64>,
}

impl Bursts {
    /// Reads its line.
    pub fn of(line: &str) -> Self {
        let mut numbers = numbers(line).into_iter();
        let mut next = || numbers.next().expect("two numbers and more");
        Self {
            slept: next(),
            waited_s: next() as f64 / crate::time::NS,
            lengths_ns: numbers.collect(),
        }
    }
}

/// Numbers with spaces between them.
pub fn numbers(line: &str) -> Vec<u64> {
    let words = line.split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

/// A tracer that prints the stacks of what is blocked; the kernel's symbols, which
/// it reads at the first stack, are there from the next snapshot but one.
pub fn tracer(args: &[&str]) -> Tracer {
    let mut tracer = Tracer::start(args);
    tracer.shows_stacks = true;
    tracer
}

/// A tracer of a test's own that runs beside other tests: what these make it lose is none
/// of the test's matter. See [`assert_kept`].
pub fn beside(args: &[&str]) -> Tracer {
    let mut tracer = tracer(args);
    tracer.may_lose = crate::lanes::stream::recorded().is_some();
    tracer
}

/// Asserts that the last line of such a tracer tells of no loss of tasks: all
/// that it lost is of sockets, memory or the kernel's samples, which the test does not
/// look at.
pub fn assert_kept(end: &Value) {
    let of_tasks = [
        "task_",
        "waking_",
        "exit_",
        "episode_",
        "stack_",
        "undecodable_",
    ];
    for (reason, count) in crate::lanes::stream::losses(end) {
        println!("lost: {count} {reason}");
        let is_of_tasks = of_tasks.iter().any(|word| reason.starts_with(word));
        // Many tests side by side have so many wakings more.
        let most = crate::kernel::may_lose(&reason).saturating_mul(3);
        assert!(!is_of_tasks || count <= most, "lost: {count} {reason}");
    }
}

/// Snapshots until the kernel's symbols are there: what blocks before that has no
/// name yet. An emulated CPU takes seconds to read them. A shared tracer has them.
pub fn named(tracer: &mut Tracer) {
    if !tracer.is_shared() {
        await_symbols(tracer);
    }
}

/// The same of any tracer.
pub(crate) fn await_symbols(tracer: &mut Tracer) {
    let mut nap = Workload::ready(&["vfork", "20000"]);
    nap.go();
    let shows = tracer.shows_stacks;
    tracer.shows_stacks = false;
    let is_named = |snapshot: &Snapshot| {
        let blocked = snapshot.blocked(nap.pid());
        blocked.is_some_and(|task| task["cause"] == "vfork")
    };
    let is_so = (0..30).any(|_| is_named(&tracer.snapshot()));
    tracer.shows_stacks = shows;
    assert!(is_so, "a parent of vfork is known as one");
}

/// Asserts what a task of a snapshot is blocked by.
#[track_caller]
pub fn assert_cause(blocked: &Value, cause: &str, details: &[&str]) {
    println!(
        "{} {}: {}",
        blocked["comm"], blocked["cause"], blocked["detail"]
    );
    assert_eq!(blocked["cause"], cause, "{blocked}");
    let detail = blocked["detail"].as_str().unwrap_or("");
    for word in details {
        assert!(
            detail.contains(word),
            "{word} is not in the detail: {blocked}"
        );
    }
}

/// Asserts whom a task of a snapshot waits for, the first of them first.
#[track_caller]
pub fn assert_chain(blocked: &Value, role: &str, tids: &[u32]) {
    let chain = blocked["chain"].as_array().expect("a chain");
    let found: Vec<u64> = chain
        .iter()
        .filter_map(|link| link["tid"].as_u64())
        .collect();
    println!("{} {} waits for {found:?}", blocked["comm"], blocked["tid"]);
    let tids: Vec<u64> = tids.iter().copied().map(u64::from).collect();
    assert_eq!(found, tids, "{blocked}");
    for link in chain {
        assert_eq!(link["role"], role, "{blocked}");
    }
}
