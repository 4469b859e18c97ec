//! What a scenario file may say. Times are in ms since tracer began; negative
//! ones came before.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Table;
use tracer::{clock::MonotonicNs, decode::task::TaskReading, text::Text};
use tracer_common::{block::WaitsFor, lost, sched::BlockedTotals, task::ExitTotals};

use super::why::{Episode, MountedAt, Stack, Waiting};

/// Tracer begins so long after boot: what began before it has a date too.
const BOOT_MS: f64 = 1e9;
/// The scheduler's clock is behind CLOCK_MONOTONIC by this.
pub(crate) const SCHED_BEHIND_NS: u64 = 7_000_000_000;
/// jiffies as tracer begins.
const FIRST_JIFFY: u64 = 5_000_000;

/// A file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The story, in a sentence.
    #[serde(rename = "about")]
    pub _about: String,
    /// What goes wrong today; the file's name then ends in `.pending.toml`.
    pub pending: Option<String>,
    #[serde(default)]
    pub options: RunOptions,
    #[serde(default)]
    pub clock: Clock,
    /// Tasks by a name of the scenario's own, as they are at first.
    #[serde(default)]
    pub tasks: BTreeMap<String, Table>,
    /// Kernel stacks by a name of the scenario's own.
    #[serde(default)]
    pub stacks: BTreeMap<String, Stack>,
    /// Block devices.
    #[serde(default)]
    pub devices: BTreeSet<String>,
    /// Locks that are variables of the kernel.
    #[serde(default)]
    pub locks: BTreeSet<String>,
    #[serde(default)]
    pub mounts: BTreeMap<String, MountedAt>,
    /// Readings, the first one as tracer begins.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
    pub summary: Option<ExpectedSummary>,
}

/// The command line.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RunOptions {
    pub by: String,
    pub top: usize,
    pub pid: Option<u32>,
    pub min_block: f64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            by: "process".into(),
            top: 20,
            pid: None,
            min_block: 0.0,
        }
    }
}

/// The kernel's ticks.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Clock {
    pub hz: u64,
    /// The first fold since tracer began.
    pub first_fold: f64,
    /// The averages as tracer begins (2048 = 1.0).
    pub averages: [u64; 3],
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            hz: 1000,
            first_fold: 2000.0,
            averages: [0; 3],
        }
    }
}

impl Clock {
    pub(crate) fn jiffies(&self, at: f64) -> u64 {
        (FIRST_JIFFY as f64 + at * self.hz as f64 / 1e3 + 1e-6).floor() as u64
    }

    pub(crate) fn period_jiffies(&self) -> u64 {
        5 * self.hz + 1
    }

    /// 5 s and a tick.
    pub(crate) fn period(&self) -> f64 {
        self.period_jiffies() as f64 * 1e3 / self.hz as f64
    }

    /// The date of the next fold, on a CPU that has done all up to now.
    pub(crate) fn next_fold(&self, jiffies: u64) -> u64 {
        let mut next = self.jiffies(self.first_fold);
        while next <= jiffies {
            next += self.period_jiffies();
        }
        next
    }
}

/// A reading, and what is known after it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    pub at: f64,
    /// So many more times, each a period of the kernel's sample later, its folds too.
    #[serde(default)]
    pub repeat: u64,
    /// Tasks that were read, and what changed of them.
    #[serde(default)]
    pub tasks: BTreeMap<String, Table>,
    /// Whether these are all tasks.
    #[serde(default)]
    pub complete: bool,
    /// Tasks that exited, by name of the scenario.
    #[serde(default)]
    pub exits: BTreeMap<String, Table>,
    /// By comm: exits, run, wait, blocked, episodes; cumulative.
    #[serde(default)]
    pub exit_table: BTreeMap<String, [u64; 5]>,
    /// Episodes over the threshold that ended.
    #[serde(default)]
    pub ended: Vec<Episode>,
    /// Numbers of episodes by stack and bucket, cumulative.
    #[serde(default)]
    pub lengths: BTreeMap<String, BTreeMap<String, u64>>,
    #[serde(default)]
    pub folds: Vec<Fold>,
    /// What the kernel counted since the last step, sample by sample.
    #[serde(default)]
    pub samples: Vec<i64>,
    /// The averages, where they are not what the samples make of them.
    pub averages: Option<[u64; 3]>,
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    #[serde(default)]
    pub undecodable: u64,
    /// Identities of cgroups by path.
    #[serde(default)]
    pub cgroups: BTreeMap<String, u64>,
    /// The reader's CPU has not come to the fold yet.
    #[serde(default)]
    pub own_cpu_lags: bool,
    /// So many ticks are late: the host held this virtual machine up.
    #[serde(default)]
    pub late_ticks: u64,
    pub expect: Option<Expected>,
}

/// One CPU's fold; `~` before a name is a delayed dequeue.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fold {
    pub at: f64,
    pub cpu: u32,
    /// In the order of the kernel's list, the newest first.
    pub tasks: Vec<String>,
    /// As many as are listed, unless the queue changed meanwhile.
    pub nr_running: Option<u32>,
}

/// A task.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    pub pid: u32,
    pub tid: Option<u32>,
    pub comm: Option<String>,
    #[serde(default = "long_ago")]
    pub start: f64,
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub cgroup: u64,
    #[serde(default)]
    pub cpu: u32,
    /// The CPU it went to sleep on, when it was woken for another.
    pub slept_on: Option<u32>,
    #[serde(default)]
    pub run: f64,
    #[serde(default)]
    pub wait: f64,
    /// Sleep that the kernel took for waiting, in one waking; it is part of `wait`.
    #[serde(default)]
    pub stale_wait: f64,
    #[serde(default)]
    pub throttled: f64,
    /// Blocked time and episodes that ended.
    #[serde(default)]
    pub blocked: f64,
    #[serde(default)]
    pub episodes: u64,
    /// The episode that ended last.
    pub last: Option<[f64; 2]>,
    pub longest: Option<[f64; 2]>,
    /// The fold that fell into an ended episode.
    pub at_fold: Option<f64>,
    /// asleep, running, waiting, throttled, blocked, delayed, delayed blocked, zombie.
    #[serde(default)]
    pub is: String,
    pub since: Option<f64>,
    /// Of `blocked`, in episodes over the threshold.
    #[serde(default)]
    pub long: f64,
    #[serde(default)]
    pub waits: Waiting,
}

fn long_ago() -> f64 {
    -3_600_000.0
}

impl Task {
    /// What the kernel side would report.
    pub(crate) fn reading(self, name: &str, waits: WaitsFor) -> TaskReading {
        let since = self.since.map(|ms| moment(ms).0);
        let sched = since.map_or(0, |ns| ns - SCHED_BEHIND_NS);
        let is = |state: &str| self.is.split(' ').any(|word| word == state);
        let is_waiting = is("waiting") || is("throttled");
        let ns = |ms: f64| (ms * 1e6).round() as u64;
        let [last_begin_ns, last_end_ns] = self.last.map_or([0; 2], |l| l.map(|ms| moment(ms).0));
        let longest = self
            .longest
            .map_or([0; 2], |[a, b]| [ns(b - a), moment(a).0]);
        let stale_wakings = u64::from(self.stale_wait > 0.0);
        assert!(self.start > -BOOT_MS, "{name} began before the host did");
        TaskReading {
            parent: 0,
            pid: self.pid,
            tid: self.tid.unwrap_or(self.pid),
            start: moment(self.start),
            comm: Text::from(self.comm.as_deref().unwrap_or(name)),
            cgroup: self.cgroup,
            uid: self.uid,
            cpu: self.cpu,
            run_ns: ns(self.run),
            run_delay_ns: ns(self.wait),
            last_queued_sched: if is_waiting { sched } else { 0 },
            last_arrival_sched: if is("running") { sched } else { 0 },
            throttled_ns: ns(self.throttled),
            throttled_cgroup: self.cgroup,
            blocked: BlockedTotals {
                open_ns: if is("blocked") { since.unwrap_or(0) } else { 0 },
                open_exec_start: 0,
                total_ns: ns(self.blocked),
                episodes: self.episodes,
                last_begin_ns,
                last_end_ns,
                open_cpu: self.slept_on.unwrap_or(self.cpu),
                last_cpu: self.slept_on.unwrap_or(self.cpu),
                at_fold_ns: self.at_fold.map_or(0, |ms| moment(ms).0),
                longest_ns: longest[0],
                longest_begin_ns: longest[1],
                stale_ns: ns(self.stale_wait) + stale_wakings * SCHED_BEHIND_NS,
                stale_wakings,
                long_ns: ns(self.long),
                waits,
            },
            is_blocked: is("blocked"),
            is_runnable: is_waiting || is("running"),
            is_running: is("running"),
            is_delayed: is("delayed"),
            is_throttled: is("throttled"),
            is_dead: is("zombie"),
            is_kernel: false,
        }
    }
}

/// What a snapshot must say; what is not given may be anything.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    #[serde(default)]
    pub groups: BTreeMap<String, ExpectedGroup>,
    /// No rows but these groups.
    #[serde(default)]
    pub only: bool,
    pub samples: Option<Vec<[i64; 2]>>,
    pub average1: Option<f64>,
    pub before_start1: Option<f64>,
    pub unexplained1: Option<f64>,
    pub delayed1: Option<f64>,
    pub other1: Option<f64>,
    pub other_groups: Option<u64>,
    pub running: Option<f64>,
    pub waiting: Option<f64>,
    pub throttled: Option<f64>,
    pub blocked_mean: Option<f64>,
    /// Ages by tid.
    pub blocked: Option<BTreeMap<String, f64>>,
    /// What they are blocked by, by tid.
    pub blocked_by: Option<BTreeMap<String, String>>,
    /// Whom they wait for, by tid; those that wait for none are left out.
    pub chains: Option<BTreeMap<String, Vec<String>>>,
    /// Root, cause, how many.
    pub queues: Option<Vec<(String, String, u64)>>,
    /// Rows of the table by cause, all of them.
    pub causes: Option<BTreeMap<String, f64>>,
    /// The same by device.
    pub devices: Option<BTreeMap<String, f64>>,
    /// Episodes by cause.
    pub lengths: Option<BTreeMap<String, u64>>,
    #[serde(default)]
    pub lost: BTreeMap<String, u64>,
    /// 0 for none.
    pub leaked: Option<i64>,
}

/// A row, found by its name in the table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedGroup {
    pub running: Option<f64>,
    pub waiting: Option<f64>,
    pub throttled: Option<f64>,
    pub blocked: Option<f64>,
    pub load1: Option<f64>,
    pub load15: Option<f64>,
    pub episodes: Option<u64>,
    pub exited: Option<u64>,
    pub threads: Option<u64>,
    /// All of them.
    pub causes: Option<BTreeMap<String, f64>>,
}

/// What the summary must say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedSummary {
    pub samples: Option<u64>,
    pub samples_named: Option<u64>,
    pub sample_error: Option<f64>,
    pub exited: Option<u64>,
    #[serde(default)]
    pub groups: BTreeMap<String, ExpectedGroup>,
    /// Rows of the table by cause, all of them.
    pub causes: Option<BTreeMap<String, f64>>,
    /// tid, length, whether it lasts.
    pub episodes: Option<Vec<(u32, f64, bool)>>,
}

/// A time of the file as CLOCK_MONOTONIC.
pub(crate) fn moment(ms: f64) -> MonotonicNs {
    MonotonicNs(((BOOT_MS + ms) * 1e6).round() as u64)
}

/// Where a counter of the kernel side has its place.
pub(crate) fn counter(name: &str) -> usize {
    (match name {
        "storage" => lost::STORAGE,
        "exit_ring" => lost::EXIT_RING,
        "exit_table" => lost::EXIT_TABLE,
        "fold_ring" => lost::FOLD_RING,
        "episodes_seen" => lost::EPISODES_SEEN,
        "episode_ring" => lost::EPISODE_RING,
        "stack_table" => lost::STACK_TABLE,
        _ => panic!("no counter {name}"),
    }) as usize
}

/// A line of the table of exits.
pub(crate) fn exit_totals(
    (comm, [exits, run, wait, blocked, episodes]): (&String, &[u64; 5]),
) -> (Text, ExitTotals) {
    let totals = ExitTotals {
        exits: *exits,
        run_ns: run * 1_000_000,
        run_delay_ns: wait * 1_000_000,
        blocked_ns: blocked * 1_000_000,
        episodes: *episodes,
    };
    (Text::from(comm.as_str()), totals)
}
