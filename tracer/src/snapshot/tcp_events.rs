//! What is notable of TCP sockets.

use std::net::{IpAddr, SocketAddr};

use super::{Netns, TcpState, Timer, WaitingSocket};
use crate::{clock::WallNs, text::Text};

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
    /// Where most of them were opened, as `CloseWait::stack`.
    pub stack: Vec<Text>,
}

/// Many connections of a network namespace end in resets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResetStorm {
    /// When it was told (wall clock).
    pub time: WallNs,
    /// Where.
    pub netns: Netns,
    /// Resets sent, each second (`OutRsts`).
    pub sent_per_s: f64,
    /// Connections that a reset ended, each second (`EstabResets`).
    pub connections_per_s: f64,
}

/// A peer that does not answer: connections to it were closed here, and it does not
/// acknowledge that, or does not close.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadPeer {
    /// When it was told (wall clock).
    pub time: WallNs,
    /// Network namespace.
    pub netns: Netns,
    /// The peer.
    pub peer: IpAddr,
    /// Connections to it that are stuck.
    pub sockets: u64,
    /// The one that is stuck for the longest: its state.
    pub state: TcpState,
    /// For how long at least, in ns.
    pub age_ns: u64,
    /// Its local address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Its timer.
    pub timer: Timer,
}
