//! TCP sockets in words: what every text says of a socket and of who has it.

use super::{quantity::age, words};
use crate::{
    snapshot::{Netns, Side, WaitingSocket},
    text::Text,
};

/// The process that has a socket.
pub(super) fn owner(pid: Option<u32>, comm: &Text) -> String {
    match pid {
        Some(pid) => format!("{comm}[{pid}]"),
        None => "(no process)".to_owned(),
    }
}

/// Both ends of a connection, with an arrow in the direction in which it was made.
pub(super) fn ends(socket: &WaitingSocket) -> String {
    let arrow = match socket.side {
        Some(Side::Accepted) => "<-",
        Some(Side::Connected) => "->",
        None => "<->",
    };
    let [local, remote] = [socket.local, socket.remote].map(words::address);
    format!("{local} {arrow} {remote}")
}

/// In which function the process got the socket.
pub(super) fn origin(socket: &WaitingSocket) -> Option<String> {
    let function = socket.stack.first()?;
    let got = match socket.side {
        Some(side) => words::side(side),
        None => "opened",
    };
    Some(format!("{got} in {function}"))
}

/// How long the process has not closed the socket.
pub(super) fn socket_age(socket: &WaitingSocket) -> String {
    let least = if socket.is_least { ">" } else { "" };
    format!("{least}{}", age(socket.age_ns))
}

/// A network namespace as people say it.
pub(super) fn netns(netns: &Netns) -> String {
    match &netns.name {
        Some(name) => name.to_string(),
        None if netns.is_own => "(own)".to_owned(),
        None => format!("net:[{}]", netns.inode),
    }
}

/// The same, where it is not tracer's own.
pub(super) fn foreign(namespace: &Netns) -> Option<String> {
    let is_foreign = !namespace.is_own;
    is_foreign.then(|| format!("netns {}", netns(namespace)))
}
