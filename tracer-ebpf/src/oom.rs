//! Processes that are killed, with who did it, and the memory of every process.
//!
//! The out-of-memory killer runs in the task that wanted memory: `current` is the
//! trigger, never the victim.

use core::{mem, ptr};

use aya_ebpf::{
    EbpfContext as _, Global,
    helpers::generated::{
        bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_get_stack, bpf_ktime_get_ns,
        bpf_ringbuf_query, bpf_seq_write,
    },
    macros::{btf_tracepoint, fentry, kprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};
use tracer_common::{
    lost,
    oom::{
        IN_VFORK, KILLER_FRAMES, KillRecord, MARKED, MemoryRecord, NO_REQUEST, OOM_SKIP,
        OomRequest, SIGNALLED_BY_KERNEL, SIGNALLED_BY_PROCESS,
    },
    task::PF_KTHREAD,
};

use crate::{
    field::{
        CGROUP_NODE, CRED_UID, CSS_SET_MEMORY, MEMCG_CGROUP, MM_ANON_PAGES, MM_FILE_PAGES,
        MM_FLAGS, MM_PAGE_TABLES, MM_SHMEM_PAGES, MM_SWAP_ENTRIES, MM_TOTAL, NODE_ID,
        OOM_CONSTRAINT, OOM_MEMCG, OOM_ORDER, OOM_TOTAL, Object, SIGINFO_CODE, SIGNAL_SCORE_ADJ,
        SUBSYSTEM_CGROUP, TASK_CGROUPS, TASK_COMM, TASK_CRED, TASK_FLAGS, TASK_LEADER, TASK_MM,
        TASK_PARENT, TASK_SIGNAL, TASK_START, TASK_TGID, TASK_TID, TASK_VFORK_DONE, field, has,
        read,
    },
    maps::{KILL_RING_BYTES, KILLS, OOM_REQUEST, count},
    task::IterTask,
};

/// include/uapi/asm-generic/signal.h.
const SIGKILL: u64 = 9;
/// `TRACE_SIGNAL_DELIVERED`, include/trace/events/signal.h.
const DELIVERED: u64 = 0;
/// `SEND_SIG_NOINFO` and `SEND_SIG_PRIV` are addresses that point at nothing
/// (include/linux/sched/signal.h).
const SEND_SIG_NOINFO: u64 = 0;
const SEND_SIG_PRIV: u64 = 1;
/// A signal that the kernel sends has a positive code (include/uapi/asm-generic/siginfo.h).
const SI_USER: i32 = 0;
/// `BPF_RB_AVAIL_DATA`, include/uapi/linux/bpf.h: bytes that were not read yet.
const BPF_RB_AVAIL_DATA: u64 = 0;
/// include/linux/mm_types.h (include/linux/sched/coredump.h before 6.18).
const MMF_OOM_SKIP: u32 = 21;
/// SIGKILLs of processes take no more of the ring.
const MOST_SIGNALS: u64 = KILL_RING_BYTES as u64 / 2;

/// `mark_victim(task, uid)`.
#[btf_tracepoint(function = "mark_victim")]
pub(crate) fn mark_victim(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the argument is a task_struct.
    unsafe { report(&ctx, ctx.arg(0), MARKED) };
    0
}

/// `oom_kill_process(oc, message)`, before any victim of it is marked. The kernel kills
/// for one at a time on the whole host (`oom_lock`), so there is one request.
#[fentry(function = "oom_kill_process")]
pub(crate) fn oom_kill_process(ctx: FEntryContext) -> i32 {
    note_request(ctx.arg(0));
    0
}

/// The same where there are no trampolines.
#[kprobe]
pub(crate) fn oom_kill_process_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(control) = ctx.arg(0) {
        note_request(control);
    }
    0
}

#[inline(always)]
fn note_request(control: u64) {
    let Some(request) = OOM_REQUEST.get_ptr_mut(0) else {
        return;
    };
    let at = |offset: &Global<u32>| control + u64::from(offset.load());
    let memcg: u64 = read(at(&OOM_MEMCG));
    // SAFETY: a map value, of which there is one writer at a time.
    unsafe {
        (*request).cgroup = 0;
        if memcg != 0 && has(&MEMCG_CGROUP) {
            let cgroup: u64 = read(memcg + u64::from(MEMCG_CGROUP.load()));
            let node: u64 = read(cgroup + u64::from(CGROUP_NODE.load()));
            (*request).cgroup = read(node + u64::from(NODE_ID.load()));
        }
        (*request).total_pages = read(at(&OOM_TOTAL));
        (*request).order = read(at(&OOM_ORDER));
        (*request).constraint = read(at(&OOM_CONSTRAINT));
        (*request).tid = bpf_get_current_pid_tgid() as u32;
    }
}

/// What a task that marks a victim was asked for, if that was noted.
#[inline(always)]
fn request_of(tid: u32, kind: u32) -> OomRequest {
    match OOM_REQUEST.get(0) {
        Some(request) if kind == MARKED && request.tid == tid => *request,
        _ => OomRequest {
            constraint: NO_REQUEST,
            ..OomRequest::default()
        },
    }
}

/// `signal_generate(sig, info, task, group, result)`.
#[btf_tracepoint(function = "signal_generate")]
pub(crate) fn signal_generate(ctx: BtfTracePointContext) -> i32 {
    let (signal, result): (u64, u64) = (ctx.arg(0), ctx.arg(4));
    if signal as u32 as u64 != SIGKILL || result as u32 as u64 != DELIVERED {
        return 0;
    }
    let info: u64 = ctx.arg(1);
    let kind = match info {
        SEND_SIG_PRIV => SIGNALLED_BY_KERNEL,
        SEND_SIG_NOINFO => SIGNALLED_BY_PROCESS,
        // To the verifier of some kernels it is no pointer, as it may be none.
        _ if read::<i32>(info + u64::from(SIGINFO_CODE.load())) > SI_USER => SIGNALLED_BY_KERNEL,
        _ => SIGNALLED_BY_PROCESS,
    };
    // SAFETY: the argument is a task_struct.
    unsafe { report(&ctx, ctx.arg(2), kind) };
    0
}

/// # Safety
///
/// `victim` must come to the verifier as a task_struct.
#[inline(always)]
unsafe fn report(ctx: &BtfTracePointContext, victim: Object, kind: u32) {
    // SAFETY: the caller's word; current is a task_struct.
    unsafe {
        let current: Object = bpf_get_current_task_btf().cast_const().cast();
        let mm: Object = field(victim, &TASK_MM);
        let killer: u32 = field(current, &TASK_TGID);
        // A kernel thread has no memory; who ends itself is not killed, but who wants
        // memory can be the victim.
        let is_own = killer == field(victim, &TASK_TGID);
        if mm.is_null() || is_own && kind == SIGNALLED_BY_PROCESS {
            return;
        }
        // Any user can send as many SIGKILLs as there is room for.
        if kind == SIGNALLED_BY_PROCESS && unread_kills() > MOST_SIGNALS {
            count(lost::KILL_SIGNALS);
            return;
        }
        let Some(mut room) = KILLS.reserve(0) else {
            count(lost::KILL_RING);
            return;
        };
        let record: *mut KillRecord = room.as_mut_ptr();
        let r = &mut *record;
        r.at_ns = bpf_ktime_get_ns();
        fill(victim, mm, &mut r.victim);
        r.request = request_of(field(current, &TASK_TID), kind);
        r.killer_cgroup = memory_cgroup(current);
        r.killer_tgid = killer;
        r.killer_tid = field(current, &TASK_TID);
        r.killer_comm = field(current, &TASK_COMM);
        r.kind = kind;
        r.depth = 0;
        if kind != SIGNALLED_BY_PROCESS {
            let bytes = size_of::<[u64; KILLER_FRAMES]>() as u32;
            let taken = bpf_get_stack(ctx.as_ptr(), (&raw mut r.frames).cast(), bytes, 0);
            if taken > 0 {
                r.depth = taken as u32 / size_of::<u64>() as u32;
            }
        }
        // This one wakes user space: it is rare, and somebody waits to be told.
        room.submit(0);
    }
}

/// Bytes of the ring of kills that were not read yet.
#[inline(always)]
fn unread_kills() -> u64 {
    // SAFETY: a map; the helper reads its positions only.
    unsafe { bpf_ringbuf_query((&raw const KILLS).cast_mut().cast(), BPF_RB_AVAIL_DATA) }
}

/// Visits one task, and writes the memory of its process, once a process.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn each_memory(ctx: *mut IterTask) -> i32 {
    // SAFETY: the kernel passes a valid context; a task is NULL at the end.
    let (task, meta) = unsafe { ((*ctx).task as Object, (*ctx).meta) };
    if task.is_null() {
        return 0;
    }
    // SAFETY: task is a task_struct, seq is the iterator's own.
    unsafe {
        let mm: Object = field(task, &TASK_MM);
        if mm.is_null() || field::<u32>(task, &TASK_FLAGS) & PF_KTHREAD != 0 {
            return 0;
        }
        let (tgid, tid): (u32, u32) = (field(task, &TASK_TGID), field(task, &TASK_TID));
        if tgid != tid {
            // A first thread that has ended has no memory, and the process still has.
            let leader: Object = field(task, &TASK_LEADER);
            if !field::<Object>(leader, &TASK_MM).is_null() {
                return 0;
            }
        }
        let mut record = MemoryRecord::default();
        fill(task, mm, &mut record);
        bpf_seq_write(
            (*meta).seq.cast(),
            ptr::from_mut(&mut record).cast(),
            mem::size_of::<MemoryRecord>() as u32,
        );
    }
    0
}

/// Writes all of a record.
///
/// # Safety
///
/// `task` and `mm` must come to the verifier as a task_struct and an mm_struct.
#[inline(always)]
unsafe fn fill(task: Object, mm: Object, r: &mut MemoryRecord) {
    // SAFETY: the caller's word; a NULL on the way reads as 0.
    unsafe {
        r.start_ns = field(task, &TASK_START);
        r.cgroup = memory_cgroup(task);
        r.mm = mm as u64;
        // The verifier of 6.1 does not find its way into an array of counters.
        let pages = |kind: &Global<u32>| read(mm as u64 + u64::from(kind.load()));
        r.pages = [
            pages(&MM_FILE_PAGES),
            pages(&MM_ANON_PAGES),
            pages(&MM_SWAP_ENTRIES),
            pages(&MM_SHMEM_PAGES),
        ];
        r.page_table_bytes = field(mm, &MM_PAGE_TABLES);
        r.total_pages = field(mm, &MM_TOTAL);
        r.tgid = field(task, &TASK_TGID);
        r.tid = field(task, &TASK_TID);
        let cred: Object = field(task, &TASK_CRED);
        r.uid = field(cred, &CRED_UID);
        let signal: Object = field(task, &TASK_SIGNAL);
        r.score_adj = field::<i16>(signal, &SIGNAL_SCORE_ADJ).into();
        r.flags = 0;
        if !field::<Object>(task, &TASK_VFORK_DONE).is_null() {
            let parent: Object = field(task, &TASK_PARENT);
            if field::<u64>(parent, &TASK_MM) == r.mm {
                r.flags = IN_VFORK;
            }
        }
        if has(&MM_FLAGS) {
            let flags: u64 = pages(&MM_FLAGS).cast_unsigned();
            // No branch: see `read`.
            r.flags |= (flags >> MMF_OOM_SKIP & 1) as u32 * OOM_SKIP;
        }
        r.reserved = 0;
        r.comm = field(task, &TASK_COMM);
    }
}

/// The cgroup that a task's memory is charged to.
#[inline(always)]
unsafe fn memory_cgroup(task: Object) -> u64 {
    if !has(&CSS_SET_MEMORY) {
        return 0;
    }
    // SAFETY: the caller's word; a NULL on the way reads as 0.
    unsafe {
        let set: Object = field(task, &TASK_CGROUPS);
        let state: Object = field(set, &CSS_SET_MEMORY);
        let cgroup: Object = field(state, &SUBSYSTEM_CGROUP);
        let node: Object = field(cgroup, &CGROUP_NODE);
        field(node, &NODE_ID)
    }
}
