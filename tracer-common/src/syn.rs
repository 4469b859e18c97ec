//! Listeners, and what waits at them.

use crate::COMM_BYTES;

/// Most listeners that are kept.
pub const LISTENERS: u32 = 8192;

/// Who listens: the process that called listen(2), or one that was found with the socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// Process id.
    pub tgid: u32,
    /// Always 0.
    pub reserved: u32,
    /// Name of the task.
    pub comm: [u8; COMM_BYTES],
}

/// A socket in LISTEN, or what was one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerRecord {
    /// Its address in the kernel.
    pub socket: u64,
    /// Local address, of which IPv4 has the first four bytes.
    pub local: [u8; 16],
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Handshakes that wait for the peer's ACK (`icsk_accept_queue.qlen`).
    pub requests: u32,
    /// Those of them whose SYN-ACK was not sent again yet (`icsk_accept_queue.young`).
    pub young: u32,
    /// Connections that wait for accept (`sk_ack_backlog`).
    pub accept_queue: u32,
    /// Most of either, as it was granted (`sk_max_ack_backlog`).
    pub backlog: u32,
    /// SYNs and handshakes that it dropped (`sk_drops`), wrapping.
    pub drops: u32,
    /// Its state; another than LISTEN says that it is none any more.
    pub state: u32,
    /// AF_INET or AF_INET6 (include/linux/socket.h).
    pub family: u16,
    /// Local port.
    pub port: u16,
    /// Who listens.
    pub who: Listening,
}
