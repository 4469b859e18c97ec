//! Stories of listeners: what is seen, second by second, and the verdict.

use std::{collections::HashMap, net::IpAddr};

use super::{SynAggregate, SynCounters, View};
use crate::{
    aggregate::tcp::{NamespaceReading, TcpReading, tests::nothing},
    clock::{MonotonicNs, WallNs},
    decode::{
        cookie::{CookieKind, CookieReading},
        syn::ListenerReading,
        tcp::PortReading,
    },
    snapshot::{ByCookie, Cookies, Listener, Netns, Side, SourcesOf, SynSettings, SynVerdict},
};

const S: u64 = 1_000_000_000;
const NETNS: u32 = 7;
const BACKLOG: u32 = 64;

struct World {
    aggregate: SynAggregate,
    now: u64,
    listeners: Vec<ListenerReading>,
    counters: SynCounters,
    hooked: Option<HashMap<u64, CookieReading>>,
    sources: HashMap<u64, Vec<IpAddr>>,
    ports: Vec<PortReading>,
}

impl World {
    fn new(listeners: usize) -> Self {
        let listener = |socket: u64| ListenerReading {
            socket,
            local: ([0, 0, 0, 0], 80 + socket as u16).into(),
            netns: NETNS,
            syn_queue: 0,
            young: 0,
            accept_queue: 0,
            backlog: BACKLOG,
            drops: u32::MAX,
            who: (9, "server".into()),
        };
        let mut world = Self {
            aggregate: SynAggregate::default(),
            now: 1_000 * S,
            listeners: (1..=listeners as u64).map(listener).collect(),
            counters: SynCounters {
                netns: NETNS,
                settings: SynSettings {
                    syncookies: Some(1),
                    ..SynSettings::default()
                },
                // From before the start: nobody's.
                cookies: Cookies {
                    sent: 1_000_000,
                    valid: 3,
                    failed: 9,
                },
                ..SynCounters::default()
            },
            hooked: None,
            sources: HashMap::new(),
            ports: Vec::new(),
        };
        world.second();
        world
    }

    fn queue(&mut self, listener: usize, syn_queue: u32, young: u32) {
        let listener = &mut self.listeners[listener];
        (listener.syn_queue, listener.young) = (syn_queue, young);
    }

    fn cookies(&mut self, sent: u64, valid: u64) {
        self.counters.cookies.sent += sent;
        self.counters.cookies.valid += valid;
    }

    /// A second goes by: the listeners, by port.
    fn second(&mut self) -> Vec<Listener> {
        self.now += S;
        let reading = TcpReading {
            listening: self.listeners.clone(),
            namespaces: vec![NamespaceReading {
                syn: self.counters.clone(),
                ..NamespaceReading::default()
            }],
            cookies: self.hooked.clone(),
            ports: self.ports.clone(),
            sources: std::mem::take(&mut self.sources),
            ..nothing()
        };
        self.aggregate.observe(MonotonicNs(self.now), &reading);
        let mut listeners = self.aggregate.snapshot(view()).listeners;
        listeners.sort_by_key(|listener| listener.local);
        listeners
    }

    fn verdict(&mut self) -> SynVerdict {
        self.second()[0].verdict
    }

    /// What was told: the verdict, and whether it is over.
    fn told(&mut self) -> Vec<(SynVerdict, bool)> {
        let events = self.aggregate.take_events(WallNs(0), view());
        events
            .iter()
            .map(|e| (e.verdict, e.lasted_ns.is_some()))
            .collect()
    }
}

fn view() -> View<'static> {
    View {
        process: &|listener| (listener.local.port().into(), "server".into()),
        netns: &|inode| Netns {
            inode,
            ..Netns::default()
        },
    }
}

#[test]
fn a_flood_is_one_after_a_second_and_has_an_end() {
    let mut world = World::new(1);
    // Just begun, all is young.
    world.queue(0, 64, 64);
    world.cookies(500, 0);
    assert_eq!(world.verdict(), SynVerdict::Burst);
    for _ in 0..5 {
        world.queue(0, 64, 0);
        world.cookies(1_000, 1);
        let listener = &world.second()[0];
        assert_eq!(listener.verdict, SynVerdict::Flood, "{}", listener.why);
        let cookies = listener.cookies.expect("it is alone");
        assert_eq!((cookies.sent, cookies.valid), (1_000, 1));
    }
    assert_eq!(
        world.told(),
        [
            (SynVerdict::Burst, false),
            (SynVerdict::Burst, true),
            (SynVerdict::Flood, false)
        ]
    );
    // Nobody sends any more; what is queued times out.
    let verdicts: Vec<_> = (0..5).map(|_| world.verdict()).collect();
    assert_eq!(verdicts[4], SynVerdict::Healthy);
    assert_eq!(world.told(), [(SynVerdict::Flood, true)]);
}

#[test]
fn a_flood_without_cookies_is_told_by_who_does_not_answer() {
    let mut world = World::new(1);
    world.counters.settings.syncookies = Some(0);
    world.queue(0, 64, 60);
    world.counters.syn_queue_full_drops += 300;
    assert_eq!(world.verdict(), SynVerdict::Burst);
    world.queue(0, 64, 10);
    world.counters.syn_queue_full_drops += 300;
    assert_eq!(world.verdict(), SynVerdict::Flood);
}

/// Three quarters of `tcp_max_syn_backlog` are less than the backlog here.
#[test]
fn a_flood_without_cookies_need_not_fill_the_queue() {
    let mut world = World::new(1);
    world.counters.settings.syncookies = Some(0);
    for young in [40, 5, 0] {
        world.queue(0, 48, young);
        world.listeners[0].drops = world.listeners[0].drops.wrapping_add(500);
        world.counters.drops += 500;
        let expected = if young == 40 {
            SynVerdict::Burst
        } else {
            SynVerdict::Flood
        };
        assert_eq!(world.verdict(), expected);
    }
}

/// A filter or a wrong signature drops too, and has nothing to do with the queue.
#[test]
fn what_a_listener_drops_with_room_in_its_queue_is_no_trouble() {
    for (syncookies, max_syn_backlog) in [(1, 128), (0, 512)] {
        let mut world = World::new(1);
        world.counters.settings = SynSettings {
            syncookies: Some(syncookies),
            max_syn_backlog: Some(max_syn_backlog),
            ..SynSettings::default()
        };
        world.queue(0, 3, 0);
        world.listeners[0].drops = world.listeners[0].drops.wrapping_add(5);
        assert_eq!(world.verdict(), SynVerdict::Healthy, "{syncookies}");
    }
}

/// `tcp_syncookies` is 2: there is a cookie for each SYN, and nothing is full.
#[test]
fn cookies_for_everybody_are_no_trouble_while_they_come_back() {
    let mut world = World::new(1);
    world.counters.settings.syncookies = Some(2);
    for _ in 0..5 {
        world.cookies(200, 190);
        assert_eq!(world.verdict(), SynVerdict::Healthy);
    }
    for _ in 0..4 {
        world.cookies(10_000, 190);
        world.second();
    }
    assert_eq!(world.verdict(), SynVerdict::Flood);
}

/// One in five is real: the others are what fills the queue.
#[test]
fn a_flood_with_real_peers_among_it_is_one() {
    let mut world = World::new(1);
    for _ in 0..6 {
        world.queue(0, 64, 10);
        world.cookies(1_250, 250);
        world.second();
    }
    assert_eq!(world.verdict(), SynVerdict::Flood);
}

#[test]
fn who_answers_is_no_flood() {
    let mut world = World::new(1);
    for second in 0..10 {
        // Seen full now and then: a reading is a moment.
        let queue = if second % 2 == 0 { 64 } else { 3 };
        world.queue(0, queue, queue);
        world.cookies(200, 190);
        assert_eq!(world.verdict(), SynVerdict::Burst);
    }
}

#[test]
fn a_full_accept_queue_is_the_process_s_doing() {
    let mut world = World::new(1);
    world.listeners[0].accept_queue = BACKLOG;
    assert_eq!(
        world.verdict(),
        SynVerdict::Healthy,
        "there is room for one more"
    );
    world.listeners[0].accept_queue = BACKLOG + 1;
    // Its SYN queue fills up too, as the third ACK is refused.
    world.queue(0, 64, 5);
    world.counters.accept_queue_full += 40;
    world.cookies(100, 0);
    assert_eq!(world.verdict(), SynVerdict::SlowAccept);
    world.listeners[0].accept_queue = 0;
    world.queue(0, 0, 0);
    for _ in 0..4 {
        world.second();
    }
    assert_eq!(world.verdict(), SynVerdict::Healthy);
}

#[test]
fn a_burst_that_fills_the_accept_queue_for_a_moment_is_one() {
    let mut world = World::new(1);
    for second in 0..10 {
        let is_full = second % 3 == 2;
        world.listeners[0].accept_queue = if is_full { BACKLOG + 1 } else { 7 };
        world.queue(0, 64, 60);
        world.counters.accept_queue_full += u64::from(is_full);
        world.cookies(200, 190);
        assert_eq!(world.verdict(), SynVerdict::Burst, "{second}");
    }
}

#[test]
fn a_queue_that_is_full_from_the_start_is_told_at_once() {
    let mut world = World::new(1);
    world.aggregate = SynAggregate::default();
    world.listeners[0].accept_queue = BACKLOG + 1;
    assert_eq!(world.verdict(), SynVerdict::SlowAccept);
}

/// Between two looks: no queue is seen full, and the listeners' own counters tell which.
#[test]
fn an_overflow_is_of_the_listener_that_dropped() {
    let mut world = World::new(3);
    let mut verdicts = Vec::new();
    for _ in 0..2 {
        world.counters.accept_queue_full += 60;
        for (listener, drops) in world.listeners.iter_mut().zip([40, 20, 9]) {
            listener.drops = listener.drops.wrapping_add(drops);
        }
        verdicts = world.second();
    }
    let verdicts: Vec<_> = verdicts.iter().map(|listener| listener.verdict).collect();
    // The third may have dropped by a filter: the others account for all but a few.
    let burst = SynVerdict::Burst;
    assert_eq!(verdicts, [burst, burst, SynVerdict::Healthy]);
}

#[test]
fn a_listener_without_counters_is_not_judged() {
    let mut world = World::new(1);
    world.aggregate = SynAggregate::default();
    world.listeners[0].netns = NETNS + 1;
    world.listeners[0].accept_queue = BACKLOG + 1;
    assert_eq!(world.verdict(), SynVerdict::NotJudged);
    assert!(world.told().is_empty());
    world.listeners[0].netns = NETNS;
    world.second();
    assert_eq!(world.verdict(), SynVerdict::SlowAccept);
}

#[test]
fn what_may_be_another_s_is_put_on_nobody() {
    let mut world = World::new(3);
    // One is full: the cookies are its own.
    world.queue(1, 64, 0);
    world.cookies(100, 0);
    let listeners = world.second();
    let sent: Vec<_> = listeners
        .iter()
        .map(|l| l.cookies.map(|c| c.sent))
        .collect();
    assert_eq!(sent, [Some(0), Some(100), Some(0)]);
    // Two are.
    world.queue(2, 64, 0);
    world.cookies(100, 0);
    let listeners = world.second();
    assert!(listeners.iter().all(|listener| listener.cookies.is_none()));
    world.cookies(1_000, 0);
    let listeners = world.second();
    let verdicts: Vec<_> = listeners.iter().map(|listener| listener.verdict).collect();
    let flood = SynVerdict::Flood;
    assert_eq!(verdicts, [SynVerdict::Healthy, flood, flood]);
    assert!(
        listeners[1].why.ends_with("of the namespace"),
        "{}",
        listeners[1].why
    );
    let all = world.aggregate.summary(view());
    assert_eq!(all.namespaces[0].cookies.sent, 1_200);
}

#[test]
fn drops_wrap_and_an_address_can_come_again() {
    let mut world = World::new(1);
    world.listeners[0].drops = 4;
    assert_eq!(world.second()[0].drops, 5);
    // It was closed and opened again, at the same address and place.
    world.listeners[0].drops = 0;
    assert_eq!(world.second()[0].drops, 0);
    assert_eq!(world.verdict(), SynVerdict::Healthy);
    world.listeners[0].local = ([0, 0, 0, 0], 99).into();
    world.listeners[0].drops = 1_000;
    assert_eq!(world.second()[0].drops, 0);
    world.listeners.clear();
    assert!(world.second().is_empty());
}

/// With hooks each listener has its own, whatever the namespace's counters say.
#[test]
fn hooks_tell_two_full_listeners_apart() {
    let mut world = World::new(2);
    let kind = |timestamps, mss| CookieKind {
        mss,
        timestamps,
        window_scaling: timestamps,
        sack: timestamps,
        ecn: false,
    };
    let hooked = |n: u64| {
        let flooded = CookieReading {
            sent: 1_000 * n,
            registers: vec![0; 256],
            ..CookieReading::default()
        };
        let busy = CookieReading {
            sent: 100 * n,
            valid: 95 * n,
            established: 90 * n,
            failed: 0,
            registers: vec![1; 256],
            kinds: vec![(kind(true, 1460), 60 * n), (kind(false, 1300), 30 * n)],
        };
        Some(HashMap::from([(1, flooded), (2, busy)]))
    };
    let mut listeners = Vec::new();
    for n in 1..=4 {
        world.hooked = hooked(n);
        world.queue(0, 64, 0);
        world.queue(1, 64, 60);
        world.cookies(1_100, 95);
        listeners = world.second();
    }
    let verdicts: Vec<_> = listeners.iter().map(|listener| listener.verdict).collect();
    assert_eq!(verdicts, [SynVerdict::Flood, SynVerdict::Burst]);
    let cookies = listeners[1].cookies.unwrap();
    assert_eq!((cookies.sent, cookies.valid), (100, 95));
    let expected = ByCookie {
        established: Some(90),
        refused: Some(5),
        without_timestamps: 30,
        without_window_scaling: Some(30),
        without_sack: Some(30),
        without_ecn: Some(90),
        mss: vec![(1300, 30), (1460, 60)],
    };
    assert_eq!(listeners[1].by_cookie.as_ref(), Some(&expected));
    let all = world.aggregate.summary(view()).listeners;
    let all = all.iter().find(|l| l.verdict == SynVerdict::Burst).unwrap();
    assert_eq!(all.by_cookie.as_ref().unwrap().established, Some(360));
}

/// Without hooks those that have lost options are told by the handshake that has no time.
#[test]
fn a_handshake_without_a_time_is_one_without_timestamps() {
    let mut world = World::new(1);
    let mut lost = Vec::new();
    // Some from before the cookies, and one whose SYN-ACK was lost.
    for (unmeasured, valid) in [(7, 0), (8, 0), (28, 30), (28, 5)] {
        world.ports = vec![PortReading {
            netns: NETNS,
            side: Side::Accepted,
            port: 81,
            unmeasured,
            ..PortReading::default()
        }];
        world.queue(0, 64, 60);
        world.cookies(30, valid);
        let by = world.second()[0].by_cookie.clone().unwrap();
        assert_eq!(by.established, None);
        lost.push(by.without_timestamps);
    }
    assert_eq!(lost, [0, 0, 28, 0]);
}

#[test]
fn sources_are_told_while_there_is_trouble() {
    let mut world = World::new(1);
    let addresses: Vec<IpAddr> = (0..64).map(|n| [198, 51, 100, n].into()).collect();
    world.sources = HashMap::from([(1, addresses)]);
    world.queue(0, 64, 0);
    world.cookies(1_000, 0);
    let sources = world.second()[0].sources.clone().unwrap();
    assert_eq!(
        (sources.addresses, sources.of, sources.sampled),
        (64, SourcesOf::Queue, 64)
    );
    assert_eq!(sources.prefixes.len(), 1);
    for _ in 0..5 {
        world.queue(0, 0, 0);
        world.second();
    }
    assert_eq!(world.second()[0].sources, None);
    assert!(
        world.aggregate.summary(view()).listeners[0]
            .sources
            .is_some()
    );
}
