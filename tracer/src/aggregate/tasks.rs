//! Every task that lives, and how much of its time was counted already.
//!
//! The kernel's counters only grow, so what a task used is the difference to
//! what was counted. A task is named by thread id and fork time: the number
//! alone comes again.

use std::collections::HashMap;

use tracer_common::block::{NO_STACK, WaitsFor};

use super::{
    Reading, Spent, TaskIdentity, Used,
    blame::{Blame, Counted, Pending},
    processes::{Process, ProcessId, Processes},
    why::Names,
};
use crate::{
    clock::MonotonicNs,
    decode::{clock::ClockReading, task::TaskReading},
    text::Text,
};

/// A complete reading is wanted after this many partial ones at the latest.
const PARTIAL_READINGS: u32 = 60;

/// One living task.
#[derive(Clone, Debug)]
pub struct Task {
    /// What groups are made by.
    pub identity: TaskIdentity,
    /// Thread id.
    pub tid: u32,
    /// Begin of the episode it is in, when it is blocked.
    pub blocked_since: Option<MonotonicNs>,
    /// What it waits for, or waited for last.
    pub waits: WaitsFor,
    /// Fork time.
    pub start: MonotonicNs,
    counted: Spent,
    stale: StaleWaits,
    read_at: MonotonicNs,
    /// Number of the reading that saw it last.
    seen: u64,
}

/// The living tasks.
#[derive(Debug)]
pub struct TaskTable {
    began: MonotonicNs,
    tasks: HashMap<u32, Task>,
    processes: Processes,
    pending: Pending,
    readings: u64,
    partial: u32,
    /// `lost::EXIT_RING` at the last complete reading.
    overflowed: u64,
    /// Tasks that went without a word.
    vanished: u64,
}

impl TaskTable {
    /// An empty table; tasks forked before `began` bring counters that do not count.
    pub fn new(began: MonotonicNs) -> Self {
        Self {
            began,
            tasks: HashMap::new(),
            processes: Processes::default(),
            pending: Pending::default(),
            readings: 0,
            partial: 0,
            overflowed: 0,
            vanished: 0,
        }
    }

    /// A living task.
    pub fn get(&self, tid: u32) -> Option<&Task> {
        self.tasks.get(&tid)
    }

    /// All living tasks.
    pub fn iter(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

    /// A process that lives, or ended with this reading.
    pub fn process(&self, id: ProcessId) -> Option<&Process> {
        self.processes.get(id)
    }

    /// What groups are made by, of a task in the reading taken in last.
    pub fn identify(&self, task: &TaskReading) -> TaskIdentity {
        let process = self.processes.find(task).map(|process| process.id);
        TaskIdentity::of(task, process.unwrap_or_default())
    }

    /// Tasks whose exit was never reported.
    pub fn vanished(&self) -> u64 {
        self.vanished
    }

    /// Whether exits went missing, or none were looked for in a long time.
    pub fn wants_complete(&self, overflowed: u64) -> bool {
        overflowed > self.overflowed || self.partial >= PARTIAL_READINGS
    }

    /// Takes a reading in: first the living, then the dead, since a task can
    /// have died after it was looked at, but not the other way round.
    ///
    /// `names` tells what blocked tasks wait for.
    pub fn read(&mut self, reading: &Reading, names: &Names, used: &mut Vec<Used>) {
        let clock = &reading.clock;
        let mut pending = std::mem::take(&mut self.pending);
        pending.add(&reading.episodes, |episode| {
            let find = |tid| self.process_of(tid);
            names.place(&episode.waits, episode.begin, Some(&episode.waker), find)
        });
        self.pending = pending;
        let mut replaced = HashMap::new();
        self.readings += 1;
        for task in &reading.tasks {
            if task.is_dead && !self.tasks.contains_key(&task.tid) {
                // A zombie, already counted by its exit.
                continue;
            }
            if self
                .tasks
                .get(&task.tid)
                .is_some_and(|known| known.start != task.start)
                && let Some(old) = self.remove(task.tid)
            {
                replaced.insert((task.tid, old.start), old);
            }
            self.count(task, clock, names, used);
        }
        for task in &reading.exits {
            let known = match self.tasks.get(&task.tid) {
                Some(known) if known.start == task.start => self.remove(task.tid),
                Some(known) if known.start < task.start => {
                    // The exit of the one that had the number before was lost.
                    self.remove(task.tid);
                    self.vanished += 1;
                    None
                }
                _ => replaced.remove(&(task.tid, task.start)),
            };
            let stale = known.as_ref().map(|known| known.stale).unwrap_or_default();
            let now = so_far(task, clock, stale.up_to(task, clock));
            let since = known.as_ref().map_or(self.began, |known| known.read_at);
            let was_blocked_since = known.as_ref().and_then(|known| known.blocked_since);
            let before = known.map_or_else(|| self.baseline(task, now), |known| known.counted);
            let process = self.processes.of_dead(task);
            let (mut spent, _) = Self::used(task, process, now, before);
            spent.blame = self.pending.blame(
                task,
                Counted {
                    blocked_ns: spent.time.blocked_ns,
                    long_ns: spent.time.long_ns,
                    since,
                    was_blocked_since,
                    now: clock.now,
                },
                None,
            );
            used.push(Used {
                has_exited: true,
                ..spent
            });
        }
        self.vanished += replaced.len() as u64;
        if reading.is_complete {
            self.drop_unseen();
            self.partial = 0;
            self.overflowed = reading.counters[tracer_common::lost::EXIT_RING as usize];
        } else {
            self.partial += 1;
        }
    }

    /// Processes that have no task left.
    pub fn take_ended(&mut self) -> Vec<Process> {
        self.processes.take_ended()
    }

    /// Who made a process; see [`Processes::maker`].
    pub fn maker(
        &self,
        process: &Process,
        since: MonotonicNs,
        ended: &HashMap<u32, &Process>,
    ) -> Option<(u32, Text)> {
        self.processes.maker(process, since, ended)
    }

    /// The process that a thread id belongs to.
    pub fn process_of(&self, tid: u32) -> Option<(u32, Text)> {
        let process = self.get(tid)?.identity.process;
        let process = self.process(process)?;
        Some((process.id.pid, process.identity.comm.clone()))
    }

    fn count(
        &mut self,
        task: &TaskReading,
        clock: &ClockReading,
        names: &Names,
        used: &mut Vec<Used>,
    ) {
        let known = self.tasks.get(&task.tid);
        let read_at = known.map(|known| known.read_at);
        let was_blocked_since = known.and_then(|known| known.blocked_since);
        let stale = known.map(|known| known.stale).unwrap_or_default();
        let stale = stale.up_to(task, clock);
        let known = known.map(|known| known.counted);
        let process = self.processes.join(task, known.is_none());
        let now = so_far(task, clock, stale);
        let before = known.unwrap_or_else(|| self.baseline(task, now));
        let (mut spent, counted) = Self::used(task, process, now, before);
        if let Some(read_at) = read_at {
            // An episode that had no slot is found late, and with its whole length.
            let most_ns = clock.now.since_ns(read_at);
            spent.time.blocked_ns = spent.time.blocked_ns.min(most_ns);
        }
        if spent.time.blocked_ns > 0 {
            let open = (task.is_blocked && task.blocked.waits.stack != NO_STACK).then(|| {
                let began = MonotonicNs(task.blocked.open_ns);
                names.place(&task.blocked.waits, began, None, |tid| self.process_of(tid))
            });
            let counted = Counted {
                blocked_ns: spent.time.blocked_ns,
                long_ns: spent.time.long_ns,
                since: read_at.unwrap_or(self.began),
                was_blocked_since,
                now: clock.now,
            };
            spent.blame = self.pending.blame(task, counted, open);
        }
        if spent.time != Spent::default() {
            used.push(spent);
        }
        self.tasks.insert(
            task.tid,
            Task {
                identity: TaskIdentity::of(task, process),
                tid: task.tid,
                waits: task.blocked.waits,
                blocked_since: task.is_blocked.then_some(MonotonicNs(task.blocked.open_ns)),
                start: task.start,
                counted,
                stale,
                read_at: clock.now,
                seen: self.readings,
            },
        );
    }

    /// What was used before tracer looked is not counted; a task forked since
    /// then counts from its beginning.
    fn baseline(&self, task: &TaskReading, so_far: Spent) -> Spent {
        if task.start > self.began {
            Spent::default()
        } else {
            so_far
        }
    }

    /// What a task used by `now` beyond `before`, and what is counted after that.
    fn used(task: &TaskReading, process: ProcessId, now: Spent, before: Spent) -> (Used, Spent) {
        // A wait in progress is known to a fraction of a millisecond only; what
        // was counted too early is not counted again.
        let counted = Spent {
            run_ns: now.run_ns.max(before.run_ns),
            wait_ns: now.wait_ns.max(before.wait_ns),
            throttled_ns: 0,
            blocked_ns: now.blocked_ns.max(before.blocked_ns),
            episodes: now.episodes.max(before.episodes),
            long_ns: now.long_ns.max(before.long_ns),
        };
        let time = Spent {
            run_ns: counted.run_ns - before.run_ns,
            wait_ns: counted.wait_ns - before.wait_ns,
            throttled_ns: 0,
            blocked_ns: counted.blocked_ns - before.blocked_ns,
            episodes: counted.episodes - before.episodes,
            long_ns: counted.long_ns - before.long_ns,
        };
        let used = Used {
            key: TaskIdentity::of(task, process),
            time,
            limit: task.throttled_cgroup,
            cpu: task.cpu,
            has_exited: false,
            blame: Blame::new(),
        };
        (used, counted)
    }

    fn remove(&mut self, tid: u32) -> Option<Task> {
        let task = self.tasks.remove(&tid)?;
        self.processes.leave(task.identity.process);
        Some(task)
    }

    fn drop_unseen(&mut self) {
        let unseen = |(tid, task): (&u32, &Task)| (task.seen != self.readings).then_some(*tid);
        let gone: Vec<u32> = self.tasks.iter().filter_map(unseen).collect();
        self.vanished += gone.len() as u64;
        for tid in gone {
            self.remove(tid);
        }
    }
}

/// Sleep that the kernel took for waiting: by so much `run_delay` and the wait in
/// progress are too large.
#[derive(Clone, Copy, Debug, Default)]
struct StaleWaits {
    /// `stale_ns` and `stale_wakings` when the task was read last.
    read: (u64, u64),
    wait_ns: u64,
}

impl StaleWaits {
    /// Adds those since the last reading: the offset between the clocks moves, so
    /// those from before are not converted again.
    fn up_to(self, task: &TaskReading, clock: &ClockReading) -> Self {
        let (ns, wakings) = (task.blocked.stale_ns, task.blocked.stale_wakings);
        let new = wakings.wrapping_sub(self.read.1);
        let stale_ns = ns
            .wrapping_sub(self.read.0)
            .wrapping_sub(clock.sched_offset_ns.wrapping_mul(new));
        Self {
            read: (ns, wakings),
            // Below zero it is nearly nothing, and the offset a little too large.
            wait_ns: self.wait_ns + u64::try_from(stale_ns as i64).unwrap_or(0),
        }
    }
}

/// All time of a task up to the reading, that in progress included.
fn so_far(task: &TaskReading, clock: &ClockReading, stale: StaleWaits) -> Spent {
    // A sleeping task can have a `last_queued` too: 6.12 leaves one behind when it
    // moves a delayed dequeue to another CPU.
    let is_waiting = task.last_queued_sched != 0 && task.is_runnable && !task.is_running;
    let waiting = if is_waiting {
        clock.now.since_ns(clock.from_sched(task.last_queued_sched))
    } else {
        0
    };
    Spent {
        run_ns: task.run_ns,
        wait_ns: (task.run_delay_ns + waiting).saturating_sub(stale.wait_ns),
        throttled_ns: 0,
        blocked_ns: task.blocked_ns(clock.now),
        episodes: task.blocked.episodes,
        long_ns: task.blocked.long_ns,
    }
}
