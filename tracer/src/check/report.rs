//! What was found as JSON.

use serde::Serialize;

use super::finding::{RowReport, Verdict};
use crate::{clock::WallNs, render::time::rfc3339, snapshot::Host};

/// Changes when the name or meaning of something in the JSON does.
const SCHEMA: u32 = 1;

/// One look.
pub(super) struct Page {
    /// The host.
    pub(super) host: Host,
    /// When it ended.
    pub(super) time: WallNs,
    /// How long it watched.
    pub(super) sample_ns: u64,
    /// How long all of it took.
    pub(super) took_ns: u64,
    /// The rows, worst first.
    pub(super) reports: Vec<RowReport>,
}

pub(super) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Note => "note",
        Verdict::Unknown => "unknown",
        Verdict::Warning => "warning",
        Verdict::Critical => "critical",
    }
}

#[derive(Serialize)]
struct Look<'a> {
    r#type: &'static str,
    schema: u32,
    version: &'static str,
    time: String,
    host: LookHost<'a>,
    sample_ns: u64,
    took_ns: u64,
    verdict: &'static str,
    rows: Vec<LookRow<'a>>,
}

#[derive(Serialize)]
struct LookHost<'a> {
    cpus: u32,
    kernel: &'a str,
    hostname: &'a str,
}

#[derive(Serialize)]
struct LookRow<'a> {
    row: &'static str,
    verdict: &'static str,
    summary: &'a str,
    figures: Vec<LookFigure<'a>>,
    findings: Vec<LookFinding<'a>>,
    unseen: &'a [String],
}

#[derive(Serialize)]
struct LookFigure<'a> {
    name: &'static str,
    of: &'a str,
    value: f64,
}

#[derive(Serialize)]
struct LookFinding<'a> {
    verdict: &'static str,
    what: &'a str,
    who: &'a [String],
    why: &'a str,
    next: &'a str,
}

/// One JSON object, on a line.
pub(super) fn json(page: &Page) -> String {
    let row = |report: &'_ RowReport| -> &'static str { word(report.verdict()) };
    let rows = page.reports.iter().map(|report| LookRow {
        row: report.row.name(),
        verdict: row(report),
        summary: &report.summary,
        figures: report
            .figures
            .iter()
            .map(|figure| LookFigure {
                name: figure.name,
                of: &figure.of,
                value: figure.value,
            })
            .collect(),
        findings: report
            .findings
            .iter()
            .map(|finding| LookFinding {
                verdict: word(finding.verdict),
                what: &finding.what,
                who: &finding.who,
                why: &finding.why,
                next: &finding.next,
            })
            .collect(),
        unseen: &report.unseen,
    });
    let look = Look {
        r#type: "check",
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        time: rfc3339(page.time),
        host: LookHost {
            cpus: page.host.cpus,
            kernel: page.host.kernel.as_str(),
            hostname: page.host.hostname.as_str(),
        },
        sample_ns: page.sample_ns,
        took_ns: page.took_ns,
        verdict: word(worst(page)),
        rows: rows.collect(),
    };
    // Strings and numbers only: it cannot fail.
    serde_json::to_string(&look).unwrap_or_default() + "\n"
}

fn worst(page: &Page) -> Verdict {
    let verdicts = page.reports.iter().map(RowReport::verdict);
    verdicts.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Page, json};
    use crate::{
        check::{
            figures::CHECK_PATHS,
            finding::{Finding, Row, RowReport, Verdict, figure, figure_of},
            text::text,
        },
        clock::WallNs,
        render::tests::paths,
        snapshot::Host,
    };

    fn page() -> Page {
        let disks = RowReport {
            findings: vec![Finding {
                verdict: Verdict::Critical,
                what: "/var is 98 % full, 200.0 MiB left".into(),
                who: vec!["log[12] fd 3 writes 3.0 MiB/s to /var/log/x".into()],
                why: "programs fail when little is left".into(),
                next: "sudo tracer check --only disks --du".into(),
            }],
            ..RowReport::new(
                Row::Disks,
                "2 file systems, /var the fullest",
                vec![figure_of("disk_used_ratio", "/var", 0.98)],
            )
        };
        let kernel = RowReport {
            unseen: vec!["the kernel's log: needs CAP_SYSLOG".into()],
            ..RowReport::new(Row::Kernel, "not tainted", Vec::new())
        };
        let load = RowReport::new(Row::Load, "0.10 0.20 0.30", vec![figure("load1", 0.1)]);
        let memory = RowReport::blind(Row::Memory, "/proc/meminfo cannot be read");
        Page {
            host: Host {
                cpus: 2,
                kernel: "6.12".into(),
                hostname: "db-7".into(),
            },
            time: WallNs(1_700_000_000_000_000_000),
            sample_ns: 5_000_000_000,
            took_ns: 5_400_000_000,
            reports: vec![disks, memory, load, kernel],
        }
    }

    #[test]
    fn a_page() {
        insta::assert_snapshot!("check", text(&page(), false, 160, false));
        insta::assert_snapshot!("check_all", text(&page(), true, 40, true));
        insta::assert_snapshot!("check_json", json(&page()));
    }

    #[test]
    fn every_path_is_described_and_every_description_is_of_a_path() {
        let look = serde_json::from_str(&json(&page())).expect("JSON");
        let mut found = BTreeSet::new();
        paths(&look, "", &mut found);
        let described = CHECK_PATHS.map(|(path, ..)| path.to_owned());
        assert_eq!(found, described.into());
    }
}
