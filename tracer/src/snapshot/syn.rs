//! The part of the model that says what waits at listeners, and why.
//!
//! Counts are of the interval unless a field says otherwise.

use std::net::{IpAddr, SocketAddr};

use super::Netns;
use crate::{clock::WallNs, text::Text};

/// Listeners, and what the kernel counted of SYNs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SynBreakdown {
    /// Listeners, those in trouble first, then the fullest.
    pub listeners: Vec<Listener>,
    /// How many there are, those beyond the list included.
    pub listeners_total: u64,
    /// Network namespaces with a listener, tracer's own first.
    pub namespaces: Vec<NamespaceSyn>,
}

/// What is the matter with a listener, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SynVerdict {
    /// Nothing.
    #[default]
    Healthy,
    /// Not known: the counters of its namespace could not be read.
    NotJudged,
    /// More handshakes at once than its backlog holds, and their peers answer.
    Burst,
    /// The process does not accept what is ready.
    SlowAccept,
    /// Handshakes that nobody answers fill its SYN queue.
    Flood,
}

impl SynVerdict {
    /// Whether something is the matter.
    pub fn is_trouble(self) -> bool {
        self > Self::NotJudged
    }
}

/// A listener at the snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Process id and name of who listens, where that is known.
    pub process: Option<(u32, Text)>,
    /// Local address and port.
    pub local: SocketAddr,
    /// Network namespace.
    pub netns: Netns,
    /// Handshakes that wait for the peer's ACK.
    pub syn_queue: u32,
    /// Those whose SYN-ACK was not sent again yet.
    pub young: u32,
    /// Connections that wait for accept.
    pub accept_queue: u32,
    /// Most of either, as it was granted.
    pub backlog: u32,
    /// Cookies sent, those that came back and were valid, and those that were not;
    /// `None` where another listener of the namespace can have had them.
    pub cookies: Option<Cookies>,
    /// What connections by cookie have lost; `None` as with `cookies`.
    pub by_cookie: Option<ByCookie>,
    /// Whom its handshakes come from, while it is in trouble.
    pub sources: Option<SynSources>,
    /// SYNs and handshakes that it dropped.
    pub drops: u64,
    /// What is the matter.
    pub verdict: SynVerdict,
    /// What that is told by.
    pub why: String,
}

/// Connections by cookie. Without timestamps the cookie has no room for what the client
/// can do, and the connection goes without window scaling, SACK and ECN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByCookie {
    /// How many there are; with the next ones `None` where functions cannot be hooked.
    pub established: Option<u64>,
    /// Cookies that were good, and no connection came of it: the accept queue was full.
    pub refused: Option<u64>,
    /// Connections without timestamps.
    pub without_timestamps: u64,
    /// Without window scaling, whether the client asked for it or not, as with the next.
    pub without_window_scaling: Option<u64>,
    /// Without SACK.
    pub without_sack: Option<u64>,
    /// Without ECN.
    pub without_ecn: Option<u64>,
    /// Connections by maximum segment size in bytes, which the cookie rounds down; none
    /// where functions cannot be hooked.
    pub mss: Vec<(u16, u64)>,
}

/// Whom handshakes come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SynSources {
    /// Different addresses.
    pub addresses: u64,
    /// What was counted for it.
    pub of: SourcesOf,
    /// Handshakes that the prefixes are counted in.
    pub sampled: u64,
    /// Prefixes that stand out, with their part of those, the largest first.
    pub prefixes: Vec<Prefix>,
}

/// What addresses were counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourcesOf {
    /// Requests that were in the SYN queue when it was looked at.
    #[default]
    Queue,
    /// All that were sent a cookie since two minutes without any: an estimate.
    Cookies,
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The first of them.
    pub address: IpAddr,
    /// How many bits they have in common.
    pub length: u8,
    /// Handshakes from them.
    pub sampled: u64,
}

/// SYN cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cookies {
    /// `SyncookiesSent`.
    pub sent: u64,
    /// `SyncookiesRecv`.
    pub valid: u64,
    /// `SyncookiesFailed`.
    pub failed: u64,
}

/// What a namespace lets its listeners have; `None` where a setting cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynSettings {
    /// `tcp_syncookies`: 0 never, 1 when the SYN queue is full, 2 always.
    pub syncookies: Option<u32>,
    /// `tcp_max_syn_backlog`, in requests.
    pub max_syn_backlog: Option<u32>,
    /// `somaxconn`: the longest backlog, in connections.
    pub somaxconn: Option<u32>,
}

impl SynSettings {
    /// Whether cookies are sent although no queue is full.
    pub fn always_sends(&self) -> bool {
        self.syncookies == Some(2)
    }
}

/// A network namespace's own counters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceSyn {
    /// Which.
    pub netns: Netns,
    /// Its settings.
    pub settings: SynSettings,
    /// Cookies of all its listeners.
    pub cookies: Cookies,
    /// `TCPReqQFullDrop`: SYNs dropped, as the SYN queue was full.
    pub syn_queue_full_drops: u64,
    /// `ListenOverflows`: the accept queue was full.
    pub accept_queue_full: u64,
    /// `ListenDrops`: SYNs and handshakes dropped for whatever reason.
    pub drops: u64,
}

/// A listener gets into trouble, or out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SynEvent {
    /// When it was told (wall clock).
    pub time: WallNs,
    /// What is the matter, or was.
    pub verdict: SynVerdict,
    /// Whether it is over; for how long it lasted, in ns.
    pub lasted_ns: Option<u64>,
    /// The listener, as of now.
    pub listener: Listener,
}
