//! SYN cookies: what they cost, and whose they are, by every way to hook functions. Where
//! functions can be hooked the shared tracers of all ways see the same clients, each in
//! its own way; a host has one that hooks none.

use std::{collections::BTreeMap, iter, thread, time::Duration};

use serde_json::Value;
use tests::{
    assert_near,
    lanes::Test,
    tcp::{
        diag::{self, Socket},
        listener::Has,
        seen::list,
        wire::{SynAck, Wire},
    },
    test,
    time::{eventually, host_or_guest, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

use crate::listeners::{BACKLOG, Server, watch};

pub(crate) const TESTS: &[Test] = &[
    test!(what_cookies_cost_is_told)
        .streams(OTHER_WAYS)
        .contract(),
    test!(cookies_are_the_listener_s_own).streams(OTHER_WAYS),
];

/// Ways to hook functions besides the usual one, which takes fentry where there is that.
const OTHER_WAYS: &[&str] = &["kprobe", "off"];

/// A tracer for each way in which functions can be hooked here, once it knows the servers.
fn tracers(servers: &[Server]) -> Vec<Tracer> {
    let others = host_or_guest(&[][..], OTHER_WAYS);
    let ways = iter::once(&"auto").chain(others);
    let known = |way: &&str| {
        let mut tracer = Tracer::shared_by(way);
        servers
            .iter()
            .for_each(|server| server.is_known_to(&mut tracer));
        tracer.snapshot_after(wall_ns());
        let hooked = how_hooked(&tracer);
        println!("{way}: by {hooked:?}");
        let expected = match *way {
            "auto" => host_or_guest(None, Some("fentry")),
            "kprobe" => Some("kprobe"),
            _ => None,
        };
        assert_eq!(hooked, expected, "{way}");
        tracer
    };
    ways.map(known).collect()
}

/// How tracer has hooked the functions on cookies, all of them.
fn how_hooked(tracer: &Tracer) -> Option<&'static str> {
    const FUNCTIONS: [&str; 5] = [
        "tcp_conn_request",
        "cookie_v4_init_sequence",
        "cookie_v6_init_sequence",
        "cookie_v4_check",
        "cookie_v6_check",
    ];
    if !FUNCTIONS.iter().all(|name| tracer.has_hook(name)) {
        return None;
    }
    let hooks = list(&tracer.start["hooks"]).iter();
    let its = hooks.filter(|hook| FUNCTIONS.iter().any(|name| hook["name"] == *name));
    let vias = its.filter_map(|hook| hook["via"].as_str()?.split(' ').next());
    // At a function's end the words are fexit and kretprobe.
    let mut ways: Vec<&'static str> = vias
        .map(|via| match via {
            "fentry" | "fexit" => "fentry",
            "kprobe" | "kretprobe" => "kprobe",
            other => panic!("hooked by {other}"),
        })
        .collect();
    ways.dedup();
    let [way] = ways.as_slice() else {
        panic!("hooked by {ways:?}");
    };
    Some(way)
}

/// Segments that clients send, whom nobody answers in the end: the options they ask for.
const KINDS: [(u32, bool, u16); 3] = [(0, true, 1460), (1, false, 1460), (2, false, 1400)];
/// Clients of each kind.
const CLIENTS: u32 = 40;

/// Connections that have been accepted: others have no descriptor yet, so no inode.
fn accepted_by(server: &Server) -> usize {
    let sockets = server.joined.ends[1].within(diag::sockets);
    let sockets = sockets.expect("sock_diag").into_iter();
    let accepted = |socket: &Socket| socket.state == "ESTABLISHED" && socket.inode != 0;
    sockets.filter(accepted).count()
}

/// Clients that come by cookie, and of each a cookie that is none: what is answered.
fn come(server: &Server) -> Vec<(Wire, Vec<SynAck>)> {
    server.within_promptly(|| {
        let come = |(kind, has_time, mss)| {
            let wire = Wire::new(server.to, has_time).expect("raw sockets");
            let wire = wire.with_mss(mss);
            for n in 0..CLIENTS {
                wire.syn(wire.stranger(kind * 1_000 + n)).expect("a SYN");
            }
            let mut answers = Vec::new();
            let all = eventually(10.0, || {
                answers.extend(wire.answers());
                answers.len() >= CLIENTS as usize
            });
            assert!(all, "{} of {CLIENTS} SYNs are answered", answers.len());
            for answer in &answers {
                // Nobody knows the connection yet: it is looked at as a cookie.
                wire.wrong_ack(answer).expect("an ACK");
                wire.ack(answer).expect("an ACK");
            }
            // More than these would not fit into its queue.
            let all = ((kind + 1) * CLIENTS) as usize;
            let accepted = eventually(10.0, || accepted_by(server) >= all);
            assert!(accepted, "{} of {all} are accepted", accepted_by(server));
            (wire, answers)
        };
        KINDS.into_iter().map(come).collect()
    })
}

/// What connections by cookie have lost is what the server's own sockets say: over IPv4 and
/// IPv6 at once.
fn what_cookies_cost_is_told() {
    let always = [("tcp_syncookies", "2")];
    let mut servers = [false, true].map(|is_v6| Server::with(&always, is_v6, "tells"));
    for server in &mut servers {
        // The connections that were tried until it answered.
        while Has::said(&server.workload.line()).is_none() {}
    }
    let mut tracers = tracers(&servers);
    let before = servers.each_ref().map(Server::counters);
    let (clients, all) = watch(&mut tracers, || {
        thread::scope(|scope| {
            let both = servers
                .each_ref()
                .map(|server| scope.spawn(|| come(server)));
            both.map(|clients| clients.join().expect("no panic"))
        })
    });
    for ((server, before), clients) in servers.iter_mut().zip(before).zip(clients) {
        let mut line = || Has::said(&server.workload.line()).expect("what it has");
        let has: Vec<Has> = (0..3 * CLIENTS).map(|_| line()).collect();
        let after = server.counters();
        let of = |counter| after.since(&before, &[counter]);
        assert_eq!(of("SyncookiesRecv"), u64::from(3 * CLIENTS));
        // One that is lost on its way is none that the kernel had to judge.
        let failed = of("SyncookiesFailed") as f64;
        assert_near("bad ACKs", failed, f64::from(3 * CLIENTS), 3.0);
        for (tracer, snapshots) in tracers.iter().zip(&all) {
            assert_eq!(server.sum(snapshots, "cookies_failed"), failed);
            assert_cost(server, snapshots, &has, how_hooked(tracer).is_some());
        }
        for (wire, answers) in &clients {
            let mut each = answers.iter();
            each.try_for_each(|answer| wire.reset(answer))
                .expect("resets");
        }
    }
}

/// Holds what a tracer says of a server against what its connections have.
fn assert_cost(server: &Server, snapshots: &[Snapshot], has: &[Has], is_hooked: bool) {
    let valid = server.sum(snapshots, "cookies_valid");
    assert_near("cookies_valid", valid, f64::from(3 * CLIENTS), 0.0);
    // By each interval: it is not there where the cookies of one are not known.
    let by = || {
        let rows = snapshots.iter().map(|snapshot| server.row(snapshot));
        rows.map(|row| &row["by_cookie"]).filter(|by| !by.is_null())
    };
    let sum = |figure: &str| -> f64 {
        let known = by().map(|by| &by[figure]).filter(|f| f.is_number());
        known.map(number).sum()
    };
    println!("to {}: {:?}", server.to, by().collect::<Vec<_>>());
    let without = |option: u8| has.iter().filter(|has| has.options & option == 0).count();
    let of_time = without(Has::TIMESTAMPS) as f64;
    assert_near("without time", sum("without_timestamps"), of_time, 0.0);
    assert_near("of them", of_time, f64::from(2 * CLIENTS), 0.0);
    if !is_hooked {
        let is_unknown = |by: &Value| by["established"].is_null() && list(&by["mss"]).is_empty();
        assert!(by().all(is_unknown));
        return;
    }
    assert_near(
        "established",
        sum("established"),
        f64::from(3 * CLIENTS),
        0.0,
    );
    assert_near("refused", sum("refused"), 0.0, 0.0);
    for (figure, option) in [
        ("without_window_scaling", Has::WINDOW_SCALING),
        ("without_sack", Has::SACK),
        ("without_ecn", Has::ECN),
    ] {
        assert_near(figure, sum(figure), without(option) as f64, 0.0);
    }
    // Timestamps take 12 bytes of each segment.
    let mut sizes: BTreeMap<u32, u32> = BTreeMap::new();
    for has in has {
        let is_whole = has.options & Has::TIMESTAMPS == 0;
        let whole = has.mss + if is_whole { 0 } else { 12 };
        *sizes.entry(whole).or_default() += 1;
    }
    let mut told: BTreeMap<u32, u32> = BTreeMap::new();
    for row in by().flat_map(|by| list(&by["mss"])) {
        let connections = number(&row["connections"]) as u32;
        if connections > 0 {
            *told.entry(number(&row["mss"]) as u32).or_default() += connections;
        }
    }
    assert_eq!(told, sizes);
}

/// Two listeners of a namespace that are full at once: with hooks each has its own
/// cookies, without them it is said that nobody knows.
fn cookies_are_the_listener_s_own() {
    let first = Server::new(false, "accepts");
    let second = Server::beside(first.joined.clone(), false, "accepts");
    let servers = [first, second];
    let mut tracers = tracers(&servers);
    let [first, second] = &servers;
    let before = first.counters();
    let ((), all) = watch(&mut tracers, || {
        first.within(|| {
            let wires =
                [first, second].map(|server| Wire::new(server.to, true).expect("raw sockets"));
            for batch in 0..20 {
                for n in 0..60 {
                    // Twice as many for the one as for the other.
                    wires[0]
                        .syn(wires[0].stranger(batch * 60 + n))
                        .expect("a SYN");
                    if n % 2 == 0 {
                        wires[1]
                            .syn(wires[1].stranger(batch * 60 + n))
                            .expect("a SYN");
                    }
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
    });
    let sent = first.counters().since(&before, &["SyncookiesSent"]) as f64;
    for (tracer, snapshots) in tracers.iter().zip(&all) {
        let [one, other] = [first, second].map(|server| server.sum(snapshots, "cookies_sent"));
        let hooked = how_hooked(tracer);
        println!("{hooked:?}: {one} and {other} of {sent}");
        if hooked.is_some() {
            assert_near("both", one + other, sent, 0.0);
            // What is in the queues had no cookie, nor had what a slow guest lost on its way.
            let queued = f64::from(BACKLOG) + 1.0;
            let lost = host_or_guest(0.0, 1_800.0 - sent);
            assert_near("the one", one, 1_200.0 - queued, queued + lost);
            assert_near("the other", other, 600.0 - queued, queued + lost);
            assert_near("one to other", one / other, 2.0, host_or_guest(0.3, 0.6));
        } else {
            let mut rows = snapshots.iter().map(|snapshot| first.row(snapshot));
            assert!(rows.any(|row| row["cookies_sent"].is_null()));
        }
    }
}
