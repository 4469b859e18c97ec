//! What of sockets the standard library does not have.

use std::{
    io::{self, IoSliceMut},
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd},
    os::unix::net::UnixStream,
    ptr,
};

use super::{checked, states};

/// Sockets that wait to be accepted: more than are ever under way at once.
const BACKLOG: i32 = 4096;

// include/uapi/linux/tcp.h
const REPAIR: i32 = 19;
const REPAIR_QUEUE: i32 = 20;
const QUEUE_SEQ: i32 = 21;
const OFF_WITHOUT_PROBE: i32 = -1;
const SEND_QUEUE: i32 = 2;

/// What the sockets of a connection are, and what their packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// IPv6 sockets whose packets are of IPv4.
    Mapped,
}

impl Family {
    /// By its word: `v4`, `v6` or `mapped`.
    pub fn of(word: &str) -> Self {
        match word {
            "v4" => Self::V4,
            "v6" => Self::V6,
            "mapped" => Self::Mapped,
            _ => panic!("no family {word}"),
        }
    }

    /// Whether its packets are of IPv6.
    pub fn is_v6(self) -> bool {
        self == Self::V6
    }

    /// This host's own address.
    pub fn loopback(self) -> IpAddr {
        if self.is_v6() {
            Ipv6Addr::LOCALHOST.into()
        } else {
            Ipv4Addr::LOCALHOST.into()
        }
    }

    /// An address as sockets of this family say it.
    pub fn spelled(self, address: IpAddr) -> IpAddr {
        match (self, address) {
            (Self::Mapped, IpAddr::V4(v4)) => v4.to_ipv6_mapped().into(),
            _ => address,
        }
    }

    /// Where any address of this family is listened at.
    fn unspecified(self) -> IpAddr {
        if self == Self::V4 {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        }
    }
}

/// Listens at a port of the kernel's choice, with room for all that comes.
pub(super) fn listen(family: Family) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((family.unspecified(), 0))?;
    // SAFETY: touches no memory.
    checked(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) })?;
    Ok(listener)
}

/// A socket that has a port and answers nobody: who connects there is refused.
pub(super) fn deaf(family: Family) -> io::Result<(OwnedFd, u16)> {
    let socket = new(family, 0)?;
    let (address, length) = raw_address((family.unspecified(), 0).into());
    // SAFETY: the address is valid for its length.
    checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    // std has no type for such a socket; of this one only the address is asked.
    let socket = TcpStream::from(socket);
    let port = socket.local_addr()?.port();
    Ok((socket.into(), port))
}

/// Begins to connect, and does not wait for the outcome.
pub(super) fn begin_to_connect(family: Family, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::from(new(family, libc::SOCK_NONBLOCK)?);
    // Of three tries at most, the last one half a second after the one before it.
    set(&socket, libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1500)?;
    let (address, length) = raw_address(to);
    // SAFETY: the address is valid for its length.
    let done =
        checked(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) });
    match done {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("it is connected already")),
    }
}

/// Binds a port of the kernel's choice on an address of IPv4, then connects.
///
/// # Errors
/// There is no port left (EADDRINUSE), or nobody listens there.
pub fn bind_and_connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::from(new(Family::V4, 0)?);
    for (call, address) in [
        (
            libc::bind as unsafe extern "C" fn(_, _, _) -> _,
            SocketAddr::new(from, 0),
        ),
        (libc::connect, to),
    ] {
        let (address, length) = raw_address(address);
        // SAFETY: the address is valid for its length.
        checked(unsafe { call(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    }
    Ok(socket)
}

fn new(family: Family, flags: i32) -> io::Result<OwnedFd> {
    let domain = if family == Family::V4 {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags;
    // SAFETY: touches no memory; the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(checked(libc::socket(domain, kind, 0))?) })
}

/// An address as the kernel takes it.
pub(super) fn raw_address(address: SocketAddr) -> (libc::sockaddr_in6, libc::socklen_t) {
    // SAFETY: all zeroes are a valid address; one of IPv4 is the shorter of the two.
    let mut raw: libc::sockaddr_in6 = unsafe { mem::zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let raw = (&raw mut raw).cast::<libc::sockaddr_in>();
            // SAFETY: it has room for one, and is aligned for more.
            unsafe {
                (*raw).sin_family = libc::AF_INET as u16;
                (*raw).sin_port = v4.port().to_be();
                (*raw).sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            }
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            raw.sin6_family = libc::AF_INET6 as u16;
            raw.sin6_port = v6.port().to_be();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            size_of::<libc::sockaddr_in6>()
        }
    };
    (raw, length as libc::socklen_t)
}

/// Makes the close of a socket a reset.
pub(super) fn reset_at_close(socket: &TcpStream) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set(socket, libc::SOL_SOCKET, libc::SO_LINGER, linger)
}

/// Lets no packet in: they are gone as if the wire had lost them.
pub(super) fn deafen(socket: &impl AsRawFd) -> io::Result<()> {
    let mut refuse = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut refuse,
    };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
}

/// Lets packets in again.
pub(super) fn hear(socket: &impl AsRawFd) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0)
}

/// The number of the next byte that it sends.
pub(super) fn next_to_send(socket: &TcpStream) -> io::Result<u32> {
    set(socket, libc::IPPROTO_TCP, REPAIR, 1)?;
    set(socket, libc::IPPROTO_TCP, REPAIR_QUEUE, SEND_QUEUE)?;
    let number = get(socket, libc::IPPROTO_TCP, QUEUE_SEQ);
    set(socket, libc::IPPROTO_TCP, REPAIR, OFF_WITHOUT_PROBE)?;
    number
}

/// Its state, by the kernel's name.
pub(super) fn state(socket: &TcpStream) -> io::Result<&'static str> {
    // The first byte of `tcp_info`.
    let info: u8 = get(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    Ok(states::name(info))
}

/// Sets an option.
pub(super) fn set<T>(socket: &impl AsRawFd, level: i32, option: i32, value: T) -> io::Result<()> {
    let (fd, length) = (socket.as_raw_fd(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the value, and what it points to, is valid for the call.
    checked(unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length) })
        .map(drop)
}

fn get<T: Default>(socket: &impl AsRawFd, level: i32, option: i32) -> io::Result<T> {
    let (mut value, mut length) = (T::default(), size_of::<T>() as libc::socklen_t);
    let fd = socket.as_raw_fd();
    // SAFETY: the kernel writes at most so many bytes; `T` is a plain number.
    checked(unsafe {
        libc::getsockopt(fd, level, option, (&raw mut value).cast(), &raw mut length)
    })?;
    Ok(value)
}

/// Lets this process have so many descriptors, beyond its limit if it has the right.
pub(super) fn allow_descriptors(count: u64) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is ours, and the kernel fills it in.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_cur.max(count);
    limit.rlim_max = limit.rlim_max.max(count);
    // SAFETY: the limit is valid for the call.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// Passes a descriptor to another process.
pub(super) fn pass(through: &UnixStream, socket: &TcpStream) -> io::Result<()> {
    let mut control = Control::default();
    // A descriptor goes with at least a byte.
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let message = control.message(&mut bytes);
    let fd = socket.as_raw_fd();
    // SAFETY: the control buffer has room for a descriptor; all is valid for the call.
    let sent = unsafe {
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        (*head).cmsg_level = libc::SOL_SOCKET;
        (*head).cmsg_type = libc::SCM_RIGHTS;
        (*head).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as _;
        ptr::write_unaligned(libc::CMSG_DATA(head).cast(), fd);
        libc::sendmsg(through.as_raw_fd(), &raw const message, 0)
    };
    checked(sent as i32).map(drop)
}

/// Takes a descriptor that is passed; `None` when the other end is closed.
pub(super) fn passed(through: &UnixStream) -> io::Result<Option<TcpStream>> {
    let mut control = Control::default();
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut message = control.message(&mut bytes);
    // SAFETY: the kernel writes within the buffers, which are valid for the call; the
    // descriptor that it gives is new and nobody else's.
    unsafe {
        let got = libc::recvmsg(
            through.as_raw_fd(),
            &raw mut message,
            libc::MSG_CMSG_CLOEXEC,
        );
        if checked(got as i32)? == 0 {
            return Ok(None);
        }
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        if head.is_null() {
            return Err(io::Error::other("no descriptor came"));
        }
        let fd: i32 = ptr::read_unaligned(libc::CMSG_DATA(head).cast());
        Ok(Some(TcpStream::from_raw_fd(fd)))
    }
}

/// Room for the control message of one descriptor, aligned as it must be.
#[derive(Default)]
struct Control([u64; 4]);

impl Control {
    fn message(&mut self, bytes: &mut [IoSliceMut<'_>]) -> libc::msghdr {
        // SAFETY: all zeroes are a valid message. `IoSliceMut` is an iovec.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = bytes.as_mut_ptr().cast();
        message.msg_iovlen = bytes.len() as _;
        message.msg_control = self.0.as_mut_ptr().cast();
        // SAFETY: computes a length.
        let length = unsafe { libc::CMSG_SPACE(size_of::<i32>() as u32) };
        message.msg_controllen = length as _;
        message
    }
}
