//! What holds for every model: no text wider than the screen, no page higher, no
//! line of JSON that does not parse.

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof, proptest},
};
use serde_json::Value;

use super::{
    Render, TextOptions,
    events::EventsRenderer,
    example,
    json::JsonRenderer,
    line,
    properties_oom::{kill, oom},
    properties_tcp::{leak, tcp},
    text::TextRenderer,
};
use crate::{
    snapshot::{
        BlockedTask, CauseLengths, CauseRow, CauseShare, DeviceRow, Event, Group, LENGTH_BUCKETS,
        Link, LoadBreakdown, LongEpisode, OtherGroups, OwnCost, Queue, Role, Rows, Snapshot, Start,
        Subject, Summary, TaskMean, Verdict, Waiter,
    },
    text::Text,
};

pub(super) fn number() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), -1.0..1e6, any::<f64>()]
}

fn mean() -> impl Strategy<Value = TaskMean> {
    (number(), number(), number(), number()).prop_map(|(running, waiting, throttled, blocked)| {
        TaskMean {
            running,
            waiting,
            throttled,
            blocked,
        }
    })
}

pub(super) fn name() -> impl Strategy<Value = Text> {
    prop_oneof!["[a-z/]{0,40}", ".{0,20}", "[漢字데이터]{0,15}"]
        .prop_map(|name| name.as_str().into())
}

fn word() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("disk"),
        Just("writeback throttle"),
        Just("unknown"),
        Just("mmap_lock")
    ]
}

pub(super) fn detail() -> impl Strategy<Value = Option<Text>> {
    prop_oneof![Just(None), name().prop_map(Some)]
}

fn shares() -> impl Strategy<Value = Vec<CauseShare>> {
    let share = (word(), detail(), number()).prop_map(|(cause, detail, blocked)| CauseShare {
        cause,
        detail,
        blocked,
    });
    vec(share, 0..6)
}

fn link() -> impl Strategy<Value = Link> {
    let role = prop_oneof![Just(Role::Holder), Just(Role::Child)];
    let cause = prop_oneof![Just(None), word().prop_map(Some)];
    let ids = (any::<u32>(), any::<u32>());
    (ids, name(), role, cause, detail(), detail()).prop_map(
        |((pid, tid), comm, role, cause, detail, sleeps_in)| Link {
            sleeps_in,
            pid,
            tid,
            comm,
            role,
            cause,
            detail,
        },
    )
}

fn blocked_task() -> impl Strategy<Value = BlockedTask> {
    let ids = (any::<u32>(), any::<u32>(), name(), any::<u64>());
    let why = (word(), detail(), vec(name(), 0..20), vec(link(), 0..9));
    (ids, why).prop_map(
        |((pid, tid, comm, age_ns), (cause, detail, stack, waits_for))| BlockedTask {
            pid,
            tid,
            comm,
            age_ns,
            cause,
            detail,
            stack,
            waits_for,
        },
    )
}

fn waiters() -> impl Strategy<Value = Vec<Waiter>> {
    let waiter = (any::<Option<u32>>(), name(), number()).prop_map(|(pid, name, blocked)| Waiter {
        pid,
        name,
        blocked,
    });
    vec(waiter, 0..9)
}

fn cause_row() -> impl Strategy<Value = CauseRow> {
    (word(), detail(), number(), waiters(), any::<u64>()).prop_map(
        |(cause, detail, blocked, waiters, waiters_total)| CauseRow {
            cause,
            device: detail.clone(),
            detail,
            blocked,
            waiters,
            waiters_total,
        },
    )
}

fn queue() -> impl Strategy<Value = Queue> {
    (link(), word(), any::<u64>(), any::<bool>()).prop_map(|(root, cause, waiting, is_circle)| {
        Queue {
            is_circle,
            root,
            cause,
            waiting,
        }
    })
}

fn lengths() -> impl Strategy<Value = CauseLengths> {
    let buckets = vec(prop_oneof![Just(0), any::<u64>()], LENGTH_BUCKETS);
    (word(), any::<u64>(), buckets).prop_map(|(cause, episodes, buckets)| CauseLengths {
        cause,
        episodes,
        buckets: buckets.try_into().unwrap(),
    })
}

/// Why tasks are blocked, in a snapshot that says nothing else.
fn why() -> impl Strategy<Value = Snapshot> {
    let rows = (vec(cause_row(), 0..20), vec(queue(), 0..4));
    (rows, vec(lengths(), 0..4), vec(blocked_task(), 0..30)).prop_map(
        |((causes, queues), lengths, blocked)| Snapshot {
            devices: causes.iter().map(device_row).collect(),
            causes,
            queues,
            lengths,
            blocked,
            ..Snapshot::default()
        },
    )
}

fn device_row(row: &CauseRow) -> DeviceRow {
    DeviceRow {
        device: row.device.clone(),
        blocked: row.blocked,
        waiters: row.waiters.clone(),
        waiters_total: row.waiters_total,
    }
}

fn group() -> impl Strategy<Value = Group> {
    let load = [number(), number(), number()];
    (
        any::<Option<u32>>(),
        name(),
        name(),
        any::<u64>(),
        0..3_u64,
        mean(),
        load,
        shares(),
    )
        .prop_map(
            |(pid, comm, cgroup, threads, exited, mean, load, causes)| Group {
                pid,
                comm: Some(comm),
                cgroup: Some(cgroup.clone()),
                user: Some(cgroup),
                is_kernel: false,
                threads,
                exited,
                made_by: None,
                episodes: exited,
                mean,
                load,
                causes,
            },
        )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let averages = [number(), number(), number()];
    let lists = (vec(group(), 0..30), why(), (tcp(), oom()));
    (
        lists,
        averages,
        mean(),
        any::<u32>(),
        any::<Option<i64>>(),
        any::<u64>(),
    )
        .prop_map(
            |((groups, why, (tcp, oom)), averages, mean, cpus, leaked, number)| Snapshot {
                tcp,
                oom,
                interval_ns: number,
                uptime_s: number,
                cpus,
                load: LoadBreakdown {
                    averages,
                    mean,
                    groups,
                    other: OtherGroups {
                        groups: number,
                        mean,
                        load: averages,
                    },
                    verdict: Verdict::MostlyWaiting,
                    leaked,
                    next_sample_in_ns: Some(number),
                    ..LoadBreakdown::default()
                },
                blocked_total: number % 40,
                own: OwnCost {
                    cpu_ratio: averages[0],
                    bpf_ns: Some(number),
                    ..OwnCost::default()
                },
                ..why
            },
        )
}

fn summary_of(snapshot: &Snapshot) -> Summary {
    let episode = |task: &BlockedTask| LongEpisode {
        pid: task.pid,
        tid: task.tid,
        comm: task.comm.clone(),
        length_ns: task.age_ns,
        began_ago_ns: task.age_ns,
        is_open: task.pid.is_multiple_of(2),
    };
    Summary {
        groups: snapshot.load.groups.clone(),
        episodes: snapshot.blocked.iter().map(episode).collect(),
        mean: snapshot.load.mean,
        causes: snapshot.causes.clone(),
        devices: snapshot.devices.clone(),
        lengths: snapshot.lengths.clone(),
        tcp: snapshot.tcp.clone(),
        oom: snapshot.oom.clone(),
        ..example::summary()
    }
}

/// What a terminal shows of a text.
fn without_codes(text: &str) -> String {
    let mut pieces = text.split('\x1b');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |shown, piece| {
        let end = piece.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        shown + &piece[end + 1..]
    })
}

proptest! {
    #[test]
    fn no_line_is_wider_than_the_screen(
        snapshot in snapshot(),
        width in 1..200_u16,
        height in 0..60_u16,
        page in any::<bool>(),
        color in any::<bool>(),
        stacks in any::<bool>(),
        rows in prop_oneof![Just(Rows::Groups), Just(Rows::Causes), Just(Rows::Devices)],
        subject in prop_oneof![Just(Subject::All), Just(Subject::Load), Just(Subject::Tcp), Just(Subject::Oom), Just(Subject::Syn)],
        [matrix, next] in any::<[bool; 2]>(),
    ) {
        let options = TextOptions { color, width, height, page, stacks };
        let mut renderer = TextRenderer::new(options);
        let start = renderer.start(&Start { rows, subject, matrix, next, ..example::start() });
        let tick = renderer.snapshot(&snapshot);
        let end = renderer.end(&summary_of(&snapshot));
        let [start, tick, end] = [start, tick, end].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!((start + &tick + &end).contains('\x1b'), color || page);
        let shown = without_codes(&tick);
        for line in shown.lines().chain(without_codes(&end).lines()) {
            assert!(line::width(line) <= width.into(), "{line}");
            assert!(!line.contains(char::is_control), "{line:?}");
            assert_eq!(line, line.trim_end_matches(' '));
        }
        if page && height > 0 {
            assert!(shown.lines().count() <= height.into());
            assert!(!shown.ends_with('\n'));
        }
    }

    #[test]
    fn an_event_is_a_line(leak in leak(), kill in kill(), width in 0..200_u16) {
        for event in [Event::Leak(leak), Event::Kill(Box::new(kill))] {
            let mut renderer = EventsRenderer::new(TextOptions { width, ..TextOptions::default() });
            let text = String::from_utf8(renderer.event(&event)).unwrap();
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.contains(char::is_control), "{line:?}");
            assert!(width == 0 || line::width(line) <= width.into(), "{line}");
            let json = JsonRenderer::new().event(&event);
            let json: Value = serde_json::from_slice(&json).unwrap();
            assert!(json["event"].is_string());
        }
    }

    #[test]
    fn every_json_line_parses(snapshot in snapshot()) {
        let mut renderer = JsonRenderer::new();
        let summary = summary_of(&snapshot);
        let text = [
            renderer.start(&example::start()),
            renderer.snapshot(&snapshot),
            renderer.end(&summary),
        ];
        let text = String::from_utf8(text.concat()).unwrap();
        let types: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone())
            .collect();
        assert_eq!(types, ["start", "snapshot", "end"]);
    }
}
