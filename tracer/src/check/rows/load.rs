//! The load: averages against CPUs, where they go, and what tasks do meanwhile.

use super::groups;
use crate::{
    aggregate::causes::Cause,
    check::{
        context::{Context, sleep_until},
        finding::{Figure, Finding, Row, RowReport, Verdict, figure},
        limits::{LOAD_BLOCKED, LOAD_PER_CPU, Limits},
    },
    clock::{self, MonotonicNs},
    host::{facts, load},
    render::{quantity::compact, words},
    snapshot::{Group, LoadBreakdown, Snapshot},
    text,
};

/// Groups that are named.
const NAMED: usize = 3;
/// From here on a wait is not that of a busy disk, in ns.
const LONG_NS: u64 = 1_000_000_000;
/// How often r and b are read, in ns.
const EVERY_NS: u64 = 100_000_000;

/// The load of the host.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    /// load1, load5, load15.
    averages: [f64; 3],
    cpus: u32,
    /// Runnable and blocked tasks as vmstat counts them, means over the sample.
    r: f64,
    b: f64,
    /// They could not be read.
    has_no_queue: bool,
    /// What the kernel's events say; `None` where they could not be had, and why.
    watched: Option<LoadBreakdown>,
    /// Tasks blocked in waits that are not `brief`, a mean over the sample.
    blocked: f64,
    /// Whether one is blocked for [`LONG_NS`] now.
    is_long: bool,
    unseen: Option<String>,
}

/// Looks over the sample.
pub(super) fn look(context: &Context) -> RowReport {
    let queue = run_queue(context.until());
    let (r, b) = queue.unwrap_or_default();
    let watched = context.watched();
    let averages = load::read()
        .map(|reading| reading.fixed.map(|fixed| fixed as f64 / 2048.0))
        .unwrap_or_default();
    let snapshot = watched.as_ref().ok().map(|watched| &watched.snapshot);
    let reading = Reading {
        averages,
        cpus: facts::online_cpus(),
        r,
        b,
        has_no_queue: queue.is_none(),
        blocked: snapshot.map_or(0.0, not_brief),
        is_long: snapshot.is_some_and(|snapshot| {
            let longest = snapshot.blocked.first();
            longest.is_some_and(|task| task.age_ns >= LONG_NS)
        }),
        unseen: watched.err().map(ToOwned::to_owned),
        watched: watched.ok().map(|watched| watched.snapshot.load.clone()),
    };
    let is_blind = queue.is_none() && reading.watched.is_none();
    RowReport {
        is_blind,
        ..judge(&reading, &context.limits)
    }
}

/// Means of `procs_running` and `procs_blocked` of /proc/stat. The thread that reads runs
/// too, and is taken off. `None` where it cannot be read.
fn run_queue(until: MonotonicNs) -> Option<(f64, f64)> {
    let (mut r, mut b, mut looks) = (0.0, 0.0, 0.0_f64);
    loop {
        let text = text::read("/proc/stat").ok()?;
        let of = |name| {
            let number = text.lines().find_map(|line| line.strip_prefix(name));
            number
                .and_then(|n| n.trim().parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        r += (of("procs_running ") - 1.0).max(0.0);
        b += of("procs_blocked ");
        looks += 1.0;
        let now = clock::monotonic();
        if now >= until {
            return Some((r / looks, b / looks));
        }
        sleep_until((now + EVERY_NS).min(until));
    }
}

fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let [one, five, fifteen] = reading.averages;
    let cpus = f64::from(reading.cpus.max(1));
    let (per_cpu, sampled) = (one / cpus, sampled(reading));
    let mut summary = format!(
        "{one:.2} {five:.2} {fifteen:.2}   {per_cpu:.2} a CPU, {}   r {} b {}",
        trend(reading.averages, sampled),
        compact(reading.r),
        compact(reading.b)
    );
    if let Some(watched) = &reading.watched {
        let mean = &watched.mean;
        summary += &format!(
            "   running {:.2} waiting {:.2} throttled {:.2} blocked {:.2}",
            mean.running, mean.waiting, mean.throttled, mean.blocked
        );
    }
    let mut report = RowReport::new(Row::Load, summary, figures(reading, per_cpu));
    if reading.has_no_queue {
        let unseen = "tasks that run and that are blocked: /proc/stat cannot be read";
        report.unseen.push(unseen.into());
    }
    if let Some(why) = &reading.unseen {
        let what = "what the load is made of, and why tasks are blocked";
        report.unseen.push(format!("{what}: {why}"));
    }
    let who = |of: fn(&Group) -> f64| {
        let load = reading.watched.as_ref();
        load.map_or_else(Vec::new, |load| {
            groups::most(load, of, groups::tasks, NAMED)
        })
    };
    let verdict = limits.judge(&LOAD_PER_CPU, per_cpu);
    let in_sample = limits.judge(&LOAD_PER_CPU, sampled / cpus);
    if verdict > Verdict::Ok && in_sample == Verdict::Ok {
        report.findings.push(Finding {
            verdict: Verdict::Note,
            what: format!(
                "load1 of {one:.2} is left of the last minutes: {sampled:.2} tasks want a CPU \
                 or are blocked now"
            ),
            who: who(|group| group.mean.running + group.mean.waiting + group.mean.blocked),
            why: "a load average falls to a third in a minute; what there is now decides"
                .to_owned(),
            next: "sudo tracer run".to_owned(),
        });
    } else if verdict > Verdict::Ok {
        let made_of = reading
            .watched
            .as_ref()
            .map(|load| words::advice(load.verdict));
        let made_of = made_of.filter(|words| !words.is_empty());
        report.findings.push(Finding {
            verdict: verdict.min(in_sample),
            what: format!(
                "{} tasks want a CPU or are blocked, for {} CPUs{}",
                compact(one),
                reading.cpus,
                made_of
                    .map(|words| format!(": {words}"))
                    .unwrap_or_default()
            ),
            who: who(|group| group.mean.running + group.mean.waiting + group.mean.blocked),
            why: limits.why(&LOAD_PER_CPU),
            next: "sudo tracer run".to_owned(),
        });
    }
    let blocked = reading.blocked;
    let verdict = limits.judge(&LOAD_BLOCKED, blocked);
    if verdict > Verdict::Ok {
        // Many that wait for a disk in turns are worth knowing of, and may be its work.
        let (verdict, why) = if reading.is_long {
            (verdict, limits.why(&LOAD_BLOCKED))
        } else {
            let why = "none of them for a second: a device at work, which the row of disks judges";
            (Verdict::Note, why.to_owned())
        };
        report.findings.push(Finding {
            verdict,
            what: format!("{blocked:.2} tasks are blocked (D) at a time"),
            who: who(|group| group.mean.blocked),
            why,
            next: "sudo tracer run --by cause".to_owned(),
        });
    }
    report
}

/// Blocked in waits of `--min-block` or more: the others are a quick disk at work.
fn not_brief(snapshot: &Snapshot) -> f64 {
    let word = Cause::Brief.word();
    let brief = snapshot.causes.iter().filter(|row| row.cause == word);
    snapshot.load.mean.blocked - brief.map(|row| row.blocked).sum::<f64>()
}

/// Tasks that the load counts, a mean over the sample.
fn sampled(reading: &Reading) -> f64 {
    match &reading.watched {
        Some(load) => load.mean.running + load.mean.waiting + load.mean.blocked,
        None => reading.r + reading.b,
    }
}

/// Where it goes: load1 against what there is now, and against load15.
fn trend([one, five, fifteen]: [f64; 3], now: f64) -> &'static str {
    match () {
        () if one > 1.0 && now < one / 2.0 => "falling",
        () if one > 1.0 && one > five && five > fifteen && one > 1.5 * fifteen => "rising",
        () if fifteen > 1.0 && one < five && five < fifteen && fifteen > 1.5 * one => "falling",
        () => "steady",
    }
}

fn figures(reading: &Reading, per_cpu: f64) -> Vec<Figure> {
    let [one, five, fifteen] = reading.averages;
    let mut figures = vec![
        figure("load1", one),
        figure("load5", five),
        figure("load15", fifteen),
        figure("load1_per_cpu", per_cpu),
        figure("procs_running_mean", reading.r),
        figure("procs_blocked_mean", reading.b),
    ];
    if let Some(load) = &reading.watched {
        figures.extend([
            figure("running_tasks_mean", load.mean.running),
            figure("waiting_tasks_mean", load.mean.waiting),
            figure("throttled_tasks_mean", load.mean.throttled),
            figure("blocked_tasks_mean", load.mean.blocked),
        ]);
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::{Reading, judge, trend};
    use crate::{
        check::{finding::Verdict, limits::Limits},
        snapshot::{CauseShare, Group, LoadBreakdown, TaskMean},
    };

    #[test]
    fn trends() {
        assert_eq!(trend([8.0, 4.0, 2.0], 12.0), "rising");
        assert_eq!(trend([8.0, 4.0, 2.0], 0.1), "falling");
        assert_eq!(trend([2.0, 4.0, 8.0], 1.5), "falling");
        assert_eq!(trend([4.1, 4.0, 3.9], 4.0), "steady");
        assert_eq!(trend([0.3, 0.2, 0.1], 0.0), "steady");
    }

    #[test]
    fn what_is_left_of_the_last_minutes_is_a_note() {
        let after = |running| Reading {
            averages: [5.53, 2.1, 0.9],
            cpus: 2,
            watched: Some(LoadBreakdown {
                mean: TaskMean {
                    running,
                    ..TaskMean::default()
                },
                ..LoadBreakdown::default()
            }),
            ..Reading::default()
        };
        let report = judge(&after(0.01), &Limits::default());
        assert_eq!(report.verdict(), Verdict::Note);
        assert!(report.summary.contains("falling"), "{}", report.summary);
        assert!(report.findings[0].what.contains("0.01 tasks"));
        let report = judge(&after(5.4), &Limits::default());
        assert_eq!(report.verdict(), Verdict::Warning);
        // Far more than now: as bad as it is now.
        let reading = Reading {
            averages: [40.0, 20.0, 9.0],
            ..after(5.4)
        };
        assert_eq!(
            judge(&reading, &Limits::default()).verdict(),
            Verdict::Warning
        );
    }

    #[test]
    fn who_is_blocked_is_named_with_what_it_is_blocked_by() {
        let mean = TaskMean {
            blocked: 10.9,
            ..TaskMean::default()
        };
        let group = Group {
            pid: Some(2211),
            comm: Some("mysqld".into()),
            mean,
            causes: vec![CauseShare {
                cause: "disk",
                detail: Some("nvme1n1 ext4 write".into()),
                blocked: 9.7,
            }],
            ..Group::default()
        };
        let reading = Reading {
            averages: [18.4, 12.1, 6.3],
            cpus: 4,
            blocked: 10.9,
            is_long: true,
            watched: Some(LoadBreakdown {
                mean,
                groups: vec![group],
                ..LoadBreakdown::default()
            }),
            ..Reading::default()
        };
        let report = judge(&reading, &Limits::default());
        assert_eq!(report.verdict(), Verdict::Warning);
        assert_eq!(report.findings.len(), 2);
        for finding in &report.findings {
            assert_eq!(
                finding.who,
                ["mysqld[2211] blocked 10.90 on disk nvme1n1 ext4 write"]
            );
        }
        assert!(report.summary.contains("4.60 a CPU, rising"));
        let of_a_busy_disk = Reading {
            averages: [4.0; 3],
            is_long: false,
            ..reading
        };
        let report = judge(&of_a_busy_disk, &Limits::default());
        assert_eq!(report.verdict(), Verdict::Note);
    }

    #[test]
    fn what_is_not_known_is_said() {
        let reading = Reading {
            cpus: 1,
            unseen: Some("not enough rights".into()),
            ..Reading::default()
        };
        let report = judge(&reading, &Limits::default());
        assert_eq!(report.verdict(), Verdict::Ok);
        assert!(report.unseen[0].ends_with("not enough rights"));
    }
}
