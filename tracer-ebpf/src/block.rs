//! Why a task is blocked: its kernel stack, its last bio, its lock, its waker.
//!
//! All of it is for episodes over the threshold only. A shorter one costs no more
//! than its begin and its end.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    helpers::generated::{
        bpf_get_current_task_btf, bpf_get_stack, bpf_get_task_stack, bpf_ktime_get_ns,
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use tracer_common::{
    block::{
        EpisodeRecord, LENGTH_BUCKETS, LOCK_KIND, LOCK_MUTEX, LOCK_OTHER, LOCK_READ,
        LOCK_SEMAPHORE, LOCK_WRITE, NO_STACK, STACK_ANY_LOCK, STACK_FRAMES, STACK_FREEZE_LOCK,
        STACK_INODE_LOCK, STACK_LOCK, STACK_MMAP_LOCK, STACK_NO_LOCK, WAKER_FRAMES, WaitsFor,
    },
    lost,
    task::PF_KTHREAD,
};

use crate::{
    atomic::add_one,
    field::{
        BIO_DEVICE, BIO_OPERATION, DENTRY_SUPER, DEVICE_NUMBER, FREEZE_LOCK_BYTES, INODE_LOCK,
        INODE_SUPER, MIN_BLOCK_NS, MM_LOCK, MUTEX_OWNER, Object, RWSEM_OWNER, SEMAPHORE_HOLDER,
        SUPER_DEV, SUPER_FREEZE_LOCK, SUPER_ROOT, TASK_BLOCKER, TASK_CHILDREN, TASK_COMM,
        TASK_FLAGS, TASK_MM, TASK_SIBLING, TASK_SLEEPS, TASK_STACK, TASK_START, TASK_TGID,
        TASK_TID, field, has, read,
    },
    file::{note_file, system_call},
    maps::{BLOCKED, EPISODES, STACK_ROOM, STACKS, count},
};

/// Room of a program that runs where a waking does.
pub(crate) const ROOM_OF_WAKING: u32 = 0;
/// Room of the iterator.
pub(crate) const ROOM_OF_ITERATOR: u32 = 1;

/// The least `THREAD_SIZE` of x86-64 and arm64. On a larger stack a waker may be taken
/// for an interrupt, and its own stack is looked at in vain.
const TASK_STACK_BYTES: u64 = 16 << 10;

/// `LCB_F_*` of include/trace/events/lock.h.
const LCB_F_SPIN: u64 = 1;
const LCB_F_READ: u64 = 2;
const LCB_F_WRITE: u64 = 4;
const LCB_F_OTHER: u64 = 8 | 16;
const LCB_F_MUTEX: u64 = 32;

/// `block_bio_queue(bio)`: the device that the task is at now.
#[btf_tracepoint(function = "block_bio_queue")]
pub(crate) fn block_bio_queue(ctx: BtfTracePointContext) -> i32 {
    let bio: Object = ctx.arg(0);
    // SAFETY: current is a task_struct.
    let task: Object = unsafe { bpf_get_current_task_btf().cast_const().cast() };
    let Some(blocked) = BLOCKED.get_or_create(task) else {
        count(lost::STORAGE);
        return 0;
    };
    // SAFETY: the argument is a bio, its device a block_device.
    unsafe {
        let device: Object = field(bio, &BIO_DEVICE);
        blocked.waits.bio_device = field(device, &DEVICE_NUMBER);
        blocked.waits.bio_operation = field(bio, &BIO_OPERATION);
        blocked.waits.bio_ns = bpf_ktime_get_ns();
    }
    0
}

/// `contention_begin(lock, flags)`: the lock that the task is about to sleep for, and
/// who has it. The kernel's own note (`task_struct.blocker`, from 6.16) is not there
/// for a wait that a signal can end, such as most for `mmap_lock`.
#[btf_tracepoint(function = "contention_begin")]
pub(crate) fn contention_begin(ctx: BtfTracePointContext) -> i32 {
    let (lock, flags): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    if flags & LCB_F_SPIN != 0 {
        return 0;
    }
    let lock = if flags & LCB_F_OTHER != 0 {
        lock | LOCK_OTHER
    } else if flags & LCB_F_MUTEX != 0 {
        lock | LOCK_MUTEX
    } else if flags & LCB_F_WRITE != 0 {
        lock | LOCK_WRITE
    } else if flags & LCB_F_READ != 0 {
        lock | LOCK_READ
    } else {
        lock | LOCK_SEMAPHORE
    };
    // SAFETY: current is a task_struct.
    let task: Object = unsafe { bpf_get_current_task_btf().cast_const().cast() };
    match BLOCKED.get_or_create(task) {
        Some(blocked) => {
            blocked.waits.lock = lock;
            blocked.waits.holder = holder(lock);
            // SAFETY: as above.
            blocked.waits.switches = unsafe { field::<u64>(task, &TASK_SLEEPS) } as u32;
        }
        None => count(lost::STORAGE),
    }
    0
}

/// Looks at a task that is blocked for longer than the threshold, once an episode.
#[inline(never)]
pub(crate) fn examine(task: Object, waits: &mut WaitsFor, room: u32) {
    if waits.stack == NO_STACK {
        let (lock, file_system) = lock_of(task, waits);
        waits.stack = keep_stack(room, lock, |frames, bytes| {
            // SAFETY: the task is a task_struct, the room as large as it says.
            unsafe { bpf_get_task_stack(task.cast_mut().cast(), frames, bytes, 0) }
        });
        note_file(task, waits);
        if file_system != 0 {
            waits.file_system = file_system;
        }
        waits.child = youngest_child(task);
    }
}

/// Which lock the task sleeps for (`STACK_ANY_LOCK` and so on), and the `s_dev` of the
/// file system that the lock is part of, if it is.
///
/// It sleeps for the lock of `contention_begin` if it has slept once since. One that was
/// woken and sleeps again for the same lock has slept twice: the kernel's own note has it,
/// where there is one.
#[inline(always)]
fn lock_of(task: Object, waits: &mut WaitsFor) -> (u64, u32) {
    // SAFETY: the caller's task is a task_struct.
    let slept = unsafe { field::<u64>(task, &TASK_SLEEPS) } as u32;
    let mut is_told = waits.lock != 0 && slept.wrapping_sub(waits.switches) == 1;
    if has(&TASK_BLOCKER) {
        // SAFETY: as above.
        let blocker: u64 = unsafe { field(task, &TASK_BLOCKER) };
        if blocker != 0 {
            is_told = true;
            if waits.lock != blocker {
                waits.lock = blocker;
                waits.holder = holder(blocker);
            }
        }
    }
    if !is_told {
        return (STACK_NO_LOCK, 0);
    }
    let lock = waits.lock & !LOCK_KIND;
    match waits.lock & LOCK_KIND {
        LOCK_READ | LOCK_WRITE => {
            let memory: u64 = read(task as u64 + u64::from(TASK_MM.load()));
            if lock.wrapping_sub(u64::from(MM_LOCK.load())) == memory {
                return (STACK_MMAP_LOCK, 0);
            }
            let inode = lock.wrapping_sub(u64::from(INODE_LOCK.load()));
            let super_block: u64 = read(inode + u64::from(INODE_SUPER.load()));
            if is_super_block(super_block) {
                return (STACK_INODE_LOCK, number_of(super_block));
            }
        }
        LOCK_OTHER => {
            let first = lock.wrapping_sub(u64::from(SUPER_FREEZE_LOCK.load()));
            for level in 0..FREEZE_LEVELS {
                let before = level * u64::from(FREEZE_LOCK_BYTES.load());
                let super_block = first.wrapping_sub(before);
                if is_super_block(super_block) {
                    return (STACK_FREEZE_LOCK, number_of(super_block));
                }
            }
        }
        _ => {}
    }
    (STACK_ANY_LOCK, 0)
}

/// `SB_FREEZE_LEVELS` of include/linux/fs.h: of writes, page faults, and the file
/// system's own.
const FREEZE_LEVELS: u64 = 3;

/// Whether there is a `super_block` at the address, told by its root directory, which
/// leads back to it.
#[inline(always)]
fn is_super_block(address: u64) -> bool {
    let root: u64 = read(address.wrapping_add(u64::from(SUPER_ROOT.load())));
    root != 0 && read::<u64>(root + u64::from(DENTRY_SUPER.load())) == address
}

#[inline(always)]
fn number_of(super_block: u64) -> u32 {
    read(super_block + u64::from(SUPER_DEV.load()))
}

/// The owner of a lock, as it is now: the owner's address is in the lock, with
/// flags in its three lowest bits (kernel/locking/mutex.c, rwsem.c).
#[inline(always)]
pub(crate) fn holder(lock: u64) -> u32 {
    let kind = lock & LOCK_KIND;
    if kind == LOCK_OTHER {
        return 0;
    }
    let owner = if kind == LOCK_MUTEX {
        &MUTEX_OWNER
    } else if kind == LOCK_SEMAPHORE {
        &SEMAPHORE_HOLDER
    } else {
        &RWSEM_OWNER
    };
    if !has(owner) {
        return 0;
    }
    let owner = read::<u64>((lock & !LOCK_KIND) + u64::from(owner.load())) & !7;
    if owner == 0 {
        return 0;
    }
    read(owner + u64::from(TASK_TID.load()))
}

/// `children` is a list with the youngest at its end (`copy_process`, kernel/fork.c).
#[inline(always)]
fn youngest_child(task: Object) -> u32 {
    let head = task as u64 + u64::from(TASK_CHILDREN.load());
    let previous = head + size_of::<u64>() as u64;
    let last: u64 = read(previous);
    if last == head || last == 0 {
        return 0;
    }
    read(last - u64::from(TASK_SIBLING.load()) + u64::from(TASK_TID.load()))
}

/// Takes a stack and keeps it in the table; its key, in which `lock` is part.
#[inline(always)]
fn keep_stack(room: u32, lock: u64, take: impl Fn(*mut c_void, u32) -> i64) -> u64 {
    let Some(entry) = STACK_ROOM.get_ptr_mut(room) else {
        return NO_STACK;
    };
    // SAFETY: a per-CPU slot that no other program uses meanwhile: a waking has
    // interrupts off, and the iterator has a slot of its own.
    let entry = unsafe { &mut *entry };
    let bytes = size_of::<[u64; STACK_FRAMES]>() as u32;
    let taken = take(entry.frames.as_mut_ptr().cast(), bytes);
    if taken <= 0 {
        return NO_STACK;
    }
    let depth = taken as usize / size_of::<u64>();
    let mut key: u64 = 0xcbf2_9ce4_8422_2325;
    for (i, frame) in entry.frames.iter().enumerate() {
        if i >= depth {
            break;
        }
        key = (key.rotate_left(5) ^ frame).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    if depth < STACK_FRAMES {
        // The mask is what the verifier wants to see.
        entry.frames[depth & (STACK_FRAMES - 1)] = 0;
    }
    key = key & !STACK_LOCK | lock;
    if key == NO_STACK {
        key = STACK_LOCK + 1;
    }
    // SAFETY: the value is only looked at for being there.
    if unsafe { STACKS.get(key) }.is_some() {
        return key;
    }
    let is_kept = STACKS.insert(key, &*entry, u64::from(BPF_NOEXIST)).is_ok();
    // SAFETY: as above; another CPU may have been faster.
    if is_kept || unsafe { STACKS.get(key) }.is_some() {
        return key;
    }
    count(lost::STACK_TABLE);
    NO_STACK
}

/// An episode over the threshold has ended: counts its length with its stack and
/// reports it.
#[inline(always)]
pub(crate) fn end(
    ctx: &BtfTracePointContext,
    task: Object,
    waits: &mut WaitsFor,
    begin: u64,
    now: u64,
) {
    examine(task, waits, ROOM_OF_WAKING);
    count(lost::EPISODES_SEEN);
    count_length(waits.stack, now.saturating_sub(begin));
    let Some(mut record) = EPISODES.reserve(0) else {
        count(lost::EPISODE_RING);
        return;
    };
    let r: *mut EpisodeRecord = record.as_mut_ptr();
    // SAFETY: both tasks are task_structs; the record is the ring's memory, as large
    // as the type, and every field that user space reads is written.
    unsafe {
        let current: Object = bpf_get_current_task_btf().cast_const().cast();
        (*r).begin_ns = begin;
        (*r).end_ns = now;
        (*r).start_ns = field(task, &TASK_START);
        (*r).waits = *waits;
        (*r).tgid = field(task, &TASK_TGID);
        (*r).tid = field(task, &TASK_TID);
        (*r).waker_tgid = field(current, &TASK_TGID);
        (*r).waker_tid = field(current, &TASK_TID);
        (*r).comm = field(task, &TASK_COMM);
        (*r).waker_comm = field(current, &TASK_COMM);
        (*r).reserved = 0;
        (*r).waker_depth = 0;
        if !is_waker(ctx, current, r) {
            let frames = (&raw mut (*r).waker_frames).cast();
            let bytes = size_of::<[u64; WAKER_FRAMES]>() as u32;
            let taken = bpf_get_stack(ctx.as_ptr(), frames, bytes, 0);
            if taken > 0 {
                (*r).waker_depth = taken as u32 / size_of::<u64>() as u32;
            }
        }
    }
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// Whether the current task is surely the waker, and no interrupt on top of it.
///
/// Interrupts run on a stack of their own, but for those out of user mode on x86. A
/// task that is in a system call was in kernel mode. So what runs on the task's own
/// stack is the task, if that is a kernel thread or in a system call.
#[inline(always)]
unsafe fn is_waker(ctx: &BtfTracePointContext, current: Object, room: *mut EpisodeRecord) -> bool {
    // SAFETY: the record's memory makes a number of the address, which the verifier
    // would not let go through arithmetic; current is a task_struct.
    unsafe {
        // The arguments lie on the stack of who called; a program's own variables
        // do not (from 6.13).
        let number = &raw mut (*room).waker_frames[0];
        number.write_volatile(ctx.as_ptr() as u64);
        let here = number.read_volatile();
        let stack: u64 = field(current, &TASK_STACK);
        if here.wrapping_sub(stack) >= TASK_STACK_BYTES {
            return false;
        }
        let flags: u32 = field(current, &TASK_FLAGS);
        flags & PF_KTHREAD != 0 || system_call(current).is_some()
    }
}

/// Whether an episode of this length is looked at.
#[inline(always)]
pub(crate) fn is_long(length_ns: u64) -> bool {
    length_ns >= MIN_BLOCK_NS.load()
}

#[inline(always)]
fn count_length(stack: u64, length_ns: u64) {
    let Some(entry) = STACKS.get_ptr_mut(stack) else {
        return;
    };
    let bucket = (63 - (length_ns / 1000 | 1).leading_zeros() as usize) & (LENGTH_BUCKETS - 1);
    // SAFETY: a map value that is never deleted, and the index is within the array.
    unsafe {
        let lengths: *mut u64 = (&raw mut (*entry).lengths).cast();
        add_one(lengths.add(bucket));
    }
}
