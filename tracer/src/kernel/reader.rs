//! Brings bytes back from the kernel side: tasks, exits, folds, episodes, counters.
//! Nothing is interpreted here.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    thread,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, RingBuf},
    programs::Program,
    sys::{Stats, enable_stats},
};
use aya_log::EbpfLogger;
use bytes::{Bytes, BytesMut};
use tracer_common::{
    COMM_BYTES,
    block::{LENGTH_BUCKETS, NO_STACK, STACK_FRAMES},
    lost,
    tcp::Moves,
};

use super::{
    iterator::Iterators,
    loader::Loaded,
    oom::KillReader,
    probes::TASK_ITERATOR,
    sockets::{RawSockets, SocketLook, SocketReader},
};
use crate::{error::KernelError, text};

/// `SnapshotClock`, `SnapshotControl` and `ExitTotals` are plain arrays of u64.
type ClockWords = [u64; 8];
type ControlWords = [u64; 3];
type TotalsWords = [u64; 5];
/// `StackEntry`: the frames, then the lengths.
pub type StackWords = [u64; STACK_WORDS];
const STACK_WORDS: usize = STACK_FRAMES + LENGTH_BUCKETS;

/// The first snapshot begins with a short sleep: the offset between the
/// scheduler's clock and CLOCK_MONOTONIC is taken from when the reader last got
/// its CPU, which must be a moment ago, not the whole start-up.
const FRESH_ARRIVAL: Duration = Duration::from_micros(50);

/// `BPF_MAP_TYPE_RINGBUF`, include/uapi/linux/bpf.h.
const BPF_MAP_TYPE_RINGBUF: u64 = 27;

/// Everything the kernel side had to say at one moment, as bytes.
#[derive(Debug, Default)]
pub struct RawReading {
    /// `TaskRecord`s of the tasks that may have changed.
    pub tasks: Bytes,
    /// `SnapshotClock` of that run.
    pub clock: ClockWords,
    /// `TaskRecord`s of the tasks that exited.
    pub exits: Bytes,
    /// `FoldRecord`s.
    pub folds: Bytes,
    /// `EpisodeRecord`s.
    pub episodes: Bytes,
    /// `ExitTotals` by comm, cumulative.
    pub exit_table: Vec<([u8; COMM_BYTES], TotalsWords)>,
    /// The counters of `tracer_common::lost`, cumulative.
    pub counters: [u64; lost::COUNTERS as usize],
    /// TCP sockets, or why they could not be read; `None` where there is no hook on them.
    pub sockets: Option<Result<RawSockets, KernelError>>,
}

/// The open ends of the kernel side.
pub struct Reader {
    ebpf: Ebpf,
    exits: RingBuf<MapData>,
    folds: RingBuf<MapData>,
    episodes: RingBuf<MapData>,
    stacks: HashMap<MapData, u64, StackWords>,
    exit_table: PerCpuHashMap<MapData, [u8; COMM_BYTES], TotalsWords>,
    counters: PerCpuArray<MapData, u64>,
    control: Array<MapData, ControlWords>,
    clock: Array<MapData, ClockWords>,
    iterators: Iterators,
    sockets: SocketReader,
    kills: KillReader,
    map_fds: Vec<i32>,
    is_first: bool,
}

impl Reader {
    /// Takes the maps of a loaded object.
    ///
    /// # Errors
    /// The object lacks a map, or has it in another form: a damaged build.
    pub fn new(loaded: Loaded) -> Result<Self, KernelError> {
        let mut loaded = loaded;
        let sockets = SocketReader::new(&mut loaded)?;
        let mut ebpf = loaded.ebpf;
        let kills = KillReader::new(&mut ebpf, &loaded.hooks)?;
        let map_fds = ebpf.maps().filter_map(|(_, map)| raw_fd(map)).collect();
        Ok(Self {
            exits: take(&mut ebpf, "EXITS")?,
            folds: take(&mut ebpf, "FOLDS")?,
            episodes: take(&mut ebpf, "EPISODES")?,
            stacks: with_no_stack(take(&mut ebpf, "STACKS")?)?,
            exit_table: take(&mut ebpf, "EXIT_TABLE")?,
            counters: take(&mut ebpf, "COUNTERS")?,
            control: take(&mut ebpf, "SNAPSHOT_CONTROL")?,
            clock: take(&mut ebpf, "SNAPSHOT_CLOCK")?,
            iterators: Iterators::new(),
            sockets,
            kills,
            map_fds,
            is_first: true,
            ebpf,
        })
    }

    /// Reads everything: first the tasks, then the exits, then the folds.
    ///
    /// `control` is a `SnapshotControl`, its limits zeros for every task;
    /// `offset_limit_ns` is the largest clock offset that is believed, 0 for any.
    ///
    /// # Errors
    /// The kernel refuses a read.
    pub fn read(
        &mut self,
        control: ControlWords,
        offset_limit_ns: u64,
        sockets: SocketLook,
    ) -> Result<RawReading, KernelError> {
        if std::mem::take(&mut self.is_first) {
            thread::sleep(FRESH_ARRIVAL);
        }
        self.control
            .set(0, control, 0)
            .map_err(|e| KernelError::bpf("writing", "SNAPSHOT_CONTROL", &e))?;
        let clock = [0, 0, 0, offset_limit_ns, 0, 0, 0, 0];
        self.clock
            .set(0, clock, 0)
            .map_err(|e| KernelError::bpf("writing", "SNAPSHOT_CLOCK", &e))?;
        let tasks = self.iterators.read(&mut self.ebpf, TASK_ITERATOR, None)?;
        let clock = self
            .clock
            .get(&0, 0)
            .map_err(|e| KernelError::bpf("reading", "SNAPSHOT_CLOCK", &e))?;
        let sockets = if self.sockets.counts() {
            let Self {
                ebpf, iterators, ..
            } = self;
            Some(self.sockets.read(ebpf, iterators, sockets))
        } else {
            None
        };
        let exits = drain(&mut self.exits);
        let folds = drain(&mut self.folds);
        let episodes = drain(&mut self.episodes);
        let counters = self.read_counters()?;
        // Only an exit that found its ring full can have written there.
        let overflowed = counters[lost::EXIT_RING as usize] != 0;
        let exit_table = if overflowed {
            self.read_exit_table()
        } else {
            Vec::new()
        };
        Ok(RawReading {
            tasks,
            clock,
            exits,
            folds,
            episodes,
            exit_table,
            counters,
            sockets,
        })
    }

    /// Whether there is a hook on transitions of TCP sockets.
    pub fn counts_sockets(&self) -> bool {
        self.sockets.counts()
    }

    /// `KillRecord`s since the last time.
    pub fn kills(&mut self) -> Bytes {
        self.kills.kills()
    }

    /// A descriptor that is readable once somebody was killed.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn wakes_at_kills(&self) -> io::Result<OwnedFd> {
        self.kills.wakes()
    }

    /// A `MemoryRecord` for each process; `None` without the iterator.
    ///
    /// # Errors
    /// The kernel refuses to run it.
    pub fn memory(&mut self) -> Result<Option<Bytes>, KernelError> {
        self.kills.memory(&mut self.ebpf, &mut self.iterators)
    }

    /// Transitions of TCP sockets since the start, one by one.
    pub fn seeds(&mut self) -> Bytes {
        self.sockets.seeds()
    }

    /// Whether all that went to the ring of transitions so far has been read.
    ///
    /// # Errors
    /// The kernel refuses the read.
    pub fn has_all_seeds(&self) -> Result<bool, KernelError> {
        let written = self.lost(lost::SEEDS_SEEN)? - self.lost(lost::SEED_RING)?;
        Ok(self.sockets.seeds_read() == written)
    }

    /// Tells of transitions one by one again.
    ///
    /// # Errors
    /// The kernel refuses the write.
    pub fn begin_seeding(&mut self) -> Result<(), KernelError> {
        self.sockets.begin_seeding()
    }

    /// Sockets that came into each state and left it, since the start, by namespace.
    ///
    /// # Errors
    /// The kernel refuses the read.
    pub fn moves(&self) -> Result<Vec<(u32, Moves)>, KernelError> {
        self.sockets.moves()
    }

    /// From now on transitions are only counted.
    ///
    /// # Errors
    /// The kernel refuses the write.
    pub fn end_seeding(&mut self) -> Result<(), KernelError> {
        self.sockets.end_seeding()
    }

    /// Whether it costs all system calls of the host to watch where processes open
    /// connections.
    pub fn watching_slows_all(&self) -> bool {
        self.sockets.watching_slows_all()
    }

    /// Watches where these processes open connections, and no others.
    ///
    /// # Errors
    /// The kernel refuses to attach the hook or to write its map.
    pub fn watch_openings(&mut self, pids: &[u32]) -> Result<(), KernelError> {
        self.sockets.watch_openings(&mut self.ebpf, pids)
    }

    /// Forgets a socket that listens no more, by its address.
    pub fn forget_listener(&mut self, socket: u64) {
        self.sockets.forget_listener(socket);
    }

    /// A `StackEntry` by its key; `None` when it was never kept.
    ///
    /// # Errors
    /// The kernel refuses the look-up.
    pub fn stack(&self, key: u64) -> Result<Option<StackWords>, KernelError> {
        match self.stacks.get(&key, 0) {
            Ok(words) => Ok(Some(words)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(KernelError::bpf("reading", "STACKS", &e)),
        }
    }

    /// Keys of all stacks that were kept.
    pub fn stack_keys(&self) -> Vec<u64> {
        self.stacks.keys().filter_map(Result::ok).collect()
    }

    /// Time spent in each program so far, in ns; meaningful while the kernel's
    /// BPF statistics are on.
    pub fn program_run_ns(&self) -> u64 {
        let run_time = |(_, program): (&str, &Program)| Some(program.info().ok()?.run_time());
        self.ebpf
            .programs()
            .filter_map(run_time)
            .map(|t| t.as_nanos() as u64)
            .sum()
    }

    /// Memory of all maps, in bytes, as the kernel accounts it.
    pub fn map_bytes(&self) -> u64 {
        let memory = |fd: &i32| {
            let text = text::read(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let value = |key| {
                let line = text.lines().find_map(|line| line.strip_prefix(key))?;
                line.trim().parse::<u64>().ok()
            };
            // Up to 6.3 the kernel says 0 for a ring, which is as large as it says.
            let is_ring = value("map_type:") == Some(BPF_MAP_TYPE_RINGBUF);
            let least = if is_ring { value("max_entries:")? } else { 0 };
            Some(value("memlock:")?.max(least))
        };
        self.map_fds.iter().filter_map(memory).sum()
    }

    /// What the kernel programs log, to be flushed whenever it is readable.
    ///
    /// # Errors
    /// The object has no log: a damaged build.
    pub fn logger(&mut self) -> Result<EbpfLogger<&'static dyn log::Log>, KernelError> {
        EbpfLogger::init(&mut self.ebpf).map_err(|e| KernelError::bpf("reading", "the log", &e))
    }

    /// Turns the kernel's BPF statistics on for as long as the answer is kept.
    ///
    /// # Errors
    /// They need CAP_SYS_ADMIN.
    pub fn statistics() -> Result<OwnedFd, KernelError> {
        enable_stats(Stats::RunTime)
            .map_err(|e| KernelError::bpf("turning on", "BPF statistics", &e))
    }

    fn read_counters(&self) -> Result<[u64; lost::COUNTERS as usize], KernelError> {
        let mut counters = [0; lost::COUNTERS as usize];
        for (index, total) in (0..).zip(&mut counters) {
            *total = self.lost(index)?;
        }
        Ok(counters)
    }

    /// One of the counters of `tracer_common::lost`, cumulative.
    ///
    /// # Errors
    /// The kernel refuses the read.
    pub fn lost(&self, index: u32) -> Result<u64, KernelError> {
        let values = self.counters.get(&index, 0);
        let values = values.map_err(|e| KernelError::bpf("reading", "COUNTERS", &e))?;
        Ok(values.iter().sum())
    }

    fn read_exit_table(&self) -> Vec<([u8; COMM_BYTES], TotalsWords)> {
        let sum = |cpus: &[TotalsWords]| {
            cpus.iter().fold([0; 5], |mut sum: TotalsWords, one| {
                sum.iter_mut().zip(one).for_each(|(s, v)| *s += v);
                sum
            })
        };
        self.exit_table
            .iter()
            .filter_map(Result::ok)
            .map(|(comm, cpus)| (comm, sum(&cpus)))
            .collect()
    }
}

/// Episodes without a stack are counted like the others.
fn with_no_stack(
    mut stacks: HashMap<MapData, u64, StackWords>,
) -> Result<HashMap<MapData, u64, StackWords>, KernelError> {
    stacks
        .insert(NO_STACK, [0; STACK_WORDS], 0)
        .map_err(|e| KernelError::bpf("writing", "STACKS", &e))?;
    Ok(stacks)
}

fn raw_fd(map: &Map) -> Option<i32> {
    let (Map::Array(data)
    | Map::HashMap(data)
    | Map::PerCpuArray(data)
    | Map::PerCpuHashMap(data)
    | Map::RingBuf(data)
    | Map::Unsupported(data)) = map
    else {
        return None;
    };
    Some(data.fd().as_fd().as_raw_fd())
}

pub(super) fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, KernelError>
where
    T: TryFrom<Map>,
    T::Error: std::error::Error,
{
    let map = ebpf.take_map(name).ok_or(KernelError::NoObject)?;
    T::try_from(map).map_err(|e| KernelError::bpf("using", name, &e))
}

pub(super) fn drain(ring: &mut RingBuf<MapData>) -> Bytes {
    let mut all = BytesMut::new();
    while let Some(item) = ring.next() {
        all.extend_from_slice(&item);
    }
    all.freeze()
}
