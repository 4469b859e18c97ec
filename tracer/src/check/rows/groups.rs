//! Who makes the load: the groups that the rows of the load and of the CPUs name, by the
//! kernel's own times. Processes that ended are among them, by name, and with who made
//! them: of a storm of short ones nothing else is left.

use crate::{
    render::quantity::counted,
    snapshot::{Group, LoadBreakdown},
};

/// A group below is not named: so small a part of a CPU does no harm.
const LEAST: f64 = 0.05;

/// The groups with the most of something, each in a line.
pub(super) fn most(
    load: &LoadBreakdown,
    of: fn(&Group) -> f64,
    line: fn(&Group) -> String,
    named: usize,
) -> Vec<String> {
    let mut groups: Vec<&Group> = load.groups.iter().filter(|g| of(g) >= LEAST).collect();
    groups.sort_by(|a, b| of(b).total_cmp(&of(a)));
    groups.into_iter().take(named).map(line).collect()
}

/// `gzip[12] 0.98 of a CPU`.
pub(super) fn cpu(group: &Group) -> String {
    format!(
        "{} {:.2} of a CPU{}",
        name(group),
        group.mean.running,
        ended(group)
    )
}

/// What it does, and what it is blocked by most.
pub(super) fn tasks(group: &Group) -> String {
    let mut line = name(group);
    for (word, tasks) in [
        ("running", group.mean.running),
        ("waiting", group.mean.waiting),
        ("throttled", group.mean.throttled),
        ("blocked", group.mean.blocked),
    ] {
        if tasks >= LEAST {
            line += &format!(" {word} {tasks:.2}");
        }
    }
    if let Some(cause) = group.causes.first().filter(|_| group.mean.blocked >= LEAST) {
        line += &format!(" on {}", cause.cause);
        if let Some(detail) = &cause.detail {
            line += &format!(" {detail}");
        }
    }
    line + &ended(group)
}

/// `gzip[12]`, `cc1[exited]`.
fn name(group: &Group) -> String {
    let comm = group.comm.clone().unwrap_or_default();
    match group.pid {
        Some(pid) => format!("{comm}[{pid}]"),
        None => format!("{comm}[exited]"),
    }
}

/// How many ended, and who made them.
fn ended(group: &Group) -> String {
    if group.pid.is_some() || group.exited == 0 {
        return String::new();
    }
    let tasks = counted(group.exited, "task");
    match &group.made_by {
        Some((pid, comm)) => format!(", {tasks} that ended, made by {comm}[{pid}]"),
        None => format!(", {tasks} that ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::{cpu, most};
    use crate::snapshot::{Group, LoadBreakdown, TaskMean};

    /// `make -j8` of very short processes: what runs has ended.
    #[test]
    fn processes_that_ended_are_named_with_who_made_them() {
        let group = |pid, comm: &str, running| Group {
            pid,
            comm: Some(comm.into()),
            mean: TaskMean {
                running,
                ..TaskMean::default()
            },
            ..Group::default()
        };
        let load = LoadBreakdown {
            groups: vec![
                group(Some(7), "make", 0.06),
                group(Some(8), "sshd", 0.01),
                Group {
                    exited: 214,
                    made_by: Some((7, "make".into())),
                    ..group(None, "cc1", 1.13)
                },
            ],
            ..LoadBreakdown::default()
        };
        assert_eq!(
            most(&load, |group| group.mean.running, cpu, 5),
            [
                "cc1[exited] 1.13 of a CPU, 214 tasks that ended, made by make[7]",
                "make[7] 0.06 of a CPU"
            ]
        );
    }
}
