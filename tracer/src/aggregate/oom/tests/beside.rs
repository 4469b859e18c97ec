//! Who else was big, and of how much the victim's points are.

use super::{BEGAN, MS, PAGE, S, World, logged, process, seen};
use crate::{
    aggregate::oom::{LimitedCgroup, OomReading},
    decode::oom::{KillKind as Seen, MemoryReading, OomRequest},
    host::kmsg::{Constraint, LoggedTask},
    snapshot::KillScope,
    text::Text,
};

/// A row of the log's table.
fn row(pid: u32, pages: u64, oom_score_adj: i32) -> LoggedTask {
    LoggedTask {
        tid: pid,
        pid,
        comm: format!("p{pid}").as_str().into(),
        uid: Some(1),
        rss_pages: pages,
        anon_pages: pages,
        oom_score_adj,
        ..LoggedTask::default()
    }
}

#[test]
fn who_else_was_big_is_of_the_kernels_table() {
    let mut world = World::new();
    let signal = seen(Seen::SignalledByKernel, BEGAN, 70, &[]);
    world.kills(MS, vec![signal, seen(Seen::Marked, BEGAN + 1, 70, &[0, 1])]);
    let mut of_log = logged(70, BEGAN + 2);
    // Its first thread has ended.
    let mut victim = row(70, 1_000, 0);
    victim.tid = 79;
    of_log.tasks = Some(vec![
        victim,
        row(73, 600, -1000),
        row(71, 500, 0),
        row(72, 7, 0),
    ]);
    let reading = OomReading {
        logged: vec![of_log],
        // Right after the kill: one has grown, one has gone, one is another by now.
        processes: Some(vec![
            process(71, 900, 0),
            MemoryReading {
                comm: "other".into(),
                ..process(72, 7, 0)
            },
            process(80, 800, 0),
        ]),
        cgroups: Some(vec![LimitedCgroup {
            path: "/a".into(),
            limit_bytes: 2_000 * PAGE,
            ..LimitedCgroup::default()
        }]),
        ..OomReading::default()
    };
    world.read(MS, reading);
    let told = world.kills(S, Vec::new());
    let [kill] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert!(kill.is_table_of_log && !kill.is_from_log);
    let others: Vec<_> = kill
        .others
        .iter()
        .map(|other| {
            let process = &other.process;
            let cgroup = process.cgroup.as_ref().map(Text::as_str);
            let pages = process.anon_rss_bytes / PAGE;
            (process.pid, pages, other.oom_score, cgroup)
        })
        .collect();
    let expected = [
        (73, 600, 0, None),
        (71, 500, (1000 + 250) * 2 / 3, Some("/a/b")),
        (72, 7, (1000 + 3) * 2 / 3, None),
    ];
    assert_eq!(others, expected);
}

/// What was told of a kill does not change with a line that comes late.
#[test]
fn a_table_that_comes_late_is_left_out() {
    let mut world = World::new();
    let signal = seen(Seen::SignalledByKernel, BEGAN, 70, &[]);
    world.kills(MS, vec![signal, seen(Seen::Marked, BEGAN + 1, 70, &[0])]);
    assert_eq!(world.kills(S, Vec::new()).len(), 1);
    let mut late = logged(70, BEGAN);
    late.tasks = Some(vec![row(71, 500, 0)]);
    let reading = OomReading {
        logged: vec![late],
        ..OomReading::default()
    };
    assert!(world.read(MS, reading).is_empty());
    let kill = world.snapshot().kills.remove(0);
    assert_eq!((kill.is_table_of_log, kill.others), (false, Vec::new()));
}

/// The nodes that a process is bound to are smaller than the host.
#[test]
fn points_are_of_the_nodes_that_were_out_of_memory() {
    for (constraint, scope) in [(1, KillScope::Cpuset), (2, KillScope::MemoryPolicy)] {
        let mut world = World::new();
        let signal = seen(Seen::SignalledByKernel, BEGAN, 70, &[]);
        let mut mark = seen(Seen::Marked, BEGAN + 1, 70, &[0]);
        mark.request = Some(OomRequest {
            cgroup: 0,
            total_pages: 2_000,
            order: 0,
            constraint,
        });
        world.kills(MS, vec![signal, mark]);
        let told = world.kills(S, Vec::new());
        assert_eq!((told[0].scope, told[0].points), (Some(scope), Some(1_000)));
    }
    // Without the hook only the log says so, and not how large they are.
    let mut world = World::new();
    let mut of_log = logged(70, BEGAN + S);
    (of_log.constraint, of_log.oom_memcg) = (Some(Constraint::MemoryPolicy), None);
    let reading = OomReading {
        logged: vec![of_log],
        ..OomReading::default()
    };
    world.read(2 * S, reading);
    let kill = world.snapshot().kills.remove(0);
    assert_eq!(
        (kill.scope, kill.points),
        (Some(KillScope::MemoryPolicy), None)
    );
}
