//! The TCP sockets of a network namespace, as the kernel lists them over
//! NETLINK_SOCK_DIAG (`inet_diag_dump_icsk`, net/ipv4/inet_diag.c).
//!
//! A list is no snapshot. The kernel walks its tables while sockets come and go:
//! each that lives unchanged throughout is listed once, one that changes may be
//! listed twice or not at all. The tables are those of all namespaces, and are
//! walked once a family: with 100,000 sockets in one namespace a dump takes some
//! 0.1 s there, and 35 ms in every other one.
//!
//! netlink-sys is used for the socket alone: netlink-packet-sock-diag drops the
//! time that is left in TIME_WAIT and the probes of a keepalive.

mod message;

use std::{io, net::SocketAddr};

use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use thiserror::Error;

use self::message::{request, take_in};

/// The kernel fills 32 KiB at most at a time (`netlink_recvmsg`).
const BUFFER_BYTES: usize = 64 << 10;

/// Why the sockets cannot be listed.
#[derive(Debug, Error)]
pub enum SockDiagError {
    /// No netlink socket can be had, or used.
    #[error(
        "cannot {operation} a netlink socket for the list of TCP sockets: {source}; \
         a system-call filter can be why"
    )]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel has an error for an answer.
    #[error(
        "the kernel does not list TCP sockets: {source}; \
         it takes CONFIG_INET_DIAG, or `modprobe tcp_diag`"
    )]
    Refused {
        /// Its answer.
        source: io::Error,
    },
    /// The answer has no end.
    #[error("the kernel's list of TCP sockets broke off; please report the kernel's version")]
    BrokenOff,
}

/// States to list, a bit for each number of include/net/tcp_states.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(pub u32);

impl States {
    /// ESTABLISHED (1) to NEW_SYN_RECV (12).
    pub const ALL: Self = Self(0x1ffe);

    /// The same, and sockets that are bound and not connected (`TCP_BOUND_INACTIVE`, from
    /// 6.8; older kernels pass it over). Those are listed as CLOSE.
    pub const ALL_AND_BOUND: Self = Self(0x3ffe);

    /// These alone. For TIME_WAIT (6) that is without the sockets of FIN_WAIT2
    /// (5) that nobody holds any more, which the kernel keeps alike.
    pub fn of(states: &[u8]) -> Self {
        let bit = |&state: &u8| 1_u32.checked_shl(state.into()).unwrap_or(0);
        Self(states.iter().map(bit).fold(0, |all, bit| all | bit))
    }
}

/// A socket in a list (`struct inet_diag_msg`, include/uapi/linux/inet_diag.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketEntry {
    /// `sk_cookie`: the number that the host never gives to another socket, in
    /// any namespace. A connection keeps it from its SYN_RECV to its TIME_WAIT;
    /// BPF has it from `bpf_get_socket_cookie`.
    pub cookie: u64,
    /// Its state. A handshake of NEW_SYN_RECV (12) is listed as SYN_RECV (3). In
    /// FIN_WAIT2 (5) with `timer` 3 it is one that nobody holds any more.
    pub state: u8,
    /// Whether it is a request, of which there is no socket yet. Whoever asks for
    /// SYN_RECV is told of requests too, for NEW_SYN_RECV or not; 6.18 was seen to list
    /// a half of them without.
    pub is_request: bool,
    /// Inode number; 0 where there is none: SYN_RECV, TIME_WAIT, not yet
    /// accepted, or closed.
    pub inode: u32,
    /// User id of the owner, 0 in SYN_RECV and TIME_WAIT.
    pub uid: u32,
    /// Local address and port. A socket of AF_INET6 that speaks IPv4 has
    /// addresses of IPv6, `::ffff:a.b.c.d`, as the kernel has it. There is no
    /// scope id.
    pub local: SocketAddr,
    /// The peer's; of a listener all zeros.
    pub remote: SocketAddr,
    /// Its timer: 0 none, 1 retransmission, 2 keepalive, 3 TIME_WAIT, 4 probe of a
    /// closed window.
    pub timer: u8,
    /// Retransmissions for `timer` 1, probes for 2 and 4.
    pub retransmits: u8,
    /// Time until the timer is due, in ms.
    pub expires_ms: u32,
    /// Bytes that the process has not read; of a listener, connections that it
    /// has not accepted.
    pub receive_queue: u32,
    /// Bytes that the peer has not acknowledged; of a listener, its backlog.
    pub send_queue: u32,
}

/// How a list came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// Sockets listed.
    pub sockets: u64,
    /// Whether the kernel says that its tables changed so much that sockets are
    /// missing (`NLM_F_DUMP_INTR`). Up to 6.18 it never says so of sockets.
    pub is_interrupted: bool,
    /// Bytes that were no message of the kind asked for: 0 unless the kernel and
    /// this build do not match.
    pub undecodable_bytes: u64,
}

/// A way to list the TCP sockets of one namespace.
#[derive(Debug)]
pub struct SockDiag {
    socket: Socket,
    sequence: u32,
}

impl SockDiag {
    /// For the namespace that the calling thread is in. It stays with that
    /// namespace, whichever thread uses it later, and keeps it alive: use
    /// `namespaces::within` once. Takes no rights.
    ///
    /// # Errors
    /// The socket cannot be had.
    pub fn open() -> Result<Self, SockDiagError> {
        let socket = Socket::new(NETLINK_SOCK_DIAG).map_err(at("open"))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Hands over each TCP socket in one of these states, those of IPv4 first.
    /// Within a family listeners come first; there is no other order.
    ///
    /// # Errors
    /// The kernel refuses, or its answer breaks off. What was handed over until
    /// then is true, but not all; for the next list, open anew.
    pub fn dump(
        &mut self,
        states: States,
        mut on_socket: impl FnMut(SocketEntry),
    ) -> Result<Dump, SockDiagError> {
        let mut dump = Dump::default();
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        for family in [libc::AF_INET, libc::AF_INET6] {
            self.sequence = self.sequence.wrapping_add(1);
            let request = request(family as u8, states, self.sequence);
            self.socket.send(&request, 0).map_err(at("write to"))?;
            loop {
                self.receive(&mut buffer)?;
                if take_in(&buffer, self.sequence, &mut dump, &mut on_socket)? {
                    break;
                }
            }
        }
        Ok(dump)
    }

    /// The next part of the answer; none if a signal came in between.
    fn receive(&self, buffer: &mut Vec<u8>) -> Result<(), SockDiagError> {
        buffer.clear();
        // The kernel writes each part before the call returns that asks for it.
        // When there is nothing, nothing will come.
        match self.socket.recv(buffer, libc::MSG_DONTWAIT) {
            Ok(1..) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(at("read from")(error)),
            Ok(0) | Err(_) => Err(SockDiagError::BrokenOff),
        }
    }
}

fn at(operation: &'static str) -> impl Fn(io::Error) -> SockDiagError {
    move |source| SockDiagError::Socket { operation, source }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write as _},
        iter,
        net::{TcpListener, TcpStream},
    };

    use super::{SockDiag, SocketEntry, States};
    use crate::host::namespaces::{Namespaces, of_process, within};
    use crate::host::stranger::Stranger;

    const ESTABLISHED: u8 = 1;
    const LISTEN: u8 = 10;

    fn listed(states: States) -> Vec<SocketEntry> {
        let mut entries = Vec::new();
        let mut diag = SockDiag::open().unwrap();
        let dump = diag.dump(states, |entry| entries.push(entry)).unwrap();
        assert_eq!(
            (dump.sockets, dump.undecodable_bytes),
            (entries.len() as u64, 0)
        );
        entries
    }

    #[test]
    fn states_as_bits() {
        assert_eq!(States::of(&[ESTABLISHED, LISTEN]), States(1 << 1 | 1 << 10));
        assert_eq!(States::of(&(1..=12).collect::<Vec<_>>()), States::ALL);
        assert_eq!(States::of(&[255]), States(0));
    }

    #[test]
    fn the_kernel_lists_own_sockets_with_what_they_hold() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                println!("SKIPPED the_kernel_lists_own_sockets_with_what_they_hold: no {address}");
                continue;
            };
            let server = listener.local_addr().unwrap();
            let mut client = TcpStream::connect(server).unwrap();
            let (accepted, client_address) = listener.accept().unwrap();
            client.write_all(b"unread").unwrap();
            while accepted.peek(&mut [0; 6]).unwrap() < 6 {}
            let waiting = TcpStream::connect(server).unwrap();

            // A handshake ends here a moment after it does for the client.
            let is_queued =
                |e: &SocketEntry| (e.local, e.state, e.receive_queue) == (server, LISTEN, 1);
            let lists = iter::repeat_with(|| listed(States::ALL)).take(10_000);
            let mut complete = lists.skip_while(|all| !all.iter().any(is_queued));
            let all = complete.next().unwrap();
            let find = |local, remote: Option<_>| {
                let is = |e: &&SocketEntry| {
                    e.local == local && remote.is_none_or(|remote| e.remote == remote)
                };
                *all.iter().find(is).unwrap()
            };
            let ours = find(server, Some(client_address));
            assert_eq!((ours.state, ours.receive_queue), (ESTABLISHED, 6));
            assert_ne!((ours.cookie, ours.inode), (0, 0));
            assert_eq!(find(client_address, Some(server)).state, ESTABLISHED);
            let unaccepted = find(server, Some(waiting.local_addr().unwrap()));
            assert_eq!((unaccepted.state, unaccepted.inode), (ESTABLISHED, 0));

            let filtered = listed(States::of(&[LISTEN]));
            assert!(filtered.iter().all(|e| e.state == LISTEN));
            assert!(filtered.iter().any(|e| e.local == server));
            drop(accepted);
        }
    }

    #[test]
    fn a_list_can_be_asked_for_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let mut diag = SockDiag::open().unwrap();
        let mut cookies = Vec::new();
        for _ in 0..3 {
            let note = |entry: SocketEntry| {
                if entry.local == local {
                    cookies.push(entry.cookie);
                }
            };
            diag.dump(States::of(&[LISTEN]), note).unwrap();
        }
        assert_eq!(cookies.len(), 3);
        assert!(cookies.iter().all(|cookie| *cookie == cookies[0]));
    }
    #[test]
    fn a_list_is_of_the_namespace_that_it_was_opened_in() {
        const NAME: &str = "a_list_is_of_the_namespace_that_it_was_opened_in";
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let stranger = match Stranger::start() {
            Ok(stranger) => stranger,
            Err(error) => return println!("SKIPPED {NAME}: {error}"),
        };
        let namespaces = Namespaces::find().unwrap();
        let other = of_process(stranger.pid()).and_then(|inode| namespaces.get(inode));
        let theirs = || -> io::Result<_> {
            let listener = TcpListener::bind("0.0.0.0:0")?;
            Ok((SockDiag::open().unwrap(), listener.local_addr()?, listener))
        };
        let (mut diag, theirs, _listener) = match within(other.unwrap(), theirs) {
            Ok(opened) => opened.unwrap(),
            Err(error) => return println!("SKIPPED {NAME}: {error}"),
        };
        let mut locals = Vec::new();
        let note = |entry: SocketEntry| locals.push(entry.local);
        diag.dump(States::ALL, note).unwrap();
        assert_eq!(locals, [theirs]);
        assert!(listed(States::ALL).iter().any(|entry| entry.local == local));
    }
}
