//! The messages of a list: the request as bytes, the answer's bytes into entries.
//! Total: bytes that are no message are counted, none make it panic.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bytes::{Buf, BufMut, TryGetError};
use tracer_common::tcp::SYN_RECV;

use super::{Dump, SockDiagError, SocketEntry, States};

/// `SOCK_DIAG_BY_FAMILY`, include/uapi/linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct nlmsghdr`, include/uapi/linux/netlink.h.
const HEADER_BYTES: usize = 16;
/// A header and `struct inet_diag_req_v2`, include/uapi/linux/inet_diag.h.
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
/// `INET_DIAG_SHUTDOWN`, include/uapi/linux/inet_diag.h.
const INET_DIAG_SHUTDOWN: u16 = 8;
/// Bytes before an attribute's own.
const HEAD: usize = 4;
/// Messages begin at multiples of this (`NLMSG_ALIGNTO`).
const ALIGNMENT: usize = 4;

/// `struct nlmsghdr`, then `struct inet_diag_req_v2` without any condition but
/// family and states.
pub(super) fn request(family: u8, states: States, sequence: u32) -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    let mut rest = request.as_mut_slice();
    rest.put_u32_ne(REQUEST_BYTES as u32);
    rest.put_u16_ne(SOCK_DIAG_BY_FAMILY);
    rest.put_u16_ne((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16);
    rest.put_u32_ne(sequence);
    rest.put_u32_ne(0);
    rest.put_u8(family);
    rest.put_u8(libc::IPPROTO_TCP as u8);
    rest.put_u16_ne(0);
    rest.put_u32_ne(states.0);
    request
}

/// A message of a part.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// Takes in a part of an answer; whether it ends the answer.
pub(super) fn take_in(
    mut bytes: &[u8],
    sequence: u32,
    dump: &mut Dump,
    on_socket: &mut impl FnMut(SocketEntry),
) -> Result<bool, SockDiagError> {
    while !bytes.is_empty() {
        let before = bytes.len();
        let Some(message) = next(&mut bytes) else {
            dump.undecodable_bytes += before as u64;
            break;
        };
        if message.sequence != sequence {
            continue;
        }
        dump.is_interrupted |= i32::from(message.flags) & libc::NLM_F_DUMP_INTR != 0;
        match i32::from(message.kind) {
            libc::NLMSG_DONE => return refusal(message.payload).map_or(Ok(true), Err),
            // A zero is an acknowledgement, which nobody asked for.
            libc::NLMSG_ERROR => {
                return Err(refusal(message.payload).unwrap_or(SockDiagError::BrokenOff));
            }
            libc::NLMSG_NOOP => {}
            _ => match entry(message) {
                Ok(Some(entry)) => {
                    dump.sockets += 1;
                    on_socket(entry);
                }
                _ => dump.undecodable_bytes += (before - bytes.len()) as u64,
            },
        }
    }
    Ok(false)
}

/// Cuts the next message off; `None` when the rest is none.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<Message<'a>> {
    let mut header = bytes.get(..HEADER_BYTES)?;
    let length = header.try_get_u32_ne().ok()? as usize;
    let message = Message {
        kind: header.try_get_u16_ne().ok()?,
        flags: header.try_get_u16_ne().ok()?,
        sequence: header.try_get_u32_ne().ok()?,
        payload: bytes.get(HEADER_BYTES..length)?,
    };
    *bytes = bytes
        .get(length.next_multiple_of(ALIGNMENT)..)
        .unwrap_or_default();
    Some(message)
}

/// The error number that an end or an error carries, negative.
fn refusal(mut payload: &[u8]) -> Option<SockDiagError> {
    let number = payload.try_get_i32_ne().ok().filter(|&n| n < 0)?;
    let source = io::Error::from_raw_os_error(number.checked_neg()?);
    Some(SockDiagError::Refused { source })
}

/// `struct inet_diag_msg`; the attributes after it are not used.
fn entry(message: Message<'_>) -> Result<Option<SocketEntry>, TryGetError> {
    if message.kind != SOCK_DIAG_BY_FAMILY {
        return Ok(None);
    }
    let mut rest = message.payload;
    let b = &mut rest;
    let family = b.try_get_u8()?;
    let (state, timer, retransmits) = (b.try_get_u8()?, b.try_get_u8()?, b.try_get_u8()?);
    // Ports and addresses are in network order, the rest in this machine's.
    let (local_port, remote_port) = (b.try_get_u16()?, b.try_get_u16()?);
    let (local, remote) = (b.try_get_u128()?, b.try_get_u128()?);
    let _interface = b.try_get_u32_ne()?;
    let cookie = [b.try_get_u32_ne()?, b.try_get_u32_ne()?].map(u64::from);
    let expires_ms = b.try_get_u32_ne()?;
    let (receive_queue, send_queue) = (b.try_get_u32_ne()?, b.try_get_u32_ne()?);
    let (uid, inode) = (b.try_get_u32_ne()?, b.try_get_u32_ne()?);
    let ip = |address: u128| match i32::from(family) {
        // The first of the four words.
        libc::AF_INET => Some(IpAddr::V4(Ipv4Addr::from_bits((address >> 96) as u32))),
        libc::AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from_bits(address))),
        _ => None,
    };
    let (Some(local), Some(remote)) = (ip(local), ip(remote)) else {
        return Ok(None);
    };
    Ok(Some(SocketEntry {
        // A socket has its INET_DIAG_SHUTDOWN always (`inet_diag_msg_attrs_fill`).
        is_request: u32::from(state) == SYN_RECV && !has_attribute(rest, INET_DIAG_SHUTDOWN),
        cookie: cookie[0] | cookie[1] << 32,
        state,
        inode,
        uid,
        local: SocketAddr::new(local, local_port),
        remote: SocketAddr::new(remote, remote_port),
        timer,
        retransmits,
        expires_ms,
        receive_queue,
        send_queue,
    }))
}

/// Whether there is an attribute of a kind (`struct nlattr`, include/uapi/linux/netlink.h).
fn has_attribute(mut bytes: &[u8], wanted: u16) -> bool {
    while let (Ok(length), Ok(kind)) = (bytes.try_get_u16_ne(), bytes.try_get_u16_ne()) {
        if kind == wanted {
            return true;
        }
        // The length is that of the head too.
        let rest = usize::from(length).next_multiple_of(ALIGNMENT).max(HEAD) - HEAD;
        bytes = bytes.get(rest..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use bytes::BufMut as _;
    use proptest::prelude::{any, prop, proptest};

    use super::{
        Dump, HEADER_BYTES, REQUEST_BYTES, SOCK_DIAG_BY_FAMILY, SYN_RECV, SockDiagError,
        SocketEntry, States, request, take_in,
    };

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_u32_ne((HEADER_BYTES + payload.len()) as u32);
        bytes.put_u16_ne(kind);
        bytes.put_u16_ne(flags);
        bytes.put_u32_ne(sequence);
        bytes.put_u32_ne(0);
        bytes.put(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn socket(family: i32) -> Vec<u8> {
        let mut bytes = vec![family as u8, 6, 3, 2];
        bytes.put_u16(22);
        bytes.put_u16(40000);
        bytes.put_u128(0x0a00_0001 << 96 | 7);
        bytes.put_u128(0xfe80 << 112 | 1);
        for word in [9, 0x1111_2222, 0x3333_4444, 59_000, 5, 6, 1000, 77] {
            bytes.put_u32_ne(word);
        }
        // An attribute of five bytes: INET_DIAG_SHUTDOWN.
        bytes.put(&[5, 0, 8, 0, 3][..]);
        bytes
    }

    /// With the sockets that were handed over.
    fn taken(bytes: &[u8]) -> (Result<bool, SockDiagError>, Dump, Vec<SocketEntry>) {
        let (mut dump, mut entries) = (Dump::default(), Vec::new());
        let last = take_in(bytes, 1, &mut dump, &mut |entry| entries.push(entry));
        (last, dump, entries)
    }

    #[test]
    fn a_request_is_told_from_a_socket() {
        // INET_DIAG_MARK, which both have for root, then INET_DIAG_SHUTDOWN.
        let mark = [8_u16.to_ne_bytes(), 15_u16.to_ne_bytes(), [0; 2], [0; 2]].concat();
        let shutdown = [5_u16.to_ne_bytes(), 8_u16.to_ne_bytes(), [0; 2], [0; 2]].concat();
        for (attributes, is_request) in [
            (mark.clone(), true),
            ([mark, shutdown].concat(), false),
            (vec![1, 0], true),
        ] {
            let mut payload = socket(libc::AF_INET).to_vec();
            payload[1] = SYN_RECV as u8;
            // Its own attribute.
            payload.truncate(payload.len() - 5);
            payload.extend(attributes);
            let (_, _, entries) = taken(&message(SOCK_DIAG_BY_FAMILY, 2, 1, &payload));
            assert_eq!(entries[0].is_request, is_request);
        }
    }

    #[test]
    fn a_part_with_sockets_of_both_families() {
        let mut bytes = message(SOCK_DIAG_BY_FAMILY, 2, 1, &socket(libc::AF_INET));
        bytes.extend(message(SOCK_DIAG_BY_FAMILY, 2, 1, &socket(libc::AF_INET6)));
        let (last, dump, entries) = taken(&bytes);
        assert!(!last.unwrap());
        assert_eq!((dump.sockets, dump.undecodable_bytes), (2, 0));
        let [v4, v6] = entries[..] else {
            panic!("{entries:?}")
        };
        let expected = SocketEntry {
            is_request: false,
            cookie: 0x3333_4444_1111_2222,
            state: 6,
            inode: 77,
            uid: 1000,
            local: "10.0.0.1:22".parse().unwrap(),
            remote: "254.128.0.0:40000".parse().unwrap(),
            timer: 3,
            retransmits: 2,
            expires_ms: 59_000,
            receive_queue: 5,
            send_queue: 6,
        };
        assert_eq!(v4, expected);
        assert_eq!(v6.local, "[a00:1::7]:22".parse::<SocketAddr>().unwrap());
        assert_eq!(v6.remote, "[fe80::1]:40000".parse::<SocketAddr>().unwrap());
    }

    #[test]
    fn the_end_can_carry_an_error_and_says_when_sockets_are_missing() {
        let end = |kind: i32, flags: i32, number: i32| {
            taken(&message(
                kind as u16,
                flags as u16,
                1,
                &number.to_ne_bytes(),
            ))
        };
        let (last, dump, _) = end(libc::NLMSG_DONE, libc::NLM_F_DUMP_INTR, 0);
        assert!(last.unwrap() && dump.is_interrupted);
        for kind in [libc::NLMSG_DONE, libc::NLMSG_ERROR] {
            let error = end(kind, 0, -libc::ENOENT).0.unwrap_err().to_string();
            assert!(
                error.contains("No such file") && error.contains("tcp_diag"),
                "{error}"
            );
        }
        assert!(matches!(
            end(libc::NLMSG_ERROR, 0, 0).0,
            Err(SockDiagError::BrokenOff)
        ));
        assert!(!end(libc::NLMSG_DONE, 0, i32::MIN).1.is_interrupted);
    }

    #[test]
    fn an_earlier_answer_is_passed_over_and_rubbish_counted() {
        let old = message(SOCK_DIAG_BY_FAMILY, 0, 0, &socket(libc::AF_INET));
        assert_eq!(taken(&old).1, Dump::default());
        let mut bytes = message(SOCK_DIAG_BY_FAMILY, 0, 1, &socket(libc::AF_UNIX));
        bytes.extend(message(99, 0, 1, &socket(libc::AF_INET)));
        bytes.extend([1, 2, 3]);
        let (_, dump, entries) = taken(&bytes);
        assert_eq!(
            (dump.undecodable_bytes, entries.len()),
            (bytes.len() as u64, 0)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_in(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (_, dump, entries) = taken(&bytes);
            assert_eq!(dump.sockets, entries.len() as u64);
            assert!(dump.undecodable_bytes <= bytes.len() as u64);
        }

        #[test]
        fn a_message_cut_anywhere_is_counted(at in 1..96_usize, kind in 0..40_u16) {
            let whole = message(kind, 0, 1, &socket(libc::AF_INET6));
            let (_, dump, entries) = taken(whole.get(..at).unwrap());
            assert!(entries.len() <= 1 && dump.undecodable_bytes <= at as u64);
        }

        #[test]
        fn a_request_is_as_long_as_it_says(states in any::<u32>(), sequence in any::<u32>()) {
            let request = request(2, States(states), sequence);
            assert_eq!(request[..4], (REQUEST_BYTES as u32).to_ne_bytes());
        }
    }
}
