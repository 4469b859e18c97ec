//! Listeners, and what waits at them.

use std::net::SocketAddr;

use bytes::{Buf as _, Bytes};
use tracer_common::{COMM_BYTES, syn::ListenerRecord, tcp::LISTEN};

use super::{
    Decoded,
    bytes::{u32, u64},
    records,
    tcp::address,
};
use crate::text::Text;

/// A socket in LISTEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerReading {
    /// Its address in the kernel: which one it is.
    pub socket: u64,
    /// Local address and port.
    pub local: SocketAddr,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Handshakes that wait for the peer's ACK.
    pub syn_queue: u32,
    /// Those whose SYN-ACK was not sent again yet.
    pub young: u32,
    /// Connections that wait for accept.
    pub accept_queue: u32,
    /// Most of either.
    pub backlog: u32,
    /// SYNs and handshakes that it dropped, wrapping.
    pub drops: u32,
    /// Process id and name of who began to listen, or was found with it.
    pub who: (u32, Text),
}

/// Decodes a run of `ListenerRecord`s: those that listen, and addresses of those that do
/// no more.
pub fn listeners(bytes: &Bytes) -> Decoded<Result<ListenerReading, u64>> {
    records(bytes, size_of::<ListenerRecord>(), |mut b| {
        let b = &mut b;
        let socket = u64(b).ok()?;
        let mut local = [0; 16];
        b.try_copy_to_slice(&mut local).ok()?;
        let (netns, syn_queue, young) = (u32(b).ok()?, u32(b).ok()?, u32(b).ok()?);
        let (accept_queue, backlog) = (u32(b).ok()?, u32(b).ok()?);
        let (drops, state) = (u32(b).ok()?, u32(b).ok()?);
        let (family, port) = (b.try_get_u16_ne().ok()?, b.try_get_u16_ne().ok()?);
        let (pid, _reserved) = (u32(b).ok()?, u32(b).ok()?);
        let mut comm = [0; COMM_BYTES];
        b.try_copy_to_slice(&mut comm).ok()?;
        if state != LISTEN {
            return Some(Err(socket));
        }
        Some(Ok(ListenerReading {
            socket,
            local: (address(family, local), port).into(),
            netns,
            syn_queue,
            young,
            accept_queue,
            backlog,
            drops,
            who: (pid, Text::from_bytes(&comm)),
        }))
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{any, prop, proptest};
    use tracer_common::syn::ListenerRecord;

    use super::listeners;

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_counted(bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
            let length = bytes.len();
            let decoded = listeners(&Bytes::from(bytes));
            let used = decoded.readings.len() * size_of::<ListenerRecord>();
            assert_eq!(used + decoded.undecodable, length);
        }
    }
}
