//! The part of the model that says what the TCP sockets do.
//!
//! Counts are of the interval unless a field says otherwise; times are in ns.

use std::net::SocketAddr;

use crate::text::Text;

/// A TCP state, by the kernel's number (include/net/tcp_states.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpState(pub u8);

impl TcpState {
    /// `TCP_ESTABLISHED`.
    pub const ESTABLISHED: Self = Self(1);
    /// `TCP_SYN_SENT`.
    pub const SYN_SENT: Self = Self(2);
    /// `TCP_SYN_RECV`.
    pub const SYN_RECV: Self = Self(3);
    /// `TCP_FIN_WAIT1`: closed first here.
    pub const FIN_WAIT1: Self = Self(4);
    /// `TCP_FIN_WAIT2`.
    pub const FIN_WAIT2: Self = Self(5);
    /// `TCP_TIME_WAIT`.
    pub const TIME_WAIT: Self = Self(6);
    /// `TCP_CLOSE`.
    pub const CLOSE: Self = Self(7);
    /// `TCP_CLOSE_WAIT`: the peer closed first, the process has not yet.
    pub const CLOSE_WAIT: Self = Self(8);
    /// `TCP_LAST_ACK`.
    pub const LAST_ACK: Self = Self(9);
    /// `TCP_LISTEN`.
    pub const LISTEN: Self = Self(10);
    /// `TCP_CLOSING`.
    pub const CLOSING: Self = Self(11);
    /// `TCP_NEW_SYN_RECV`: a handshake that has no socket yet.
    pub const NEW_SYN_RECV: Self = Self(12);
    /// `TCP_BOUND_INACTIVE` (from 6.8).
    pub const BOUND_INACTIVE: Self = Self(13);
}

/// TCP sockets at a snapshot, and what they did in the interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TcpBreakdown {
    /// Sockets in each state, all network namespaces together; states without one left out.
    pub states: Vec<StateCount>,
    /// The same by network namespace, the initial one first.
    pub namespaces: Vec<NamespaceStates>,
    /// Transitions of the interval, the most frequent first; pairs without one left out.
    pub transitions: Vec<Transition>,
    /// What the kernel's own counters say of the interval, namespaces together.
    pub counters: TcpCounters,
    /// Resets sent in the interval by the kernel's reason, the most first; empty where
    /// it says none.
    pub resets: Vec<(Text, u64)>,
    /// Who opened and who closed connections, the busiest first.
    pub actors: Vec<Actor>,
    /// Connections by the port that they are to, the busiest first.
    pub ports: Vec<Port>,
    /// Processes with sockets in CLOSE_WAIT, leaks first, then the most sockets.
    pub close_wait: Vec<CloseWait>,
    /// Sockets in TIME_WAIT, and who closed first.
    pub time_wait: TimeWait,
}

impl TcpBreakdown {
    /// Sockets in a state, all network namespaces together.
    pub fn in_state(&self, state: TcpState) -> u64 {
        in_state(&self.states, state)
    }

    /// Sockets that became ESTABLISHED in the interval.
    pub fn opened(&self) -> u64 {
        self.count(|transition| transition.to == TcpState::ESTABLISHED)
    }

    /// Sockets that were ESTABLISHED and no longer are.
    pub fn closed(&self) -> u64 {
        self.count(|transition| transition.from == TcpState::ESTABLISHED)
    }

    fn count(&self, is_counted: impl Fn(&Transition) -> bool) -> u64 {
        let counted = self.transitions.iter().filter(|&one| is_counted(one));
        let counts = counted.map(|transition| transition.count);
        counts.fold(0, u64::saturating_add)
    }
}

fn in_state(states: &[StateCount], state: TcpState) -> u64 {
    let counted = states.iter().filter(|counted| counted.state == state);
    counted.fold(0, |sum, counted| sum.saturating_add(counted.count))
}

/// How many sockets are in a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCount {
    /// The state.
    pub state: TcpState,
    /// How many.
    pub count: u64,
}

/// The sockets of a network namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceStates {
    /// Which.
    pub netns: Netns,
    /// Sockets in each state; states without one left out.
    pub states: Vec<StateCount>,
}

impl NamespaceStates {
    /// Sockets in a state.
    pub fn in_state(&self, state: TcpState) -> u64 {
        in_state(&self.states, state)
    }
}

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Netns {
    /// Its inode number (`net:[N]`).
    pub inode: u32,
    /// What `ip netns` calls it; `None` for the one that
    /// tracer is in, and where there is no name.
    pub name: Option<Text>,
    /// Whether tracer itself is in it.
    pub is_own: bool,
}

/// How often sockets went from one state to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// From this state.
    pub from: TcpState,
    /// To this one.
    pub to: TcpState,
    /// How often in the interval.
    pub count: u64,
}

/// The kernel's counters (/proc/net/snmp and /proc/net/netstat), what was added in the interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// `AttemptFails`: handshakes that came to nothing.
    pub handshakes_failed: u64,
    /// `OutRsts`.
    pub resets_sent: u64,
    /// `EstabResets`: connections that ended by a reset, sent or received.
    pub connections_reset: u64,
    /// `RetransSegs`.
    pub retransmitted: u64,
    /// `TCPSynRetrans`: SYNs and SYN-ACKs sent again.
    pub handshakes_retransmitted: u64,
    /// `TCPAbortOnTimeout`: given up for want of an answer.
    pub timed_out: u64,
    /// `TCPAbortOnData` and `TCPAbortOnClose`: closed with data unread, which resets.
    pub closed_unread: u64,
    /// `ListenOverflows`: the accept queue was full.
    pub accept_queue_full: u64,
}

/// Whether connections were accepted or made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// They came to a local port.
    #[default]
    Accepted,
    /// They went to a remote port.
    Connected,
}

/// What a process did with connections of one port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actor {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: Text,
    /// Accepted or made by it.
    pub side: Side,
    /// The local port of accepted ones, the remote port of others.
    pub port: u16,
    /// Connections it began (CLOSE to SYN_SENT) in the interval.
    pub opened: u64,
    /// Connections it was first to close in the interval.
    pub closed_first: u64,
}

/// Connections of one port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Port {
    /// Network namespace.
    pub netns: Netns,
    /// Accepted or made.
    pub side: Side,
    /// The local port of accepted ones, the remote port of others.
    pub port: u16,
    /// Who listens there, when known.
    pub listener: Option<(u32, Text)>,
    /// Connections that became ESTABLISHED in the interval.
    pub established: u64,
    /// Their handshakes by time, since the start.
    pub handshakes: Times,
    /// Handshakes whose time is unknown (a SYN cookie, or the SYN-ACK was sent again), since the start.
    pub unmeasured: u64,
    /// Time from the peer's FIN to the application's close, since the start.
    pub held: Times,
}

/// Numbers of times by length: bucket `n` has those from 2^n us on, the first
/// those below 2 us too, the last all longer ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times(pub Vec<u64>);

impl Times {
    /// Where a bucket begins, in ns.
    pub fn from_ns(bucket: u32) -> u64 {
        match bucket {
            0 => 0,
            power => 2_u64.saturating_pow(power).saturating_mul(1_000),
        }
    }

    /// The buckets that are not empty, each with its begin in ns.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let filled = (0..).zip(&self.0).filter(|(_, count)| **count > 0);
        filled.map(|(bucket, count)| (Self::from_ns(bucket), *count))
    }

    /// How many times.
    pub fn total(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The begin, in ns, of the bucket that has the time which so many of a
    /// hundred do not exceed; `None` where there is none.
    pub fn percentile_ns(&self, percent: u8) -> Option<u64> {
        let rank = u128::from(self.total()) * u128::from(percent);
        let rank = rank.div_ceil(100).max(1);
        let mut passed = 0;
        self.buckets().find_map(|(from_ns, count)| {
            passed += u128::from(count);
            (passed >= rank).then_some(from_ns)
        })
    }
}

/// A process with sockets in CLOSE_WAIT.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloseWait {
    /// Process id; `None` for sockets that no process has accepted.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Text,
    /// cgroup of its oldest socket.
    pub cgroup: Option<Text>,
    /// How many.
    pub sockets: u64,
    /// Age of the oldest, in ns.
    pub oldest_ns: u64,
    /// How many more there are each second, over the window that is looked at.
    pub growth_per_s: f64,
    /// Whether it leaks.
    pub leak: bool,
    /// Why it is taken for a leak, or not; a sentence.
    pub why: String,
    /// Where most of those were accepted or connected of which it is known, innermost
    /// function first; empty when unknown.
    pub stack: Vec<Text>,
    /// The oldest ones.
    pub samples: Vec<WaitingSocket>,
}

/// A socket in CLOSE_WAIT.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingSocket {
    /// Its descriptor in the process; `None` when there is none.
    pub fd: Option<u32>,
    /// Local address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Time since the peer's FIN, in ns.
    pub age_ns: u64,
    /// Whether the age is a least one, as of a socket from before the start.
    pub is_least: bool,
    /// Network namespace.
    pub netns: Netns,
    /// cgroup of the socket.
    pub cgroup: Option<Text>,
    /// Bytes that the process has not read.
    pub unread_bytes: u32,
    /// Accepted or made by the process; `None` when unknown.
    pub side: Option<Side>,
    /// Where it was accepted or connected, innermost function first; empty when unknown.
    pub stack: Vec<Text>,
    /// Its timer, as `netstat -o` has it.
    pub timer: Timer,
}

/// What a socket's timer is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimerKind {
    /// It has none.
    #[default]
    Off,
    /// Sends again what was not acknowledged (`on`).
    Retransmit,
    /// Asks whether the peer is alive.
    Keepalive,
    /// Asks whether the peer's window has opened (`probe`).
    WindowProbe,
}

/// A socket's timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// What for.
    pub kind: TimerKind,
    /// Time until it is due, in ns.
    pub due_ns: u64,
    /// Retransmissions so far.
    pub retransmits: u32,
    /// Probes so far.
    pub probes: u32,
}

/// Sockets in TIME_WAIT.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TimeWait {
    /// How many there are now, those of FIN_WAIT2 that no process has any more included.
    pub total: u64,
    /// Of `total`, those of FIN_WAIT2.
    pub fin_wait2: u64,
    /// Who closed first, and so left them behind, the most first.
    pub closers: Vec<Closer>,
    /// Of `total`, those that nobody was named for.
    pub unnamed: u64,
    /// Connections of the interval that were closed first here.
    pub closed_first_here: u64,
    /// Connections of the interval that the peer closed first.
    pub closed_first_by_peer: u64,
    /// What an operator can do about it; `None` when there is nothing to do.
    pub advice: Option<&'static str>,
}

/// A process that left sockets in TIME_WAIT.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Closer {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: Text,
    /// Accepted or made by it.
    pub side: Side,
    /// The local port of accepted ones, the remote port of others.
    pub port: u16,
    /// How many of the sockets in TIME_WAIT.
    pub count: u64,
}

/// How many a second, of so many within an interval.
pub fn per_second(count: u64, interval_ns: u64) -> f64 {
    match interval_ns {
        0 => 0.0,
        ns => count as f64 / (ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::{TcpBreakdown, TcpState, Times, Transition, per_second};

    #[test]
    fn percentiles_are_where_a_bucket_begins() {
        let times = Times(vec![50, 0, 48, 1, 0, 1]);
        let found = [0, 50, 51, 98, 99, 100].map(|percent| times.percentile_ns(percent));
        assert_eq!(found, [0, 0, 4_000, 4_000, 8_000, 32_000].map(Option::Some));
        assert_eq!(times.total(), 100);
        assert_eq!(Times::default().percentile_ns(50), None);
        assert_eq!(Times(vec![0; 4]).percentile_ns(100), None);
        let full = Times(vec![u64::MAX; 3]);
        assert_eq!(
            full.percentile_ns(100),
            Some(0),
            "the sum stops at the most"
        );
        assert_eq!(Times::from_ns(u32::MAX), u64::MAX);
    }

    #[test]
    fn opened_less_closed_is_growth() {
        let transition = |from, to, count| Transition { from, to, count };
        let tcp = TcpBreakdown {
            transitions: vec![
                transition(TcpState::SYN_RECV, TcpState::ESTABLISHED, 7),
                transition(TcpState::SYN_SENT, TcpState::ESTABLISHED, 3),
                transition(TcpState::ESTABLISHED, TcpState::FIN_WAIT1, 4),
                transition(TcpState::ESTABLISHED, TcpState::CLOSE, 1),
                transition(TcpState::FIN_WAIT1, TcpState::CLOSE, 9),
            ],
            ..TcpBreakdown::default()
        };
        assert_eq!((tcp.opened(), tcp.closed()), (10, 5));
        assert!((per_second(10, 4_000_000_000) - 2.5).abs() < 1e-9);
        assert_eq!(per_second(10, 0), 0.0);
    }
}
