//! One CPU that is busy while another is idle, and why: a process that may not or cannot
//! run elsewhere, or interrupts that all come to one CPU.

use super::{NAMED, Reading, Shares, Thread, Top, describe, percent};
use crate::{
    check::{
        finding::{Finding, Verdict},
        limits::{CPU_BUSY, CPU_IMBALANCE, Limits},
    },
    render::quantity::rate,
};

/// A CPU or thread is busy from here on, whatever the limit.
const BUSY: f64 = 0.9;
/// A CPU with so much of its time in interrupts is kept busy by them.
const INTERRUPTED: f64 = 0.3;
/// Nearly all of an interrupt's.
const NEARLY_ALL: f64 = 0.9;
/// A thread that is worth a word.
const THREAD: f64 = 0.5;

/// Two CPUs that differ by too much.
#[derive(Debug)]
pub(super) struct Ends<'a> {
    busiest: &'a (u32, Shares),
    idlest: &'a (u32, Shares),
    verdict: Verdict,
}

/// The busiest and the idlest CPU, where they differ by too much.
pub(super) fn ends<'a>(reading: &'a Reading, limits: &Limits) -> Option<Ends<'a>> {
    let busy = |(_, shares): &&(u32, Shares)| shares.busy();
    let by = |a: &&(u32, Shares), b: &&(u32, Shares)| busy(a).total_cmp(&busy(b));
    let (most, least) = (
        reading.each.iter().max_by(by)?,
        reading.each.iter().min_by(by)?,
    );
    let is_busy = |busy: f64| busy >= BUSY || limits.judge(&CPU_BUSY, busy) > Verdict::Ok;
    // Tracer's own start keeps a CPU busy too. What others used has to be enough for it.
    let others: f64 = reading.each.iter().map(|(_, shares)| shares.busy()).sum();
    if !is_busy(busy(&most)) || !is_busy(others - reading.own) {
        return None;
    }
    let verdict = limits.judge(&CPU_IMBALANCE, busy(&most) - busy(&least));
    (verdict > Verdict::Ok).then_some(Ends {
        busiest: most,
        idlest: least,
        verdict,
    })
}

/// The finding, with its culprits.
pub(super) fn finding(reading: &Reading, limits: &Limits) -> Option<Finding> {
    let Ends {
        busiest: (cpu, shares),
        idlest: (idle_cpu, idle),
        verdict,
    } = ends(reading, limits)?;
    let mut who: Vec<String> = reading
        .top
        .iter()
        .filter_map(|top| of_process(top, *cpu, *idle_cpu))
        .take(NAMED)
        .collect();
    let pinned = reading.top.iter().find(|top| {
        let mut threads = top.threads.iter().filter(|thread| thread.cpu == *cpu);
        threads.any(|thread| thread.used >= THREAD && !may_run(thread, *idle_cpu))
    });
    if shares.irq + shares.softirq >= INTERRUPTED {
        let lines = interrupts(reading, *cpu);
        // They come first, as what they leave is all that processes get.
        who.splice(0..0, lines);
    }
    let next = pinned.map_or_else(
        || "sudo tracer load".to_owned(),
        |top| format!("taskset -acp {}", top.pid),
    );
    Some(Finding {
        verdict,
        what: format!(
            "cpu{cpu} is {} busy while cpu{idle_cpu} is {}: {} in interrupts and softirqs",
            percent(shares.busy()),
            percent(idle.busy()),
            percent(shares.irq + shares.softirq)
        ),
        who,
        why: limits.why(&CPU_IMBALANCE),
        next,
    })
}

/// A process that has a thread on the busy CPU, and why that is not elsewhere.
fn of_process(top: &Top, cpu: u32, idle_cpu: u32) -> Option<String> {
    let here = top
        .threads
        .iter()
        .find(|thread| thread.cpu == cpu && thread.used > 0.0)?;
    let mut line = describe(top);
    let busy = top.threads.iter().filter(|t| t.used >= THREAD).count();
    if busy == 1 && here.used >= THREAD {
        line += ", one busy thread";
        if here.tid != top.pid {
            line += &format!(": {}[{}]", here.comm, here.tid);
        }
    }
    if !may_run(here, idle_cpu) {
        line += &format!(", may run only on CPU {}", list(&here.allowed));
    }
    Some(line)
}

fn may_run(thread: &Thread, cpu: u32) -> bool {
    let mut ranges = thread.allowed.iter();
    thread.allowed.is_empty() || ranges.any(|(from, to)| (*from..=*to).contains(&cpu))
}

fn list(ranges: &[(u32, u32)]) -> String {
    let one = |(from, to): &(u32, u32)| {
        if from == to {
            from.to_string()
        } else {
            format!("{from}-{to}")
        }
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(",")
}

/// What comes to this CPU, and to hardly any other.
fn interrupts(reading: &Reading, cpu: u32) -> Vec<String> {
    let mut here: Vec<_> = reading
        .interrupts
        .iter()
        .filter_map(|interrupt| {
            let all: u64 = interrupt.counts.iter().map(|(_, count)| count).sum();
            let (_, count) = interrupt.counts.iter().find(|(of, _)| *of == cpu)?;
            let part = *count as f64 / all.max(1) as f64;
            (part >= NEARLY_ALL).then_some((*count, part, &interrupt.name))
        })
        .collect();
    here.sort_by_key(|(count, _, _)| std::cmp::Reverse(*count));
    here.iter()
        .take(3)
        .map(|(count, part, name)| {
            let per_s = *count as f64 / reading.seconds.max(0.001);
            format!("{name} {}, {} of them here", rate(per_s), percent(*part))
        })
        .collect()
}
