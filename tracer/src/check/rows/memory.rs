//! Memory: what is left, swap, pressure, cgroups near their limit.

use std::time::Duration;

use crate::{
    check::{
        context::Context,
        finding::{Figure, Finding, Row, RowReport, Verdict, figure, figure_of},
        limits::{
            CGROUP_MEMORY, CGROUP_REFAULTS, Limits, MEMORY_AVAILABLE, MEMORY_LEFT, MEMORY_PRESSURE,
            SLAB, SWAP_IN,
        },
        read,
    },
    clock,
    render::quantity::{bytes, compact},
    text::Text,
};

/// Processes that are named.
const NAMED: usize = 3;
/// A cgroup is at its limit with this part of it in use: the kernel takes back in batches.
const FULL: f64 = 0.9;
/// So long the memory of one may take: who holds its mmap_lock may not answer.
const PSS_PATIENCE: Duration = Duration::from_millis(500);

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
    /// Memory in huge pages of every size, used or not.
    pub(in crate::check) hugetlb: u64,
    pub(in crate::check) swap_total: u64,
    pub(in crate::check) swap_free: u64,
    pub(in crate::check) swap_in_per_s: Option<f64>,
    pub(in crate::check) swap_out_per_s: Option<f64>,
    pub(in crate::check) pressure: Option<Pressure>,
    pub(in crate::check) cgroups: Vec<Limited>,
    pub(in crate::check) largest: Vec<Large>,
}

/// A cgroup with a limit of memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Limited {
    pub(in crate::check) path: Text,
    pub(in crate::check) limit: u64,
    pub(in crate::check) usage: u64,
    /// The part of the usage that is cache of files, which goes when it is in the way.
    pub(in crate::check) cache: u64,
    /// Pages of files that it had given up, and that were read again; `None` where the kernel
    /// does not count them, or the cgroup is new.
    pub(in crate::check) refaults_per_s: Option<f64>,
    /// Its processes, those first that have read most; none where nothing was read again.
    pub(in crate::check) readers: Vec<Reader>,
}

/// A process that reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Reader {
    pub(in crate::check) pid: u32,
    pub(in crate::check) comm: Text,
    /// From disk, since it began, in bytes.
    pub(in crate::check) read: u64,
}

impl Limited {
    /// What does not go by itself.
    fn held(&self) -> u64 {
        self.usage.saturating_sub(self.cache)
    }
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
    let (before, began) = (read::memory::Before::read(), clock::monotonic());
    let seconds = context.wait(began);
    let Some(mut reading) = read::memory::read(&before, seconds) else {
        return RowReport::blind(Row::Memory, "/proc/meminfo cannot be read");
    };
    let mut processes: Vec<_> = context.processes().now.values().collect();
    processes.sort_by_key(|process| (std::cmp::Reverse(process.rss_bytes), process.pid));
    let large = processes.into_iter().take(NAMED).map(|process| Large {
        pid: process.pid,
        comm: process.comm.clone(),
        rss: process.rss_bytes,
        pss: read::within(PSS_PATIENCE, {
            let pid = process.pid;
            move || read::memory::pss(pid)
        })
        .ok()
        .flatten(),
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
    // Huge pages are set aside: nobody else can have them, and nobody misses them.
    let common = reading.total.saturating_sub(reading.hugetlb);
    let available = ratio(reading.available, common);
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
    let by_part = limits.judge(&MEMORY_AVAILABLE, available);
    let verdict = by_part.min(limits.judge(&MEMORY_LEFT, reading.available as f64));
    if verdict > Verdict::Ok {
        let without = match reading.hugetlb {
            0 => String::new(),
            hugetlb => format!(", {} in huge pages left out", bytes(hugetlb)),
        };
        report.findings.push(Finding {
            verdict,
            what: format!(
                "{} available, {:.1} % of {}{without}",
                bytes(reading.available),
                available * 100.0,
                bytes(common)
            ),
            who: largest(reading),
            why: format!(
                "{}; {}",
                limits.why(&MEMORY_AVAILABLE),
                limits.why(&MEMORY_LEFT)
            ),
            next: next.clone(),
        });
    }
    if let Some(pressure) = reading.pressure
        && let verdict @ (Verdict::Warning | Verdict::Critical) =
            limits.judge(&MEMORY_PRESSURE, pressure.full)
    {
        report.findings.push(Finding {
            verdict,
            what: format!(
                "all tasks waited for memory in {:.0} % of the last 10 s",
                pressure.full * 100.0
            ),
            who: largest(reading),
            why: limits.why(&MEMORY_PRESSURE),
            next: "sudo tracer run --by cause".to_owned(),
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
    report.findings.extend(thrashing(reading, limits));
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
        let used = ratio(cgroup.held(), cgroup.limit);
        let verdict = limits.judge(&CGROUP_MEMORY, used);
        let cache = match cgroup.cache {
            0 => String::new(),
            cache => format!(", and {} of cache, which can go", bytes(cache)),
        };
        (verdict > Verdict::Ok).then(|| Finding {
            verdict,
            what: format!(
                "cgroup {} is at {:.0} % of its limit: {} of {}{cache}",
                cgroup.path,
                used * 100.0,
                bytes(cgroup.held()),
                bytes(cgroup.limit)
            ),
            why: limits.why(&CGROUP_MEMORY),
            next: next.to_owned(),
            ..Finding::default()
        })
    })
}

/// Cgroups that read the same files again and again, as their limit leaves too little for the
/// page cache. Those with room give pages up for another reason.
fn thrashing<'a>(reading: &'a Reading, limits: &'a Limits) -> impl Iterator<Item = Finding> + 'a {
    reading.cgroups.iter().filter_map(|cgroup| {
        let per_s = cgroup.refaults_per_s?;
        let verdict = limits.judge(&CGROUP_REFAULTS, per_s);
        let is_full = ratio(cgroup.usage, cgroup.limit) >= FULL;
        let reader =
            |one: &Reader| format!("{}[{}] has read {}", one.comm, one.pid, bytes(one.read));
        (is_full && verdict > Verdict::Ok).then(|| Finding {
            verdict,
            what: format!(
                "cgroup {} reads its own files again and again: {} pages a second that it had \
                 given up; its page cache has {} of a limit of {}",
                cgroup.path,
                compact(per_s),
                bytes(cgroup.cache),
                bytes(cgroup.limit)
            ),
            who: cgroup.readers.iter().take(NAMED).map(reader).collect(),
            why: limits.why(&CGROUP_REFAULTS),
            next: "sudo tracer load --by cgroup".to_owned(),
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
        ("hugetlb_bytes", reading.hugetlb),
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
        let used = ratio(cgroup.held(), cgroup.limit);
        figures.push(figure_of("cgroup_memory_ratio", &cgroup.path, used));
        let refaults = cgroup.refaults_per_s;
        figures.extend(
            refaults.map(|per_s| figure_of("cgroup_refault_pages_per_s", &cgroup.path, per_s)),
        );
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::{Large, Limited, Pressure, Reader, Reading, judge};
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
    fn a_small_part_of_much_memory_is_enough() {
        let verdict = |reading: &Reading| judge(reading, &Limits::default()).verdict();
        let large = Reading {
            total: 1024 * GIB,
            available: 40 * GIB,
            ..calm()
        };
        assert_eq!(verdict(&large), Verdict::Ok);
        let database = Reading {
            total: 256 * GIB,
            hugetlb: 240 * GIB,
            available: 6 * GIB,
            ..calm()
        };
        assert_eq!(verdict(&database), Verdict::Ok);
        let short = Reading {
            available: GIB / 2,
            ..database
        };
        assert_eq!(verdict(&short), Verdict::Critical);
    }

    #[test]
    fn waiting_for_memory_is_found() {
        let waiting = Reading {
            pressure: Some(Pressure {
                some: 0.6,
                full: 0.2,
            }),
            ..calm()
        };
        let report = judge(&waiting, &Limits::default());
        assert_eq!(report.verdict(), Verdict::Warning);
        assert_eq!(
            report.findings[0].what,
            "all tasks waited for memory in 20 % of the last 10 s"
        );
    }

    #[test]
    fn a_cgroup_that_is_full_of_cache_is_well() {
        let cgroup = |cache| Reading {
            cgroups: vec![Limited {
                path: "/backup".into(),
                limit: 2 * GIB,
                usage: 2 * GIB,
                cache,
                ..Limited::default()
            }],
            ..calm()
        };
        let report = |cache| judge(&cgroup(cache), &Limits::default());
        assert_eq!(report(GIB).verdict(), Verdict::Ok);
        let full = report(GIB / 8);
        assert_eq!(full.verdict(), Verdict::Warning);
        assert_eq!(
            full.findings[0].what,
            "cgroup /backup is at 94 % of its limit: 1.9 GiB of 2.0 GiB, and 128.0 MiB of \
             cache, which can go"
        );
    }

    #[test]
    fn a_cgroup_whose_page_cache_is_too_small_is_found() {
        let cgroup = |usage, per_s| Reading {
            cgroups: vec![Limited {
                path: "/search".into(),
                limit: GIB,
                usage,
                cache: GIB / 2,
                refaults_per_s: Some(per_s),
                readers: vec![Reader {
                    pid: 9,
                    comm: "lucene".into(),
                    read: 3 * GIB,
                }],
            }],
            ..calm()
        };
        let report = |usage, per_s| judge(&cgroup(usage, per_s), &Limits::default());
        let thrashing = report(GIB, 28_000.0);
        assert_eq!(thrashing.verdict(), Verdict::Warning);
        assert_eq!(
            thrashing.findings[0].what,
            "cgroup /search reads its own files again and again: 28,000 pages a second that it \
             had given up; its page cache has 512.0 MiB of a limit of 1.0 GiB"
        );
        assert_eq!(thrashing.findings[0].who, ["lucene[9] has read 3.0 GiB"]);
        // Some pages always come back; with room left it is no limit that takes them.
        assert_eq!(report(GIB, 500.0).verdict(), Verdict::Ok);
        assert_eq!(report(GIB / 2, 28_000.0).verdict(), Verdict::Ok);
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
