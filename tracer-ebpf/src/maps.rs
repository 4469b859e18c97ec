//! Every map, and what it holds.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE},
    btf_maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, RingBuf},
    helpers::generated::bpf_task_storage_get,
    macros::btf_map,
};
use tracer_common::{
    COMM_BYTES,
    block::{self, EpisodeRecord, StackEntry},
    cookie::{self, Answering, CookieKind, CookieTotals, Sources},
    fold::FoldRecord,
    lost,
    oom::{KillRecord, OomRequest},
    sched::BlockedTotals,
    syn,
    task::{ExitTotals, SnapshotClock, SnapshotControl, TaskRecord},
    tcp::{
        self, ActorTotals, Counted, Moves, OpeningRecord, PortTotals, SeedRecord, TcpControl,
        Waiting,
    },
};

use crate::{atomic::add_one, field::Object, table::Table};

/// A value that lives and dies with a task (`BPF_MAP_TYPE_TASK_STORAGE`).
///
/// Defined by hand: aya-ebpf 0.2 has no type for it.
#[repr(C)]
pub(crate) struct TaskStorage<T> {
    r#type: *const [i32; 29],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 1],
}

// SAFETY: the fields are read by the loader only, as type information.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    /// The task's value, made on demand. `None` also when the kernel could not
    /// take the storage's lock (6.1) or had no memory: the caller counts it.
    #[inline(always)]
    pub(crate) fn get_or_create(&self, task: Object) -> Option<&mut T> {
        self.lookup(task, u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE))
    }

    /// The task's value, if it has one.
    #[inline(always)]
    pub(crate) fn get(&self, task: Object) -> Option<&mut T> {
        self.lookup(task, 0)
    }

    #[inline(always)]
    fn lookup(&self, task: Object, flags: u64) -> Option<&mut T> {
        let map: *mut c_void = ptr::from_ref(self).cast_mut().cast();
        // SAFETY: the map is of this type, the task pointer is checked by the
        // verifier, and the value lives until the program ends.
        unsafe {
            bpf_task_storage_get(map, task.cast_mut().cast(), ptr::null_mut(), flags)
                .cast::<T>()
                .as_mut()
        }
    }
}

/// Blocked episodes of each task that ever blocked.
#[btf_map]
pub(crate) static BLOCKED: TaskStorage<BlockedTotals> = TaskStorage::new();

/// Tasks that exited, with their final totals.
#[btf_map]
pub(crate) static EXITS: RingBuf<TaskRecord, { 4 << 20 }> = RingBuf::new();

/// Exits that found the ring full, by comm.
#[btf_map]
pub(crate) static EXIT_TABLE: PerCpuHashMap<[u8; COMM_BYTES], ExitTotals, 1024> =
    PerCpuHashMap::new();

/// Episodes over the threshold.
#[btf_map]
pub(crate) static EPISODES: RingBuf<EpisodeRecord, { 4 << 20 }> = RingBuf::new();

/// Kernel stacks by key, with the lengths of the episodes that ended in each.
#[btf_map]
pub(crate) static STACKS: HashMap<u64, StackEntry, { block::STACKS as usize }> = HashMap::new();

/// Room to take a stack in: on each CPU one slot for wakings, which interrupts
/// make, and one for the iterator, which they interrupt.
#[btf_map]
pub(crate) static STACK_ROOM: PerCpuArray<StackEntry, 2> = PerCpuArray::new();

/// Folds of the kernel's load sample; user space sets its size by the number of CPUs.
#[btf_map]
pub(crate) static FOLDS: RingBuf<FoldRecord, { 256 << 10 }> = RingBuf::new();

/// Each CPU's `calc_load_update` when it was last looked at.
#[btf_map]
pub(crate) static FOLD_DUE: PerCpuArray<u64, 1> = PerCpuArray::new();

/// When the first CPU of the latest sample folded, then when each CPU did
/// (CLOCK_MONOTONIC, ns); user space sets its size by the number of CPUs.
#[btf_map]
pub(crate) static FOLD_TIME: Array<u64, 1025> = Array::new();

/// What the next run of the iterator shall emit.
#[btf_map]
pub(crate) static SNAPSHOT_CONTROL: Array<SnapshotControl, 1> = Array::new();

/// The clocks of the latest run of the iterator.
#[btf_map]
pub(crate) static SNAPSHOT_CLOCK: Array<SnapshotClock, 1> = Array::new();

/// Sockets in CLOSE_WAIT, each in the slot that its address falls on: most are there
/// for a moment, and a hash costs ten times as much.
#[btf_map]
pub(crate) static WAITING_SLOTS: Array<Waiting, { tcp::WAITING_SLOTS as usize }> = Array::new();

/// Sockets in CLOSE_WAIT whose slot was taken, by address.
#[btf_map]
pub(crate) static WAITING: HashMap<
    u64,
    Waiting,
    { tcp::WAITING as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Transitions of TCP sockets.
#[btf_map]
pub(crate) static TRANSITIONS: PerCpuArray<Counted, 1> = PerCpuArray::new();

/// Sockets by state, by the inode number of their network namespace.
#[btf_map]
pub(crate) static POPULATIONS: PerCpuHashMap<u32, Moves, { tcp::NAMESPACES as usize }> =
    PerCpuHashMap::new();

/// Who makes and closes connections.
#[btf_map]
pub(crate) static ACTORS: Table<ActorTotals, { tcp::ACTORS as usize }> = Table::new();

/// Connections by port.
#[btf_map]
pub(crate) static PORTS: Table<PortTotals, { tcp::PORTS as usize }> = Table::new();

/// What user space asks of the TCP hooks.
#[btf_map]
pub(crate) static TCP_CONTROL: Array<TcpControl, 1> = Array::new();

/// Transitions while user space counts the sockets from before the start.
#[btf_map]
pub(crate) static SEEDS: RingBuf<SeedRecord, { 1 << 20 }> = RingBuf::new();

/// Resets sent, by reason.
#[btf_map]
pub(crate) static RESETS: PerCpuArray<u64, { tcp::RESET_REASONS as usize }> = PerCpuArray::new();

/// Processes whose openings are watched, each with how many more are wanted.
#[btf_map]
pub(crate) static SUSPECTS: HashMap<u32, u64, { tcp::SUSPECTS as usize }> = HashMap::new();

/// Where they opened connections.
#[btf_map]
pub(crate) static OPENINGS: RingBuf<OpeningRecord, { 512 << 10 }> = RingBuf::new();

/// Room for processes that are killed.
pub(crate) const KILL_RING_BYTES: usize = 256 << 10;

/// Processes that are killed.
#[btf_map]
pub(crate) static KILLS: RingBuf<KillRecord, KILL_RING_BYTES> = RingBuf::new();

/// What the out-of-memory killer was asked for last.
#[btf_map]
pub(crate) static OOM_REQUEST: Array<OomRequest, 1> = Array::new();

/// Sockets in LISTEN, by address.
#[btf_map]
pub(crate) static LISTENERS: HashMap<
    u64,
    syn::Listening,
    { syn::LISTENERS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// The listener that a SYN or an ACK is for, while it is looked at.
#[btf_map]
pub(crate) static ANSWERING: PerCpuArray<Answering, 1> = PerCpuArray::new();

/// What listeners did with SYN cookies, by address.
#[btf_map]
pub(crate) static COOKIES: HashMap<
    u64,
    CookieTotals,
    { syn::LISTENERS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Connections by cookie, by what they have.
#[btf_map]
pub(crate) static COOKIE_KINDS: HashMap<
    CookieKind,
    u64,
    { cookie::KINDS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Whom cookies were sent to lately.
#[btf_map]
pub(crate) static SOURCES: PerCpuArray<Sources, 1> = PerCpuArray::new();

/// Counters of `tracer_common::lost`.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { lost::COUNTERS as usize }> = PerCpuArray::new();

/// Counts one.
#[inline(always)]
pub(crate) fn count(counter: u32) {
    if let Some(n) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: a per-CPU slot, and BPF programs do not migrate. An interrupt may count
        // here too.
        unsafe { add_one(n) };
    }
}
