//! Servers that close all that their peers have closed, at once or late.
//!
//! The clients are a process of their own. The workload says
//! `{"pid","client_pid","port","connections"}` when all are over.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    process, thread,
    time::Duration,
};

use serde_json::json;

use super::{
    helper::Helper,
    leak::pace,
    must, name,
    socket::{self, Family},
};
use crate::{
    pace::{paced, say},
    time::monotonic_ns,
};

/// Threads that only wait need no more.
const STACK: usize = 64 << 10;
/// Requests on a connection of the busy server.
const REQUESTS: usize = 3;

/// `tcp-slow RATE SECONDS HOLD_MS`: closes each connection so many ms after its peer
/// has, always.
pub fn slow(rate: u64, seconds: u64, hold_ms: u64) {
    name("slow-server");
    serve(rate, rate * seconds, move |stream| {
        until_fin(stream)?;
        thread::sleep(Duration::from_millis(hold_ms));
        Ok(())
    });
}

/// `tcp-busy RATE SECONDS`: answers each request, and closes when its peer does.
pub fn busy(rate: u64, seconds: u64) {
    name("busy-server");
    serve(rate, rate * seconds, until_fin);
}

fn serve(rate: u64, count: u64, work: impl Fn(&mut TcpStream) -> io::Result<()> + Copy + Send) {
    must("descriptors", socket::allow_descriptors(20_000));
    let listener = must("a listener", socket::listen(Family::V4));
    let port = must("its address", listener.local_addr()).port();
    let clients = Helper::start("clients", |mut pipe| {
        pipe.read_exact(&mut [0])?;
        let begin = monotonic_ns();
        for i in 0..count {
            pace(begin, i, rate);
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            for _ in 0..REQUESTS {
                stream.write_all(b"?")?;
                stream.read_exact(&mut [0])?;
            }
        }
        Ok(())
    });
    paced(|| {
        must("the clients listen", (&clients.pipe).write_all(b"g"));
        thread::scope(|scope| {
            for _ in 0..count {
                let (mut stream, _) = must("a connection", listener.accept());
                let handler = thread::Builder::new().stack_size(STACK);
                let handle = move || must("a request", work(&mut stream));
                drop(handler.spawn_scoped(scope, handle).expect("a thread"));
            }
        });
        let said = json!({
            "pid": process::id(),
            "client_pid": clients.pid(),
            "port": port,
            "connections": count,
        });
        say(&said.to_string());
    });
}

/// Answers until the peer has closed.
fn until_fin(stream: &mut TcpStream) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}
