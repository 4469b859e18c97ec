//! What came, held against what the file says.

use std::{collections::BTreeMap, fmt::Debug};

use tracer::{
    snapshot::{Group, Snapshot, Summary},
    text::Text,
};

use super::format::{Expected, ExpectedGroup, ExpectedSummary};

/// Means and parts are given to three places; the kernel rounds by 1/2048.
const CLOSE: f64 = 0.002;

/// Holds what came against what was expected, and notes the differences.
pub(crate) struct Check<'a> {
    /// Of the step; not a number at the end.
    pub(crate) at: f64,
    pub(crate) wrong: &'a mut Vec<String>,
}

impl Check<'_> {
    pub(crate) fn sums(&mut self, snapshot: &Snapshot) {
        let load = &snapshot.load;
        let own = [
            load.before_start,
            load.unexplained,
            load.delayed,
            load.other.load,
        ];
        for i in 0..3 {
            let groups: f64 = load.groups.iter().map(|group| group.load[i]).sum();
            let sum = groups + own.iter().map(|part| part[i]).sum::<f64>();
            self.close(
                &format!("sum of parts of average {i}"),
                load.averages[i],
                sum,
                1e-6,
            );
        }
        let rows = load
            .groups
            .iter()
            .map(|group| group.mean)
            .chain([load.other.mean]);
        let sum = rows.map(|mean| mean.running + mean.waiting + mean.throttled + mean.blocked);
        let all = load.mean.running + load.mean.waiting + load.mean.throttled + load.mean.blocked;
        self.close("sum of means", all, sum.sum(), 1e-6);
    }

    pub(crate) fn snapshot(&mut self, expected: &Expected, snapshot: &Snapshot) {
        let load = &snapshot.load;
        let samples: Vec<_> = load.samples.iter().map(|s| [s.active, s.named]).collect();
        self.same(
            "samples [active, named]",
            expected.samples.as_ref(),
            &samples,
        );
        let named = [
            ("average1", expected.average1, load.averages[0]),
            (
                "before_start1",
                expected.before_start1,
                load.before_start[0],
            ),
            ("unexplained1", expected.unexplained1, load.unexplained[0]),
            ("delayed1", expected.delayed1, load.delayed[0]),
            ("other1", expected.other1, load.other.load[0]),
            ("running", expected.running, load.mean.running),
            ("waiting", expected.waiting, load.mean.waiting),
            ("throttled", expected.throttled, load.mean.throttled),
            ("blocked_mean", expected.blocked_mean, load.mean.blocked),
        ];
        for (what, expected, got) in named {
            self.maybe_close(what, expected, got);
        }
        self.same(
            "groups in other",
            expected.other_groups.as_ref(),
            &load.other.groups,
        );
        self.groups(&expected.groups, &load.groups);
        if expected.only {
            let extra = load
                .groups
                .iter()
                .map(label)
                .filter(|l| !expected.groups.contains_key(l));
            self.same("other rows", Some(&Vec::new()), &extra.collect::<Vec<_>>());
        }
        let ages = snapshot
            .blocked
            .iter()
            .map(|b| (b.tid.to_string(), b.age_ns as f64 / 1e6));
        self.same(
            "blocked {tid, age}",
            expected.blocked.as_ref(),
            &ages.collect(),
        );
        for (reason, count) in &expected.lost {
            let got = snapshot
                .lost
                .iter()
                .find(|l| l.reason == reason)
                .map(|l| l.count);
            self.same(reason, Some(&Some(*count)), &got);
        }
        self.same(
            "leaked",
            expected.leaked.as_ref(),
            &load.leaked.unwrap_or(0),
        );
    }

    fn groups(&mut self, expected: &BTreeMap<String, ExpectedGroup>, got: &[Group]) {
        for (name, expected) in expected {
            let Some(group) = got.iter().find(|group| label(group) == *name) else {
                let labels: Vec<_> = got.iter().map(label).collect();
                self.note(&format!("no row {name}, but {labels:?}"));
                continue;
            };
            let figures = [
                ("running", expected.running, group.mean.running),
                ("waiting", expected.waiting, group.mean.waiting),
                ("throttled", expected.throttled, group.mean.throttled),
                ("blocked", expected.blocked, group.mean.blocked),
                ("load1", expected.load1, group.load[0]),
                ("load15", expected.load15, group.load[2]),
            ];
            for (what, expected, got) in figures {
                self.maybe_close(&format!("{name} {what}"), expected, got);
            }
            self.same(
                &format!("{name} episodes"),
                expected.episodes.as_ref(),
                &group.episodes,
            );
            self.same(
                &format!("{name} exited"),
                expected.exited.as_ref(),
                &group.exited,
            );
            self.same(
                &format!("{name} threads"),
                expected.threads.as_ref(),
                &group.threads,
            );
        }
    }

    pub(crate) fn summary(&mut self, expected: &ExpectedSummary, summary: &Summary) {
        self.same(
            "summary samples",
            expected.samples.as_ref(),
            &summary.samples,
        );
        self.same(
            "summary named",
            expected.samples_named.as_ref(),
            &summary.samples_named,
        );
        self.same("summary exited", expected.exited.as_ref(), &summary.exited);
        self.maybe_close(
            "summary sample_error",
            expected.sample_error,
            summary.sample_error,
        );
        self.groups(&expected.groups, &summary.groups);
        let episodes = summary
            .episodes
            .iter()
            .map(|e| (e.tid, e.length_ns as f64 / 1e6, e.is_open));
        self.same("episodes", expected.episodes.as_ref(), &episodes.collect());
    }

    fn same<T: PartialEq + Debug>(&mut self, what: &str, expected: Option<&T>, got: &T) {
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            self.note(&format!("{what}: expected {expected:?}, got {got:?}"));
        }
    }

    fn maybe_close(&mut self, what: &str, expected: Option<f64>, got: f64) {
        if let Some(expected) = expected {
            self.close(what, expected, got, CLOSE);
        }
    }

    fn close(&mut self, what: &str, expected: f64, got: f64, within: f64) {
        if (expected - got).abs() > within || got.is_nan() {
            self.note(&format!("{what}: expected {expected}, got {got}"));
        }
    }

    fn note(&mut self, text: &str) {
        self.wrong.push(if self.at.is_nan() {
            format!("at the end: {text}")
        } else {
            format!("at {} ms: {text}", self.at)
        });
    }
}

/// The row's name, as the table shows it.
fn label(group: &Group) -> String {
    let text = |text: &Option<Text>| text.as_ref().map(ToString::to_string);
    let comm = text(&group.comm).unwrap_or_default();
    match group.pid {
        Some(pid) => format!("{comm}[{pid}]"),
        None => text(&group.cgroup).or(text(&group.user)).unwrap_or(comm),
    }
}
