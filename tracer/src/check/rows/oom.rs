//! Kills for memory: since boot, the latest with who and why, and who is next.

use crate::{
    check::{
        context::Context,
        finding::{Figure, Finding, Row, RowReport, Verdict, figure},
        limits::{Limits, OOM_RECENT},
    },
    clock::{self, WallNs},
    host::memory,
    render::quantity::{age, bytes, counted},
    snapshot::{Kill, KillKind, KillScope, OomBreakdown},
};

/// Kills that are named.
const NAMED: usize = 5;

/// Kills of the host.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    /// `oom_kill` of /proc/vmstat; `None` where the kernel does not count.
    since_boot: Option<u64>,
    now: WallNs,
    /// What hooks and log say; `None` where they could not be had, and why.
    watched: Option<OomBreakdown>,
    unseen: Option<String>,
}

/// Looks at the end of the sample.
pub(super) fn look(context: &Context) -> RowReport {
    let watched = context.watched();
    let host = memory::host().ok();
    let reading = Reading {
        since_boot: host.and_then(|host| host.oom_kills),
        now: clock::wall(),
        unseen: watched.err().map(ToOwned::to_owned),
        watched: watched.ok().map(|watched| watched.snapshot.oom.clone()),
    };
    judge(&reading, &context.limits)
}

fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let kills = reading.watched.iter().flat_map(|oom| &oom.recent);
    let (by_kernel, others): (Vec<&Kill>, Vec<&Kill>) = kills
        .filter(|kill| kill.kind != KillKind::Exiting)
        .partition(|kill| kill.kind == KillKind::Oom);
    let since_boot = reading.since_boot.unwrap_or(by_kernel.len() as u64);
    let mut summary = match since_boot {
        0 => "no kill for memory since boot".to_owned(),
        n => format!("{} for memory since boot", counted(n, "kill")),
    };
    let next = reading.watched.as_ref().and_then(|oom| oom.next.first());
    if let Some(next) = next {
        let process = &next.process;
        summary += &format!(
            "   next would be {}[{}], score {}",
            process.comm, process.pid, next.oom_score
        );
    }
    let mut report = RowReport::new(Row::Oom, summary, figures(reading, &by_kernel));
    if let Some(why) = &reading.unseen {
        report
            .unseen
            .push(format!("who was killed, and who is next: {why}"));
    }
    if let Some(newest) = by_kernel.first() {
        let ago_s = ago_ns(newest, reading.now) as f64 / 1e9;
        let unnamed = since_boot.saturating_sub(by_kernel.len() as u64);
        let mut who: Vec<String> = by_kernel
            .iter()
            .take(NAMED)
            .map(|kill| line(kill, reading.now))
            .collect();
        if by_kernel.len() > NAMED || unnamed > 0 {
            let more = (by_kernel.len().saturating_sub(NAMED)) as u64 + unnamed;
            who.push(format!("{more} more"));
        }
        report.findings.push(Finding {
            // One that is older is still worth knowing.
            verdict: limits.judge(&OOM_RECENT, ago_s).max(Verdict::Note),
            what: format!(
                "the last kill for memory was {} ago",
                age(ago_ns(newest, reading.now))
            ),
            who,
            why: limits.why(&OOM_RECENT),
            next: "sudo tracer oom --next".to_owned(),
        });
    } else if since_boot > 0 && reading.watched.is_some() {
        report.findings.push(Finding {
            verdict: Verdict::Note,
            what: format!(
                "{} for memory since boot, and no word of them in the kernel's log",
                counted(since_boot, "kill")
            ),
            why: "the log has been overwritten, or cleared".to_owned(),
            next: "journalctl -k -g 'Out of memory'".to_owned(),
            ..Finding::default()
        });
    }
    let killers = ["systemd-oomd", "earlyoom", "oomd", "nohang"];
    let killers = others.into_iter().filter(|kill| {
        let by = kill.trigger.as_ref().map(|trigger| trigger.comm.as_str());
        by.is_some_and(|by| {
            killers
                .iter()
                .any(|name| name.starts_with(by) && !by.is_empty())
        })
    });
    let who: Vec<String> = killers.map(|kill| line(kill, reading.now)).collect();
    if !who.is_empty() {
        report.findings.push(Finding {
            verdict: Verdict::Warning,
            what: "a process kills for memory, before the kernel does".to_owned(),
            who,
            why: "memory or swap was short, or the pressure on it high".to_owned(),
            next: "sudo tracer oom".to_owned(),
        });
    }
    report
}

fn ago_ns(kill: &Kill, now: WallNs) -> u64 {
    now.0.saturating_sub(kill.time.0)
}

/// A kill: when, whom, where, for whom.
fn line(kill: &Kill, now: WallNs) -> String {
    let victim = &kill.victim;
    let mut line = format!(
        "{} ago: {}[{}], {}",
        age(ago_ns(kill, now)),
        victim.comm,
        victim.pid,
        bytes(victim.rss_bytes())
    );
    match (kill.scope, &kill.memcg) {
        (_, Some(memcg)) => line += &format!(", cgroup {memcg} at its limit"),
        (Some(KillScope::Host), _) => line += ", the host was out of memory",
        (Some(KillScope::Sysrq), _) => line += ", asked for by SysRq",
        _ => {}
    }
    let trigger = kill
        .trigger
        .as_ref()
        .filter(|trigger| trigger.pid != victim.pid);
    if let Some(trigger) = trigger {
        let word = match kill.kind {
            KillKind::Signal => "killed by",
            KillKind::Oom | KillKind::Exiting => "wanted by",
        };
        line += &format!(", {word} {}[{}]", trigger.comm, trigger.pid);
    }
    line
}

fn figures(reading: &Reading, kills: &[&Kill]) -> Vec<Figure> {
    let mut figures = Vec::new();
    figures.extend(reading.since_boot.map(|n| figure("oom_kills", n as f64)));
    let newest = kills.first();
    let ago = newest.map(|kill| ago_ns(kill, reading.now) as f64 / 1e9);
    figures.extend(ago.map(|ago| figure("oom_kill_age_s", ago)));
    figures
}

#[cfg(test)]
mod tests {
    use super::{Reading, judge};
    use crate::{
        check::{finding::Verdict, limits::Limits},
        clock::WallNs,
        snapshot::{Kill, KillKind, KillScope, Named, OomBreakdown, ProcessMemory},
    };

    const S: u64 = 1_000_000_000;

    fn kill(at_s: u64, kind: KillKind, by: &str) -> Kill {
        Kill {
            time: WallNs(at_s * S),
            kind,
            victim: ProcessMemory {
                pid: 991,
                comm: "api".into(),
                anon_rss_bytes: 64 << 20,
                ..ProcessMemory::default()
            },
            trigger: Some(Named {
                pid: 7,
                comm: by.into(),
            }),
            scope: (kind == KillKind::Oom).then_some(KillScope::Memcg),
            memcg: (kind == KillKind::Oom).then(|| "/api.slice".into()),
            ..Kill::default()
        }
    }

    fn reading(since_boot: u64, recent: Vec<Kill>) -> Reading {
        Reading {
            since_boot: Some(since_boot),
            now: WallNs(200_000 * S),
            watched: Some(OomBreakdown {
                recent,
                ..OomBreakdown::default()
            }),
            unseen: None,
        }
    }

    #[test]
    fn a_kill_counts_by_its_age() {
        for (at_s, verdict) in [
            (199_900, Verdict::Critical),
            (190_000, Verdict::Warning),
            (1_000, Verdict::Note),
        ] {
            let reading = reading(3, vec![kill(at_s, KillKind::Oom, "worker")]);
            let report = judge(&reading, &Limits::default());
            assert_eq!(report.verdict(), verdict);
            assert!(report.findings[0].who[0].ends_with(
                "api[991], 64.0 MiB, cgroup /api.slice at its limit, wanted by worker[7]"
            ));
            assert_eq!(report.findings[0].who[1], "2 more");
        }
        assert_eq!(
            judge(&reading(0, Vec::new()), &Limits::default()).verdict(),
            Verdict::Ok
        );
        assert_eq!(
            judge(&reading(2, Vec::new()), &Limits::default()).verdict(),
            Verdict::Note
        );
    }

    #[test]
    fn who_kills_for_memory_is_told_from_who_kills_for_other_reasons() {
        for (by, verdict) in [("earlyoom", Verdict::Warning), ("bash", Verdict::Ok)] {
            let reading = reading(0, vec![kill(199_900, KillKind::Signal, by)]);
            assert_eq!(judge(&reading, &Limits::default()).verdict(), verdict);
        }
    }
}
