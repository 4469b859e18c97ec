//! A server that is attacked, or slow.

use std::{
    io, mem,
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
};

use super::{
    checked, must,
    socket::{self, Family},
};
use crate::pace::{paced, say};

/// More than a test has connections: they are kept.
const DESCRIPTORS: u64 = 8192;

/// `tcp-listen FAMILY BACKLOG WHO`: listens with this backlog, and says the port. WHO is
/// `accepts`, `tells`, who accepts and says of each connection what it has (see
/// [`Has`]), or `sleeps`, who accepts nobody.
pub fn listen(family: &str, backlog: u64, who: &str) {
    must("descriptors", socket::allow_descriptors(DESCRIPTORS));
    let listener = must("a listener", socket::listen(Family::of(family)));
    // SAFETY: touches no memory. A second listen(2) sets the backlog anew.
    let set = unsafe { libc::listen(listener.as_raw_fd(), backlog as i32) };
    must("a backlog", checked(set));
    let port = must("its address", listener.local_addr()).port();
    let _listener = match who {
        "accepts" => {
            thread::spawn(move || accept(&listener, |_| {}));
            None
        }
        "tells" => {
            let tell = |connection: &TcpStream| {
                let has = must("TCP_INFO", Has::of(connection));
                say(&format!("{} {}", has.options, has.mss));
            };
            thread::spawn(move || accept(&listener, tell));
            None
        }
        "sleeps" => Some(listener),
        _ => panic!("nobody {who}"),
    };
    paced(|| say(&port.to_string()));
}

/// For good. What is accepted is kept.
fn accept(listener: &TcpListener, each: impl Fn(&TcpStream)) {
    let mut kept = Vec::new();
    loop {
        let (connection, _) = must("a connection", listener.accept());
        each(&connection);
        kept.push(connection);
    }
}

/// What a connection has, as ss(8) shows it with `-i`: `struct tcp_info`,
/// include/uapi/linux/tcp.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Has {
    /// `TCPI_OPT_TIMESTAMPS` and so on.
    pub options: u8,
    /// `tcpi_snd_mss`, in bytes.
    pub mss: u32,
}

impl Has {
    /// `TCPI_OPT_TIMESTAMPS`.
    pub const TIMESTAMPS: u8 = 1;
    /// `TCPI_OPT_SACK`.
    pub const SACK: u8 = 2;
    /// `TCPI_OPT_WSCALE`.
    pub const WINDOW_SCALING: u8 = 4;
    /// `TCPI_OPT_ECN`.
    pub const ECN: u8 = 8;

    fn of(connection: &TcpStream) -> io::Result<Self> {
        // SAFETY: all zeros are valid; the kernel writes at most so many bytes.
        let info = unsafe {
            let mut info: libc::tcp_info = mem::zeroed();
            let mut length = size_of::<libc::tcp_info>() as u32;
            checked(libc::getsockopt(
                connection.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            ))?;
            info
        };
        Ok(Self {
            options: info.tcpi_options,
            mss: info.tcpi_snd_mss,
        })
    }

    /// As the server has said it.
    pub fn said(line: &str) -> Option<Self> {
        let (options, mss) = line.trim().split_once(' ')?;
        Some(Self {
            options: options.parse().ok()?,
            mss: mss.parse().ok()?,
        })
    }
}
