//! Processes: zombies and whose they are, tasks that are blocked for long, and how much of
//! the table of processes is left.

use std::collections::BTreeMap;

use crate::{
    check::{
        context::Context,
        finding::{Finding, Row, RowReport, Verdict, figure, figure_of},
        limits::{BLOCKED_AGE, CGROUP_PIDS, Limits, PIDS, ZOMBIES},
        read::{self, processes::Processes},
    },
    host::wchan,
    render::quantity::{age, counted, grouped},
    snapshot::{BlockedTask, Role},
    text::Text,
};

/// Culprits that are named.
const NAMED: usize = 5;

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Reading {
    pub(in crate::check) processes: u64,
    /// Of the whole kernel, its own among them; zombies too until they are waited for.
    pub(in crate::check) threads: u64,
    pub(in crate::check) pid_max: Option<u64>,
    pub(in crate::check) threads_max: Option<u64>,
    /// Those at the end of the sample.
    pub(in crate::check) zombies: u64,
    /// Those that were zombies at its begin as well: nobody waits for them.
    pub(in crate::check) left: Vec<Zombie>,
    pub(in crate::check) blocked: Blocked,
    /// The cgroups that are the nearest to their limit of tasks, the fullest first.
    pub(in crate::check) cgroups: Vec<FullCgroup>,
    /// Whether some cgroups were not looked at.
    pub(in crate::check) is_cut: bool,
    /// The names with the most threads: threads, then processes.
    pub(in crate::check) largest: Vec<(Text, u64, u64)>,
}

/// A cgroup with a limit of tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct FullCgroup {
    pub(in crate::check) path: Text,
    /// Tasks in it and below it.
    pub(in crate::check) tasks: u64,
    /// `pids.max`.
    pub(in crate::check) most: u64,
    /// Forks that were refused since it was made.
    pub(in crate::check) refused: u64,
    /// Its processes by name: how many, and one of them; the most first.
    pub(in crate::check) names: Vec<(Text, u64, u32)>,
}

impl FullCgroup {
    /// The part of the limit that is in use.
    pub(in crate::check) fn ratio(&self) -> f64 {
        self.tasks as f64 / self.most.max(1) as f64
    }
}

/// A child that ended and that its parent does not wait for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Zombie {
    pub(in crate::check) pid: u32,
    pub(in crate::check) comm: Text,
    pub(in crate::check) parent: u32,
    pub(in crate::check) parent_comm: Text,
}

/// Tasks in uninterruptible sleep.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::check) enum Blocked {
    /// From the kernel's events: each task since when, also from before the look.
    Watched {
        /// How many there are, those that are not listed included.
        total: u64,
        /// The longest first.
        tasks: Vec<BlockedTask>,
    },
    /// From /proc: processes that were so at both ends of the sample.
    Seen {
        /// Those that are so at the end.
        total: u64,
        /// Those that were so at the begin as well.
        still: Vec<Sleeper>,
        /// Why the kernel's events could not be had.
        why: String,
    },
}

impl Default for Blocked {
    fn default() -> Self {
        Self::Watched {
            total: 0,
            tasks: Vec::new(),
        }
    }
}

/// A process that was in uninterruptible sleep twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Sleeper {
    pub(in crate::check) pid: u32,
    pub(in crate::check) comm: Text,
    /// The kernel function that it sleeps in; `None` where that may not be read.
    pub(in crate::check) sleeps_in: Option<Text>,
}

/// Looks at both ends of the sample.
pub(super) fn look(context: &Context) -> RowReport {
    let processes = context.processes();
    let blocked = match context.watched() {
        Ok(watched) => Blocked::Watched {
            total: watched.snapshot.blocked_total,
            tasks: watched.snapshot.blocked.clone(),
        },
        Err(why) => seen(processes, why),
    };
    let limits = read::pids::limits();
    let (cgroups, is_cut) = read::pids_cgroups::read();
    let reading = Reading {
        processes: processes.now.len() as u64,
        threads: read::pids::threads()
            .unwrap_or_else(|| processes.now.values().map(|p| p.threads).sum()),
        pid_max: limits.0,
        threads_max: limits.1,
        zombies: processes.now.values().filter(|p| p.is_zombie()).count() as u64,
        left: left(processes),
        blocked,
        cgroups,
        is_cut,
        largest: largest(processes),
    };
    let report = judge(&reading, &context.limits);
    if processes.now.is_empty() {
        return report.blinded(read::descriptors::NO_PROCESSES);
    }
    report
}

fn seen(processes: &Processes, why: &str) -> Blocked {
    let is_blocked = |pid: u32| {
        let before = processes.before.get(&pid).filter(|p| p.state == 'D');
        before.map(|p| p.start_ticks)
    };
    let now = processes.now.values().filter(|p| p.state == 'D');
    let mut still: Vec<Sleeper> = now
        .clone()
        .filter(|p| is_blocked(p.pid) == Some(p.start_ticks))
        .map(|p| Sleeper {
            pid: p.pid,
            comm: p.comm.clone(),
            sleeps_in: wchan::of(p.pid),
        })
        .collect();
    still.sort_by_key(|sleeper| sleeper.pid);
    Blocked::Seen {
        total: now.count() as u64,
        still,
        why: why.to_owned(),
    }
}

fn left(processes: &Processes) -> Vec<Zombie> {
    let was_zombie = |pid: u32, start: u64| {
        let before = processes.before.get(&pid);
        before.is_some_and(|p| p.is_zombie() && p.start_ticks == start)
    };
    let zombies = processes.now.values().filter(|p| p.is_zombie());
    let mut left: Vec<_> = zombies
        .filter(|p| was_zombie(p.pid, p.start_ticks))
        .map(|p| Zombie {
            pid: p.pid,
            comm: p.comm.clone(),
            parent: p.parent,
            parent_comm: processes
                .now
                .get(&p.parent)
                .map(|parent| parent.comm.clone())
                .unwrap_or_default(),
        })
        .collect();
    left.sort_by_key(|zombie| zombie.pid);
    left
}

fn largest(processes: &Processes) -> Vec<(Text, u64, u64)> {
    let mut by_name: BTreeMap<&Text, (u64, u64)> = BTreeMap::new();
    for process in processes.now.values() {
        let (threads, count) = by_name.entry(&process.comm).or_default();
        *threads += process.threads;
        *count += 1;
    }
    let mut all: Vec<_> = by_name
        .into_iter()
        .map(|(name, (threads, count))| (name.clone(), threads, count))
        .collect();
    all.sort_by_key(|(_, threads, _)| std::cmp::Reverse(*threads));
    all.truncate(NAMED);
    all
}

/// From a reading to a report.
pub(in crate::check) fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let blocked = match &reading.blocked {
        Blocked::Watched { total, .. } | Blocked::Seen { total, .. } => *total,
    };
    let summary = format!(
        "{} processes with {}   {}   {} blocked",
        grouped(reading.processes),
        counted(reading.threads, "thread"),
        counted(reading.zombies, "zombie"),
        grouped(blocked),
    );
    let mut figures = vec![
        figure("processes", reading.processes as f64),
        figure("threads", reading.threads as f64),
        figure("zombies", reading.zombies as f64),
        figure("blocked_tasks", blocked as f64),
    ];
    figures.extend(reading.pid_max.map(|max| figure("pid_max", max as f64)));
    let threads_max = reading.threads_max;
    figures.extend(threads_max.map(|max| figure("threads_max", max as f64)));
    let most = [reading.pid_max, threads_max].into_iter().flatten().min();
    let used = most.map(|most| reading.threads as f64 / most.max(1) as f64);
    figures.extend(used.map(|used| figure("pids_used_ratio", used)));
    for cgroup in &reading.cgroups {
        figures.push(figure_of(CGROUP_PIDS.name, &cgroup.path, cgroup.ratio()));
    }
    let mut report = RowReport::new(Row::Processes, summary, figures);
    report.findings.extend(zombies(reading, limits));
    report.findings.extend(match &reading.blocked {
        Blocked::Watched { tasks, .. } => watched_long(tasks, limits),
        Blocked::Seen { still, .. } => seen_twice(still),
    });
    report.findings.extend(table(reading, most, used, limits));
    let full = reading.cgroups.iter();
    report
        .findings
        .extend(full.filter_map(|one| full_cgroup(one, limits)));
    if reading.is_cut {
        let unseen = "the limits of tasks of cgroups beyond the first 10,000";
        report.unseen.push(unseen.to_owned());
    }
    if let Blocked::Seen { why, .. } = &reading.blocked {
        report.unseen.push(format!(
            "since when tasks are blocked, by what, and threads other than the first of a \
             process: {why}"
        ));
    }
    report
}

fn zombies(reading: &Reading, limits: &Limits) -> Option<Finding> {
    let verdict = limits.judge(&ZOMBIES, reading.left.len() as f64);
    if verdict == Verdict::Ok {
        return None;
    }
    let mut parents: BTreeMap<u32, Vec<&Zombie>> = BTreeMap::new();
    for zombie in &reading.left {
        parents.entry(zombie.parent).or_default().push(zombie);
    }
    let mut parents: Vec<_> = parents.into_values().collect();
    parents.sort_by_key(|zombies| std::cmp::Reverse(zombies.len()));
    let worst = parents.first().and_then(|zombies| zombies.first())?;
    let next = format!(
        "ps -o pid,stat,etime,comm --ppid {pid}; only the end of {pid} removes them for it",
        pid = worst.parent
    );
    let who = parents.iter().take(NAMED).filter_map(|zombies| {
        let first = zombies.first()?;
        Some(format!(
            "{}[{}] has {}, e.g. {}[{}]",
            first.parent_comm,
            first.parent,
            counted(zombies.len() as u64, "zombie"),
            first.comm,
            first.pid
        ))
    });
    Some(Finding {
        verdict,
        what: format!(
            "{} that nobody waited for during the sample",
            counted(reading.left.len() as u64, "zombie")
        ),
        who: who.collect(),
        why: limits.why(&ZOMBIES),
        next,
    })
}

fn watched_long(tasks: &[BlockedTask], limits: &Limits) -> Option<Finding> {
    let of = |task: &BlockedTask| limits.judge(&BLOCKED_AGE, task.age_ns as f64 / 1e9);
    let long: Vec<_> = tasks.iter().filter(|t| of(t) > Verdict::Ok).collect();
    let longest = long.iter().max_by_key(|task| task.age_ns)?;
    let are = if long.len() == 1 { "is" } else { "are" };
    Some(Finding {
        verdict: of(longest),
        what: format!(
            "{} {are} blocked for long, the longest for {}",
            counted(long.len() as u64, "task"),
            age(longest.age_ns)
        ),
        who: long.iter().take(NAMED).map(|task| blocked(task)).collect(),
        why: limits.why(&BLOCKED_AGE),
        next: "sudo tracer run --by cause".to_owned(),
    })
}

/// `cp[71] for 4 m 12 s: nfs nas:/x, behind kworker[9], which sleeps in rpc_wait`.
fn blocked(task: &BlockedTask) -> String {
    let mut line = format!("{}[{}]", task.comm, task.pid);
    if task.tid != task.pid {
        line += &format!(" thread {}", task.tid);
    }
    line += &format!(" for {}: {}", age(task.age_ns), task.cause);
    if let Some(detail) = &task.detail {
        line += &format!(" {detail}");
    }
    for link in &task.waits_for {
        let role = match link.role {
            Role::Holder => "held by",
            Role::Child => "waits for its child",
        };
        line += &format!(", {role} {}[{}]", link.comm, link.pid);
        if let Some(function) = &link.sleeps_in {
            line += &format!(", which sleeps in {function}");
        } else if let Some(cause) = link.cause {
            line += &format!(", which is blocked itself: {cause}");
        }
    }
    line
}

/// How long is not known, so this is no more than a note.
fn seen_twice(still: &[Sleeper]) -> Option<Finding> {
    let one = |sleeper: &Sleeper| match &sleeper.sleeps_in {
        Some(function) => format!("{}[{}] in {function}", sleeper.comm, sleeper.pid),
        None => format!("{}[{}]", sleeper.comm, sleeper.pid),
    };
    (!still.is_empty()).then(|| Finding {
        verdict: Verdict::Note,
        what: format!(
            "{} blocked at the begin of the sample and at its end",
            counted(still.len() as u64, "task")
        ),
        who: still.iter().take(NAMED).map(one).collect(),
        why: "it may have been one time or many: only the kernel's events tell".to_owned(),
        next: "sudo tracer events --min-block 1s".to_owned(),
    })
}

/// A cgroup that has as many tasks as it may.
fn full_cgroup(cgroup: &FullCgroup, limits: &Limits) -> Option<Finding> {
    let verdict = limits.judge(&CGROUP_PIDS, cgroup.ratio());
    let refused = match cgroup.refused {
        0 => String::new(),
        count => format!("; {} were refused", counted(count, "fork")),
    };
    let one = |(name, count, pid): &(Text, u64, u32)| match count {
        1 => format!("{name}[{pid}]"),
        count => format!("{name}: {}, one of them {pid}", counted(*count, "process")),
    };
    (verdict > Verdict::Ok).then(|| Finding {
        verdict,
        what: format!(
            "cgroup {} has {} of the {} it may (pids.max){refused}",
            cgroup.path,
            counted(cgroup.tasks, "task"),
            grouped(cgroup.most)
        ),
        who: cgroup.names.iter().take(NAMED).map(one).collect(),
        why: limits.why(&CGROUP_PIDS),
        next: format!("systemd-cgls {}", cgroup.path),
    })
}

fn table(
    reading: &Reading,
    most: Option<u64>,
    used: Option<f64>,
    limits: &Limits,
) -> Option<Finding> {
    let (most, used) = (most?, used?);
    let verdict = limits.judge(&PIDS, used);
    let one = |(name, threads, processes): &(Text, u64, u64)| {
        let processes = counted(*processes, "process");
        format!("{name}: {} in {processes}", counted(*threads, "thread"))
    };
    (verdict > Verdict::Ok).then(|| Finding {
        verdict,
        what: format!(
            "{} of {} threads and processes there can be",
            grouped(reading.threads),
            grouped(most)
        ),
        who: reading.largest.iter().map(one).collect(),
        why: limits.why(&PIDS),
        next: "sysctl kernel.pid_max kernel.threads-max".to_owned(),
    })
}

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;
