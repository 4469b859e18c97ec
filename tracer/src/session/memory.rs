//! Memory and kills, as one reading: the kernel side's part, the kernel's log, the
//! host's memory and the cgroups that limit it.

use std::collections::HashSet;

use anyhow::Context as _;

use super::{
    effort::{Allowance, Effort},
    naming::Naming,
    parts::Parts,
};
use crate::{
    aggregate::oom::{LimitedCgroup, OomReading},
    clock::{self, MonotonicNs},
    decode::oom::{self, KillKind, KillReading, MemoryReading},
    host::{
        kmsg::KernelLog,
        memory::{self, MemoryCgroup, MemoryCgroups},
        own,
    },
    kernel::reader::Reader,
    snapshot::HostMemory,
};

/// The memory of every process is looked at after this time, in ns.
const LOOK_AFTER: u64 = 10_000_000_000;
/// Who was killed is still there at first.
const LOOK_AFTER_KILL: u64 = 1_000_000_000;

/// More names of cgroups than this are not kept.
const MOST_NAMES: usize = 65_536;

/// Memory and kills of the host.
pub(super) struct Memory {
    log: Option<KernelLog>,
    cgroups: MemoryCgroups,
    page_bytes: u64,
    named: HashSet<u64>,
    look_at: MonotonicNs,
    /// For looks at every kill: a user can have his processes killed without end.
    allowance: Allowance,
    /// Kills at which there was no look.
    unlooked: u64,
    log_lost: u64,
}

impl Memory {
    /// Opens the kernel's log; why that cannot be is the second.
    pub(super) fn new() -> (Self, Option<anyhow::Error>) {
        let log = KernelLog::open().context("cannot read the kernel's log (/dev/kmsg)");
        let (log, why) = match log {
            Ok(log) => (Some(log), None),
            Err(why) => (None, Some(why)),
        };
        let memory = Self {
            log,
            cgroups: MemoryCgroups::new(),
            page_bytes: own::page_bytes(),
            named: HashSet::new(),
            look_at: MonotonicNs(0),
            allowance: Allowance::new(),
            unlooked: 0,
            log_lost: 0,
        };
        (memory, why)
    }

    /// What there is since the last reading, and how many bytes of it were none.
    pub(super) fn reading(
        &mut self,
        reader: &mut Reader,
        naming: &mut Naming,
        parts: &mut Parts,
    ) -> (OomReading, usize) {
        // The log first: of what it tells the hook has told before.
        let logged = self.log.as_mut().map(KernelLog::read);
        let (logged, lost) = logged.unwrap_or_default();
        self.log_lost += lost;
        let kills = oom::kills(&reader.kills());
        let mut undecodable = kills.undecodable;
        let is_mark = |kill: &KillReading| kill.kind == KillKind::Marked;
        let marked = kills.readings.iter().filter(|kill| is_mark(kill)).count() as u64;
        let now = clock::monotonic();
        let host = memory::host().ok();
        let (mut processes, mut cgroups) = (None, None);
        let is_asked = marked > 0 || !logged.is_empty();
        let is_allowed = is_asked && self.allowance.has_some(now);
        if is_asked && !is_allowed {
            self.unlooked += marked;
        }
        if is_allowed || now >= self.look_at {
            let effort = Effort::begin();
            let memory = parts.optional("reading the memory of processes", reader.memory());
            let decoded = memory.flatten().as_ref().map(oom::memory);
            undecodable += decoded.as_ref().map_or(0, |decoded| decoded.undecodable);
            processes = decoded.map(|decoded| decoded.readings);
            let limited = self.cgroups.read();
            let swap_bytes = host.map_or(0, |host| host.swap_total_bytes);
            let limited = limited.into_iter();
            cgroups = Some(
                limited
                    .filter_map(|cgroup| limit(cgroup, swap_bytes))
                    .collect(),
            );
            let after = if marked > 0 {
                LOOK_AFTER_KILL
            } else {
                LOOK_AFTER
            };
            self.look_at = now + effort.pause(after);
            if is_allowed {
                self.allowance.spend(&effort);
            }
        }
        let frames = kills.readings.iter().flat_map(|kill| &kill.frames);
        let functions = naming.functions(frames.copied());
        let seen = kills.readings.iter().map(|kill| kill.victim.cgroup);
        let requests = kills.readings.iter().filter_map(|kill| kill.request);
        let limits = requests.map(|request| request.cgroup);
        let killers = kills.readings.iter().map(|kill| kill.killer_cgroup);
        let victims = kills.readings.iter().filter(|kill| is_mark(kill));
        let victims: HashSet<u64> = victims.map(|kill| kill.victim.cgroup).collect();
        let all = processes.iter().flatten();
        let all = all.map(|process: &MemoryReading| process.cgroup);
        let ids: HashSet<u64> = seen.chain(killers).chain(limits).chain(all).collect();
        let reading = OomReading {
            page_bytes: self.page_bytes,
            functions,
            logged,
            log_lost: self.log_lost,
            unlooked: self.unlooked,
            host: host.map(host_memory),
            cgroups,
            cgroups_unread: (self.cgroups.left_out() + self.cgroups.unreadable()) as u64,
            cgroup_names: self.names(ids),
            processes,
            whole: self.whole(&victims),
            kills: kills.readings,
        };
        (reading, undecodable)
    }

    /// Those of some cgroups that are killed whole.
    fn whole(&mut self, ids: &HashSet<u64>) -> Vec<u64> {
        let all = ids.iter().copied();
        all.filter(|id| self.cgroups.is_killed_whole(*id)).collect()
    }

    /// Names of cgroups that have none yet.
    fn names(&mut self, ids: HashSet<u64>) -> Vec<(u64, crate::text::Text)> {
        if self.named.len() > MOST_NAMES {
            self.named.clear();
        }
        let new = ids.into_iter().filter(|id| *id != 0);
        let new: Vec<u64> = new.filter(|id| !self.named.contains(id)).collect();
        let named = new.into_iter().filter_map(|id| {
            let name = self.cgroups.by_id(id)?;
            self.named.insert(id);
            Some((id, name))
        });
        named.collect()
    }
}

/// `mem_cgroup_get_max`, mm/memcontrol.c: what there is no swap for does not count.
fn limit(cgroup: MemoryCgroup, host_swap_bytes: u64) -> Option<LimitedCgroup> {
    Some(LimitedCgroup {
        limit_bytes: cgroup.limit_bytes?,
        path: cgroup.path,
        usage_bytes: cgroup.usage_bytes,
        swap_bytes: cgroup
            .swap_limit_bytes
            .unwrap_or(u64::MAX)
            .min(host_swap_bytes),
        oom_kills: cgroup.oom_kills,
        is_killed_whole: cgroup.oom_group,
    })
}

fn host_memory(host: memory::HostMemory) -> HostMemory {
    HostMemory {
        total_bytes: host.total_bytes,
        available_bytes: host.available_bytes,
        swap_total_bytes: host.swap_total_bytes,
        swap_free_bytes: host.swap_free_bytes,
        oom_kills: host.oom_kills,
    }
}
