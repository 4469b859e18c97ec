//! Blocked episodes, and the last words of a dying task.
//!
//! The hot path is one load and one test a context switch: only tasks that
//! leave in an uninterruptible state or for the last time go further. Run and
//! wait times are the kernel's own and are read by the iterator.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use tracer_common::{
    block::NO_STACK,
    lost,
    sched::{BlockedTotals, TASK_DEAD, TASK_FROZEN, TASK_NOLOAD, TASK_UNINTERRUPTIBLE},
    task::{ExitTotals, TaskRecord},
};

use crate::{
    block::{self, is_long},
    field::{
        Object, TASK_CPU, TASK_DELAYED, TASK_EXEC_START, TASK_LAST_ARRIVAL, TASK_LAST_QUEUED,
        TASK_ON_CPU, TASK_ON_RQ, TASK_STATE, field, has,
    },
    fold::last_fold,
    maps::{BLOCKED, EXIT_TABLE, EXITS, SNAPSHOT_CLOCK, SNAPSHOT_CONTROL, count},
    task::fill,
};

/// Whether the kernel counts a task in this state into the load
/// (`sched_contributes_to_load`, kernel/sched/core.c).
#[inline(always)]
pub(crate) fn counts_as_blocked(state: u32) -> bool {
    state & TASK_UNINTERRUPTIBLE != 0 && state & (TASK_NOLOAD | TASK_FROZEN) == 0
}

/// `sched_switch(preempt, prev, next, ..)`: opens an episode.
///
/// The state is read from the task, not the argument: below 5.18 there is no
/// argument, and a signal can turn a killable sleep back within `__schedule`.
#[btf_tracepoint(function = "sched_switch")]
pub(crate) fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let prev: Object = ctx.arg(1);
    // SAFETY: the argument is a task_struct.
    let state: u32 = unsafe { field(prev, &TASK_STATE) };
    if state & (TASK_UNINTERRUPTIBLE | TASK_DEAD) != 0 {
        // A preempted task is runnable, whatever its state is set to be.
        let preempted = ctx.arg::<u64>(0) & 0xff != 0;
        if !preempted {
            if counts_as_blocked(state) {
                open_episode(&ctx, prev);
            } else if state & TASK_DEAD != 0 {
                report_exit(prev);
            }
        }
    }
    0
}

/// `sched_waking(task)`: ends an episode. The state still says blocked here; at
/// `sched_wakeup` it no longer does, and a stale wait is no longer told from a new one.
#[btf_tracepoint(function = "sched_waking")]
pub(crate) fn sched_waking(ctx: BtfTracePointContext) -> i32 {
    let task: Object = ctx.arg(0);
    // SAFETY: the argument is a task_struct.
    let state: u32 = unsafe { field(task, &TASK_STATE) };
    if counts_as_blocked(state) {
        wake_blocked(&ctx, task);
    }
    // Costs some 10 to 20 ns: a line of the task that `enqueue_task` reads next.
    if has(&TASK_DELAYED) {
        note_stale_wait(task);
    }
    0
}

#[inline(never)]
fn wake_blocked(ctx: &BtfTracePointContext, task: Object) {
    // SAFETY: the caller's task is a task_struct.
    let exec_start = unsafe { field(task, &TASK_EXEC_START) };
    let open = match BLOCKED.get(task) {
        // A waking can overtake the switch it belongs to, and leave an episode open
        // that never was. Had the task run since, exec_start would have moved.
        Some(blocked) if blocked.open_ns != 0 && blocked.open_exec_start == exec_start => {
            Some(blocked)
        }
        _ => open_unseen(task, exec_start),
    };
    if let Some(blocked) = open {
        end_episode(ctx, task, blocked);
    }
}

/// From 6.12 a task that sleeps can stay on its queue, and be moved to that of
/// another CPU. `enqueue_task` then takes it for one that begins to wait, and sets
/// `last_queued`; nobody clears it when the task leaves the queue at last. So after
/// its waking the kernel counts the sleep as `run_delay`.
#[inline(always)]
fn note_stale_wait(task: Object) {
    // SAFETY: the caller's task is a task_struct.
    let queued: u64 = unsafe { field(task, &TASK_LAST_QUEUED) };
    if queued == 0 {
        return;
    }
    // SAFETY: as above.
    let (on_rq, is_delayed): (u8, u8) =
        unsafe { (field(task, &TASK_ON_RQ), field(task, &TASK_DELAYED)) };
    if on_rq != 0 && is_delayed == 0 {
        // Preempted on its way to sleep: it really waits.
        return;
    }
    if let Some(totals) = BLOCKED.get_or_create(task) {
        // SAFETY: no preconditions.
        let now = unsafe { bpf_ktime_get_ns() };
        totals.stale_ns = totals.stale_ns.wrapping_add(now.wrapping_sub(queued));
        totals.stale_wakings += 1;
    } else {
        count(lost::STORAGE);
    }
}

/// Out of line, as [`report_exit`] and [`wake_blocked`] are: the hot path is a few bytes then,
/// with its end in the same line of the cache.
#[inline(never)]
fn open_episode(ctx: &BtfTracePointContext, task: Object) {
    let Some(blocked) = BLOCKED.get_or_create(task) else {
        count(lost::STORAGE);
        debug!(ctx, "no task storage: the iterator will find the episode");
        return;
    };
    // SAFETY: the caller's task is a task_struct; the helper has no preconditions.
    unsafe {
        blocked.open_exec_start = field(task, &TASK_EXEC_START);
        blocked.open_cpu = bpf_get_smp_processor_id();
    }
    // SAFETY: no preconditions.
    blocked.open_ns = unsafe { bpf_ktime_get_ns() };
    // What the one before waited for does not hold any more.
    blocked.waits.stack = NO_STACK;
}

/// The switch was not seen: its slot was out of reach (its lock was held, 6.1), or no
/// program ran, as on a host that runs none while a thread of process 1 is current. Mostly
/// there was none: the waking came before the task's switch, so that it never slept. One
/// that did sleep is neither queued nor on a CPU, and last ran when it went to sleep: its
/// episode is opened as of then.
#[inline(always)]
fn open_unseen<'a>(task: Object, exec_start: u64) -> Option<&'a mut BlockedTotals> {
    // SAFETY: the caller's task is a task_struct.
    let (on_rq, on_cpu): (u8, u8) =
        unsafe { (field(task, &TASK_ON_RQ), field(task, &TASK_ON_CPU)) };
    if on_rq != 0 || on_cpu != 0 {
        if let Some(blocked) = BLOCKED.get(task) {
            blocked.open_ns = 0;
        }
        return None;
    }
    // 0 until the first snapshot has related the two clocks.
    let offset_ns = SNAPSHOT_CLOCK
        .get(0)
        .map_or(0, |clock| clock.sched_offset_ns);
    let (true, Some(blocked)) = (offset_ns != 0, BLOCKED.get_or_create(task)) else {
        count(lost::WAKING);
        return None;
    };
    // SAFETY: as above.
    let (arrival, cpu): (u64, u32) =
        unsafe { (field(task, &TASK_LAST_ARRIVAL), field(task, &TASK_CPU)) };
    blocked.open_ns = exec_start.max(arrival).wrapping_add(offset_ns);
    blocked.open_exec_start = exec_start;
    blocked.open_cpu = cpu;
    blocked.waits.stack = NO_STACK;
    Some(blocked)
}

#[inline(always)]
fn end_episode(ctx: &BtfTracePointContext, task: Object, blocked: &mut BlockedTotals) {
    let begin = blocked.open_ns;
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let length = now.saturating_sub(begin);
    blocked.total_ns += length;
    blocked.episodes += 1;
    blocked.last_begin_ns = begin;
    blocked.last_end_ns = now;
    blocked.last_cpu = blocked.open_cpu;
    let fold = last_fold(blocked.open_cpu);
    if begin <= fold {
        blocked.at_fold_ns = fold;
    }
    if length > blocked.longest_ns {
        blocked.longest_ns = length;
        blocked.longest_begin_ns = begin;
    }
    if is_long(length) {
        blocked.long_ns += length;
        block::end(ctx, task, &mut blocked.waits, begin, now);
    }
    blocked.open_ns = 0;
}

/// The last context switch is where a task's totals are final. At
/// `sched_process_exit` most of the exit is still to come: the address space
/// (from 6.16), the files, the waiting for both.
#[inline(never)]
fn report_exit(task: Object) {
    count(lost::EXITS_SEEN);
    if let Some(mut record) = EXITS.reserve(0) {
        // SAFETY: the caller's task is a task_struct; the record is this program's own.
        unsafe { fill(task, record.as_mut_ptr()) };
        // User space reads the ring at every tick; waking it would cost more.
        record.submit(u64::from(BPF_RB_NO_WAKEUP));
        return;
    }
    count(lost::EXIT_RING);
    // Zeroes would be written by a call, and a caller's frames have 512 bytes together.
    let mut record = MaybeUninit::<TaskRecord>::uninit();
    // SAFETY: as above; every field is filled in.
    keep_totals(unsafe {
        fill(task, record.as_mut_ptr());
        record.assume_init_ref()
    });
}

/// The ring was full. A task that no snapshot has seen can be kept by name; of
/// one that a snapshot has, only the time since then is wanted, which is gone.
#[inline(always)]
fn keep_totals(record: &TaskRecord) {
    let began_since = SNAPSHOT_CONTROL
        .get(0)
        .is_some_and(|control| record.start_ns > control.previous_ns);
    if !began_since {
        count(lost::EXIT_TABLE);
        return;
    }
    if let Some(totals) = EXIT_TABLE.get_ptr_mut(&record.comm) {
        // SAFETY: a per-CPU value of a hash that nothing deletes from.
        let totals = unsafe { &mut *totals };
        totals.exits += 1;
        totals.run_ns += record.run_ns;
        totals.run_delay_ns += record.run_delay_ns;
        totals.blocked_ns += record.blocked.total_ns;
        totals.episodes += record.blocked.episodes;
        return;
    }
    let first = ExitTotals {
        exits: 1,
        run_ns: record.run_ns,
        run_delay_ns: record.run_delay_ns,
        blocked_ns: record.blocked.total_ns,
        episodes: record.blocked.episodes,
    };
    if EXIT_TABLE.insert(&record.comm, &first, 0).is_err() {
        count(lost::EXIT_TABLE);
    }
}
