//! Connections whose first closer is known, with server and clients in a process each.
//!
//! The workload says `{"pid","client_pid","port","connections"}` when all are closed
//! at both ends.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process,
};

use serde_json::json;

use super::{
    diag,
    helper::Helper,
    must, name,
    socket::{self, Family},
};
use crate::{
    pace::{paced, say},
    time::eventually,
};

/// The name of the server's process.
pub const SERVER: &str = "closed-server";
/// The name of the clients' process.
pub const CLIENT: &str = "closed-client";

/// `tcp-closers WHO COUNT`: WHO closes first, `server`, `client`, or `exit`: the
/// client's process, by its end. At most 10,000 connections. Not quite all are left in
/// TIME_WAIT at that side, when they are many: a port is used again, or an
/// acknowledgement that comes late is answered with a reset, which ends TIME_WAIT.
pub fn closers(who: &str, count: u64) {
    must("descriptors", socket::allow_descriptors(count + 1000));
    name(SERVER);
    let listener = must("a listener", socket::listen(Family::V4));
    let port = must("its address", listener.local_addr()).port();
    let (is_server, is_exit) = (who == "server", who == "exit");
    assert!(is_server || is_exit || who == "client", "no closer {who}");
    let clients = Helper::start(CLIENT, |mut pipe| {
        pipe.read_exact(&mut [0])?;
        let mut held = Vec::new();
        for _ in 0..count {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            if is_server {
                stream.read_exact(&mut [])?;
                while stream.read(&mut [0])? > 0 {}
            } else if is_exit {
                held.push(stream);
            }
        }
        if is_exit {
            pipe.read_exact(&mut [0])?;
            // SAFETY: ends this process, with all that it holds still open.
            unsafe { libc::_exit(0) }
        }
        // Its end is no part of this.
        pipe.read(&mut [0]).map(drop)
    });
    paced(|| {
        must("the clients listen", (&clients.pipe).write_all(b"g"));
        let mut held = Vec::new();
        for _ in 0..count {
            let (mut stream, _) = must("a connection", listener.accept());
            if is_exit {
                held.push(stream);
            } else if !is_server {
                while must("a FIN", stream.read(&mut [0])) > 0 {}
            }
        }
        if is_exit {
            must("the clients listen", (&clients.pipe).write_all(b"e"));
            clients.until_ended();
            for mut stream in held {
                while must("a FIN", stream.read(&mut [0])) > 0 {}
            }
        }
        let is_over = || must("sock_diag", diag::are_at_rest(&[port]));
        assert!(eventually(10.0, is_over), "sockets are left over");
        let said = json!({
            "pid": process::id(),
            "client_pid": clients.pid(),
            "port": port,
            "connections": count,
        });
        say(&said.to_string());
    });
}
