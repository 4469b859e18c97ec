//! The part of the model that says who was killed for memory, and who is next.
//!
//! Sizes are in bytes.

use crate::{clock::WallNs, text::Text};

/// Memory, kills, and who is next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OomBreakdown {
    /// The host's memory; `None` where nobody could say.
    pub memory: Option<HostMemory>,
    /// Kills of the interval, in order; with the first snapshot those of the kernel's
    /// log from before the start too.
    pub kills: Vec<Kill>,
    /// The latest kills, the last one first.
    pub recent: Vec<Kill>,
    /// Processes that the kernel killed for memory since the start.
    pub killed: u64,
    /// Processes that others sent SIGKILL since the start.
    pub signalled: u64,
    /// Whom the kernel would kill when the host runs out of memory, the first one first.
    pub next: Vec<Candidate>,
    /// Cgroups with a limit of memory, the fullest first.
    pub cgroups: Vec<CgroupMemory>,
    /// How many have a limit, those beyond the list included.
    pub cgroups_total: u64,
}

/// The host's memory, as free(1) shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostMemory {
    /// `MemTotal`.
    pub total_bytes: u64,
    /// `MemAvailable`: what can be had without swapping.
    pub available_bytes: u64,
    /// `SwapTotal`.
    pub swap_total_bytes: u64,
    /// `SwapFree`.
    pub swap_free_bytes: u64,
    /// Processes that the kernel killed for memory since boot (`oom_kill` of
    /// /proc/vmstat).
    pub oom_kills: Option<u64>,
}

/// A process with its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: Text,
    /// Its user.
    pub user: Option<Text>,
    /// The cgroup that its memory is charged to.
    pub cgroup: Option<Text>,
    /// Anonymous memory.
    pub anon_rss_bytes: u64,
    /// Pages of files.
    pub file_rss_bytes: u64,
    /// Shared memory.
    pub shmem_rss_bytes: u64,
    /// In swap; `None` where only the kernel's log speaks of it.
    pub swap_bytes: Option<u64>,
    /// Page tables.
    pub page_table_bytes: u64,
    /// `oom_score_adj`, from -1000 (never) to 1000 (first of all).
    pub oom_score_adj: i32,
}

impl ProcessMemory {
    /// Resident memory of every kind.
    pub fn rss_bytes(&self) -> u64 {
        self.anon_rss_bytes
            .saturating_add(self.file_rss_bytes)
            .saturating_add(self.shmem_rss_bytes)
    }
}

/// A process that the kernel may choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub process: ProcessMemory,
    /// As /proc/PID/oom_score has it (`proc_oom_score`, fs/proc/base.c).
    pub oom_score: u32,
}

/// A cgroup with a limit of memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CgroupMemory {
    /// Its path.
    pub path: Text,
    /// The limit.
    pub limit_bytes: u64,
    /// What is charged to it; page cache too, which is given back first.
    pub usage_bytes: u64,
    /// `usage_bytes` as a part of `limit_bytes`.
    pub used_ratio: f64,
    /// What is left.
    pub left_bytes: u64,
    /// Whether all of it dies when one of it is chosen (`memory.oom.group`).
    pub is_killed_whole: bool,
    /// Processes in it that were killed for memory, since it exists.
    pub oom_kills: Option<u64>,
    /// Whom the kernel would kill; `None` when nobody can be.
    pub next: Option<Candidate>,
}

/// Why a process dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KillKind {
    /// The kernel killed it for memory.
    #[default]
    Oom,
    /// It was on its way out, and was only let into the last reserves of memory.
    Exiting,
    /// Another process sent it SIGKILL.
    Signal,
}

/// What was out of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KillScope {
    /// The host.
    Host,
    /// A cgroup at its limit.
    Memcg,
    /// The memory nodes of a cpuset.
    Cpuset,
    /// The memory nodes of a task's policy.
    MemoryPolicy,
    /// Nothing: somebody asked for a kill by SysRq.
    Sysrq,
}

/// A process by its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: Text,
}

/// A kill.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kill {
    /// When.
    pub time: WallNs,
    /// Why.
    pub kind: KillKind,
    /// Whether it was before the start.
    pub is_past: bool,
    /// Whether only the kernel's log tells of it.
    pub is_from_log: bool,
    /// Who.
    pub victim: ProcessMemory,
    /// Its score at that moment, as [`Candidate::oom_score`], of what was out of memory.
    pub points: Option<u32>,
    /// Who wanted memory; who sent the signal.
    pub trigger: Option<Named>,
    /// The cgroup of the trigger.
    pub trigger_cgroup: Option<Text>,
    /// What was out of memory; `None` where nobody says.
    pub scope: Option<KillScope>,
    /// The cgroup at its limit.
    pub memcg: Option<Text>,
    /// Its limit.
    pub limit_bytes: Option<u64>,
    /// What was charged to it.
    pub usage_bytes: Option<u64>,
    /// 2^order pages were wanted in one piece.
    pub order: Option<i32>,
    /// Others that died with it, as their cgroup is killed whole (`memory.oom.group`).
    pub group: Vec<Named>,
    /// Others that died with it, as they share its memory.
    pub sharing: Vec<Named>,
    /// Who else was big, the largest first.
    pub others: Vec<Candidate>,
    /// Whether that is the kernel's own table, right before the kill; otherwise it is
    /// what there was right after it.
    pub is_table_of_log: bool,
    /// The trigger's kernel stack, innermost first.
    pub stack: Vec<Text>,
}
