//! Netlink messages, as far as namespaces and socket dumps need them.
//!
//! A message is a header, a fixed struct and attributes, each padded to four bytes
//! (include/uapi/linux/netlink.h). Numbers are of the machine's byte order.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use super::checked;

const HEADER: usize = 16;
/// What the kernel puts into one datagram of a dump at most.
const DATAGRAM: usize = 64 << 10;

/// A request that is being written.
pub(super) struct Request(Vec<u8>);

impl Request {
    /// Begins one of a kind, with its fixed struct.
    pub(super) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let flags = flags as u16 | libc::NLM_F_REQUEST as u16;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        Self(bytes)
    }

    /// Adds an attribute.
    pub(super) fn with(self, kind: u16, data: &[u8]) -> Self {
        self.nested(kind, |mut inner| {
            inner.0.extend(data);
            inner
        })
    }

    /// Adds an attribute that is made of others.
    pub(super) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend([0; 4]);
        let mut filled = fill(self);
        let length = (filled.0.len() - start) as u16;
        let head = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        filled.0.splice(start..start + 4, head);
        filled.0.resize(filled.0.len().next_multiple_of(4), 0);
        filled
    }

    /// Adds bytes that are no attribute.
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Sends it to a protocol, in the namespace of this thread: the bodies of what
    /// comes back, up to the end of a dump or the acknowledgement.
    pub(super) fn talk(mut self, protocol: i32) -> io::Result<Vec<Vec<u8>>> {
        let length = self.0.len() as u32;
        self.0.splice(..4, length.to_ne_bytes());
        // SAFETY: touches no memory; the descriptor is new and nobody else's.
        let socket = unsafe {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            OwnedFd::from_raw_fd(checked(libc::socket(libc::AF_NETLINK, kind, protocol))?)
        };
        // SAFETY: the bytes outlive the call.
        let sent = unsafe {
            let bytes = self.0.as_ptr().cast();
            libc::send(socket.as_raw_fd(), bytes, self.0.len(), 0)
        };
        checked(sent as i32)?;
        let mut bodies = Vec::new();
        let mut bytes = vec![0_u8; DATAGRAM];
        loop {
            // SAFETY: the kernel writes at most so many bytes.
            let got = unsafe {
                let to = bytes.as_mut_ptr().cast();
                libc::recv(socket.as_raw_fd(), to, DATAGRAM, 0)
            };
            let got = checked(got as i32)? as usize;
            if take(bytes.get(..got).unwrap_or_default(), &mut bodies)? {
                return Ok(bodies);
            }
        }
    }
}

/// Takes the messages of a datagram, and says whether one of them was the last.
fn take(mut datagram: &[u8], bodies: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (u32_at(datagram, 0), u16_at(datagram, 4)) {
        let length = length as usize;
        let Some(body) = datagram.get(HEADER..length) else {
            return Err(io::Error::other("netlink: a message that is cut off"));
        };
        match i32::from(kind) {
            // The error is 0 in an acknowledgement.
            libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                let error = u32_at(body, 0).unwrap_or(0).cast_signed();
                return if error < 0 {
                    Err(io::Error::from_raw_os_error(-error))
                } else {
                    Ok(true)
                };
            }
            _ => bodies.push(body.to_vec()),
        }
        let next = length.next_multiple_of(4).min(datagram.len());
        datagram = datagram.get(next..).unwrap_or_default();
    }
    Ok(false)
}

/// A number of four bytes, of the machine's order.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}
