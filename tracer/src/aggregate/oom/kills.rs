//! What hooks and the kernel's log say of a kill, put together.
//!
//! The out-of-memory killer first writes its report to the log, then sends SIGKILL,
//! then marks the victim, then writes a last line, then sends SIGKILL to who shares the
//! victim's memory (`oom_kill_process`, `__oom_kill_process`, mm/oom_kill.c). All of it
//! is done by the task that wanted memory.

use std::collections::{HashMap, VecDeque};

use super::{
    View,
    logged::{learn, of_log, take_table},
    senders::Senders,
};
use crate::{
    clock::{MonotonicNs, WallNs},
    decode::oom::{KillKind as Seen, KillReading, OomRequest},
    host::kmsg::LoggedKill,
    snapshot::{Candidate, Kill, KillKind, KillScope, Named},
    text::Text,
};

/// So long after the last that belongs to a kill it is told: by then the log has its last
/// line, and who dies with the victim was sent a signal.
const SETTLE_NS: u64 = 40_000_000;
/// But no later than this, even if more and more share its memory.
const LATEST_NS: u64 = 80_000_000;
/// A cgroup that is killed whole: each victim has a line for the console, and the next one
/// is killed when that is out. A serial line of 9600 baud takes 160 ms for it. No hook says
/// which was the last.
const GROUP_SETTLE_NS: u64 = 300_000_000;
/// But no later than this.
const GROUP_LATEST_NS: u64 = 2_000_000_000;
/// What belongs to a kill comes within this time after the last that does.
const TOGETHER_NS: u64 = 1_000_000_000;
/// The log has a clock of its own; how far it is from the hooks' is known but for this.
const CLOCKS_APART_NS: u64 = 2_000_000_000;
/// The innermost functions are those of the hook itself.
const HOOK: &str = "bpf_";
/// So many kills are remembered once they were told.
const REMEMBERED: usize = 256;
/// So many are kept until they are told. A ring full of records is fewer.
const MOST_UNTOLD: usize = 4096;
/// So many are shown as the latest.
const RECENT: usize = 20;
/// So many signals wait for their kill.
const SIGNALS: usize = 1024;

/// Kills, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Kills {
    known: VecDeque<Known>,
    /// SIGKILLs of the kernel's that may belong to a kill.
    signals: VecDeque<KillReading>,
    next_id: u64,
    killed: u64,
    signalled: u64,
    senders: Senders,
    /// SIGKILLs of senders that sent too many.
    limited: u64,
    /// Kills that there was no room for.
    dropped: u64,
}

#[derive(Debug)]
struct Known {
    id: u64,
    at: MonotonicNs,
    /// When the last came that belongs to it.
    last: MonotonicNs,
    tid: u32,
    /// The task that did it; 0 where only the log tells.
    killer_tid: u32,
    mm: u64,
    /// Size of what was out of memory, where a hook has seen it.
    total_pages: Option<u64>,
    /// Others of its cgroup die with it.
    is_of_group: bool,
    is_logged: bool,
    is_told: bool,
    is_shown: bool,
    kill: Kill,
}

impl Known {
    /// When it can be told.
    fn settles_at(&self) -> MonotonicNs {
        match self.is_whole() {
            true => self.at,
            false => {
                let (settle, latest) = match self.is_of_group {
                    true => (GROUP_SETTLE_NS, GROUP_LATEST_NS),
                    false => (SETTLE_NS, LATEST_NS),
                };
                (self.last + settle).min(self.at + latest)
            }
        }
    }

    fn is_near(&self, at: MonotonicNs, apart_ns: u64) -> bool {
        self.at.since_ns(at).max(at.since_ns(self.at)) <= apart_ns
    }

    /// Whether nothing can come that belongs to it.
    fn is_whole(&self) -> bool {
        self.kill.kind == KillKind::Signal || self.kill.is_past
    }

    fn is_by(&self, reading: &KillReading) -> bool {
        self.kill.kind != KillKind::Signal
            && self.killer_tid == reading.killer_tid
            && reading.at.since_ns(self.last) <= TOGETHER_NS
            && self.at.since_ns(reading.at) <= TOGETHER_NS
    }
}

impl Kills {
    /// A hook has seen something.
    pub(super) fn see(
        &mut self,
        reading: &KillReading,
        time: WallNs,
        functions: &HashMap<u64, &Text>,
        view: View<'_>,
    ) {
        match reading.kind {
            Seen::SignalledByKernel => self.see_signal(reading),
            Seen::SignalledByProcess => {
                self.signalled += 1;
                if !self.senders.allow(reading.killer_pid, reading.at) {
                    self.limited += 1;
                    return;
                }
                self.add(reading, KillKind::Signal, time, Vec::new(), view);
            }
            Seen::Marked => {
                let name = |frame: &u64| {
                    let name = functions.get(frame);
                    name.map_or_else(|| Text::from("?"), |name| (*name).clone())
                };
                let stack = reading.frames.iter().map(name);
                let is_hook = |frame: &Text| frame.as_str().starts_with(HOOK);
                let stack: Vec<Text> = stack.skip_while(is_hook).collect();
                self.see_mark(reading, time, stack, view);
            }
        }
    }

    fn see_signal(&mut self, reading: &KillReading) {
        let victim = &reading.victim;
        let shares = |known: &&mut Known| {
            known.is_by(reading) && known.mm == victim.mm && known.kill.victim.pid != victim.pid
        };
        if let Some(known) = self.known.iter_mut().rev().find(shares) {
            known.last = reading.at;
            known.kill.sharing.push(named(reading));
            return;
        }
        if self.signals.len() == SIGNALS {
            self.signals.pop_front();
        }
        self.signals.push_back(reading.clone());
    }

    fn see_mark(&mut self, reading: &KillReading, time: WallNs, stack: Vec<Text>, view: View<'_>) {
        // The first of a group is visited once more with the others.
        let is_it =
            |known: &Known| known.is_by(reading) && known.kill.victim.pid == reading.victim.pid;
        if self.known.iter().any(is_it) {
            return;
        }
        let was_sent = |signal: &KillReading| {
            signal.killer_tid == reading.killer_tid
                && signal.victim.pid == reading.victim.pid
                && reading.at.since_ns(signal.at) <= TOGETHER_NS
        };
        let is_killed = self.signals.iter().any(was_sent);
        self.signals
            .retain(|signal| reading.at.since_ns(signal.at) <= TOGETHER_NS);
        if is_killed {
            self.killed += 1;
        }
        let of_group = stack.iter().any(|f| f.as_str() == "mem_cgroup_scan_tasks");
        if of_group
            && is_killed
            && let Some(first) = self
                .known
                .iter_mut()
                .rev()
                .find(|known| known.is_by(reading))
        {
            first.last = reading.at;
            first.is_of_group = true;
            first.kill.group.push(named(reading));
            return;
        }
        let kind = if is_killed {
            KillKind::Oom
        } else {
            KillKind::Exiting
        };
        self.add(reading, kind, time, stack, view);
    }

    fn add(
        &mut self,
        reading: &KillReading,
        kind: KillKind,
        time: WallNs,
        stack: Vec<Text>,
        view: View<'_>,
    ) {
        let request = reading.request.as_ref();
        let known = Known {
            id: self.next_id,
            at: reading.at,
            last: reading.at,
            tid: reading.victim.tid,
            killer_tid: reading.killer_tid,
            mm: reading.victim.mm,
            total_pages: request.map(|request| request.total_pages),
            is_of_group: kind == KillKind::Oom && view.whole.contains(&reading.victim.cgroup),
            is_logged: false,
            is_told: false,
            is_shown: false,
            kill: Kill {
                time,
                kind,
                victim: view.process(&reading.victim),
                trigger: Some(Named {
                    pid: reading.killer_pid,
                    comm: reading.killer_comm.clone(),
                }),
                trigger_cgroup: view.names.get(&reading.killer_cgroup).cloned(),
                scope: request.and_then(scope_of_request).or(scope_of(&stack)),
                memcg: request.and_then(|request| view.names.get(&request.cgroup).cloned()),
                order: request.map(|request| request.order),
                stack,
                ..Kill::default()
            },
        };
        self.push(known);
    }

    fn push(&mut self, known: Known) {
        self.next_id += 1;
        if self.known.len() >= REMEMBERED {
            // What was told goes first, and of that what was shown.
            let shown = |known: &Known| known.is_told && (known.is_shown || known.kill.is_past);
            let oldest = self.known.iter().position(shown);
            let oldest = oldest.or_else(|| self.known.iter().position(|known| known.is_told));
            match oldest {
                Some(oldest) => drop(self.known.remove(oldest)),
                None if self.known.len() >= MOST_UNTOLD => {
                    self.dropped += 1;
                    return;
                }
                None => {}
            }
        }
        self.known.push_back(known);
    }

    /// SIGKILLs that are counted and not told, as their sender sent too many.
    pub(super) fn limited(&self) -> u64 {
        self.limited
    }

    /// Kills that are counted and not told, as there was no room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The kernel's log has a kill.
    pub(super) fn read(
        &mut self,
        logged: &LoggedKill,
        at: MonotonicNs,
        time: WallNs,
        is_past: bool,
        view: View<'_>,
    ) {
        let is_it = |known: &&mut Known| {
            let kill = &known.kill;
            kill.kind != KillKind::Signal
                && known.is_near(at, CLOCKS_APART_NS)
                && (known.tid == logged.pid
                    || kill.victim.pid == logged.pid
                    || kill.group.iter().any(|member| member.pid == logged.pid))
        };
        if let Some(known) = self.known.iter_mut().rev().find(is_it) {
            let is_first = known.tid == logged.pid || known.kill.victim.pid == logged.pid;
            if is_first && !known.is_logged {
                known.is_logged = true;
                learn(&mut known.kill, logged);
                // What was told stays.
                if !known.is_told {
                    take_table(&mut known.kill, logged, view);
                }
            }
            return;
        }
        if !is_past {
            self.killed += 1;
        }
        let mut kill = of_log(logged, time);
        kill.is_past = is_past;
        learn(&mut kill, logged);
        take_table(&mut kill, logged, view);
        self.push(Known {
            id: self.next_id,
            at,
            last: at,
            tid: logged.pid,
            killer_tid: 0,
            mm: 0,
            total_pages: None,
            is_of_group: false,
            is_logged: true,
            is_told: false,
            is_shown: false,
            kill,
        });
    }

    /// When the next kill can be told.
    pub(super) fn settles_at(&self) -> Option<MonotonicNs> {
        let untold = self.known.iter().filter(|known| !known.is_told);
        untold.map(Known::settles_at).min()
    }

    /// Identities of those that can be told now; they count as told.
    pub(super) fn take_settled(&mut self, now: MonotonicNs) -> Vec<u64> {
        let settled = |known: &&mut Known| !known.is_told && known.settles_at() <= now;
        let settled = self.known.iter_mut().filter(settled);
        settled
            .map(|known| {
                known.is_told = true;
                known.id
            })
            .collect()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Kill> {
        let known = self.known.iter().find(|known| known.id == id);
        known.map(|known| &known.kill)
    }

    /// Size in pages of what was out of memory, where a hook has seen it.
    pub(super) fn total_pages(&self, id: u64) -> Option<u64> {
        let known = self.known.iter().find(|known| known.id == id);
        known.and_then(|known| known.total_pages)
    }

    pub(super) fn complete(&mut self, id: u64, points: Option<u32>, others: Vec<Candidate>) {
        if let Some(known) = self.known.iter_mut().find(|known| known.id == id) {
            known.kill.points = points;
            known.kill.others = others;
        }
    }

    /// Those that were told and not yet shown in a snapshot.
    pub(super) fn take_interval(&mut self) -> Vec<Kill> {
        let new = self
            .known
            .iter_mut()
            .filter(|known| known.is_told && !known.is_shown);
        new.map(|known| {
            known.is_shown = true;
            known.kill.clone()
        })
        .collect()
    }

    pub(super) fn of_run(&self) -> Vec<Kill> {
        let told = self.known.iter().filter(|known| !known.kill.is_past);
        told.map(|known| known.kill.clone()).collect()
    }

    pub(super) fn recent(&self) -> Vec<Kill> {
        let mut latest: Vec<_> = self.known.iter().collect();
        latest.sort_by_key(|known| std::cmp::Reverse(known.at));
        latest.truncate(RECENT);
        latest.into_iter().map(|known| known.kill.clone()).collect()
    }

    /// Killed for memory, and by a signal of another process.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.killed, self.signalled)
    }
}

fn named(reading: &KillReading) -> Named {
    Named {
        pid: reading.victim.pid,
        comm: reading.victim.comm.clone(),
    }
}

/// What was out of memory, by the functions on the way to the killer.
fn scope_of(stack: &[Text]) -> Option<KillScope> {
    let has = |function: &str| stack.iter().any(|frame| frame.as_str() == function);
    if has("mem_cgroup_out_of_memory") {
        Some(KillScope::Memcg)
    } else if has("moom_callback") {
        Some(KillScope::Sysrq)
    } else if has("out_of_memory") {
        Some(KillScope::Host)
    } else {
        None
    }
}

/// What the request says (`constrained_alloc`, `is_sysrq_oom`, mm/oom_kill.c).
fn scope_of_request(request: &OomRequest) -> Option<KillScope> {
    match request.constraint {
        _ if request.order < 0 => Some(KillScope::Sysrq),
        0 => Some(KillScope::Host),
        1 => Some(KillScope::Cpuset),
        2 => Some(KillScope::MemoryPolicy),
        3 => Some(KillScope::Memcg),
        _ => None,
    }
}
