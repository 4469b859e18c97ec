//! The kernel: what it was tainted by, what its log complains of, its clock, and errors of
//! memory.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    check::{
        context::Context,
        finding::{Figure, Finding, Row, RowReport, Verdict, figure, figure_of},
        limits::{KERNEL_MESSAGE, Limits, MEMORY_UNCORRECTED},
        read,
        rows::messages::{KINDS, Kind},
    },
    render::quantity::{age, counted, grouped},
    text::Text,
};

/// Messages of a kind that are shown, the newest.
const SHOWN: usize = 3;

/// Messages of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::check) struct Seen {
    pub(in crate::check) count: u64,
    /// When the last one was, in us of the log's clock.
    pub(in crate::check) last_us: u64,
    /// The last ones with their times, the newest first.
    pub(in crate::check) newest: VecDeque<(u64, Text)>,
}

impl Seen {
    /// Keeps it, and drops the oldest of those that are too many.
    pub(in crate::check) fn keep(&mut self, at_us: u64, text: Text) {
        self.newest.push_front((at_us, text));
        self.newest.truncate(SHOWN);
    }
}

/// What the log has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::check) struct Log {
    pub(in crate::check) seen: BTreeMap<Kind, Seen>,
    /// When the oldest message is from that is still there.
    pub(in crate::check) oldest_us: Option<u64>,
    /// Whether that is the first of all.
    pub(in crate::check) is_from_boot: Option<bool>,
    /// Whether there was more than is read.
    pub(in crate::check) is_cut: bool,
}

/// Where the kernel has the time from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::check) struct Clock {
    pub(in crate::check) current: Text,
    pub(in crate::check) available: Text,
}

/// Errors that a memory controller found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::check) struct MemoryErrors {
    pub(in crate::check) controller: Text,
    pub(in crate::check) corrected: u64,
    pub(in crate::check) uncorrected: u64,
}

/// What the kernel says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Reading {
    /// Now, by the clock of the log. That does not go on while the host sleeps.
    pub(in crate::check) now_us: u64,
    pub(in crate::check) uptime_s: Option<f64>,
    pub(in crate::check) tainted: Option<u64>,
    pub(in crate::check) clock: Option<Clock>,
    pub(in crate::check) memory: Vec<MemoryErrors>,
    pub(in crate::check) log: Option<Log>,
    pub(in crate::check) unseen: Vec<String>,
}

/// Looks at the end of the sample: what goes wrong in it is in the log then.
pub(super) fn look(context: &Context) -> RowReport {
    context.wait(context.until());
    let reading = read::kernel::read();
    let report = judge(&reading, &context.limits);
    if reading.tainted.is_none() && reading.log.is_none() {
        return report.blinded("whether the kernel complains of anything");
    }
    report
}

/// The bits of the taint: letter, meaning, and how bad (`taint_flags`, kernel/panic.c;
/// Documentation/admin-guide/tainted-kernels.rst).
const TAINTS: [(char, &str, Verdict); 20] = [
    ('P', "a proprietary module was loaded", Verdict::Note),
    ('F', "a module was loaded by force", Verdict::Note),
    (
        'S',
        "the CPU or system is out of specification",
        Verdict::Note,
    ),
    ('R', "a module was unloaded by force", Verdict::Note),
    ('M', "a machine check was reported", Verdict::Warning),
    ('B', "a bad page was found", Verdict::Warning),
    ('U', "a program asked for the taint", Verdict::Note),
    ('D', "the kernel died once (oops or BUG)", Verdict::Warning),
    ('A', "an ACPI table was overridden", Verdict::Note),
    ('W', "the kernel warned (WARN)", Verdict::Note),
    ('C', "a staging driver was loaded", Verdict::Note),
    (
        'I',
        "a bug of the firmware was worked around",
        Verdict::Note,
    ),
    ('O', "a module from elsewhere was loaded", Verdict::Note),
    ('E', "an unsigned module was loaded", Verdict::Note),
    ('L', "a soft lockup was seen", Verdict::Warning),
    ('K', "the kernel was patched live", Verdict::Note),
    ('X', "a taint of the distribution's own", Verdict::Note),
    ('T', "built with randomised structures", Verdict::Note),
    ('N', "a test was run in the kernel", Verdict::Note),
    (
        'J',
        "a driver's debugging interface was used",
        Verdict::Note,
    ),
];

/// Clocks of which a reading is slow: a register of a chip, by way of the kernel.
const SLOW_CLOCKS: [(&str, &str); 4] = [
    ("hpet", "a register of the chipset"),
    ("acpi_pm", "a port of the power management"),
    ("jiffies", "the timer's ticks"),
    ("refined-jiffies", "the timer's ticks"),
];

/// From a reading to a report.
pub(in crate::check) fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let mut report = RowReport::new(Row::Kernel, summary(reading), figures(reading));
    report.unseen.clone_from(&reading.unseen);
    let log = reading.log.as_ref();
    if log.is_some_and(|log| log.is_cut) {
        let unseen = "the end of the kernel's log: it is longer than what is read";
        report.unseen.push(unseen.to_owned());
    }
    let messages = KINDS.into_iter().filter_map(|kind| {
        let seen = log?.seen.get(&kind)?;
        Some(messages(kind, seen, reading.now_us, limits))
    });
    report.findings.extend(messages);
    report
        .findings
        .extend(reading.memory.iter().filter_map(|one| memory(one, limits)));
    report
        .findings
        .extend(reading.clock.as_ref().and_then(slow));
    report.findings.extend(taint(reading.tainted.unwrap_or(0)));
    report
        .findings
        .sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
    report
}

fn ago(now_us: u64, at_us: u64) -> String {
    age(now_us.saturating_sub(at_us).saturating_mul(1_000))
}

fn messages(kind: Kind, seen: &Seen, now_us: u64, limits: &Limits) -> Finding {
    let (one, several) = kind.words();
    let noun = if seen.count == 1 { one } else { several };
    let age_s = now_us.saturating_sub(seen.last_us) as f64 / 1e6;
    let who = seen.newest.iter();
    Finding {
        // One of long ago is still worth knowing.
        verdict: limits.judge(&KERNEL_MESSAGE, age_s).max(Verdict::Note),
        what: format!(
            "{} {noun} in the kernel's log, the last {} ago",
            grouped(seen.count),
            ago(now_us, seen.last_us)
        ),
        who: who
            .map(|(at_us, text)| format!("{} ago: {text}", ago(now_us, *at_us)))
            .collect(),
        why: format!("{}; {}", kind.why(), limits.why(&KERNEL_MESSAGE)),
        next: kind.next().to_owned(),
    }
}

fn memory(errors: &MemoryErrors, limits: &Limits) -> Option<Finding> {
    let MemoryErrors {
        controller,
        corrected,
        uncorrected,
    } = errors;
    if *corrected == 0 && *uncorrected == 0 {
        return None;
    }
    let verdict = limits.judge(&MEMORY_UNCORRECTED, *uncorrected as f64);
    Some(Finding {
        verdict: verdict.max(Verdict::Note),
        what: format!(
            "memory controller {controller}: {} that could not be corrected, {} corrected",
            counted(*uncorrected, "error"),
            grouped(*corrected)
        ),
        why: limits.why(&MEMORY_UNCORRECTED),
        next: "sudo dmesg | grep EDAC".to_owned(),
        ..Finding::default()
    })
}

fn slow(clock: &Clock) -> Option<Finding> {
    let current = clock.current.as_str();
    let (_, what) = SLOW_CLOCKS.iter().find(|(name, _)| *name == current)?;
    Some(Finding {
        verdict: Verdict::Warning,
        what: format!(
            "the clock source is {current}, {what}; available: {}",
            clock.available
        ),
        why: "each look at the time is a system call and slow I/O, \
              and programs look thousands of times a second"
            .to_owned(),
        next: "sudo dmesg | grep -i -e clocksource -e tsc".to_owned(),
        ..Finding::default()
    })
}

/// Bits of a taint that have no letter yet count as notes.
fn bits(tainted: u64) -> impl Iterator<Item = (String, Verdict)> {
    (0..u64::BITS as usize)
        .filter(move |bit| tainted >> bit & 1 == 1)
        .map(|bit| match TAINTS.get(bit) {
            Some((letter, meaning, verdict)) => (format!("{letter}: {meaning}"), *verdict),
            None => (format!("bit {bit}"), Verdict::Note),
        })
}

fn taint(tainted: u64) -> Option<Finding> {
    let mut bits: Vec<_> = bits(tainted).collect();
    bits.sort_by_key(|(_, verdict)| std::cmp::Reverse(*verdict));
    let verdict = bits.first()?.1;
    Some(Finding {
        verdict,
        what: format!("the kernel is tainted ({tainted}), since some time after boot"),
        who: bits.into_iter().map(|(line, _)| line).collect(),
        why: if verdict > Verdict::Note {
            "it went wrong and stays so until the next boot"
        } else {
            "nothing is wrong; who helps with a kernel asks for it"
        }
        .to_owned(),
        next: if verdict > Verdict::Note {
            "sudo dmesg --level=emerg,alert,crit,err,warn".to_owned()
        } else {
            String::new()
        },
    })
}

fn summary(reading: &Reading) -> String {
    let mut parts = Vec::new();
    if let Some(seconds) = reading.uptime_s {
        parts.push(format!("up {}", age((seconds * 1e9) as u64)));
    }
    match reading.tainted {
        Some(0) => parts.push("not tainted".to_owned()),
        Some(tainted) => {
            let letters = TAINTS.iter().enumerate();
            let letters = letters.filter(|(bit, _)| tainted >> bit & 1 == 1);
            let letters: String = letters.map(|(_, (letter, ..))| letter).collect();
            parts.push(format!("tainted {letters}"));
        }
        None => {}
    }
    if let Some(clock) = &reading.clock {
        parts.push(format!("clock {}", clock.current));
    }
    if let Some(log) = &reading.log {
        let since = match (log.is_from_boot, log.oldest_us) {
            (Some(false), Some(oldest)) => format!(" of the last {}", ago(reading.now_us, oldest)),
            _ => String::new(),
        };
        let count = log.seen.values().map(|seen| seen.count).sum();
        parts.push(match count {
            0 => format!("nothing in the log{since}"),
            count => format!("{} in the log{since}", counted(count, "complaint")),
        });
    }
    parts.join("   ")
}

fn figures(reading: &Reading) -> Vec<Figure> {
    let mut figures = Vec::new();
    figures.extend(reading.uptime_s.map(|seconds| figure("uptime_s", seconds)));
    let tainted = reading.tainted.map(|bits| figure("tainted", bits as f64));
    figures.extend(tainted);
    if let Some(log) = &reading.log {
        let count = |kind| log.seen.get(&kind).map_or(0, |seen| seen.count);
        let counts = KINDS.map(|kind| figure(kind.figure(), count(kind) as f64));
        figures.extend(counts);
        let reach = log.oldest_us.map(|oldest| {
            let us = reading.now_us.saturating_sub(oldest);
            figure("kernel_log_age_s", us as f64 / 1e6)
        });
        figures.extend(reach);
    }
    for one in &reading.memory {
        let of = &one.controller;
        figures.push(figure_of(
            "memory_corrected_errors",
            of,
            one.corrected as f64,
        ));
        figures.push(figure_of(
            MEMORY_UNCORRECTED.name,
            of,
            one.uncorrected as f64,
        ));
    }
    figures
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
