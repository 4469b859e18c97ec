//! Tests of the judge of CPUs.

use super::{CpuLimit, Interrupt, Reading, Shares, Thread, Throttled, Top, judge};
use crate::check::{finding::Verdict, limits::Limits};

fn cpu(busy: f64) -> Shares {
    Shares {
        user: busy,
        idle: 1.0 - busy,
        ..Shares::default()
    }
}

fn of(each: &[f64]) -> Reading {
    Reading {
        all: cpu(each.iter().sum::<f64>() / each.len() as f64),
        each: (0..).zip(each.iter().map(|busy| cpu(*busy))).collect(),
        seconds: 5.0,
        ..Reading::default()
    }
}

fn hog(allowed: (u32, u32)) -> Top {
    Top {
        pid: 7,
        comm: "gzip".into(),
        used: 0.98,
        threads: vec![Thread {
            tid: 12,
            comm: "worker".into(),
            used: 1.0,
            cpu: 0,
            allowed: vec![allowed],
        }],
    }
}

#[test]
fn idle_cpus_are_well() {
    let report = judge(&of(&[0.02, 0.1]), &Limits::default());
    assert!(report.findings.is_empty() && report.unseen.is_empty());
    let names = ["cpu_user_ratio", "cpu_busy_ratio"];
    for name in names {
        let count = report.figures.iter().filter(|f| f.name == name).count();
        assert_eq!(count, 3);
    }
}

#[test]
fn busy_cpus_name_who_keeps_them_busy() {
    let busy = Reading {
        who: Err("not enough rights".into()),
        top: vec![hog((0, 1))],
        ..of(&[1.0, 1.0])
    };
    let report = judge(&busy, &Limits::default());
    assert_eq!(report.verdict(), Verdict::Critical);
    assert_eq!(report.findings[0].who, ["gzip[7] 0.98 of a CPU"]);
}

#[test]
fn what_tracer_itself_uses_is_no_finding() {
    let own = Reading {
        own: 0.65,
        ..of(&[0.97, 0.02])
    };
    assert!(judge(&own, &Limits::default()).findings.is_empty());
    let alone = Reading {
        own: 0.9,
        ..of(&[0.99])
    };
    let report = judge(&alone, &Limits::default());
    assert!(report.findings.is_empty());
    assert_eq!(report.unseen.len(), 1);
}

#[test]
fn one_busy_cpu_is_put_on_what_keeps_it_busy() {
    let pinned = Reading {
        top: vec![hog((0, 0))],
        ..of(&[1.0, 0.02])
    };
    let report = judge(&pinned, &Limits::default());
    assert_eq!(report.verdict(), Verdict::Warning);
    let finding = &report.findings[0];
    assert!(
        finding
            .what
            .starts_with("cpu0 is 100 % busy while cpu1 is 2 %")
    );
    assert_eq!(
        finding.who,
        ["gzip[7] 0.98 of a CPU, one busy thread: worker[12], may run only on CPU 0"]
    );
    assert_eq!(finding.next, "taskset -acp 7");
    let free = Reading {
        top: vec![hog((0, 1))],
        ..pinned
    };
    let report = judge(&free, &Limits::default());
    assert_eq!(
        report.findings[0].who,
        ["gzip[7] 0.98 of a CPU, one busy thread: worker[12]"]
    );
}

#[test]
fn interrupts_that_come_to_one_cpu_are_named() {
    let mut reading = of(&[1.0, 0.02]);
    reading.each[0].1 = Shares {
        softirq: 0.8,
        user: 0.2,
        ..Shares::default()
    };
    reading.interrupts = vec![
        Interrupt {
            name: "interrupt 28 eth0-rx".into(),
            counts: vec![(0, 60_000), (1, 6)],
        },
        Interrupt {
            name: "softirq TIMER".into(),
            counts: vec![(0, 90_000), (1, 90_000)],
        },
    ];
    let report = judge(&reading, &Limits::default());
    assert_eq!(
        report.findings[0].who,
        ["interrupt 28 eth0-rx 12,000/s, 100 % of them here"]
    );
}

#[test]
fn stolen_time() {
    let mut reading = of(&[0.3]);
    reading.all.steal = 0.25;
    let report = judge(&reading, &Limits::default());
    assert_eq!(report.verdict(), Verdict::Critical);
    assert_eq!(report.findings[0].what, "25 % of the time was stolen");
}

#[test]
fn a_throttled_cgroup_is_named_and_one_burst_is_not() {
    let cgroup = |throttled| Reading {
        cgroups: vec![Throttled {
            path: "/web".into(),
            limit: Some(CpuLimit {
                file: "cpu.max",
                quota_us: 50_000.0,
                period_us: 100_000.0,
            }),
            periods: 50,
            periods_in_all: 50,
            throttled,
            throttled_ns: 3_200_000_000,
            pids: vec![7],
        }],
        top: vec![hog((0, 1))],
        ..of(&[0.2, 0.2])
    };
    let report = judge(&cgroup(30), &Limits::default());
    assert_eq!(report.verdict(), Verdict::Critical);
    assert_eq!(
        report.findings[0].what,
        "cgroup /web was at its CPU limit of 0.50 CPUs (cpu.max: 50000 us of 100000) in 30 of 50 \
         periods, held for 3.2 s over all CPUs"
    );
    assert_eq!(report.findings[0].who, ["gzip[7] 0.98 of a CPU"]);
    let mut burst = cgroup(2);
    burst.cgroups[0].periods = 2;
    assert!(judge(&burst, &Limits::default()).findings.is_empty());
    let mut mostly_idle = cgroup(3);
    mostly_idle.cgroups[0].periods = 6;
    assert!(judge(&mostly_idle, &Limits::default()).findings.is_empty());
}
