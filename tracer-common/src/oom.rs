//! Processes that are killed, and how much memory each process has.

use crate::COMM_BYTES;

/// Most frames of the kernel stack of who kills, the innermost.
pub const KILLER_FRAMES: usize = 32;
/// Counters of pages: files, anonymous, swap entries, shared memory
/// (`enum` with `MM_FILEPAGES`, include/linux/mm_types_task.h).
pub const PAGE_KINDS: usize = 4;

/// The kernel's out-of-memory killer marked it: it may use the last reserves
/// (`mark_oom_victim`, mm/oom_kill.c). It was sent a SIGKILL before, unless it was on
/// its way out anyway.
pub const MARKED: u32 = 1;
/// It was sent a SIGKILL by the kernel (`SEND_SIG_PRIV`).
pub const SIGNALLED_BY_KERNEL: u32 = 2;
/// It was sent a SIGKILL by a process.
pub const SIGNALLED_BY_PROCESS: u32 = 3;

/// `MemoryRecord::flags`: it borrows the memory of its parent until it has called
/// execve or is over; the out-of-memory killer passes it over (`in_vfork`,
/// include/linux/sched/mm.h).
pub const IN_VFORK: u32 = 1;
/// `MemoryRecord::flags`: its memory was freed for an earlier kill, or cannot be freed by
/// one; the out-of-memory killer passes it over (`MMF_OOM_SKIP`, set in mm/oom_kill.c).
pub const OOM_SKIP: u32 = 2;

/// What the kernel knows of a process's memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryRecord {
    /// `start_time` of the task (CLOCK_MONOTONIC, ns).
    pub start_ns: u64,
    /// Identity of the cgroup that its memory is charged to; 0 without the controller.
    pub cgroup: u64,
    /// Address of its `mm_struct`: processes that share it have the same.
    pub mm: u64,
    /// Pages by kind, in the order of [`PAGE_KINDS`]; a counter can be below zero by
    /// a few, as each CPU keeps a part of it.
    pub pages: [i64; PAGE_KINDS],
    /// `mm->pgtables_bytes`.
    pub page_table_bytes: u64,
    /// `mm->total_vm`, in pages.
    pub total_pages: u64,
    /// Process id.
    pub tgid: u32,
    /// Thread id of the task that was looked at.
    pub tid: u32,
    /// User id.
    pub uid: u32,
    /// `signal->oom_score_adj`.
    pub score_adj: i32,
    /// [`IN_VFORK`], [`OOM_SKIP`].
    pub flags: u32,
    /// Always 0.
    pub reserved: u32,
    /// Name of the task.
    pub comm: [u8; COMM_BYTES],
}

/// [`OomRequest::constraint`] where nobody has noted the request.
pub const NO_REQUEST: u32 = u32::MAX;

/// What the out-of-memory killer was asked for (`struct oom_control`, include/linux/oom.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomRequest {
    /// Identity of the cgroup at its limit; 0 for the host.
    pub cgroup: u64,
    /// What is out of memory, in pages, swap included (`totalpages`).
    pub total_pages: u64,
    /// Thread id of the task that wanted memory.
    pub tid: u32,
    /// 2^order pages in one piece; -1 for SysRq.
    pub order: i32,
    /// `enum oom_constraint`: 0 none, 1 cpuset, 2 memory policy, 3 cgroup; or
    /// [`NO_REQUEST`].
    pub constraint: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A process that is killed, and by whom.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KillRecord {
    /// When (CLOCK_MONOTONIC, ns).
    pub at_ns: u64,
    /// Who is killed.
    pub victim: MemoryRecord,
    /// What for; only where the out-of-memory killer kills.
    pub request: OomRequest,
    /// Identity of the cgroup that the killer's memory is charged to.
    pub killer_cgroup: u64,
    /// Process id of the task that runs: who wanted memory, or sent the signal.
    pub killer_tgid: u32,
    /// Its thread id.
    pub killer_tid: u32,
    /// Its name.
    pub killer_comm: [u8; COMM_BYTES],
    /// [`MARKED`], [`SIGNALLED_BY_KERNEL`] or [`SIGNALLED_BY_PROCESS`].
    pub kind: u32,
    /// Frames that follow.
    pub depth: u32,
    /// Its kernel stack, innermost first; only where the kernel kills.
    pub frames: [u64; KILLER_FRAMES],
}
