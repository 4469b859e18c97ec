//! The task iterator: run, wait and blocked time of every task that may have
//! changed since the last run, at about a microsecond each and a fraction of
//! that for the others.

use core::{ffi::c_void, mem, ptr};

use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_jiffies64, bpf_ktime_get_ns, bpf_seq_write,
};
use tracer_common::{
    block::NO_STACK,
    lost,
    task::{DELAYED, ON_CPU, ON_RQ, SnapshotClock, THROTTLED, TaskRecord},
};

use crate::{
    block::{self, ROOM_OF_ITERATOR, is_long},
    field::{
        CFS_RQ_RQ, CFS_RQ_THROTTLE_COUNT, CGROUP_NODE, CRED_UID, CSS_CGROUP, CSS_SET_CGROUP,
        GROUP_CGROUP, GROUP_PARENT, GROUP_THROTTLED_TIME, NODE_ID, Object, RQ_CALC_LOAD_UPDATE,
        TASK_BLOCKER, TASK_CFS_RQ, TASK_CGROUPS, TASK_COMM, TASK_CPU, TASK_CRED, TASK_DELAYED,
        TASK_EXEC_START, TASK_FLAGS, TASK_GROUP, TASK_LAST_ARRIVAL, TASK_LAST_QUEUED, TASK_ON_CPU,
        TASK_ON_RQ, TASK_PARENT, TASK_RUN, TASK_RUN_DELAY, TASK_START, TASK_STATE, TASK_TGID,
        TASK_THROTTLED, TASK_TID, field, has,
    },
    maps::{BLOCKED, SNAPSHOT_CLOCK, SNAPSHOT_CONTROL, count},
    sched::counts_as_blocked,
};

/// `struct bpf_iter_meta`, include/linux/bpf.h.
#[repr(C)]
pub(crate) struct IterMeta {
    pub(crate) seq: *mut c_void,
    session_id: u64,
    seq_num: u64,
}

/// `struct bpf_iter__task`, kernel/bpf/task_iter.c.
#[repr(C)]
pub(crate) struct IterTask {
    pub(crate) meta: *mut IterMeta,
    pub(crate) task: *mut c_void,
}

/// Visits one task. The kernel calls it again for the same task when the
/// reader's page was full, so nothing here may count twice but `visited`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn each_task(ctx: *mut IterTask) -> i32 {
    // SAFETY: the kernel passes a valid context; a task is NULL at the end.
    let (task, meta) = unsafe { ((*ctx).task as Object, (*ctx).meta) };
    let (Some(clock), Some(control)) = (SNAPSHOT_CLOCK.get_ptr_mut(0), SNAPSHOT_CONTROL.get(0))
    else {
        return 0;
    };
    if task.is_null() {
        return 0;
    }
    // SAFETY: a map value; one reader at a time runs the iterator.
    let clock = unsafe { &mut *clock };
    if clock.now_ns == 0 {
        begin(clock);
    }
    clock.visited += 1;
    // SAFETY: task is a task_struct.
    let (state, exec_start, arrival, on_rq, on_cpu): (u32, u64, u64, u8, u8) = unsafe {
        (
            field(task, &TASK_STATE),
            field(task, &TASK_EXEC_START),
            field(task, &TASK_LAST_ARRIVAL),
            field(task, &TASK_ON_RQ),
            field(task, &TASK_ON_CPU),
        )
    };
    if on_cpu != 0 && (clock.oldest_running == 0 || exec_start < clock.oldest_running) {
        clock.oldest_running = exec_start;
    }
    let blocked = counts_as_blocked(state);
    if on_rq == 0 && !blocked && arrival < control.arrived_since && exec_start < control.ran_since {
        return 0;
    }
    if blocked && on_cpu == 0 {
        seed(task, clock, exec_start.max(arrival), exec_start);
        look_at(task, clock.now_ns);
    }
    let mut record = TaskRecord::default();
    // SAFETY: task is a task_struct, seq is the iterator's own.
    let written = unsafe {
        fill(task, &raw mut record);
        bpf_seq_write(
            (*meta).seq.cast(),
            ptr::from_mut(&mut record).cast(),
            mem::size_of::<TaskRecord>() as u32,
        )
    };
    if written == 0 {
        clock.emitted += 1;
    }
    0
}

#[inline(always)]
fn begin(clock: &mut SnapshotClock) {
    // SAFETY: the helpers have no preconditions; current is a task_struct.
    unsafe {
        let reader: Object = bpf_get_current_task_btf().cast_const().cast();
        clock.reader_arrival = field(reader, &TASK_LAST_ARRIVAL);
        clock.jiffies = bpf_jiffies64();
        if has(&TASK_CFS_RQ) {
            let cfs_rq: Object = field(reader, &TASK_CFS_RQ);
            let rq: Object = field(cfs_rq, &CFS_RQ_RQ);
            clock.next_fold_jiffy = field(rq, &RQ_CALC_LOAD_UPDATE);
        }
        let now = bpf_ktime_get_ns();
        // The reader was given its CPU a moment ago: that is how the two clocks
        // are held together. What it ran since makes the offset too large, so
        // the least one counts; `sched_offset_ns` comes in as the limit.
        let offset = now.wrapping_sub(clock.reader_arrival);
        if clock.sched_offset_ns == 0 || (offset.wrapping_sub(clock.sched_offset_ns) as i64) < 0 {
            clock.sched_offset_ns = offset;
        }
        clock.now_ns = now;
    }
}

/// Opens the episode of a task that blocked before tracer began, or whose
/// storage was out of reach then. It last ran until `ran_until`.
#[inline(always)]
fn seed(task: Object, clock: &SnapshotClock, ran_until: u64, exec_start: u64) {
    if let Some(blocked) = BLOCKED.get(task)
        && blocked.open_ns != 0
        && blocked.open_exec_start == exec_start
    {
        return;
    }
    let Some(blocked) = BLOCKED.get_or_create(task) else {
        count(lost::STORAGE);
        return;
    };
    blocked.open_exec_start = exec_start;
    // SAFETY: task is a task_struct.
    blocked.open_cpu = unsafe { field(task, &TASK_CPU) };
    blocked.open_ns = ran_until.wrapping_add(clock.sched_offset_ns);
    blocked.waits.stack = NO_STACK;
    if has(&TASK_BLOCKER) {
        // SAFETY: as above. The probe on locks was not there yet.
        blocked.waits.lock = unsafe { field(task, &TASK_BLOCKER) };
    }
}

/// Why it is blocked, if it is for long enough; the holder may be another by now.
#[inline(always)]
fn look_at(task: Object, now: u64) {
    if let Some(blocked) = BLOCKED.get(task)
        && is_long(now.saturating_sub(blocked.open_ns))
    {
        block::examine(task, &mut blocked.waits, ROOM_OF_ITERATOR);
        if blocked.waits.lock != 0 {
            blocked.waits.holder = block::holder(blocked.waits.lock);
        }
    }
}

/// Writes all of a record.
///
/// # Safety
///
/// `task` must come to the verifier as a task_struct, `record` must be writable.
#[inline(always)]
pub(crate) unsafe fn fill(task: Object, record: *mut TaskRecord) {
    // SAFETY: the caller's word; each field is a checked load.
    unsafe {
        let r = &mut *record;
        r.run_ns = field(task, &TASK_RUN);
        r.run_delay_ns = field(task, &TASK_RUN_DELAY);
        r.last_queued = field(task, &TASK_LAST_QUEUED);
        r.last_arrival = field(task, &TASK_LAST_ARRIVAL);
        r.exec_start = field(task, &TASK_EXEC_START);
        r.start_ns = field(task, &TASK_START);
        r.cgroup = cgroup(task);
        (r.throttled_ns, r.throttled_cgroup) = throttled(task);
        r.blocked = match BLOCKED.get(task) {
            Some(blocked) => *blocked,
            None => Default::default(),
        };
        r.tgid = field(task, &TASK_TGID);
        r.tid = field(task, &TASK_TID);
        r.state = field(task, &TASK_STATE);
        r.flags = field(task, &TASK_FLAGS);
        let cred: Object = field(task, &TASK_CRED);
        r.uid = field(cred, &CRED_UID);
        r.cpu = field(task, &TASK_CPU);
        r.queued = queued(task);
        let parent: Object = field(task, &TASK_PARENT);
        r.parent = field(parent, &TASK_TGID);
        r.comm = field(task, &TASK_COMM);
    }
}

#[inline(always)]
unsafe fn queued(task: Object) -> u32 {
    // SAFETY: the caller's word. The flags are read as bytes: `on_cpu` is an
    // int up to 6.18 and a byte after, and all of them are small.
    unsafe {
        let mut queued = 0;
        if field::<u8>(task, &TASK_ON_RQ) != 0 {
            queued |= ON_RQ;
        }
        if field::<u8>(task, &TASK_ON_CPU) != 0 {
            queued |= ON_CPU;
        }
        if has(&TASK_DELAYED) && field::<u8>(task, &TASK_DELAYED) != 0 {
            queued |= DELAYED;
        }
        if has(&TASK_THROTTLED) {
            if field::<u8>(task, &TASK_THROTTLED) != 0 {
                queued |= THROTTLED;
            }
        } else if has(&CFS_RQ_THROTTLE_COUNT) {
            let cfs_rq: Object = field(task, &TASK_CFS_RQ);
            if field::<i32>(cfs_rq, &CFS_RQ_THROTTLE_COUNT) != 0 {
                queued |= THROTTLED;
            }
        }
        queued
    }
}

#[inline(always)]
unsafe fn cgroup(task: Object) -> u64 {
    // SAFETY: the caller's word; a NULL on the way reads as 0.
    unsafe {
        let set: Object = field(task, &TASK_CGROUPS);
        // cgroup v2: css_set.dfl_cgrp. v1: css_set.subsys[cpu_cgrp_id]->cgroup.
        let mut cgroup: Object = field(set, &CSS_SET_CGROUP);
        if has(&CSS_CGROUP) {
            cgroup = field(cgroup, &CSS_CGROUP);
        }
        let node: Object = field(cgroup, &CGROUP_NODE);
        field(node, &NODE_ID)
    }
}

/// The throttled time of the task's group or of the ancestor that was throttled
/// longest, and whose it is. A limit can stand at any level above the task: four
/// are looked at, as many as a container in a pod in a slice has.
#[inline(always)]
unsafe fn throttled(task: Object) -> (u64, u64) {
    if !has(&GROUP_THROTTLED_TIME) {
        return (0, 0);
    }
    // SAFETY: the caller's word; a NULL on the way reads as 0.
    unsafe {
        let mut group: Object = field(task, &TASK_GROUP);
        let mut longest: u64 = field(group, &GROUP_THROTTLED_TIME);
        let mut cgroup: Object = field(group, &GROUP_CGROUP);
        for _ in 0..3 {
            group = field(group, &GROUP_PARENT);
            let time: u64 = field(group, &GROUP_THROTTLED_TIME);
            if time > longest {
                longest = time;
                cgroup = field(group, &GROUP_CGROUP);
            }
        }
        let node: Object = field(cgroup, &CGROUP_NODE);
        (longest, field(node, &NODE_ID))
    }
}
