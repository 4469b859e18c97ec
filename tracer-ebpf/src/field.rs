//! Fields of kernel objects, by offsets that user space takes from the running
//! kernel's BTF and freezes into read-only data before the load.
//!
//! A frozen offset is a known constant to the verifier, so a read through a
//! BTF-typed pointer is a plain load: no helper, and a bad pointer reads as 0.
//! The names must be those of the table in user space, tracer/src/kernel/fields.rs.

use core::{ffi::c_void, ptr};

use aya_ebpf::{Global, helpers::generated::bpf_probe_read_kernel};
use tracer_common::NO_FIELD;

/// A kernel object whose type the verifier knows.
pub(crate) type Object = *const c_void;

macro_rules! offsets {
    ($($name:ident),* $(,)?) => {
        $(#[unsafe(no_mangle)] pub(crate) static $name: Global<u32> = Global::new(0);)*
    };
}

offsets!(
    TASK_STATE,
    TASK_FLAGS,
    TASK_TID,
    TASK_TGID,
    TASK_COMM,
    TASK_CPU,
    TASK_ON_CPU,
    TASK_ON_RQ,
    TASK_START,
    TASK_RUN,
    TASK_EXEC_START,
    TASK_DELAYED,
    TASK_THROTTLED,
    TASK_GROUP_NODE,
    TASK_CFS_RQ,
    TASK_RUN_DELAY,
    TASK_LAST_QUEUED,
    TASK_LAST_ARRIVAL,
    TASK_CRED,
    TASK_CGROUPS,
    TASK_GROUP,
    CRED_UID,
    CSS_SET_CGROUP,
    CSS_CGROUP,
    CGROUP_NODE,
    NODE_ID,
    GROUP_PARENT,
    GROUP_CGROUP,
    GROUP_THROTTLED_TIME,
    CFS_RQ_RQ,
    CFS_RQ_THROTTLE_COUNT,
    RQ_NR_UNINTERRUPTIBLE,
    RQ_CALC_LOAD_UPDATE,
    RQ_CALC_LOAD_ACTIVE,
    RQ_CFS_TASKS,
    TASK_STACK,
    TASK_BLOCKER,
    TASK_FILES,
    TASK_CHILDREN,
    TASK_MM,
    TASK_LEADER,
    TASK_EXECS,
    TASK_PARENT,
    TASK_SIGNAL,
    TASK_VFORK_DONE,
    SIGNAL_SCORE_ADJ,
    SIGINFO_CODE,
    MM_FILE_PAGES,
    MM_ANON_PAGES,
    MM_SWAP_ENTRIES,
    MM_SHMEM_PAGES,
    MM_PAGE_TABLES,
    MM_TOTAL,
    MM_FLAGS,
    CSS_SET_MEMORY,
    SUBSYSTEM_CGROUP,
    MEMCG_CGROUP,
    OOM_MEMCG,
    OOM_ORDER,
    OOM_TOTAL,
    OOM_CONSTRAINT,
    TASK_SIBLING,
    MUTEX_OWNER,
    SEMAPHORE_HOLDER,
    RWSEM_OWNER,
    TASK_SLEEPS,
    MM_LOCK,
    INODE_LOCK,
    SUPER_FREEZE_LOCK,
    FREEZE_LOCK_BYTES,
    SUPER_ROOT,
    DENTRY_SUPER,
    FILES_TABLE,
    TABLE_MOST,
    TABLE_FILES,
    FILE_INODE,
    FILE_PRIVATE,
    QUEUE_REQUESTS,
    QUEUE_YOUNG,
    ACCEPT_QUEUE,
    SOCK_BACKLOG,
    SOCK_DROPS,
    INODE_MODE,
    INODE_RDEV,
    INODE_SUPER,
    SUPER_DEV,
    BIO_DEVICE,
    BIO_OPERATION,
    DEVICE_NUMBER,
    REGS_SYSCALL,
    REGS_FIRST,
    REGS_PC,
    REGS_SP,
    REGS_FP,
    SOCKET_SOCK,
    SOCK_FAMILY,
    SOCK_STATE,
    SOCK_HASH,
    SOCK_LOCAL_PORT,
    SOCK_REMOTE_PORT,
    SOCK_LOCAL_V4,
    SOCK_REMOTE_V4,
    SOCK_LOCAL_V6,
    SOCK_REMOTE_V6,
    SOCK_NET,
    NET_INODE,
    SOCK_PROTOCOL,
    SOCK_SOCKET,
    SOCK_CGROUP,
    SOCK_TIMER_DUE,
    SOCK_TIMER_PENDING,
    BIND_BUCKET,
    BUCKET_REUSE,
    TIMER_PENDING,
    TIMER_DUE,
    TIMER_RETRANSMITS,
    TIMER_PROBES,
    TCP_RECEIVED,
    TCP_COPIED,
    TCP_LAST_ACK,
    TCP_SRTT,
    TCP_OPTIONS,
    TCP_MSS,
    TCP_ECN,
    SKB_HEAD,
    SKB_NETWORK,
    SKB_TRANSPORT,
);

/// Episodes from this length on are looked at, in ns; frozen like the offsets.
#[unsafe(no_mangle)]
pub(crate) static MIN_BLOCK_NS: Global<u64> = Global::new(1_000_000);

/// Inode number of tracer's own network namespace; frozen likewise.
#[unsafe(no_mangle)]
pub(crate) static OWN_NETNS: Global<u32> = Global::new(0);

/// Numbers of the system calls that open connections; frozen likewise.
#[unsafe(no_mangle)]
pub(crate) static SYSCALL_ACCEPT: Global<u32> = Global::new(0);
/// See [`SYSCALL_ACCEPT`].
#[unsafe(no_mangle)]
pub(crate) static SYSCALL_ACCEPT4: Global<u32> = Global::new(0);
/// See [`SYSCALL_ACCEPT`].
#[unsafe(no_mangle)]
pub(crate) static SYSCALL_CONNECT: Global<u32> = Global::new(0);

/// Whether the running kernel has the field.
#[inline(always)]
pub(crate) fn has(offset: &Global<u32>) -> bool {
    offset.load() != NO_FIELD
}

/// Reads a field of a typed object with a plain load.
///
/// # Safety
///
/// `object` must come to the verifier as a pointer of the type that `offset` is of.
#[inline(always)]
pub(crate) unsafe fn field<T: Copy>(object: Object, offset: &Global<u32>) -> T {
    // SAFETY: the verifier checks the type and makes a fault read as 0.
    unsafe { ptr::read_volatile(object.byte_add(offset.load() as usize).cast()) }
}

/// Reads through an address the verifier knows nothing of; 0 on a fault. There is no
/// branch in it: twenty in a row are a million paths to the verifier of 6.1.
#[inline(always)]
pub(crate) fn read<T: Copy + Default>(address: u64) -> T {
    let mut value = T::default();
    // SAFETY: the helper checks the address, and writes zeros on a fault.
    unsafe {
        bpf_probe_read_kernel(
            ptr::from_mut(&mut value).cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        );
    }
    value
}
