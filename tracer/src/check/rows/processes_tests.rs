//! Tests of the judge of processes.

use super::{Blocked, FullCgroup, Reading, Sleeper, Zombie, judge};
use crate::{
    check::{finding::Verdict, limits::Limits},
    snapshot::{BlockedTask, Link, Role},
};

fn calm() -> Reading {
    Reading {
        processes: 120,
        threads: 400,
        pid_max: Some(32_768),
        threads_max: Some(60_000),
        ..Reading::default()
    }
}

fn children(parent: u32, count: u32) -> impl Iterator<Item = Zombie> {
    (0..count).map(move |i| Zombie {
        pid: parent + 1 + i,
        comm: "child".into(),
        parent,
        parent_comm: "parent".into(),
    })
}

#[test]
fn zombies_are_put_on_their_parents() {
    let zombies = Reading {
        zombies: 23,
        left: children(500, 3).chain(children(100, 20)).collect(),
        ..calm()
    };
    let report = judge(&zombies, &Limits::default());
    assert_eq!(report.verdict(), Verdict::Warning);
    assert_eq!(
        report.findings[0].who,
        [
            "parent[100] has 20 zombies, e.g. child[101]",
            "parent[500] has 3 zombies, e.g. child[501]"
        ]
    );
}

#[test]
fn zombies_that_come_and_go_are_none() {
    // Every child is one for a moment: only those that stay count.
    let busy = Reading {
        zombies: 40,
        left: children(100, 2).collect(),
        ..calm()
    };
    assert!(judge(&busy, &Limits::default()).findings.is_empty());
}

#[test]
fn a_task_that_is_blocked_long_is_named_with_whom_it_waits_for() {
    let task = |age_s: u64| BlockedTask {
        pid: 71,
        tid: 72,
        comm: "cp".into(),
        age_ns: age_s * 1_000_000_000,
        cause: "vfork",
        waits_for: vec![Link {
            pid: 80,
            tid: 80,
            comm: "sh".into(),
            role: Role::Child,
            sleeps_in: Some("do_nanosleep".into()),
            ..Link::default()
        }],
        ..BlockedTask::default()
    };
    let of = |tasks: Vec<BlockedTask>| Reading {
        blocked: Blocked::Watched {
            total: tasks.len() as u64,
            tasks,
        },
        ..calm()
    };
    assert!(
        judge(&of(vec![task(9)]), &Limits::default())
            .findings
            .is_empty()
    );
    let report = judge(&of(vec![task(252), task(9)]), &Limits::default());
    assert_eq!(report.verdict(), Verdict::Critical);
    let finding = &report.findings[0];
    assert_eq!(
        finding.what,
        "1 task is blocked for long, the longest for 4 m 12 s"
    );
    assert_eq!(
        finding.who,
        [
            "cp[71] thread 72 for 4 m 12 s: vfork, waits for its child sh[80], \
             which sleeps in do_nanosleep"
        ]
    );
    assert!(report.unseen.is_empty());
}

#[test]
fn without_the_events_a_blocked_process_is_a_note_and_the_rest_is_unseen() {
    let seen = Reading {
        blocked: Blocked::Seen {
            total: 1,
            still: vec![Sleeper {
                pid: 9,
                comm: "tar".into(),
                sleeps_in: Some("folio_wait_bit".into()),
            }],
            why: "needs CAP_BPF".into(),
        },
        ..calm()
    };
    let report = judge(&seen, &Limits::default());
    assert_eq!(report.verdict(), Verdict::Note);
    assert_eq!(report.findings[0].who, ["tar[9] in folio_wait_bit"]);
    assert!(report.unseen[0].ends_with("needs CAP_BPF"));
}

#[test]
fn the_smaller_limit_of_the_table_counts() {
    let full = Reading {
        threads: 31_200,
        largest: vec![("java".into(), 30_000, 2), ("sh".into(), 900, 1)],
        ..calm()
    };
    let report = judge(&full, &Limits::default());
    assert_eq!(report.verdict(), Verdict::Critical);
    assert_eq!(
        report.findings[0].who,
        [
            "java: 30,000 threads in 2 processes",
            "sh: 900 threads in 1 process"
        ]
    );
    let unknown = Reading {
        pid_max: None,
        threads_max: None,
        ..full
    };
    assert_eq!(judge(&unknown, &Limits::default()).verdict(), Verdict::Ok);
}

#[test]
fn a_cgroup_at_its_limit_of_tasks_is_found() {
    let cgroup = FullCgroup {
        path: "/shop.slice".into(),
        tasks: 64,
        most: 64,
        refused: 12,
        names: vec![("worker".into(), 60, 7), ("sh".into(), 1, 6)],
    };
    let reading = Reading {
        cgroups: vec![
            cgroup.clone(),
            FullCgroup {
                tasks: 40,
                ..cgroup
            },
        ],
        ..Reading::default()
    };
    let report = judge(&reading, &Limits::default());
    let [finding] = &report.findings[..] else {
        panic!("{report:?}");
    };
    assert_eq!(finding.verdict, Verdict::Critical);
    assert_eq!(
        finding.what,
        "cgroup /shop.slice has 64 tasks of the 64 it may (pids.max); 12 forks were refused"
    );
    assert_eq!(
        finding.who,
        ["worker: 60 processes, one of them 7", "sh[6]"]
    );
}
