//! Local ports that are used up, of a network namespace: for one destination, as
//! connections to others can have the same port (`__inet_check_established`,
//! net/ipv4/inet_hashtables.c), or for all, where programs bind a port before they connect.
//!
//! The kernel does not say which sockets were bound (`SOCK_BINDPORT_LOCK`), but for those
//! that are not connected yet. It shows: connections to several destinations that got
//! their ports from connect(2) share some, bound ones never do (`inet_csk_get_port`,
//! net/ipv4/inet_connection_sock.c, unless IP_BIND_ADDRESS_NO_PORT puts it off).

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use crate::{
    check::rows::ports::At,
    host::{sock_diag::SocketEntry, sysctls::TcpSysctls},
    snapshot::TcpState,
};

/// With fewer ports to be shared by chance than this, nothing is said of bound ones.
const LEAST_SHARED: f64 = 10.0;

/// A socket that takes a local port of the range.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Taken {
    port: u16,
    remote: SocketAddr,
    inode: u32,
    state: TcpState,
}

/// Sockets whose local port is one that the kernel gives.
#[derive(Debug, Default)]
pub(super) struct Ports {
    by_address: HashMap<IpAddr, Vec<Taken>>,
    listening: HashSet<u16>,
}

/// Sockets that take ports together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Use {
    /// Where they go, or the local address that they are bound on.
    pub(super) at: At,
    /// Ports in use.
    pub(super) ports: u64,
    /// Inodes of those that a process has.
    pub(super) inodes: Vec<u32>,
    /// Of the others, those in TIME_WAIT.
    pub(super) time_wait: u64,
}

impl Ports {
    /// Takes note of a socket.
    pub(super) fn add(&mut self, entry: &SocketEntry, settings: &TcpSysctls) {
        let state = TcpState(entry.state);
        let port = entry.local.port();
        if state == TcpState::LISTEN {
            self.listening.insert(port);
        } else if settings.gives(port) {
            // A socket of AF_INET6 that speaks IPv4 takes ports of IPv4.
            let remote = entry.remote;
            let taken = Taken {
                port,
                remote: SocketAddr::new(remote.ip().to_canonical(), remote.port()),
                inode: entry.inode,
                state,
            };
            let local = entry.local.ip().to_canonical();
            self.by_address.entry(local).or_default().push(taken);
        }
    }

    /// How many are in TIME_WAIT towards a port, wherever it is.
    pub(super) fn time_wait(&self, port: u16) -> u64 {
        let all = self.by_address.values().flatten();
        let there = all.filter(|one| one.remote.port() == port);
        there.filter(|one| one.state == TcpState::TIME_WAIT).count() as u64
    }

    /// Sockets of connections that this side made, or will make: not those of a listener.
    fn made(&self) -> impl Iterator<Item = (IpAddr, impl Iterator<Item = &Taken>)> {
        let is_made = |taken: &&Taken| !self.listening.contains(&taken.port);
        let one = move |(address, all): (&IpAddr, _)| {
            (*address, <&Vec<Taken>>::into_iter(all).filter(is_made))
        };
        self.by_address.iter().map(one)
    }

    /// The destination that most ports are used for, of one local address.
    pub(super) fn fullest(&self, settings: &TcpSysctls) -> Option<Use> {
        let mut routes: HashMap<(IpAddr, SocketAddr), Vec<&Taken>> = HashMap::new();
        for (address, taken) in self.made() {
            for one in taken.filter(|one| one.state != TcpState::CLOSE) {
                let is_free = one.state == TcpState::TIME_WAIT && settings.reuses(one.remote.ip());
                if !is_free {
                    routes.entry((address, one.remote)).or_default().push(one);
                }
            }
        }
        let fullest = routes.iter().max_by_key(|(key, all)| (all.len(), **key));
        let ((_, remote), all) = fullest?;
        Some(usage(At::Towards(*remote), all))
    }

    /// The local address on which most ports are bound, and so are used up for all
    /// destinations; `most` is how many the kernel gives.
    pub(super) fn bound(&self, most: u64) -> Option<Use> {
        let each = self.made().filter_map(|(address, taken)| {
            let (unconnected, connected): (Vec<_>, Vec<_>) =
                taken.partition(|one| one.state == TcpState::CLOSE);
            let mut bound = unconnected;
            if are_bound(&connected, most) {
                bound.extend(connected);
            }
            (!bound.is_empty()).then(|| usage(At::Bound(address), &bound))
        });
        each.max_by_key(|one| one.ports)
    }
}

/// Whether connections to several destinations have a port each, where as many that the
/// kernel gave a port at connect(2) would share some.
fn are_bound(connected: &[&Taken], most: u64) -> bool {
    let mut by_remote: HashMap<SocketAddr, u64> = HashMap::new();
    for one in connected {
        *by_remote.entry(one.remote).or_default() += 1;
    }
    let all = connected.len() as f64;
    let free = |count: &u64| 1.0 - (*count as f64 / most.max(1) as f64).min(1.0);
    let left: f64 = by_remote.values().map(free).product();
    let shared_by_chance = all - most as f64 * (1.0 - left);
    let shared = all - ports(connected) as f64;
    shared_by_chance >= LEAST_SHARED && 4.0 * shared < shared_by_chance
}

fn ports(all: &[&Taken]) -> u64 {
    let ports: HashSet<u16> = all.iter().map(|one| one.port).collect();
    ports.len() as u64
}

fn usage(at: At, all: &[&Taken]) -> Use {
    let inodes = all.iter().map(|one| one.inode).filter(|inode| *inode != 0);
    let is_over = |one: &&&Taken| one.inode == 0 && one.state == TcpState::TIME_WAIT;
    Use {
        at,
        ports: ports(all),
        inodes: inodes.collect(),
        time_wait: all.iter().filter(is_over).count() as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{At, Ports};
    use crate::{
        host::{sock_diag::SocketEntry, sysctls::TcpSysctls},
        snapshot::TcpState,
    };

    fn settings() -> TcpSysctls {
        TcpSysctls {
            local_ports: Some(20_000..=20_999),
            ..TcpSysctls::default()
        }
    }

    fn entry(local: &str, remote: &str, state: TcpState, inode: u32) -> SocketEntry {
        SocketEntry {
            cookie: 1,
            state: state.0,
            is_request: false,
            inode,
            uid: 0,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            timer: 0,
            retransmits: 0,
            expires_ms: 0,
            receive_queue: 0,
            send_queue: 0,
        }
    }

    fn of(entries: impl IntoIterator<Item = SocketEntry>) -> Ports {
        let mut ports = Ports::default();
        for entry in entries {
            ports.add(&entry, &settings());
        }
        ports
    }

    fn connected(port: u32, to: u32) -> SocketEntry {
        let (local, remote) = (
            format!("127.0.0.1:{}", 20_000 + port),
            format!("127.0.1.{to}:80"),
        );
        entry(&local, &remote, TcpState::ESTABLISHED, port + 1)
    }

    /// 55 of the evidence: a port is bound before connect, to 20 destinations in turn.
    #[test]
    fn ports_that_are_bound_are_used_for_all_destinations() {
        let ports = of((0..1000).map(|i| connected(i, i % 20 + 1)));
        let bound = ports.bound(1000).unwrap();
        assert_eq!(
            (bound.at, bound.ports),
            (At::Bound("127.0.0.1".parse().unwrap()), 1000)
        );
        assert_eq!(bound.inodes.len(), 1000);
        assert_eq!(ports.fullest(&settings()).unwrap().ports, 50);
    }

    /// As connect(2) gives them: each destination begins anywhere, and takes every second.
    #[test]
    fn ports_of_connect_are_not_bound() {
        let to = |to: u32| (0..400).map(move |i| connected((to * 137 + i * 2) % 1000, to));
        let ports = of((1..=5).flat_map(to));
        assert_eq!(ports.bound(1000), None);
        // Nearly all to one, and a few to another.
        let ports = of((0..960)
            .map(|i| connected(i, 1))
            .chain((0..30).map(|i| connected(i * 3, 2))));
        assert_eq!(ports.bound(1000), None);
        assert_eq!(ports.fullest(&settings()).unwrap().ports, 960);
    }

    #[test]
    fn sockets_that_are_bound_and_go_nowhere_yet_count() {
        let one = |i: u32| {
            entry(
                &format!("0.0.0.0:{}", 20_000 + i),
                "0.0.0.0:0",
                TcpState::CLOSE,
                i + 1,
            )
        };
        let ports = of((0..900).map(one));
        assert_eq!(ports.bound(1000).unwrap().ports, 900);
        assert_eq!(ports.fullest(&settings()), None);
    }

    #[test]
    fn what_a_listener_accepted_takes_no_port() {
        let listener = entry("0.0.0.0:20005", "0.0.0.0:0", TcpState::LISTEN, 9);
        let accepted = (0..900).map(|i| {
            let from: SocketAddr = format!("10.0.0.1:{}", 30_000 + i).parse().unwrap();
            entry(
                "10.0.0.2:20005",
                &from.to_string(),
                TcpState::ESTABLISHED,
                i + 10,
            )
        });
        let ports = of(accepted.chain([listener]));
        assert_eq!(
            (ports.bound(1000), ports.fullest(&settings())),
            (None, None)
        );
    }

    #[test]
    fn a_socket_of_ipv6_that_speaks_ipv4_takes_its_ports() {
        let mapped = |i: u32| {
            let local = format!("[::ffff:10.0.0.1]:{}", 20_500 + i);
            entry(
                &local,
                "[::ffff:10.0.0.9]:443",
                TcpState::ESTABLISHED,
                i + 1,
            )
        };
        let plain = |i: u32| {
            let local = format!("10.0.0.1:{}", 20_000 + i);
            entry(&local, "10.0.0.9:443", TcpState::TIME_WAIT, 0)
        };
        let ports = of((0..400).flat_map(|i| [mapped(i), plain(i)]));
        let fullest = ports.fullest(&settings()).unwrap();
        assert_eq!(
            (fullest.ports, fullest.inodes.len(), fullest.time_wait),
            (800, 400, 400)
        );
        let reusing = TcpSysctls {
            tw_reuse: Some(1),
            ..settings()
        };
        assert_eq!(ports.fullest(&reusing).unwrap().ports, 400);
    }
}
