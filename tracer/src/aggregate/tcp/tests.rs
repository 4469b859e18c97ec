//! Which processes leak, who closed first, what is told.

use std::collections::HashMap;

use tracer_common::tcp::PAIRS;

use super::{
    ClosingReading, NamespaceReading, OpeningReading, Seeds, StackLosses, TcpAges, TcpAggregate,
    TcpReading,
};
use crate::{
    clock::{MonotonicNs, WallNs},
    decode::{
        clock::ClockReading,
        opening::{Opening, Program},
        tcp::{ActorKey, ActorReading, HolderReading, PortReading, WaitingReading},
    },
    snapshot::{CloseWait, Event, LeakEvent, Netns, Side, TcpBreakdown, TcpState, TimerKind},
    text::Text,
};

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;
/// When tracer begins.
pub(super) const BEGIN: u64 = 1_000 * S;
pub(super) const NETNS: u32 = 4_026_531_840;
pub(super) const LEAKS: TcpAges = TcpAges {
    leak_age_ns: 10 * S,
    dead_peer_ns: 9 * S,
};

pub(in crate::aggregate) fn nothing() -> TcpReading {
    TcpReading {
        matrix: [0; PAIRS],
        populations: Vec::new(),
        seeds: None,
        actors: Vec::new(),
        dropped: [0; 2],
        ports: Vec::new(),
        waiting: Some(Vec::new()),
        listening: Vec::new(),
        cookies: None,
        sources: HashMap::new(),
        holders: None,
        openings: Vec::new(),
        resets: Vec::new(),
        stack_losses: StackLosses::default(),
        namespaces: Vec::new(),
        missed: 0,
        unopened: 0,
    }
}

/// A clock of 1000 jiffies a second.
pub(super) fn clock(now: u64) -> ClockReading {
    ClockReading {
        now: MonotonicNs(now),
        jiffies: now / MS,
        ..ClockReading::default()
    }
}

/// An aggregate, and the time by which it goes.
struct World {
    aggregate: TcpAggregate,
    now: u64,
    sockets: Vec<WaitingReading>,
    owners: HashMap<u64, u32>,
}

impl World {
    fn new() -> Self {
        Self {
            aggregate: TcpAggregate::new(LEAKS, &clock(BEGIN), &nothing()),
            now: BEGIN,
            sockets: Vec::new(),
            owners: HashMap::new(),
        }
    }

    /// The peer closes a socket of a process now.
    fn wait(&mut self, socket: u64, pid: u32) {
        self.add(socket, pid, Some(self.now));
    }

    fn add(&mut self, socket: u64, pid: u32, since: Option<u64>) {
        self.owners.insert(socket, pid);
        self.sockets.push(WaitingReading {
            socket,
            side: Side::Accepted,
            since: since.map(MonotonicNs),
            idle_jiffies: 90_000,
            cgroup: 0,
            netns: NETNS,
            local: ([127, 0, 0, 1], 80).into(),
            remote: ([127, 0, 0, 1], 1024 + socket as u16).into(),
            unread_bytes: 0,
            has_file: pid != 0,
            timer: TimerKind::Off,
            due_jiffies: 0,
            retransmits: 0,
            probes: 0,
        });
    }

    /// A process closes a socket.
    fn close(&mut self, socket: u64) {
        self.sockets.retain(|waiting| waiting.socket != socket);
    }

    /// Some time goes by, then everything is read.
    fn after(&mut self, ns: u64) -> TcpBreakdown {
        self.read(ns, Vec::new())
    }

    fn read(&mut self, ns: u64, openings: Vec<OpeningReading>) -> TcpBreakdown {
        self.now += ns;
        let holders = self.aggregate.wants_holders().then(|| {
            let holder = |waiting: &WaitingReading| HolderReading {
                socket: waiting.socket,
                start: MonotonicNs(1),
                pid: self.owners[&waiting.socket],
                fd: waiting.socket as u32,
                netns: NETNS,
                port: 80,
                is_listener: false,
                comm: "server".into(),
            };
            let held = self.sockets.iter().filter(|socket| socket.has_file);
            held.map(holder).collect()
        });
        let reading = TcpReading {
            waiting: Some(self.sockets.clone()),
            holders,
            openings,
            ..nothing()
        };
        self.aggregate
            .observe(&clock(self.now), WallNs(self.now), &reading);
        self.aggregate.snapshot(|_, _| None)
    }

    fn events(&mut self) -> Vec<LeakEvent> {
        let leak = |event| match event {
            Event::Leak(leak) => leak,
            other => panic!("{other:?}"),
        };
        let events = self.aggregate.take_events(|_, _| None);
        events.into_iter().map(leak).collect()
    }
}

fn of_pid(breakdown: &TcpBreakdown, pid: u32) -> Option<&CloseWait> {
    breakdown.close_wait.iter().find(|row| row.pid == Some(pid))
}

#[test]
fn growth_is_the_rate_at_which_sockets_are_left() {
    // Two a second, read each half second or each two seconds.
    for interval in [S / 2, 2 * S] {
        let mut world = World::new();
        let mut last = TcpBreakdown::default();
        for step in 0..(30 * S / interval) {
            for i in 0..(interval / (S / 2)) {
                world.wait(1 + step * 10 + i, 7);
                world.now += S / 2;
            }
            last = world.after(0);
            if let Some(row) = of_pid(&last, 7)
                && row.oldest_ns > 4 * S
            {
                // One more or less; and who holds a socket is known a reading later.
                let late = 1.0 + 2.0 * interval as f64 / S as f64;
                let most = late / ((row.oldest_ns - S) as f64 / S as f64) + 1e-9;
                assert!(
                    (row.growth_per_s - 2.0).abs() <= most,
                    "{}",
                    row.growth_per_s
                );
            }
        }
        let row = of_pid(&last, 7).expect("a row");
        assert!(row.leak, "{}", row.why);
        assert!((row.growth_per_s - 2.0).abs() < 0.2);
    }
}

#[test]
fn a_leak_is_told_once_for_each_socket_that_passes_the_age() {
    let mut world = World::new();
    world.after(S);
    for socket in 1..=3 {
        world.wait(socket, 7);
    }
    let mut told = Vec::new();
    for _ in 0..120 {
        world.after(S / 10);
        told.extend(world.events());
    }
    let [event] = told.as_slice() else {
        panic!("one event: {told:?}");
    };
    assert_eq!((event.pid, event.sockets), (Some(7), 3));
    let age = event.socket.age_ns;
    assert!((10 * S..10 * S + S / 10).contains(&age), "{age}");
    world.wait(9, 7);
    for _ in 0..120 {
        world.after(S / 10);
        told.extend(world.events());
    }
    assert_eq!(told.len(), 2);
}

#[test]
fn a_reading_that_looks_at_no_socket_changes_none() {
    let mut world = World::new();
    for socket in 0..50 {
        world.wait(socket, 7);
        world.after(2 * S);
    }
    let before = world.after(S);
    assert!(of_pid(&before, 7).is_some_and(|row| row.leak));
    assert_eq!(world.events().len(), 1);
    let suspects = world.aggregate.suspects();
    let reading = TcpReading {
        waiting: None,
        ..nothing()
    };
    world.now += 20 * S;
    let wall = WallNs(world.now);
    world.aggregate.observe(&clock(world.now), wall, &reading);
    let after = world.aggregate.snapshot(|_, _| None);
    assert_eq!(before.close_wait, after.close_wait);
    assert_eq!(world.aggregate.suspects(), suspects);
    assert!(world.events().is_empty());
}

#[test]
fn who_closes_late_but_always_is_no_leak() {
    let mut world = World::new();
    // Each is closed after 6 s, of which no one can know before the first is.
    for step in 0..100_u64 {
        world.wait(1 + step, 7);
        if step >= 6 {
            world.close(step - 5);
        }
        let breakdown = world.after(S);
        assert!(world.events().is_empty());
        if let Some(row) = of_pid(&breakdown, 7) {
            assert!(!row.leak, "{}", row.why);
        }
        // Once it has closed some it is no longer watched.
        assert_eq!(
            world.aggregate.suspects().is_empty(),
            !(2..=5).contains(&step),
            "{step}"
        );
    }
}

#[test]
fn who_forgets_one_in_ten_leaks_though_it_closes_the_others() {
    let mut world = World::new();
    let mut last = TcpBreakdown::default();
    for step in 0..100_u64 {
        world.wait(1 + step, 7);
        if step >= 2 && (step - 1) % 10 != 0 {
            world.close(step - 1);
        }
        last = world.after(S);
    }
    let row = of_pid(&last, 7).expect("a row");
    assert!(row.leak, "{}", row.why);
    assert!(row.why.contains("only"), "{}", row.why);
}

#[test]
fn sockets_from_before_the_start_and_of_nobody_are_no_leak() {
    let mut world = World::new();
    world.add(1, 7, None);
    world.add(2, 7, None);
    world.add(3, 0, Some(BEGIN));
    let mut last = TcpBreakdown::default();
    for _ in 0..30 {
        last = world.after(S);
        assert!(world.events().is_empty());
    }
    let row = of_pid(&last, 7).expect("a row");
    assert_eq!((row.sockets, row.leak, row.growth_per_s), (2, false, 0.0));
    assert!(row.samples.iter().all(|socket| socket.is_least));
    let nobody = last.close_wait.iter().find(|row| row.pid.is_none());
    let nobody = nobody.expect("a row");
    assert!(!nobody.leak);
    assert!(nobody.why.contains("accept queue"), "{}", nobody.why);
}

#[test]
fn where_a_socket_was_opened_is_its_own_also_when_its_address_comes_again() {
    let opening = |socket: u64, at: u64, function: &'static str| OpeningReading {
        opening: Opening {
            socket,
            at: MonotonicNs(at),
            program: Program {
                pid: 7,
                start: MonotonicNs(1),
                ..Program::default()
            },
            local_port: 80,
            remote_port: 1024 + socket as u16,
        },
        stack: vec![Text::from(function), "main".into()],
    };
    let mut world = World::new();
    // The first five are older than the suspicion.
    for socket in 1..=5 {
        world.wait(socket, 7);
    }
    world.after(4 * S);
    // Who holds them is looked up with the next reading.
    world.after(S / 10);
    assert_eq!(world.aggregate.suspects(), [7]);
    let at = world.now;
    let known = (6..=8).map(|socket| opening(socket, at, "handle"));
    let other = opening(9, at, "other");
    // Of an address that socket 1 has now: it was opened after its peer had closed.
    let later = opening(1, at, "later");
    world.read(S / 10, known.chain([other, later]).collect());
    for socket in 6..=9 {
        world.wait(socket, 7);
    }
    world.after(12 * S);
    let breakdown = world.after(S / 10);
    let row = of_pid(&breakdown, 7).expect("a row");
    assert_eq!(row.stack, ["handle", "main"].map(Text::from));
    let stacks: Vec<usize> = row
        .samples
        .iter()
        .map(|socket| socket.stack.len())
        .collect();
    assert_eq!(stacks, [0, 0, 0, 0, 2], "one of which it is known is shown");
    let events = world.events();
    assert_eq!(events[0].stack, row.stack);
    // It is watched until it is known well where it opens sockets.
    assert_eq!(world.aggregate.suspects(), [7]);
    let many = (100..200).map(|socket| opening(socket, world.now, "handle"));
    let many = many.collect();
    world.read(S / 10, many);
    assert!(world.aggregate.suspects().is_empty());
    // Another connection comes to be at the address of socket 6.
    world.close(6);
    world.after(S);
    world.wait(6, 7);
    let remote = ([127, 0, 0, 1], 9).into();
    world.sockets.last_mut().expect("it").remote = remote;
    for socket in [1, 2, 3, 4, 5, 7, 8, 9] {
        world.close(socket);
    }
    world.after(3 * S);
    let breakdown = world.after(S / 10);
    let row = of_pid(&breakdown, 7).expect("a row");
    assert!(row.stack.is_empty() && row.samples[0].stack.is_empty());
}

#[test]
fn time_wait_is_shared_out_among_who_closed_in_the_last_minute() {
    let mut world = World::new();
    let actor = |pid, closed_first| ActorReading {
        key: ActorKey {
            pid,
            side: Side::Accepted,
            port: 80,
            life: 0,
        },
        comm: "server".into(),
        opened: 0,
        closed_first,
    };
    let mut read = |ns: u64, time_wait, actors: Vec<ActorReading>| {
        world.now += ns;
        let namespace = NamespaceReading {
            netns: Netns {
                inode: NETNS,
                ..Netns::default()
            },
            time_wait,
            ..NamespaceReading::default()
        };
        let reading = TcpReading {
            actors,
            namespaces: vec![namespace],
            ..nothing()
        };
        world
            .aggregate
            .observe(&clock(world.now), WallNs(0), &reading);
        world.aggregate.snapshot(|_, _| None).time_wait
    };
    let counts = |time_wait: &crate::snapshot::TimeWait| -> Vec<(u32, u64)> {
        time_wait.closers.iter().map(|c| (c.pid, c.count)).collect()
    };
    let found = read(S, 40, vec![actor(1, 30), actor(2, 5)]);
    assert_eq!((counts(&found), found.unnamed), (vec![(1, 30), (2, 5)], 5));
    // Ports were taken again: fewer are left than were closed.
    let found = read(S, 7, vec![actor(1, 30), actor(2, 5)]);
    assert_eq!((counts(&found), found.unnamed), (vec![(1, 6), (2, 1)], 0));
    let found = read(61 * S, 3, vec![actor(1, 30), actor(2, 8)]);
    assert_eq!((counts(&found), found.unnamed), (vec![(2, 3)], 0));
    assert!(found.advice.is_none());
}

#[test]
fn what_the_kernel_side_forgot_is_no_negative_number() {
    let mut world = World::new();
    let port = |established| PortReading {
        netns: NETNS,
        port: 80,
        established,
        ..PortReading::default()
    };
    let mut read = |established| {
        world.now += S;
        let reading = TcpReading {
            ports: vec![port(established)],
            ..nothing()
        };
        world
            .aggregate
            .observe(&clock(world.now), WallNs(0), &reading);
        world.aggregate.snapshot(|_, _| None).ports[0].established
    };
    assert_eq!([read(5), read(12), read(3)], [5, 7, 0]);
}

#[test]
fn a_storm_is_told_once_until_it_is_calm() {
    let mut world = World::new();
    let mut resets = 0;
    let mut told = Vec::new();
    // By the second: calm, a storm with a lull, calm for long, a storm.
    let story = [0, 90, 250, 300, 5, 5, 150].into_iter();
    for per_s in story.chain([10; 12]).chain([200]) {
        world.now += S;
        resets += per_s;
        let namespace = NamespaceReading {
            counted: MonotonicNs(world.now),
            counters: crate::snapshot::TcpCounters {
                resets_sent: resets,
                ..crate::snapshot::TcpCounters::default()
            },
            ..NamespaceReading::default()
        };
        let reading = TcpReading {
            namespaces: vec![namespace],
            ..nothing()
        };
        let (clock, wall) = (clock(world.now), WallNs(world.now));
        world.aggregate.observe(&clock, wall, &reading);
        told.extend(world.aggregate.take_events(|_, _| None));
    }
    let rates: Vec<f64> = told
        .iter()
        .map(|event| match event {
            Event::ResetStorm(storm) => storm.sent_per_s,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(rates, [250.0, 200.0]);
}

#[test]
fn a_peer_that_does_not_answer_is_told_once_with_all_its_connections() {
    let mut world = World::new();
    let closing = |cookie: u64, state, peer: u8| ClosingReading {
        netns: NETNS,
        cookie,
        state,
        local: ([10, 0, 0, 1], 80).into(),
        remote: ([10, 0, 0, peer], cookie as u16).into(),
        timer: crate::snapshot::Timer {
            // The one at 6 reads slowly, and acknowledges.
            retransmits: if peer == 6 { 0 } else { 5 },
            ..crate::snapshot::Timer::default()
        },
    };
    let mut look = |closing: Vec<ClosingReading>| {
        world.now += 10 * S;
        let reading = TcpReading {
            seeds: Some(Seeds {
                closing,
                ..Seeds::default()
            }),
            ..nothing()
        };
        let (clock, wall) = (clock(world.now), WallNs(world.now));
        world.aggregate.observe(&clock, wall, &reading);
        let dead = |event| match event {
            Event::DeadPeer(dead) => (dead.peer.to_string(), dead.sockets, dead.age_ns / S),
            other => panic!("{other:?}"),
        };
        let events = world.aggregate.take_events(|_, _| None);
        events.into_iter().map(dead).collect::<Vec<_>>()
    };
    let (fin_wait1, last_ack, fin_wait2) =
        (TcpState::FIN_WAIT1, TcpState::LAST_ACK, TcpState::FIN_WAIT2);
    let first = vec![
        closing(1, fin_wait1, 9),
        closing(2, last_ack, 9),
        closing(3, fin_wait1, 8),
        closing(4, fin_wait2, 7),
        closing(6, fin_wait1, 6),
    ];
    assert!(look(first).is_empty());
    // The one to 8 has got on; one to 9 is new.
    let second = vec![
        closing(1, fin_wait1, 9),
        closing(2, last_ack, 9),
        closing(3, last_ack, 8),
        closing(4, fin_wait2, 7),
        closing(5, fin_wait1, 9),
        closing(6, fin_wait1, 6),
    ];
    assert_eq!(look(second.clone()), [("10.0.0.9".to_owned(), 2, 10)]);
    let third = look(second.clone());
    let nine = ("10.0.0.9".to_owned(), 3, 20);
    assert_eq!(third, [nine, ("10.0.0.8".to_owned(), 1, 10)]);
    for _ in 0..3 {
        assert!(look(second.clone()).is_empty());
    }
    assert_eq!(look(second), [("10.0.0.7".to_owned(), 1, 60)]);
}

#[test]
fn the_process_that_began_first_is_the_listener() {
    let mut world = World::new();
    let holder = |pid, start, port| HolderReading {
        pid,
        start: MonotonicNs(start),
        netns: NETNS,
        port,
        is_listener: true,
        comm: format!("p{pid}").as_str().into(),
        ..HolderReading::default()
    };
    let mut read = |ns: u64, holders: Option<Vec<HolderReading>>| {
        world.now += ns;
        let port = |port| PortReading {
            netns: NETNS,
            port,
            ..PortReading::default()
        };
        let reading = TcpReading {
            ports: vec![port(80), port(81)],
            holders,
            ..nothing()
        };
        let (clock, wall) = (clock(world.now), WallNs(world.now));
        world.aggregate.observe(&clock, wall, &reading);
        let mut ports = world.aggregate.snapshot(|_, _| None).ports;
        ports.sort_by_key(|port| port.port);
        let pids: Vec<_> = ports
            .iter()
            .map(|port| port.listener.as_ref().map(|(pid, _)| *pid))
            .collect();
        (pids, world.aggregate.wants_holders())
    };
    assert_eq!(read(S, None), (vec![None, None], true));
    let walk = vec![holder(9, 20, 80), holder(8, 10, 80), holder(7, 30, 80)];
    assert_eq!(read(S, Some(walk)), (vec![Some(8), None], false));
    // Port 81 was looked for in vain: it is not looked for again and again.
    assert_eq!(read(60 * S, None), (vec![Some(8), None], false));
}
