//! Memory as free(1) and vmstat(8) have it: /proc/meminfo, /proc/vmstat, and pressure.

use std::collections::HashMap;

use crate::{
    check::rows::memory::{Counters, Limited, Pressure, Reader, Reading},
    host::{
        living,
        memory::{MemoryCgroup, MemoryCgroups},
    },
    text::{self, Text},
};

/// Of no more processes of a cgroup is asked what they have read.
const MOST_READERS: usize = 200;

/// Pages that came from and went to swap since boot (`pswpin`, `pswpout`), and the like.
pub(in crate::check) fn counters() -> Option<Counters> {
    let text = text::read("/proc/vmstat").ok()?;
    let of = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.trim().parse().ok())
            .unwrap_or(0)
    };
    Some(Counters {
        swapped_in: of("pswpin"),
        swapped_out: of("pswpout"),
    })
}

/// What is counted at the begin of the sample.
#[derive(Debug, Default)]
pub(in crate::check) struct Before {
    counters: Option<Counters>,
    /// Pages that were read again, by cgroup.
    refaulted: HashMap<u64, u64>,
}

impl Before {
    pub(in crate::check) fn read() -> Self {
        let mut cgroups = MemoryCgroups::new();
        let limited = cgroups.read();
        let limited = limited.iter().filter(|one| one.limit_bytes.is_some());
        let refaulted =
            |cgroup: &MemoryCgroup| Some((cgroup.id, cgroups.cache(cgroup)?.refaulted?));
        Self {
            counters: counters(),
            refaulted: limited.filter_map(refaulted).collect(),
        }
    }
}

/// What there is now; `before` and `seconds` are for the rates.
pub(in crate::check) fn read(before: &Before, seconds: f64) -> Option<Reading> {
    use procfs::Current as _;
    let memory = procfs::Meminfo::current().ok()?;
    let now = counters();
    let rate = |of: fn(&Counters) -> u64| {
        let (before, now) = (before.counters.as_ref()?, now.as_ref()?);
        Some(of(now).saturating_sub(of(before)) as f64 / seconds.max(0.001))
    };
    let pressure = procfs::MemoryPressure::current().ok();
    Some(Reading {
        total: memory.mem_total,
        free: memory.mem_free,
        available: memory.mem_available.unwrap_or(memory.mem_free),
        buffers: memory.buffers,
        cached: memory.cached + memory.s_reclaimable.unwrap_or(0),
        shared: memory.shmem.unwrap_or(0),
        slab: memory.slab,
        slab_unreclaimable: memory.s_unreclaim.unwrap_or(0),
        hugepages: memory.hugepages_total.unwrap_or(0) * memory.hugepagesize.unwrap_or(0),
        hugepages_free: memory.hugepages_free.unwrap_or(0) * memory.hugepagesize.unwrap_or(0),
        swap_total: memory.swap_total,
        swap_free: memory.swap_free,
        swap_in_per_s: rate(|c| c.swapped_in),
        swap_out_per_s: rate(|c| c.swapped_out),
        pressure: pressure.map(|pressure| Pressure {
            some: f64::from(pressure.some.avg10) / 100.0,
            full: f64::from(pressure.full.avg10) / 100.0,
        }),
        hugetlb: memory.hugetlb.unwrap_or(0),
        cgroups: cgroups(before, seconds),
        largest: Vec::new(),
    })
}

/// Cgroups with a limit, what of their memory is cache, and how often that is read again.
fn cgroups(before: &Before, seconds: f64) -> Vec<Limited> {
    let mut cgroups = MemoryCgroups::new();
    let limited = cgroups.read().into_iter().filter_map(|cgroup| {
        let cache = cgroups.cache(&cgroup);
        let refaulted = cache.and_then(|cache| {
            let before = before.refaulted.get(&cgroup.id)?;
            Some(cache.refaulted?.saturating_sub(*before))
        });
        let readers = match refaulted {
            None | Some(0) => Vec::new(),
            Some(_) => readers(cgroups.processes(&cgroup)),
        };
        Some(Limited {
            limit: cgroup.limit_bytes?,
            usage: cgroup.usage_bytes,
            cache: cache.map_or(0, |cache| cache.bytes),
            refaults_per_s: refaulted.map(|pages| pages as f64 / seconds.max(0.001)),
            readers,
            path: cgroup.path,
        })
    });
    limited.collect()
}

/// Of these processes those that have read most from disk so far, the most first.
fn readers(mut pids: Vec<u32>) -> Vec<Reader> {
    pids.truncate(MOST_READERS);
    let reader = |pid: u32| {
        let io = text::read(format!("/proc/{pid}/io")).ok()?;
        let read = io
            .lines()
            .find_map(|line| line.strip_prefix("read_bytes:"))?;
        let comm = text::read(format!("/proc/{pid}/comm")).ok()?;
        Some(Reader {
            pid,
            comm: Text::from(comm.trim_end()),
            read: read.trim().parse().ok()?,
        })
    };
    let mut readers: Vec<Reader> = pids.into_iter().filter_map(reader).collect();
    readers.sort_by_key(|reader| (std::cmp::Reverse(reader.read), reader.pid));
    readers
}

/// The memory of a process in proportion to who shares it (PSS), in bytes.
pub(in crate::check) fn pss(pid: u32) -> Option<u64> {
    let text = text::read(living::path(pid, "smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
