//! The words of every output, in one place so that all formats say the same.

use super::quantity::counted;
use crate::snapshot::{GroupBy, Rows, Start, Verdict};

/// The verdict's fixed word.
pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Idle => "idle",
        Verdict::MostlyRunning => "mostly_running",
        Verdict::MostlyWaiting => "mostly_waiting",
        Verdict::MostlyThrottled => "mostly_throttled",
        Verdict::MostlyBlocked => "mostly_blocked",
    }
}

/// The verdict as a sentence: what dominates, and where to look.
pub(super) fn advice(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Idle => "idle",
        Verdict::MostlyRunning => "mostly running: the load is work on the CPUs, look at who runs",
        Verdict::MostlyWaiting => {
            "mostly waiting for a CPU: more CPUs, fewer threads or less work would help"
        }
        Verdict::MostlyThrottled => {
            "mostly throttled: cgroups are at their own CPU limits (cpu.max), look there first"
        }
        Verdict::MostlyBlocked => {
            "mostly blocked: look at storage and locks, more CPUs would not help"
        }
    }
}

/// What it means that the same number of tasks is missing from every sample.
pub(super) fn leaked(tasks: i64) -> String {
    let (count, relation) = (
        counted(tasks.unsigned_abs(), "task"),
        if tasks < 0 { "too few" } else { "too many" },
    );
    format!(
        "The kernel counts {count} {relation}, the same in sample after sample. Either they are out \
         of sight (another pid namespace, real-time tasks that wait), or its count of blocked tasks \
         (nr_uninterruptible) has gone wrong, as is known of 5.14 to 6.16: then the averages stay off \
         by {} until the host is rebooted.",
        tasks.unsigned_abs(),
    )
}

/// The fixed word of what the table is of.
pub(super) fn by(start: &Start) -> &'static str {
    match start.rows {
        Rows::Causes => return "cause",
        Rows::Devices => return "device",
        Rows::Groups => {}
    }
    match start.by {
        GroupBy::Process => "process",
        GroupBy::Comm => "comm",
        GroupBy::Cgroup => "cgroup",
        GroupBy::User => "user",
    }
}

#[cfg(test)]
mod tests {
    use super::leaked;

    #[test]
    fn a_leak_is_explained_in_both_directions() {
        assert!(leaked(1).starts_with("The kernel counts 1 task too many"));
        assert!(leaked(-3).starts_with("The kernel counts 3 tasks too few"));
    }
}
