//! Cgroups with a limit of CPU time: `cpu.stat` of each, in the hierarchy that has the cpu
//! controller, at two moments (`cpu_cfs_stat_show` and `cpu_extra_stat_show`,
//! kernel/sched/core.c).

use std::{
    collections::{HashMap, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use crate::{
    check::rows::cpu::{CpuLimit, Throttled},
    host::cgroups,
    text::{self, Text},
};

/// No more cgroups than this are looked at, level by level.
const MOST: usize = 10_000;
/// Cgroups whose processes are asked for, and how many below each.
const ASKED: usize = 5;
const MOST_BELOW: usize = 100;

/// `default_cfs_period`, kernel/sched/fair.c.
const USUAL_PERIOD_US: f64 = 100_000.0;

/// Counters since the cgroup was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counters {
    periods: u64,
    throttled: u64,
    throttled_ns: u64,
}

/// Every cgroup with a limit, at a moment.
#[derive(Debug, Default)]
pub(in crate::check) struct Cgroups {
    root: Option<PathBuf>,
    counters: HashMap<PathBuf, Counters>,
    is_cut: bool,
}

impl Cgroups {
    /// Now.
    pub(in crate::check) fn read() -> Self {
        let root = cgroups::Cgroups::new().root().map(Path::to_path_buf);
        let mut all = Self::default();
        let mut open: VecDeque<PathBuf> = root.iter().cloned().collect();
        all.root = root;
        let mut seen = 0;
        while let Some(directory) = open.pop_front() {
            if seen == MOST {
                all.is_cut = true;
                break;
            }
            seen += 1;
            let text = text::read(directory.join("cpu.stat"));
            let counters = text.map(|text| parse(&text)).unwrap_or_default();
            open.extend(below(&directory));
            // Without a limit there are no periods.
            if counters.periods > 0 {
                all.counters.insert(directory, counters);
            }
        }
        all
    }

    /// Those that had periods since then, the most throttled first; and whether some were
    /// left out. One that has come since is taken from its begin.
    pub(in crate::check) fn since(&self, seconds: f64) -> (Vec<Throttled>, bool) {
        let now = Self::read();
        let root = now.root.clone().unwrap_or_default();
        let mut all: Vec<(PathBuf, Throttled)> = Vec::new();
        for (directory, counters) in now.counters {
            let before = self.counters.get(&directory).copied().unwrap_or_default();
            let since = |now: u64, before: u64| now.saturating_sub(before);
            let periods = since(counters.periods, before.periods);
            if periods == 0 {
                continue;
            }
            let path = directory.strip_prefix(&root).unwrap_or(&directory);
            let mut name = b"/".to_vec();
            name.extend_from_slice(path.as_os_str().as_encoded_bytes());
            let limit = limit(&directory);
            let period_us = limit.as_ref().map_or(USUAL_PERIOD_US, |l| l.period_us);
            let throttled = Throttled {
                path: Text::from_bytes(&name),
                limit: limit.filter(|limit| limit.quota_us > 0.0),
                periods,
                periods_in_all: (seconds * 1e6 / period_us) as u64,
                throttled: since(counters.throttled, before.throttled),
                throttled_ns: since(counters.throttled_ns, before.throttled_ns),
                pids: Vec::new(),
            };
            all.push((directory, throttled));
        }
        all.sort_by(|(_, a), (_, b)| {
            let ratios = b.ratio().total_cmp(&a.ratio());
            ratios.then(a.path.cmp(&b.path))
        });
        for (directory, throttled) in all.iter_mut().take(ASKED) {
            throttled.pids = pids(directory);
        }
        let all = all.into_iter().map(|(_, throttled)| throttled).collect();
        (all, self.is_cut || now.is_cut)
    }
}

/// The limit as it is now, by the files of either version.
fn limit(directory: &Path) -> Option<CpuLimit> {
    let read = |name: &str| text::read(directory.join(name)).ok();
    let v2 = || {
        let text = read("cpu.max")?;
        let (quota, period) = text.trim().split_once(' ')?;
        CpuLimit::new("cpu.max", quota, period)
    };
    let v1 = || {
        let (quota, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
        CpuLimit::new("cpu.cfs_quota_us", quota.trim(), period.trim())
    };
    v2().or_else(v1)
}

impl CpuLimit {
    /// From the text of the files; `max` or -1 is no limit.
    fn new(file: &'static str, quota: &str, period: &str) -> Option<Self> {
        let period_us: f64 = period.parse().ok()?;
        Some(Self {
            file,
            quota_us: quota.parse().unwrap_or(0.0),
            period_us: period_us.max(1000.0),
        })
    }
}

/// v1 has nanoseconds, v2 microseconds.
fn parse(text: &str) -> Counters {
    let mut counters = Counters::default();
    for line in text.lines() {
        let Some((name, number)) = line.split_once(' ') else {
            continue;
        };
        let number: u64 = number.trim().parse().unwrap_or(0);
        match name {
            "nr_periods" => counters.periods = number,
            "nr_throttled" => counters.throttled = number,
            "throttled_time" => counters.throttled_ns = number,
            "throttled_usec" => counters.throttled_ns = number.saturating_mul(1000),
            _ => {}
        }
    }
    counters
}

pub(super) fn below(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

/// Processes in a cgroup and in those below it.
pub(super) fn pids(directory: &Path) -> Vec<u32> {
    let mut open = VecDeque::from([directory.to_path_buf()]);
    let mut pids = Vec::new();
    for _ in 0..MOST_BELOW {
        let Some(directory) = open.pop_front() else {
            break;
        };
        let text = text::read(directory.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        open.extend(below(&directory));
    }
    pids
}

#[cfg(test)]
mod tests {
    use super::{Counters, CpuLimit, parse};

    #[test]
    fn a_limit_is_so_many_cpus() {
        let cpus = |quota| CpuLimit::new("cpu.max", quota, "100000").unwrap().quota_us / 1e5;
        assert_eq!(cpus("50000"), 0.5);
        assert_eq!(cpus("max"), 0.0);
        assert_eq!(cpus("-1"), -0.00001);
        assert_eq!(CpuLimit::new("cpu.max", "1", "x"), None);
    }

    #[test]
    fn both_versions() {
        let counters = Counters {
            periods: 50,
            throttled: 20,
            throttled_ns: 3_000_000,
        };
        for text in [
            "nr_periods 50\nnr_throttled 20\nthrottled_time 3000000\nnr_bursts 0\n",
            "usage_usec 9\nnr_periods 50\nnr_throttled 20\nthrottled_usec 3000\n",
        ] {
            assert_eq!(parse(text), counters);
        }
        assert_eq!(parse("nr_periods x\nrubbish\n"), Counters::default());
    }
}
