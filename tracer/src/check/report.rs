//! What was found as text and as JSON.

use serde::Serialize;

use super::finding::{RowReport, Verdict};
use crate::{
    clock::WallNs,
    render::{
        quantity::age,
        time::{clock, rfc3339},
    },
    snapshot::Host,
};

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

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Note => "note",
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

/// What a word or line looks like with colours.
fn paint(text: &str, code: &str, is_colored: bool) -> String {
    if is_colored {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn color(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "32",
        Verdict::Note => "36",
        Verdict::Warning => "33",
        Verdict::Critical => "1;31",
    }
}

/// A page: a row a line, with what is wrong below it. Rows that are ok are one line,
/// unless all are wanted.
pub(super) fn text(page: &Page, all: bool, is_colored: bool) -> String {
    let host = &page.host;
    let cpus = if host.cpus == 1 { "CPU" } else { "CPUs" };
    let mut text = format!(
        "tracer {}   {}   Linux {}   {} {cpus}   {} UTC   watched for {}\n\n",
        env!("CARGO_PKG_VERSION"),
        host.hostname,
        host.kernel,
        host.cpus,
        clock(page.time),
        age(page.sample_ns),
    );
    let mut fine = Vec::new();
    for report in &page.reports {
        let verdict = report.verdict();
        if verdict == Verdict::Ok && report.unseen.is_empty() && !all {
            fine.push(report.row.name());
            continue;
        }
        let name = format!("{:<9}", word(verdict));
        text += &format!(
            "{} {:<10} {}\n",
            paint(&name, color(verdict), is_colored),
            report.row.name(),
            report.summary
        );
        for finding in &report.findings {
            text += &format!(
                "          {} {}\n",
                paint("-", color(finding.verdict), is_colored),
                finding.what
            );
            let lines = finding.who.iter().map(|who| ("who ", who));
            let why = [("why ", &finding.why), ("next", &finding.next)];
            for (label, line) in lines.chain(why).filter(|(_, line)| !line.is_empty()) {
                text += &format!("              {}  {line}\n", paint(label, "2", is_colored));
            }
        }
        for unseen in &report.unseen {
            text += &format!(
                "            {}  {unseen}\n",
                paint("not seen", "35", is_colored)
            );
        }
    }
    if !fine.is_empty() {
        let name = paint("ok       ", color(Verdict::Ok), is_colored);
        text += &format!("{name} {}\n", fine.join(", "));
    }
    let count = |verdict| {
        page.reports
            .iter()
            .filter(|r| r.verdict() == verdict)
            .count()
    };
    text += &format!(
        "\n{} critical, {} warning, {} note, {} ok   in {}\n",
        count(Verdict::Critical),
        count(Verdict::Warning),
        count(Verdict::Note),
        count(Verdict::Ok),
        age(page.took_ns),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::{Page, json, text};
    use crate::{
        check::finding::{Finding, Row, RowReport, Verdict, figure, figure_of},
        clock::WallNs,
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
        Page {
            host: Host {
                cpus: 2,
                kernel: "6.12".into(),
                hostname: "db-7".into(),
            },
            time: WallNs(1_700_000_000_000_000_000),
            sample_ns: 5_000_000_000,
            took_ns: 5_400_000_000,
            reports: vec![disks, load, kernel],
        }
    }

    #[test]
    fn a_page() {
        insta::assert_snapshot!("check", text(&page(), false, false));
        insta::assert_snapshot!("check_all", text(&page(), true, true));
        insta::assert_snapshot!("check_json", json(&page()));
    }
}
