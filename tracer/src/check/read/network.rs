//! Counters of interfaces and protocols of every network namespace: /proc/net/dev, snmp
//! and snmp6, read inside (net/core/net-procfs.c, net/ipv4/proc.c, net/ipv6/proc.c).
//!
//! The parsers are of our own: a container may give an interface a name that is no UTF-8,
//! and that must not hide the others.

use std::{
    collections::BTreeMap,
    fs, io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use crate::{
    check::rows::network::{Counters, Interface, Namespace, Reading, UdpSocket},
    clock,
    host::namespaces::{self, NamespaceError, Namespaces, within},
    render::quantity::grouped,
    text::{self, Text},
};

const DIRECTORY: &str = "/proc/thread-self/net";
const ONE: &str = "network namespace";
const MANY: &str = "network namespaces";

/// The begin of the sample. Namespaces are held open, so that what is read at the end is
/// of the same ones.
pub(in crate::check) struct Begun {
    namespaces: Namespaces,
    before: Vec<Result<Counters, String>>,
}

/// Reads the counters of every namespace.
///
/// # Errors
/// Not even tracer's own can be found.
pub(in crate::check) fn begin() -> Result<Begun, NamespaceError> {
    let namespaces = Namespaces::find()?;
    let before = namespaces.all().iter().map(counters).collect();
    Ok(Begun { namespaces, before })
}

/// Reads them again.
pub(in crate::check) fn end(begun: Begun) -> Reading {
    let mut reading = Reading::default();
    let mut refused: Option<(u64, String)> = None;
    for (namespace, before) in begun.namespaces.all().iter().zip(begun.before) {
        let both = before.and_then(|before| Ok((before, counters(namespace)?)));
        match both {
            Ok((before, now)) => reading.namespaces.push(Namespace {
                name: name(namespace),
                before,
                now,
            }),
            Err(error) => refused.get_or_insert((0, error)).0 += 1,
        }
    }
    if let Some((count, error)) = refused {
        reading
            .unseen
            .push(format!("{}: {error}", several(count, ONE, MANY)));
    }
    let processes = begun.namespaces.unreadable_processes();
    if processes > 0 {
        reading.unseen.push(format!(
            "network namespaces of {}: needs CAP_SYS_PTRACE over them",
            several(processes, "process", "processes")
        ));
    }
    let unopened = begun.namespaces.unopened();
    if unopened > 0 {
        reading.unseen.push(format!(
            "{} that could not be opened",
            several(unopened, ONE, MANY)
        ));
    }
    reading
}

fn several(count: u64, one: &str, many: &str) -> String {
    let noun = if count == 1 { one } else { many };
    format!("{} {noun}", grouped(count))
}

/// Its name by ip-netns(8), else its number.
fn name(namespace: &namespaces::Namespace) -> Option<Text> {
    if namespace.is_own {
        return None;
    }
    let number = || Text::from(format!("net:[{}]", namespace.inode).as_str());
    Some(namespace.name.clone().unwrap_or_else(number))
}

fn counters(namespace: &namespaces::Namespace) -> Result<Counters, String> {
    let inside = || -> io::Result<Counters> {
        let dev = fs::read(format!("{DIRECTORY}/dev"))?;
        let snmp = fs::read(format!("{DIRECTORY}/snmp"))?;
        let at = clock::monotonic();
        // Not there without IPv6.
        let snmp6 = fs::read(format!("{DIRECTORY}/snmp6")).unwrap_or_default();
        let flags = flags();
        let (snmp, snmp6) = (
            String::from_utf8_lossy(&snmp),
            String::from_utf8_lossy(&snmp6),
        );
        let udp6 = single(&snmp6, "Udp6RcvbufErrors").unwrap_or(0);
        let of = |prefix, name| column(&snmp, prefix, name).unwrap_or(0);
        Ok(Counters {
            at,
            interfaces: interfaces(&dev, |name| flags.as_ref().is_none_or(|f| f.runs(name))),
            out_segments: of("Tcp:", "OutSegs"),
            retransmitted: of("Tcp:", "RetransSegs"),
            udp_sockets: ["udp", "udp6"].into_iter().flat_map(udp_sockets).collect(),
            udp_drops: of("Udp:", "RcvbufErrors").saturating_add(udp6),
        })
    };
    let read = within(namespace, inside).map_err(|error| error.to_string())?;
    read.map_err(|error| format!("cannot read {DIRECTORY}: {error}"))
}

/// The sockets of /proc/net/udp or udp6 that dropped something.
fn udp_sockets(file: &str) -> Vec<(u32, UdpSocket)> {
    let text = text::read(format!("{DIRECTORY}/{file}")).unwrap_or_default();
    text.lines().skip(1).filter_map(udp_socket).collect()
}

/// `sl local rem st tx:rx tr:when retr uid timeout inode ref pointer drops`
/// (`udp4_format_sock`, net/ipv4/udp.c); addresses and queues in hexadecimal.
fn udp_socket(line: &str) -> Option<(u32, UdpSocket)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let drops: u64 = words.get(12)?.parse().ok()?;
    let (_, port) = words.get(1)?.rsplit_once(':')?;
    let (_, queue) = words.get(4)?.split_once(':')?;
    let socket = UdpSocket {
        port: u16::from_str_radix(port, 16).ok()?,
        drops,
        queue_bytes: u64::from_str_radix(queue, 16).ok()?,
        owners: Vec::new(),
    };
    let inode = words.get(9)?.parse().ok()?;
    (drops > 0).then_some((inode, socket))
}

/// The interfaces of /proc/net/dev (`dev_seq_printf_stats`): after the name eight numbers of
/// what came, and eight of what went.
fn interfaces(dev: &[u8], runs: impl Fn(&[u8]) -> bool) -> BTreeMap<Text, Interface> {
    let one = |line: &[u8]| {
        // A name can hold no colon, and neither can what follows it.
        let at = line.iter().rposition(|&b| b == b':')?;
        let (name, numbers) = line.split_at_checked(at)?;
        let numbers = str::from_utf8(numbers.get(1..)?).ok()?;
        let numbers: Vec<u64> = numbers
            .split_ascii_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        let both = |at: usize| Some(numbers.get(at)?.saturating_add(*numbers.get(at + 8)?));
        let name = name.trim_ascii();
        let interface = Interface {
            packets: both(1)?,
            errors: both(2)?,
            drops: both(3)?,
            is_running: runs(name),
        };
        Some((Text::from_bytes(name), interface))
    };
    dev.split(|&b| b == b'\n').filter_map(one).collect()
}

/// A counter of a file that has names in a line and values in the next.
fn column(text: &str, prefix: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut both = names
        .split_ascii_whitespace()
        .zip(values.split_ascii_whitespace());
    both.find(|(its, _)| *its == name)?.1.parse().ok()
}

/// A counter of a file that has a name and a value a line.
fn single(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().map(str::split_ascii_whitespace);
    words
        .find_map(|mut words| (words.next()? == name).then(|| words.next())?)?
        .parse()
        .ok()
}

/// Asks for the flags of interfaces of the namespace that this thread is in. /sys has
/// them too, but of the namespace that it was mounted in.
struct Flags(OwnedFd);

fn flags() -> Option<Flags> {
    // Any socket will do, and this is a kind that can send nothing to another host.
    // SAFETY: touches no memory.
    let socket = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        )
    };
    // SAFETY: the descriptor is new and nobody else's.
    (socket >= 0).then(|| Flags(unsafe { OwnedFd::from_raw_fd(socket) }))
}

impl Flags {
    /// Whether it is up and has its carrier (`dev_get_flags`, net/core/dev.c). So does one
    /// of which that is not known.
    fn runs(&self, name: &[u8]) -> bool {
        // SAFETY: all zeroes are a valid request.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return true;
        }
        let to = request.ifr_name.iter_mut();
        to.zip(name)
            .for_each(|(to, from)| *to = from.cast_signed() as libc::c_char);
        // SAFETY: the request is ours; its name ends with a zero, as it is shorter than
        // its field.
        let status = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SIOCGIFFLAGS as _,
                &raw mut request,
            )
        };
        if status != 0 {
            return true;
        }
        // SAFETY: the kernel filled in the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        i32::from(flags) & libc::IFF_RUNNING != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::{begin, column, end, interfaces, single};
    use crate::check::rows::network::Interface;

    const DEV: &[u8] = b"Inter-|   Receive                 |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 598 100 0 0 0 0 0 0 598 100 0 0 0 0 0 0
  e\xffh0:524 13278 1 2 0 0 0 0 603768 7317 3 4 0 0 0 0
  bad: 1 2 3
";
    const SNMP: &str = "Tcp: RtoMin MaxConn OutSegs RetransSegs\nTcp: 200 -1 120 7\n\
                        Udp: InDatagrams RcvbufErrors\nUdp: 5 3\n";

    #[test]
    fn udp_sockets_that_drop() {
        let line = "  123: 0100007F:1F90 00000000:0000 07 00000000:00033F00 00:00000000 00000000  1000        0 98765 2 0000000000000000 512";
        let (inode, socket) = super::udp_socket(line).unwrap();
        assert_eq!(
            (inode, socket.port, socket.drops, socket.queue_bytes),
            (98_765, 8080, 512, 0x33f00)
        );
        assert_eq!(super::udp_socket(&line.replace(" 512", " 0")), None);
        assert_eq!(super::udp_socket("123: x"), None);
    }

    #[test]
    fn texts() {
        let all = interfaces(DEV, |name| name != b"lo");
        assert_eq!(all.len(), 2);
        assert_eq!(
            all[&"e\u{fffd}h0".into()],
            Interface {
                packets: 20_595,
                errors: 4,
                drops: 6,
                is_running: true
            }
        );
        assert!(!all[&"lo".into()].is_running);
        assert_eq!(column(SNMP, "Tcp:", "OutSegs"), Some(120));
        assert_eq!(column(SNMP, "Udp:", "RcvbufErrors"), Some(3));
        assert_eq!(column(SNMP, "Tcp:", "MaxConn"), None);
        assert_eq!(column(SNMP, "Udp:", "OutSegs"), None);
        let snmp6 = "Udp6InErrors  \t1\nUdp6RcvbufErrors \t4\n";
        assert_eq!(single(snmp6, "Udp6RcvbufErrors"), Some(4));
        assert_eq!(single(snmp6, "Udp6"), None);
    }

    #[test]
    fn the_own_namespace_has_a_loopback() {
        let reading = end(begin().unwrap());
        let own = reading
            .namespaces
            .iter()
            .find(|n| n.name.is_none())
            .unwrap();
        assert!(own.now.interfaces.contains_key(&"lo".into()));
        assert!(own.now.at > own.before.at);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_in(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            interfaces(&bytes, |_| true);
            let text = String::from_utf8_lossy(&bytes);
            column(&text, "", "");
            single(&text, "");
        }
    }
}
