//! Why a task is blocked, told by its kernel stack.
//!
//! The stacks that BPF and /proc give (`stack_trace_save_tsk`, kernel/stacktrace.c)
//! leave out all of `.sched.text`: `schedule`, `mutex_lock`, `down_read`,
//! `wait_for_completion`, `io_schedule`. So a lock is told by the kernel's own word
//! (`contention_begin`, `task_struct.blocker`: [`LockWait`]), or by the function
//! that takes it and stands innermost (`takers.rs`). Where such frames are there (rwsem
//! before 5.18, stacks of other makers), they are passed over as a hint.
//!
//! The order: frames from the innermost out, for each the rules from the top, and
//! the first that fits decides. So what is waited for comes before why it was
//! wanted. Only a wait for I/O looks further out, at once: inside reclaim, swap-in,
//! the flusher, the journal's thread, or a network file system it is theirs, unless a
//! local file system is nearer. A lock decides alone, its taker says which.

#[cfg(test)]
mod evidence;
mod functions;
mod names;
mod rules;
mod takers;
#[cfg(test)]
mod tests;

use tracer_common::block::{
    STACK_ANY_LOCK, STACK_FREEZE_LOCK, STACK_INODE_LOCK, STACK_LOCK, STACK_MMAP_LOCK,
};

use self::{
    rules::{Hint, Place, RULES},
    takers::Taker,
};

/// Why a task is blocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// A read or write of a block device, or the page or buffer that one is on.
    Disk,
    /// A transaction of the file system: its log, its commit, or room in it.
    Journal,
    /// Dirty pages being written by the flusher, or waited for.
    Writeback,
    /// Held back because too much is dirty or being written
    /// (`balance_dirty_pages`, mm/page-writeback.c; block/blk-wbt.c).
    WritebackThrottle,
    /// Held back by a limit on the I/O of a cgroup (block/blk-iocost.c, blk-iolatency.c).
    IoLimit,
    /// A page that was swapped out.
    SwapIn,
    /// Memory of the host being freed or compacted.
    Reclaim,
    /// Memory of a cgroup at its limit being freed.
    MemcgReclaim,
    /// The end of a cgroup's own out-of-memory kill.
    MemcgOom,
    /// A page that is being moved (`migration_entry_wait`, mm/migrate.c).
    Migration,
    /// In a guest: a page that the hypervisor has swapped out
    /// (`kvm_async_pf_task_wait_schedule`, arch/x86/kernel/kvm.c).
    HostPaging,
    /// The server of a network or cluster file system.
    NetworkFs,
    /// The process that serves a FUSE file system.
    Fuse,
    /// A file system that was frozen, or is waited for until it is
    /// (`sb_start_write`, `freeze_super`, fs/super.c).
    FrozenFs,
    /// The lock of an address space, or of a part of it.
    MmapLock,
    /// The lock of a file or directory.
    InodeLock,
    /// Any other lock.
    Lock,
    /// The process that serves page faults (`handle_userfault`, fs/userfaultfd.c).
    Userfault,
    /// A process that decides or does something for the kernel: a fanotify listener such as
    /// an antivirus, the autofs daemon, a seccomp supervisor, auditd.
    UserProcess,
    /// The child, until it executes or exits.
    Vfork,
    /// The other threads, until they are gone (`de_thread`, fs/exec.c).
    Exec,
    /// A core dump, which the other threads or the dumper wait for.
    Coredump,
    /// The tracer or the traced.
    Ptrace,
    /// The freezer of tasks: suspend, or a cgroup (`__refrigerator`, kernel/freezer.c).
    Freezer,
    /// A grace period of RCU.
    Rcu,
    /// A kernel thread or work item, until it has done what it was asked.
    Worker,
    /// The hypervisor, to take memory back.
    Balloon,
    /// A device that is no disk, or a driver that sleeps.
    Driver,
    /// Blocked shorter than the threshold: not looked at.
    Brief,
    /// The record of it was lost.
    Lost,
    /// No rule fits.
    #[default]
    Unknown,
}

impl Cause {
    /// As the outputs name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Journal => "journal",
            Self::Writeback => "writeback",
            Self::WritebackThrottle => "writeback throttle",
            Self::IoLimit => "io limit",
            Self::SwapIn => "swap-in",
            Self::Reclaim => "reclaim",
            Self::MemcgReclaim => "memcg reclaim",
            Self::MemcgOom => "memcg oom",
            Self::Migration => "page migration",
            Self::HostPaging => "host paging",
            Self::NetworkFs => "network fs",
            Self::Fuse => "fuse",
            Self::FrozenFs => "frozen fs",
            Self::MmapLock => "mmap_lock",
            Self::InodeLock => "inode lock",
            Self::Lock => "lock",
            Self::Userfault => "userfault",
            Self::UserProcess => "user process",
            Self::Vfork => "vfork",
            Self::Exec => "exec",
            Self::Coredump => "coredump",
            Self::Ptrace => "ptrace",
            Self::Freezer => "freezer",
            Self::Rcu => "rcu",
            Self::Worker => "kernel worker",
            Self::Balloon => "balloon",
            Self::Driver => "driver",
            Self::Brief => "brief",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the block device the task last submitted I/O to is worth naming.
    pub fn is_on_device(self) -> bool {
        matches!(
            self,
            Self::Disk
                | Self::Journal
                | Self::Writeback
                | Self::WritebackThrottle
                | Self::IoLimit
                | Self::SwapIn
        )
    }

    /// Whether the device of the mount that the task is at is the one it waits for.
    pub fn is_on_device_of_mount(self) -> bool {
        matches!(
            self,
            Self::Disk | Self::Journal | Self::Writeback | Self::WritebackThrottle | Self::FrozenFs
        )
    }

    /// Whether the file system of the descriptor in the task's system call is worth
    /// naming.
    pub fn is_on_file_system(self) -> bool {
        matches!(
            self,
            Self::Disk
                | Self::Journal
                | Self::Writeback
                | Self::WritebackThrottle
                | Self::NetworkFs
                | Self::Fuse
                | Self::FrozenFs
                | Self::InodeLock
        )
    }

    /// Whether a task holds what this one waits for.
    pub fn is_lock(self) -> bool {
        matches!(self, Self::MmapLock | Self::InodeLock | Self::Lock)
    }

    /// The cause, once the file system is known from elsewhere, by the kernel's name
    /// for its type (`file_system_type.name`). A read of the page cache looks alike on
    /// all of them: the frame of the file system is gone by a tail call.
    #[must_use]
    pub fn on(self, file_system: &str) -> Self {
        if !matches!(self, Self::Disk | Self::Writeback) {
            return self;
        }
        match file_system {
            "fuse" | "fuseblk" | "virtiofs" => Self::Fuse,
            "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "9p" | "afs" | "lustre" => Self::NetworkFs,
            _ => self,
        }
    }
}

/// What a stack says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Why it is blocked.
    pub cause: Cause,
    /// The innermost file system on the stack, such as "ext4".
    pub file_system: Option<&'static str>,
    /// What the task was doing, such as "read" or "page fault".
    pub operation: Option<&'static str>,
    /// The user process that must answer, such as "autofs daemon".
    pub supervisor: Option<&'static str>,
    /// Index of the frame that told; of an unknown cause the frame that waits.
    pub frame: Option<usize>,
}

/// What the kernel itself says of the lock that a task waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockWait {
    /// Nothing: there is none, or it cannot tell.
    #[default]
    Untold,
    /// That it waits for a lock.
    Lock,
    /// For `mm_struct.mmap_lock`.
    MmapLock,
    /// For `inode.i_rwsem`.
    InodeLock,
    /// For `super_block.s_writers`, of a frozen file system.
    FreezeLock,
}

impl LockWait {
    /// As the key of a stack has it ([`STACK_LOCK`]).
    pub fn of_key(key: u64) -> Self {
        match key & STACK_LOCK {
            STACK_ANY_LOCK => Self::Lock,
            STACK_MMAP_LOCK => Self::MmapLock,
            STACK_INODE_LOCK => Self::InodeLock,
            STACK_FREEZE_LOCK => Self::FreezeLock,
            _ => Self::Untold,
        }
    }

    /// The cause, where the lock alone says it.
    fn cause(self) -> Option<Cause> {
        match self {
            Self::Untold | Self::Lock => None,
            Self::MmapLock => Some(Cause::MmapLock),
            Self::InodeLock => Some(Cause::InodeLock),
            Self::FreezeLock => Some(Cause::FrozenFs),
        }
    }
}

/// Tells from a stack why its task is blocked. `frames` are symbols, innermost
/// first, with neither offset nor module; a frame without a symbol is "?".
pub fn find<S: AsRef<str>>(frames: &[S]) -> Finding {
    find_told(frames, LockWait::Untold)
}

/// As [`find`], with what the kernel says of the lock.
pub fn find_told<S: AsRef<str>>(frames: &[S], lock: LockWait) -> Finding {
    let symbols: Vec<&str> = frames.iter().map(|frame| plain(frame.as_ref())).collect();
    let (cause, frame) = decide(&symbols, lock);
    let supervisor = frame.filter(|_| cause == Cause::UserProcess);
    let supervisor = supervisor.and_then(|frame| names::supervisor(symbols.get(frame)?));
    Finding {
        cause,
        file_system: names::file_system(&symbols),
        operation: names::operation(&symbols),
        supervisor,
        frame,
    }
}

/// The name in the source: compilers append `.isra.0`, `.constprop.0`, `.part.0`,
/// `.cold`, `.llvm.123` to copies they made.
fn plain(symbol: &str) -> &str {
    match symbol.split_once('.') {
        Some((name, _)) if !name.is_empty() => name,
        _ => symbol,
    }
}

fn decide(symbols: &[&str], lock: LockWait) -> (Cause, Option<usize>) {
    let (hint, first) = scheduling(symbols);
    let Some((innermost, outer)) = symbols.get(first..).and_then(<[&str]>::split_first) else {
        let told = lock.cause().map(|cause| (cause, None));
        return told.unwrap_or_else(|| hinted(hint, None));
    };
    let known = || {
        let mut rules = RULES.iter();
        rules.find(|rule| rule.knows(innermost) && rule.fits(innermost, outer))
    };
    let is_told = lock != LockWait::Untold;
    let is_taken = match (hint, takers::find(innermost)) {
        (Some((Hint::Lock, _)), _) => true,
        (Some(_), _) => false,
        (None, Some(Taker::OnlyLocks)) => true,
        (None, Some(Taker::AlsoWaits)) => is_told,
        // A contention that was over before it slept leaves the next sleep alike.
        (None, None) => is_told && known().is_none(),
    };
    if is_taken {
        if let Some(cause) = lock.cause() {
            return (cause, Some(first));
        }
        let mut rules = RULES.iter();
        let of_lock = rules.find(|rule| rule.is_of_lock() && rule.fits(innermost, outer));
        // A mutex that is held for nothing else than this.
        let of_one_thing = || {
            use Cause::{Journal, MemcgOom, MemcgReclaim, Reclaim};
            let is_better = |cause| matches!(cause, MemcgOom | MemcgReclaim | Reclaim | Journal);
            known().filter(|rule| !is_told && hint.is_none() && is_better(rule.cause))
        };
        return match (of_lock.or_else(of_one_thing), hint) {
            (Some(rule), _) => (rule.cause, Some(first)),
            (None, Some((_, i))) => (Cause::Lock, Some(i)),
            (None, None) => (Cause::Lock, Some(first)),
        };
    }
    for (i, symbol) in symbols.iter().enumerate().skip(first) {
        let outer = symbols.get(i + 1..).unwrap_or_default();
        let found = RULES.iter().find(|rule| {
            let is_told = !matches!(hint, Some((Hint::Io, _))) || !rule.is_of_lock();
            is_told && (rule.place == Place::Any || i == first) && rule.fits(symbol, outer)
        });
        if let Some(rule) = found {
            return (rule.cause, Some(i));
        }
    }
    hinted(hint, Some(first))
}

/// What the scheduler's own frames say, and where the others begin.
fn scheduling(symbols: &[&str]) -> (Option<(Hint, usize)>, usize) {
    let mut hint = None;
    for (i, symbol) in symbols.iter().enumerate() {
        match rules::scheduling(symbol) {
            Some(Hint::None) => {}
            // The outermost decides: a mutex that counts as I/O is a mutex.
            Some(seen) => hint = Some((seen, i)),
            None => return (hint, i),
        }
    }
    (hint, symbols.len())
}

/// The cause when no rule fits; `first` is the frame that waits.
fn hinted(hint: Option<(Hint, usize)>, first: Option<usize>) -> (Cause, Option<usize>) {
    match hint {
        Some((Hint::Lock, i)) => (Cause::Lock, Some(i)),
        Some((Hint::Io, i)) => (Cause::Disk, Some(i)),
        Some((Hint::Sleep, i)) => (Cause::Driver, Some(i)),
        _ => (Cause::Unknown, first),
    }
}
