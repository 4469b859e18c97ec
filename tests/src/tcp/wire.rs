//! TCP segments made by hand, from addresses that nobody has: what a flood is made of,
//! and a client that answers when it is told to.
//!
//! Only for one end of a [`Joined`](super::netns::Joined): nothing leaves the cable.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use super::{checked, socket::raw_address};

/// The flags of a segment (RFC 9293).
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// Its header without options, and those of IP.
const TCP_BYTES: usize = 20;
const V4_BYTES: usize = 20;
const V6_BYTES: usize = 40;
/// A timestamp.
const OPTION_TIME: [u8; 4] = [1, 1, 8, 10];
/// SACK is permitted, the window is scaled by 7.
const OPTION_SACK_AND_SCALE: [u8; 5] = [4, 2, 3, 3, 7];
/// Maximum segment size: what Ethernet carries over IPv4.
const MSS: u16 = 1460;
const HOPS: u8 = 64;
const WINDOW: u16 = 64_240;
/// The number of the SYN.
const FIRST: u32 = 1_000;

/// What comes back: a SYN-ACK.
#[derive(Clone, Copy, Debug)]
pub struct SynAck {
    /// Whom it is for.
    pub to: SocketAddr,
    number: u32,
    time: Option<u32>,
}

/// Sends to one listener.
pub struct Wire {
    out: OwnedFd,
    back: OwnedFd,
    to: SocketAddr,
    has_time: bool,
    mss: u16,
}

impl Wire {
    /// In the namespace of this thread; with timestamps in the segments or without.
    ///
    /// # Errors
    /// No rights.
    pub fn new(to: SocketAddr, has_time: bool) -> io::Result<Self> {
        let (domain, protocol) = match to {
            SocketAddr::V4(_) => (libc::AF_INET, libc::ETH_P_IP),
            SocketAddr::V6(_) => (libc::AF_INET6, libc::ETH_P_IPV6),
        };
        let raw = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let packets = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let protocol = i32::from((protocol as u16).to_be());
        Ok(Self {
            out: open(domain, raw, libc::IPPROTO_RAW)?,
            back: open(libc::AF_PACKET, packets, protocol)?,
            to,
            has_time,
            mss: MSS,
        })
    }

    /// The same with another maximum segment size.
    pub fn with_mss(self, mss: u16) -> Self {
        Self { mss, ..self }
    }

    /// The `n`th address that nobody has (RFC 2544, RFC 5180), of the listener's family.
    pub fn stranger(&self, n: u32) -> SocketAddr {
        let port = 1024 + (n % 60_000) as u16;
        let [_, b, c, d] = n.to_be_bytes();
        let address: IpAddr = match self.to {
            SocketAddr::V4(_) => Ipv4Addr::new(198, 18 + (b & 1), c, d).into(),
            SocketAddr::V6(_) => {
                let n = n.to_be_bytes().map(u16::from);
                Ipv6Addr::new(0x2001, 2, 0, 0, n[0] << 8 | n[1], n[2] << 8 | n[3], 0, 1).into()
            }
        };
        (address, port).into()
    }

    /// Asks for a connection.
    ///
    /// # Errors
    /// The kernel does not send it.
    pub fn syn(&self, from: SocketAddr) -> io::Result<()> {
        let mut options = [&[2, 4][..], &self.mss.to_be_bytes()].concat();
        if self.has_time {
            options.extend(time(0));
        }
        options.extend(OPTION_SACK_AND_SCALE);
        self.send(from, SYN, FIRST, 0, &options)
    }

    /// Ends a handshake.
    ///
    /// # Errors
    /// The kernel does not send it.
    pub fn ack(&self, answer: &SynAck) -> io::Result<()> {
        let options = answer.time.map(time).unwrap_or_default();
        let number = answer.number.wrapping_add(1);
        self.send(answer.to, ACK, FIRST + 1, number, &options)
    }

    /// The same with a number that nobody has sent: a cookie that is none.
    ///
    /// # Errors
    /// The kernel does not send it.
    pub fn wrong_ack(&self, answer: &SynAck) -> io::Result<()> {
        let number = answer.number.wrapping_add(0x5a5a);
        self.ack(&SynAck { number, ..*answer })
    }

    /// Ends a connection on which nothing was sent: else the server waits for answers as it
    /// closes it.
    ///
    /// # Errors
    /// The kernel does not send it.
    pub fn reset(&self, answer: &SynAck) -> io::Result<()> {
        self.send(answer.to, RST, FIRST + 1, 0, &[])
    }

    /// SYN-ACKs that have come since the last time.
    pub fn answers(&self) -> Vec<SynAck> {
        let mut answers = Vec::new();
        let mut packet = [0_u8; 256];
        loop {
            // SAFETY: the kernel writes at most so many bytes.
            let got = unsafe {
                let to = packet.as_mut_ptr().cast();
                libc::recv(self.back.as_raw_fd(), to, packet.len(), 0)
            };
            let Ok(got) = usize::try_from(got) else {
                return answers;
            };
            let packet = packet.get(..got.min(packet.len())).unwrap_or_default();
            answers.extend(self.answer(packet));
        }
    }

    fn answer(&self, packet: &[u8]) -> Option<SynAck> {
        let (address, segment): (IpAddr, _) = match self.to {
            SocketAddr::V4(_) => {
                let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
                (address.into(), packet.get(V4_BYTES..)?)
            }
            SocketAddr::V6(_) => {
                let address: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
                (address.into(), packet.get(V6_BYTES..)?)
            }
        };
        let port = |at: usize| {
            Some(u16::from_be_bytes(
                segment.get(at..at + 2)?.try_into().ok()?,
            ))
        };
        let is_it = port(0)? == self.to.port() && segment.get(13)? & (SYN | ACK) == SYN | ACK;
        is_it.then_some(SynAck {
            to: (address, port(2)?).into(),
            number: u32_at(segment, 4)?,
            time: time_of(segment),
        })
    }

    fn send(
        &self,
        from: SocketAddr,
        flags: u8,
        number: u32,
        acknowledged: u32,
        options: &[u8],
    ) -> io::Result<()> {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), 1);
        let length = TCP_BYTES + options.len();
        let mut segment = Vec::with_capacity(length);
        segment.extend(from.port().to_be_bytes());
        segment.extend(self.to.port().to_be_bytes());
        segment.extend(number.to_be_bytes());
        segment.extend(acknowledged.to_be_bytes());
        segment.extend([((length / 4) << 4) as u8, flags]);
        segment.extend(WINDOW.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(options);
        let ends = [bytes(from.ip()), bytes(self.to.ip())].concat();
        let sum = checksum(&[
            &ends,
            &[0, libc::IPPROTO_TCP as u8],
            &(length as u16).to_be_bytes(),
            &segment,
        ]);
        segment.splice(16..18, sum.to_be_bytes());
        let mut packet = match from {
            // The kernel fills in the length and the checksum.
            SocketAddr::V4(_) => {
                let mut head = vec![
                    0x45,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    HOPS,
                    libc::IPPROTO_TCP as u8,
                    0,
                    0,
                ];
                head.extend(&ends);
                head
            }
            SocketAddr::V6(_) => {
                let mut head = vec![0x60, 0, 0, 0];
                head.extend((length as u16).to_be_bytes());
                head.extend([libc::IPPROTO_TCP as u8, HOPS]);
                head.extend(&ends);
                head
            }
        };
        packet.extend(segment);
        // A raw socket of IPv6 wants no port.
        let (address, size) = raw_address((self.to.ip(), 0).into());
        // SAFETY: packet and address are valid for their lengths.
        let sent = unsafe {
            let (packet, length) = (packet.as_ptr().cast(), packet.len());
            let address = (&raw const address).cast();
            libc::sendto(self.out.as_raw_fd(), packet, length, 0, address, size)
        };
        checked(sent as i32).map(drop)
    }
}

fn open(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: touches no memory; the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(checked(libc::socket(domain, kind, protocol))?) })
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The option with a time, and the one that it answers.
fn time(answered: u32) -> Vec<u8> {
    [
        &OPTION_TIME[..],
        &1_u32.to_be_bytes(),
        &answered.to_be_bytes(),
    ]
    .concat()
}

/// The time in a segment's options.
fn time_of(segment: &[u8]) -> Option<u32> {
    let end = usize::from(segment.get(12)? >> 4) * 4;
    let mut options = segment.get(TCP_BYTES..end)?;
    loop {
        match options {
            [0, ..] | [] => return None,
            [1, rest @ ..] => options = rest,
            [8, _, time @ ..] => return u32_at(time, 0),
            [_, length, ..] => options = options.get(usize::from(*length).max(2)..)?,
            [_] => return None,
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The Internet's checksum (RFC 1071) of parts, each of an even length but the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let pair = [pair[0], pair.get(1).copied().unwrap_or(0)];
            sum += u32::from(u16::from_be_bytes(pair));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::{checksum, time_of};

    /// The example of RFC 1071.
    #[test]
    fn sums() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&bytes]), !0xddf2);
        assert_eq!(checksum(&[&bytes[..4], &bytes[4..]]), !0xddf2);
    }

    #[test]
    fn times() {
        let mut segment = vec![0; 12];
        segment.extend([0x80, 0, 0, 0, 0, 0, 0, 0]);
        segment.extend([1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 0, 0]);
        assert_eq!(time_of(&segment), Some(258));
        segment[20..24].copy_from_slice(&[3, 0, 0, 0]);
        assert_eq!(time_of(&segment), None);
        assert_eq!(time_of(&segment[..15]), None);
    }
}
