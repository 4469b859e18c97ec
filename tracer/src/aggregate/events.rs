//! Blocked tasks one by one: as they are woken, and while they hang.

use super::{
    LoadAggregate, Reading,
    tasks::Task,
    why::{Waker, Why},
};
use crate::{
    clock::{MonotonicNs, WallNs},
    decode::block::EpisodeReading,
    snapshot::{self, BlockedEvent, BlockedEventKind},
};

const NS_PER_S: u64 = 1_000_000_000;
/// A task that stays blocked is told of when it passes each of these, in ns; the last
/// is the kernel's own for hung tasks (`CONFIG_DEFAULT_HUNG_TASK_TIMEOUT`).
const STILL_BLOCKED_NS: [u64; 4] = [NS_PER_S, 10 * NS_PER_S, 60 * NS_PER_S, 120 * NS_PER_S];

impl LoadAggregate {
    /// Tasks that were woken since the reading before, in order. `reading` is the one
    /// that was taken in last.
    pub fn woken(&self, reading: &Reading) -> Vec<BlockedEvent> {
        let is_wanted = |episode: &&EpisodeReading| self.is_wanted(episode.pid);
        let mut events: Vec<_> = reading
            .episodes
            .iter()
            .filter(is_wanted)
            .map(|episode| self.woken_event(episode))
            .collect();
        events.sort_by_key(|event| event.time);
        events
    }

    /// Tasks that passed a threshold since the reading before and are still blocked,
    /// the longest first. `before` is when that reading was; `None` for the first.
    pub fn still_blocked(&self, before: Option<MonotonicNs>) -> Vec<BlockedEvent> {
        let passed = |task: &Task| {
            let since = task.blocked_since?;
            let now_ns = self.latest.since_ns(since);
            let before_ns = before.map_or(0, |before| before.since_ns(since));
            let thresholds = STILL_BLOCKED_NS.into_iter().rev();
            let mut passed = thresholds.filter(|ns| before_ns < *ns && *ns <= now_ns);
            self.still_event(task, passed.next()?)
        };
        let tasks = self.tasks.iter();
        let wanted = tasks.filter(|task| self.is_wanted(task.identity.process.pid));
        let mut events: Vec<_> = wanted.filter_map(passed).collect();
        events.sort_by_key(|event| (std::cmp::Reverse(event.length_ns), event.tid));
        events
    }

    fn is_wanted(&self, pid: u32) -> bool {
        self.options.pid.is_none_or(|wanted| wanted == pid)
    }

    fn woken_event(&self, episode: &EpisodeReading) -> BlockedEvent {
        let find = |tid| self.tasks.process_of(tid);
        let waits = &episode.waits;
        let place = self
            .names
            .place(waits, episode.begin, Some(&episode.waker), find);
        let reason = self.names.reason(&Why::At(place));
        BlockedEvent {
            time: self.wall_of(episode.end),
            kind: BlockedEventKind::Woken,
            pid: episode.pid,
            tid: episode.tid,
            comm: episode.comm.clone(),
            began: self.wall_of(episode.begin),
            length_ns: episode.end.since_ns(episode.begin),
            cause: reason.cause.word(),
            detail: reason.detail,
            device: reason.device,
            stack: self.names.frames(waits.stack).to_vec(),
            waker: Some(match self.names.waker(&episode.waker) {
                Waker::Task(_) => snapshot::Waker::Task {
                    pid: episode.waker.pid,
                    tid: episode.waker.tid,
                    comm: episode.waker.comm.clone(),
                },
                Waker::Interrupt(interrupt) => snapshot::Waker::Interrupt {
                    is_soft: interrupt.is_soft,
                    source: interrupt.source,
                },
            }),
            waits_for: Vec::new(),
        }
    }

    fn still_event(&self, task: &Task, threshold_ns: u64) -> Option<BlockedEvent> {
        let since = task.blocked_since?;
        let blocked = self.blocked_task(task)?;
        Some(BlockedEvent {
            time: self.latest_wall,
            kind: BlockedEventKind::Still(threshold_ns),
            pid: blocked.pid,
            tid: blocked.tid,
            comm: blocked.comm,
            began: self.wall_of(since),
            length_ns: blocked.age_ns,
            cause: blocked.cause,
            detail: blocked.detail,
            device: self.reason_of(task).device,
            stack: blocked.stack,
            waker: None,
            waits_for: blocked.waits_for,
        })
    }

    /// A moment at or before the latest reading, by the wall clock of that reading.
    fn wall_of(&self, at: MonotonicNs) -> WallNs {
        let ago = self.latest.since_ns(at);
        let ahead = at.since_ns(self.latest);
        WallNs(self.latest_wall.0.saturating_sub(ago) + ahead)
    }
}
