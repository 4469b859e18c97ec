//! Kills as hooks and the log tell them, and who is next.

mod beside;

use super::{LimitedCgroup, OomAggregate, OomReading};
use crate::{
    clock::{MonotonicNs, WallNs},
    decode::{
        clock::ClockReading,
        oom::{KillKind as Seen, KillReading, MemoryReading, OomRequest},
    },
    host::{
        kmsg::{Constraint, LoggedKill, LoggedTrigger},
        users::Users,
    },
    snapshot::{HostMemory, Kill, KillKind, KillScope, OomBreakdown},
    text::Text,
};

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
/// tracer began.
const BEGAN: u64 = 1_000 * S;
/// The task that wants memory.
const TRIGGER: u32 = 50;
const PAGE: u64 = 4096;

fn process(pid: u32, pages: u64, score_adj: i32) -> MemoryReading {
    MemoryReading {
        pid,
        tid: pid,
        mm: u64::from(pid) << 12,
        anon_pages: pages,
        score_adj,
        cgroup: 7,
        start: MonotonicNs(u64::from(pid)),
        comm: format!("p{pid}").as_str().into(),
        ..MemoryReading::default()
    }
}

/// Of frame `n` the name is that of the `n`th of these.
const FUNCTIONS: [&str; 4] = [
    "out_of_memory",
    "mem_cgroup_out_of_memory",
    "mem_cgroup_scan_tasks",
    "moom_callback",
];

fn seen(kind: Seen, at: u64, pid: u32, frames: &[u64]) -> KillReading {
    KillReading {
        at: MonotonicNs(at),
        kind,
        victim: process(pid, 1_000, 0),
        killer_pid: TRIGGER,
        killer_tid: TRIGGER,
        killer_comm: "wants".into(),
        killer_cgroup: 7,
        frames: frames.to_vec(),
        request: None,
    }
}

struct World {
    aggregate: OomAggregate,
    now: u64,
}

impl World {
    fn new() -> Self {
        Self {
            aggregate: OomAggregate::default(),
            now: BEGAN,
        }
    }

    fn read(&mut self, after: u64, reading: OomReading) -> Vec<Kill> {
        self.now += after;
        let reading = OomReading {
            page_bytes: PAGE,
            functions: (0..).zip(FUNCTIONS.map(Text::from)).collect(),
            host: Some(HostMemory {
                total_bytes: 1_000_000 * PAGE,
                ..HostMemory::default()
            }),
            cgroup_names: vec![(7, "/a/b".into()), (8, "/ab".into())],
            ..reading
        };
        let (now, users) = (MonotonicNs(self.now), Users::default());
        let wall = WallNs(self.now + 5 * S);
        let began = MonotonicNs(BEGAN);
        self.aggregate.observe((now, wall), began, &users, &reading);
        self.aggregate.take_kills(now, &users)
    }

    fn kills(&mut self, after: u64, kills: Vec<KillReading>) -> Vec<Kill> {
        let kills = OomReading {
            kills,
            ..OomReading::default()
        };
        self.read(after, kills)
    }

    fn snapshot(&mut self) -> OomBreakdown {
        self.aggregate.snapshot()
    }
}

fn logged(pid: u32, at: u64) -> LoggedKill {
    LoggedKill {
        at_us: at / 1000,
        pid,
        comm: format!("p{pid}").as_str().into(),
        constraint: Some(Constraint::Memcg),
        oom_memcg: Some("/a".into()),
        limit_bytes: Some(1 << 20),
        trigger: Some(LoggedTrigger {
            order: 3,
            ..LoggedTrigger::default()
        }),
        ..LoggedKill::default()
    }
}

#[test]
fn a_process_is_next_once_though_its_first_thread_has_ended() {
    let mut world = World::new();
    let thread = |tid| MemoryReading {
        tid,
        ..process(70, 500, 0)
    };
    let reading = OomReading {
        processes: Some(vec![thread(71), thread(72), process(80, 400, 0)]),
        ..OomReading::default()
    };
    world.read(S, reading);
    let next = world.snapshot().next;
    let pids: Vec<_> = next.iter().map(|one| one.process.pid).collect();
    assert_eq!(pids, [70, 80]);
}

/// After a month the clock of the log is seconds off: tracer knows by how much.
#[test]
fn the_log_s_clock_may_be_far_off() {
    const OFF: u64 = 100 * S;
    let mut world = World::new();
    world.aggregate.set_clock(&ClockReading {
        sched_offset_ns: OFF,
        ..ClockReading::default()
    });
    let at = BEGAN + S - MS;
    let reading = OomReading {
        kills: vec![seen(Seen::Marked, at, 70, &[0, 1])],
        logged: vec![logged(70, at - OFF)],
        ..OomReading::default()
    };
    world.read(S, reading);
    let told = world.read(S, OomReading::default());
    let snapshot = world.snapshot();
    assert_eq!((told.len(), snapshot.recent.len()), (1, 1));
    assert_eq!(snapshot.recent[0].limit_bytes, Some(1 << 20));
}

#[test]
fn a_kill_is_told_once_with_what_the_log_adds() {
    let mut world = World::new();
    let at = BEGAN + S - MS;
    let told = world.kills(
        S,
        vec![
            seen(Seen::SignalledByKernel, at - 1, 70, &[]),
            seen(Seen::Marked, at, 70, &[0, 1]),
        ],
    );
    // The log may come yet.
    assert!(told.is_empty());
    assert_eq!(
        world.aggregate.settles_at(),
        Some(MonotonicNs(at + 40 * MS))
    );
    let reading = OomReading {
        logged: vec![logged(70, at + S / 2)],
        processes: Some(vec![
            process(70, 9, 0),
            process(71, 50, 0),
            process(1, 99, 0),
        ]),
        cgroups: Some(vec![LimitedCgroup {
            path: "/a".into(),
            limit_bytes: 2_000 * PAGE,
            ..LimitedCgroup::default()
        }]),
        ..OomReading::default()
    };
    assert!(world.read(MS, reading).is_empty(), "others may die with it");
    let told = world.kills(40 * MS, Vec::new());
    let [kill] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(kill.kind, KillKind::Oom);
    assert_eq!(
        (kill.victim.pid, kill.victim.anon_rss_bytes),
        (70, 1_000 * PAGE)
    );
    let trigger = kill
        .trigger
        .as_ref()
        .map(|trigger| (trigger.pid, trigger.comm.as_str()));
    assert_eq!(trigger, Some((TRIGGER, "wants")));
    assert_eq!(kill.scope, Some(KillScope::Memcg));
    assert_eq!(kill.memcg, Some("/a".into()));
    assert_eq!(kill.order, Some(3));
    assert_eq!(kill.time, WallNs(at + 5 * S));
    // Half of what there was: (1000 + 500) * 2 / 3.
    assert_eq!(kill.points, Some(1_000));
    let others: Vec<_> = kill.others.iter().map(|other| other.process.pid).collect();
    assert_eq!(others, [71], "neither the victim nor the first process");
    assert!(!kill.is_past && !kill.is_from_log && !kill.is_table_of_log);
    assert!(world.kills(S, Vec::new()).is_empty());
    let snapshot = world.snapshot();
    assert_eq!((snapshot.kills.len(), snapshot.killed), (1, 1));
    let later = world.snapshot();
    assert_eq!((later.kills.len(), later.recent.len()), (0, 1));
}

#[test]
fn without_a_line_of_the_log_it_is_told_all_the_same() {
    let mut world = World::new();
    let signal = seen(Seen::SignalledByKernel, BEGAN, 70, &[]);
    let mark = seen(Seen::Marked, BEGAN + 1, 70, &[0]);
    assert!(world.kills(MS, vec![signal, mark]).is_empty());
    let told = world.kills(39 * MS + 1, Vec::new());
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].scope, &told[0].memcg),
        (Some(KillScope::Host), &None)
    );
    // The line comes late: it is no kill of its own.
    let late = OomReading {
        logged: vec![logged(70, BEGAN)],
        ..OomReading::default()
    };
    assert!(world.read(MS, late).is_empty());
    let snapshot = world.snapshot();
    assert_eq!((snapshot.kills.len(), snapshot.killed), (1, 1));
    assert_eq!(snapshot.kills[0].memcg, Some("/a".into()));
}

#[test]
fn what_was_asked_for_needs_no_log() {
    let mut world = World::new();
    let signal = seen(Seen::SignalledByKernel, BEGAN, 70, &[]);
    let mut mark = seen(Seen::Marked, BEGAN + 1, 70, &[0]);
    mark.request = Some(OomRequest {
        cgroup: 7,
        total_pages: 9,
        order: 2,
        constraint: 3,
    });
    world.kills(MS, vec![signal, mark]);
    let told = world.kills(S, Vec::new());
    assert_eq!(
        (told[0].scope, told[0].order),
        (Some(KillScope::Memcg), Some(2))
    );
    assert_eq!(told[0].memcg, Some("/a/b".into()));
}

#[test]
fn who_is_marked_without_a_signal_was_on_its_way_out() {
    let mut world = World::new();
    // Another was killed, by another task too.
    let mut other = seen(Seen::SignalledByKernel, BEGAN, 70, &[]);
    other.killer_tid = 99;
    let signal = seen(Seen::SignalledByKernel, BEGAN, 71, &[]);
    world.kills(
        MS,
        vec![other, signal, seen(Seen::Marked, BEGAN + 1, 70, &[0])],
    );
    let told = world.kills(S, Vec::new());
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].kind, KillKind::Exiting);
    assert_eq!(world.snapshot().killed, 0);
}

#[test]
fn who_dies_with_the_victim_is_no_kill_of_its_own() {
    let mut world = World::new();
    let mut twin = seen(Seen::SignalledByKernel, BEGAN + 2, 75, &[]);
    twin.victim.mm = 70 << 12;
    let mut kills = vec![
        seen(Seen::SignalledByKernel, BEGAN, 70, &[]),
        seen(Seen::Marked, BEGAN + 1, 70, &[0, 1]),
        twin,
    ];
    // All of the cgroup, the first one once more.
    for pid in [71, 70, 72] {
        kills.push(seen(Seen::SignalledByKernel, BEGAN + 3, pid, &[]));
        kills.push(seen(Seen::Marked, BEGAN + 4, pid, &[2, 0, 1]));
    }
    world.kills(MS, kills);
    let told = world.kills(S, Vec::new());
    let [kill] = told.as_slice() else {
        panic!("{told:?}");
    };
    let pids = |named: &[crate::snapshot::Named]| named.iter().map(|n| n.pid).collect::<Vec<_>>();
    assert_eq!((kill.victim.pid, pids(&kill.group)), (70, vec![71, 72]));
    assert_eq!(pids(&kill.sharing), [75]);
    assert_eq!(world.snapshot().killed, 3);
}

/// Each victim has a line for the console: on a slow one they die far apart.
#[test]
fn a_cgroup_is_told_whole_however_slow_the_console() {
    const LINE: u64 = 160 * MS;
    let mut world = World::new();
    let die = |world: &mut World, n: u64, pid: u32, frames: &[u64], whole: &[u64]| {
        let at = BEGAN + n * LINE;
        world.now = at;
        let kills = vec![
            seen(Seen::SignalledByKernel, at - 1, pid, &[]),
            seen(Seen::Marked, at, pid, frames),
        ];
        let reading = OomReading {
            kills,
            whole: whole.to_vec(),
            ..OomReading::default()
        };
        world.read(MS, reading)
    };
    assert!(die(&mut world, 1, 70, &[0, 1], &[7]).is_empty());
    // Ten of them, for longer than what belongs to a kill may be apart.
    for n in 2..=10 {
        let told = die(&mut world, n, 69 + n as u32, &[2, 0, 1], &[7]);
        assert!(told.is_empty(), "{n}: {told:?}");
        assert!(world.kills(LINE / 2, Vec::new()).is_empty(), "{n}");
    }
    let told = world.kills(300 * MS, Vec::new());
    let [kill] = told.as_slice() else {
        panic!("{told:?}");
    };
    let group: Vec<_> = kill.group.iter().map(|one| one.pid).collect();
    assert_eq!(kill.victim.pid, 70);
    assert_eq!(group, (71..80).collect::<Vec<u32>>());
    assert_eq!(world.snapshot().killed, 10);
    // One that is not killed whole is told as soon as ever.
    let at = BEGAN + 20 * LINE;
    assert!(die(&mut world, 20, 90, &[0, 1], &[8]).is_empty());
    assert_eq!(
        world.aggregate.settles_at(),
        Some(MonotonicNs(at + 40 * MS))
    );
}

/// Somebody waits for the event: a group without an end is told all the same.
#[test]
fn a_cgroup_that_dies_for_long_is_not_waited_for() {
    let mut world = World::new();
    let mut told = Vec::new();
    let mut pid = 70;
    while told.is_empty() {
        let at = world.now + 100 * MS;
        let frames = if pid == 70 { &[0, 1][..] } else { &[2, 0, 1] };
        let reading = OomReading {
            kills: vec![
                seen(Seen::SignalledByKernel, at - 1, pid, &[]),
                seen(Seen::Marked, at, pid, frames),
            ],
            whole: vec![7],
            ..OomReading::default()
        };
        told = world.read(100 * MS, reading);
        pid += 1;
    }
    assert_eq!(world.now, BEGAN + 2_100 * MS);
    assert_eq!(told[0].group.len(), 20);
}

#[test]
fn a_signal_of_a_process_is_told_at_once() {
    let mut world = World::new();
    let told = world.kills(MS, vec![seen(Seen::SignalledByProcess, BEGAN, 70, &[])]);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].kind, KillKind::Signal);
    let snapshot = world.snapshot();
    assert_eq!((snapshot.killed, snapshot.signalled), (0, 1));
}

#[test]
fn what_only_the_log_tells_is_a_kill_too() {
    let mut world = World::new();
    let past = OomReading {
        logged: vec![logged(60, BEGAN - S), logged(60, BEGAN - 900 * S)],
        ..OomReading::default()
    };
    assert!(world.read(0, past).is_empty(), "nobody is told of the past");
    let snapshot = world.snapshot();
    assert!(
        snapshot
            .kills
            .iter()
            .all(|kill| kill.is_past && kill.is_from_log)
    );
    assert_eq!((snapshot.kills.len(), snapshot.killed), (2, 0));
    let new = OomReading {
        logged: vec![logged(60, BEGAN + 3 * S)],
        ..OomReading::default()
    };
    let told = world.read(4 * S, new);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].is_past, told[0].order), (false, Some(3)));
    assert_eq!(world.snapshot().killed, 1);
}

/// By the kernel's own arithmetic (`oom_badness`, `proc_oom_score`).
#[test]
fn who_is_next() {
    let mut world = World::new();
    let mut vfork = process(80, 900_000, 0);
    vfork.is_in_vfork = true;
    let mut freed = process(81, 900_000, 0);
    freed.is_skipped = true;
    let mut tables = process(74, 100, 0);
    tables.page_table_bytes = 50 * PAGE;
    (tables.swap_pages, tables.file_pages, tables.shmem_pages) = (10, 20, 30);
    let mut elsewhere = process(77, 40_000, 0);
    elsewhere.cgroup = 8;
    let reading = OomReading {
        processes: Some(vec![
            process(1, 900_000, 0),
            vfork,
            freed,
            process(70, 100_000, 0),
            process(71, 900_000, -1000),
            process(72, 10, 300),
            process(73, 100_000, 0),
            tables,
            process(75, 100_000, -999),
            elsewhere,
        ]),
        cgroups: Some(vec![
            LimitedCgroup {
                path: "/a".into(),
                limit_bytes: 200_000 * PAGE,
                usage_bytes: 150_000 * PAGE,
                ..LimitedCgroup::default()
            },
            LimitedCgroup {
                path: "/empty".into(),
                limit_bytes: 10 * PAGE,
                usage_bytes: 9 * PAGE,
                ..LimitedCgroup::default()
            },
        ]),
        ..OomReading::default()
    };
    world.read(S, reading);
    let snapshot = world.snapshot();
    let next: Vec<_> = snapshot
        .next
        .iter()
        .map(|c| (c.process.pid, c.oom_score))
        .collect();
    // 300 thousandths of a million pages are more than 100,000 pages; of two that are
    // worth the same the later one comes first.
    let expected = [
        (72, (1000 + 300) * 2 / 3),
        (73, (1000 + 100) * 2 / 3),
        (70, (1000 + 100) * 2 / 3),
        (77, (1000 + 40) * 2 / 3),
        (74, 1000 * 2 / 3),
        (75, (1000 - 899) * 2 / 3),
    ];
    assert_eq!(next, expected);
    let cgroups: Vec<_> = snapshot
        .cgroups
        .iter()
        .map(|c| {
            (
                c.path.as_str(),
                c.next.as_ref().map(|next| next.process.pid),
            )
        })
        .collect();
    // Of 200,000 pages a half weighs more than 300 thousandths; /ab is not in /a.
    assert_eq!(cgroups, [("/empty", None), ("/a", Some(73))]);
    assert_eq!(snapshot.cgroups[1].left_bytes, 50_000 * PAGE);
}

fn by_process(sender: u32, at: u64, pid: u32) -> KillReading {
    KillReading {
        killer_pid: sender,
        killer_tid: sender,
        ..seen(Seen::SignalledByProcess, at, pid, &[])
    }
}

/// One that ends 1,000 processes does not push out who died for memory, nor the victim of
/// another process; what is not told is counted.
#[test]
fn a_flood_of_one_sender_is_limited() {
    let mut world = World::new();
    let mut kills: Vec<_> = (0..1_000)
        .map(|i| by_process(9, BEGAN, 1_000 + i))
        .collect();
    kills.insert(3, by_process(8, BEGAN, 77));
    kills.insert(5, seen(Seen::SignalledByKernel, BEGAN, 88, &[]));
    kills.insert(6, seen(Seen::Marked, BEGAN, 88, &[0]));
    let mut told = world.kills(MS, kills);
    told.extend(world.kills(100 * MS, Vec::new()));
    let of = |kind: KillKind| told.iter().filter(|kill| kill.kind == kind).count() as u64;
    assert!(told.iter().any(|kill| kill.victim.pid == 77));
    assert_eq!((of(KillKind::Oom), of(KillKind::Signal)), (1, 65));
    let limited = world.aggregate.signals_of_one_sender();
    assert_eq!(of(KillKind::Signal) + limited, 1_001);
    assert_eq!(world.snapshot().signalled, 1_001);
    // A second later it is told again.
    let later = world.kills(S, vec![by_process(9, BEGAN + S, 5_000)]);
    assert_eq!(later.len(), 1);
}

/// Of a thousand senders all are told, also more than are remembered.
#[test]
fn what_is_not_told_yet_is_not_dropped() {
    let mut world = World::new();
    let kills = (0..1_000).map(|i| by_process(10_000 + i, BEGAN, 1_000 + i));
    assert_eq!(world.kills(MS, kills.collect()).len(), 1_000);
    let kills = (0..5_000).map(|i| by_process(10_000 + i, BEGAN + S, 1_000 + i));
    let told = world.kills(S, kills.collect()).len() as u64;
    assert_eq!(told + world.aggregate.untold(), 5_000);
    // Then it takes no more room than before.
    let after = (0..2_000).map(|i| by_process(i, BEGAN + 2 * S, 1_000 + i));
    for kill in after {
        world.kills(MS, vec![kill]);
    }
    world.snapshot();
    assert!(world.snapshot().kills.is_empty());
}

#[test]
fn memory_is_bounded() {
    let mut world = World::new();
    for i in 0..2_000_u32 {
        let at = BEGAN + u64::from(i) * MS;
        let signal = seen(Seen::SignalledByKernel, at, i + 100, &[]);
        let by_process = seen(Seen::SignalledByProcess, at, i + 100, &[]);
        world.kills(MS, vec![signal, by_process]);
    }
    let snapshot = world.snapshot();
    assert_eq!((snapshot.signalled, snapshot.recent.len()), (2_000, 20));
    assert!(snapshot.kills.len() <= 256);
}
