//! The settings of TCP that tell what a namespace can hold, from /proc/sys/net/ipv4
//! (`ipv4_net_table`, net/ipv4/sysctl_net_ipv4.c) and /proc/sys/net/core.
//!
//! There is no /proc/PID/sys: the kernel shows a task the settings of its own
//! namespace (`net_ctl_header_lookup`, net/sysctl_net.c), so they are read inside.

use std::{net::IpAddr, ops::RangeInclusive};

use super::namespaces::{Namespace, NamespaceError, within};

use crate::text;

/// Settings of a network namespace; `None` where one cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpSysctls {
    /// `ip_local_port_range`: ports that connections from here get.
    pub local_ports: Option<RangeInclusive<u16>>,
    /// `ip_local_reserved_ports`: those of the range that no connection gets.
    pub reserved_ports: Vec<RangeInclusive<u16>>,
    /// `tcp_tw_reuse`: whether a connection from here may take the port of one in
    /// TIME_WAIT; 0 no, 1 yes, 2 on loopback only.
    pub tw_reuse: Option<u32>,
    /// `tcp_fin_timeout`: how long FIN_WAIT2 lasts when nobody holds the socket, in
    /// seconds. TIME_WAIT lasts 60 s and cannot be set.
    pub fin_timeout_s: Option<u32>,
    /// `tcp_syncookies`: 0 never, 1 when the SYN queue is full, 2 always.
    pub syncookies: Option<u32>,
    /// `tcp_max_syn_backlog`: without cookies, SYNs of peers that are not known are dropped
    /// once three quarters of this wait.
    pub max_syn_backlog: Option<u32>,
    /// `net.core.somaxconn`: no backlog is longer than this.
    pub somaxconn: Option<u32>,
    /// `tcp_max_tw_buckets`: no more sockets than this are kept in TIME_WAIT.
    pub max_tw_buckets: Option<u32>,
}

impl TcpSysctls {
    /// Whether a connection from here can get this local port.
    pub fn gives(&self, port: u16) -> bool {
        let is_in = |range: &RangeInclusive<u16>| range.contains(&port);
        self.local_ports.as_ref().is_some_and(is_in) && !self.reserved_ports.iter().any(is_in)
    }

    /// How many local ports connections from here can get.
    pub fn ports(&self) -> u64 {
        let all = self.local_ports.clone().into_iter().flatten();
        all.filter(|port| self.gives(*port)).count() as u64
    }

    /// Whether a connection to there takes ports in TIME_WAIT: `tcp_tw_reuse` is 1
    /// everywhere, 2 on loopback (`tcp_twsk_unique`, net/ipv4/tcp_ipv4.c; needs
    /// timestamps, as is usual).
    pub fn reuses(&self, remote: IpAddr) -> bool {
        match self.tw_reuse {
            Some(1) => true,
            Some(2) => remote.to_canonical().is_loopback(),
            _ => false,
        }
    }
}

/// Reads the settings of a namespace.
///
/// # Errors
/// The namespace cannot be entered.
pub fn read(namespace: &Namespace) -> Result<TcpSysctls, NamespaceError> {
    within(namespace, || TcpSysctls {
        local_ports: setting("ip_local_port_range").and_then(|text| range(&text)),
        reserved_ports: setting("ip_local_reserved_ports")
            .map(|text| list(&text))
            .unwrap_or_default(),
        tw_reuse: setting("tcp_tw_reuse").and_then(|text| number(&text)),
        fin_timeout_s: setting("tcp_fin_timeout").and_then(|text| number(&text)),
        syncookies: setting("tcp_syncookies").and_then(|text| number(&text)),
        max_syn_backlog: setting("tcp_max_syn_backlog").and_then(|text| number(&text)),
        somaxconn: text::read("/proc/sys/net/core/somaxconn")
            .ok()
            .and_then(|text| number(&text)),
        max_tw_buckets: setting("tcp_max_tw_buckets").and_then(|text| number(&text)),
    })
}

fn setting(name: &str) -> Option<String> {
    text::read(format!("/proc/sys/net/ipv4/{name}")).ok()
}

fn number(text: &str) -> Option<u32> {
    text.trim().parse().ok()
}

/// Two numbers, a tab between them.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_ascii_whitespace().map(str::parse);
    Some(words.next()?.ok()?..=words.next()?.ok()?)
}

/// `8080,20000-20010` (`proc_do_large_bitmap`, kernel/sysctl.c).
fn list(text: &str) -> Vec<RangeInclusive<u16>> {
    let one = |word: &str| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::{TcpSysctls, list, number, range, read};
    use crate::host::namespaces::{Namespaces, of_process};
    use crate::host::stranger::Stranger;

    #[test]
    fn texts() {
        assert_eq!(range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(number("60\n"), Some(60));
        for rubbish in ["", "1", "1 x", "65536 1", "-1 2"] {
            assert_eq!(range(rubbish), None);
        }
        assert_eq!(number("-1"), None);
    }

    #[test]
    fn reserved_ports_are_not_given() {
        assert_eq!(list("8080,20000-20009\n"), [8080..=8080, 20_000..=20_009]);
        assert_eq!(list("\n"), []);
        let settings = TcpSysctls {
            local_ports: Some(20_000..=20_099),
            reserved_ports: list("20000-20009,20050,30000"),
            ..TcpSysctls::default()
        };
        assert_eq!(settings.ports(), 89);
        assert!(settings.gives(20_010) && !settings.gives(20_050));
        assert_eq!(TcpSysctls::default().ports(), 0);
    }

    #[test]
    fn the_own_settings_hold() {
        let namespaces = Namespaces::find().unwrap();
        let settings = read(&namespaces.all()[0]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        assert!(settings.local_ports.clone().unwrap().contains(&port));
        assert!(settings.fin_timeout_s.unwrap() > 0, "{settings:?}");
    }

    #[test]
    fn another_namespace_has_settings_of_its_own() {
        const NAME: &str = "another_namespace_has_settings_of_its_own";
        const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
        let stranger = match Stranger::start() {
            Ok(stranger) => stranger,
            Err(error) => return println!("SKIPPED {NAME}: {error}"),
        };
        let namespaces = Namespaces::find().unwrap();
        let other = of_process(stranger.pid()).and_then(|inode| namespaces.get(inode));
        let change = || std::fs::write(RANGE, "20000 20099");
        match super::within(other.unwrap(), change) {
            Ok(changed) => changed.unwrap(),
            Err(error) => return println!("SKIPPED {NAME}: {error}"),
        }
        let ports = |namespace| read(namespace).unwrap().local_ports;
        assert_eq!(ports(other.unwrap()), Some(20_000..=20_099));
        assert_ne!(ports(&namespaces.all()[0]), Some(20_000..=20_099));
    }
}
