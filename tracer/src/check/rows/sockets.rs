//! TCP sockets: by state, forgotten in CLOSE_WAIT, local ports used up, queues of
//! listeners, and what the host has room for.

use std::net::SocketAddr;

use crate::{
    check::{
        context::Context,
        finding::{Figure, Finding, Row, RowReport, Verdict, figure, figure_of},
        limits::{
            CLOSE_WAIT_AGE, CLOSE_WAIT_OLD, CONNTRACK, LISTEN_DROPS, LISTEN_QUEUE, Limit, Limits,
            ORPHANS, TCP_MEMORY,
        },
        read::{self, owners::Owner},
        rows::ports::{self, Route},
    },
    clock,
    render::{
        quantity::{age, compact, counted, grouped},
        words,
    },
    snapshot::{CloseWait, SynBreakdown, TcpBreakdown, TcpState},
    text::Text,
};

/// Culprits that are named.
const NAMED: usize = 3;

/// How much of something that has an end is used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::check) struct Table {
    pub(in crate::check) used: u64,
    pub(in crate::check) most: u64,
}

impl Table {
    pub(in crate::check) fn ratio(self) -> f64 {
        if self.most == 0 {
            0.0
        } else {
            self.used as f64 / self.most as f64
        }
    }
}

/// A listener; `queue` is the least of both ends of the sample.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::check) struct Listener {
    pub(in crate::check) local: SocketAddr,
    pub(in crate::check) inode: u32,
    /// Processes that have it open, ascending; asked only where something is wrong.
    pub(in crate::check) owners: Vec<Owner>,
    pub(in crate::check) queue: u32,
    pub(in crate::check) backlog: u32,
}

/// The sockets of a network namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Namespace {
    pub(in crate::check) inode: u32,
    pub(in crate::check) name: Option<Text>,
    pub(in crate::check) is_own: bool,
    pub(in crate::check) states: Vec<(TcpState, u64)>,
    pub(in crate::check) listeners: Vec<Listener>,
    /// Local ports towards the destination that most are used for.
    pub(in crate::check) fullest: Option<Route>,
    /// Local ports that are bound on the address with most of them.
    pub(in crate::check) bound: Option<Route>,
    pub(in crate::check) tw_reuse: Option<u32>,
    pub(in crate::check) conntrack: Option<Table>,
    /// `ListenDrops`, since boot.
    pub(in crate::check) listen_drops: u64,
    /// `ListenOverflows`, since boot.
    pub(in crate::check) listen_overflows: u64,
    pub(in crate::check) listen_drops_per_s: f64,
}

impl Namespace {
    /// Behind a figure or a sentence: nothing for tracer's own.
    fn at(&self) -> String {
        match (&self.name, self.is_own) {
            (_, true) => String::new(),
            (Some(name), _) => format!("@{name}"),
            (None, _) => format!("@net:[{}]", self.inode),
        }
    }
}

/// The sockets of the host.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    namespaces: Vec<Namespace>,
    orphans: Table,
    /// Pages of buffers against the second number of tcp_mem.
    memory: Table,
    tcp: Option<TcpBreakdown>,
    syn: Option<SynBreakdown>,
    unseen: Vec<String>,
}

/// Looks at both ends of the sample.
pub(super) fn look(context: &Context) -> RowReport {
    let (before, began) = (read::sockets::look(), clock::monotonic());
    let seconds = context.wait(began);
    let mut now = read::sockets::look();
    let (most_orphans, memory) = read::sockets::host_limits();
    let (orphans, pages) = read::sockets::host(&now);
    let mut unseen = std::mem::take(&mut now.failed);
    let refused = context.descriptors().refused;
    if refused > 0 {
        unseen.push(format!(
            "who has the sockets of {}",
            counted(refused, "process")
        ));
    }
    let watched = context.watched();
    if let Err(why) = watched {
        unseen.push(format!(
            "how old sockets in CLOSE_WAIT are, and who closed first: {why}"
        ));
    }
    let reading = Reading {
        namespaces: read::sockets::namespaces(&before, &now, context, seconds),
        orphans: Table {
            used: orphans,
            most: most_orphans.unwrap_or(0),
        },
        memory: Table {
            used: pages,
            most: memory.map_or(0, |[_, pressure, _]| pressure),
        },
        tcp: watched.ok().map(|watched| watched.snapshot.tcp.clone()),
        syn: watched.ok().map(|watched| watched.snapshot.syn.clone()),
        unseen,
    };
    let report = judge(&reading, &context.limits);
    if reading.namespaces.is_empty() {
        return report.blinded("no network namespace could be looked at");
    }
    report
}

fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let mut states: Vec<(TcpState, u64)> = Vec::new();
    for (state, count) in reading.namespaces.iter().flat_map(|n| &n.states) {
        match states.iter_mut().find(|(known, _)| known == state) {
            Some((_, sum)) => *sum += count,
            None => states.push((*state, *count)),
        }
    }
    states.sort();
    let words = states.iter();
    let words = words.map(|(state, n)| format!("{} {}", words::state(*state), grouped(*n)));
    let mut report = RowReport::new(
        Row::Sockets,
        words.collect::<Vec<_>>().join("  "),
        figures(reading, &states),
    );
    report.unseen.clone_from(&reading.unseen);
    let findings = &mut report.findings;
    if let Some(tcp) = &reading.tcp {
        findings.extend(
            tcp.close_wait
                .iter()
                .filter_map(|one| forgotten(one, limits)),
        );
    }
    for namespace in &reading.namespaces {
        let routes = namespace.fullest.iter().chain(&namespace.bound);
        let reuse = namespace.tw_reuse;
        findings.extend(routes.filter_map(|r| ports::finding(r, &namespace.at(), reuse, limits)));
        let listeners = namespace.listeners.iter();
        findings.extend(listeners.filter_map(|one| queue(one, namespace, limits)));
        findings.extend(drops(reading, namespace, limits));
        if let Some(conntrack) = namespace.conntrack {
            let what = format!("tracked connections{}", namespace.at());
            findings.extend(full(&what, conntrack, &CONNTRACK, limits, "conntrack -S"));
        }
    }
    let next = "sudo tracer tcp";
    findings.extend(full("orphans", reading.orphans, &ORPHANS, limits, next));
    findings.extend(full(
        "pages of TCP buffers",
        reading.memory,
        &TCP_MEMORY,
        limits,
        next,
    ));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
    report
}

/// A process that forgets what its peers have closed.
fn forgotten(one: &CloseWait, limits: &Limits) -> Option<Finding> {
    let oldest_s = one.oldest_ns as f64 / 1e9;
    let is_old = limits.judge(&CLOSE_WAIT_AGE, oldest_s) > Verdict::Ok;
    let many = limits.judge(&CLOSE_WAIT_OLD, one.sockets as f64);
    let verdict = match (is_old, one.leak) {
        (true, _) if many > Verdict::Ok => many,
        (_, true) => Verdict::Warning,
        (true, _) => Verdict::Note,
        _ => return None,
    };
    let name = one.pid.map_or_else(
        || "sockets that nobody has accepted".to_owned(),
        |pid| format!("{}[{pid}]", one.comm),
    );
    let sample = |socket: &crate::snapshot::WaitingSocket| {
        let fd = socket
            .fd
            .map_or("no fd".to_owned(), |fd| format!("fd {fd}"));
        let over = if socket.is_least { "over " } else { "" };
        format!(
            "{name} {fd}, from {} to {}, for {over}{}",
            words::address(socket.remote),
            words::address(socket.local),
            age(socket.age_ns)
        )
    };
    Some(Finding {
        verdict,
        what: format!(
            "{name} has {} in CLOSE_WAIT, the oldest for {}",
            counted(one.sockets, "socket"),
            age(one.oldest_ns)
        ),
        who: one.samples.iter().take(NAMED).map(sample).collect(),
        why: if is_old {
            limits.why(&CLOSE_WAIT_AGE)
        } else {
            one.why.clone()
        },
        next: "sudo tracer tcp".to_owned(),
    })
}

impl Listener {
    /// How bad it is that so many wait.
    pub(in crate::check) fn fullness(&self, limits: &Limits) -> Verdict {
        if self.queue == 0 {
            return Verdict::Ok;
        }
        // The kernel takes one more than the backlog says.
        let room = f64::from(self.backlog) + 1.0;
        limits.judge(&LISTEN_QUEUE, f64::from(self.queue) / room)
    }
}

/// A listener whose process does not accept.
fn queue(listener: &Listener, namespace: &Namespace, limits: &Limits) -> Option<Finding> {
    let verdict = listener.fullness(limits);
    if verdict == Verdict::Ok {
        return None;
    }
    Some(Finding {
        verdict,
        what: format!(
            "{} wait for accept at {}{}, of {} that may",
            counted(listener.queue.into(), "connection"),
            words::address(listener.local),
            namespace.at(),
            listener.backlog
        ),
        who: who(&listener.owners),
        why: limits.why(&LISTEN_QUEUE),
        next: "sudo tracer syn".to_owned(),
    })
}

/// Who does not accept. Those that are stopped are why, whoever else has the socket.
fn who(owners: &[Owner]) -> Vec<String> {
    let stopped = owners.iter().filter(|owner| owner.is_stopped);
    let stopped: Vec<String> = stopped
        .take(NAMED)
        .map(|owner| {
            let (name, pid) = (owner.name(), owner.pid);
            format!("{name} is stopped (state T): `kill -CONT {pid}` lets it go on")
        })
        .collect();
    if !stopped.is_empty() {
        return stopped;
    }
    let Some(first) = owners.first() else {
        return vec!["a process that is not known does not accept them".to_owned()];
    };
    let others = match owners.len() as u64 - 1 {
        0 => String::new(),
        count => format!(", nor do {} that share it", counted(count, "process")),
    };
    vec![format!("{} does not accept them{others}", first.name())]
}

/// With the listeners of the namespace whose own counters rose.
fn drops(reading: &Reading, namespace: &Namespace, limits: &Limits) -> Option<Finding> {
    let listeners = reading.syn.iter().flat_map(|syn| &syn.listeners);
    let mut droppers: Vec<_> = listeners
        .filter(|one| one.netns.inode == namespace.inode && one.drops > 0)
        .collect();
    droppers.sort_by_key(|one| (std::cmp::Reverse(one.drops), one.local));
    let who = droppers.iter().take(NAMED).map(|one| {
        let name = match &one.process {
            Some((pid, comm)) => format!("{comm}[{pid}]"),
            None => "a process that is not known".to_owned(),
        };
        let (at, count) = (words::address(one.local), grouped(one.drops));
        format!("{name} at {at} dropped {count}")
    });
    let verdict = limits.judge(&LISTEN_DROPS, namespace.listen_drops_per_s);
    (verdict > Verdict::Ok).then(|| Finding {
        verdict,
        what: format!(
            "listeners drop {} connections a second{}",
            compact(namespace.listen_drops_per_s),
            namespace.at()
        ),
        who: who.collect(),
        why: limits.why(&LISTEN_DROPS),
        next: "sudo tracer syn".to_owned(),
    })
}

fn full(what: &str, table: Table, limit: &Limit, limits: &Limits, next: &str) -> Option<Finding> {
    let verdict = limits.judge(limit, table.ratio());
    (verdict > Verdict::Ok).then(|| Finding {
        verdict,
        what: format!("{} {what}, of {}", grouped(table.used), grouped(table.most)),
        why: limits.why(limit),
        next: next.to_owned(),
        ..Finding::default()
    })
}

fn figures(reading: &Reading, states: &[(TcpState, u64)]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (state, count) in states {
        figures.push(figure_of(
            "tcp_sockets",
            words::state(*state),
            *count as f64,
        ));
    }
    for namespace in &reading.namespaces {
        let at = namespace.at();
        for (state, count) in &namespace.states {
            let of = format!("{}{at}", words::state(*state));
            figures.push(figure_of("tcp_sockets_of_netns", of, *count as f64));
        }
        figures.push(figure_of(
            "listen_drops",
            &at,
            namespace.listen_drops as f64,
        ));
        figures.push(figure_of(
            "listen_overflows",
            &at,
            namespace.listen_overflows as f64,
        ));
        if let Some(route) = &namespace.fullest {
            figures.push(figure_of(
                "local_ports_used_ratio",
                &at,
                route.ports.ratio(),
            ));
        }
        if let Some(route) = &namespace.bound {
            let ratio = route.ports.ratio();
            figures.push(figure_of("local_ports_bound_ratio", &at, ratio));
        }
        if let Some(conntrack) = namespace.conntrack {
            figures.push(figure_of("conntrack_used_ratio", &at, conntrack.ratio()));
        }
    }
    figures.push(figure("tcp_orphans", reading.orphans.used as f64));
    figures.push(figure("tcp_memory_ratio", reading.memory.ratio()));
    if let Some(tcp) = &reading.tcp {
        let oldest = tcp.close_wait.iter().map(|one| one.oldest_ns).max();
        figures.push(figure("close_wait_age_s", oldest.unwrap_or(0) as f64 / 1e9));
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::{Listener, Namespace, Reading, Table, judge};
    use crate::{
        check::{
            finding::Verdict,
            limits::Limits,
            read::owners::Owner,
            rows::ports::{At, Route},
        },
        snapshot::{self, CloseWait, Netns, SynBreakdown, SynVerdict, TcpBreakdown, TcpState},
    };

    fn reading(namespace: Namespace) -> Reading {
        Reading {
            namespaces: vec![namespace],
            ..Reading::default()
        }
    }

    #[test]
    fn sockets_in_use_are_nothing_wrong() {
        let namespace = Namespace {
            is_own: true,
            states: vec![
                (TcpState::ESTABLISHED, 1_204),
                (TcpState::TIME_WAIT, 20_000),
            ],
            ..Namespace::default()
        };
        let report = judge(&reading(namespace), &Limits::default());
        assert_eq!(report.verdict(), Verdict::Ok);
        assert_eq!(report.summary, "ESTABLISHED 1,204  TIME_WAIT 20,000");
    }

    #[test]
    fn dropped_connections_are_put_on_the_listeners_that_dropped() {
        let listener = |inode, port: u16, drops| snapshot::Listener {
            process: Some((port.into(), "mcp".into())),
            local: ([127, 0, 0, 1], port).into(),
            netns: Netns {
                inode,
                ..Netns::default()
            },
            syn_queue: 0,
            young: 0,
            accept_queue: 0,
            backlog: 16,
            cookies: None,
            by_cookie: None,
            sources: None,
            drops,
            verdict: SynVerdict::Healthy,
            why: String::new(),
        };
        let dropping = Reading {
            syn: Some(SynBreakdown {
                listeners: vec![listener(7, 80, 0), listener(7, 90, 3), listener(8, 91, 9)],
                ..SynBreakdown::default()
            }),
            ..reading(Namespace {
                inode: 7,
                listen_drops_per_s: 0.6,
                ..Namespace::default()
            })
        };
        let report = judge(&dropping, &Limits::default());
        assert_eq!(
            report.findings[0].who,
            ["mcp[90] at 127.0.0.1:90 dropped 3"]
        );
    }

    #[test]
    fn ports_count_by_where_they_go() {
        let namespace = Namespace {
            name: Some("shop".into()),
            fullest: Some(Route {
                at: At::Towards("10.0.0.3:5432".parse().unwrap()),
                ports: Table {
                    used: 27_000,
                    most: 28_232,
                },
                held: Vec::new(),
                unknown: 0,
                time_wait: 27_000,
                closers: Vec::new(),
            }),
            ..Namespace::default()
        };
        let report = judge(&reading(namespace), &Limits::default());
        assert_eq!(report.verdict(), Verdict::Critical);
        let what = &report.findings[0].what;
        assert_eq!(
            what,
            "27,000 of 28,232 local ports are in use towards 10.0.0.3:5432@shop"
        );
    }

    fn owner(pid: u32, is_stopped: bool) -> Owner {
        Owner {
            pid,
            comm: "web".into(),
            is_stopped,
        }
    }

    #[test]
    fn a_process_that_is_stopped_is_said_to_be() {
        let who = |owners: &[Owner]| super::who(owners).join("\n");
        assert_eq!(
            who(&[owner(7, false), owner(9, true)]),
            "web[9] is stopped (state T): `kill -CONT 9` lets it go on"
        );
        assert_eq!(
            who(&[owner(7, false), owner(9, false), owner(11, false)]),
            "web[7] does not accept them, nor do 2 processes that share it"
        );
        assert!(who(&[]).starts_with("a process that is not known"));
    }

    #[test]
    fn a_queue_that_is_full_names_its_process() {
        let listener = Listener {
            local: "0.0.0.0:80".parse().unwrap(),
            inode: 9,
            owners: vec![owner(7, false)],
            queue: 129,
            backlog: 128,
        };
        let namespace = Namespace {
            is_own: true,
            listeners: vec![
                listener.clone(),
                Listener {
                    queue: 1,
                    ..listener
                },
            ],
            ..Namespace::default()
        };
        let report = judge(&reading(namespace), &Limits::default());
        assert_eq!(report.findings.len(), 1);
        assert_eq!(report.findings[0].who, ["web[7] does not accept them"]);
        assert_eq!(report.verdict(), Verdict::Critical);
    }

    #[test]
    fn old_sockets_in_close_wait_are_found_and_young_ones_are_not() {
        let close_wait = |sockets, oldest_s: u64, leak| CloseWait {
            pid: Some(991),
            comm: "api".into(),
            sockets,
            oldest_ns: oldest_s * 1_000_000_000,
            leak,
            ..CloseWait::default()
        };
        for (one, verdict) in [
            (close_wait(50, 300, false), Verdict::Warning),
            (close_wait(5_000, 300, false), Verdict::Critical),
            (close_wait(50, 2, false), Verdict::Ok),
            (close_wait(2, 30, true), Verdict::Warning),
            (close_wait(1, 300, false), Verdict::Note),
        ] {
            let reading = Reading {
                tcp: Some(TcpBreakdown {
                    close_wait: vec![one],
                    ..TcpBreakdown::default()
                }),
                ..Reading::default()
            };
            assert_eq!(judge(&reading, &Limits::default()).verdict(), verdict);
        }
    }
}
