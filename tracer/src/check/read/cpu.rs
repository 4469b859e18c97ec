//! What CPUs do: /proc/stat, /proc/interrupts, and cgroups that are held by their limit.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use procfs::CurrentSI as _;

use crate::{
    check::rows::cpu::{Interrupts, Throttled, Times},
    host::mountinfo::Line,
    text::Text,
};

/// No more cgroups than this are looked at.
const MOST_CGROUPS: usize = 10_000;

/// Ticks of each CPU since boot, by its number.
pub(in crate::check) fn times() -> HashMap<u32, Times> {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let one = |line: &str| {
        let mut words = line.strip_prefix("cpu")?.split_ascii_whitespace();
        let cpu = words.next()?.parse().ok()?;
        let mut times = [0; 8];
        for (time, word) in times.iter_mut().zip(words) {
            *time = word.parse().ok()?;
        }
        Some((cpu, Times(times)))
    };
    // The first line is of all, and has no number.
    text.lines().filter_map(one).collect()
}

/// How often each interrupt came to each CPU since boot.
pub(in crate::check) fn interrupts() -> Interrupts {
    let text = fs::read_to_string("/proc/interrupts").unwrap_or_default();
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let cpus = head.split_ascii_whitespace();
    let cpus: Vec<u32> = cpus
        .filter_map(|cpu| cpu.strip_prefix("CPU")?.parse().ok())
        .collect();
    let one = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        let counts: HashMap<u32, u64> = cpus
            .iter()
            .zip(&words)
            .filter_map(|(cpu, word)| Some((*cpu, word.parse().ok()?)))
            .collect();
        let device = words.get(cpus.len()..).unwrap_or_default().join(" ");
        let name = format!("{} {device}", name.trim());
        Some((Text::from(name.trim()), counts))
    };
    Interrupts(lines.filter_map(one).collect())
}

/// How often cgroups were held by their CPU limit since they exist: `nr_periods` and
/// `nr_throttled` of cpu.stat, by path.
pub(in crate::check) fn throttled() -> HashMap<Text, Throttled> {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let has_cpu = |line: &Line<'_>| match line.kind {
        b"cgroup2" => true,
        b"cgroup" => line.has_option(b"cpu"),
        _ => false,
    };
    let mut all = HashMap::new();
    for line in Line::all(&mounts).filter(has_cpu) {
        let Ok(root) = String::from_utf8(crate::host::mountinfo::unescape(line.point)) else {
            continue;
        };
        let root = PathBuf::from(root);
        let mut left = vec![root.clone()];
        let mut seen = 0;
        while let Some(directory) = left.pop() {
            seen += 1;
            if seen > MOST_CGROUPS {
                break;
            }
            if let Some(throttled) = stat(&directory) {
                let path = directory.strip_prefix(&root).unwrap_or(Path::new(""));
                let path = format!("/{}", path.to_string_lossy());
                all.insert(Text::from(path.as_str()), throttled);
            }
            let Ok(below) = fs::read_dir(&directory) else {
                continue;
            };
            let below = below.flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            left.extend(below.map(|entry| entry.path()));
        }
    }
    all
}

/// `None` where no period was ever counted: there is no limit.
fn stat(directory: &Path) -> Option<Throttled> {
    let text = fs::read_to_string(directory.join("cpu.stat")).ok()?;
    let of = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line?.trim().parse().ok()
    };
    let throttled = Throttled {
        periods: of("nr_periods")?,
        throttled: of("nr_throttled")?,
    };
    (throttled.periods > 0).then_some(throttled)
}

/// The CPUs that a process may run on, as the kernel lists them: `0-3,8`.
pub(in crate::check) fn allowed(pid: u32) -> Option<String> {
    let status = procfs::process::Process::new(i32::try_from(pid).ok()?)
        .ok()?
        .status()
        .ok()?;
    let allowed = status.cpus_allowed_list?;
    let range = |(from, to): &(u32, u32)| match from == to {
        true => from.to_string(),
        false => format!("{from}-{to}"),
    };
    Some(allowed.iter().map(range).collect::<Vec<_>>().join(","))
}

/// How many CPUs there are, by the same list.
pub(in crate::check) fn online() -> usize {
    procfs::KernelStats::current().map_or(1, |stats| stats.cpu_time.len().max(1))
}
