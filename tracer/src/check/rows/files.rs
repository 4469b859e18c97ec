//! Open files against what the host and each process may have, and inotify's limits.

use std::{collections::HashMap, fs};

use crate::{
    check::{
        context::Context,
        finding::{Figure, Finding, Row, RowReport, Verdict, figure, figure_of},
        limits::{DESCRIPTORS, FILE_TABLE, INOTIFY, Limits},
        read::descriptors::{Count, Descriptors},
    },
    render::quantity::{counted, grouped},
    text::Text,
};

/// Processes that have a figure.
const NAMED: usize = 5;

/// A process and how many of its descriptors it uses.
#[derive(Clone, Debug, Default, PartialEq)]
struct Full {
    pid: u32,
    comm: Text,
    open: u64,
    limit: u64,
}

/// A user's inotify instances.
#[derive(Clone, Debug, Default, PartialEq)]
struct Instances {
    uid: u32,
    used: u64,
    /// Who has the most of them.
    largest: String,
}

/// Files of the host.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    /// fs.file-nr: allocated, and fs.file-max.
    file_nr: Option<(u64, u64)>,
    /// The fullest processes first.
    fullest: Vec<Full>,
    /// fs.inotify.max_user_instances.
    most_instances: Option<u64>,
    instances: Vec<Instances>,
    /// Processes that may not be looked at.
    refused: u64,
}

/// Looks at the begin of the sample.
pub(super) fn look(context: &Context) -> RowReport {
    let descriptors = context.descriptors();
    let reading = Reading {
        file_nr: file_nr(&fs::read_to_string("/proc/sys/fs/file-nr").unwrap_or_default()),
        fullest: fullest(descriptors),
        most_instances: fs::read_to_string("/proc/sys/fs/inotify/max_user_instances")
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        instances: instances(descriptors),
        refused: descriptors.refused,
    };
    judge(&reading, &context.limits)
}

/// Three numbers: allocated, free (always 0 since 2.6), most (`proc_nr_files`, fs/file_table.c).
fn file_nr(text: &str) -> Option<(u64, u64)> {
    let mut words = text.split_ascii_whitespace().map(str::parse);
    Some((words.next()?.ok()?, words.nth(1)?.ok()?))
}

fn fullest(descriptors: &Descriptors) -> Vec<Full> {
    let full = |(pid, count): (&u32, &Count)| {
        Some(Full {
            pid: *pid,
            comm: count.comm.clone(),
            open: count.open,
            limit: count.limit.filter(|limit| *limit > 0)?,
        })
    };
    let mut all: Vec<Full> = descriptors.counts.iter().filter_map(full).collect();
    all.sort_by(|a, b| {
        ratio(b.open, b.limit)
            .total_cmp(&ratio(a.open, a.limit))
            .then(a.pid.cmp(&b.pid))
    });
    // Any of them can be past a limit; no more than these are of interest else.
    let past = all
        .iter()
        .take_while(|one| ratio(one.open, one.limit) >= 0.5)
        .count();
    all.truncate(past.max(NAMED));
    all
}

fn instances(descriptors: &Descriptors) -> Vec<Instances> {
    let mut users: HashMap<u32, (u64, u64, String)> = HashMap::new();
    for (pid, count) in descriptors
        .counts
        .iter()
        .filter(|(_, count)| count.inotify > 0)
    {
        let (used, most, largest) = users.entry(count.uid).or_default();
        *used += count.inotify;
        if count.inotify > *most {
            *most = count.inotify;
            *largest = format!("{}[{pid}] has {}", count.comm, count.inotify);
        }
    }
    let users = users.into_iter();
    let mut users: Vec<Instances> = users
        .map(|(uid, (used, _, largest))| Instances { uid, used, largest })
        .collect();
    users.sort_by_key(|user| (std::cmp::Reverse(user.used), user.uid));
    users
}

fn ratio(part: u64, of: u64) -> f64 {
    part as f64 / of.max(1) as f64
}

fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let files = match reading.file_nr {
        // A host without a limit has the largest number there is.
        Some((used, most)) if most < i64::MAX as u64 => {
            format!("{} of {} open files", grouped(used), grouped(most))
        }
        Some((used, _)) => format!("{} open files, no limit", grouped(used)),
        None => "open files unknown".to_owned(),
    };
    let fullest = reading.fullest.first().map(line);
    let fullest = fullest
        .map(|line| format!("   fullest {line}"))
        .unwrap_or_default();
    let mut report = RowReport::new(Row::Files, files + &fullest, figures(reading));
    if reading.refused > 0 {
        let refused = counted(reading.refused, "process");
        report.unseen.push(format!(
            "the descriptors of {refused}: needs root (CAP_SYS_PTRACE)"
        ));
    }
    if let Some((used, most)) = reading.file_nr {
        let verdict = limits.judge(&FILE_TABLE, ratio(used, most));
        if verdict > Verdict::Ok {
            report.findings.push(Finding {
                verdict,
                what: format!(
                    "{} of {} open files (fs.file-max)",
                    grouped(used),
                    grouped(most)
                ),
                who: reading.fullest.iter().take(NAMED).map(line).collect(),
                why: limits.why(&FILE_TABLE),
                next: "sysctl fs.file-nr; lsof -p PID".to_owned(),
            });
        }
    }
    for full in &reading.fullest {
        let verdict = limits.judge(&DESCRIPTORS, ratio(full.open, full.limit));
        if verdict > Verdict::Ok {
            report.findings.push(Finding {
                verdict,
                what: line(full),
                who: Vec::new(),
                why: limits.why(&DESCRIPTORS),
                next: format!("ls -l /proc/{0}/fd; prlimit --nofile --pid {0}", full.pid),
            });
        }
    }
    for user in &reading.instances {
        let most = reading.most_instances.unwrap_or(u64::MAX);
        let verdict = limits.judge(&INOTIFY, ratio(user.used, most));
        if verdict > Verdict::Ok {
            report.findings.push(Finding {
                verdict,
                what: format!(
                    "user {} has {} of {most} inotify instances",
                    user.uid, user.used
                ),
                who: vec![user.largest.clone()],
                why: limits.why(&INOTIFY),
                next: "sysctl fs.inotify.max_user_instances".to_owned(),
            });
        }
    }
    report
}

fn line(full: &Full) -> String {
    format!(
        "{}[{}] {} of {} descriptors",
        full.comm,
        full.pid,
        grouped(full.open),
        grouped(full.limit)
    )
}

fn figures(reading: &Reading) -> Vec<Figure> {
    let mut figures = Vec::new();
    if let Some((used, most)) = reading.file_nr {
        figures.push(figure("file_nr", used as f64));
        figures.push(figure("file_max", most as f64));
        figures.push(figure("file_nr_ratio", ratio(used, most)));
    }
    for full in reading.fullest.iter().take(NAMED) {
        let of = format!("{}[{}]", full.comm, full.pid);
        figures.push(figure_of(
            "descriptors_used_ratio",
            of,
            ratio(full.open, full.limit),
        ));
    }
    for user in &reading.instances {
        let most = reading.most_instances.unwrap_or(u64::MAX);
        figures.push(figure_of(
            "inotify_used_ratio",
            user.uid,
            ratio(user.used, most),
        ));
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::{Full, Instances, Reading, file_nr, judge};
    use crate::check::{finding::Verdict, limits::Limits};

    fn full(open: u64, limit: u64) -> Full {
        Full {
            pid: 7,
            comm: "api".into(),
            open,
            limit,
        }
    }

    #[test]
    fn the_file_table_and_each_process_have_their_limits() {
        for (file_nr, open, verdict) in [
            ((1_000, 100_000), 100, Verdict::Ok),
            ((1_000, i64::MAX as u64), 100, Verdict::Ok),
            ((90_000, 100_000), 100, Verdict::Warning),
            ((1_000, 100_000), 900, Verdict::Warning),
            ((1_000, 100_000), 973, Verdict::Critical),
        ] {
            let reading = Reading {
                file_nr: Some(file_nr),
                fullest: vec![full(open, 1024)],
                ..Reading::default()
            };
            let report = judge(&reading, &Limits::default());
            assert_eq!(report.verdict(), verdict, "{file_nr:?} {open}");
            assert!(report.summary.contains("api[7]"));
        }
    }

    #[test]
    fn inotify_counts_by_user() {
        let reading = Reading {
            most_instances: Some(128),
            instances: vec![Instances {
                uid: 1000,
                used: 127,
                largest: "code[9] has 100".into(),
            }],
            ..Reading::default()
        };
        let report = judge(&reading, &Limits::default());
        assert_eq!(report.verdict(), Verdict::Critical);
        assert_eq!(
            report.findings[0].what,
            "user 1000 has 127 of 128 inotify instances"
        );
    }

    #[test]
    fn the_three_numbers_of_file_nr() {
        assert_eq!(
            file_nr("1184\t0\t9223372036854775807\n"),
            Some((1184, i64::MAX as u64))
        );
        assert_eq!(file_nr("1184\t0"), None);
    }
}
