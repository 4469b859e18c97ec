//! Processes that forget to close what their peers have closed.
//!
//! The peer is a process of its own, which makes the connections at a rate, sends
//! some bytes on each, and closes it once it was accepted. The workload says
//! `{"pid","comm","peer_pid","port","sockets":[{"fd","local","remote","closed_ns",
//! "over_ns"}]}`
//! when all are in CLOSE_WAIT: who has them, by which descriptor, and when the peer
//! began to close each and had closed it, by the wall clock.

use std::{
    hint::black_box,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    os::unix::net::UnixStream,
    process,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    helper::Helper,
    must, name,
    shuffle::shuffle,
    socket::{self, Family},
};
use crate::{
    pace::{paced, say},
    time::{eventually, monotonic_ns, wall_ns},
};

/// The name of the process that leaks.
pub const LEAKER: &str = "leaker";
/// The name of the process of the peers.
pub const PEER: &str = "leaker-peer";
/// The name of the process that is given the sockets by the one that accepted them.
pub const KEEPER: &str = "leaker-keeper";
/// Threads that accept at the same time.
const THREADS: usize = 4;

/// `tcp-leak VARIANT COUNT RATE UNREAD`: so many sockets, so many a second, with so
/// many bytes that nobody reads. VARIANT:
/// - `plain`: one thread accepts.
/// - `threads`: four threads do, none of them the first one.
/// - `shuffled`: others open and close descriptors all the time.
/// - `before`: all is over when it says `ready`.
/// - `passed`: each socket is passed to another process right after it was accepted;
///   that one keeps it.
/// - `connected`: the process that leaks makes the connections, and its peer accepts.
pub fn leak(variant: &str, count: u64, rate: u64, unread: u64) {
    let leak = Leak {
        count,
        rate,
        unread: unread as usize,
    };
    must("descriptors", socket::allow_descriptors(count + 1000));
    name(LEAKER);
    match variant {
        "plain" | "before" => leak.accepted(1, variant == "before"),
        "shuffled" => {
            must("descriptors", socket::allow_descriptors(count + 10_000));
            shuffle(count as i32 + 1000);
            leak.accepted(1, false);
        }
        "threads" => leak.accepted(THREADS, false),
        "passed" => leak.passed(),
        "connected" => leak.connected(),
        _ => panic!("no variant {variant}"),
    }
}

/// `tcp-unclosed COUNT`: so many sockets that the peer closes at once and the process never.
pub fn unclosed(count: u64) {
    must("descriptors", socket::allow_descriptors(count + 1000));
    let listener = must("a listener", TcpListener::bind("127.0.0.1:0"));
    let address = must("its address", listener.local_addr());
    let mut held = Vec::new();
    paced(|| {
        for _ in 0..count {
            drop(must("a connection", TcpStream::connect(address)));
            held.push(must("an accepted one", listener.accept()));
        }
    });
}

#[derive(Clone, Copy)]
struct Leak {
    count: u64,
    rate: u64,
    unread: usize,
}

impl Leak {
    fn accepted(self, threads: usize, is_before: bool) {
        let (listener, peer) = self.listen();
        let work = || {
            let sockets = accept_all(&listener, &peer, self.count, threads);
            let said = self.said(process::id(), LEAKER, &peer, &sockets);
            (sockets, said)
        };
        if is_before {
            let (_held, said) = work();
            paced(|| say(&said.to_string()));
        } else {
            let mut held = Vec::new();
            paced(|| {
                let (sockets, said) = work();
                held = sockets;
                say(&said.to_string());
            });
        }
    }

    fn passed(self) {
        let (listener, peer) = self.listen();
        let keeper = Helper::start(KEEPER, keep);
        paced(|| {
            must("the peer listens", (&peer.pipe).write_all(b"g"));
            let mut sockets = Vec::new();
            for _ in 0..self.count {
                let held = handle_client(&listener, &peer.pipe, Some(&keeper.pipe));
                sockets.push(must("an accepted socket", held));
            }
            let said = self.said(keeper.pid(), KEEPER, &peer, &sockets);
            drop(sockets);
            say(&said.to_string());
        });
    }

    fn connected(self) {
        let listener = must("a listener", socket::listen(Family::V4));
        let to = must("its address", listener.local_addr());
        let to = SocketAddr::from(([127, 0, 0, 1], to.port()));
        let peer = Helper::start(PEER, move |mut pipe| {
            for _ in 0..self.count {
                let (mut stream, _) = listener.accept()?;
                stream.write_all(&vec![b'x'; self.unread])?;
                let port = stream.peer_addr()?.port();
                close(&mut pipe, port, stream)?;
            }
            Ok(())
        });
        let mut held = Vec::new();
        paced(|| {
            let begin = monotonic_ns();
            for i in 0..self.count {
                pace(begin, i, self.rate);
                let stream = must("a connection", open_connection(to));
                let its = stream.as_raw_fd();
                held.push(Held { stream, fd: its });
                must("the peer listens", (&peer.pipe).write_all(b"c"));
            }
            let said = self.said(process::id(), LEAKER, &peer, &held);
            say(&said.to_string());
        });
    }

    /// A listener, and the process that is going to connect to it.
    fn listen(self) -> (Arc<TcpListener>, Helper) {
        let listener = must("a listener", socket::listen(Family::V4));
        let port = must("its address", listener.local_addr()).port();
        let peer = Helper::start(PEER, move |mut pipe| {
            pipe.read_exact(&mut [0])?;
            let begin = monotonic_ns();
            for i in 0..self.count {
                pace(begin, i, self.rate);
                let mut stream = TcpStream::connect(("127.0.0.1", port))?;
                stream.write_all(&vec![b'x'; self.unread])?;
                let port = stream.local_addr()?.port();
                close(&mut pipe, port, stream)?;
            }
            Ok(())
        });
        (Arc::new(listener), peer)
    }

    /// What the workload says, once the peer has closed them all.
    fn said(self, pid: u32, comm: &str, peer: &Helper, held: &[Held]) -> Value {
        let mut closed: Vec<(u16, [u64; 2])> = Vec::new();
        for _ in 0..self.count {
            let (mut port, mut times) = ([0; 2], [[0; 8]; 2]);
            let parts = [&mut port[..]]
                .into_iter()
                .chain(times.iter_mut().map(|t| &mut t[..]));
            for part in parts {
                must("what the peer did", (&peer.pipe).read_exact(part));
            }
            closed.push((u16::from_ne_bytes(port), times.map(u64::from_ne_bytes)));
        }
        peer.until_ended();
        let sockets: Vec<Value> = held
            .iter()
            .map(|Held { stream, fd }| {
                let waits = || must("a state", socket::state(stream)) == "CLOSE_WAIT";
                assert!(eventually(5.0, waits), "the peer has closed it");
                let local = must("an address", stream.local_addr());
                let remote = must("an address", stream.peer_addr());
                let ports = [local.port(), remote.port()];
                let closed = closed.iter().find(|(port, _)| ports.contains(port));
                let [closed_ns, over_ns] = closed.expect("the peer said so").1;
                json!({
                    "fd": fd,
                    "local": local.to_string(),
                    "remote": remote.to_string(),
                    "closed_ns": closed_ns,
                    "over_ns": over_ns,
                })
            })
            .collect();
        let port = held.first().map(|held| {
            let local = must("an address", held.stream.local_addr());
            let remote = must("an address", held.stream.peer_addr());
            // The one that all have in common.
            local.port().min(remote.port())
        });
        json!({
            "pid": pid,
            "comm": comm,
            "peer_pid": peer.pid(),
            "port": port,
            "sockets": sockets,
        })
    }
}

/// A socket that is not closed, and its descriptor in the process that has it.
struct Held {
    stream: TcpStream,
    fd: i32,
}

/// Accepts so many, in so many threads. With one it is this one.
fn accept_all(listener: &Arc<TcpListener>, peer: &Helper, count: u64, threads: usize) -> Vec<Held> {
    must("the peer listens", (&peer.pipe).write_all(b"g"));
    let one = || must("a socket", handle_client(listener, &peer.pipe, None));
    if threads == 1 {
        return (0..count).map(|_| one()).collect();
    }
    let all = Mutex::new((0..count, Vec::new()));
    // Taken and given back at once: accepting is done outside.
    let lock = || all.lock().expect("no panic");
    let next = || lock().0.next();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while next().is_some() {
                    let held = one();
                    lock().1.push(held);
                }
            });
        }
    });
    all.into_inner().expect("no panic").1
}

/// Accepts a connection, and forgets to close it. The name is what a stack shows.
#[inline(never)]
fn handle_client(
    listener: &TcpListener,
    peer: &UnixStream,
    keeper: Option<&UnixStream>,
) -> io::Result<Held> {
    let (stream, _) = black_box(listener).accept()?;
    let mut fd = stream.as_raw_fd();
    if let Some(mut keeper) = keeper {
        socket::pass(keeper, &stream)?;
        let mut its = [0; 4];
        keeper.read_exact(&mut its)?;
        fd = i32::from_ne_bytes(its);
    }
    // Now the peer may close.
    let mut peer = peer;
    peer.write_all(b"c")?;
    black_box(Ok(Held { stream, fd }))
}

/// Connects, and forgets to close. The name is what a stack shows.
#[inline(never)]
fn open_connection(to: SocketAddr) -> io::Result<TcpStream> {
    black_box(TcpStream::connect(black_box(to)))
}

/// Keeps what it is passed, and says by which descriptor.
fn keep(mut pipe: UnixStream) -> io::Result<()> {
    let mut held = Vec::new();
    while let Some(stream) = socket::passed(&pipe)? {
        pipe.write_all(&stream.as_raw_fd().to_ne_bytes())?;
        held.push(stream);
    }
    Ok(())
}

/// The peer's close, once it is told to.
fn close(pipe: &mut UnixStream, port: u16, stream: TcpStream) -> io::Result<()> {
    pipe.read_exact(&mut [0])?;
    let closed_ns = wall_ns();
    drop(stream);
    let times = [closed_ns, wall_ns()].map(u64::to_ne_bytes).concat();
    let report = [&port.to_ne_bytes()[..], &times].concat();
    pipe.write_all(&report)
}

/// Sleeps until it is time for the connection of a number; a rate of 0 is no limit.
pub(super) fn pace(begin_ns: u64, i: u64, rate: u64) {
    if let Some(due_ns) = (i * 1_000_000_000).checked_div(rate) {
        let left = (begin_ns + due_ns).saturating_sub(monotonic_ns());
        thread::sleep(Duration::from_nanos(left));
    }
}
