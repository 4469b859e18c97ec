//! The network: errors and drops of interfaces, segments that TCP sends again, datagrams
//! that found no room; of every network namespace, over the sample.

use std::collections::BTreeMap;

use crate::{
    check::{
        context::Context,
        finding::{Figure, Finding, Row, RowReport, Verdict, figure_of},
        limits::{INTERFACE_DROPS, INTERFACE_ERRORS, Limit, Limits, RETRANSMITS, UDP_DROPS},
        read::{self, owners::Owner},
    },
    clock::MonotonicNs,
    render::quantity::{bytes, counted, grouped, rate},
    text::Text,
};

/// Sockets that are named.
const NAMED: usize = 3;
/// Fewer in a sample are noise, whatever their part.
const LEAST: u64 = 10;

/// Counters of an interface, since it exists. Received and sent ones together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::check) struct Interface {
    pub(in crate::check) packets: u64,
    pub(in crate::check) errors: u64,
    pub(in crate::check) drops: u64,
    /// Whether it can send and receive (`IFF_RUNNING`). One that waits for its carrier
    /// cannot, and drops what it is given.
    pub(in crate::check) is_running: bool,
}

/// A UDP socket that drops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::check) struct UdpSocket {
    /// Its local port.
    pub(in crate::check) port: u16,
    /// Datagrams since it was made.
    pub(in crate::check) drops: u64,
    /// Bytes in its receive queue.
    pub(in crate::check) queue_bytes: u64,
    /// Who has it; asked only where something is wrong.
    pub(in crate::check) owners: Vec<Owner>,
}

/// Counters of a network namespace, since it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::check) struct Counters {
    pub(in crate::check) at: MonotonicNs,
    pub(in crate::check) interfaces: BTreeMap<Text, Interface>,
    /// `OutSegs`, without those that are sent again (`__tcp_transmit_skb`,
    /// net/ipv4/tcp_output.c).
    pub(in crate::check) out_segments: u64,
    /// `RetransSegs`.
    pub(in crate::check) retransmitted: u64,
    /// `RcvbufErrors` of UDP, over IPv4 and IPv6.
    pub(in crate::check) udp_drops: u64,
    /// What each UDP socket that dropped something has dropped, by its inode.
    pub(in crate::check) udp_sockets: BTreeMap<u32, UdpSocket>,
}

/// A network namespace at both ends of the sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::check) struct Namespace {
    /// What it is called; `None` for tracer's own.
    pub(in crate::check) name: Option<Text>,
    pub(in crate::check) before: Counters,
    pub(in crate::check) now: Counters,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::check) struct Reading {
    pub(in crate::check) namespaces: Vec<Namespace>,
    pub(in crate::check) unseen: Vec<String>,
}

/// Looks at both ends of the sample.
pub(super) fn look(context: &Context) -> RowReport {
    let begun = match read::network::begin() {
        Ok(begun) => begun,
        Err(error) => return RowReport::blind(Row::Network, error.to_string()),
    };
    context.wait(context.until());
    let mut reading = read::network::end(begun);
    for namespace in &mut reading.namespaces {
        if namespace.udp_verdict(&context.limits) > Verdict::Ok {
            let sockets = &mut namespace.now.udp_sockets;
            let owners = read::owners::of(&sockets.keys().copied().collect());
            for (inode, socket) in sockets {
                socket.owners = owners.get(inode).cloned().unwrap_or_default();
            }
        }
    }
    let report = judge(&reading, &context.limits);
    if reading.namespaces.is_empty() {
        return report.blinded("no network namespace could be looked at");
    }
    report
}

/// What was added over the sample.
#[derive(Clone, Copy, Debug, Default)]
struct Added {
    count: u64,
    of: u64,
    seconds: f64,
}

impl Added {
    fn per_s(self) -> f64 {
        self.count as f64 / self.seconds.max(0.001)
    }

    /// At most 1. Some drivers do not count what they drop among the packets, and a segment
    /// can be sent again more than once, so that there can be more of them.
    fn ratio(self) -> f64 {
        match self.count.max(self.of) {
            0 => 0.0,
            most => self.count as f64 / most as f64,
        }
    }

    fn verdict(self, limit: &Limit, limits: &Limits) -> Verdict {
        if self.count < LEAST {
            Verdict::Ok
        } else {
            limits.judge(limit, self.ratio())
        }
    }
}

impl Namespace {
    fn seconds(&self) -> f64 {
        self.now.at.since_ns(self.before.at) as f64 / 1e9
    }

    fn added(&self, of: fn(&Counters) -> u64, among: fn(&Counters) -> u64) -> Added {
        let since = |of: fn(&Counters) -> u64| of(&self.now).saturating_sub(of(&self.before));
        Added {
            count: since(of),
            of: since(among),
            seconds: self.seconds(),
        }
    }

    fn udp(&self) -> Added {
        self.added(|c| c.udp_drops, |_| 0)
    }

    fn udp_verdict(&self, limits: &Limits) -> Verdict {
        limits.judge(&UDP_DROPS, self.udp().per_s())
    }

    /// Whose socket has dropped how much over the sample, the most first.
    fn udp_droppers(&self) -> Vec<String> {
        let before = &self.before.udp_sockets;
        let dropped = |(inode, socket): (&u32, &UdpSocket)| {
            let before = before.get(inode).map_or(0, |before| before.drops);
            socket.drops.saturating_sub(before)
        };
        let mut all: Vec<_> = self.now.udp_sockets.iter().collect();
        all.retain(|one| dropped(*one) > 0);
        all.sort_by_key(|one| std::cmp::Reverse(dropped(*one)));
        let line = |one: &(&u32, &UdpSocket)| {
            let (_, socket) = *one;
            let mut who = match socket.owners.first() {
                Some(owner) => owner.name(),
                None => "a process that is not known".to_owned(),
            };
            if let Some(owner) = socket.owners.iter().find(|owner| owner.is_stopped) {
                who = format!("{}, which is stopped (state T),", owner.name());
            }
            let (count, waiting) = (counted(dropped(*one), "datagram"), socket.queue_bytes);
            let port = socket.port;
            format!(
                "{who} lost {count} at port {port}, with {} unread",
                bytes(waiting)
            )
        };
        all.iter().take(NAMED).map(line).collect()
    }

    fn retransmits(&self) -> Added {
        self.added(|c| c.retransmitted, |c| c.out_segments)
    }

    /// Its name where a sentence goes on; nothing for tracer's own.
    fn within(&self) -> String {
        match &self.name {
            Some(name) => format!(" in network namespace {name}"),
            None => String::new(),
        }
    }

    /// The next command, run in it.
    fn next(&self, command: &str) -> String {
        match &self.name {
            // One without a name of ip-netns(8) cannot be gone to by it.
            Some(name) if is_plain(name) => format!("sudo ip netns exec {name} {command}"),
            _ => command.to_owned(),
        }
    }
}

/// Whether a name means itself to a shell. Who makes an interface may call it `$(halt)`,
/// and commands are there to be copied.
fn is_plain(name: &Text) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    !name.as_str().starts_with('-') && name.as_str().chars().all(is_plain)
}

/// From readings to a report.
pub(in crate::check) fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let mut report = RowReport::new(Row::Network, String::new(), Vec::new());
    report.unseen.clone_from(&reading.unseen);
    let (mut interfaces, mut down, mut out, mut again) = (0, 0, 0.0, 0.0);
    for namespace in &reading.namespaces {
        for (name, now) in &namespace.now.interfaces {
            let Some(before) = namespace.before.interfaces.get(name) else {
                continue;
            };
            interfaces += 1;
            down += u64::from(!now.is_running);
            interface(namespace, (name, before, now), limits, &mut report);
        }
        let segments = namespace.added(|c| c.out_segments, |c| c.out_segments);
        out += segments.per_s();
        again += namespace.retransmits().per_s();
        report.figures.extend(of_namespace(namespace, segments));
        report.findings.extend(retransmits(namespace, limits));
        report.findings.extend(udp(namespace, limits));
    }
    report
        .findings
        .sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
    let down = match down {
        0 => String::new(),
        down => format!(" ({} down)", grouped(down)),
    };
    report.summary = format!(
        "{}{down} in {}   TCP segments {}, sent again {}",
        counted(interfaces, "interface"),
        counted(reading.namespaces.len() as u64, "namespace"),
        rate(out),
        rate(again),
    );
    report
}

fn interface(
    namespace: &Namespace,
    (name, before, now): (&Text, &Interface, &Interface),
    limits: &Limits,
    report: &mut RowReport,
) {
    let of = match &namespace.name {
        Some(netns) => format!("{name}@{netns}"),
        None => name.to_string(),
    };
    let added = |of: fn(&Interface) -> u64| Added {
        count: of(now).saturating_sub(of(before)),
        of: now.packets.saturating_sub(before.packets),
        seconds: namespace.seconds(),
    };
    let (errors, drops) = (added(|i| i.errors), added(|i| i.drops));
    report.figures.extend([
        figure_of("interface_packets_per_s", &of, added(|i| i.packets).per_s()),
        figure_of("interface_errors_per_s", &of, errors.per_s()),
        figure_of("interface_drops_per_s", &of, drops.per_s()),
    ]);
    if !now.is_running {
        return;
    }
    report.figures.extend([
        figure_of(INTERFACE_ERRORS.name, &of, errors.ratio()),
        figure_of(INTERFACE_DROPS.name, &of, drops.ratio()),
    ]);
    let named = if is_plain(name) {
        name.as_str()
    } else {
        "INTERFACE"
    };
    // What the kernel drops for want of a program that speaks the protocol counts too.
    let either = "; or of a protocol that nobody speaks here";
    for (added, limit, noun, more) in [
        (errors, &INTERFACE_ERRORS, "error", ""),
        (drops, &INTERFACE_DROPS, "drop", either),
    ] {
        let verdict = added.verdict(limit, limits);
        if verdict > Verdict::Ok {
            report.findings.push(Finding {
                verdict,
                what: format!(
                    "{name}{}: {} for {} ({:.2} %), {}",
                    namespace.within(),
                    counted(added.count, noun),
                    counted(added.of, "packet"),
                    added.ratio() * 100.0,
                    rate(added.per_s()),
                ),
                why: limits.why(limit) + more,
                next: namespace.next(&format!("ethtool -S {named}")),
                ..Finding::default()
            });
        }
    }
}

fn of_namespace(namespace: &Namespace, segments: Added) -> Vec<Figure> {
    let of = namespace.name.as_ref().map_or("", Text::as_str);
    let again = namespace.retransmits();
    let udp = namespace.added(|c| c.udp_drops, |_| 0);
    vec![
        figure_of("tcp_out_segments_per_s", of, segments.per_s()),
        figure_of("tcp_retransmits_per_s", of, again.per_s()),
        figure_of(RETRANSMITS.name, of, again.ratio()),
        figure_of(UDP_DROPS.name, of, udp.per_s()),
    ]
}

fn retransmits(namespace: &Namespace, limits: &Limits) -> Option<Finding> {
    let again = namespace.retransmits();
    let verdict = again.verdict(&RETRANSMITS, limits);
    (verdict > Verdict::Ok).then(|| Finding {
        verdict,
        what: format!(
            "{} sent again beside {} new ones ({:.1} %), {}",
            match again.count {
                1 => "1 TCP segment was".to_owned(),
                count => format!("{} TCP segments were", grouped(count)),
            },
            grouped(again.of),
            again.ratio() * 100.0,
            rate(again.per_s()),
        ),
        who: vec![match &namespace.name {
            Some(name) => format!("network namespace {name}"),
            None => "tracer's own network namespace".to_owned(),
        }],
        why: limits.why(&RETRANSMITS),
        next: "sudo tracer tcp".to_owned(),
    })
}

fn udp(namespace: &Namespace, limits: &Limits) -> Option<Finding> {
    let drops = namespace.udp();
    let verdict = namespace.udp_verdict(limits);
    (verdict > Verdict::Ok).then(|| Finding {
        verdict,
        what: format!(
            "{} found no room in the receive buffer of their socket{}, {}",
            counted(drops.count, "UDP datagram"),
            namespace.within(),
            rate(drops.per_s()),
        ),
        who: namespace.udp_droppers(),
        why: limits.why(&UDP_DROPS),
        next: namespace.next("ss -uanpm"),
    })
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
