//! What was found as text: a row a line, with what is wrong below it.

use super::{
    finding::{RowReport, Verdict},
    report::{Page, word},
};
use crate::render::{
    line::{Line, Style, wrap},
    quantity::age,
    time::clock,
};

/// Columns of a verdict.
const VERDICT: usize = 10;
/// Where the text of a row, of a finding and of what explains it begins.
const ROW: usize = 21;
const FINDING: usize = 12;
const DETAIL: usize = 20;

fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Ok => Style::Plain,
        Verdict::Note => Style::Bold,
        Verdict::Unknown => Style::Magenta,
        Verdict::Warning => Style::Yellow,
        Verdict::Critical => Style::Red,
    }
}

/// A page. Rows that are ok are one line, unless all are wanted.
pub(super) fn text(page: &Page, all: bool, columns: usize, is_colored: bool) -> String {
    let mut lines = wrap(&head(page), columns, 2);
    lines.push(Line::default());
    let mut fine = Vec::new();
    for report in &page.reports {
        if report.verdict() == Verdict::Ok && report.unseen.is_empty() && !all {
            fine.push(report.row.name());
        } else {
            lines.extend(row(report, columns));
        }
    }
    if !fine.is_empty() {
        let fine = fine.join(", ");
        lines.extend(begun(verdict(Verdict::Ok), &fine, VERDICT, columns));
    }
    lines.push(Line::default());
    lines.extend(wrap(&foot(page), columns, 2));
    let mut text = String::new();
    for line in lines {
        line.write(&mut text, columns, is_colored);
        text.push('\n');
    }
    text
}

fn verdict(verdict: Verdict) -> Line {
    Line::styled(style(verdict), format!("{:<VERDICT$}", word(verdict)))
}

fn head(page: &Page) -> String {
    let host = &page.host;
    let cpus = if host.cpus == 1 { "CPU" } else { "CPUs" };
    format!(
        "tracer {}   {}   Linux {}   {} {cpus}   {} UTC   watched for {}",
        env!("CARGO_PKG_VERSION"),
        host.hostname,
        host.kernel,
        host.cpus,
        clock(page.time),
        age(page.sample_ns),
    )
}

fn row(report: &RowReport, columns: usize) -> Vec<Line> {
    let name = verdict(report.verdict()).with(Style::Plain, format!("{:<11}", report.row.name()));
    let mut lines = begun(name, &report.summary, ROW, columns);
    for finding in &report.findings {
        let dash = Line::plain(" ".repeat(FINDING - 2)).with(style(finding.verdict), "- ");
        lines.extend(begun(dash, &finding.what, FINDING, columns));
        let who = finding.who.iter().map(|who| ("who", who));
        let why = [("why", &finding.why), ("next", &finding.next)];
        for (label, said) in who.chain(why).filter(|(_, said)| !said.is_empty()) {
            lines.extend(begun(labelled(Style::Dim, label), said, DETAIL, columns));
        }
    }
    for unseen in &report.unseen {
        let label = Line::plain(" ".repeat(FINDING)).with(Style::Magenta, "not seen  ");
        lines.extend(begun(label, unseen, FINDING + 10, columns));
    }
    lines
}

fn labelled(style: Style, label: &str) -> Line {
    Line::plain(" ".repeat(DETAIL - 6)).with(style, format!("{label:<6}"))
}

/// A line that begins like this, and goes on below what was said.
fn begun(begin: Line, said: &str, indent: usize, columns: usize) -> Vec<Line> {
    let mut rest = wrap(said, columns.saturating_sub(indent), 0).into_iter();
    let mut first = begin;
    first.append(rest.next().unwrap_or_default());
    let mut lines = vec![first];
    lines.extend(rest.map(|line| {
        let mut below = Line::plain(" ".repeat(indent));
        below.append(line);
        below
    }));
    lines
}

fn foot(page: &Page) -> String {
    let count = |verdict| {
        let reports = page.reports.iter();
        reports.filter(|r| r.verdict() == verdict).count()
    };
    // The rows that are bad by name: a terminal shows the end of a long page.
    let named = |verdict| {
        let reports = page.reports.iter().filter(|r| r.verdict() == verdict);
        let names: Vec<&str> = reports.map(|report| report.row.name()).collect();
        match names.len() {
            0 => format!("0 {}", word(verdict)),
            count => format!("{count} {} ({})", word(verdict), names.join(", ")),
        }
    };
    format!(
        "{}, {}, {}, {} note, {} ok   in {}",
        named(Verdict::Critical),
        named(Verdict::Warning),
        named(Verdict::Unknown),
        count(Verdict::Note),
        count(Verdict::Ok),
        age(page.took_ns),
    )
}
