//! What is true of all that the shared tracer recorded: the kernel's own samples of the
//! load, and its count of kills.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::{
    assert_near, kernel,
    lanes::{
        GUEST_CPUS, Test,
        stream::{losses, recorded},
    },
    memory::host_oom_kills,
    provoke::Workload,
    test,
    time::{host_or_guest, let_pass},
    tracer::{Snapshot, Tracer, number},
};

pub(crate) const TESTS: &[Test] = &[
    test!(the_load_of_the_samples)
        .contract()
        .needs(&[GUEST_CPUS])
        .limit_s(240),
    test!(kills_are_those_that_the_kernel_counts).stream(),
    test!(the_kernels_samples_are_named)
        .stream()
        .contract()
        .limit_s(300),
];

/// How long the load of the kernel's samples lasts, in s: at least, and where too many of
/// them were missed.
fn length_of_samples() -> (u32, u32) {
    host_or_guest((121, 121), (26, 61))
}

/// Hogs, sleepers in D, a burst and a fork storm, for so many seconds.
struct SampledLoad(Vec<Workload>);

impl SampledLoad {
    fn begin(seconds: u32) -> Self {
        let ms = ((seconds + 1) * 1000).to_string();
        let bursts = (seconds * 1000 / 70).to_string();
        let storms = host_or_guest("100", "20");
        let hog = || Workload::nicely(&["hog", "1", &ms]);
        let sleeper = || Workload::ready(&["vfork", &ms]);
        let burst = || Workload::ready(&["burst", "30", "70", &bursts]);
        // Not `storm`: those are counted by their name.
        // Before the hogs: its processes would pile up behind them, by the hundred.
        let storm = || Workload::ready(&["storm", storms, "5", &ms, "shower"]);
        let mut all = vec![hog(), hog(), hog(), sleeper(), sleeper(), burst(), storm()];
        all.iter_mut().for_each(Workload::go);
        Self(all)
    }
}

/// What `the_kernels_samples_are_named` looks at, beside all that other tests do.
fn the_load_of_the_samples() {
    if recorded().is_none() {
        println!("the test of the samples makes the load itself");
        return;
    }
    let (seconds, _) = length_of_samples();
    let load = SampledLoad::begin(seconds);
    let_pass(f64::from(seconds));
    assert_eq!(load.0.len(), 7);
}

/// Hogs, sleepers in D and a fork storm for two minutes: the kernel's samples. Beside other
/// tests: all the samples of their time.
///
/// A CPU that stands still for longer than the kernel waits for its count, ten
/// ticks, is counted as it was five seconds before, and nobody can say who that
/// was. An emulated one does now and then: a guest that begins with too many
/// such samples is watched for longer, and half of them may be off.
fn the_kernels_samples_are_named() {
    let heard = recorded().map(|(lines, _)| Heard::of(lines));
    // One that was asked for without the load beside it makes it itself.
    let is_enough = |heard: &Heard| heard.seconds >= f64::from(length_of_samples().0);
    let (heard, is_shared) = match heard.filter(is_enough) {
        Some(heard) => (heard, true),
        None => (of_own_load(), false),
    };
    let last = heard.last.as_ref().expect("a snapshot");
    let lost = losses(&last.0);
    let lost = |reason: &str| lost.get(reason).copied().unwrap_or(0);
    let cut = lost("fold_list_cut");
    let mut found = heard.samples;
    println!("kernel samples (counted, named): {:?}", found.0);
    println!("named equals counted in {:.1} %", found.share() * 100.0);
    // One every 5 s and a tick.
    let expected = heard.seconds / 5.004;
    let tolerance = 1.0 + lost("kernel_sample") as f64;
    assert_near("samples", found.0.len() as f64, expected, tolerance);
    // A queue that is too long, or changes meanwhile, cannot be named in full; it is told.
    found.leave_out(cut);
    println!("off by {:.3} on average", found.off());
    assert!(
        found.is_good(is_shared),
        "off by {} on average",
        found.off()
    );
    // What was named is what the load is made of, from the first sample on.
    let unexplained = number(&last.0["load"]["unexplained"]["load1"]);
    let tolerance = most_off(is_shared);
    assert_near("unexplained load1", unexplained, 0.0, tolerance);
    if is_shared {
        // One of a test's own is held to what may be lost in every snapshot.
        for (reason, count) in losses(&last.0) {
            let most = may_lose(&reason, heard.seconds);
            let when = heard.grew.get(&reason).map_or("", String::as_str);
            println!("lost: {count} {reason}, at most {most}:{when}");
            assert!(
                count <= most,
                "lost: {count} {reason}, at most {most}:{when}"
            );
        }
    }
}

/// With a tracer of its own.
fn of_own_load() -> Heard {
    let (seconds, longest) = length_of_samples();
    let mut tracer = Tracer::start(&["--interval", "1s"]);
    let _load = SampledLoad::begin(longest);
    let mut heard = Heard::default();
    let take = |heard: &mut Heard, snapshots: Vec<Snapshot>| {
        snapshots.into_iter().for_each(|s| heard.take(s));
    };
    take(&mut heard, tracer.snapshots(seconds as usize));
    while !heard.samples.is_good(false) && heard.seconds < f64::from(longest) {
        take(&mut heard, tracer.snapshots(5));
    }
    heard.take(tracer.assert_averages());
    heard
}

/// How much may be lost of a reason while many tests run side by side for so long.
fn may_lose(reason: &str, seconds: f64) -> u64 {
    let times = |most: u64| most * (seconds / 30.0).ceil() as u64;
    match reason {
        // What one test may lose in its half minute, or less.
        "kernel_sample"
        | "waking_without_slot"
        | "task_storage"
        | "tcp_transition_unseen"
        | "tcp_transition_missed" => times(kernel::may_lose(reason)),
        // One that is reaped, and is kept from its last switch by others, is in no list of
        // tasks and has not been told of yet.
        "exit_unseen" => times(1),
        // A CPU has more tasks than can be named, or its queue changes meanwhile.
        "fold_list_cut" => times(1),
        // Processes that open too many connections run beside it on purpose.
        "tcp_opening_ring_full" => u64::MAX,
        _ => kernel::may_lose(reason),
    }
}

/// What was heard of a stream: no more of it than is asked for.
#[derive(Default)]
struct Heard {
    samples: Samples,
    seconds: f64,
    last: Option<Snapshot>,
    /// By reason of loss: when more of it came, in s of the stream, and how many.
    grew: BTreeMap<String, String>,
}

impl Heard {
    fn of(lines: impl Iterator<Item = Value>) -> Self {
        let mut heard = Self::default();
        let snapshots = lines.filter(|line| line["type"] == "snapshot");
        snapshots.for_each(|line| heard.take(Snapshot(line)));
        heard
    }

    fn take(&mut self, snapshot: Snapshot) {
        self.samples.0.extend(snapshot.samples());
        self.seconds += snapshot.seconds();
        let before = self.last.as_ref().map(|last| losses(&last.0));
        let before = before.unwrap_or_default();
        for (reason, count) in losses(&snapshot.0) {
            let more = count - before.get(&reason).unwrap_or(&0);
            if more > 0 {
                let when = format!(" {more} at {:.0} s", self.seconds);
                self.grew.entry(reason).or_default().push_str(&when);
            }
        }
        self.last = Some(snapshot);
    }
}

/// How many tasks the names may be off, on average; and how many beside other tests: CPUs
/// fold up to a tick apart, and every task that comes, goes or moves within it is counted
/// on one of them twice or not at all.
fn most_off(is_shared: bool) -> f64 {
    host_or_guest(if is_shared { 0.5 } else { 0.1 }, 5.0)
}

/// The kernel's samples of a run: (counted, named).
#[derive(Default)]
struct Samples(Vec<(i64, i64)>);

impl Samples {
    /// Whether as many were named as must be. Where many tests run side by side, many
    /// more tasks come and go while the CPUs count: of 500 one may be off. Beside other
    /// tests 83 to 100 % of the samples were exact in eight runs on one host; why the others
    /// were not is not known. Threads of process 1, which such a host hides, are a guess.
    fn is_good(&self, is_shared: bool) -> bool {
        let counted: i64 = self.0.iter().map(|(active, _)| active.abs()).sum();
        let mean = counted as f64 / self.0.len() as f64;
        let most_off = most_off(is_shared).max(mean / 500.0);
        let least = host_or_guest(if is_shared { 0.8 } else { 0.95 }, 0.5);
        self.share() >= least && self.off() <= most_off
    }

    /// Leaves so many out, those that are off the most.
    fn leave_out(&mut self, most: u64) {
        let off = |(active, named): &(i64, i64)| active.abs_diff(*named);
        self.0.sort_by_key(off);
        let keeps = self.0.len().saturating_sub(most as usize);
        self.0.truncate(keeps);
    }

    /// Share of those that were named to the last task.
    fn share(&self) -> f64 {
        let exact = self.0.iter().filter(|(active, named)| active == named);
        exact.count() as f64 / self.0.len() as f64
    }

    /// By how many tasks the names were off, on average.
    fn off(&self) -> f64 {
        let off = self.0.iter().map(|(active, named)| active.abs_diff(*named));
        off.sum::<u64>() as f64 / self.0.len() as f64
    }
}

/// All kills of the lane, by limits of cgroups and otherwise, are told, and each once.
fn kills_are_those_that_the_kernel_counts() {
    let Some((mut lines, before)) = recorded() else {
        println!("alone, each test of a kill counts its own");
        return;
    };
    // The kernel's count of the host, with each snapshot: since boot.
    let counted = |snapshot: &Value| number(&snapshot["oom"]["memory"]["oom_kills"]);
    let killed = |snapshot: &Value| number(&snapshot["oom"]["killed"]);
    let first = lines.find(|line| line["type"] == "snapshot");
    let first = first.expect("a snapshot");
    let mut groups = 0;
    let is_group = |line: &Value| line["group"].as_array().is_some_and(|all| !all.is_empty());
    let lines = lines.inspect(|line| groups += u32::from(is_group(line)));
    let last = Heard::of(lines).last.expect("another").0;
    let at_start = counted(&first) - killed(&first);
    println!("{before} before it began, {at_start} at its start");
    assert!(at_start >= before as f64, "none before the start is told");
    assert!(counted(&last) <= host_oom_kills() as f64);
    // Of a cgroup that is killed whole the kernel visits the first one again, and counts it
    // again if its memory is still there (`oom_kill_memcg_member`, mm/oom_kill.c).
    let twice = f64::from(groups) / 2.0;
    let expected = counted(&last) - at_start - twice;
    assert_near("killed", killed(&last), expected, twice);
}
