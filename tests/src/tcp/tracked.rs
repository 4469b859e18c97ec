//! Entries of netfilter's table of connections, made by hand: no rule and no packet is
//! needed (`ctnetlink_new_conntrack`, net/netfilter/nf_conntrack_netlink.c).

use std::io;

use super::netlink::Request;

// include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h
const NEW_CONNECTION: u16 = 1 << 8;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const TIMEOUT: u16 = 7;
const ADDRESSES: u16 = 1;
const PROTOCOL: u16 = 2;
const NESTED: u16 = libc::NLA_F_NESTED as u16;
/// So long they stay, in s.
const STAY_S: u32 = 600;
const PORT: u16 = 9;

/// Has so many connections tracked in the namespace of this thread: of UDP, between
/// addresses that nobody has.
///
/// # Errors
/// This kernel tracks none, or takes none by netlink.
pub fn track(count: u32) -> io::Result<()> {
    (0..count).try_for_each(|n| {
        let from = [198, 18, (n >> 16) as u8, 1];
        let port = n as u16;
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK;
        let family = [libc::AF_INET as u8, 0, 0, 0];
        let request = Request::new(NEW_CONNECTION, flags, &family)
            .nested(ORIGINAL | NESTED, |tuple| {
                ends(tuple, (from, port), (SERVER, PORT))
            })
            .nested(REPLY | NESTED, |tuple| {
                ends(tuple, (SERVER, PORT), (from, port))
            })
            .with(TIMEOUT, &STAY_S.to_be_bytes());
        request.talk(libc::NETLINK_NETFILTER).map(drop)
    })
}

const SERVER: [u8; 4] = [198, 19, 0, 1];

fn ends(tuple: Request, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Request {
    tuple
        .nested(ADDRESSES | NESTED, |of| of.with(1, &from.0).with(2, &to.0))
        .nested(PROTOCOL | NESTED, |of| {
            of.with(1, &[libc::IPPROTO_UDP as u8])
                .with(2, &from.1.to_be_bytes())
                .with(3, &to.1.to_be_bytes())
        })
}
