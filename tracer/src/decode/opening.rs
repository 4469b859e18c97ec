//! Connections that suspected processes opened.

use bytes::{Buf as _, Bytes};
use tracer_common::tcp::{OPENING_STACK, OpeningRecord};

use super::{
    Decoded,
    bytes::{u32, u64},
    records,
};
use crate::clock::MonotonicNs;

/// A process and a program of it: ids of processes come again, and a process can run
/// another program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Program {
    /// Process id.
    pub pid: u32,
    /// When the process began.
    pub start: MonotonicNs,
    /// `self_exec_id`: another one after each execve.
    pub execs: u64,
}

/// Which connection it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Address of the socket.
    pub socket: u64,
    /// When it was accepted or begun.
    pub at: MonotonicNs,
    /// The process, and the program that it ran.
    pub program: Program,
    /// Local port.
    pub local_port: u16,
    /// The peer's.
    pub remote_port: u16,
}

/// Registers and stack of a process that was about to return from a system call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserStack {
    /// Program counter.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer, or what the program has in its register.
    pub fp: u64,
    /// The stack from `sp` on, as far as it was brought back.
    pub bytes: Bytes,
}

/// A connection, and the stack at which it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawOpening {
    /// Which.
    pub opening: Opening,
    /// Where.
    pub stack: UserStack,
}

/// Decodes a run of `OpeningRecord`s.
pub fn decode(bytes: &Bytes) -> Decoded<RawOpening> {
    records(bytes, size_of::<OpeningRecord>(), |mut b| {
        let b = &mut b;
        let (socket, at) = (u64(b).ok()?, MonotonicNs(u64(b).ok()?));
        let (pc, sp, fp) = (u64(b).ok()?, u64(b).ok()?, u64(b).ok()?);
        let (start, execs) = (MonotonicNs(u64(b).ok()?), u64(b).ok()?);
        let pid = u32(b).ok()?;
        let (local_port, remote_port) = (b.try_get_u16_ne().ok()?, b.try_get_u16_ne().ok()?);
        let length = usize::try_from(u64(b).ok()?).ok()?;
        Some(RawOpening {
            opening: Opening {
                socket,
                at,
                program: Program { pid, start, execs },
                local_port,
                remote_port,
            },
            stack: UserStack {
                pc,
                sp,
                fp,
                bytes: b.slice(..length.min(OPENING_STACK).min(b.len())),
            },
        })
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{any, prop, proptest};
    use tracer_common::tcp::OpeningRecord;

    use super::decode;

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_counted(bytes in prop::collection::vec(any::<u8>(), 0..20_000)) {
            let length = bytes.len();
            let decoded = decode(&Bytes::from(bytes));
            let used = decoded.readings.len() * size_of::<OpeningRecord>();
            assert_eq!(used + decoded.undecodable, length);
        }
    }
}
