//! CPUs: what each did, whether all are busy, whether one is while others are not and why,
//! and cgroups that their limit holds.
//!
//! Ratios are parts of a CPU's time. The time of guests is inside that of the user (nice
//! guests inside nice), as the kernel adds it: mpstat's %usr and %guest together.

mod throttled;
mod uneven;

use std::time::Duration;

use super::groups;
use crate::{
    check::{
        context::Context,
        finding::{Figure, Finding, Row, RowReport, Verdict, figure_of},
        limits::{CPU_BUSY, CPU_STEAL, Limits},
        read::{self, processes::Processes},
    },
    text::Text,
};

/// Culprits that are named.
const NAMED: usize = 5;
/// A process below is not named: so small a part of a CPU does no harm.
const LEAST: f64 = 0.02;
/// With less of the CPUs left to others than this, tracer's own start hides the host.
const LEAST_LEFT: f64 = 0.3;
/// How long threads are watched, once it is known whose matter.
const THREADS: Duration = Duration::from_millis(200);

/// The time of a CPU in ticks since boot (`show_stat`, fs/proc/stat.c).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::check) struct Ticks {
    pub(in crate::check) user: u64,
    pub(in crate::check) nice: u64,
    pub(in crate::check) system: u64,
    pub(in crate::check) idle: u64,
    pub(in crate::check) iowait: u64,
    pub(in crate::check) irq: u64,
    pub(in crate::check) softirq: u64,
    pub(in crate::check) steal: u64,
}

/// What a CPU did over the sample, in parts of 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::check) struct Shares {
    pub(in crate::check) user: f64,
    pub(in crate::check) nice: f64,
    pub(in crate::check) system: f64,
    pub(in crate::check) idle: f64,
    pub(in crate::check) iowait: f64,
    pub(in crate::check) irq: f64,
    pub(in crate::check) softirq: f64,
    pub(in crate::check) steal: f64,
}

impl Shares {
    /// `None` when no time has passed. The kernel's idle and iowait can run backwards.
    pub(in crate::check) fn between(before: &Ticks, now: &Ticks) -> Option<Self> {
        let of = |of: fn(&Ticks) -> u64| of(now).saturating_sub(of(before)) as f64;
        let mut shares = Self {
            user: of(|t| t.user),
            nice: of(|t| t.nice),
            system: of(|t| t.system),
            idle: of(|t| t.idle),
            iowait: of(|t| t.iowait),
            irq: of(|t| t.irq),
            softirq: of(|t| t.softirq),
            steal: of(|t| t.steal),
        };
        let all: f64 = shares.named().iter().map(|(_, share)| share).sum();
        if all <= 0.0 {
            return None;
        }
        for share in [
            &mut shares.user,
            &mut shares.nice,
            &mut shares.system,
            &mut shares.idle,
            &mut shares.iowait,
            &mut shares.irq,
            &mut shares.softirq,
            &mut shares.steal,
        ] {
            *share /= all;
        }
        Some(shares)
    }

    fn busy(&self) -> f64 {
        (1.0 - self.idle - self.iowait).clamp(0.0, 1.0)
    }

    fn named(&self) -> [(&'static str, f64); 8] {
        [
            ("cpu_user_ratio", self.user),
            ("cpu_nice_ratio", self.nice),
            ("cpu_system_ratio", self.system),
            ("cpu_iowait_ratio", self.iowait),
            ("cpu_irq_ratio", self.irq),
            ("cpu_softirq_ratio", self.softirq),
            ("cpu_steal_ratio", self.steal),
            ("cpu_idle_ratio", self.idle),
        ]
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            all: Shares::default(),
            each: Vec::new(),
            own: 0.0,
            top: Vec::new(),
            who: Ok(Vec::new()),
            interrupts: Vec::new(),
            cgroups: Vec::new(),
            seconds: 0.0,
            is_cut: false,
        }
    }
}

/// CPUs over the sample.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::check) struct Reading {
    pub(in crate::check) all: Shares,
    /// Those online at both ends, by number.
    pub(in crate::check) each: Vec<(u32, Shares)>,
    /// What tracer itself used, in CPUs.
    pub(in crate::check) own: f64,
    /// The processes that used most, without tracer.
    pub(in crate::check) top: Vec<Top>,
    /// Who used the CPUs, those that ended included; `None` where the kernel's events could
    /// not be had, and why.
    pub(in crate::check) who: Result<Vec<String>, String>,
    /// Interrupts and softirqs of the sample.
    pub(in crate::check) interrupts: Vec<Interrupt>,
    /// Those with periods in the sample.
    pub(in crate::check) cgroups: Vec<Throttled>,
    pub(in crate::check) seconds: f64,
    /// Whether some cgroups were left out, as there are so many.
    pub(in crate::check) is_cut: bool,
}

/// A process that used much.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Top {
    pub(in crate::check) pid: u32,
    pub(in crate::check) comm: Text,
    /// In CPUs.
    pub(in crate::check) used: f64,
    /// Its busiest threads, the most first; empty where nobody looked.
    pub(in crate::check) threads: Vec<Thread>,
}

/// A thread, watched for a moment after the sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Thread {
    pub(in crate::check) tid: u32,
    pub(in crate::check) comm: Text,
    /// In CPUs.
    pub(in crate::check) used: f64,
    /// Where it ran last.
    pub(in crate::check) cpu: u32,
    /// Where it may run, as ranges; empty when that is not known.
    pub(in crate::check) allowed: Vec<(u32, u32)>,
}

/// A kind of interrupt or softirq, over the sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Interrupt {
    /// `interrupt 28 eth0-rx-0`, `softirq NET_RX`.
    pub(in crate::check) name: Text,
    /// How many, by CPU.
    pub(in crate::check) counts: Vec<(u32, u64)>,
}

/// A limit of CPU time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::check) struct CpuLimit {
    /// The file that sets it.
    pub(in crate::check) file: &'static str,
    /// CPU time in each period.
    pub(in crate::check) quota_us: f64,
    pub(in crate::check) period_us: f64,
}

/// A cgroup with a limit of CPU time, over the sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Throttled {
    pub(in crate::check) path: Text,
    /// `None` where it cannot be read, or was taken away.
    pub(in crate::check) limit: Option<CpuLimit>,
    pub(in crate::check) periods: u64,
    /// Periods that the sample had, also those in which nothing ran in it.
    pub(in crate::check) periods_in_all: u64,
    /// Periods in which it used up its quota.
    pub(in crate::check) throttled: u64,
    /// How long it was held, summed over CPUs.
    pub(in crate::check) throttled_ns: u64,
    /// Process ids in it and below it; empty where nobody looked.
    pub(in crate::check) pids: Vec<u32>,
}

impl Throttled {
    /// Of the periods of the sample; those in which nothing ran are not counted by the
    /// kernel.
    pub(in crate::check) fn ratio(&self) -> f64 {
        self.throttled as f64 / self.periods.max(self.periods_in_all).max(1) as f64
    }
}

/// Looks at both ends of the sample.
pub(super) fn look(context: &Context) -> RowReport {
    let began = crate::clock::monotonic();
    let stat = read::cpu::stat();
    let interrupts = read::cpu::interrupts();
    let cgroups = read::throttled::Cgroups::read();
    let seconds = context.wait(began);
    let now = read::cpu::stat();
    let Some((all, each)) = read::cpu::shares(&stat, &now) else {
        return RowReport::blind(Row::Cpu, "/proc/stat says nothing of the sample");
    };
    let interrupts = read::cpu::deltas(&interrupts, &read::cpu::interrupts());
    let (throttled, is_cut) = cgroups.since(seconds);
    let (own, top) = top(context.processes());
    let watched = context.watched().map_err(str::to_owned);
    let who = watched.map(|watched| {
        let load = &watched.snapshot.load;
        groups::most(load, |group| group.mean.running, groups::cpu, NAMED)
    });
    let mut reading = Reading {
        all,
        each,
        own,
        top,
        who,
        interrupts,
        cgroups: throttled,
        seconds,
        is_cut,
    };
    if uneven::ends(&reading, &context.limits).is_some() {
        let pids: Vec<_> = reading.top.iter().map(|top| top.pid).collect();
        let mut threads = read::cpu::threads(&pids, THREADS);
        for top in &mut reading.top {
            top.threads = threads.remove(&top.pid).unwrap_or_default();
        }
    }
    judge(&reading, &context.limits)
}

/// What tracer used, and the others that used most.
fn top(processes: &Processes) -> (f64, Vec<Top>) {
    let own = std::process::id();
    let by_cpu = processes.by_cpu();
    let used = by_cpu.iter().find(|(_, process)| process.pid == own);
    let top = by_cpu
        .iter()
        .filter(|(used, process)| process.pid != own && *used >= LEAST)
        .take(4 * NAMED)
        .map(|(used, process)| Top {
            pid: process.pid,
            comm: process.comm.clone(),
            used: *used,
            threads: Vec::new(),
        });
    (used.map_or(0.0, |(used, _)| *used), top.collect())
}

/// From a reading to a report.
pub(in crate::check) fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let all = &reading.all;
    let mut summary = format!(
        "{} busy: user {}, system {}, iowait {}, steal {}",
        percent(all.busy()),
        percent(all.user + all.nice),
        percent(all.system + all.irq + all.softirq),
        percent(all.iowait),
        percent(all.steal),
    );
    let busiest = reading
        .each
        .iter()
        .max_by(|(_, a), (_, b)| a.busy().total_cmp(&b.busy()));
    if let (Some((cpu, shares)), true) = (busiest, reading.each.len() > 1) {
        summary += &format!("   busiest cpu{cpu} {}", percent(shares.busy()));
    }
    let mut report = RowReport::new(Row::Cpu, summary, figures(reading));
    match left_to_others(reading) {
        Some(busy) => report.findings.extend(busy_all(reading, busy, limits)),
        None => report.unseen.push(
            "whether the CPUs are busy: tracer's own start took most of so short a sample"
                .to_owned(),
        ),
    }
    let verdict = limits.judge(&CPU_STEAL, all.steal);
    if verdict > Verdict::Ok {
        report.findings.push(Finding {
            verdict,
            what: format!("{} of the time was stolen", percent(all.steal)),
            why: limits.why(&CPU_STEAL),
            next: "sudo tracer load".to_owned(),
            ..Finding::default()
        });
    }
    if let Err(why) = &reading.who {
        report
            .unseen
            .push(format!("processes that have ended: {why}"));
    }
    report.findings.extend(uneven::finding(reading, limits));
    report.findings.extend(throttled::findings(reading, limits));
    if reading.is_cut {
        report
            .unseen
            .push("cgroups beyond the first 10,000".to_owned());
    }
    report
}

/// Of the time that tracer left to others, what they used. `None` where that is too little
/// to say.
fn left_to_others(reading: &Reading) -> Option<f64> {
    let cpus = reading.each.len().max(1) as f64;
    let left = cpus - reading.own;
    let others = (reading.all.busy() * cpus - reading.own).max(0.0);
    (left >= LEAST_LEFT * cpus).then(|| others / left)
}

fn busy_all(reading: &Reading, busy: f64, limits: &Limits) -> Option<Finding> {
    let verdict = limits.judge(&CPU_BUSY, busy);
    let cpus = match reading.each.len() {
        1 => "the CPU is".to_owned(),
        count => format!("all {count} CPUs together are"),
    };
    (verdict > Verdict::Ok).then(|| Finding {
        verdict,
        what: format!("{cpus} {} busy, tracer itself left out", percent(busy)),
        who: match &reading.who {
            Ok(who) => who.clone(),
            Err(_) => reading.top.iter().take(NAMED).map(describe).collect(),
        },
        why: limits.why(&CPU_BUSY),
        next: "sudo tracer load".to_owned(),
    })
}

/// `gzip[12] 0.98 of a CPU`.
fn describe(top: &Top) -> String {
    format!("{}[{}] {:.2} of a CPU", top.comm, top.pid, top.used)
}

fn percent(ratio: f64) -> String {
    format!("{:.0} %", ratio * 100.0)
}

fn figures(reading: &Reading) -> Vec<Figure> {
    let each = reading.each.iter();
    let each = each.map(|(cpu, shares)| (format!("cpu{cpu}"), shares));
    let mut figures = Vec::new();
    for (of, shares) in std::iter::once((String::new(), &reading.all)).chain(each) {
        for (name, share) in shares.named() {
            figures.push(figure_of(name, &of, share));
        }
        figures.push(figure_of("cpu_busy_ratio", &of, shares.busy()));
    }
    let busy = reading.each.iter().map(|(_, shares)| shares.busy());
    let (most, least) = (busy.clone().fold(0.0, f64::max), busy.fold(1.0, f64::min));
    figures.push(figure_of(
        "cpu_imbalance_ratio",
        "",
        (most - least).max(0.0),
    ));
    for cgroup in reading.cgroups.iter().take(4 * NAMED) {
        let (path, ratio) = (&cgroup.path, cgroup.ratio());
        figures.push(figure_of("cgroup_throttled_ratio", path, ratio));
    }
    figures
}

#[cfg(test)]
mod tests;
