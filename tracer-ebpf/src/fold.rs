//! The kernel's own load sample, caught in the act.
//!
//! Every 5 s and a tick each CPU folds its count of runnable and blocked tasks
//! into the load, within its timer tick. The tick is an hrtimer, so when it has
//! just expired `rq->calc_load_update` has moved on, interrupts are off, and the
//! run queue still is what was counted. No user-space snapshot comes as close.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::generated::{
        bpf_get_current_task_btf, bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_ns,
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use tracer_common::{
    fold::{FOLD_DELAYED, FOLD_LISTED_ALL, FOLD_LISTED_CURRENT, FOLD_TASKS, FoldRecord},
    lost,
};

use crate::{
    field::{
        CFS_RQ_RQ, CFS_RQ_THROTTLE_COUNT, Object, RQ_CALC_LOAD_ACTIVE, RQ_CALC_LOAD_UPDATE,
        RQ_CFS_TASKS, RQ_NR_UNINTERRUPTIBLE, TASK_CFS_RQ, TASK_CPU, TASK_DELAYED, TASK_GROUP_NODE,
        TASK_THROTTLED, TASK_TID, field, has, read,
    },
    maps::{FOLD_DUE, FOLD_TIME, FOLDS, count},
};

/// Folds of one sample lie closer together than this, those of two further apart.
const SAME_SAMPLE_NS: u64 = 1_000_000_000;

/// `hrtimer_expire_exit(timer)`: runs after every expired timer, the tick among
/// them; three loads and a comparison unless this CPU just folded.
#[btf_tracepoint(function = "hrtimer_expire_exit")]
pub(crate) fn hrtimer_expire_exit(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: current is a task_struct, and its queue is this CPU's.
    let (current, rq, due): (Object, Object, u64) = unsafe {
        let current: Object = bpf_get_current_task_btf().cast_const().cast();
        let cfs_rq: Object = field(current, &TASK_CFS_RQ);
        let rq: Object = field(cfs_rq, &CFS_RQ_RQ);
        (current, rq, field(rq, &RQ_CALC_LOAD_UPDATE))
    };
    let Some(seen) = FOLD_DUE.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a per-CPU slot, and interrupts are off.
    let before = unsafe { seen.replace(due) };
    if before != due && before != 0 {
        folded(&ctx, current, rq, due);
    }
    0
}

#[inline(always)]
fn folded(ctx: &BtfTracePointContext, current: Object, rq: Object, due: u64) {
    // SAFETY: rq is a struct rq. Its nr_uninterruptible is unsigned, and of 32
    // bits up to 6.16, but below zero where more tasks woke than went to sleep.
    let (active, nr_uninterruptible): (i64, i32) = unsafe {
        (
            field(rq, &RQ_CALC_LOAD_ACTIVE),
            field(rq, &RQ_NR_UNINTERRUPTIBLE),
        )
    };
    // Not `rq->nr_running`, to which another CPU may have added since.
    let counted = active - i64::from(nr_uninterruptible);
    // A CPU that comes out of idleness takes over the date of the next fold and
    // folds nothing (`calc_load_nohz_stop`): what it runs now was not counted.
    // Its `active` is that of when it went idle, with nothing running.
    if counted <= 0 {
        return;
    }
    // SAFETY: the helpers have no preconditions.
    let (now, jiffies, cpu): (u64, u64, u32) = unsafe {
        (
            bpf_ktime_get_ns(),
            bpf_jiffies64(),
            bpf_get_smp_processor_id(),
        )
    };
    note_time(cpu, now);
    let Some(mut record) = FOLDS.reserve(0) else {
        count(lost::FOLD_RING);
        debug!(ctx, "ring of folds is full");
        return;
    };
    // SAFETY: the ring's memory, as large as the record; every field that user
    // space reads is written.
    let r = unsafe { &mut *record.as_mut_ptr() };
    r.time_ns = now;
    r.next_fold_jiffy = due;
    r.jiffies = jiffies;
    r.active = active;
    r.cpu = cpu;
    r.nr_running = counted as u32;
    r.listed = 0;
    r.flags = 0;
    list(r, current, rq);
    if r.flags & FOLD_LISTED_ALL == 0 {
        count(lost::FOLD_LIST);
    }
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// The slot of the first CPU of a sample; each CPU has one of its own behind it.
const FIRST: u32 = 0;

#[inline(always)]
fn note_time(cpu: u32, now: u64) {
    for slot in [FIRST, cpu + 1] {
        if let Some(time) = FOLD_TIME.get_ptr_mut(slot) {
            // SAFETY: a map value; CPUs that fold together write nearly the same.
            unsafe {
                if now.wrapping_sub(*time) > SAME_SAMPLE_NS {
                    *time = now;
                }
            }
        }
    }
}

/// When a CPU folded last (CLOCK_MONOTONIC, ns). CPUs can be a tick apart; one
/// that was idle did not fold, and what it had counted then still stood when
/// the first of the others did.
#[inline(always)]
pub(crate) fn last_fold(cpu: u32) -> u64 {
    let time = |slot| FOLD_TIME.get(slot).copied().unwrap_or(0);
    let (first, own) = (time(FIRST), time(cpu + 1));
    if first.wrapping_sub(own) as i64 > SAME_SAMPLE_NS as i64 {
        first
    } else {
        own
    }
}

/// Walks `rq->cfs_tasks`. Another CPU may change the list during the walk (a wakeup,
/// a migration): the walk is bounded, and a task that is not of this CPU is left out.
#[inline(always)]
fn list(r: &mut FoldRecord, current: Object, rq: Object) {
    // SAFETY: current is a task_struct.
    let running: u32 = unsafe { field(current, &TASK_TID) };
    let head = rq as u64 + u64::from(RQ_CFS_TASKS.load());
    let mut node: u64 = read(head);
    for _ in 0..FOLD_TASKS {
        if node == head || node == 0 {
            set_flag(r, FOLD_LISTED_ALL);
            break;
        }
        // SAFETY: the record outlives the call.
        node = unsafe { list_one(r, node, running) };
    }
    // A real-time task is not on that list, but the one that runs is known.
    if running != 0 && r.flags & FOLD_LISTED_CURRENT == 0 {
        push(r, running);
    }
}

/// Lists the task of a node if it is queued on the record's CPU, and returns the next node.
///
/// A global function: the verifier walks it once by itself (`btf_check_func_arg_match`,
/// kernel/bpf/btf.c, pointers from 5.13), and not in each pass of the loop, which was two
/// thirds of all that it walked at a start of tracer.
///
/// # Safety
///
/// `record` is NULL or valid.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn list_one(record: *mut FoldRecord, node: u64, running: u32) -> u64 {
    // SAFETY: the caller's word; the verifier wants the check for NULL.
    let Some(r) = (unsafe { record.as_mut() }) else {
        return 0;
    };
    let task = node.wrapping_sub(u64::from(TASK_GROUP_NODE.load()));
    let tid: u32 = read(task + u64::from(TASK_TID.load()));
    let cpu: u32 = read(task + u64::from(TASK_CPU.load()));
    if cpu == r.cpu && tid != 0 && !held_back(task) {
        if tid == running {
            set_flag(r, FOLD_LISTED_CURRENT);
        }
        push(r, tid | delayed(task));
    }
    read(node)
}

#[inline(always)]
fn set_flag(r: &mut FoldRecord, flag: u32) {
    r.flags |= flag;
}

#[inline(always)]
fn push(r: &mut FoldRecord, tid: u32) {
    let listed = r.listed as usize;
    if listed < FOLD_TASKS {
        // The mask is what the verifier wants to see.
        r.tids[listed & (FOLD_TASKS - 1)] = tid;
        r.listed += 1;
    }
}

#[inline(always)]
fn delayed(task: u64) -> u32 {
    if has(&TASK_DELAYED) && read::<u8>(task + u64::from(TASK_DELAYED.load())) != 0 {
        FOLD_DELAYED
    } else {
        0
    }
}

/// Up to 6.17 a throttled task stays on the list; from 6.18 it is taken off.
#[inline(always)]
fn held_back(task: u64) -> bool {
    if has(&TASK_THROTTLED) || !has(&CFS_RQ_THROTTLE_COUNT) {
        return false;
    }
    let cfs_rq: u64 = read(task + u64::from(TASK_CFS_RQ.load()));
    read::<i32>(cfs_rq + u64::from(CFS_RQ_THROTTLE_COUNT.load())) != 0
}
