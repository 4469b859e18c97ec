//! Any TCP sockets, for what holds of every model.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof},
};

use super::properties::{detail, name, number};
use crate::{
    clock::WallNs,
    snapshot::{
        Actor, CloseWait, Closer, LeakEvent, NamespaceStates, Netns, Port, Side, StateCount,
        TcpBreakdown, TcpCounters, TcpState, TimeWait, Timer, TimerKind, Times, Transition,
        WaitingSocket,
    },
};

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..1_000_u64, any::<u64>()]
}

fn state() -> impl Strategy<Value = TcpState> {
    (0..16_u8).prop_map(TcpState)
}

fn states() -> impl Strategy<Value = Vec<StateCount>> {
    let one = (state(), count()).prop_map(|(state, count)| StateCount { state, count });
    vec(one, 0..14)
}

fn netns() -> impl Strategy<Value = Netns> {
    (any::<u32>(), detail(), any::<bool>()).prop_map(|(inode, name, is_own)| Netns {
        inode,
        name,
        is_own,
    })
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Accepted), Just(Side::Connected)]
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<Ipv4Addr>();
    prop_oneof![
        (v4, any::<u16>()).prop_map(|(ip, port)| (ip, port).into()),
        (any::<Ipv4Addr>(), any::<u16>()).prop_map(|(ip, port)| (ip.to_ipv6_mapped(), port).into()),
        (any::<Ipv6Addr>(), any::<u16>()).prop_map(|(ip, port)| (ip, port).into()),
    ]
}

fn timer() -> impl Strategy<Value = Timer> {
    let kind = prop_oneof![
        Just(TimerKind::Off),
        Just(TimerKind::Retransmit),
        Just(TimerKind::Keepalive),
        Just(TimerKind::WindowProbe),
    ];
    (kind, count(), any::<u32>(), any::<u32>()).prop_map(|(kind, due_ns, retransmits, probes)| {
        Timer {
            kind,
            due_ns,
            retransmits,
            probes,
        }
    })
}

fn socket() -> impl Strategy<Value = WaitingSocket> {
    let ends = (any::<Option<u32>>(), address(), address());
    let side = prop_oneof![Just(None), side().prop_map(Some)];
    let place = (netns(), detail(), side, vec(name(), 0..4));
    let rest = (any::<u64>(), any::<bool>(), any::<u32>(), timer());
    (ends, place, rest).prop_map(
        |((fd, local, remote), (netns, cgroup, side, stack), rest)| {
            let (age_ns, is_least, unread_bytes, timer) = rest;
            WaitingSocket {
                fd,
                local,
                remote,
                age_ns,
                is_least,
                netns,
                cgroup,
                unread_bytes,
                side,
                stack,
                timer,
            }
        },
    )
}

/// Any socket that was forgotten.
pub(super) fn leak() -> impl Strategy<Value = LeakEvent> {
    (
        any::<Option<u32>>(),
        name(),
        socket(),
        count(),
        (any::<u64>(), vec(name(), 0..4)),
    )
        .prop_map(|(pid, comm, socket, sockets, (time, stack))| LeakEvent {
            time: WallNs(time),
            pid,
            comm,
            socket,
            sockets,
            stack,
        })
}

fn close_wait() -> impl Strategy<Value = CloseWait> {
    let who = (any::<Option<u32>>(), name(), detail());
    let how = (count(), count(), number(), any::<bool>());
    let rest = (name(), vec(name(), 0..4), vec(socket(), 0..4));
    (who, how, rest).prop_map(
        |((pid, comm, cgroup), (sockets, oldest_ns, growth_per_s, leak), rest)| CloseWait {
            pid,
            comm,
            cgroup,
            sockets,
            oldest_ns,
            growth_per_s,
            leak,
            why: rest.0.to_string(),
            stack: rest.1,
            samples: rest.2,
        },
    )
}

fn times() -> impl Strategy<Value = Times> {
    vec(count(), 0..70).prop_map(Times)
}

fn port() -> impl Strategy<Value = Port> {
    let listener = prop_oneof![Just(None), (any::<u32>(), name()).prop_map(Some)];
    let times = (times(), times(), count());
    (netns(), side(), any::<u16>(), listener, count(), times).prop_map(
        |(netns, side, port, listener, established, (handshakes, held, unmeasured))| Port {
            netns,
            side,
            port,
            listener,
            established,
            handshakes,
            unmeasured,
            held,
        },
    )
}

fn actor() -> impl Strategy<Value = Actor> {
    (any::<u32>(), name(), side(), any::<u16>(), count(), count()).prop_map(
        |(pid, comm, side, port, opened, closed_first)| Actor {
            pid,
            comm,
            side,
            port,
            opened,
            closed_first,
        },
    )
}

fn closer(actor: &Actor) -> Closer {
    Closer {
        pid: actor.pid,
        comm: actor.comm.clone(),
        side: actor.side,
        port: actor.port,
        count: actor.opened,
    }
}

/// Any sockets.
pub(super) fn tcp() -> impl Strategy<Value = TcpBreakdown> {
    let transition =
        (state(), state(), count()).prop_map(|(from, to, count)| Transition { from, to, count });
    let namespace =
        (netns(), states()).prop_map(|(netns, states)| NamespaceStates { netns, states });
    let states = (states(), vec(namespace, 0..4));
    let lists = (
        vec(actor(), 0..6),
        vec(port(), 0..6),
        vec(close_wait(), 0..5),
    );
    let advice = prop_oneof![Just(None), Just(Some("let the clients close first"))];
    (states, vec(transition, 0..20), lists, count(), advice).prop_map(
        |((states, namespaces), transitions, (actors, ports, close_wait), count, advice)| {
            TcpBreakdown {
                states,
                namespaces,
                transitions,
                counters: TcpCounters {
                    resets_sent: count,
                    timed_out: count,
                    ..TcpCounters::default()
                },
                time_wait: TimeWait {
                    total: count,
                    fin_wait2: count,
                    closers: actors.iter().map(closer).collect(),
                    unnamed: count,
                    closed_first_here: count,
                    closed_first_by_peer: 0,
                    advice,
                },
                resets: actors
                    .iter()
                    .map(|actor| (actor.comm.clone(), count))
                    .collect(),
                actors,
                ports,
                close_wait,
            }
        },
    )
}
