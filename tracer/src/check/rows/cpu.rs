//! Each CPU's time over the sample: busy, stolen, spread unevenly, and cgroups that are held
//! by their limit.

use std::collections::HashMap;

use crate::{
    check::{
        context::Context,
        finding::{Figure, Finding, Row, RowReport, Verdict, figure_of},
        limits::{CGROUP_THROTTLED, CPU_BUSY, CPU_IMBALANCE, CPU_STEAL, Limits},
        read,
        read::processes::Process,
    },
    clock,
    text::Text,
};

/// Culprits that are named.
const NAMED: usize = 3;
/// A process that takes less of a CPU is no culprit.
const LEAST: f64 = 0.05;
/// Interrupts take a part of a CPU that is worth a word from here on.
const MUCH_IRQ: f64 = 0.3;
/// A cgroup has so many periods of its limit in the sample at least.
const FEWEST_PERIODS: u64 = 5;
/// A CPU is idle when it is busy for less than this.
const IDLE: f64 = 0.5;

/// Ticks: user (guests included), nice, system, idle, iowait, irq, softirq, steal
/// (`show_stat`, fs/proc/stat.c).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::check) struct Times(pub(in crate::check) [u64; 8]);

const NAMES: [&str; 8] = [
    "cpu_user_ratio",
    "cpu_nice_ratio",
    "cpu_system_ratio",
    "cpu_idle_ratio",
    "cpu_iowait_ratio",
    "cpu_irq_ratio",
    "cpu_softirq_ratio",
    "cpu_steal_ratio",
];
const IDLE_AT: usize = 3;
const IOWAIT_AT: usize = 4;
const IRQ_AT: usize = 5;
const SOFTIRQ_AT: usize = 6;
const STEAL_AT: usize = 7;

/// Counts of each interrupt, by CPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Interrupts(pub(in crate::check) Vec<(Text, HashMap<u32, u64>)>);

/// Periods of a cgroup's CPU limit, and those in which it was held.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::check) struct Throttled {
    pub(in crate::check) periods: u64,
    pub(in crate::check) throttled: u64,
}

/// A CPU: the parts of its time, by [`NAMES`].
#[derive(Clone, Debug, Default, PartialEq)]
struct Cpu {
    number: u32,
    parts: [f64; 8],
}

impl Cpu {
    fn busy(&self) -> f64 {
        1.0 - self.parts[IDLE_AT] - self.parts[IOWAIT_AT]
    }
}

/// A process that uses much.
#[derive(Clone, Debug, Default, PartialEq)]
struct Hog {
    pid: u32,
    comm: Text,
    /// Of one CPU.
    used: f64,
    threads: u64,
    /// The CPU that it ran on last.
    cpu: u32,
    /// The CPUs that it may run on, where these are not all.
    pinned: Option<String>,
}

/// The CPUs of the host.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    cpus: Vec<Cpu>,
    hogs: Vec<Hog>,
    /// Each interrupt of the sample: name, CPU that got the most, and its part.
    interrupts: Vec<(Text, u32, u64)>,
    /// cgroups with a limit: path, part of the periods in which it was held.
    throttled: Vec<(Text, f64)>,
}

/// Looks at both ends of the sample.
pub(super) fn look(context: &Context) -> RowReport {
    let began = clock::monotonic();
    let before = (
        read::cpu::times(),
        read::cpu::interrupts(),
        read::cpu::throttled(),
    );
    context.wait(began);
    let now = (
        read::cpu::times(),
        read::cpu::interrupts(),
        read::cpu::throttled(),
    );
    let all = read::cpu::online();
    let own = std::process::id();
    let hog = |(used, process): (f64, &Process)| {
        let allowed = read::cpu::allowed(process.pid);
        Hog {
            pid: process.pid,
            comm: process.comm.clone(),
            used,
            threads: process.threads,
            cpu: process.cpu,
            pinned: allowed.filter(|list| count(list) < all),
        }
    };
    let processes = context.processes().by_cpu().into_iter();
    let hogs = processes.filter(|(used, process)| *used >= LEAST && process.pid != own);
    let reading = Reading {
        cpus: parts(&before.0, &now.0),
        hogs: hogs.take(4 * NAMED).map(hog).collect(),
        interrupts: busiest(&before.1, &now.1),
        throttled: held(&before.2, &now.2),
    };
    judge(&reading, &context.limits)
}

/// How many CPUs a list such as `0-3,8` has.
fn count(list: &str) -> usize {
    let range = |range: &str| -> usize {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.trim().parse::<usize>().ok();
        number(from)
            .zip(number(to))
            .map_or(0, |(from, to)| to.saturating_sub(from) + 1)
    };
    list.split(',').map(range).sum()
}

fn parts(before: &HashMap<u32, Times>, now: &HashMap<u32, Times>) -> Vec<Cpu> {
    let one = |(number, now): (&u32, &Times)| {
        let before = before.get(number)?;
        let mut used = [0_u64; 8];
        // iowait can go back (Documentation/filesystems/proc.rst).
        for (used, (now, before)) in used.iter_mut().zip(now.0.iter().zip(before.0)) {
            *used = now.saturating_sub(before);
        }
        let all = used.iter().sum::<u64>().max(1) as f64;
        Some(Cpu {
            number: *number,
            parts: used.map(|ticks| ticks as f64 / all),
        })
    };
    let mut cpus: Vec<Cpu> = now.iter().filter_map(one).collect();
    cpus.sort_by_key(|cpu| cpu.number);
    cpus
}

fn busiest(before: &Interrupts, now: &Interrupts) -> Vec<(Text, u32, u64)> {
    let before: HashMap<&Text, _> = before
        .0
        .iter()
        .map(|(name, counts)| (name, counts))
        .collect();
    let one = |(name, counts): &(Text, HashMap<u32, u64>)| {
        let before = before.get(name)?;
        let since = |(cpu, now): (&u32, &u64)| {
            (
                *cpu,
                now.saturating_sub(before.get(cpu).copied().unwrap_or(0)),
            )
        };
        let (cpu, most) = counts.iter().map(since).max_by_key(|(cpu, n)| (*n, *cpu))?;
        (most > 0).then(|| (name.clone(), cpu, most))
    };
    let mut all: Vec<_> = now.0.iter().filter_map(one).collect();
    all.sort_by(|(a, _, n), (b, _, m)| m.cmp(n).then(a.cmp(b)));
    all
}

fn held(before: &HashMap<Text, Throttled>, now: &HashMap<Text, Throttled>) -> Vec<(Text, f64)> {
    let one = |(path, now): (&Text, &Throttled)| {
        let before = before.get(path).copied().unwrap_or_default();
        let periods = now.periods.saturating_sub(before.periods);
        let throttled = now.throttled.saturating_sub(before.throttled);
        let ratio = throttled as f64 / periods.max(1) as f64;
        (periods >= FEWEST_PERIODS).then(|| (path.clone(), ratio))
    };
    let mut all: Vec<_> = now.iter().filter_map(one).collect();
    all.sort_by(|(p, a), (q, b)| b.total_cmp(a).then(p.cmp(q)));
    all
}

fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let count = reading.cpus.len().max(1) as f64;
    let mut mean = [0.0; 8];
    for cpu in &reading.cpus {
        for (mean, part) in mean.iter_mut().zip(cpu.parts) {
            *mean += part / count;
        }
    }
    let all = Cpu {
        number: 0,
        parts: mean,
    };
    let by_busy = |a: &&Cpu, b: &&Cpu| a.busy().total_cmp(&b.busy());
    let busiest = reading.cpus.iter().max_by(by_busy);
    let idlest = reading.cpus.iter().min_by(by_busy);
    let imbalance = busiest
        .zip(idlest)
        .map_or(0.0, |(most, least)| most.busy() - least.busy());
    let percent = |part: f64| format!("{:.0} %", part * 100.0);
    let summary = format!(
        "{} busy   user {} system {} softirq {} steal {} iowait {}",
        percent(all.busy()),
        percent(mean[0] + mean[1]),
        percent(mean[2]),
        percent(mean[SOFTIRQ_AT]),
        percent(mean[STEAL_AT]),
        percent(mean[IOWAIT_AT]),
    );
    let mut report = RowReport::new(Row::Cpu, summary, figures(reading, &all, imbalance));
    let top = |hogs: &mut dyn Iterator<Item = &Hog>| hogs.take(NAMED).map(line).collect();
    let verdict = limits.judge(&CPU_BUSY, all.busy());
    if verdict > Verdict::Ok {
        report.findings.push(Finding {
            verdict,
            what: format!("all CPUs together are {} busy", percent(all.busy())),
            who: top(&mut reading.hogs.iter()),
            why: limits.why(&CPU_BUSY),
            next: "sudo tracer run".to_owned(),
        });
    }
    let verdict = limits.judge(&CPU_STEAL, mean[STEAL_AT]);
    if verdict > Verdict::Ok {
        report.findings.push(Finding {
            verdict,
            what: format!("{} of the time is stolen", percent(mean[STEAL_AT])),
            why: limits.why(&CPU_STEAL),
            next: "the host of this virtual machine: fewer guests, or a larger share".to_owned(),
            ..Finding::default()
        });
    }
    let verdict = limits.judge(&CPU_IMBALANCE, imbalance);
    if let (Some(busiest), Some(idlest)) = (busiest, idlest)
        && verdict > Verdict::Ok
        && idlest.busy() < IDLE
    {
        let irq = busiest.parts[IRQ_AT] + busiest.parts[SOFTIRQ_AT];
        let mut who: Vec<String> = Vec::new();
        if irq >= MUCH_IRQ {
            let theirs = reading
                .interrupts
                .iter()
                .filter(|(_, cpu, _)| *cpu == busiest.number);
            let named = theirs.take(NAMED);
            who.extend(named.map(|(name, _, n)| format!("interrupt {name}: {n} in the sample")));
        }
        let on_it = reading.hogs.iter().filter(|hog| hog.cpu == busiest.number);
        who.extend(on_it.take(NAMED).map(line));
        report.findings.push(Finding {
            verdict,
            what: format!(
                "CPU {} is {} busy while CPU {} is {}",
                busiest.number,
                percent(busiest.busy()),
                idlest.number,
                percent(idlest.busy())
            ),
            who,
            why: limits.why(&CPU_IMBALANCE),
            next: if irq >= MUCH_IRQ {
                "cat /proc/interrupts; spread them (irqbalance, RSS, RPS)".to_owned()
            } else {
                "sudo tracer run; taskset -cp PID".to_owned()
            },
        });
    }
    for (path, ratio) in &reading.throttled {
        let verdict = limits.judge(&CGROUP_THROTTLED, *ratio);
        if verdict > Verdict::Ok {
            report.findings.push(Finding {
                verdict,
                what: format!(
                    "cgroup {path} is held by its CPU limit in {} of its periods",
                    percent(*ratio)
                ),
                why: limits.why(&CGROUP_THROTTLED),
                next: "sudo tracer run --by cgroup; raise its cpu.max".to_owned(),
                ..Finding::default()
            });
        }
    }
    report
}

fn line(hog: &Hog) -> String {
    let mut line = format!("{}[{}] {:.2} of a CPU", hog.comm, hog.pid, hog.used);
    if let Some(pinned) = &hog.pinned {
        line += &format!(", may run on {pinned} only");
    } else if hog.threads == 1 && hog.used > 0.9 {
        line += ", one thread";
    }
    line
}

fn figures(reading: &Reading, all: &Cpu, imbalance: f64) -> Vec<Figure> {
    let mut figures = Vec::new();
    let one = |of: &str, cpu: &Cpu| {
        let parts = NAMES.into_iter().zip(cpu.parts);
        let mut figures: Vec<Figure> = parts
            .map(|(name, part)| figure_of(name, of, part))
            .collect();
        figures.push(figure_of("cpu_busy_ratio", of, cpu.busy()));
        figures
    };
    figures.extend(one("", all));
    for cpu in &reading.cpus {
        figures.extend(one(&format!("cpu{}", cpu.number), cpu));
    }
    figures.push(figure_of("cpu_imbalance_ratio", "", imbalance));
    let throttled = reading.throttled.iter();
    figures
        .extend(throttled.map(|(path, ratio)| figure_of("cgroup_throttled_ratio", path, *ratio)));
    figures
}

#[cfg(test)]
mod tests {
    use super::{Cpu, Hog, Reading, Times, count, held, judge, parts};
    use crate::check::{finding::Verdict, limits::Limits};

    fn cpu(number: u32, user: f64, softirq: f64) -> Cpu {
        let idle = 1.0 - user - softirq;
        Cpu {
            number,
            parts: [user, 0.0, 0.0, idle, 0.0, 0.0, softirq, 0.0],
        }
    }

    #[test]
    fn one_busy_cpu_beside_an_idle_one_names_who_is_pinned_there() {
        let reading = Reading {
            cpus: vec![cpu(0, 0.02, 0.0), cpu(1, 1.0, 0.0)],
            hogs: vec![Hog {
                pid: 7,
                comm: "solver".into(),
                used: 0.99,
                threads: 1,
                cpu: 1,
                pinned: Some("1".into()),
            }],
            ..Reading::default()
        };
        let report = judge(&reading, &Limits::default());
        assert_eq!(report.verdict(), Verdict::Warning);
        assert_eq!(
            report.findings[0].who,
            ["solver[7] 0.99 of a CPU, may run on 1 only"]
        );
    }

    #[test]
    fn all_busy_is_no_imbalance() {
        let reading = Reading {
            cpus: vec![cpu(0, 0.99, 0.0), cpu(1, 0.98, 0.0)],
            ..Reading::default()
        };
        let report = judge(&reading, &Limits::default());
        assert_eq!(report.verdict(), Verdict::Critical);
        assert_eq!(report.findings.len(), 1);
    }

    #[test]
    fn interrupts_of_one_cpu_are_named() {
        let reading = Reading {
            cpus: vec![cpu(0, 0.1, 0.88), cpu(1, 0.0, 0.02)],
            interrupts: vec![("24 eth0-rx-0".into(), 0, 90_000), ("LOC".into(), 1, 100)],
            ..Reading::default()
        };
        let report = judge(&reading, &Limits::default());
        assert_eq!(
            report.findings[0].who,
            ["interrupt 24 eth0-rx-0: 90000 in the sample"]
        );
    }

    #[test]
    fn parts_of_time_and_of_periods_are_of_the_sample() {
        let times = |user, idle| [(0, Times([user, 0, 0, idle, 5, 0, 0, 0]))].into();
        let cpus = parts(&times(100, 1000), &times(175, 1025));
        assert_eq!((cpus[0].parts[0], cpus[0].busy()), (0.75, 0.75));
        let periods =
            |periods, throttled| [("/a".into(), super::Throttled { periods, throttled })].into();
        assert_eq!(
            held(&periods(100, 50), &periods(110, 57)),
            [("/a".into(), 0.7)]
        );
        assert_eq!(held(&periods(100, 50), &periods(102, 52)), []);
        assert_eq!((count("0-3,8"), count("1"), count("x")), (5, 1, 0));
    }
}
