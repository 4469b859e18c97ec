//! TCP sockets: transitions between states, who makes and closes connections,
//! sockets that the peer has closed.

use crate::COMM_BYTES;

/// `TCP_ESTABLISHED` and so on, include/net/tcp_states.h.
pub const ESTABLISHED: u32 = 1;
/// `TCP_SYN_SENT`.
pub const SYN_SENT: u32 = 2;
/// `TCP_SYN_RECV`.
pub const SYN_RECV: u32 = 3;
/// `TCP_FIN_WAIT1`.
pub const FIN_WAIT1: u32 = 4;
/// `TCP_FIN_WAIT2`.
pub const FIN_WAIT2: u32 = 5;
/// `TCP_TIME_WAIT`: never of a `struct sock`, so no transition has it.
pub const TIME_WAIT: u32 = 6;
/// `TCP_CLOSE`.
pub const CLOSE: u32 = 7;
/// `TCP_CLOSE_WAIT`.
pub const CLOSE_WAIT: u32 = 8;
/// `TCP_LISTEN`.
pub const LISTEN: u32 = 10;
/// Room for the numbers of all states.
pub const STATES: usize = 16;
/// Pairs of states: the pair `from`, `to` is at `from * STATES + to`.
pub const PAIRS: usize = STATES * STATES;

/// How often sockets went from one state to another, all namespaces together.
pub type Matrix = [u64; PAIRS];
/// What one CPU has counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// How often sockets of tracer's own network namespace went from one state to
    /// another: what came into a state and left it follows from that.
    pub own: Matrix,
    /// Those of all other namespaces.
    pub others: Matrix,
    /// The socket whose transition the first hook has taken, until the second has seen
    /// it; see tcp.rs of the kernel side.
    pub taken: u64,
    /// The state that it leaves.
    pub taken_from: u64,
    /// The socket of a transition that an interrupt makes in between.
    pub taken_inside: u64,
    /// Transitions that the first hook was not run for, and that the second took.
    pub nested: u64,
}

/// Of a namespace that is not tracer's own: how many sockets came into each state, then how many left it; all
/// wrapping.
pub type Moves = [u32; 2 * STATES];
/// What came into each state less what left it, wrapping.
pub type Population = [u64; STATES];

/// Most network namespaces that are told apart.
pub const NAMESPACES: u32 = 512;
/// Slots for pairs of a process and a port, a power of two.
pub const ACTORS: u32 = 4096;
/// Slots for ports that connections are counted by, a power of two.
pub const PORTS: u32 = 1024;

/// Slots for sockets in CLOSE_WAIT.
pub const WAITING_SLOTS: u32 = 8192;
/// Most sockets in CLOSE_WAIT whose slot was taken by another.
pub const WAITING: u32 = 65_536;

/// A connection that was accepted: it is known by its local port.
pub const ACCEPTED: u16 = 0;
/// A connection that was made: it is known by its remote port.
pub const CONNECTED: u16 = 1;

/// A slot of a table of counters, in an array that user space maps into its memory.
/// The key is `id | port << 32 | side << 48 | life << 49`: `id` is a process (thread group
/// id) or the inode number of a network namespace, `port` the local port of accepted
/// connections and the remote port of others, `side` [`ACCEPTED`] or [`CONNECTED`], `life`
/// a hash that tells processes of one number apart (0 of a namespace). 0 is a free slot,
/// [`LEAVING`] one that user space is about to free.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot<T> {
    /// Of what.
    pub key: u64,
    /// The counters.
    pub value: T,
}

/// Key of a slot that nothing is added to any more, and that cannot be taken yet.
pub const LEAVING: u64 = u64::MAX;

/// A key is in one of so many slots from the one that its hash falls on.
pub const SLOTS_TRIED: u32 = 8;

/// What a process did with the connections of a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActorTotals {
    /// Connections it began.
    pub opened: u64,
    /// Connections it was first to close.
    pub closed_first: u64,
    /// `start_time` of the process (CLOCK_MONOTONIC, ns); 0 until the slot's first use.
    pub start_ns: u64,
    /// `self_exec_id`: how many programs it and its parents had run, which makes another
    /// program another actor.
    pub execs: u64,
    /// Name of the process when it last opened or closed one: foreign bytes, ended by a zero.
    pub comm: [u8; COMM_BYTES],
}

/// Buckets of times: bucket `n` has those from 2^n us on, the first those below
/// 2 us too, the last all longer ones.
pub const TIME_BUCKETS: usize = 32;

/// What became of the connections of a port in a network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTotals {
    /// Became ESTABLISHED, and the kernel has not measured a time.
    pub unmeasured: u64,
    /// The others: time between SYN and ACK, or SYN-ACK and ACK, as the kernel measured it.
    pub handshakes: [u64; TIME_BUCKETS],
    /// Time from the peer's FIN to the close here.
    pub held: [u64; TIME_BUCKETS],
}

/// A socket that the peer has closed, until it is closed here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Its address; 0 in a slot that is free.
    pub socket: u64,
    /// The peer's FIN (CLOCK_MONOTONIC, ns); 0 for before tracer's start.
    pub since_ns: u64,
}

/// A socket in CLOSE_WAIT, as the iterator finds it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitingRecord {
    /// Its address: which one it is, as long as it lives.
    pub socket: u64,
    /// The peer's FIN (CLOCK_MONOTONIC, ns); 0 for before tracer's start.
    pub since_ns: u64,
    /// Identity of its cgroup (v2); 0 for none.
    pub cgroup: u64,
    /// When its timer is due, in jiffies.
    pub due_jiffies: u64,
    /// Local address: IPv6, or IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// The peer's.
    pub remote: [u8; 16],
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Jiffies since the last ACK came in.
    pub idle_jiffies: u32,
    /// Bytes that nobody has read, the FIN not counted.
    pub unread_bytes: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Local port.
    pub local_port: u16,
    /// The peer's.
    pub remote_port: u16,
    /// One of [`TIMER_OFF`] and so on.
    pub timer: u8,
    /// Retransmissions so far.
    pub retransmits: u8,
    /// Probes so far, of the window or of the peer's life.
    pub probes: u8,
    /// Whether a file describes it; without, nobody has accepted it.
    pub has_file: u8,
    /// Its state: another than CLOSE_WAIT is that of a socket which has just left it.
    pub state: u8,
    /// [`ACCEPTED`] or [`CONNECTED`].
    pub side: u8,
    /// Always 0.
    pub reserved: [u8; 8],
}

/// No timer runs.
pub const TIMER_OFF: u8 = 0;
/// It sends again (`icsk_pending`: `ICSK_TIME_RETRANS`, `ICSK_TIME_LOSS_PROBE`).
pub const TIMER_RETRANSMIT: u8 = 1;
/// It asks whether the peer lives (`sk_timer`).
pub const TIMER_KEEPALIVE: u8 = 2;
/// It asks whether the peer's window is open (`ICSK_TIME_PROBE0`).
pub const TIMER_WINDOW_PROBE: u8 = 4;

/// A descriptor of a socket in CLOSE_WAIT or LISTEN.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HolderRecord {
    /// Address of the socket.
    pub socket: u64,
    /// `start_time` of the process that holds it (CLOCK_MONOTONIC, ns).
    pub start_ns: u64,
    /// That process.
    pub tgid: u32,
    /// The descriptor.
    pub fd: u32,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// Its local port.
    pub port: u16,
    /// Its state.
    pub state: u16,
    /// Name of the process: foreign bytes, ended by a zero.
    pub comm: [u8; COMM_BYTES],
}

/// Reasons of resets that are told apart, by the kernel's number; the last is for all
/// from there on.
pub const RESET_REASONS: u32 = 64;

/// Most processes whose openings are watched at a time.
pub const SUSPECTS: u32 = 64;
/// Bytes of a user stack that are brought back.
pub const OPENING_STACK: usize = 8192;
/// They are read in parts of this size: less than that is left at the stack's end.
pub const OPENING_STACK_PART: usize = 512;

/// A connection that a suspected process has just accepted or begun to make.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpeningRecord {
    /// Address of the socket.
    pub socket: u64,
    /// When (CLOCK_MONOTONIC, ns).
    pub at_ns: u64,
    /// Registers of the process: program counter, stack pointer, frame pointer.
    pub pc: u64,
    /// See `pc`.
    pub sp: u64,
    /// See `pc`.
    pub fp: u64,
    /// `start_time` of that process (CLOCK_MONOTONIC, ns).
    pub start_ns: u64,
    /// Its `self_exec_id`.
    pub execs: u64,
    /// That process.
    pub tgid: u32,
    /// Local port.
    pub local_port: u16,
    /// The peer's.
    pub remote_port: u16,
    /// How many bytes of `stack` there are.
    pub length: u64,
    /// The stack, from `sp` on.
    pub stack: [u8; OPENING_STACK],
}

/// A transition while user space counts the sockets from before the start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeedRecord {
    /// `sk_cookie`, as sock_diag has it. 0 from LISTEN to SYN_RECV: there the child still
    /// has its listener's (`inet_csk_clone_lock`, net/ipv4/inet_connection_sock.c).
    pub cookie: u64,
    /// Address of the `sock`, by which a child is known until it has a cookie.
    pub socket: u64,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// State before.
    pub from: u16,
    /// State after.
    pub to: u16,
}

/// What user space asks of the hooks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpControl {
    /// 0 as long as transitions are to be reported one by one.
    pub is_seeded: u64,
}
