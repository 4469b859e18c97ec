//! The kernel's own counters of TCP, from /proc/net/snmp, netstat, sockstat and
//! sockstat6 (net/ipv4/proc.c, net/ipv6/proc.c). They are of one network
//! namespace, but for three that are the host's.
//!
//! Each counter counts from the namespace's begin. One that a kernel does not
//! have is 0. Columns are found by their names: kernels add new ones anywhere.

use std::{fs, io, path::PathBuf};

use thiserror::Error;

use super::{
    living,
    namespaces::{Namespace, NamespaceError, of_process, within},
};

/// The files, in /proc/PID/net. The last is missing where there is no IPv6.
const FILES: [&str; 4] = ["snmp", "netstat", "sockstat", "sockstat6"];
const MAY_BE_MISSING: &str = "sockstat6";

/// Why counters cannot be read.
#[derive(Debug, Error)]
pub enum NetstatError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; /proc must be mounted and open to tracer", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

/// Counters of a network namespace. The first word of a description is the
/// kernel's name, of snmp and netstat without its prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// `ActiveOpens`: connections begun here.
    pub active_opens: u64,
    /// `PassiveOpens`: handshakes begun by a peer.
    pub passive_opens: u64,
    /// `AttemptFails`: handshakes that came to nothing, begun by either side.
    pub attempt_fails: u64,
    /// `EstabResets`: resets of ESTABLISHED or CLOSE_WAIT, sent or received.
    pub established_resets: u64,
    /// `CurrEstab`: connections in ESTABLISHED now, from 6.10 and its stable series
    /// on with those in CLOSE_WAIT (`tcp_set_state`).
    pub established_now: u64,
    /// `RetransSegs`: segments sent again.
    pub retransmitted_segments: u64,
    /// `OutRsts`: resets sent.
    pub resets_sent: u64,
    /// `TCPSynRetrans`: SYNs and SYN-ACKs sent again.
    pub syn_retransmits: u64,
    /// `TCPAbortOnTimeout`: given up for want of an answer.
    pub aborts_on_timeout: u64,
    /// `TCPAbortOnData`: closed by the process with SO_LINGER of 0, or data came
    /// after it had closed.
    pub aborts_on_data: u64,
    /// `TCPAbortOnClose`: closed by the process with data unread.
    pub aborts_on_close: u64,
    /// `ListenOverflows`: the accept queue was full.
    pub listen_overflows: u64,
    /// `ListenDrops`: SYNs and handshakes dropped for whatever reason, overflows
    /// included.
    pub listen_drops: u64,
    /// `SyncookiesSent`.
    pub cookies_sent: u64,
    /// `SyncookiesRecv`: cookies that came back and were valid.
    pub cookies_valid: u64,
    /// `SyncookiesFailed`: cookies that came back and were not.
    pub cookies_failed: u64,
    /// `TCPReqQFullDoCookies`: a cookie was to take the place of the SYN queue, as
    /// that was full or `tcp_syncookies` is 2. Counted before the accept queue is
    /// looked at, which can drop the SYN all the same.
    pub syn_queue_full_cookies: u64,
    /// `TCPReqQFullDrop`: the SYN queue was full, and the SYN was dropped.
    pub syn_queue_full_drops: u64,
    /// `TW`: sockets that went into TIME_WAIT, or into FIN_WAIT2 with nobody to hold
    /// them, for more than 4 s (`__inet_twsk_schedule`). Kernels before about 5.18
    /// count them when they leave it.
    pub time_wait_begun: u64,
    /// `TWRecycled`: sockets in TIME_WAIT whose ports a connection from here took.
    pub time_wait_reused: u64,
    /// `TCPTimeWaitOverflow`: connections that got no TIME_WAIT, for there were
    /// `tcp_max_tw_buckets` of them.
    pub time_wait_refused: u64,
    /// `TCP: inuse`: sockets of AF_INET in the kernel's tables now, without
    /// TIME_WAIT.
    pub in_use: u64,
    /// `TCP6: inuse`: the same of AF_INET6, whichever protocol they speak.
    pub in_use_v6: u64,
    /// `TCP: tw`: sockets in TIME_WAIT now, of both families, with those of
    /// FIN_WAIT2 that nobody holds any more.
    pub time_wait_now: u64,
    /// `TCP: orphan`: sockets that no process holds, now. Of the whole host.
    pub host_orphans: u64,
    /// `TCP: alloc`: sockets allocated now, of both families. Of the whole host.
    pub host_allocated: u64,
    /// `TCP: mem`: memory in all buffers now, in pages. Of the whole host.
    pub host_memory_pages: u64,
}

/// A counter: prefix of its line, name of its column, where it goes.
type Column = (&'static str, &'static str, fn(&mut NetCounters) -> &mut u64);

#[rustfmt::skip] // One counter a row.
const COLUMNS: &[Column] = &[
    ("Tcp", "ActiveOpens", |c| &mut c.active_opens),
    ("Tcp", "PassiveOpens", |c| &mut c.passive_opens),
    ("Tcp", "AttemptFails", |c| &mut c.attempt_fails),
    ("Tcp", "EstabResets", |c| &mut c.established_resets),
    ("Tcp", "CurrEstab", |c| &mut c.established_now),
    ("Tcp", "RetransSegs", |c| &mut c.retransmitted_segments),
    ("Tcp", "OutRsts", |c| &mut c.resets_sent),
    ("TcpExt", "TCPSynRetrans", |c| &mut c.syn_retransmits),
    ("TcpExt", "TCPAbortOnTimeout", |c| &mut c.aborts_on_timeout),
    ("TcpExt", "TCPAbortOnData", |c| &mut c.aborts_on_data),
    ("TcpExt", "TCPAbortOnClose", |c| &mut c.aborts_on_close),
    ("TcpExt", "ListenOverflows", |c| &mut c.listen_overflows),
    ("TcpExt", "ListenDrops", |c| &mut c.listen_drops),
    ("TcpExt", "SyncookiesSent", |c| &mut c.cookies_sent),
    ("TcpExt", "SyncookiesRecv", |c| &mut c.cookies_valid),
    ("TcpExt", "SyncookiesFailed", |c| &mut c.cookies_failed),
    ("TcpExt", "TCPReqQFullDoCookies", |c| &mut c.syn_queue_full_cookies),
    ("TcpExt", "TCPReqQFullDrop", |c| &mut c.syn_queue_full_drops),
    ("TcpExt", "TW", |c| &mut c.time_wait_begun),
    ("TcpExt", "TWRecycled", |c| &mut c.time_wait_reused),
    ("TcpExt", "TCPTimeWaitOverflow", |c| &mut c.time_wait_refused),
    ("TCP", "inuse", |c| &mut c.in_use),
    ("TCP6", "inuse", |c| &mut c.in_use_v6),
    ("TCP", "tw", |c| &mut c.time_wait_now),
    ("TCP", "orphan", |c| &mut c.host_orphans),
    ("TCP", "alloc", |c| &mut c.host_allocated),
    ("TCP", "mem", |c| &mut c.host_memory_pages),
];

/// Reads the counters of a namespace through a process that is in it, which
/// takes no rights; where there is none, from inside. The files are read one
/// after the other: counters of different files are not of the same moment.
///
/// # Errors
/// /proc cannot be read, or the namespace cannot be entered.
pub fn read(namespace: &Namespace) -> Result<NetCounters, NetstatError> {
    if let Some(pid) = namespace.pid.filter(|_| !namespace.is_own) {
        let counters = read_in(&living::path(pid, "net"));
        // Else the process has gone, or its number is another's by now.
        if of_process(pid) == Some(namespace.inode)
            && let Ok(counters) = counters
        {
            return Ok(counters);
        }
    }
    within(namespace, || read_in("/proc/thread-self/net"))?
}

fn read_in(directory: &str) -> Result<NetCounters, NetstatError> {
    let mut counters = NetCounters::default();
    for file in FILES {
        let path = PathBuf::from(format!("{directory}/{file}"));
        match fs::read(&path) {
            Ok(bytes) => counters.take_in(&bytes),
            Err(error) if file == MAY_BE_MISSING && error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(NetstatError::Read { path, source }),
        }
    }
    Ok(counters)
}

impl NetCounters {
    /// Takes in what one of the files has. Total: what is no number, and what
    /// nobody asked for, is passed over.
    fn take_in(&mut self, bytes: &[u8]) {
        let mut lines = bytes.split(|&b| b == b'\n').filter_map(prefixed).peekable();
        while let Some((prefix, words)) = lines.next() {
            // snmp and netstat have names in one line and values in the next;
            // sockstat has a name before each value.
            match lines.next_if(|&(next, _)| next == prefix) {
                Some((_, values)) => {
                    for (name, value) in words_of(words).zip(words_of(values)) {
                        self.set(prefix, name, value);
                    }
                }
                None => {
                    let mut words = words_of(words);
                    while let (Some(name), Some(value)) = (words.next(), words.next()) {
                        self.set(prefix, name, value);
                    }
                }
            }
        }
    }

    fn set(&mut self, prefix: &[u8], name: &[u8], value: &[u8]) {
        let is_it = |&&(p, n, _): &&Column| p.as_bytes() == prefix && n.as_bytes() == name;
        let number = str::from_utf8(value).ok().and_then(|v| v.parse().ok());
        if let (Some((_, _, counter)), Some(number)) = (COLUMNS.iter().find(is_it), number) {
            *counter(self) = number;
        }
    }
}

/// `prefix: words`.
fn prefixed(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|&b| b == b':')?;
    Some((line.get(..at)?, line.get(at + 1..)?))
}

fn words_of(words: &[u8]) -> impl Iterator<Item = &[u8]> {
    words
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::{any, prop, proptest};

    use super::{COLUMNS, NetCounters, NetstatError, read};
    use crate::host::namespaces::{Namespace, Namespaces, of_process};
    use crate::host::stranger::Stranger;

    const SNMP: &[u8] = b"\
        Ip: Forwarding DefaultTTL\nIp: 1 64\n\
        Tcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs RetransSegs OutRsts\n\
        Tcp: 1 -1 18446744073709551615 2 3 4 5 99 6 7\n\
        Udp: InDatagrams\nUdp: 1\n";
    const NETSTAT: &[u8] = b"\
        TcpExt: SyncookiesSent NewColumn TW TWRecycled ListenOverflows\n\
        TcpExt: 8 99 9 10 11\n\
        IpExt: InNoRoutes\nIpExt: 0\n";
    const SOCKSTAT: &[u8] = b"\
        sockets: used 200\n\
        TCP: inuse 12 orphan 13 tw 14 alloc 15 mem 16\n\
        UDP: inuse 3 mem 2\n";

    fn counters(files: &[&[u8]]) -> NetCounters {
        let mut counters = NetCounters::default();
        for file in files {
            counters.take_in(file);
        }
        counters
    }

    #[test]
    fn columns_are_found_by_name() {
        let expected = NetCounters {
            active_opens: u64::MAX,
            passive_opens: 2,
            attempt_fails: 3,
            established_resets: 4,
            established_now: 5,
            retransmitted_segments: 6,
            resets_sent: 7,
            cookies_sent: 8,
            time_wait_begun: 9,
            time_wait_reused: 10,
            listen_overflows: 11,
            in_use: 12,
            host_orphans: 13,
            time_wait_now: 14,
            host_allocated: 15,
            host_memory_pages: 16,
            in_use_v6: 17,
            ..NetCounters::default()
        };
        let sockstat6 = b"TCP6: inuse 17\nUDP6: inuse 1\n";
        assert_eq!(counters(&[SNMP, NETSTAT, SOCKSTAT, sockstat6]), expected);
    }

    #[test]
    fn what_is_short_or_no_number_is_passed_over() {
        for rubbish in [
            &b"Tcp: OutRsts\n"[..],
            b"Tcp: OutRsts CurrEstab\nTcp: x\n",
            b"Tcp: OutRsts\nTcp: -1\n",
            b"Tcp: OutRsts\nTcp: 18446744073709551616\n",
            b"Tcp: OutRsts\nTcpExt: 1\n",
            b"TCP: inuse\n",
            b"Tcp OutRsts 1\n",
        ] {
            assert_eq!(counters(&[rubbish]), NetCounters::default());
        }
    }

    #[test]
    fn each_column_has_a_counter_of_its_own() {
        for (at, (prefix, name, counter)) in COLUMNS.iter().enumerate() {
            let mut read = counters(&[format!("{prefix}: {name} 1\n").as_bytes()]);
            assert_eq!(*counter(&mut read), 1, "{name}");
            for (other, (.., counter)) in COLUMNS.iter().enumerate() {
                assert_eq!(*counter(&mut read) == 1, other == at, "{name}");
            }
        }
        let here = size_of::<NetCounters>() / size_of::<u64>();
        assert_eq!(COLUMNS.len(), here);
    }

    #[test]
    fn this_kernel_has_every_column() {
        let names = ["snmp", "netstat", "sockstat"]
            .map(|file| std::fs::read_to_string(format!("/proc/net/{file}")).unwrap())
            .concat();
        for (prefix, name, _) in COLUMNS {
            let has = names.lines().any(|line| {
                line.starts_with(&format!("{prefix}: ")) && line.split(' ').any(|n| n == *name)
            });
            assert!(has || *prefix == "TCP6", "{prefix} {name}");
        }
    }

    #[test]
    fn a_connection_is_counted_in_the_own_namespace() {
        let namespaces = Namespaces::find().unwrap();
        let own = &namespaces.all()[0];
        let before = read(own).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _accepted = listener.accept().unwrap();
        let after = read(own).unwrap();
        assert!(after.active_opens > before.active_opens);
        assert!(after.passive_opens > before.passive_opens);
        assert!(after.in_use >= 3 && after.established_now >= 2);
    }

    #[test]
    fn another_namespace_is_read_through_its_process_or_from_inside() {
        const NAME: &str = "another_namespace_is_read_through_its_process_or_from_inside";
        let stranger = match Stranger::start() {
            Ok(stranger) => stranger,
            Err(error) => return println!("SKIPPED {NAME}: {error}"),
        };
        let mut namespaces = Namespaces::find().unwrap();
        let inode = of_process(stranger.pid()).unwrap();
        let find = |all: &Namespaces| read(all.get(inode).unwrap());
        let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Nobody has opened a socket there.
        let through = find(&namespaces).unwrap();
        assert_eq!((through.in_use, through.passive_opens), (0, 0));

        // A number that is another process's by now.
        let other: &mut Namespace = namespaces.get_mut(inode).unwrap();
        other.pid = Some(std::process::id());
        match find(&namespaces) {
            Ok(inside) => assert_eq!((inside.in_use, inside.passive_opens), (0, 0)),
            Err(NetstatError::Namespace(error)) => println!("SKIPPED {NAME}: {error}"),
            Err(error) => panic!("{error}"),
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_in(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            counters(&[&bytes]);
        }

        #[test]
        fn any_lines_are_taken_in(
            lines in "((Tcp|TcpExt|TCP|TCP6|)(:|)(( | {2})(TW|inuse|OutRsts|-?[0-9]{1,21}|)){0,4}\n?){0,6}",
        ) {
            counters(&[lines.as_bytes()]);
        }
    }
}
