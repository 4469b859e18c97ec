//! A simultaneous close (RFC 9293, section 3.6): both ends go FIN_WAIT1, CLOSING.
//!
//! For that the FINs must cross on their way, which they never do by themselves on
//! loopback. So both ends hear nothing while they close, which loses the FINs, and
//! then each gets its peer's FIN as it was sent, forged: sent again by the kernel it
//! would acknowledge the other one.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use super::{
    checked,
    socket::{self, Family, raw_address},
};
use crate::time::eventually;

/// Where a TCP header has its checksum.
const CHECKSUM: usize = 16;
const HEADER: usize = 20;
const FIN_ACK: u8 = 0x11;

/// Sends packets that no socket has made, from the namespace it was made in.
pub(super) struct Forger(OwnedFd);

impl Forger {
    /// For packets of a family.
    pub(super) fn new(family: Family) -> io::Result<Self> {
        let domain = if family.is_v6() {
            libc::AF_INET6
        } else {
            libc::AF_INET
        };
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: touches no memory; the descriptor is new and nobody else's.
        let forger = unsafe {
            let fd = checked(libc::socket(domain, kind, libc::IPPROTO_TCP))?;
            Self(OwnedFd::from_raw_fd(fd))
        };
        // It would get a copy of every packet.
        socket::deafen(&forger.0)?;
        Ok(forger)
    }

    /// Sends a FIN.
    fn fin(&self, from: SocketAddr, to: SocketAddr, number: u32, next: u32) -> io::Result<()> {
        let mut header = Vec::with_capacity(HEADER);
        header.extend(from.port().to_be_bytes());
        header.extend(to.port().to_be_bytes());
        header.extend(number.to_be_bytes());
        header.extend(next.to_be_bytes());
        // Its length in words, its flags, a window.
        header.extend([5 << 4, FIN_ACK, 2, 0]);
        header.extend([0; 4]);
        let sum = checksum(from.ip(), to.ip(), &header).to_be_bytes();
        if let Some(place) = header.get_mut(CHECKSUM..CHECKSUM + 2) {
            place.copy_from_slice(&sum);
        }
        // A raw socket of IPv6 takes no port.
        let (address, length) = raw_address((to.ip(), 0).into());
        // SAFETY: header and address are valid for their lengths.
        let sent = unsafe {
            let bytes = header.as_ptr().cast();
            let to = (&raw const address).cast();
            libc::sendto(self.0.as_raw_fd(), bytes, header.len(), 0, to, length)
        };
        checked(sent as i32).map(drop)
    }
}

/// Closes both ends for writing at once. The client is in TIME_WAIT then, and the
/// server goes there when it has sent its FIN again.
///
/// # Errors
/// Packets that the kernel sent by itself came between.
pub(super) fn close(
    client: &TcpStream,
    server: &TcpStream,
    [from_client, from_server]: &[Forger; 2],
) -> io::Result<()> {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (of_client, of_server) = (plain(client.local_addr()?), plain(client.peer_addr()?));
    let next_of_client = socket::next_to_send(client)?;
    let next_of_server = socket::next_to_send(server)?;
    for end in [client, server] {
        socket::deafen(end)?;
    }
    for end in [client, server] {
        end.shutdown(std::net::Shutdown::Write)?;
        must_be(end, "FIN_WAIT1")?;
    }
    // What the client answers does not get through.
    socket::hear(client)?;
    from_server.fin(of_server, of_client, next_of_server, next_of_client)?;
    must_be(client, "CLOSING")?;
    socket::hear(server)?;
    from_client.fin(of_client, of_server, next_of_client, next_of_server)?;
    // What the server answers does; of a socket in TIME_WAIT only its remains know.
    must_be(server, "CLOSING")?;
    must_be(client, "CLOSE")
}

/// A packet can take a moment, less than what a FIN that was lost takes to be sent again.
fn must_be(socket: &TcpStream, expected: &str) -> io::Result<()> {
    let mut state = "";
    let is_so = eventually(0.1, || {
        state = socket::state(socket).unwrap_or("");
        state == expected
    });
    if is_so {
        return Ok(());
    }
    Err(io::Error::other(format!("{state}, not {expected}")))
}

/// RFC 9293, section 3.1: over the pseudo header and the segment.
fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let octets = |address| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let length = segment.len() as u32;
    let mut bytes = [octets(from), octets(to)].concat();
    bytes.extend(length.to_be_bytes());
    bytes.extend((libc::IPPROTO_TCP as u32).to_be_bytes());
    bytes.extend(segment);
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
