//! Many connections that do nothing.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
};

use super::{
    helper::Helper,
    must,
    socket::{self, Family},
};
use crate::pace::paced;

/// Connections of a process: few enough for the ports that there are, and for the
/// descriptors that a process may commonly have, both ends together.
const A_PROCESS: u64 = 9_000;
/// Connections that are begun before they are accepted.
const AT_A_TIME: u64 = 100;

/// `tcp-idle COUNT`: so many connections on loopback, both ends of 9,000 of them in
/// each process. They are there when it says `ready`; its line is
/// `{"connections","pids"}`.
pub fn idle(count: u64) {
    let starts = (0..count).step_by(A_PROCESS as usize);
    let helpers: Vec<Helper> = starts
        .map(|start| {
            let own = A_PROCESS.min(count - start);
            Helper::start("idle", move |pipe| hold(own, pipe))
        })
        .collect();
    for helper in &helpers {
        must("the connections", (&helper.pipe).read_exact(&mut [0]));
    }
    paced(|| {
        let pids: Vec<u32> = helpers.iter().map(Helper::pid).collect();
        let said = serde_json::json!({"connections": count, "pids": pids});
        crate::pace::say(&said.to_string());
    });
}

fn hold(count: u64, mut pipe: UnixStream) -> io::Result<()> {
    socket::allow_descriptors(2 * count + 1000)?;
    let listener: TcpListener = socket::listen(Family::V4)?;
    let port = listener.local_addr()?.port();
    let mut held = Vec::new();
    while (held.len() as u64) < 2 * count {
        let now = AT_A_TIME.min(count - held.len() as u64 / 2);
        for _ in 0..now {
            held.push(TcpStream::connect(("127.0.0.1", port))?);
        }
        for _ in 0..now {
            held.push(listener.accept()?.0);
        }
    }
    pipe.write_all(b"r")?;
    // Until this workload is over.
    pipe.read(&mut [0]).map(drop)
}
