//! Cgroups that their CPU limit holds.

use super::{CpuLimit, NAMED, Reading, describe};
use crate::{
    check::{
        finding::{Finding, Verdict},
        limits::{CGROUP_THROTTLED, Limits},
    },
    render::quantity::age,
};

/// Fewer periods at the limit are one burst, and no one waits for long.
const LEAST_PERIODS: u64 = 3;

/// ` of 0.5 CPUs (cpu.max 50000 us of 100000)`.
fn in_cpus(limit: &CpuLimit) -> String {
    let CpuLimit {
        file,
        quota_us,
        period_us,
    } = limit;
    let cpus = quota_us / period_us;
    format!(" of {cpus:.2} CPUs ({file}: {quota_us} us of {period_us})")
}

/// A finding for each, the worst first.
pub(super) fn findings(reading: &Reading, limits: &Limits) -> Vec<Finding> {
    let held = reading.cgroups.iter().filter_map(|cgroup| {
        let verdict = limits.judge(&CGROUP_THROTTLED, cgroup.ratio());
        let is_held = cgroup.throttled >= LEAST_PERIODS && verdict > Verdict::Ok;
        is_held.then_some((verdict, cgroup))
    });
    held.take(NAMED)
        .map(|(verdict, cgroup)| {
            let top = reading
                .top
                .iter()
                .filter(|top| cgroup.pids.contains(&top.pid));
            Finding {
                verdict,
                what: format!(
                    "cgroup {} was at its CPU limit{} in {} of {} periods, held for {} over all CPUs",
                    cgroup.path,
                    cgroup.limit.as_ref().map_or_else(String::new, in_cpus),
                    cgroup.throttled,
                    cgroup.periods,
                    age(cgroup.throttled_ns)
                ),
                who: top.take(NAMED).map(describe).collect(),
                why: limits.why(&CGROUP_THROTTLED),
                next: "sudo tracer load --by cgroup".to_owned(),
            }
        })
        .collect()
}
