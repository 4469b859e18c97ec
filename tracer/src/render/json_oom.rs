//! Memory, kills and who is next, as JSON.

use serde::Serialize;

use super::{
    json::{Number, text},
    time::rfc3339,
    words,
};
use crate::{snapshot, text::Text};

#[derive(Serialize)]
pub(super) struct Oom<'a> {
    memory: Option<Memory>,
    kills: Vec<Kill<'a>>,
    killed: u64,
    signalled: u64,
    next: Vec<Candidate<'a>>,
    cgroups: Vec<Cgroup<'a>>,
    cgroups_total: u64,
}

impl<'a> From<&'a snapshot::OomBreakdown> for Oom<'a> {
    fn from(oom: &'a snapshot::OomBreakdown) -> Self {
        Self {
            memory: oom.memory.map(Memory::from),
            kills: oom.kills.iter().map(Kill::from).collect(),
            killed: oom.killed,
            signalled: oom.signalled,
            next: oom.next.iter().map(Candidate::from).collect(),
            cgroups: oom.cgroups.iter().map(Cgroup::from).collect(),
            cgroups_total: oom.cgroups_total,
        }
    }
}

#[derive(Serialize)]
struct Memory {
    total_bytes: u64,
    available_bytes: u64,
    swap_total_bytes: u64,
    swap_free_bytes: u64,
    oom_kills: Option<u64>,
}

impl From<snapshot::HostMemory> for Memory {
    fn from(memory: snapshot::HostMemory) -> Self {
        Self {
            total_bytes: memory.total_bytes,
            available_bytes: memory.available_bytes,
            swap_total_bytes: memory.swap_total_bytes,
            swap_free_bytes: memory.swap_free_bytes,
            oom_kills: memory.oom_kills,
        }
    }
}

/// A process that may be chosen.
#[derive(Serialize)]
struct Candidate<'a> {
    oom_score: u32,
    #[serde(flatten)]
    process: Process<'a>,
}

impl<'a> From<&'a snapshot::Candidate> for Candidate<'a> {
    fn from(candidate: &'a snapshot::Candidate) -> Self {
        Self {
            oom_score: candidate.oom_score,
            process: (&candidate.process).into(),
        }
    }
}

#[derive(Serialize)]
struct Process<'a> {
    pid: u32,
    comm: &'a str,
    user: Option<&'a str>,
    cgroup: Option<&'a str>,
    oom_score_adj: i32,
    anon_rss_bytes: u64,
    file_rss_bytes: u64,
    shmem_rss_bytes: u64,
    swap_bytes: Option<u64>,
    page_table_bytes: u64,
}

impl<'a> From<&'a snapshot::ProcessMemory> for Process<'a> {
    fn from(process: &'a snapshot::ProcessMemory) -> Self {
        Self {
            pid: process.pid,
            comm: process.comm.as_str(),
            user: text(&process.user),
            cgroup: text(&process.cgroup),
            oom_score_adj: process.oom_score_adj,
            anon_rss_bytes: process.anon_rss_bytes,
            file_rss_bytes: process.file_rss_bytes,
            shmem_rss_bytes: process.shmem_rss_bytes,
            swap_bytes: process.swap_bytes,
            page_table_bytes: process.page_table_bytes,
        }
    }
}

#[derive(Serialize)]
struct Cgroup<'a> {
    path: &'a str,
    limit_bytes: u64,
    usage_bytes: u64,
    used_ratio: Number,
    left_bytes: u64,
    killed_whole: bool,
    oom_kills: Option<u64>,
    next: Option<Candidate<'a>>,
}

impl<'a> From<&'a snapshot::CgroupMemory> for Cgroup<'a> {
    fn from(cgroup: &'a snapshot::CgroupMemory) -> Self {
        Self {
            path: cgroup.path.as_str(),
            limit_bytes: cgroup.limit_bytes,
            usage_bytes: cgroup.usage_bytes,
            used_ratio: Number(cgroup.used_ratio),
            left_bytes: cgroup.left_bytes,
            killed_whole: cgroup.is_killed_whole,
            oom_kills: cgroup.oom_kills,
            next: cgroup.next.as_ref().map(Candidate::from),
        }
    }
}

/// A kill; as an event too.
#[derive(Serialize)]
pub(super) struct Kill<'a> {
    time: String,
    event: &'a str,
    past: bool,
    from_log: bool,
    #[serde(flatten)]
    victim: Process<'a>,
    points: Option<u32>,
    trigger: Option<Trigger<'a>>,
    scope: Option<&'a str>,
    memcg: Option<&'a str>,
    limit_bytes: Option<u64>,
    usage_bytes: Option<u64>,
    order: Option<i32>,
    group: Vec<Named<'a>>,
    sharing: Vec<Named<'a>>,
    others: Vec<Candidate<'a>>,
    others_from_log: bool,
    stack: Vec<&'a str>,
}

impl<'a> From<&'a snapshot::Kill> for Kill<'a> {
    fn from(kill: &'a snapshot::Kill) -> Self {
        let trigger = kill.trigger.as_ref().map(|trigger| Trigger {
            pid: trigger.pid,
            comm: trigger.comm.as_str(),
            cgroup: text(&kill.trigger_cgroup),
        });
        Self {
            time: rfc3339(kill.time),
            event: words::kill(kill.kind),
            past: kill.is_past,
            from_log: kill.is_from_log,
            victim: (&kill.victim).into(),
            points: kill.points,
            trigger,
            scope: kill.scope.map(words::scope),
            memcg: text(&kill.memcg),
            limit_bytes: kill.limit_bytes,
            usage_bytes: kill.usage_bytes,
            order: kill.order,
            group: kill.group.iter().map(Named::from).collect(),
            sharing: kill.sharing.iter().map(Named::from).collect(),
            others: kill.others.iter().map(Candidate::from).collect(),
            others_from_log: kill.is_table_of_log,
            stack: kill.stack.iter().map(Text::as_str).collect(),
        }
    }
}

#[derive(Serialize)]
struct Trigger<'a> {
    pid: u32,
    comm: &'a str,
    cgroup: Option<&'a str>,
}

#[derive(Serialize)]
struct Named<'a> {
    pid: u32,
    comm: &'a str,
}

impl<'a> From<&'a snapshot::Named> for Named<'a> {
    fn from(named: &'a snapshot::Named) -> Self {
        Self {
            pid: named.pid,
            comm: named.comm.as_str(),
        }
    }
}
