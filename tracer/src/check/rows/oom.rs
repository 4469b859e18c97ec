//! Kills for memory since boot: how many, who, and who would be next.

use std::cmp::Reverse;

use crate::{
    check::{
        context::Context,
        finding::{Figure, Finding, Row, RowReport, Verdict, figure, figure_of},
        limits::{CGROUP_MEMORY, Limits, OOM_RECENT},
    },
    clock::{self, WallNs},
    host::{kmsg::KernelLog, memory},
    render::quantity::{age, bytes, counted, grouped},
    snapshot::{Candidate, CgroupMemory, Kill, KillKind, KillScope},
};

/// Kills that are named, the newest.
const NAMED: usize = 5;
/// Cgroups near their limit whose next victim is named.
const CGROUPS: usize = 3;
/// Programs that kill for memory before the kernel does, as far as a task's name goes.
const KILLERS: [&str; 5] = [
    "systemd-oomd",
    "earlyoom",
    "nohang",
    "oomd",
    "low-memory-moni",
];

/// What is known of kills.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Reading {
    /// Now, of the clock that kills have.
    pub(in crate::check) now: WallNs,
    /// Processes that the kernel killed for memory since boot (`oom_kill` of
    /// /proc/vmstat); `None` where it does not count them.
    pub(in crate::check) since_boot: Option<u64>,
    /// Those of which something is known, and SIGKILLs of the sample.
    pub(in crate::check) kills: Vec<Kill>,
    /// Whom the kernel would kill when the host runs out of memory.
    pub(in crate::check) next: Option<Candidate>,
    /// Cgroups with a limit.
    pub(in crate::check) cgroups: Vec<CgroupMemory>,
    /// What could not be seen, and why.
    pub(in crate::check) unseen: Vec<String>,
}

/// Looks at the end of the sample.
pub(super) fn look(context: &Context) -> RowReport {
    let mut reading = Reading::default();
    match context.watched() {
        Ok(watched) => {
            let oom = &watched.snapshot.oom;
            reading.kills.clone_from(&oom.kills);
            // The last ones may not have been told yet.
            for kill in &oom.recent {
                if !reading.kills.iter().any(|known| is_same(known, kill)) {
                    reading.kills.push(kill.clone());
                }
            }
            // tracer ends with this look: whoever is next then.
            let own = std::process::id();
            reading.next = oom
                .next
                .iter()
                .find(|next| next.process.pid != own)
                .cloned();
            reading.cgroups.clone_from(&oom.cgroups);
            if let Err(error) = KernelLog::open() {
                reading.unseen.push(format!(
                    "who was killed before: the kernel's log: {error}; needs CAP_SYSLOG"
                ));
            }
        }
        Err(error) => reading
            .unseen
            .push(format!("who was killed, and who is next: {error}")),
    }
    // After the kills: one that comes in between is then counted and not named, while the
    // other way around it would be named and not counted.
    match memory::host() {
        Ok(host) => reading.since_boot = host.oom_kills,
        Err(error) => reading.unseen.push(error.to_string()),
    }
    if reading.since_boot.is_none() && reading.unseen.is_empty() {
        let unseen = "how many since boot: /proc/vmstat has no oom_kill here";
        reading.unseen.push(unseen.to_owned());
    }
    reading.now = clock::wall();
    let report = judge(&reading, &context.limits);
    if reading.since_boot.is_none() && context.watched().is_err() {
        return report.blinded("whether anything was killed at all");
    }
    report
}

fn is_same(a: &Kill, b: &Kill) -> bool {
    (a.time, a.kind, a.victim.pid) == (b.time, b.kind, b.victim.pid)
}

/// Processes that died by a kill of the kernel's; those that share the victim's memory are
/// not counted by it.
fn deaths(kill: &Kill) -> u64 {
    1 + kill.group.len() as u64
}

/// From a reading to a report.
pub(in crate::check) fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let mut known: Vec<&Kill> = reading
        .kills
        .iter()
        .filter(|kill| kill.kind == KillKind::Oom)
        .collect();
    known.sort_by_key(|kill| Reverse(kill.time));
    let named: u64 = known.iter().map(|kill| deaths(kill)).sum();
    // Where the kernel does not count, those that are known are all there is.
    let total = reading.since_boot.unwrap_or(named).max(named);
    let last_s = known
        .first()
        .map(|kill| reading.now.0.saturating_sub(kill.time.0) as f64 / 1e9);
    let mut report = RowReport::new(
        Row::Oom,
        summary(reading, total, last_s, limits),
        figures(reading, total, last_s),
    );
    report.unseen.clone_from(&reading.unseen);
    report
        .findings
        .extend(kills(reading, &known, total, last_s, limits));
    report.findings.extend(killers(reading));
    report
}

fn kills(
    reading: &Reading,
    known: &[&Kill],
    total: u64,
    last_s: Option<f64>,
    limits: &Limits,
) -> Option<Finding> {
    if total == 0 {
        return None;
    }
    let when = match last_s {
        Some(seconds) => format!(", the last one {} ago", age((seconds * 1e9) as u64)),
        None => ", of which nobody knows when".to_owned(),
    };
    let mut who: Vec<String> = known
        .iter()
        .take(NAMED)
        .map(|kill| told(kill, reading.now))
        .collect();
    let shown: u64 = known.iter().take(NAMED).map(|kill| deaths(kill)).sum();
    let named: u64 = known.iter().map(|kill| deaths(kill)).sum();
    if named > shown {
        who.push(format!("{} before those", grouped(named - shown)));
    }
    // Where nobody could look, that is said already.
    if total > named && reading.unseen.is_empty() {
        // The log is a ring, and its lines are ratelimited.
        let (verb, it) = match total - named {
            1 => ("is", "it"),
            _ => ("are", "them"),
        };
        who.push(format!(
            "{} {verb} not named: the kernel's log has no record of {it}",
            grouped(total - named)
        ));
    }
    let verdict = last_s.map_or(Verdict::Ok, |age_s| limits.judge(&OOM_RECENT, age_s));
    Some(Finding {
        // An old one, or one of which nobody knows when, is still worth knowing.
        verdict: verdict.max(Verdict::Note),
        what: format!(
            "the kernel killed {} for memory since boot{when}",
            match total {
                1 => "1 process".to_owned(),
                total => format!("{} processes", grouped(total)),
            }
        ),
        who,
        why: limits.why(&OOM_RECENT),
        next: "sudo tracer oom".to_owned(),
    })
}

/// A kill in a line: when, who, how large, where, and who wanted memory.
fn told(kill: &Kill, now: WallNs) -> String {
    let victim = &kill.victim;
    let mut line = format!(
        "{} ago: {}[{}], {}",
        age(now.0.saturating_sub(kill.time.0)),
        victim.comm,
        victim.pid,
        bytes(victim.rss_bytes())
    );
    let limit = kill
        .limit_bytes
        .map_or_else(String::new, |limit| format!(" of {}", bytes(limit)));
    line += &match (kill.scope, &kill.memcg, &victim.cgroup) {
        (Some(KillScope::Memcg), Some(memcg), Some(its)) if memcg != its => {
            format!(", in {its}, {memcg} at its limit{limit}")
        }
        (Some(KillScope::Memcg), Some(memcg), _) => format!(", in {memcg} at its limit{limit}"),
        (Some(KillScope::Memcg), None, Some(its)) => format!(", in {its}, a cgroup at its limit"),
        (scope, _, its) => {
            let its = its
                .as_ref()
                .map_or_else(String::new, |its| format!(", in {its}"));
            let scope = match scope {
                Some(KillScope::Host) => ", the host out of memory",
                Some(KillScope::Cpuset) => ", a cpuset out of memory",
                Some(KillScope::MemoryPolicy) => ", a memory policy's nodes out of memory",
                Some(KillScope::Sysrq) => ", by SysRq",
                Some(KillScope::Memcg) | None => "",
            };
            its + scope
        }
    };
    if let Some(trigger) = &kill.trigger
        && trigger.pid != victim.pid
    {
        line += &match trigger.pid {
            0 => format!(", wanted by {}", trigger.comm),
            pid => format!(", wanted by {}[{pid}]", trigger.comm),
        };
    }
    match kill.group.len() as u64 {
        0 => line,
        others => format!("{line}, with {} others of its cgroup", grouped(others)),
    }
}

/// SIGKILLs of programs that watch memory, which the kernel does not count.
fn killers(reading: &Reading) -> Option<Finding> {
    let by = |kill: &&Kill| {
        let comm = kill.trigger.as_ref().map(|trigger| trigger.comm.as_str());
        kill.kind == KillKind::Signal && comm.is_some_and(|comm| KILLERS.contains(&comm))
    };
    let mut kills: Vec<&Kill> = reading.kills.iter().filter(by).collect();
    kills.sort_by_key(|kill| Reverse(kill.time));
    let who = kills.iter().take(NAMED).map(|kill| {
        let killer = kill
            .trigger
            .as_ref()
            .map_or_else(String::new, |by| format!(" by {}[{}]", by.comm, by.pid));
        format!("{}{killer}", told(&without_trigger(kill), reading.now))
    });
    (!kills.is_empty()).then(|| Finding {
        verdict: Verdict::Note,
        what: format!(
            "{} of a program that watches memory",
            counted(kills.len() as u64, "SIGKILL")
        ),
        who: who.collect(),
        why: "it kills before the kernel does, and the kernel does not count it".to_owned(),
        next: "sudo tracer oom".to_owned(),
    })
}

fn without_trigger(kill: &Kill) -> Kill {
    Kill {
        trigger: None,
        ..kill.clone()
    }
}

fn candidate(next: &Candidate) -> String {
    let process = &next.process;
    format!(
        "{}[{}], score {}",
        process.comm, process.pid, next.oom_score
    )
}

fn near<'a>(
    reading: &'a Reading,
    limits: &'a Limits,
) -> impl Iterator<Item = (&'a CgroupMemory, &'a Candidate)> {
    let near =
        move |cgroup: &&CgroupMemory| limits.judge(&CGROUP_MEMORY, cgroup.used_ratio) > Verdict::Ok;
    let near = reading.cgroups.iter().filter(near);
    near.filter_map(|cgroup| Some((cgroup, cgroup.next.as_ref()?)))
}

fn summary(reading: &Reading, total: u64, last_s: Option<f64>, limits: &Limits) -> String {
    let mut summary = match (total, reading.since_boot) {
        (0, None) => "nobody counts kills".to_owned(),
        (0, Some(_)) => "no kill since boot".to_owned(),
        (total, _) => format!("{} since boot", counted(total, "kill")),
    };
    if let Some(seconds) = last_s {
        summary += &format!(", the last one {} ago", age((seconds * 1e9) as u64));
    }
    if let Some(next) = &reading.next {
        summary += &format!("   next would be {}", candidate(next));
    }
    for (cgroup, next) in near(reading, limits).take(CGROUPS) {
        summary += &format!("   next in {}: {}", cgroup.path, candidate(next));
    }
    summary
}

fn figures(reading: &Reading, total: u64, last_s: Option<f64>) -> Vec<Figure> {
    let mut figures = Vec::new();
    if reading.since_boot.is_some() || total > 0 {
        figures.push(figure("oom_kills", total as f64));
    }
    figures.extend(last_s.map(|seconds| figure(OOM_RECENT.name, seconds)));
    let score = |next: &Candidate| f64::from(next.oom_score);
    figures.extend(
        reading
            .next
            .iter()
            .map(|next| figure("oom_next_score", score(next))),
    );
    let cgroups = reading.cgroups.iter().filter_map(|cgroup| {
        let kills = cgroup.oom_kills.filter(|kills| *kills > 0)?;
        Some(figure_of("cgroup_oom_kills", &cgroup.path, kills as f64))
    });
    figures.extend(cgroups);
    figures
}

#[cfg(test)]
#[path = "oom_tests.rs"]
mod tests;
