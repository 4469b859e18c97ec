//! Tasks, as the iterator and a dying task report them.

use bytes::Bytes;
use tracer_common::{
    COMM_BYTES,
    sched::{BlockedTotals, TASK_DEAD, TASK_FROZEN, TASK_NOLOAD, TASK_UNINTERRUPTIBLE},
    task::{DELAYED, ExitTotals, ON_CPU, ON_RQ, PF_KTHREAD, THROTTLED, TaskRecord},
};

use super::{
    Decoded,
    block::waits,
    bytes::{u32, u64},
    records,
};
use crate::{clock::MonotonicNs, text::Text};

/// One task at one moment. Times ending in `_sched` are of the scheduler's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskReading {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Process id of its parent.
    pub parent: u32,
    /// Fork time; with the tid it names the task for good.
    pub start: MonotonicNs,
    /// Name.
    pub comm: Text,
    /// Identity of its cgroup.
    pub cgroup: u64,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// The CPU it is on, or was on last.
    pub cpu: u32,
    /// Time on a CPU so far.
    pub run_ns: u64,
    /// Time runnable and not running so far, ended waits only.
    pub run_delay_ns: u64,
    /// Since when it waits; 0 when it does not.
    pub last_queued_sched: u64,
    /// When it last got a CPU.
    pub last_arrival_sched: u64,
    /// Time its cgroup, or one above, was throttled so far, over all CPUs.
    pub throttled_ns: u64,
    /// Identity of the cgroup whose throttled time that is.
    pub throttled_cgroup: u64,
    /// Its blocked episodes.
    pub blocked: BlockedTotals,
    /// Whether the open episode is real: the task is blocked, and has not run since.
    pub is_blocked: bool,
    /// Runnable: running, waiting or throttled; not a delayed dequeue.
    pub is_runnable: bool,
    /// On a CPU.
    pub is_running: bool,
    /// Asleep, yet still queued.
    pub is_delayed: bool,
    /// Held by a bandwidth limit.
    pub is_throttled: bool,
    /// Past its last context switch.
    pub is_dead: bool,
    /// A kernel thread.
    pub is_kernel: bool,
}

impl TaskReading {
    /// Blocked time so far, that of the open episode up to `now` included, in ns.
    pub fn blocked_ns(&self, now: MonotonicNs) -> u64 {
        let open = if self.is_blocked {
            now.since_ns(MonotonicNs(self.blocked.open_ns))
        } else {
            0
        };
        self.blocked.total_ns + open
    }

    /// Whether the kernel counted it as blocked at a past fold, as far as its
    /// last episodes tell; `at` is when a CPU folded, which can differ by a tick.
    ///
    /// A task is added on the CPU it goes to sleep on, and taken away on the one
    /// it is woken for (`ttwu_do_activate`, kernel/sched/core.c).
    pub fn was_blocked_at(&self, at: impl Fn(u32) -> MonotonicNs) -> bool {
        let b = &self.blocked;
        if self.is_blocked && b.open_ns <= at(b.open_cpu).0 {
            return true;
        }
        let is_last = b.last_begin_ns <= at(b.last_cpu).0 && at(self.cpu).0 < b.last_end_ns;
        // For an episode before the last the kernel side marked the fold itself.
        let is_earlier = b.at_fold_ns != 0
            && b.at_fold_ns < b.last_begin_ns
            && b.at_fold_ns.abs_diff(at(self.cpu).0) < FOLD_TOLERANCE_NS;
        is_last || is_earlier
    }
}

/// Two CPUs fold within this of each other; samples are 5 s apart.
const FOLD_TOLERANCE_NS: u64 = 500_000_000;

/// Decodes a run of `TaskRecord`s.
pub fn decode(bytes: &Bytes) -> Decoded<TaskReading> {
    records(bytes, size_of::<TaskRecord>(), |record| task(record).ok())
}

/// Totals of exited tasks out of the words of an `ExitTotals`.
pub fn exit_totals(words: [u64; 5]) -> ExitTotals {
    let [exits, run_ns, run_delay_ns, blocked_ns, episodes] = words;
    ExitTotals {
        exits,
        run_ns,
        run_delay_ns,
        blocked_ns,
        episodes,
    }
}

fn task(mut b: Bytes) -> Result<TaskReading, bytes::TryGetError> {
    let b = &mut b;
    let (run_ns, run_delay_ns, last_queued_sched, last_arrival_sched) =
        (u64(b)?, u64(b)?, u64(b)?, u64(b)?);
    let (exec_start, start_ns, cgroup, throttled_ns) = (u64(b)?, u64(b)?, u64(b)?, u64(b)?);
    let blocked = BlockedTotals {
        open_ns: u64(b)?,
        open_exec_start: u64(b)?,
        total_ns: u64(b)?,
        episodes: u64(b)?,
        last_begin_ns: u64(b)?,
        last_end_ns: u64(b)?,
        open_cpu: u32(b)?,
        last_cpu: u32(b)?,
        at_fold_ns: u64(b)?,
        longest_ns: u64(b)?,
        longest_begin_ns: u64(b)?,
        stale_ns: u64(b)?,
        stale_wakings: u64(b)?,
        long_ns: u64(b)?,
        waits: waits(b)?,
    };
    let (pid, tid, state, flags) = (u32(b)?, u32(b)?, u32(b)?, u32(b)?);
    let (uid, cpu, queued, parent) = (u32(b)?, u32(b)?, u32(b)?, u32(b)?);
    let throttled_cgroup = u64(b)?;
    let comm = Text::from_bytes(b.get(..COMM_BYTES).unwrap_or_default());
    let counts = state & TASK_UNINTERRUPTIBLE != 0 && state & (TASK_NOLOAD | TASK_FROZEN) == 0;
    let is_delayed = queued & DELAYED != 0;
    Ok(TaskReading {
        pid,
        tid,
        parent,
        start: MonotonicNs(start_ns),
        comm,
        cgroup,
        uid,
        cpu,
        run_ns,
        run_delay_ns,
        last_queued_sched,
        last_arrival_sched,
        throttled_ns,
        throttled_cgroup,
        is_blocked: counts && blocked.open_ns != 0 && blocked.open_exec_start == exec_start,
        blocked,
        is_runnable: queued & ON_RQ != 0 && !is_delayed,
        is_running: queued & ON_CPU != 0,
        is_delayed,
        is_throttled: queued & THROTTLED != 0 && queued & ON_RQ != 0,
        is_dead: state & TASK_DEAD != 0,
        is_kernel: flags & PF_KTHREAD != 0,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{any, prop, proptest};
    use tracer_common::task::TaskRecord;

    use super::decode;

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_counted(bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
            let length = bytes.len();
            let decoded = decode(&Bytes::from(bytes));
            let used = decoded.readings.len() * size_of::<TaskRecord>();
            assert_eq!(used + decoded.undecodable, length);
        }
    }
}
