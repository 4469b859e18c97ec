//! Network namespaces, and a cable between two of them.

use std::{
    fs::{self, File},
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{
    checked,
    diag::{self, Socket},
    netlink::Request,
};
use crate::time::eventually;

/// States of sockets that were closed, and whose peer has not acknowledged it.
const CLOSING: [&str; 3] = ["FIN_WAIT1", "CLOSING", "LAST_ACK"];
/// How long they may take, in s.
const SETTLES_S: f64 = 5.0;

/// How often a cable is tried, and how long a try takes.
const TRIES: u32 = 200;
const A_TRY: Duration = Duration::from_millis(50);

/// Where `ip netns` looks for names.
const NAMES: &str = "/run/netns";

// include/uapi/linux/veth.h, if_link.h, if_addr.h
const VETH_INFO_PEER: u16 = 1;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const NET_NS_FD: u16 = 28;
const INTERFACE_INFO: [u8; 16] = [0; 16];

/// A network namespace, which lives as long as this or a process in it.
pub struct Netns {
    file: File,
    name: Option<PathBuf>,
}

impl Netns {
    /// The one that this thread is in.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The one that a process is in.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// One that a file stands for.
    ///
    /// # Errors
    /// There is no such file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { file, name: None })
    }

    /// A new one, with its loopback up. This thread stays where it is.
    ///
    /// # Errors
    /// No rights.
    pub fn new() -> io::Result<Self> {
        let make = || {
            enter_new()?;
            Self::current()
        };
        in_a_thread(make)
    }

    /// Gives it a name, for as long as this lives.
    ///
    /// # Errors
    /// No rights, or the name is taken.
    pub fn named(mut self, name: &str) -> io::Result<Self> {
        self.give_name(name).map(|()| self)
    }

    /// The same.
    ///
    /// # Errors
    /// As before.
    pub fn give_name(&mut self, name: &str) -> io::Result<()> {
        fs::create_dir_all(NAMES)?;
        let path = Path::new(NAMES).join(name);
        File::create_new(&path)?;
        self.name = Some(path.clone());
        let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        super::mount(Path::new(&from), &path)
    }

    /// Its inode number, as in `net:[N]`.
    ///
    /// # Errors
    /// Never, of a namespace that is open.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// Puts this thread into it.
    ///
    /// # Errors
    /// No rights.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: touches no memory.
        checked(unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
    }

    /// Does something in it, in a thread of its own.
    ///
    /// # Errors
    /// Those of what is done, or no rights.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        in_a_thread(|| {
            self.enter()?;
            work()
        })
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            super::unmount(name);
            let _ = fs::remove_file(name);
        }
    }
}

/// Puts this thread, and those that it starts, into a new one with its loopback up.
///
/// # Errors
/// No rights.
pub fn enter_new() -> io::Result<()> {
    // SAFETY: touches no memory.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    turn("lo", true)
}

/// Two namespaces with a cable between them (veth(4)).
pub struct Joined {
    /// The first and the second.
    pub ends: [Netns; 2],
}

impl Joined {
    /// Makes them.
    ///
    /// # Errors
    /// No rights, or a kernel without veth.
    pub fn new() -> io::Result<Self> {
        let ends = [Netns::new()?, Netns::new()?];
        let [first, second] = &ends;
        let peer = second.file.as_raw_fd();
        first.within(|| {
            let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK;
            let link = Request::new(libc::RTM_NEWLINK, flags, &INTERFACE_INFO);
            link.with(libc::IFLA_IFNAME, b"cable0\0")
                .nested(libc::IFLA_LINKINFO, |info| {
                    info.with(INFO_KIND, b"veth").nested(INFO_DATA, |data| {
                        data.nested(VETH_INFO_PEER, |other| {
                            other
                                .raw(&INTERFACE_INFO)
                                .with(libc::IFLA_IFNAME, b"cable0\0")
                                .with(NET_NS_FD, &peer.to_ne_bytes())
                        })
                    })
                })
                .talk(libc::NETLINK_ROUTE)
        })?;
        for (i, end) in ends.iter().enumerate() {
            end.within(|| {
                for is_v6 in [false, true] {
                    give(Self::address(i, is_v6))?;
                }
                turn("cable0", true)
            })?;
        }
        let joined = Self { ends };
        for is_v6 in [false, true] {
            joined.wait_until_it_carries(is_v6)?;
        }
        Ok(joined)
    }

    /// The kernel lets packets through some time after both ends are on (linkwatch,
    /// net/core/link_watch.c), and looks for a neighbour once a second: until then what is
    /// sent is lost without a word.
    fn wait_until_it_carries(&self, is_v6: bool) -> io::Result<()> {
        let socket =
            |end: usize| self.ends[end].within(|| UdpSocket::bind((Self::address(end, is_v6), 0)));
        let (from, to) = (socket(0)?, socket(1)?);
        to.set_read_timeout(Some(A_TRY))?;
        let address = to.local_addr()?;
        for _ in 0..TRIES {
            // A cable that is not on yet may be an error of the sender's: it is waited for
            // all the same.
            let _ = from.send_to(b"?", address);
            if to.recv(&mut [0]).is_ok() {
                return Ok(());
            }
        }
        Err(io::Error::other(format!("nothing comes to {address}")))
    }

    /// Takes the cable out of the first end: what the other sends is lost.
    ///
    /// # Errors
    /// No rights.
    pub fn cut(&self) -> io::Result<()> {
        self.ends[0].within(|| turn("cable0", false))
    }

    /// Puts it in again, and waits until IPv4 comes through it.
    ///
    /// # Errors
    /// No rights, or nothing comes.
    pub fn mend(&self) -> io::Result<()> {
        self.ends[0].within(|| turn("cable0", true))?;
        self.wait_until_it_carries(false)
    }

    /// Has an end look for strangers, who are nowhere, behind the other one: 198.18.0.0/15
    /// and 2001:2::/48 (RFC 2544, RFC 5180). What it sends them ends there.
    ///
    /// # Errors
    /// No rights.
    pub fn knows_strangers(&self, end: usize) -> io::Result<()> {
        let v4 = (&[198, 18, 0, 0][..], 15, Self::address(1 - end, false));
        let v6 = [&[0x20, 0x01, 0, 2][..], &[0; 12]].concat();
        let v6 = (v6.as_slice(), 48, Self::address(1 - end, true));
        self.ends[end].within(|| [v4, v6].into_iter().try_for_each(route))
    }

    /// The address of an end, 0 or 1.
    pub fn address(end: usize, is_v6: bool) -> IpAddr {
        let last = end as u8 + 1;
        if is_v6 {
            Ipv6Addr::new(0xfd00, 0x231, 0, 0, 0, 0, 0, last.into()).into()
        } else {
            Ipv4Addr::new(10, 231, 0, last).into()
        }
    }
}

/// What was closed and waits for the peer would outlive the namespaces, for a minute or two,
/// and end in the middle of another test, which counts the transitions of the whole host.
impl Drop for Joined {
    fn drop(&mut self) {
        let is_under_way = |socket: &Socket| CLOSING.contains(&socket.state);
        let are_over = || {
            let sockets = diag::sockets();
            Ok(!sockets?.iter().any(is_under_way))
        };
        for end in &self.ends {
            // After this many retransmissions nobody waits any more.
            let _ = end.within(|| fs::write("/proc/sys/net/ipv4/tcp_orphan_retries", "1"));
        }
        for end in &self.ends {
            eventually(SETTLES_S, || end.within(are_over).unwrap_or(true));
        }
    }
}

/// Gives the cable's end in this thread's namespace an address.
fn give(address: IpAddr) -> io::Result<()> {
    let (family, prefix, bytes) = match address {
        IpAddr::V4(v4) => (libc::AF_INET, 24, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, 64, v6.octets().to_vec()),
    };
    // Nobody else can have it, so there is no need to ask around first.
    let flags = if address.is_ipv6() {
        libc::IFA_F_NODAD
    } else {
        0
    };
    // SAFETY: the name is ended by a zero.
    let index = unsafe { libc::if_nametoindex(c"cable0".as_ptr()) };
    let mut fixed = vec![family as u8, prefix, flags as u8, 0];
    fixed.extend(index.to_ne_bytes());
    let flags = libc::NLM_F_CREATE | libc::NLM_F_ACK;
    Request::new(libc::RTM_NEWADDR, flags, &fixed)
        .with(libc::IFA_LOCAL, &bytes)
        .with(libc::IFA_ADDRESS, &bytes)
        .talk(libc::NETLINK_ROUTE)
        .map(drop)
}

/// Adds a route by way of an address, to this thread's namespace.
fn route((network, bits, by): (&[u8], u8, IpAddr)) -> io::Result<()> {
    let (family, by) = match by {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    // `struct rtmsg`, include/uapi/linux/rtnetlink.h.
    let mut fixed = vec![family as u8, bits, 0, 0];
    fixed.extend([libc::RT_TABLE_MAIN, libc::RTPROT_STATIC]);
    fixed.extend([libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST, 0, 0, 0, 0]);
    let flags = libc::NLM_F_CREATE | libc::NLM_F_ACK;
    Request::new(libc::RTM_NEWROUTE, flags, &fixed)
        .with(libc::RTA_DST, network)
        .with(libc::RTA_GATEWAY, &by)
        .talk(libc::NETLINK_ROUTE)
        .map(drop)
}

/// Turns an interface of this thread's namespace on or off.
fn turn(name: &str, is_on: bool) -> io::Result<()> {
    // SAFETY: touches no memory; the descriptor is new and nobody else's.
    let socket = unsafe {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        OwnedFd::from_raw_fd(checked(libc::socket(libc::AF_INET, kind, 0))?)
    };
    // SAFETY: all zeroes are a valid request; the name is shorter than its field.
    unsafe {
        let mut request: libc::ifreq = mem::zeroed();
        let to = request.ifr_name.iter_mut();
        to.zip(name.bytes())
            .for_each(|(to, from)| *to = from.cast_signed());
        let socket = socket.as_raw_fd();
        checked(libc::ioctl(
            socket,
            libc::SIOCGIFFLAGS as _,
            &raw mut request,
        ))?;
        if is_on {
            request.ifr_ifru.ifru_flags |= libc::IFF_UP as i16;
        } else {
            request.ifr_ifru.ifru_flags &= !(libc::IFF_UP as i16);
        }
        checked(libc::ioctl(
            socket,
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        ))?;
    }
    Ok(())
}

/// A thread can change its namespace and leave the others where they are.
fn in_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
