//! The sockets of a namespace, as the kernel dumps them (sock_diag(7)).
//!
//! Both families; v4-mapped ones are of family v6. Sockets that only have a
//! port are left out.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{
    netlink::{Request, u32_at},
    states::{self, States},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `inet_diag_req_v2` is a head of 8 bytes and an id of a socket.
const HEAD: usize = 8;
const ID: usize = 48;
/// All states that there are names for. From 6.8 on a further one stands for sockets
/// that only have a port.
const STATES: u32 = 0xfff;
/// The timer of a socket that is only the remains of one (`inet_twsk_diag_fill`).
const TIMER_OF_REMAINS: u8 = 3;

/// A socket that the kernel told of.
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    /// Its state, by the kernel's name.
    pub state: &'static str,
    /// Whether it is what is left of a socket for TIME_WAIT. Such a one can be in
    /// FIN_WAIT2, when nobody holds it any more and the peer's FIN is to come.
    pub is_remains: bool,
    /// Its own address.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Its inode, 0 when no descriptor is open.
    pub inode: u32,
}

/// All TCP sockets of the namespace that this thread is in.
///
/// # Errors
/// The kernel has no sock_diag.
pub fn sockets() -> io::Result<Vec<Socket>> {
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = [0_u8; HEAD + ID];
        let [of_family, protocol, ..] = &mut request;
        *of_family = family as u8;
        *protocol = libc::IPPROTO_TCP as u8;
        request[4..HEAD].copy_from_slice(&STATES.to_ne_bytes());
        let request = Request::new(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, &request);
        let bodies = request.talk(libc::NETLINK_SOCK_DIAG)?;
        all.extend(bodies.iter().filter_map(|body| socket(body)));
    }
    Ok(all)
}

/// How many of them are in each state.
pub fn count<'a>(sockets: impl IntoIterator<Item = &'a Socket>) -> States {
    let mut states = States::new();
    for socket in sockets {
        *states.entry(socket.state.to_owned()).or_default() += 1;
    }
    states
}

impl Socket {
    /// Whether one of its ends is at one of these ports.
    pub fn is_of(&self, ports: &[u16]) -> bool {
        ports.contains(&self.local.port()) || ports.contains(&self.remote.port())
    }
}

/// Whether none of the sockets of these ports has anything left to do, in the
/// namespace that this thread is in.
///
/// # Errors
/// The kernel has no sock_diag.
pub fn are_at_rest(ports: &[u16]) -> io::Result<bool> {
    let is_at_work = |s: &Socket| s.is_of(ports) && !s.is_remains && s.state != "LISTEN";
    Ok(!sockets()?.iter().any(is_at_work))
}

/// An `inet_diag_msg`.
fn socket(body: &[u8]) -> Option<Socket> {
    let [family, state, timer, ..] = *body else {
        return None;
    };
    let port = |at: usize| {
        let bytes = body.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    let address = |at: usize| -> Option<IpAddr> {
        if i32::from(family) == libc::AF_INET {
            let bytes: [u8; 4] = body.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(bytes).into())
        } else {
            let bytes: [u8; 16] = body.get(at..at + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
    };
    Some(Socket {
        state: states::name(state),
        is_remains: timer == TIMER_OF_REMAINS,
        local: (address(8)?, port(4)?).into(),
        remote: (address(24)?, port(6)?).into(),
        inode: u32_at(body, 4 + ID + 16)?,
    })
}
