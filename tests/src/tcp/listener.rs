//! A server that is attacked, or slow.

use std::{net::TcpListener, os::fd::AsRawFd as _, thread};

use super::{
    checked, must,
    socket::{self, Family},
};
use crate::pace::{paced, say};

/// More than a test has connections: they are kept.
const DESCRIPTORS: u64 = 8192;

/// `tcp-listen FAMILY BACKLOG WHO`: listens with this backlog, and says the port. WHO is
/// `accepts` or `sleeps`, who accepts nobody.
pub fn listen(family: &str, backlog: u64, who: &str) {
    must("descriptors", socket::allow_descriptors(DESCRIPTORS));
    let listener = must("a listener", socket::listen(Family::of(family)));
    // SAFETY: touches no memory. A second listen(2) sets the backlog anew.
    let set = unsafe { libc::listen(listener.as_raw_fd(), backlog as i32) };
    must("a backlog", checked(set));
    let port = must("its address", listener.local_addr()).port();
    let _listener = match who {
        "accepts" => {
            thread::spawn(move || accept(&listener));
            None
        }
        "sleeps" => Some(listener),
        _ => panic!("nobody {who}"),
    };
    paced(|| say(&port.to_string()));
}

/// For good. What is accepted is kept.
fn accept(listener: &TcpListener) {
    let mut kept = Vec::new();
    loop {
        kept.push(must("a connection", listener.accept()));
    }
}
