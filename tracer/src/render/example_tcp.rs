//! TCP sockets of a host in trouble: a process that leaks, one that is first to
//! close, a container, and names that mean harm.

use crate::{
    clock::WallNs,
    snapshot::{
        Actor, CloseWait, Closer, DeadPeer, Event, LeakEvent, NamespaceStates, Netns, Port,
        ResetStorm, Side, StateCount, TcpBreakdown, TcpCounters, TcpState, TimeWait, Timer,
        TimerKind, Times, Transition, WaitingSocket,
    },
    text::Text,
};

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

pub(crate) fn own() -> Netns {
    Netns {
        inode: 4_026_531_840,
        name: None,
        is_own: true,
    }
}

/// That of a container.
fn shop() -> Netns {
    Netns {
        inode: 4_026_532_841,
        name: Some("shop".into()),
        is_own: false,
    }
}

/// One that nothing is known of.
fn nameless() -> Netns {
    Netns {
        inode: 4_026_533_007,
        ..Netns::default()
    }
}

fn states(counts: &[(TcpState, u64)]) -> Vec<StateCount> {
    let count = |&(state, count)| StateCount { state, count };
    counts.iter().map(count).collect()
}

fn namespaces() -> Vec<NamespaceStates> {
    let namespace = |netns, counts: &[_]| NamespaceStates {
        netns,
        states: states(counts),
    };
    vec![
        namespace(
            own(),
            &[
                (TcpState::ESTABLISHED, 1_100),
                (TcpState::SYN_SENT, 2),
                (TcpState::FIN_WAIT2, 9),
                (TcpState::TIME_WAIT, 311),
                (TcpState::CLOSE_WAIT, 217),
                (TcpState::LISTEN, 14),
            ],
        ),
        namespace(
            shop(),
            &[
                (TcpState::ESTABLISHED, 104),
                (TcpState::CLOSE_WAIT, 1),
                (TcpState::LISTEN, 3),
            ],
        ),
        namespace(nameless(), &[(TcpState::LISTEN, 1)]),
    ]
}

fn transitions(times: u64) -> Vec<Transition> {
    let transition = |from, to, count| Transition {
        from,
        to,
        count: count * times,
    };
    vec![
        transition(TcpState::SYN_RECV, TcpState::ESTABLISHED, 81),
        transition(TcpState::LISTEN, TcpState::SYN_RECV, 81),
        transition(TcpState::ESTABLISHED, TcpState::FIN_WAIT1, 80),
        transition(TcpState::FIN_WAIT1, TcpState::FIN_WAIT2, 79),
        transition(TcpState::FIN_WAIT2, TcpState::TIME_WAIT, 78),
        transition(TcpState::SYN_SENT, TcpState::ESTABLISHED, 7),
        transition(TcpState::CLOSE, TcpState::SYN_SENT, 7),
        transition(TcpState::ESTABLISHED, TcpState::CLOSE_WAIT, 7),
        transition(TcpState::CLOSE_WAIT, TcpState::LAST_ACK, 4),
        transition(TcpState::LAST_ACK, TcpState::CLOSE, 4),
        transition(TcpState::FIN_WAIT1, TcpState::CLOSING, 1),
    ]
}

fn times(from: usize, counts: &[u64]) -> Times {
    let mut buckets = vec![0; from];
    buckets.extend(counts);
    Times(buckets)
}

fn ports() -> Vec<Port> {
    vec![
        Port {
            netns: own(),
            side: Side::Accepted,
            port: 8080,
            listener: Some((991, "api".into())),
            established: 80,
            handshakes: times(5, &[12, 3_480, 20_111, 420, 31, 0, 0, 0, 0, 0, 2]),
            unmeasured: 3,
            held: times(
                8,
                &[11, 201, 40, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4],
            ),
        },
        Port {
            netns: own(),
            side: Side::Connected,
            port: 5432,
            listener: None,
            established: 7,
            handshakes: times(9, &[88, 4]),
            ..Port::default()
        },
        Port {
            netns: shop(),
            side: Side::Accepted,
            port: 443,
            listener: Some((4_194_304, Text::from_bytes(b"\x1b[2Jcart\n"))),
            established: 1,
            held: times(0, &[1, 2]),
            ..Port::default()
        },
    ]
}

fn actors(times: u64) -> Vec<Actor> {
    let actor = |pid, comm: &str, side, port, opened, closed_first| Actor {
        pid,
        comm: comm.into(),
        side,
        port,
        opened: opened * times,
        closed_first: closed_first * times,
    };
    vec![
        actor(812, "nginx", Side::Accepted, 443, 0, 78),
        actor(812, "nginx", Side::Connected, 8080, 6, 0),
        actor(991, "api", Side::Connected, 5432, 1, 2),
    ]
}

/// A socket that came before the start, from an address of IPv4 on a socket of IPv6.
fn forgotten() -> WaitingSocket {
    WaitingSocket {
        fd: Some(33),
        local: ([0, 0, 0, 0, 0, 0xffff, 0x0a00, 0x0007], 8080).into(),
        remote: ([0, 0, 0, 0, 0, 0xffff, 0x0a00, 0x0003], 41002).into(),
        age_ns: 252 * S,
        is_least: true,
        netns: own(),
        cgroup: Some("/system.slice/api.service".into()),
        unread_bytes: 17,
        side: Some(Side::Accepted),
        stack: vec!["handle_client".into(), "serve".into(), "main".into()],
        timer: Timer {
            kind: TimerKind::Keepalive,
            due_ns: 12_340 * MS,
            ..Timer::default()
        },
    }
}

fn close_wait() -> Vec<CloseWait> {
    let forgotten = forgotten();
    vec![
        CloseWait {
            pid: Some(991),
            comm: "api".into(),
            cgroup: forgotten.cgroup.clone(),
            sockets: 214,
            oldest_ns: forgotten.age_ns,
            growth_per_s: 3.1,
            leak: true,
            why: "214 sockets, and more of them for 20 s: none of the oldest was closed".to_owned(),
            stack: forgotten.stack.clone(),
            samples: vec![
                forgotten.clone(),
                WaitingSocket {
                    fd: Some(34),
                    remote: ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 61_999).into(),
                    local: ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 8080).into(),
                    age_ns: 249 * S,
                    is_least: false,
                    unread_bytes: 0,
                    timer: Timer::default(),
                    ..forgotten.clone()
                },
                WaitingSocket {
                    fd: None,
                    age_ns: 90 * S,
                    is_least: false,
                    unread_bytes: 3_000_000,
                    side: None,
                    stack: Vec::new(),
                    timer: Timer {
                        kind: TimerKind::Retransmit,
                        due_ns: 840 * MS,
                        retransmits: 4,
                        probes: 0,
                    },
                    ..forgotten.clone()
                },
            ],
        },
        CloseWait {
            pid: Some(4_194_304),
            comm: Text::from_bytes(b"\x1b[2Jcart\n"),
            cgroup: Some("/kubepods.slice/pod\u{202e}0123456789abcdef/0123456789abcdef".into()),
            sockets: 1,
            oldest_ns: 4 * S,
            why: "younger than 10 s".to_owned(),
            stack: Vec::new(),
            samples: vec![WaitingSocket {
                fd: Some(7),
                local: ([10, 88, 0, 4], 50_112).into(),
                remote: ([10, 88, 0, 1], 5432).into(),
                age_ns: 4 * S,
                is_least: false,
                netns: shop(),
                cgroup: Some("/kubepods.slice/pod\u{202e}0123456789abcdef".into()),
                unread_bytes: 0,
                side: Some(Side::Connected),
                stack: Vec::new(),
                timer: Timer {
                    kind: TimerKind::WindowProbe,
                    due_ns: 2 * S,
                    retransmits: 0,
                    probes: 1,
                },
            }],
            ..CloseWait::default()
        },
        CloseWait {
            pid: None,
            sockets: 3,
            oldest_ns: 21 * S,
            why: "no process has accepted them".to_owned(),
            stack: Vec::new(),
            samples: Vec::new(),
            ..CloseWait::default()
        },
    ]
}

/// A second of it.
pub(crate) fn tcp() -> TcpBreakdown {
    TcpBreakdown {
        states: states(&[
            (TcpState::ESTABLISHED, 1_204),
            (TcpState::SYN_SENT, 2),
            (TcpState::FIN_WAIT2, 9),
            (TcpState::TIME_WAIT, 311),
            (TcpState::CLOSE_WAIT, 218),
            (TcpState::LISTEN, 18),
            (TcpState::BOUND_INACTIVE, 1),
        ]),
        namespaces: namespaces(),
        transitions: transitions(1),
        counters: TcpCounters {
            handshakes_failed: 3,
            connections_reset: 1,
            retransmitted: 1_240,
            accept_queue_full: 5,
            resets_sent: 4,
            ..TcpCounters::default()
        },
        resets: vec![("NO_SOCKET".into(), 3), ("TCP_ABORT_ON_DATA".into(), 1)],
        actors: actors(1),
        ports: ports(),
        close_wait: close_wait(),
        time_wait: TimeWait {
            total: 311,
            fin_wait2: 4,
            closers: vec![
                Closer {
                    pid: 812,
                    comm: "nginx".into(),
                    side: Side::Accepted,
                    port: 443,
                    count: 280,
                },
                Closer {
                    pid: 991,
                    comm: "api".into(),
                    side: Side::Connected,
                    port: 5432,
                    count: 20,
                },
            ],
            unnamed: 11,
            closed_first_here: 80,
            closed_first_by_peer: 7,
            advice: Some(
                "most connections are closed first here: keep them open (keep-alive, a pool), or \
                 let the clients close first",
            ),
        },
    }
}

/// Half a minute of it.
pub(crate) fn tcp_of_run() -> TcpBreakdown {
    let tcp = tcp();
    TcpBreakdown {
        transitions: transitions(30),
        actors: actors(30),
        counters: TcpCounters {
            retransmitted: 37_200,
            closed_unread: 2,
            ..TcpCounters::default()
        },
        time_wait: TimeWait {
            closed_first_here: 2_400,
            closed_first_by_peer: 210,
            ..tcp.time_wait
        },
        ..tcp
    }
}

/// Sockets that were forgotten: one that was accepted, one of which little is known.
pub(crate) fn leaks() -> Vec<LeakEvent> {
    let accepted = LeakEvent {
        time: WallNs(1_795_439_121 * S + 123_456_789),
        pid: Some(991),
        comm: "api".into(),
        socket: WaitingSocket {
            age_ns: 10_100 * MS,
            is_least: false,
            ..forgotten()
        },
        sockets: 214,
        stack: forgotten().stack,
    };
    let unknown = LeakEvent {
        pid: None,
        stack: Vec::new(),
        comm: Text::default(),
        socket: WaitingSocket {
            fd: None,
            netns: shop(),
            cgroup: None,
            unread_bytes: 0,
            side: None,
            stack: Vec::new(),
            ..forgotten()
        },
        sockets: 1,
        ..accepted.clone()
    };
    vec![accepted, unknown]
}

/// Resets of another namespace, and a peer that is gone.
pub(crate) fn alarms() -> Vec<Event> {
    let time = WallNs(1_795_439_121 * S + 123_456_789);
    vec![
        Event::ResetStorm(ResetStorm {
            time,
            netns: shop(),
            sent_per_s: 1204.4,
            connections_per_s: 310.0,
        }),
        Event::DeadPeer(DeadPeer {
            time,
            netns: own(),
            peer: [10, 0, 0, 3].into(),
            sockets: 12,
            state: TcpState::FIN_WAIT1,
            age_ns: 10_004 * MS,
            local: ([10, 0, 0, 7], 8080).into(),
            remote: ([10, 0, 0, 3], 41002).into(),
            timer: Timer {
                kind: TimerKind::Retransmit,
                due_ns: 6_540 * MS,
                retransmits: 5,
                probes: 0,
            },
        }),
    ]
}
