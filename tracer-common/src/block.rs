//! Why a task is blocked: its kernel stack, the device and the file system it is
//! at, the lock it wants, and who woke it.

use crate::COMM_BYTES;

/// Most frames of a kernel stack that are kept, the innermost.
pub const STACK_FRAMES: usize = 32;
/// Buckets of the lengths of episodes: bucket `n` has those from 2^n us on, the
/// first those below 2 us too, the last all longer ones.
pub const LENGTH_BUCKETS: usize = 32;
/// Most frames of a waking that are kept, the innermost.
pub const WAKER_FRAMES: usize = 16;
/// Most different kernel stacks that are kept.
pub const STACKS: u32 = 2048;
/// The key of what has no stack: it could not be taken, or the table is full.
pub const NO_STACK: u64 = 0;

/// The bits of a stack's key that say which lock its tasks wait for: the same stack
/// with another lock has another key.
pub const STACK_LOCK: u64 = 7;
/// None, or none that the kernel told of.
pub const STACK_NO_LOCK: u64 = 0;
/// Any lock but the following.
pub const STACK_ANY_LOCK: u64 = 1;
/// `mm_struct.mmap_lock` of the task itself.
pub const STACK_MMAP_LOCK: u64 = 2;
/// `inode.i_rwsem`; [`WaitsFor::file_system`] is the inode's.
pub const STACK_INODE_LOCK: u64 = 3;
/// `super_block.s_writers.rw_sem`, which a frozen file system holds;
/// [`WaitsFor::file_system`] is that one.
pub const STACK_FREEZE_LOCK: u64 = 4;

/// A kernel stack, and the lengths of the episodes that ended in it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StackEntry {
    /// Return addresses, innermost first; 0 from the end on.
    pub frames: [u64; STACK_FRAMES],
    /// Episodes by length.
    pub lengths: [u64; LENGTH_BUCKETS],
}

/// What a blocked task waits for, as far as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitsFor {
    /// Key of its kernel stack; [`NO_STACK`] while none was taken.
    pub stack: u64,
    /// Address of the lock it wanted last; its lowest bits are [`LOCK_MUTEX`] and so on.
    pub lock: u64,
    /// When it last submitted a bio (CLOCK_MONOTONIC, ns); 0 for never.
    pub bio_ns: u64,
    /// Block device of that bio (`dev_t`, `MKDEV` of include/linux/kdev_t.h).
    pub bio_device: u32,
    /// Operation and flags of that bio (`bi_opf`).
    pub bio_operation: u32,
    /// Number of its system call; [`NO_SYSCALL`] for none, such as a page fault.
    pub syscall: u32,
    /// `s_dev` of the file system that the lock belongs to, if the stack's key says so;
    /// else of the file that the system call's first argument describes, if that is a
    /// file descriptor at all; 0 for none.
    pub file_system: u32,
    /// The block device that this file is (`i_rdev`); 0 when it is none.
    pub file_device: u32,
    /// Thread id of the lock's owner; 0 when it has none that is known.
    pub holder: u32,
    /// Thread id of its youngest child; 0 when it has none.
    pub child: u32,
    /// How often it had slept when it began to wait for the lock (`task_struct.nvcsw`):
    /// if it was once less than now, it sleeps for the lock.
    pub switches: u32,
}

/// The mask of the bits of [`WaitsFor::lock`] that say what it is; the lower two as
/// `BLOCKER_TYPE_*` of include/linux/hung_task.h (from 6.16).
pub const LOCK_KIND: u64 = 7;
/// A `struct mutex`.
pub const LOCK_MUTEX: u64 = 0;
/// A `struct semaphore`.
pub const LOCK_SEMAPHORE: u64 = 1;
/// A `struct rw_semaphore`, to read.
pub const LOCK_READ: u64 = 2;
/// A `struct rw_semaphore`, to write.
pub const LOCK_WRITE: u64 = 3;
/// A lock that keeps no owner in this way: a `struct percpu_rw_semaphore`, or any with
/// CONFIG_PREEMPT_RT.
pub const LOCK_OTHER: u64 = 4;

/// There is no system call: a kernel thread, or a fault.
pub const NO_SYSCALL: u32 = u32::MAX;

/// An episode that was not shorter than the threshold, at its end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpisodeRecord {
    /// Its begin (CLOCK_MONOTONIC, ns).
    pub begin_ns: u64,
    /// Its end.
    pub end_ns: u64,
    /// `start_time` of the task (CLOCK_MONOTONIC, ns).
    pub start_ns: u64,
    /// What it waited for.
    pub waits: WaitsFor,
    /// Kernel stack of the waking, innermost first: an interrupt wakes on top of a
    /// task that has nothing to do with it, and only the stack tells. Not taken where
    /// the task that runs is surely the waker.
    pub waker_frames: [u64; WAKER_FRAMES],
    /// Number of frames; the rest of them is undefined.
    pub waker_depth: u32,
    /// Always 0.
    pub reserved: u32,
    /// Process: thread group id.
    pub tgid: u32,
    /// Task: thread id.
    pub tid: u32,
    /// Process of the task that ran at the waking.
    pub waker_tgid: u32,
    /// That task.
    pub waker_tid: u32,
    /// Name of the task: foreign bytes, ended by a zero.
    pub comm: [u8; COMM_BYTES],
    /// Name of the task that ran at the waking.
    pub waker_comm: [u8; COMM_BYTES],
}
