//! What came, held against what the file says.

use std::{collections::BTreeMap, fmt::Debug};

use tracer::{
    snapshot::{BlockedTask, CauseRow, CauseShare, Group, Link, Snapshot, Summary},
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
        let causes = snapshot.causes.iter().map(|row| row.blocked).sum();
        self.close("sum of causes", load.mean.blocked, causes, 1e-6);
        let devices = snapshot.devices.iter().map(|row| row.blocked).sum();
        self.close("sum of devices", load.mean.blocked, devices, 1e-6);
        for row in &snapshot.causes {
            let waiters = row.waiters.iter().map(|waiter| waiter.blocked).sum();
            if row.waiters.len() as u64 == row.waiters_total {
                self.close("sum of waiters", row.blocked, waiters, 1e-6);
            }
        }
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
        self.why(expected, snapshot);
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

    /// Why tasks are blocked.
    fn why(&mut self, expected: &Expected, snapshot: &Snapshot) {
        let blocked = || snapshot.blocked.iter();
        let by = |task: &BlockedTask| {
            let cause = cause(task.cause, &task.detail);
            (task.tid.to_string(), cause)
        };
        let by = blocked().map(by).collect();
        self.same("blocked by", expected.blocked_by.as_ref(), &by);
        let chain = |task: &BlockedTask| {
            let names: Vec<_> = task.waits_for.iter().map(link).collect();
            (!names.is_empty()).then(|| (task.tid.to_string(), names))
        };
        let chains = blocked().filter_map(chain).collect();
        self.same("chains", expected.chains.as_ref(), &chains);
        let queues = snapshot.queues.iter();
        let queues = queues.map(|q| (link(&q.root), q.cause.to_owned(), q.waiting));
        self.same("queues", expected.queues.as_ref(), &queues.collect());
        self.parts(
            "causes",
            expected.causes.as_ref(),
            by_cause(&snapshot.causes),
        );
        let devices = snapshot.devices.iter().map(|row| {
            let device = row.device.as_ref().map_or("none", Text::as_str);
            (device.to_owned(), row.blocked)
        });
        self.parts("devices", expected.devices.as_ref(), devices.collect());
        let lengths = snapshot.lengths.iter();
        let lengths = lengths.map(|lengths| (lengths.cause.to_owned(), lengths.episodes));
        self.same("lengths", expected.lengths.as_ref(), &lengths.collect());
    }

    /// The same names, and numbers that are close.
    fn parts(
        &mut self,
        what: &str,
        expected: Option<&BTreeMap<String, f64>>,
        got: BTreeMap<String, f64>,
    ) {
        let Some(expected) = expected else {
            return;
        };
        if !expected.keys().eq(got.keys()) {
            self.note(&format!("{what}: expected {expected:?}, got {got:?}"));
            return;
        }
        for ((name, expected), got) in expected.iter().zip(got.values()) {
            self.close(&format!("{what} {name}"), *expected, *got, CLOSE);
        }
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
            let share = |share: &CauseShare| (cause(share.cause, &share.detail), share.blocked);
            self.parts(
                &format!("{name} causes"),
                expected.causes.as_ref(),
                group.causes.iter().map(share).collect(),
            );
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
        self.parts(
            "summary causes",
            expected.causes.as_ref(),
            by_cause(&summary.causes),
        );
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

fn by_cause(rows: &[CauseRow]) -> BTreeMap<String, f64> {
    let row = |row: &CauseRow| (cause(row.cause, &row.detail), row.blocked);
    rows.iter().map(row).collect()
}

/// A cause and what it is on.
fn cause(cause: &str, detail: &Option<Text>) -> String {
    match detail {
        Some(detail) => format!("{cause} {detail}"),
        None => cause.to_owned(),
    }
}

/// Another task, and why that one is blocked.
fn link(link: &Link) -> String {
    let role = format!("{:?}", link.role).to_lowercase();
    let name = format!("{role} {}[{}]", link.comm, link.tid);
    match link.cause {
        Some(why) => format!("{name}: {}", cause(why, &link.detail)),
        None => name,
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
