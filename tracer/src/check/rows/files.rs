//! Open files against their limits: the kernel's table, the descriptors of each process,
//! and inotify by user.

use std::collections::HashMap;

use crate::{
    check::{
        context::Context,
        finding::{Finding, Row, RowReport, Verdict, figure, figure_of},
        limits::{DESCRIPTORS, FILE_TABLE, INOTIFY, Limits},
        read::{self, descriptors::Descriptors},
    },
    host::users::Users,
    render::quantity::{counted, grouped},
    text::Text,
};

/// Processes that are named.
const NAMED: usize = 5;
/// A lower limit was set by a sandbox, to forbid opening.
const SANDBOX: u64 = 16;

/// Open files.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Reading {
    /// `fs.file-nr`: files that are open in the whole kernel, and how many can be.
    pub(in crate::check) table: Option<(u64, u64)>,
    /// Each process with a limit.
    pub(in crate::check) holders: Vec<Holder>,
    /// Processes whose descriptors may not be looked at.
    pub(in crate::check) refused: u64,
    pub(in crate::check) inotify: Vec<Inotify>,
    /// `fs.inotify.max_user_instances`.
    pub(in crate::check) most_instances: Option<u64>,
    /// `fs.inotify.max_user_watches`.
    pub(in crate::check) most_watches: Option<u64>,
    /// Whether watches were left uncounted, as there are so many.
    pub(in crate::check) is_cut: bool,
}

/// A process and its descriptors.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Holder {
    pub(in crate::check) pid: u32,
    /// The thread that its descriptors are seen through: mostly the first one.
    pub(in crate::check) tid: u32,
    pub(in crate::check) comm: Text,
    pub(in crate::check) open: u64,
    /// RLIMIT_NOFILE; `None` for no limit.
    pub(in crate::check) limit: Option<u64>,
}

impl Holder {
    /// The part of the limit that is in use. `None` where a limit says nothing: there is
    /// none, or it was lowered to below what is open, which sandboxes do.
    fn used(&self) -> Option<f64> {
        let limit = self.limit?;
        (limit >= SANDBOX && self.open <= limit).then(|| self.open as f64 / limit as f64)
    }
}

/// What a user has of inotify. An instance that a fork shares counts for each process.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Inotify {
    pub(in crate::check) user: Text,
    pub(in crate::check) instances: u64,
    pub(in crate::check) watches: u64,
    /// Its processes: instances, then watches; those with the most first.
    pub(in crate::check) holders: Vec<(u32, Text, u64, u64)>,
}

/// Looks: descriptors are those of the begin, the rest those of the end.
pub(super) fn look(context: &Context) -> RowReport {
    let descriptors = context.descriptors();
    let own = std::process::id();
    let holders = descriptors.counts.iter().filter(|(pid, _)| **pid != own);
    let (inotify, is_cut) = inotify(descriptors);
    let (most_instances, most_watches) = read::files::inotify_limits();
    let reading = Reading {
        table: read::files::table(),
        holders: holders
            .map(|(pid, count)| Holder {
                pid: *pid,
                tid: count.tid,
                comm: count.comm.clone(),
                open: count.open,
                limit: count.limit,
            })
            .collect(),
        refused: descriptors.refused,
        inotify,
        most_instances,
        most_watches,
        is_cut,
    };
    let report = judge(&reading, &context.limits);
    if descriptors.are_none() {
        return report.blinded(read::descriptors::NO_PROCESSES);
    }
    report
}

fn inotify(descriptors: &Descriptors) -> (Vec<Inotify>, bool) {
    let with = descriptors.counts.iter().filter(|(_, c)| c.inotify > 0);
    let (watches, is_cut) = read::files::watches(with.clone().map(|(pid, _)| *pid));
    let names = Users::read();
    let mut users: HashMap<u32, Inotify> = HashMap::new();
    for (pid, count) in with {
        let watches = watches.get(pid).copied().unwrap_or(0);
        let user = users.entry(count.uid).or_insert_with(|| Inotify {
            user: names.name(count.uid),
            ..Inotify::default()
        });
        user.instances += count.inotify;
        user.watches += watches;
        let holder = (*pid, count.comm.clone(), count.inotify, watches);
        user.holders.push(holder);
    }
    let mut users: Vec<_> = users.into_values().collect();
    users.sort_by_key(|user| std::cmp::Reverse(user.instances));
    (users, is_cut)
}

/// From a reading to a report.
pub(in crate::check) fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let mut fullest: Vec<_> = reading
        .holders
        .iter()
        .filter_map(|holder| Some((holder.used()?, holder)))
        .collect();
    fullest.sort_by(|(a, x), (b, y)| b.total_cmp(a).then(x.pid.cmp(&y.pid)));
    let mut figures = Vec::new();
    let mut summary = Vec::new();
    if let Some((open, most)) = reading.table {
        figures.push(figure("file_nr", open as f64));
        figures.push(figure("file_max", most as f64));
        figures.push(figure("file_nr_ratio", table_used(open, most)));
        // Without a limit the kernel says 2^63 - 1.
        summary.push(if most >= i64::MAX as u64 {
            format!("{} open, no limit", counted(open, "file"))
        } else {
            format!("{} open of {}", counted(open, "file"), grouped(most))
        });
    }
    for (used, holder) in fullest.iter().take(NAMED) {
        let of = format!("{}[{}]", holder.comm, holder.pid);
        figures.push(figure_of("descriptors_used_ratio", of, *used));
    }
    if let Some((_, holder)) = fullest.first() {
        summary.push(format!("fullest {}", describe(holder)));
    }
    for user in &reading.inotify {
        let name = &user.user;
        figures.push(figure_of("inotify_instances", name, user.instances as f64));
        figures.push(figure_of("inotify_watches", name, user.watches as f64));
    }
    let mut report = RowReport::new(Row::Files, summary.join("   "), figures);
    report.findings.extend(table(reading, limits));
    report.findings.extend(descriptors(&fullest, limits));
    report.findings.extend(of_inotify(reading, limits));
    if reading.refused > 0 {
        report.is_partial = true;
        report.unseen.push(format!(
            "descriptors of {} processes: they belong to others, which needs CAP_SYS_PTRACE",
            grouped(reading.refused)
        ));
    }
    if reading.is_cut {
        report
            .unseen
            .push("some inotify watches: there are too many to count".to_owned());
    }
    report
}

fn table_used(open: u64, most: u64) -> f64 {
    open as f64 / most.max(1) as f64
}

/// `nginx[12] 972 of 1,024 descriptors`.
fn describe(holder: &Holder) -> String {
    let Holder {
        pid, comm, open, ..
    } = holder;
    let open = grouped(*open);
    match holder.limit {
        Some(limit) => format!("{comm}[{pid}] {open} of {} descriptors", grouped(limit)),
        None => format!("{comm}[{pid}] {open} descriptors, no limit"),
    }
}

fn table(reading: &Reading, limits: &Limits) -> Option<Finding> {
    let (open, most) = reading.table?;
    let used = table_used(open, most);
    let verdict = limits.judge(&FILE_TABLE, used);
    let mut holders: Vec<_> = reading.holders.iter().collect();
    holders.sort_by_key(|holder| (std::cmp::Reverse(holder.open), holder.pid));
    (verdict > Verdict::Ok).then(|| Finding {
        verdict,
        what: format!(
            "{} files are open of {}, {:.0} % of fs.file-max",
            grouped(open),
            grouped(most),
            used * 100.0
        ),
        who: holders.iter().take(NAMED).map(|h| describe(h)).collect(),
        why: limits.why(&FILE_TABLE),
        next: "sysctl fs.file-nr fs.file-max".to_owned(),
    })
}

fn descriptors(fullest: &[(f64, &Holder)], limits: &Limits) -> Option<Finding> {
    let of = |used: f64| limits.judge(&DESCRIPTORS, used);
    let full = fullest.iter().filter(|(used, _)| of(*used) > Verdict::Ok);
    let (used, holder) = fullest
        .first()
        .filter(|(used, _)| of(*used) > Verdict::Ok)?;
    let what = match full.clone().count() {
        1 => format!("{}, {:.0} %", describe(holder), used * 100.0),
        count => format!(
            "{count} processes are near their limit of descriptors, the worst at {:.0} %",
            used * 100.0
        ),
    };
    Some(Finding {
        verdict: of(*used),
        what,
        who: full
            .take(NAMED)
            .map(|(_, holder)| describe(holder))
            .collect(),
        why: limits.why(&DESCRIPTORS),
        next: format!("sudo ls -l /proc/{}/fd", holder.tid),
    })
}

fn of_inotify(reading: &Reading, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    for user in &reading.inotify {
        let instances = reading.most_instances.map(|most| {
            let sysctl = "max_user_instances";
            (user.instances, most, "instance", sysctl)
        });
        let watches = reading.most_watches.map(|most| {
            let sysctl = "max_user_watches";
            (user.watches, most, "watch", sysctl)
        });
        for (count, most, noun, sysctl) in instances.into_iter().chain(watches) {
            let is_watches = noun == "watch";
            let plural = if is_watches { "watches" } else { "instances" };
            let used = count as f64 / most.max(1) as f64;
            let verdict = limits.judge(&INOTIFY, used);
            if verdict == Verdict::Ok {
                continue;
            }
            let of = |holder: &(u32, Text, u64, u64)| {
                if is_watches { holder.3 } else { holder.2 }
            };
            let mut holders: Vec<_> = user.holders.iter().collect();
            holders.sort_by_key(|holder| (std::cmp::Reverse(of(holder)), holder.0));
            let who = holders.iter().take(NAMED);
            let who = who.map(|h| format!("{}[{}] {} {plural}", h.1, h.0, grouped(of(h))));
            findings.push(Finding {
                verdict,
                what: format!(
                    "user {} has {} of {} inotify {plural}",
                    user.user,
                    grouped(count),
                    grouped(most)
                ),
                who: who.collect(),
                why: limits.why(&INOTIFY),
                next: format!("sysctl fs.inotify.{sysctl}"),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{Holder, Inotify, Reading, judge};
    use crate::check::{finding::Verdict, limits::Limits};

    fn holder(pid: u32, open: u64, limit: Option<u64>) -> Holder {
        Holder {
            pid,
            tid: pid,
            comm: "app".into(),
            open,
            limit,
        }
    }

    #[test]
    fn a_process_near_its_limit_is_named() {
        let reading = Reading {
            table: Some((9_000, i64::MAX as u64)),
            holders: vec![
                holder(1, 200, Some(1024)),
                holder(2, 972, Some(1024)),
                holder(3, 60, Some(64)),
                holder(4, 90_000, None),
            ],
            refused: 3,
            ..Reading::default()
        };
        let report = judge(&reading, &Limits::default());
        assert_eq!(report.verdict(), Verdict::Warning);
        assert_eq!(
            report.findings[0].who,
            [
                "app[2] 972 of 1,024 descriptors",
                "app[3] 60 of 64 descriptors"
            ]
        );
        assert!(report.summary.starts_with("9,000 files open, no limit"));
        assert!(report.unseen[0].starts_with("descriptors of 3 processes"));
    }

    #[test]
    fn a_sandbox_that_forbids_itself_to_open_is_no_trouble() {
        let reading = Reading {
            holders: vec![
                holder(1, 3, Some(0)),
                holder(2, 3, Some(3)),
                holder(3, 40, Some(20)),
            ],
            ..Reading::default()
        };
        let report = judge(&reading, &Limits::default());
        assert!(report.findings.is_empty() && report.figures.is_empty());
    }

    #[test]
    fn the_table_of_the_kernel_is_full() {
        let reading = Reading {
            table: Some((960, 1000)),
            holders: vec![holder(1, 10, Some(1024)), holder(2, 900, None)],
            ..Reading::default()
        };
        let report = judge(&reading, &Limits::default());
        assert_eq!(report.verdict(), Verdict::Critical);
        assert_eq!(
            report.findings[0].who[0],
            "app[2] 900 descriptors, no limit"
        );
    }

    #[test]
    fn inotify_is_counted_by_user() {
        let reading = Reading {
            inotify: vec![Inotify {
                user: "web".into(),
                instances: 110,
                watches: 7000,
                holders: vec![(7, "node".into(), 10, 6990), (8, "tail".into(), 100, 10)],
            }],
            most_instances: Some(128),
            most_watches: Some(8192),
            ..Reading::default()
        };
        let report = judge(&reading, &Limits::default());
        let what: Vec<_> = report.findings.iter().map(|f| f.what.as_str()).collect();
        assert_eq!(
            what,
            [
                "user web has 110 of 128 inotify instances",
                "user web has 7,000 of 8,192 inotify watches"
            ]
        );
        assert_eq!(report.findings[0].who[0], "tail[8] 100 instances");
        assert_eq!(report.findings[1].who[0], "node[7] 6,990 watches");
    }
}
