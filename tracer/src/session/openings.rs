//! Names the functions in which suspected processes open connections, in a thread of
//! its own, which hands them to processes of their own (`host/user_stacks`).
//!
//! Whoever opens connections decides how much there is to read. So each process gets a
//! small share of a CPU for its stacks, all of them together another one, and the process
//! that has taken least comes first.

use std::{
    collections::HashMap,
    sync::mpsc::{
        Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel,
    },
    thread,
    time::Duration,
};

use crate::{
    aggregate::tcp::{OpeningReading, StackLosses},
    clock::{self, MonotonicNs},
    decode::opening::{Program, RawOpening},
    host::user_stacks::{self, Client, Launcher, Named},
};

/// Readings that may wait for the thread.
const WAITING: usize = 4;
/// Openings that wait there, and of one process.
const QUEUED: usize = 128;
const QUEUED_OF_ONE: usize = 16;
/// After a stack the next one of its process waits so many times as long as it took CPU
/// time: a fiftieth of a CPU at most.
const TIMES_ITS_LENGTH: u64 = 49;
/// All together take this part of a CPU: one of so many,
const SHARE: u64 = 64;
/// but may take so much at once, in ns of CPU time.
const BURST_NS: u64 = 100_000_000;
/// Processes whose cost is remembered.
const REMEMBERED: usize = 1024;
/// The processes that read are ended when nothing came for so long.
const IDLE: Duration = Duration::from_secs(30);

/// The thread, once there is work for it.
pub(super) struct Openings {
    /// Starts the processes that read, until the thread has it.
    launcher: Option<Launcher>,
    worker: Option<Worker>,
    /// Stacks that have no names, or not all, since the start.
    pub(super) lost: StackLosses,
}

struct Worker {
    to: SyncSender<Vec<RawOpening>>,
    from: Receiver<Outcome>,
}

/// What came of one opening.
enum Outcome {
    /// It has names; whether something was not read.
    Named(OpeningReading, bool),
    /// Its process has gone, or others were before it.
    Unnamed,
    GivenUp,
}

impl Openings {
    pub(super) fn new(launcher: Option<Launcher>) -> Self {
        Self {
            launcher,
            worker: None,
            lost: StackLosses::default(),
        }
    }

    /// Takes new openings, and gives those that have got their names since.
    pub(super) fn name(&mut self, openings: Vec<RawOpening>) -> Vec<OpeningReading> {
        if !openings.is_empty() {
            let count = openings.len() as u64;
            let worker = match &mut self.worker {
                Some(worker) => worker,
                worker => worker.insert(Worker::start(self.launcher.take())),
            };
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                worker.to.try_send(openings)
            {
                self.lost.unnamed += count;
            }
        }
        let mut named = Vec::new();
        let lost = &mut self.lost;
        for outcome in self.worker.iter().flat_map(|worker| worker.from.try_iter()) {
            match outcome {
                Outcome::Named(reading, is_partial) => {
                    lost.partial += u64::from(is_partial);
                    match reading.stack.is_empty() {
                        true => lost.unnamed += 1,
                        false => named.push(reading),
                    }
                }
                Outcome::Unnamed => lost.unnamed += 1,
                Outcome::GivenUp => lost.given_up += 1,
            }
        }
        named
    }
}

impl Worker {
    fn start(launcher: Option<Launcher>) -> Self {
        let (to, openings) = sync_channel(WAITING);
        let (outcomes, from) = channel();
        // It ends when either end of its channels has gone.
        thread::spawn(move || work(launcher, &openings, &outcomes));
        Self { to, from }
    }
}

fn work(
    launcher: Option<Launcher>,
    openings: &Receiver<Vec<RawOpening>>,
    outcomes: &Sender<Outcome>,
) -> Option<()> {
    let mut client = Client::new(launcher);
    let mut queue = Queue::default();
    loop {
        let due = queue.next_due();
        let wait = due.map_or(IDLE, |due| {
            Duration::from_nanos(due.since_ns(clock::monotonic()))
        });
        match openings.recv_timeout(wait) {
            Ok(new) => {
                for _ in 0..queue.add(new) {
                    outcomes.send(Outcome::Unnamed).ok()?;
                }
            }
            Err(RecvTimeoutError::Timeout) if due.is_none() => client.rest(),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        let Some(raw) = queue.next(clock::monotonic()) else {
            continue;
        };
        let before = user_stacks::cpu_ns();
        let program = raw.opening.program;
        let outcome = match client.name(program, &raw.stack) {
            Named::Functions(stack, is_partial) => {
                let opening = raw.opening;
                Outcome::Named(OpeningReading { opening, stack }, is_partial)
            }
            Named::Gone => Outcome::Unnamed,
            Named::GivenUp => Outcome::GivenUp,
        };
        outcomes.send(outcome).ok()?;
        let took = user_stacks::cpu_ns().saturating_sub(before);
        queue.charge(program, took, clock::monotonic());
    }
}

/// Openings that wait, and what each process has cost.
#[derive(Default)]
struct Queue {
    waiting: Vec<RawOpening>,
    costs: HashMap<Program, Cost>,
    /// When all that was taken is made up for, a burst left out.
    paid_at: MonotonicNs,
}

/// What the stacks of a process have cost.
#[derive(Clone, Copy, Default)]
struct Cost {
    took_ns: u64,
    /// When it may have another one.
    next_at: MonotonicNs,
}

impl Queue {
    /// Adds as many as there is room for; how many there was none for.
    fn add(&mut self, new: Vec<RawOpening>) -> usize {
        let mut dropped = 0;
        for raw in new {
            let program = raw.opening.program;
            let its = self.waiting.iter();
            let its = its.filter(|raw| raw.opening.program == program);
            if its.count() < QUEUED_OF_ONE && self.waiting.len() < QUEUED {
                self.waiting.push(raw);
            } else {
                dropped += 1;
            }
        }
        dropped
    }

    fn cost(&self, raw: &RawOpening) -> Cost {
        let known = self.costs.get(&raw.opening.program);
        known.copied().unwrap_or_default()
    }

    /// When the next one may be named, if one waits.
    fn next_due(&self) -> Option<MonotonicNs> {
        let dues = self.waiting.iter().map(|raw| self.cost(raw).next_at);
        let all_together = self.paid_at - BURST_NS * SHARE;
        Some(dues.min()?.max(all_together))
    }

    /// The first of the process that has cost least, of those that may be named now.
    fn next(&mut self, now: MonotonicNs) -> Option<RawOpening> {
        if self.next_due()? > now {
            return None;
        }
        let costs = self.waiting.iter().map(|raw| self.cost(raw));
        let due = costs.enumerate().filter(|(_, cost)| cost.next_at <= now);
        let (at, _) = due.min_by_key(|(_, cost)| cost.took_ns)?;
        Some(self.waiting.remove(at))
    }

    fn charge(&mut self, program: Program, took_ns: u64, now: MonotonicNs) {
        if self.costs.len() >= REMEMBERED {
            self.costs.retain(|_, cost| cost.next_at > now);
        }
        if self.costs.len() >= REMEMBERED {
            self.costs.clear();
        }
        let cost = self.costs.entry(program).or_default();
        cost.took_ns += took_ns;
        cost.next_at = now + took_ns.saturating_mul(TIMES_ITS_LENGTH);
        self.paid_at = self.paid_at.max(now) + took_ns.saturating_mul(SHARE);
    }
}

#[cfg(test)]
mod tests {
    use super::{BURST_NS, QUEUED, QUEUED_OF_ONE, Queue, SHARE};
    use crate::{
        clock::MonotonicNs,
        decode::opening::{Opening, Program, RawOpening},
    };

    const MS: u64 = 1_000_000;

    fn program(pid: u32) -> Program {
        Program {
            pid,
            ..Program::default()
        }
    }

    fn of(pid: u32, count: usize) -> Vec<RawOpening> {
        let opening = Opening {
            program: program(pid),
            ..Opening::default()
        };
        let raw = RawOpening {
            opening,
            ..RawOpening::default()
        };
        vec![raw; count]
    }

    #[test]
    fn the_process_that_has_cost_least_comes_first() {
        let mut queue = Queue::default();
        assert_eq!(queue.add(of(1, 3)), 0);
        assert_eq!(queue.add(of(2, 1)), 0);
        let mut order = Vec::new();
        let mut now = MonotonicNs(10_000 * MS);
        while let Some(raw) = queue.next(now) {
            queue.charge(raw.opening.program, MS, now);
            order.push(raw.opening.program.pid);
            now = now + 50 * MS;
        }
        assert_eq!(order, [1, 2, 1, 1]);
    }

    #[test]
    fn one_that_costs_much_waits_and_others_do_not() {
        let mut queue = Queue::default();
        let now = MonotonicNs(10_000 * MS);
        queue.add(of(1, 2));
        assert!(queue.next(now).is_some());
        queue.charge(program(1), 100 * MS, now);
        assert!(queue.next(now).is_none());
        queue.add(of(2, 1));
        assert_eq!(queue.next(now).expect("another").opening.program.pid, 2);
        let due = now + 4900 * MS;
        assert_eq!(queue.next_due(), Some(due));
        assert!(queue.next(due).is_some());
    }

    #[test]
    fn all_together_take_a_share_of_a_cpu() {
        let mut queue = Queue::default();
        let mut now = MonotonicNs(100_000 * MS);
        let (began, mut took) = (now, 0);
        for pid in 0..50 {
            queue.add(of(pid, 1));
            now = now.max(queue.next_due().expect("one waits"));
            assert!(queue.next(now).is_some());
            queue.charge(program(pid), 100 * MS, now);
            took += 100 * MS;
        }
        let passed = now.since_ns(began);
        assert!(
            took <= passed / SHARE + BURST_NS + 100 * MS,
            "{took} in {passed}"
        );
        assert!(took >= passed / SHARE, "{took} in {passed}");
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let mut queue = Queue::default();
        assert_eq!(queue.add(of(1, QUEUED_OF_ONE + 5)), 5);
        let dropped: usize = (2..100).map(|pid| queue.add(of(pid, 4))).sum();
        assert_eq!(queue.waiting.len(), QUEUED);
        assert_eq!(dropped, 98 * 4 - (QUEUED - QUEUED_OF_ONE));
    }
}
