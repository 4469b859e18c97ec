//! What CPUs did: /proc/stat, /proc/interrupts, /proc/softirqs; and threads of processes
//! that matter, with where they may run.

use std::{collections::HashMap, fs, thread, time::Duration};

use procfs::process::Process;

use crate::{
    check::rows::cpu::{Interrupt, Shares, Thread, Ticks},
    text::{self, Text},
};

/// Threads that are looked at, of all processes together.
const MOST_THREADS: usize = 2000;

/// Ticks of a CPU by its number; `None` for all together.
type Stat = HashMap<Option<u32>, Ticks>;

/// Now.
pub(in crate::check) fn stat() -> Stat {
    parse_stat(&text::read("/proc/stat").unwrap_or_default())
}

/// `cpu0 user nice system idle iowait irq softirq steal guest guest_nice`. A CPU that is
/// offline has no line, so the number counts and not the place.
fn parse_stat(text: &str) -> Stat {
    let one = |line: &str| {
        let mut words = line.strip_prefix("cpu")?.split(' ');
        let cpu = match words.next()? {
            "" => None,
            number => Some(number.parse().ok()?),
        };
        let mut numbers = words.filter(|w| !w.is_empty()).map(|w| w.parse().ok());
        let mut next = || numbers.next().flatten().unwrap_or(0);
        let ticks = Ticks {
            user: next(),
            nice: next(),
            system: next(),
            idle: next(),
            iowait: next(),
            irq: next(),
            softirq: next(),
            steal: next(),
        };
        Some((cpu, ticks))
    };
    text.lines().filter_map(one).collect()
}

/// All CPUs together, and each that was online at both ends.
pub(in crate::check) fn shares(before: &Stat, now: &Stat) -> Option<(Shares, Vec<(u32, Shares)>)> {
    let of = |cpu: &Option<u32>| Shares::between(before.get(cpu)?, now.get(cpu)?);
    let mut each: Vec<_> = now
        .keys()
        .filter_map(|cpu| Some(((*cpu)?, of(cpu)?)))
        .collect();
    each.sort_by_key(|(cpu, _)| *cpu);
    Some((of(&None)?, each))
}

/// Interrupts and softirqs since boot.
pub(in crate::check) fn interrupts() -> Vec<Interrupt> {
    let read = |path| fs::read(path).unwrap_or_default();
    let mut all = parse_table(&read("/proc/interrupts"), "interrupt");
    // Of interrupts those of devices: others are each CPU's own.
    all.retain(|interrupt| {
        let number = interrupt.name.as_str().split(' ').nth(1);
        number.is_some_and(|word| word.bytes().all(|b| b.is_ascii_digit()))
    });
    all.extend(parse_table(&read("/proc/softirqs"), "softirq"));
    all
}

/// A line of CPUs, then `NAME: count count .. words`; the last word names the device.
fn parse_table(bytes: &[u8], kind: &str) -> Vec<Interrupt> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let heads = lines.next().unwrap_or_default().split_ascii_whitespace();
    let cpus: Vec<u32> = heads
        .filter_map(|word| word.strip_prefix("CPU")?.parse().ok())
        .collect();
    let one = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let mut words = rest.split_ascii_whitespace();
        let counts: Vec<(u32, u64)> = cpus
            .iter()
            .map_while(|cpu| Some((*cpu, words.next()?.parse().ok()?)))
            .collect();
        let device = words.next_back().unwrap_or_default();
        let name = format!("{kind} {} {device}", name.trim());
        Some(Interrupt {
            name: Text::from(name.trim_end()),
            counts,
        })
    };
    lines.filter_map(one).collect()
}

/// What came between two readings.
pub(in crate::check) fn deltas(before: &[Interrupt], now: &[Interrupt]) -> Vec<Interrupt> {
    let before: HashMap<_, _> = before.iter().map(|i| (&i.name, &i.counts)).collect();
    let one = |now: &Interrupt| {
        let before = before.get(&now.name)?;
        let counts = now.counts.iter().filter_map(|(cpu, count)| {
            let (_, before) = before.iter().find(|(of, _)| of == cpu)?;
            Some((*cpu, count.saturating_sub(*before)))
        });
        Some(Interrupt {
            name: now.name.clone(),
            counts: counts.collect(),
        })
    };
    now.iter().filter_map(one).collect()
}

/// The threads of these processes over so long from now on, the busiest of each first.
pub(in crate::check) fn threads(pids: &[u32], time: Duration) -> HashMap<u32, Vec<Thread>> {
    let before = walk(pids);
    thread::sleep(time);
    let now = walk(pids);
    let mut all: HashMap<u32, Vec<Thread>> = HashMap::new();
    for (tid, (pid, comm, cpu_s, cpu)) in now {
        let used = match before.get(&tid) {
            Some((_, _, before, _)) => (cpu_s - before) / time.as_secs_f64(),
            None => 0.0,
        };
        if used > 0.0 {
            let allowed = allowed(pid, tid);
            let threads = all.entry(pid).or_default();
            threads.push(Thread {
                tid,
                comm,
                used,
                cpu,
                allowed,
            });
        }
    }
    for threads in all.values_mut() {
        threads.sort_by(|a, b| b.used.total_cmp(&a.used));
    }
    all
}

/// By thread id: process id, name, CPU time in seconds, and the CPU it ran on last.
fn walk(pids: &[u32]) -> HashMap<u32, (u32, Text, f64, u32)> {
    let ticks = procfs::ticks_per_second() as f64;
    let tasks = pids.iter().filter_map(|pid| {
        let process = Process::new(i32::try_from(*pid).ok()?).ok()?;
        Some((*pid, process.tasks().ok()?))
    });
    tasks
        .flat_map(|(pid, tasks)| tasks.flatten().map(move |task| (pid, task)))
        .take(MOST_THREADS)
        .filter_map(|(pid, task)| {
            let stat = task.stat().ok()?;
            let cpu = u32::try_from(stat.processor?).ok()?;
            let cpu_s = (stat.utime + stat.stime) as f64 / ticks;
            let comm = Text::from(stat.comm.as_str());
            Some((u32::try_from(task.tid).ok()?, (pid, comm, cpu_s, cpu)))
        })
        .collect()
}

/// `Cpus_allowed_list`; empty where it cannot be read.
fn allowed(pid: u32, tid: u32) -> Vec<(u32, u32)> {
    let status = fs::read(format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
    let mut lines = status.split(|b| *b == b'\n');
    let list = lines.find_map(|line| line.strip_prefix(b"Cpus_allowed_list:"));
    let list = list.and_then(|list| str::from_utf8(list).ok());
    parse_list(list.unwrap_or_default().trim()).unwrap_or_default()
}

/// `0-3,8`.
fn parse_list(list: &str) -> Option<Vec<(u32, u32)>> {
    let one = |range: &str| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    list.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::{deltas, parse_list, parse_stat, parse_table, shares};

    #[test]
    fn ratios_of_cpus_by_their_numbers() {
        let before = parse_stat("cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\nintr 1\n");
        let now = parse_stat(
            "cpu  40 10 20 100 20 0 10 0 5 0\ncpu0 40 10 20 100 20 0 10 0 5 0\n\
             cpu3 1 1 1 1 1 1 1 1 1 1\n",
        );
        let (all, each) = shares(&before, &now).unwrap();
        // Guest time is in user already, and CPU 3 has only come.
        assert_eq!((all.user, all.idle, all.softirq), (0.2, 0.5, 0.05));
        assert_eq!(each, [(0, all)]);
        assert!(shares(&now, &now).is_none());
        assert!(parse_stat("cpufreq 1\ncpux\n").is_empty());
    }

    #[test]
    fn interrupts_by_cpu() {
        let table = |count: u32| {
            let text = format!(
                "      CPU0  CPU2\n 28:  {count}   1  PCI-MSIX  0-edge   eth0-rx\n\
                 ERR:  0\n LOC: 5 6  Local timer interrupts\nrubbish\n"
            );
            parse_table(text.as_bytes(), "interrupt")
        };
        let all = deltas(&table(100), &table(350));
        assert_eq!(all[0].name.as_str(), "interrupt 28 eth0-rx");
        assert_eq!(all[0].counts, [(0, 250), (2, 0)]);
        assert_eq!(all.len(), 3);
        assert!(parse_table(b"\xff\xfe", "softirq").is_empty());
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse_list("0-3,8"), Some(vec![(0, 3), (8, 8)]));
        assert_eq!(parse_list(""), None);
        assert_eq!(parse_list("0-,x"), None);
    }
}
