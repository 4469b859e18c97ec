//! Kills for memory, judged.

use super::{Reading, judge};
use crate::{
    check::{finding::Verdict, limits::Limits},
    clock::WallNs,
    snapshot::{Candidate, CgroupMemory, Kill, KillKind, KillScope, Named, ProcessMemory},
};

const S: u64 = 1_000_000_000;
const MIB: u64 = 1 << 20;
/// The moment of the look.
const NOW_S: u64 = 1_000_000;

fn kill(pid: u32, ago_s: u64) -> Kill {
    Kill {
        time: WallNs((NOW_S - ago_s) * S),
        victim: ProcessMemory {
            pid,
            comm: "api".into(),
            cgroup: Some("/api.slice".into()),
            anon_rss_bytes: 63 * MIB,
            ..ProcessMemory::default()
        },
        trigger: Some(Named {
            pid: 1831,
            comm: "worker".into(),
        }),
        scope: Some(KillScope::Memcg),
        memcg: Some("/api.slice".into()),
        ..Kill::default()
    }
}

fn reading(since_boot: u64, kills: Vec<Kill>) -> Reading {
    Reading {
        now: WallNs(NOW_S * S),
        since_boot: Some(since_boot),
        kills,
        ..Reading::default()
    }
}

#[test]
fn without_a_kill_there_is_who_would_be_next() {
    let next = Candidate {
        process: ProcessMemory {
            pid: 771,
            comm: "java".into(),
            ..ProcessMemory::default()
        },
        oom_score: 812,
    };
    let cgroup = |path: &str, used_ratio| CgroupMemory {
        path: path.into(),
        used_ratio,
        next: Some(next.clone()),
        ..CgroupMemory::default()
    };
    let calm = Reading {
        next: Some(next.clone()),
        cgroups: vec![cgroup("/full", 0.95), cgroup("/half", 0.5)],
        ..reading(0, Vec::new())
    };
    let report = judge(&calm, &Limits::default());
    assert_eq!(report.verdict(), Verdict::Ok);
    assert_eq!(
        report.summary,
        "no kill since boot   next would be java[771], score 812   \
         next in /full: java[771], score 812"
    );
}

#[test]
fn the_newer_the_worse() {
    for (ago_s, verdict) in [
        (60, Verdict::Critical),
        (600, Verdict::Critical),
        (700, Verdict::Warning),
        (3_600, Verdict::Warning),
        (90_000, Verdict::Note),
    ] {
        let report = judge(&reading(1, vec![kill(991, ago_s)]), &Limits::default());
        assert_eq!(report.verdict(), verdict, "{ago_s} s ago");
    }
    // The kernel counts one, and nobody knows when.
    let report = judge(&reading(1, Vec::new()), &Limits::default());
    assert_eq!(report.verdict(), Verdict::Note);
}

#[test]
fn the_newest_are_named_and_the_others_counted() {
    let kills = (1..=7).map(|at| kill(990 + at, 720 * u64::from(at)));
    let report = judge(&reading(9, kills.rev().collect()), &Limits::default());
    let [finding] = report.findings.as_slice() else {
        panic!("one finding: {report:?}");
    };
    assert_eq!(
        finding.what,
        "the kernel killed 9 processes for memory since boot, the last one 12 m ago"
    );
    assert_eq!(
        finding.who[0],
        "12 m ago: api[991], 63.0 MiB, in /api.slice at its limit, wanted by worker[1831]"
    );
    assert_eq!(finding.who.len(), 7);
    assert_eq!(finding.who[5], "2 before those");
    assert_eq!(
        finding.who[6],
        "2 are not named: the kernel's log has no record of them"
    );
}

#[test]
fn those_of_a_cgroup_that_is_killed_whole_are_counted() {
    let whole = Kill {
        group: vec![Named::default(), Named::default()],
        ..kill(991, 60)
    };
    let report = judge(&reading(3, vec![whole]), &Limits::default());
    let who = &report.findings[0].who;
    assert_eq!(who.len(), 1, "{who:?}");
    assert!(who[0].ends_with(", with 2 others of its cgroup"));
}

#[test]
fn a_sigkill_is_no_kill_of_the_kernels() {
    let by = |comm: &str| Kill {
        kind: KillKind::Signal,
        trigger: Some(Named {
            pid: 5,
            comm: comm.into(),
        }),
        scope: None,
        memcg: None,
        ..kill(991, 2)
    };
    let report = judge(&reading(0, vec![by("bash")]), &Limits::default());
    assert_eq!(report.verdict(), Verdict::Ok);
    let report = judge(&reading(0, vec![by("earlyoom")]), &Limits::default());
    assert_eq!(report.verdict(), Verdict::Note);
    assert_eq!(
        report.findings[0].who,
        ["2 s ago: api[991], 63.0 MiB, in /api.slice by earlyoom[5]"]
    );
}

#[test]
fn without_root_there_is_the_count_alone() {
    let blind = Reading {
        unseen: vec!["who was killed: needs root".into()],
        ..reading(0, Vec::new())
    };
    let report = judge(&blind, &Limits::default());
    assert_eq!(report.verdict(), Verdict::Ok);
    assert_eq!(report.summary, "no kill since boot");
    assert_eq!(report.unseen, blind.unseen);
    let killed = Reading {
        since_boot: Some(2),
        ..blind
    };
    let report = judge(&killed, &Limits::default());
    assert_eq!(report.verdict(), Verdict::Note);
    assert!(report.findings[0].who.is_empty());
}
