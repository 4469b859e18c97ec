//! Kills for memory, and who is next: (state, reading) -> state -> model.
//!
//! `kills.rs` puts together what hooks and the kernel's log say of a kill, `logged.rs` has
//! the log's part, `next.rs` ranks processes as the kernel would.

mod kills;
mod logged;
mod next;
mod senders;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use self::{
    kills::Kills,
    next::{Room, candidate, rank},
};
use super::MOST_NAMES;
use crate::{
    clock::{MonotonicNs, WallNs},
    decode::{
        clock::ClockReading,
        oom::{KillReading, MemoryReading},
    },
    host::{kmsg::LoggedKill, users::Users},
    snapshot::{Candidate, CgroupMemory, HostMemory, Kill, KillScope, OomBreakdown, ProcessMemory},
    text::Text,
};

/// So many of the host may be next in a list.
const NEXT_LISTED: usize = 10;
/// So many cgroups are in a list.
const CGROUPS_LISTED: usize = 20;
/// So many that were big beside a victim are told.
const OTHERS_LISTED: usize = 10;

/// A cgroup with a limit of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitedCgroup {
    /// Its path.
    pub path: Text,
    /// The limit.
    pub limit_bytes: u64,
    /// What is charged to it.
    pub usage_bytes: u64,
    /// What the limit lets it have besides in swap.
    pub swap_bytes: u64,
    /// Processes in it that were killed for memory.
    pub oom_kills: Option<u64>,
    /// All of it dies when one of it is chosen.
    pub is_killed_whole: bool,
}

/// What was read of memory and kills.
#[derive(Clone, Debug, Default)]
pub struct OomReading {
    /// Size of a page.
    pub page_bytes: u64,
    /// What the hooks saw, in order.
    pub kills: Vec<KillReading>,
    /// Cgroups of victims, of which all die with one.
    pub whole: Vec<u64>,
    /// Names of functions in the kills' stacks.
    pub functions: Vec<(u64, Text)>,
    /// What the kernel's log says, in order.
    pub logged: Vec<LoggedKill>,
    /// Records of the kernel's log that were overwritten before they were read, since
    /// the start.
    pub log_lost: u64,
    /// Kills at which the memory of processes was not looked at, since the start.
    pub unlooked: u64,
    /// Every process with its memory, when it was asked for.
    pub processes: Option<Vec<MemoryReading>>,
    /// The host's memory.
    pub host: Option<HostMemory>,
    /// Cgroups with a limit, when they were asked for.
    pub cgroups: Option<Vec<LimitedCgroup>>,
    /// Cgroups that there was no room to read, as of then.
    pub cgroups_unread: u64,
    /// Names of cgroups that were not known before.
    pub cgroup_names: Vec<(u64, Text)>,
}

/// All that is known of memory and kills.
#[derive(Debug, Default)]
pub struct OomAggregate {
    kills: Kills,
    page_bytes: u64,
    host: Option<HostMemory>,
    processes: Vec<MemoryReading>,
    cgroups: Vec<LimitedCgroup>,
    /// As of the last look at both.
    next: Vec<Candidate>,
    limited: Vec<CgroupMemory>,
    names: HashMap<u64, Text>,
    log_lost: u64,
    unlooked: u64,
    cgroups_unread: u64,
    /// CLOCK_MONOTONIC less the clock of the kernel's log, in ns.
    log_offset_ns: i64,
}

impl OomAggregate {
    /// The clock of the kernel's log is the scheduler's (`local_clock`,
    /// kernel/sched/clock.c): nobody steers it, and in a month it is seconds off.
    pub fn set_clock(&mut self, clock: &ClockReading) {
        self.log_offset_ns = clock.sched_offset_ns.cast_signed();
    }

    /// Takes a reading in. What the log has from before `began` is past.
    pub fn observe(
        &mut self,
        (now, wall): (MonotonicNs, WallNs),
        began: MonotonicNs,
        users: &Users,
        reading: &OomReading,
    ) {
        self.page_bytes = reading.page_bytes.max(1);
        self.names.extend(reading.cgroup_names.iter().cloned());
        self.host = reading.host.or(self.host);
        if let Some(processes) = &reading.processes {
            self.processes = each_once(processes);
            self.forget_names();
        }
        if let Some(cgroups) = &reading.cgroups {
            self.cgroups.clone_from(cgroups);
        }
        if reading.processes.is_some() || reading.cgroups.is_some() {
            self.next = self.next(|_| true, self.room_of_host(), NEXT_LISTED, users);
            self.limited = self.limited(users);
        }
        self.log_lost = reading.log_lost;
        self.unlooked = reading.unlooked;
        self.cgroups_unread = self.cgroups_unread.max(reading.cgroups_unread);
        let view = View {
            page_bytes: self.page_bytes,
            names: &self.names,
            whole: &reading.whole,
            users,
        };
        let functions: HashMap<u64, &Text> = reading
            .functions
            .iter()
            .map(|(at, name)| (*at, name))
            .collect();
        for kill in &reading.kills {
            let age = now.since_ns(kill.at);
            let time = WallNs(wall.0.saturating_sub(age));
            self.kills.see(kill, time, &functions, view);
        }
        for logged in &reading.logged {
            let at = logged.at_us.saturating_mul(1000);
            let at = MonotonicNs(at.saturating_add_signed(self.log_offset_ns));
            let time = WallNs(wall.0.saturating_sub(now.since_ns(at)));
            self.kills.read(logged, at, time, at < began, view);
        }
    }

    /// When the next kill can be told, with all that is to be had of it.
    pub fn settles_at(&self) -> Option<MonotonicNs> {
        self.kills.settles_at()
    }

    /// Kills that can be told by now and were not yet.
    pub fn take_kills(&mut self, now: MonotonicNs, users: &Users) -> Vec<Kill> {
        let settled = self.kills.take_settled(now);
        for id in &settled {
            let Some(kill) = self.kills.get(*id) else {
                continue;
            };
            let (points, others) = self.beside(kill, self.kills.total_pages(*id), users);
            self.kills.complete(*id, points, others);
        }
        let told = settled.iter().filter_map(|id| self.kills.get(*id));
        told.filter(|kill| !kill.is_past).cloned().collect()
    }

    /// Ends the interval.
    pub fn snapshot(&mut self) -> OomBreakdown {
        OomBreakdown {
            kills: self.kills.take_interval(),
            ..self.summary()
        }
    }

    /// The whole run.
    pub fn summary(&self) -> OomBreakdown {
        let (killed, signalled) = self.kills.counts();
        OomBreakdown {
            memory: self.host,
            kills: self.kills.of_run(),
            recent: self.kills.recent(),
            killed,
            signalled,
            next: self.next.clone(),
            cgroups: self.limited.clone(),
            cgroups_total: self.cgroups.len() as u64,
        }
    }

    /// SIGKILLs that are not told, as their sender sent too many.
    pub fn signals_of_one_sender(&self) -> u64 {
        self.kills.limited()
    }

    /// Kills that there was no room for.
    pub fn untold(&self) -> u64 {
        self.kills.dropped()
    }

    /// Records of the kernel's log that nobody read.
    pub fn log_lost(&self) -> u64 {
        self.log_lost
    }

    /// Kills at which the memory of other processes was not looked at.
    pub fn unlooked(&self) -> u64 {
        self.unlooked
    }

    /// The most cgroups that there was no room to read.
    pub fn cgroups_unread(&self) -> u64 {
        self.cgroups_unread
    }

    /// Of a host that makes cgroups without end those in use are kept.
    fn forget_names(&mut self) {
        if self.names.len() > MOST_NAMES {
            let used: HashSet<u64> = self.processes.iter().map(|p| p.cgroup).collect();
            self.names.retain(|id, _| used.contains(id));
        }
    }

    /// The victim's score of what was out of memory, and who else was big there.
    fn beside(
        &self,
        kill: &Kill,
        total_pages: Option<u64>,
        users: &Users,
    ) -> (Option<u32>, Vec<Candidate>) {
        let (within, room): (Option<&Text>, _) = match (kill.scope, &kill.memcg) {
            (Some(KillScope::Memcg), Some(path)) => {
                (Some(path), Some(self.room_of_cgroup(path, kill)))
            }
            (Some(KillScope::Memcg), None) | (None, _) => return (None, kill.others.clone()),
            // Nobody but the hook knows how large the nodes are.
            (Some(KillScope::Cpuset | KillScope::MemoryPolicy), _) => (None, None),
            (Some(KillScope::Host | KillScope::Sysrq), _) => (None, Some(self.room_of_host())),
        };
        let room = total_pages.map(|pages| Room { pages }).or(room);
        let room = room.filter(|room| room.pages > 1);
        let points = room.map(|room| self.score(&kill.victim, room));
        let room = room.unwrap_or(self.room_of_host());
        let is_within = |process: &MemoryReading| {
            process.pid != kill.victim.pid
                && within.is_none_or(|path| self.is_within(process, path))
        };
        let others = match kill.is_table_of_log || kill.is_past {
            true => self.of_table(kill, room),
            false => self.next(is_within, room, OTHERS_LISTED, users),
        };
        (points, others)
    }

    /// The log's table, with scores, and with the cgroups of those that still live.
    fn of_table(&self, kill: &Kill, room: Room) -> Vec<Candidate> {
        let complete = |other: &Candidate| {
            let is_it = |process: &&MemoryReading| {
                let process = (process.pid, &process.comm);
                !kill.is_past && process == (other.process.pid, &other.process.comm)
            };
            let cgroup = self.processes.iter().find(is_it).map(|it| it.cgroup);
            Candidate {
                oom_score: self.score(&other.process, room),
                process: ProcessMemory {
                    cgroup: cgroup.and_then(|cgroup| self.names.get(&cgroup).cloned()),
                    ..other.process.clone()
                },
            }
        };
        let others = kill.others.iter().take(OTHERS_LISTED);
        others.map(complete).collect()
    }

    /// As /proc/PID/oom_score has it.
    fn score(&self, process: &ProcessMemory, room: Room) -> u32 {
        let reading = MemoryReading {
            anon_pages: process.rss_bytes() / self.page_bytes,
            swap_pages: process.swap_bytes.unwrap_or(0) / self.page_bytes,
            page_table_bytes: process.page_table_bytes,
            score_adj: process.oom_score_adj,
            ..MemoryReading::default()
        };
        room.score(room.badness(&reading, self.page_bytes))
    }

    fn room_of_host(&self) -> Room {
        let host = self.host.unwrap_or_default();
        let bytes = host.total_bytes.saturating_add(host.swap_total_bytes);
        Room::of_bytes(bytes, self.page_bytes)
    }

    fn room_of_cgroup(&self, path: &Text, kill: &Kill) -> Room {
        let known = self.cgroups.iter().find(|cgroup| cgroup.path == *path);
        let bytes = match known {
            Some(cgroup) => cgroup.limit_bytes.saturating_add(cgroup.swap_bytes),
            None => kill.limit_bytes.unwrap_or(0),
        };
        Room::of_bytes(bytes, self.page_bytes)
    }

    /// Whether a process is in a cgroup or in one below it.
    fn is_within(&self, process: &MemoryReading, path: &Text) -> bool {
        let its = self.names.get(&process.cgroup).map(Text::as_str);
        let below = its.and_then(|its| its.strip_prefix(path.as_str().trim_end_matches('/')));
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn next(
        &self,
        is_among: impl Fn(&MemoryReading) -> bool,
        room: Room,
        most: usize,
        users: &Users,
    ) -> Vec<Candidate> {
        let view = View {
            page_bytes: self.page_bytes,
            names: &self.names,
            whole: &[],
            users,
        };
        let among = self.processes.iter().filter(|process| is_among(process));
        let ranked = rank(among, room, self.page_bytes).into_iter().take(most);
        ranked
            .map(|one| candidate(one, room, |process| view.process(process)))
            .collect()
    }

    /// The fullest cgroups, and who is next in each.
    fn limited(&self, users: &Users) -> Vec<CgroupMemory> {
        let ratio =
            |cgroup: &LimitedCgroup| cgroup.usage_bytes as f64 / cgroup.limit_bytes.max(1) as f64;
        let mut fullest: Vec<_> = self.cgroups.iter().collect();
        fullest.sort_by(|a, b| ratio(b).total_cmp(&ratio(a)).then(a.path.cmp(&b.path)));
        let model = |cgroup: &LimitedCgroup| {
            let bytes = cgroup.limit_bytes.saturating_add(cgroup.swap_bytes);
            let room = Room::of_bytes(bytes, self.page_bytes);
            let is_within = |process: &MemoryReading| self.is_within(process, &cgroup.path);
            CgroupMemory {
                path: cgroup.path.clone(),
                limit_bytes: cgroup.limit_bytes,
                usage_bytes: cgroup.usage_bytes,
                used_ratio: ratio(cgroup),
                left_bytes: cgroup.limit_bytes.saturating_sub(cgroup.usage_bytes),
                is_killed_whole: cgroup.is_killed_whole,
                oom_kills: cgroup.oom_kills,
                next: self.next(is_within, room, 1, users).pop(),
            }
        };
        let fullest = fullest.into_iter().take(CGROUPS_LISTED);
        fullest.map(model).collect()
    }
}

/// A process whose first thread has ended comes with each of the others.
fn each_once(tasks: &[MemoryReading]) -> Vec<MemoryReading> {
    let mut seen = HashSet::new();
    let is_new = |task: &&MemoryReading| task.tid == task.pid || seen.insert(task.pid);
    tasks.iter().filter(is_new).cloned().collect()
}

/// What makes a model of a process.
#[derive(Clone, Copy)]
struct View<'a> {
    page_bytes: u64,
    names: &'a HashMap<u64, Text>,
    /// Cgroups that are killed whole.
    whole: &'a [u64],
    users: &'a Users,
}

impl View<'_> {
    fn process(self, process: &MemoryReading) -> ProcessMemory {
        let bytes = |pages: u64| pages.saturating_mul(self.page_bytes);
        ProcessMemory {
            pid: process.pid,
            comm: process.comm.clone(),
            user: Some(self.users.name(process.uid)),
            cgroup: self.names.get(&process.cgroup).cloned(),
            anon_rss_bytes: bytes(process.anon_pages),
            file_rss_bytes: bytes(process.file_pages),
            shmem_rss_bytes: bytes(process.shmem_pages),
            swap_bytes: Some(bytes(process.swap_pages)),
            page_table_bytes: process.page_table_bytes,
            oom_score_adj: process.score_adj,
        }
    }
}
