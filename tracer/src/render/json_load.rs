//! The part of the JSON lines that says what the load is made of.

use serde::Serialize;

use super::{json::Number, json_blocked::CauseShare, time::rfc3339, words};
use crate::snapshot::{self, KernelSample};

/// The load, itemised.
#[derive(Serialize)]
pub(super) struct Load<'a> {
    averages: [Number; 3],
    per_cpu: Number,
    kernel_samples: Vec<Sample>,
    mean: TaskMean,
    groups: Vec<Group<'a>>,
    before_start: Averages,
    unexplained: Averages,
    delayed: Averages,
    other: Other,
    verdict: &'a str,
    advice: &'a str,
    leaked: Option<i64>,
}

#[derive(Serialize)]
struct Sample {
    time: String,
    active: i64,
    named: i64,
}

/// Time-averaged numbers of tasks.
#[derive(Serialize)]
pub(super) struct TaskMean {
    running: Number,
    waiting: Number,
    throttled: Number,
    blocked: Number,
}

#[derive(Serialize)]
struct Averages {
    load1: Number,
    load5: Number,
    load15: Number,
}

/// A row of the table.
#[derive(Serialize)]
pub(super) struct Group<'a> {
    pid: Option<u32>,
    comm: Option<&'a str>,
    cgroup: Option<&'a str>,
    user: Option<&'a str>,
    threads: u64,
    exited: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    made_by: Option<MadeBy<'a>>,
    episodes: u64,
    #[serde(flatten)]
    mean: TaskMean,
    #[serde(flatten)]
    load: Averages,
    causes: Vec<CauseShare<'a>>,
}

/// Who made the processes of a group.
#[derive(Serialize)]
struct MadeBy<'a> {
    pid: u32,
    comm: &'a str,
}

#[derive(Serialize)]
struct Other {
    groups: u64,
    #[serde(flatten)]
    mean: TaskMean,
    #[serde(flatten)]
    load: Averages,
}

impl<'a> From<&'a snapshot::LoadBreakdown> for Load<'a> {
    fn from(load: &'a snapshot::LoadBreakdown) -> Self {
        Self {
            averages: load.averages.map(Number),
            per_cpu: Number(load.per_cpu),
            kernel_samples: load.samples.iter().map(Sample::from).collect(),
            mean: load.mean.into(),
            groups: load.groups.iter().map(Group::from).collect(),
            before_start: load.before_start.into(),
            unexplained: load.unexplained.into(),
            delayed: load.delayed.into(),
            other: Other {
                groups: load.other.groups,
                mean: load.other.mean.into(),
                load: load.other.load.into(),
            },
            verdict: words::verdict(load.verdict),
            advice: words::advice(load.verdict),
            leaked: load.leaked,
        }
    }
}

impl From<&KernelSample> for Sample {
    fn from(sample: &KernelSample) -> Self {
        Self {
            time: rfc3339(sample.time),
            active: sample.active,
            named: sample.named,
        }
    }
}

impl From<snapshot::TaskMean> for TaskMean {
    fn from(mean: snapshot::TaskMean) -> Self {
        Self {
            running: Number(mean.running),
            waiting: Number(mean.waiting),
            throttled: Number(mean.throttled),
            blocked: Number(mean.blocked),
        }
    }
}

impl From<[f64; 3]> for Averages {
    fn from(load: [f64; 3]) -> Self {
        let [load1, load5, load15] = load.map(Number);
        Self {
            load1,
            load5,
            load15,
        }
    }
}

impl<'a> From<&'a snapshot::Group> for Group<'a> {
    fn from(group: &'a snapshot::Group) -> Self {
        Self {
            pid: group.pid,
            comm: group.comm.as_ref().map(|text| text.as_str()),
            cgroup: group.cgroup.as_ref().map(|text| text.as_str()),
            user: group.user.as_ref().map(|text| text.as_str()),
            threads: group.threads,
            exited: group.exited,
            made_by: group.made_by.as_ref().map(|(pid, comm)| MadeBy {
                pid: *pid,
                comm: comm.as_str(),
            }),
            episodes: group.episodes,
            mean: group.mean.into(),
            load: group.load.into(),
            causes: group.causes.iter().map(CauseShare::from).collect(),
        }
    }
}
