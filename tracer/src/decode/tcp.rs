//! TCP: sockets in CLOSE_WAIT, who holds them, who acts, ports, transitions.

use std::{
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bytes::{Buf as _, Bytes};
use tracer_common::{
    COMM_BYTES,
    tcp::{
        ActorTotals, CLOSE_WAIT, CONNECTED, HolderRecord, LISTEN, Moves, Population, PortTotals,
        STATES, SeedRecord, TIME_BUCKETS, TIMER_KEEPALIVE, TIMER_RETRANSMIT, TIMER_WINDOW_PROBE,
        WaitingRecord,
    },
};

use super::{
    Decoded,
    bytes::{u32, u64},
    records,
};
use crate::{
    clock::MonotonicNs,
    snapshot::{Side, TimerKind},
    text::Text,
};

/// include/linux/socket.h.
const AF_INET6: u16 = 10;

/// `ActorTotals` as plain words.
pub type ActorWords = [u64; ACTOR_WORDS];
/// How many they are.
pub const ACTOR_WORDS: usize = size_of::<ActorTotals>() / 8;
/// How many of them are counters; the others say whose they are.
pub const ACTOR_COUNTERS: usize = offset_of!(ActorTotals, start_ns) / 8;
/// `PortTotals` as plain words.
pub type PortWords = [u64; PORT_WORDS];
/// How many they are.
pub const PORT_WORDS: usize = size_of::<PortTotals>() / 8;

/// A process and a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActorKey {
    /// Process id.
    pub pid: u32,
    /// Accepted or made by it.
    pub side: Side,
    /// Local port of accepted ones, remote port of others.
    pub port: u16,
    /// Tells processes apart that had this id one after the other, and programs that one
    /// of them ran.
    pub life: u16,
}

/// What a process did with the connections of a port, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActorReading {
    /// Who, with which.
    pub key: ActorKey,
    /// Its name.
    pub comm: Text,
    /// Connections it began.
    pub opened: u64,
    /// Connections it was first to close.
    pub closed_first: u64,
}

/// Connections of a port in a namespace, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortReading {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Accepted or made.
    pub side: Side,
    /// Local port of accepted ones, remote port of others.
    pub port: u16,
    /// Became ESTABLISHED.
    pub established: u64,
    /// Of those, without a time.
    pub unmeasured: u64,
    /// Handshakes by time, as [`tracer_common::tcp::TIME_BUCKETS`] says.
    pub handshakes: Vec<u64>,
    /// Times from the peer's FIN to the close here.
    pub held: Vec<u64>,
}

/// A socket in CLOSE_WAIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingReading {
    /// Its address in the kernel: which one it is.
    pub socket: u64,
    /// Accepted or made.
    pub side: Side,
    /// The peer's FIN; `None` for before tracer's start.
    pub since: Option<MonotonicNs>,
    /// Jiffies since the last ACK came in: no less than since the FIN, unless the
    /// connection was used meanwhile.
    pub idle_jiffies: u32,
    /// Identity of its cgroup; 0 for none.
    pub cgroup: u64,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Local address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Bytes that nobody has read.
    pub unread_bytes: u32,
    /// Whether a process has accepted it.
    pub has_file: bool,
    /// What its timer is for.
    pub timer: TimerKind,
    /// When that is due, in jiffies.
    pub due_jiffies: u64,
    /// Retransmissions so far.
    pub retransmits: u8,
    /// Probes so far.
    pub probes: u8,
}

/// A descriptor of a socket in CLOSE_WAIT or LISTEN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HolderReading {
    /// The socket.
    pub socket: u64,
    /// Start of the process.
    pub start: MonotonicNs,
    /// Process id.
    pub pid: u32,
    /// The descriptor.
    pub fd: u32,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// Its local port.
    pub port: u16,
    /// Whether it listens.
    pub is_listener: bool,
    /// Name of the process.
    pub comm: Text,
}

/// A transition while the sockets from before the start were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeedReading {
    /// Cookie of the socket, as sock_diag has it; 0 from LISTEN to SYN_RECV.
    pub cookie: u64,
    /// Its address in the kernel: another's once it is closed.
    pub socket: u64,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// State before.
    pub from: u32,
    /// State after.
    pub to: u32,
}

/// What came into each state of a namespace less what left it.
pub fn population((netns, moves): &(u32, Moves)) -> (u32, Population) {
    let mut population = [0; STATES];
    let (came, left) = moves.split_at(STATES);
    for (place, (came, left)) in population.iter_mut().zip(came.iter().zip(left)) {
        // Either wraps; there are never so many sockets that their difference does.
        *place = i64::from(came.wrapping_sub(*left).cast_signed()).cast_unsigned();
    }
    (*netns, population)
}

/// Decodes a run of `WaitingRecord`s. A socket that has just left CLOSE_WAIT is no
/// reading, and no error.
pub fn waiting(bytes: &Bytes) -> Decoded<Option<WaitingReading>> {
    records(bytes, size_of::<WaitingRecord>(), |record| {
        waiting_one(record).ok()
    })
}

/// Decodes a run of `HolderRecord`s.
pub fn holders(bytes: &Bytes) -> Decoded<HolderReading> {
    records(bytes, size_of::<HolderRecord>(), |mut b| {
        let b = &mut b;
        let (socket, start) = (u64(b).ok()?, u64(b).ok()?);
        let (pid, fd, netns) = (u32(b).ok()?, u32(b).ok()?, u32(b).ok()?);
        let (port, state) = (b.try_get_u16_ne().ok()?, b.try_get_u16_ne().ok()?);
        Some(HolderReading {
            socket,
            start: MonotonicNs(start),
            pid,
            fd,
            netns,
            port,
            is_listener: u32::from(state) == LISTEN,
            comm: Text::from_bytes(b.get(..COMM_BYTES).unwrap_or_default()),
        })
    })
}

/// Decodes a run of `SeedRecord`s.
pub fn seeds(bytes: &Bytes) -> Decoded<SeedReading> {
    records(bytes, size_of::<SeedRecord>(), |mut b| {
        let b = &mut b;
        Some(SeedReading {
            cookie: u64(b).ok()?,
            socket: u64(b).ok()?,
            netns: u32(b).ok()?,
            from: b.try_get_u16_ne().ok()?.into(),
            to: b.try_get_u16_ne().ok()?.into(),
        })
    })
}

/// A slot of ACTORS.
pub fn actor(key: u64, words: &ActorWords) -> ActorReading {
    let (pid, port, side) = split(key);
    let [opened, closed_first, _start_ns, _execs, comm @ ..] = words;
    let comm: Vec<u8> = comm.iter().flat_map(|word| word.to_le_bytes()).collect();
    ActorReading {
        key: ActorKey {
            pid,
            side,
            port,
            life: (key >> 49) as u16,
        },
        comm: Text::from_bytes(&comm),
        opened: *opened,
        closed_first: *closed_first,
    }
}

/// A slot of PORTS.
pub fn port(key: u64, words: &PortWords) -> PortReading {
    let (netns, port, side) = split(key);
    let [unmeasured, times @ ..] = words;
    let (handshakes, held) = times.split_at(TIME_BUCKETS);
    PortReading {
        netns,
        side,
        port,
        established: handshakes.iter().sum::<u64>() + unmeasured,
        unmeasured: *unmeasured,
        handshakes: handshakes.to_vec(),
        held: held.to_vec(),
    }
}

/// The parts of the key of a [`tracer_common::tcp::Slot`].
fn split(key: u64) -> (u32, u16, Side) {
    (
        key as u32,
        (key >> 32) as u16,
        side_of((key >> 48) as u16 & 1),
    )
}

fn side_of(number: u16) -> Side {
    if number == CONNECTED {
        Side::Connected
    } else {
        Side::Accepted
    }
}

fn waiting_one(mut b: Bytes) -> Result<Option<WaitingReading>, bytes::TryGetError> {
    let b = &mut b;
    let (socket, since, cgroup, due_jiffies) = (u64(b)?, u64(b)?, u64(b)?, u64(b)?);
    let (mut local, mut remote) = ([0; 16], [0; 16]);
    b.try_copy_to_slice(&mut local)?;
    b.try_copy_to_slice(&mut remote)?;
    let (netns, idle_jiffies, unread_bytes) = (u32(b)?, u32(b)?, u32(b)?);
    let family = b.try_get_u16_ne()?;
    let (local_port, remote_port) = (b.try_get_u16_ne()?, b.try_get_u16_ne()?);
    let (timer, retransmits) = (b.try_get_u8()?, b.try_get_u8()?);
    let (probes, has_file) = (b.try_get_u8()?, b.try_get_u8()?);
    let (state, side) = (b.try_get_u8()?, b.try_get_u8()?);
    if u32::from(state) != CLOSE_WAIT {
        return Ok(None);
    }
    Ok(Some(WaitingReading {
        socket,
        side: side_of(side.into()),
        since: (since != 0).then_some(MonotonicNs(since)),
        idle_jiffies,
        cgroup,
        netns,
        local: SocketAddr::new(address(family, local), local_port),
        remote: SocketAddr::new(address(family, remote), remote_port),
        unread_bytes,
        has_file: has_file != 0,
        timer: match timer {
            TIMER_RETRANSMIT => TimerKind::Retransmit,
            TIMER_KEEPALIVE => TimerKind::Keepalive,
            TIMER_WINDOW_PROBE => TimerKind::WindowProbe,
            _ => TimerKind::Off,
        },
        due_jiffies,
        retransmits,
        probes,
    }))
}

pub(super) fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    if family == AF_INET6 {
        return IpAddr::V6(Ipv6Addr::from(bytes));
    }
    let [a, b, c, d, ..] = bytes;
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{any, prop, proptest};
    use tracer_common::tcp::{HolderRecord, STATES, SeedRecord, WaitingRecord};

    use super::{ACTOR_WORDS, ActorKey, actor, holders, population, seeds, waiting};
    use crate::snapshot::Side;

    #[test]
    fn a_population_is_what_came_less_what_left_though_both_wrap() {
        let mut moves = [0; 2 * STATES];
        (moves[1], moves[STATES + 1]) = (5, 2);
        (moves[2], moves[STATES + 2]) = (1, u32::MAX);
        (moves[3], moves[STATES + 3]) = (0, 4);
        let (netns, population) = population(&(7, moves));
        let signed = population.map(u64::cast_signed);
        assert_eq!((netns, signed[1], signed[2], signed[3]), (7, 3, 2, -4));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_counted(bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
            let length = bytes.len();
            let bytes = Bytes::from(bytes);
            let (waiting, holders, seeds) = (waiting(&bytes), holders(&bytes), seeds(&bytes));
            let used = [
                waiting.readings.len() * size_of::<WaitingRecord>() + waiting.undecodable,
                holders.readings.len() * size_of::<HolderRecord>() + holders.undecodable,
                seeds.readings.len() * size_of::<SeedRecord>() + seeds.undecodable,
            ];
            assert_eq!(used, [length; 3]);
        }

        #[test]
        fn a_key_has_its_parts(
            pid in any::<u32>(),
            port in any::<u16>(),
            accepted in any::<bool>(),
            life in 0..1_u16 << 15,
        ) {
            let side = if accepted { Side::Accepted } else { Side::Connected };
            let bits = u64::from(!accepted) << 48 | u64::from(life) << 49;
            let word = u64::from(pid) | u64::from(port) << 32 | bits;
            let key = ActorKey { pid, side, port, life };
            assert_eq!(actor(word, &[0; ACTOR_WORDS]).key, key);
        }
    }
}
