//! Local ports that are used up: for one destination, or for all. Who has them is asked of
//! the sockets themselves; who closed first is said of those in TIME_WAIT alone, which no
//! process has.

use std::net::{IpAddr, SocketAddr};

use super::sockets::Table;
use crate::{
    check::{
        finding::{Finding, Verdict},
        limits::{Limits, PORTS},
    },
    render::{
        quantity::{counted, grouped},
        words,
    },
    snapshot::Closer,
    text::Text,
};

/// Processes that are named.
const NAMED: usize = 3;

/// What ports are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::check) enum At {
    /// For this destination.
    Towards(SocketAddr),
    /// For all, from this local address.
    Bound(IpAddr),
}

/// Local ports of a network namespace, of those that the kernel gives.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::check) struct Route {
    pub(in crate::check) at: At,
    pub(in crate::check) ports: Table,
    /// Who has sockets of them, and how many; the most first.
    pub(in crate::check) held: Vec<(u32, Text, u64)>,
    /// Those of a process that is not known.
    pub(in crate::check) unknown: u64,
    /// Those in TIME_WAIT.
    pub(in crate::check) time_wait: u64,
    /// Who may have closed these first: processes of this namespace, by connections to this
    /// port.
    pub(in crate::check) closers: Vec<Closer>,
}

/// What is wrong with them; `place` stands behind the words: nothing for tracer's own
/// namespace.
pub(super) fn finding(
    route: &Route,
    place: &str,
    tw_reuse: Option<u32>,
    limits: &Limits,
) -> Option<Finding> {
    let verdict = limits.judge(&PORTS, route.ports.ratio());
    if verdict == Verdict::Ok {
        return None;
    }
    let (used, most) = (grouped(route.ports.used), grouped(route.ports.most));
    let (what, why, next) = match route.at {
        At::Towards(remote) => {
            let what = format!(
                "{used} of {most} local ports are in use towards {}{place}",
                words::address(remote)
            );
            (what, limits.why(&PORTS), next(route, place, tw_reuse))
        }
        At::Bound(address) => {
            let what = format!("{used} of {most} local ports are bound on {address}{place}");
            let why = "a port that is bound before connect is used for all destinations; \
                       without one left, bind fails with EADDRINUSE"
                .to_owned();
            let next = format!(
                "sudo {}   (with IP_BIND_ADDRESS_NO_PORT a port is used for one destination only)",
                ss(route, place)
            );
            (what, format!("{why} ({})", limits.why(&PORTS)), next)
        }
    };
    Some(Finding {
        verdict,
        what,
        who: who(route),
        why,
        next,
    })
}

fn who(route: &Route) -> Vec<String> {
    let held = route.held.iter().take(NAMED);
    let mut who: Vec<String> = held
        .map(|(pid, comm, count)| format!("{comm}[{pid}] holds {}", grouped(*count)))
        .collect();
    let others = route.held.iter().skip(NAMED);
    let (processes, sockets) = (others.clone().count() as u64, others.map(|o| o.2).sum());
    if processes > 0 {
        who.push(format!(
            "{} hold {}",
            counted(processes, "more process"),
            grouped(sockets)
        ));
    }
    if route.unknown > 0 {
        who.push(format!(
            "processes that are not known hold {}",
            grouped(route.unknown)
        ));
    }
    if route.time_wait > 0 {
        who.push(format!(
            "no process holds {}: they are in TIME_WAIT",
            grouped(route.time_wait)
        ));
        let closers = route.closers.iter().take(NAMED);
        who.extend(closers.map(|closer| {
            format!(
                "{}[{}] closed {} first, connected to {}",
                closer.comm,
                closer.pid,
                grouped(closer.count),
                closer.port
            )
        }));
    }
    who
}

fn next(route: &Route, place: &str, tw_reuse: Option<u32>) -> String {
    let held: u64 = route.held.iter().map(|held| held.2).sum();
    if route.time_wait <= held + route.unknown {
        return format!(
            "sudo {}   (fewer connections at a time, or a wider net.ipv4.ip_local_port_range)",
            ss(route, place)
        );
    }
    let reuse = match tw_reuse {
        Some(1) => "",
        _ => "; net.ipv4.tcp_tw_reuse=1 lets ports in TIME_WAIT be taken again",
    };
    format!("sudo tracer tcp   (keep connections open and use them again{reuse})")
}

/// Lists sockets, in the namespace of whoever holds them.
fn ss(route: &Route, place: &str) -> String {
    match route.held.first() {
        Some((pid, ..)) if !place.is_empty() => format!("nsenter -t {pid} -n ss -tanp"),
        _ => "ss -tanp".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{At, Route, finding};
    use crate::{
        check::{finding::Verdict, limits::Limits, rows::sockets::Table},
        snapshot::{Closer, Side},
    };

    fn route(at: At) -> Route {
        Route {
            at,
            ports: Table {
                used: 480,
                most: 500,
            },
            held: Vec::new(),
            unknown: 0,
            time_wait: 0,
            closers: Vec::new(),
        }
    }

    /// 54 of the evidence: nothing is in TIME_WAIT, and one process has it all.
    #[test]
    fn who_holds_the_ports_is_named_and_nobody_else() {
        let route = Route {
            held: vec![(7, "shop-client".into(), 480)],
            ..route(At::Towards("127.0.1.1:80".parse().unwrap()))
        };
        let finding = finding(&route, "@net:[9]", Some(2), &Limits::default()).unwrap();
        assert_eq!(
            finding.what,
            "480 of 500 local ports are in use towards 127.0.1.1:80@net:[9]"
        );
        assert_eq!(finding.who, ["shop-client[7] holds 480"]);
        assert!(!finding.next.contains("TIME_WAIT"), "{}", finding.next);
    }

    #[test]
    fn who_closed_first_is_said_of_time_wait() {
        let closer = Closer {
            pid: 12,
            comm: "ab".into(),
            side: Side::Connected,
            port: 80,
            count: 470,
        };
        let route = Route {
            held: vec![(7, "web".into(), 10)],
            time_wait: 470,
            closers: vec![closer],
            ..route(At::Towards("10.0.0.3:80".parse().unwrap()))
        };
        let finding = finding(&route, "", Some(0), &Limits::default()).unwrap();
        assert_eq!(
            finding.who,
            [
                "web[7] holds 10",
                "no process holds 470: they are in TIME_WAIT",
                "ab[12] closed 470 first, connected to 80"
            ]
        );
        assert!(finding.next.contains("tcp_tw_reuse=1"), "{}", finding.next);
    }

    /// 55 of the evidence.
    #[test]
    fn bound_ports_are_used_for_all() {
        let route = Route {
            ports: Table {
                used: 1000,
                most: 1000,
            },
            held: (1..=5).map(|pid| (pid, "python3".into(), 200)).collect(),
            ..route(At::Bound("127.0.0.1".parse().unwrap()))
        };
        let finding = finding(&route, "@net:[9]", Some(2), &Limits::default()).unwrap();
        assert_eq!(finding.verdict, Verdict::Critical);
        assert_eq!(
            finding.what,
            "1,000 of 1,000 local ports are bound on 127.0.0.1@net:[9]"
        );
        assert_eq!(finding.who[3], "2 more processes hold 400");
        assert!(finding.why.contains("EADDRINUSE"));
        assert!(finding.next.contains("IP_BIND_ADDRESS_NO_PORT"));
    }
}
