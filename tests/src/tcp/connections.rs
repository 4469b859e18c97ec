//! Real connections, each of which goes a way through the states that is known.
//!
//! They are made in pairs of threads, one for each end, on loopback or between two
//! namespaces. The workload says
//! `{"connections","closed_first","transitions":[{"from","to","count"}],"ports":[..],
//! "namespaces":[{"inode","path"}]}`: what was done between `go` and `done`, when the
//! sockets are all gone but for those that listen and what is left for TIME_WAIT.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    process,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};

use serde_json::json;

use super::{
    at_once::Forger,
    diag,
    helper::Helper,
    must,
    netns::{Joined, Netns},
    socket::{self, Family},
    states::Transitions,
};
use crate::{
    pace::{paced, say},
    time::eventually,
};

/// Connections to one port. The kernel has 28,000 ports to connect from, half of
/// which it prefers; each can be in TIME_WAIT once for a port that is connected to.
const A_PORT: u64 = 10_000;
/// Connections of a pair that are under way at most.
const UNDER_WAY: usize = 64;
/// Connections of a pair that wait for a timer of the kernel's at most.
const HELD: u64 = 2000;
/// Both ends of what a few pairs have at once.
const DESCRIPTORS: u64 = 20_000;

/// What becomes of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ClientCloses,
    ServerCloses,
    ClientResets,
    ServerResets,
    /// The client closes, and the server answers with a reset.
    WaiterResets,
    /// The server closes with a byte unread, which resets.
    Unread,
    /// Both close before either knows of the other's close.
    AtOnce,
    /// Nobody listens.
    Refused,
    /// Nobody answers.
    TimesOut,
}

impl Kind {
    fn of(word: &str) -> Self {
        match word {
            "client-closes" => Self::ClientCloses,
            "server-closes" => Self::ServerCloses,
            "client-resets" => Self::ClientResets,
            "server-resets" => Self::ServerResets,
            "waiter-resets" => Self::WaiterResets,
            "unread" => Self::Unread,
            "at-once" => Self::AtOnce,
            "refused" => Self::Refused,
            "times-out" => Self::TimesOut,
            _ => panic!("no kind {word}"),
        }
    }

    /// Who sends the first FIN, if anybody does.
    fn closes_first(self) -> Option<&'static str> {
        match self {
            Self::ClientCloses | Self::WaiterResets => Some("client"),
            Self::ServerCloses => Some("server"),
            Self::AtOnce => Some("both"),
            _ => None,
        }
    }

    /// The ways that so many connections go, both ends.
    fn made(self, count: u64) -> Transitions {
        // include/net/tcp_states.h; what the hook sees is in DESIGN, section 6: no
        // TIME_WAIT, and an accepted socket begins as a copy of the listener.
        const FIRST: [&str; 4] = ["ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE"];
        const SECOND: [&str; 4] = ["ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSE"];
        const RESET: [&str; 2] = ["ESTABLISHED", "CLOSE"];
        let (client, server): (&[&str], &[&str]) = match self {
            Self::ClientCloses => (&FIRST, &SECOND),
            Self::ServerCloses => (&SECOND, &FIRST),
            Self::ClientResets | Self::ServerResets | Self::Unread => (&RESET, &RESET),
            Self::WaiterResets => (&FIRST, &["ESTABLISHED", "CLOSE_WAIT", "CLOSE"]),
            Self::AtOnce => {
                const BOTH: [&str; 4] = ["ESTABLISHED", "FIN_WAIT1", "CLOSING", "CLOSE"];
                (&BOTH, &BOTH)
            }
            Self::Refused | Self::TimesOut => (&[], &[]),
        };
        let mut made = Transitions::default();
        if client.is_empty() {
            made.way(&["CLOSE", "SYN_SENT", "CLOSE"], count);
        } else {
            made.way(&["CLOSE", "SYN_SENT", "ESTABLISHED"], count);
            made.way(&["LISTEN", "SYN_RECV", "ESTABLISHED"], count);
            made.way(client, count);
            made.way(server, count);
        }
        made
    }
}

/// `tcp-connections KIND FAMILY COUNT THREADS`: on loopback.
pub fn on_loopback(kind: &str, family: &str, count: u64, threads: u64) {
    let family = Family::of(family);
    let here = must("this namespace", Netns::current());
    let ends = Ends {
        client: &here,
        server: &here,
        address: family.loopback(),
    };
    connections(Kind::of(kind), family, count, threads, &ends);
}

/// `tcp-namespaces KIND FAMILY COUNT THREADS`: between two namespaces, each of which
/// has a process.
pub fn between_namespaces(kind: &str, family: &str, count: u64, threads: u64) {
    let family = Family::of(family);
    let joined = must("two namespaces", Joined::new());
    let [client, server] = &joined.ends;
    let _holder = Helper::start("holder", |mut pipe| {
        server.enter()?;
        pipe.read(&mut [0]).map(drop)
    });
    must("the client's namespace", client.enter());
    let ends = Ends {
        client,
        server,
        address: Joined::address(1, family.is_v6()),
    };
    connections(Kind::of(kind), family, count, threads, &ends);
}

/// Where the two ends of the connections are.
struct Ends<'a> {
    client: &'a Netns,
    server: &'a Netns,
    /// The server's.
    address: IpAddr,
}

/// What is connected to, and how often.
struct Target {
    listener: Listener,
    address: SocketAddr,
    count: u64,
}

enum Listener {
    Hears(TcpListener),
    /// Holds the port only.
    Deaf(#[expect(dead_code, reason = "it is held")] OwnedFd),
}

fn connections(kind: Kind, family: Family, count: u64, threads: u64, ends: &Ends<'_>) {
    must("descriptors", socket::allow_descriptors(DESCRIPTORS));
    let pairs: Vec<Vec<Target>> = (0..threads)
        .map(|i| {
            let share = count / threads + u64::from(i < count % threads);
            let targets = || targets(kind, family, share, ends.address);
            must("listeners", ends.server.within(targets))
        })
        .collect();
    paced(|| {
        thread::scope(|scope| {
            let all: Vec<_> = pairs
                .iter()
                .map(|targets| scope.spawn(move || pair(kind, family, targets, ends)))
                .collect();
            for pair in all {
                must("connections", pair.join().expect("no panic"));
            }
        });
        let ports: Vec<u16> = pairs.iter().flatten().map(|t| t.address.port()).collect();
        let is_settled = || eventually(20.0, || must("sock_diag", ends.are_at_rest(&ports)));
        assert!(is_settled(), "sockets are left over");
        let namespaces = [ends.client, ends.server].map(|end| {
            json!({
                "inode": must("a namespace", end.inode()),
                "path": format!("/proc/{}/fd/{}", process::id(), end.as_raw_fd()),
            })
        });
        let said = json!({
            "connections": count,
            "closed_first": kind.closes_first(),
            "transitions": kind.made(count).json(),
            "ports": ports,
            "namespaces": namespaces,
        });
        say(&said.to_string());
    });
}

impl Ends<'_> {
    /// Whether none of the sockets of these ports has anything left to do.
    fn are_at_rest(&self, ports: &[u16]) -> io::Result<bool> {
        let at_rest = || diag::are_at_rest(ports);
        Ok(self.client.within(at_rest)? && self.server.within(at_rest)?)
    }
}

/// What one pair of threads connects to; called in the server's namespace.
fn targets(kind: Kind, family: Family, share: u64, address: IpAddr) -> io::Result<Vec<Target>> {
    let mut all = Vec::new();
    let mut left = share;
    while left > 0 {
        let (listener, port) = match kind {
            Kind::Refused => {
                let (held, port) = socket::deaf(family)?;
                (Listener::Deaf(held), port)
            }
            _ => {
                let listener = socket::listen(family)?;
                let port = listener.local_addr()?.port();
                if kind == Kind::TimesOut {
                    socket::deafen(&listener)?;
                }
                (Listener::Hears(listener), port)
            }
        };
        let count = left.min(A_PORT);
        left -= count;
        all.push(Target {
            listener,
            address: (family.spelled(address), port).into(),
            count,
        });
    }
    Ok(all)
}

/// All connections of a pair of threads. This one is the client.
fn pair(kind: Kind, family: Family, targets: &[Target], ends: &Ends) -> io::Result<()> {
    ends.client.enter()?;
    for target in targets {
        match (&target.listener, kind) {
            (_, Kind::Refused) => refused(target)?,
            (_, Kind::TimesOut) => {
                by_parts(target.count, |now| time_out(family, target.address, now))?;
            }
            (Listener::Hears(listener), Kind::AtOnce) => {
                let forge = || Forger::new(family);
                let forgers = [forge()?, ends.server.within(forge)?];
                by_parts(target.count, |now| {
                    close_at_once(listener, target.address, now, &forgers)
                })?;
            }
            (Listener::Hears(listener), _) => {
                let (begin, begun) = mpsc::sync_channel(UNDER_WAY);
                let (acknowledge, acknowledged) = mpsc::sync_channel(0);
                thread::scope(|scope| {
                    let server = scope.spawn(move || {
                        // Ends when the client has ended.
                        begun
                            .iter()
                            .try_for_each(|()| serve(kind, listener, &acknowledged))
                    });
                    for _ in 0..target.count {
                        if begin.send(()).is_err() {
                            break;
                        }
                        connect(kind, target.address, &acknowledge)?;
                    }
                    drop((begin, acknowledge));
                    server.join().expect("no panic")
                })?;
            }
            (Listener::Deaf(_), _) => return Err(io::Error::other("nobody listens")),
        }
    }
    Ok(())
}

/// The client's part of a connection. It says when its FIN was acknowledged, where the
/// server waits for that.
fn connect(kind: Kind, to: SocketAddr, acknowledged: &SyncSender<()>) -> io::Result<()> {
    let mut stream = match TcpStream::connect(to) {
        // It came before the call was over.
        Err(error) if kind == Kind::ServerResets && is_reset(&error) => return Ok(()),
        other => other?,
    };
    match kind {
        Kind::ClientResets => socket::reset_at_close(&stream),
        Kind::ServerCloses => until_fin(&mut stream),
        Kind::ServerResets => until_reset(&mut stream),
        Kind::WaiterResets => {
            stream.shutdown(Shutdown::Write)?;
            while socket::state(&stream)? != "FIN_WAIT2" {
                thread::yield_now();
            }
            // Without a server there is nobody to wait for either.
            let _ = acknowledged.send(());
            until_reset(&mut stream)
        }
        Kind::Unread => {
            stream.write_all(b"u")?;
            until_reset(&mut stream)
        }
        _ => Ok(()),
    }
}

/// The server's part of it.
fn serve(kind: Kind, listener: &TcpListener, acknowledged: &Receiver<()>) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    match kind {
        Kind::ClientCloses => until_fin(&mut stream),
        Kind::ClientResets => until_reset(&mut stream),
        Kind::ServerResets => socket::reset_at_close(&stream),
        Kind::WaiterResets => {
            until_fin(&mut stream)?;
            // The FIN is acknowledged now, and not by the reset.
            socket::set(&stream, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1)?;
            acknowledged.recv().map_err(io::Error::other)?;
            socket::reset_at_close(&stream)
        }
        Kind::Unread => stream.peek(&mut [0]).map(drop),
        _ => Ok(()),
    }
}

fn until_fin(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("a byte came in place of a FIN")),
    }
}

fn until_reset(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0]) {
        Err(error) if is_reset(&error) => Ok(()),
        other => Err(io::Error::other(format!("no reset, but {other:?}"))),
    }
}

fn is_reset(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionReset
}

fn refused(target: &Target) -> io::Result<()> {
    for _ in 0..target.count {
        match TcpStream::connect(target.address) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            other => return Err(io::Error::other(format!("not refused, but {other:?}"))),
        }
    }
    Ok(())
}

/// So many at once: each waits for more than a second.
fn time_out(family: Family, to: SocketAddr, count: u64) -> io::Result<()> {
    let begin = |_| socket::begin_to_connect(family, to);
    let all = (0..count).map(begin).collect::<io::Result<Vec<_>>>()?;
    for stream in &all {
        let mut wanted = libc::pollfd {
            fd: stream.as_raw_fd(),
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: there is one entry.
        super::checked(unsafe { libc::poll(&raw mut wanted, 1, 20_000) })?;
        match stream.take_error()? {
            Some(error) if error.kind() == io::ErrorKind::TimedOut => {}
            other => return Err(io::Error::other(format!("no time-out, but {other:?}"))),
        }
    }
    Ok(())
}

/// Does `count` in parts of `HELD` at most.
fn by_parts(count: u64, part: impl FnMut(u64) -> io::Result<()>) -> io::Result<()> {
    let starts = (0..count).step_by(HELD as usize);
    starts
        .map(|start| HELD.min(count - start))
        .try_for_each(part)
}

/// Both ends close, and only then hear of each other's close.
fn close_at_once(
    listener: &TcpListener,
    to: SocketAddr,
    count: u64,
    forgers: &[Forger; 2],
) -> io::Result<()> {
    let mut closing = Vec::new();
    for _ in 0..count {
        let client = TcpStream::connect(to)?;
        let (server, _) = listener.accept()?;
        super::at_once::close(&client, &server, forgers)?;
        closing.push((client, server));
    }
    // The server's FIN is sent again, as nobody has acknowledged it.
    for (client, server) in &closing {
        for socket in [client, server] {
            let is_closed = || must("a state", socket::state(socket)) == "CLOSE";
            if !eventually(20.0, is_closed) {
                return Err(io::Error::other("a socket never closed"));
            }
        }
    }
    Ok(())
}
