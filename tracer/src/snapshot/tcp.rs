//! The part of the model that says what the TCP sockets do.
//!
//! Counts are of the interval unless a field says otherwise; times are in ns.

use std::net::SocketAddr;

use crate::{clock::WallNs, text::Text};

/// A TCP state, by the kernel's number (include/net/tcp_states.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpState(pub u8);

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
    /// Who opened and who closed connections, the busiest first.
    pub actors: Vec<Actor>,
    /// Connections by the port that they are to, the busiest first.
    pub ports: Vec<Port>,
    /// Processes with sockets in CLOSE_WAIT, leaks first, then the most sockets.
    pub close_wait: Vec<CloseWait>,
    /// Sockets in TIME_WAIT, and who closed first.
    pub time_wait: TimeWait,
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

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Netns {
    /// Its inode number (`net:[N]`).
    pub inode: u32,
    /// What `ip netns` or its first process calls it; `None` for the one that
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
    /// How many there are now, those of FIN_WAIT2 that nobody holds any more included.
    pub total: u64,
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

/// A socket of a process that leaks, at the moment at which it has been in
/// CLOSE_WAIT for longer than `--leak-age`.
#[derive(Clone, Debug, PartialEq)]
pub struct LeakEvent {
    /// When it was told (wall clock).
    pub time: WallNs,
    /// Process id.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Text,
    /// The socket.
    pub socket: WaitingSocket,
    /// Sockets of this process that are in CLOSE_WAIT now.
    pub sockets: u64,
}
