//! Memory: what is left, swap, pressure, cgroups near their limit.

use crate::{
    check::{
        context::Context,
        finding::{Figure, Finding, Row, RowReport, Verdict, figure, figure_of},
        limits::{CGROUP_MEMORY, Limits, MEMORY_AVAILABLE, SLAB, SWAP_IN},
        read,
    },
    clock,
    host::memory::MemoryCgroup,
    render::quantity::{bytes, compact},
    text::Text,
};

/// Processes that are named.
const NAMED: usize = 3;

/// Counters since boot, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::check) struct Counters {
    pub(in crate::check) swapped_in: u64,
    pub(in crate::check) swapped_out: u64,
}

/// The part of the last 10 s in which some or all tasks waited for memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::check) struct Pressure {
    pub(in crate::check) some: f64,
    pub(in crate::check) full: f64,
}

/// Memory, in bytes, by the names of free(1).
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Reading {
    pub(in crate::check) total: u64,
    pub(in crate::check) free: u64,
    pub(in crate::check) available: u64,
    pub(in crate::check) buffers: u64,
    /// Page cache and slab that can be given back, as free(1) adds it up.
    pub(in crate::check) cached: u64,
    pub(in crate::check) shared: u64,
    pub(in crate::check) slab: u64,
    pub(in crate::check) slab_unreclaimable: u64,
    pub(in crate::check) hugepages: u64,
    pub(in crate::check) hugepages_free: u64,
    pub(in crate::check) swap_total: u64,
    pub(in crate::check) swap_free: u64,
    pub(in crate::check) swap_in_per_s: Option<f64>,
    pub(in crate::check) swap_out_per_s: Option<f64>,
    pub(in crate::check) pressure: Option<Pressure>,
    pub(in crate::check) cgroups: Vec<MemoryCgroup>,
    pub(in crate::check) largest: Vec<Large>,
}

/// A process that has much.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Large {
    pub(in crate::check) pid: u32,
    pub(in crate::check) comm: Text,
    pub(in crate::check) rss: u64,
    /// In proportion to who shares it; `None` where that may not be read.
    pub(in crate::check) pss: Option<u64>,
}

/// Looks at both ends of the sample.
pub(super) fn look(context: &Context) -> RowReport {
    let (before, began) = (read::memory::counters(), clock::monotonic());
    let seconds = context.wait(began);
    let Some(mut reading) = read::memory::read(before, seconds) else {
        return RowReport {
            unseen: vec!["/proc/meminfo cannot be read".into()],
            ..RowReport::new(Row::Memory, "unknown", Vec::new())
        };
    };
    let mut processes: Vec<_> = context.processes().now.values().collect();
    processes.sort_by_key(|process| (std::cmp::Reverse(process.rss_bytes), process.pid));
    let large = processes.into_iter().take(NAMED).map(|process| Large {
        pid: process.pid,
        comm: process.comm.clone(),
        rss: process.rss_bytes,
        pss: read::memory::pss(process.pid),
    });
    reading.largest = large.collect();
    judge(&reading, &context.limits)
}

fn ratio(part: u64, of: u64) -> f64 {
    if of == 0 {
        0.0
    } else {
        part as f64 / of as f64
    }
}

/// From a reading to a report.
pub(in crate::check) fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let available = ratio(reading.available, reading.total);
    let swap_used = reading.swap_total.saturating_sub(reading.swap_free);
    let swap = match reading.swap_total {
        0 => "no swap".to_owned(),
        total => format!("swap {} of {}", bytes(swap_used), bytes(total)),
    };
    let pressure = match reading.pressure {
        Some(pressure) => format!("   pressure {:.0} %", pressure.some * 100.0),
        None => String::new(),
    };
    let summary = format!(
        "{} of {} available   {swap}{pressure}",
        bytes(reading.available),
        bytes(reading.total),
    );
    let mut report = RowReport::new(Row::Memory, summary, figures(reading));
    let next = "sudo tracer oom --next".to_owned();
    let verdict = limits.judge(&MEMORY_AVAILABLE, available);
    if verdict > Verdict::Ok {
        report.findings.push(Finding {
            verdict,
            what: format!(
                "{} available, {:.1} % of {}",
                bytes(reading.available),
                available * 100.0,
                bytes(reading.total)
            ),
            who: largest(reading),
            why: limits.why(&MEMORY_AVAILABLE),
            next: next.clone(),
        });
    }
    if let Some(per_s) = reading.swap_in_per_s
        && let verdict @ (Verdict::Warning | Verdict::Critical) = limits.judge(&SWAP_IN, per_s)
    {
        report.findings.push(Finding {
            verdict,
            what: format!("{} pages a second come back from swap", compact(per_s)),
            who: largest(reading),
            why: limits.why(&SWAP_IN),
            next: "sudo tracer run --by cause".to_owned(),
        });
    }
    let slab = ratio(reading.slab_unreclaimable, reading.total);
    let verdict = limits.judge(&SLAB, slab);
    if verdict > Verdict::Ok {
        report.findings.push(Finding {
            verdict,
            what: format!(
                "{} are held by the kernel itself (unreclaimable slab)",
                bytes(reading.slab_unreclaimable)
            ),
            why: limits.why(&SLAB),
            next: "slabtop -o".to_owned(),
            ..Finding::default()
        });
    }
    report.findings.extend(cgroups(reading, limits, &next));
    report
}

fn largest(reading: &Reading) -> Vec<String> {
    let one = |large: &Large| {
        let size = match large.pss {
            Some(pss) => format!("{} (PSS)", bytes(pss)),
            None => format!("{} (RSS)", bytes(large.rss)),
        };
        format!("{}[{}] {size}", large.comm, large.pid)
    };
    reading.largest.iter().map(one).collect()
}

fn cgroups<'a>(
    reading: &'a Reading,
    limits: &'a Limits,
    next: &'a str,
) -> impl Iterator<Item = Finding> + 'a {
    reading.cgroups.iter().filter_map(move |cgroup| {
        let limit = cgroup.limit_bytes?;
        let used = ratio(cgroup.usage_bytes, limit);
        let verdict = limits.judge(&CGROUP_MEMORY, used);
        (verdict > Verdict::Ok).then(|| Finding {
            verdict,
            what: format!(
                "cgroup {} is at {:.0} % of its limit: {} of {}",
                cgroup.path,
                used * 100.0,
                bytes(cgroup.usage_bytes),
                bytes(limit)
            ),
            why: limits.why(&CGROUP_MEMORY),
            next: next.to_owned(),
            ..Finding::default()
        })
    })
}

fn figures(reading: &Reading) -> Vec<Figure> {
    let bytes = [
        ("memory_total_bytes", reading.total),
        ("memory_free_bytes", reading.free),
        ("memory_available_bytes", reading.available),
        (
            "memory_used_bytes",
            reading.total.saturating_sub(reading.available),
        ),
        ("memory_buff_cache_bytes", reading.buffers + reading.cached),
        ("memory_shared_bytes", reading.shared),
        ("slab_bytes", reading.slab),
        ("slab_unreclaimable_bytes", reading.slab_unreclaimable),
        ("hugepages_bytes", reading.hugepages),
        ("hugepages_free_bytes", reading.hugepages_free),
        ("swap_total_bytes", reading.swap_total),
        ("swap_free_bytes", reading.swap_free),
    ];
    let mut figures: Vec<Figure> = bytes
        .into_iter()
        .map(|(name, value)| figure(name, value as f64))
        .collect();
    figures.extend(
        reading
            .swap_in_per_s
            .map(|rate| figure("swap_in_pages_per_s", rate)),
    );
    figures.extend(
        reading
            .swap_out_per_s
            .map(|rate| figure("swap_out_pages_per_s", rate)),
    );
    if let Some(pressure) = reading.pressure {
        figures.push(figure("memory_pressure_some_ratio", pressure.some));
        figures.push(figure("memory_pressure_full_ratio", pressure.full));
    }
    for cgroup in &reading.cgroups {
        if let Some(limit) = cgroup.limit_bytes {
            let used = ratio(cgroup.usage_bytes, limit);
            figures.push(figure_of("cgroup_memory_ratio", &cgroup.path, used));
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::{Large, Reading, judge};
    use crate::check::{finding::Verdict, limits::Limits};

    const GIB: u64 = 1 << 30;

    fn calm() -> Reading {
        Reading {
            total: 16 * GIB,
            free: GIB,
            available: 8 * GIB,
            swap_in_per_s: Some(0.0),
            ..Reading::default()
        }
    }

    #[test]
    fn available_memory_counts_and_free_memory_does_not() {
        assert!(judge(&calm(), &Limits::default()).findings.is_empty());
        let short = Reading {
            available: GIB,
            largest: vec![Large {
                pid: 771,
                comm: "java".into(),
                rss: 9 * GIB,
                pss: None,
            }],
            ..calm()
        };
        let report = judge(&short, &Limits::default());
        assert_eq!(report.verdict(), Verdict::Warning);
        assert_eq!(report.findings[0].who, ["java[771] 9.0 GiB (RSS)"]);
        assert!(
            report.findings[0]
                .what
                .starts_with("1.0 GiB available, 6.2 %")
        );
    }

    #[test]
    fn swapping_in_is_found_and_swap_that_is_only_used_is_not() {
        let used = Reading {
            swap_total: GIB,
            ..calm()
        };
        assert_eq!(judge(&used, &Limits::default()).verdict(), Verdict::Ok);
        let thrashing = Reading {
            swap_in_per_s: Some(5000.0),
            ..used
        };
        assert_eq!(
            judge(&thrashing, &Limits::default()).verdict(),
            Verdict::Critical
        );
    }
}
