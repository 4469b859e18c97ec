//! Brings back what the kernel side knows of TCP sockets. Nothing is interpreted here.

use std::{
    mem::offset_of,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuHashMap, RingBuf},
    programs::BtfTracePoint,
};
use bytes::{Bytes, BytesMut};
use tracer_common::syn::Listening;
use tracer_common::tcp::{
    ACTORS, CLOSE_WAIT, Counted, LISTEN, Matrix, Moves, PAIRS, PORTS, RESET_REASONS, STATES,
    SYN_RECV, SeedRecord,
};

use super::{
    cookies::{CookieReader, RawCookies},
    iterator::Iterators,
    loader::Loaded,
    openings::OpeningReader,
    probes::{DESCRIPTOR_ITERATOR, LISTENER_ITERATOR, TCP_STATES, WAITING_ITERATOR},
    reader::{drain, take},
    table::Table,
};
use crate::{
    decode::tcp::{ACTOR_COUNTERS, ACTOR_WORDS, ActorWords, PORT_WORDS, PortWords},
    error::KernelError,
    text::{self, Text},
};

/// `Counted` as plain words.
type CountedWords = [u64; COUNTED_WORDS];
const COUNTED_WORDS: usize = size_of::<Counted>() / 8;
const OWN: usize = offset_of!(Counted, own) / 8;
const OTHERS: usize = offset_of!(Counted, others) / 8;
const NESTED: usize = offset_of!(Counted, nested) / 8;

/// `Listening` as plain words.
type ListeningWords = [u64; size_of::<Listening>() / 8];

/// What of sockets a reading looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketLook {
    /// What is counted.
    Counts,
    /// Each socket in CLOSE_WAIT, too.
    Waiting,
    /// And every descriptor: who holds these.
    Holders,
}

/// What the kernel side had to say of TCP sockets, as words and bytes.
#[derive(Debug)]
pub struct RawSockets {
    /// How often sockets went from one state to another, since the start.
    pub matrix: Matrix,
    /// Sockets that came into each state and that left it, since the start, by network
    /// namespace.
    pub moves: Vec<(u32, Moves)>,
    /// Slots of ACTORS.
    pub actors: Vec<(u64, ActorWords)>,
    /// Slots of PORTS.
    pub ports: Vec<(u64, PortWords)>,
    /// What ACTORS, then PORTS had counted for keys that are not among those any more.
    pub dropped: [u64; 2],
    /// `WaitingRecord`s; `None` when they were not to be looked at.
    pub waiting: Option<Bytes>,
    /// `HolderRecord`s; `None` when nobody asked.
    pub holders: Option<Bytes>,
    /// `ListenerRecord`s.
    pub listeners: Bytes,
    /// SYN cookies; `None` where functions cannot be hooked.
    pub cookies: Option<RawCookies>,
    /// `OpeningRecord`s.
    pub openings: Bytes,
    /// Resets sent since the start, by the kernel's name of the reason.
    pub resets: Vec<(Text, u64)>,
    /// Transitions that neither hook was run for: a softirq came in on the same CPU
    /// between the kernel's check and the hook's first or last instruction.
    pub missed: u64,
}

/// The open ends of the kernel side.
pub(super) struct SocketReader {
    counted: PerCpuArray<MapData, CountedWords>,
    moves: PerCpuHashMap<MapData, u32, Moves>,
    actors: Table<ACTOR_WORDS>,
    ports: Table<PORT_WORDS>,
    slots: Map,
    waiting: Map,
    listeners: Map,
    seeds: RingBuf<MapData>,
    seeds_read: u64,
    control: Array<MapData, u64>,
    openings: OpeningReader,
    cookies: CookieReader,
    resets: PerCpuArray<MapData, u64>,
    reset_reasons: std::collections::HashMap<u32, Text>,
    own_netns: u32,
    /// Whether each of the programs is there.
    counts: bool,
    finds_waiting: bool,
    finds_holders: bool,
    finds_listeners: bool,
    /// Whether sockets were in CLOSE_WAIT before the start.
    had_waiting: bool,
}

impl SocketReader {
    pub(super) fn new(loaded: &mut Loaded) -> Result<Self, KernelError> {
        let Loaded {
            ebpf,
            hooks,
            own_netns,
            reset_reasons,
        } = loaded;
        let is_there = |name| -> bool {
            hooks
                .iter()
                .any(|hook| hook.name == name && hook.why.is_none())
        };
        let mut map = |name| ebpf.take_map(name).ok_or(KernelError::NoObject);
        Ok(Self {
            slots: map("WAITING_SLOTS")?,
            waiting: map("WAITING")?,
            listeners: map("LISTENERS")?,
            counted: take(ebpf, "TRANSITIONS")?,
            moves: take(ebpf, "POPULATIONS")?,
            actors: Table::map(ebpf, "ACTORS", ACTORS, ACTOR_COUNTERS)?,
            ports: Table::map(ebpf, "PORTS", PORTS, PORT_WORDS)?,
            seeds: take(ebpf, "SEEDS")?,
            seeds_read: 0,
            control: take(ebpf, "TCP_CONTROL")?,
            openings: OpeningReader::new(ebpf, hooks)?,
            cookies: CookieReader::new(ebpf, hooks)?,
            resets: take(ebpf, "RESETS")?,
            reset_reasons: std::mem::take(reset_reasons),
            own_netns: *own_netns,
            counts: is_there(TCP_STATES),
            finds_waiting: is_there(WAITING_ITERATOR),
            finds_holders: is_there(DESCRIPTOR_ITERATOR),
            finds_listeners: is_there(LISTENER_ITERATOR),
            had_waiting: true,
        })
    }

    /// Whether transitions are counted at all.
    pub(super) fn counts(&self) -> bool {
        self.counts
    }

    /// Reads what is to be looked at.
    pub(super) fn read(
        &mut self,
        ebpf: &mut Ebpf,
        iterators: &mut Iterators,
        look: SocketLook,
    ) -> Result<RawSockets, KernelError> {
        let counted = self.read_counted()?;
        let mut matrix = [0; PAIRS];
        for part in [OWN, OTHERS] {
            add(&mut matrix, &counted[part..]);
        }
        let holders = if look == SocketLook::Holders && self.finds_holders {
            Some(iterators.read(ebpf, DESCRIPTOR_ITERATOR, None)?)
        } else {
            None
        };
        let has_waiting = self.had_waiting || is_any_waiting(&matrix);
        let waiting = if look == SocketLook::Counts {
            None
        } else if self.finds_waiting && has_waiting {
            let mut all = BytesMut::new();
            for map in [&self.slots, &self.waiting] {
                let data = match map {
                    Map::Array(data) | Map::HashMap(data) => data,
                    _ => return Err(KernelError::NoObject),
                };
                let fd = Some(data.fd().as_fd());
                all.extend_from_slice(&iterators.read(ebpf, WAITING_ITERATOR, fd)?);
            }
            Some(all.freeze())
        } else {
            Some(Bytes::new())
        };
        if holders.is_some() {
            // The walk has found those from before the start.
            self.had_waiting = waiting.as_ref().is_some_and(|all| !all.is_empty());
        }
        Ok(RawSockets {
            matrix,
            moves: self.moves_of(&counted)?,
            actors: self.actors.read(),
            ports: self.ports.read(),
            dropped: [self.actors.dropped(), self.ports.dropped()],
            waiting,
            holders,
            listeners: self.read_listeners(ebpf, iterators)?,
            cookies: self.cookies.read()?,
            openings: self.openings.read(),
            resets: self.read_resets()?,
            missed: missed(ebpf).saturating_sub(counted[NESTED]),
        })
    }

    /// Transitions since the start, one by one, until [`Self::end_seeding`].
    pub(super) fn seeds(&mut self) -> Bytes {
        let seeds = drain(&mut self.seeds);
        self.seeds_read += (seeds.len() / size_of::<SeedRecord>()) as u64;
        seeds
    }

    /// How many transitions [`Self::seeds`] has returned so far.
    pub(super) fn seeds_read(&self) -> u64 {
        self.seeds_read
    }

    /// Tells of transitions one by one again, until [`Self::end_seeding`].
    pub(super) fn begin_seeding(&mut self) -> Result<(), KernelError> {
        self.control
            .set(0, 0, 0)
            .map_err(|e| KernelError::bpf("writing", "TCP_CONTROL", &e))
    }

    /// From now on transitions are only counted.
    pub(super) fn end_seeding(&mut self) -> Result<(), KernelError> {
        self.control
            .set(0, 1, 0)
            .map_err(|e| KernelError::bpf("writing", "TCP_CONTROL", &e))
    }

    /// See [`OpeningReader::slows_all`].
    pub(super) fn watching_slows_all(&self) -> bool {
        self.openings.slows_all()
    }

    /// See [`OpeningReader::watch`].
    pub(super) fn watch_openings(
        &mut self,
        ebpf: &mut Ebpf,
        pids: &[u32],
    ) -> Result<(), KernelError> {
        self.openings.watch(ebpf, pids)
    }

    fn read_listeners(
        &self,
        ebpf: &mut Ebpf,
        iterators: &mut Iterators,
    ) -> Result<Bytes, KernelError> {
        if !self.finds_listeners {
            return Ok(Bytes::new());
        }
        let Map::HashMap(data) = &self.listeners else {
            return Err(KernelError::NoObject);
        };
        let fd = Some(data.fd().as_fd());
        iterators.read(ebpf, LISTENER_ITERATOR, fd)
    }

    /// Takes what is known of a listener away.
    pub(super) fn forget_listener(&mut self, socket: u64) {
        // One that is not there is as good.
        if let Ok(mut listeners) = HashMap::<_, u64, ListeningWords>::try_from(&mut self.listeners)
        {
            let _ = listeners.remove(&socket);
        }
        self.cookies.forget(socket);
    }

    fn read_resets(&self) -> Result<Vec<(Text, u64)>, KernelError> {
        let mut resets = Vec::new();
        // A kernel without names does not tell the reason.
        let most = if self.reset_reasons.is_empty() {
            0
        } else {
            RESET_REASONS
        };
        for index in 0..most {
            let cpus = self
                .resets
                .get(&index, 0)
                .map_err(|e| KernelError::bpf("reading", "RESETS", &e))?;
            let count: u64 = cpus.iter().sum();
            if count > 0 {
                resets.push((self.reset_reason(index), count));
            }
        }
        Ok(resets)
    }

    /// What the kernel calls a reason, or its number; the last is for all from there on.
    fn reset_reason(&self, index: u32) -> Text {
        let name = self.reset_reasons.get(&index);
        name.filter(|_| index < RESET_REASONS - 1)
            .cloned()
            .unwrap_or_else(|| Text::from_bytes(format!("REASON_{index}").as_bytes()))
    }

    /// `Counted`, of all CPUs together.
    fn read_counted(&self) -> Result<CountedWords, KernelError> {
        let cpus = self
            .counted
            .get(&0, 0)
            .map_err(|e| KernelError::bpf("reading", "TRANSITIONS", &e))?;
        let mut sum = [0_u64; COUNTED_WORDS];
        for cpu in cpus.iter() {
            add(&mut sum, cpu);
        }
        Ok(sum)
    }

    /// What came into each state and left it since the start, by network namespace.
    pub(super) fn moves(&self) -> Result<Vec<(u32, Moves)>, KernelError> {
        self.moves_of(&self.read_counted()?)
    }

    fn moves_of(&self, counted: &CountedWords) -> Result<Vec<(u32, Moves)>, KernelError> {
        let own = (self.own_netns, own_moves(&counted[OWN..OWN + PAIRS]));
        let sum = |element: Result<_, _>| {
            let (netns, cpus): (u32, aya::maps::PerCpuValues<Moves>) =
                element.map_err(|e| KernelError::bpf("reading", "POPULATIONS", &e))?;
            let mut sum: Moves = [0; 2 * STATES];
            for cpu in cpus.iter() {
                for (sum, more) in sum.iter_mut().zip(cpu) {
                    *sum = sum.wrapping_add(*more);
                }
            }
            Ok((netns, sum))
        };
        std::iter::once(Ok(own))
            .chain(self.moves.iter().map(sum))
            .collect()
    }
}

/// What came into each state and left it, by the transitions that were counted.
fn own_moves(matrix: &[u64]) -> Moves {
    let mut moves: Moves = [0; 2 * STATES];
    for (pair, count) in matrix.iter().enumerate() {
        let (from, to, count) = (pair / STATES, pair % STATES, *count as u32);
        moves[to] = moves[to].wrapping_add(count);
        // An accepted child begins as a copy of its listener, which stays.
        if (from, to) != (LISTEN as usize, SYN_RECV as usize) {
            moves[STATES + from] = moves[STATES + from].wrapping_add(count);
        }
    }
    moves
}

fn add(sum: &mut [u64], more: &[u64]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum = sum.wrapping_add(*more);
    }
}

/// Whether more sockets came into CLOSE_WAIT than left it.
fn is_any_waiting(matrix: &Matrix) -> bool {
    let state = CLOSE_WAIT as usize;
    let into: u64 = matrix.iter().skip(state).step_by(STATES).sum();
    let out: u64 = matrix.iter().skip(state * STATES).take(STATES).sum();
    into != out
}

/// `recursion_misses` of the hook (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c; from 5.12).
fn missed(ebpf: &Ebpf) -> u64 {
    let read = || {
        let program: &BtfTracePoint = ebpf.program(TCP_STATES)?.try_into().ok()?;
        let fd = program.fd().ok()?.as_fd().as_raw_fd();
        let text = text::read(format!("/proc/self/fdinfo/{fd}")).ok()?;
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("recursion_misses:"))?;
        line.trim().parse().ok()
    };
    read().unwrap_or(0)
}
