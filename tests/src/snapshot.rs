//! A snapshot as tracer prints it, and what must always be true of it.

use serde_json::Value;

use crate::{
    kernel,
    time::{host_or_guest, parse_utc},
};

/// A snapshot, as JSON.
pub struct Snapshot(pub Value);

impl Snapshot {
    /// Length of its interval, in s.
    pub fn seconds(&self) -> f64 {
        number(&self.0["interval_ns"]) / 1e9
    }

    /// Its wall clock, in ns since 1970.
    pub fn wall_ns(&self) -> u64 {
        self.0["time"].as_str().and_then(parse_utc).expect("a time")
    }

    /// When its interval began, by the wall clock, in ns since 1970: at the earliest,
    /// as either clock is read with an error.
    pub fn began_ns(&self) -> u64 {
        let interval_ns = self.0["interval_ns"].as_u64().expect("a length");
        let error_ns = host_or_guest(10, 100) * 1_000_000;
        self.wall_ns() - interval_ns - error_ns
    }

    /// Sum of a figure over the groups that are wanted, in tasks.
    pub fn sum(&self, figure: &str, is_wanted: impl Fn(&Value) -> bool) -> f64 {
        let groups = self.0["load"]["groups"].as_array().expect("groups");
        groups
            .iter()
            .filter(|group| is_wanted(group))
            .map(|group| number(&group[figure]))
            .sum()
    }

    /// A figure of one process; 0 when it has no row.
    pub fn of_pid(&self, pid: u32, figure: &str) -> f64 {
        self.sum(figure, |group| group["pid"] == pid)
    }

    /// Age of a blocked process's first task, in ns.
    pub fn blocked_age_ns(&self, pid: u32) -> Option<u64> {
        let blocked = self.0["blocked"].as_array().expect("blocked");
        blocked.iter().find(|task| task["pid"] == pid)?["age_ns"].as_u64()
    }

    /// A thread that is blocked, as tracer tells it.
    pub fn blocked(&self, tid: u32) -> Option<&Value> {
        let blocked = self.0["blocked"].as_array().expect("blocked");
        blocked.iter().find(|task| task["tid"] == tid)
    }

    /// What a process was blocked by, in tasks.
    pub fn of_cause(&self, pid: u32, is_wanted: impl Fn(&str) -> bool) -> f64 {
        let groups = self.0["load"]["groups"].as_array().expect("groups");
        let of_pid = groups.iter().filter(|group| group["pid"] == pid);
        of_pid
            .flat_map(|group| group["causes"].as_array().expect("causes"))
            .filter(|share| is_wanted(share["cause"].as_str().expect("a cause")))
            .map(|share| number(&share["blocked"]))
            .sum()
    }

    /// Blocked tasks as `COMM;CAUSE;outermost;..;innermost`: what fixtures for
    /// tracer's table of causes are made of.
    pub(crate) fn stacks(&self) -> Vec<String> {
        let blocked = self.0["blocked"].as_array().expect("blocked").iter();
        let line = |task: &Value| {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let frames = task["stack"].as_array().expect("a stack").iter().rev();
            let words = [word(&task["comm"]), word(&task["cause"])].into_iter();
            words.chain(frames.map(word)).collect::<Vec<_>>().join(";")
        };
        blocked.map(line).collect()
    }

    /// Kernel samples of the interval: (counted, named).
    pub fn samples(&self) -> Vec<(i64, i64)> {
        let samples = self.0["load"]["kernel_samples"]
            .as_array()
            .expect("samples");
        let read = |sample: &Value| Some((sample["active"].as_i64()?, sample["named"].as_i64()?));
        samples
            .iter()
            .map(|sample| read(sample).expect("numbers"))
            .collect()
    }

    /// A counter of losses.
    pub fn lost(&self, reason: &str) -> u64 {
        self.0["lost"][reason].as_u64().expect("a known reason")
    }

    /// Groups, other, before start, delayed and unexplained are the averages, always.
    pub(crate) fn check(&self, may_lose: bool) {
        let load = &self.0["load"];
        for (i, name) in ["load1", "load5", "load15"].into_iter().enumerate() {
            let rest = ["other", "before_start", "delayed", "unexplained"];
            let rest: f64 = rest.iter().map(|part| number(&load[*part][name])).sum();
            let sum = self.sum(name, |_| true) + rest;
            let average = number(&load["averages"][i]);
            assert!(
                (sum - average).abs() <= 0.01,
                "{name}: parts {sum}, kernel {average}"
            );
        }
        self.check_causes();
        if !may_lose {
            for (reason, count) in self.0["lost"].as_object().expect("lost") {
                let most = kernel::may_lose(reason);
                assert!(count.as_u64() <= Some(most), "lost: {count} {reason}");
            }
        }
    }

    /// All blocked time is put on a cause, and no group's causes exceed its own.
    fn check_causes(&self) {
        let sum = |causes: &Value| -> f64 {
            let causes = causes.as_array().expect("causes").iter();
            causes.map(|cause| number(&cause["blocked"])).sum()
        };
        let (parts, all) = (
            sum(&self.0["causes"]),
            number(&self.0["load"]["mean"]["blocked"]),
        );
        assert!(
            (parts - all).abs() <= 0.01,
            "causes {parts}, blocked {all}: {}",
            self.0["causes"]
        );
        for group in self.0["load"]["groups"].as_array().expect("groups") {
            // Each is rounded to six decimals; what two do not show is left out.
            let (parts, all) = (sum(&group["causes"]), number(&group["blocked"]));
            assert!(parts <= all + 0.001, "causes {parts}: {group}");
        }
    }
}

/// A JSON number.
pub fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// Mean of a figure over snapshots, weighted by their length.
pub fn mean(snapshots: &[Snapshot], figure: impl Fn(&Snapshot) -> f64) -> f64 {
    let time: f64 = snapshots.iter().map(Snapshot::seconds).sum();
    snapshots
        .iter()
        .map(|s| figure(s) * s.seconds())
        .sum::<f64>()
        / time
}
