//! The text at the end of a run.

use super::{
    line::{Line, Style, right, width, wrap},
    oom, oom_page,
    quantity::{age, counted, grouped, tasks},
    sections::{flow, left_out, lengths, mean, own_cost, task},
    syn,
    table::{self, GroupLines},
    tcp,
    tcp_page::{self, Span},
    tcp_transitions, turned,
};
use crate::snapshot::{GroupBy, LongEpisode, Lost, Start, Subject, Summary};

/// So many causes are shown.
const CAUSES: usize = 10;

/// The whole run.
pub(super) fn lines(summary: &Summary, start: Option<&Start>, columns: usize) -> Vec<Line> {
    let by = start.map(|start| start.by).unwrap_or_default();
    let matrix = start.is_some_and(|start| start.matrix);
    let mut lines = match start.map(|start| start.subject).unwrap_or_default() {
        Subject::All => {
            let mut lines = of_load(summary, by, columns);
            lines.extend(of_tcp(summary, columns));
            lines.push(Line::default());
            lines.extend(syn::section(&summary.syn, columns));
            lines.extend(oom::section(&summary.oom, columns));
            lines
        }
        Subject::Load => of_load(summary, by, columns),
        Subject::Syn => {
            let mut lines = head(summary, Vec::new(), columns);
            let sections = syn::sections(&summary.syn, columns);
            lines.push(Line::default());
            lines.extend(tcp_page::fit(sections, usize::MAX));
            lines
        }
        Subject::Oom if start.is_some_and(|start| start.next) => return Vec::new(),
        Subject::Oom => {
            let mut lines = head(summary, Vec::new(), columns);
            let sections = oom_page::sections(&summary.oom, columns);
            lines.push(Line::default());
            lines.extend(tcp_page::fit(sections, usize::MAX));
            lines
        }
        Subject::Tcp => {
            let mut lines = head(summary, Vec::new(), columns);
            let (tcp, run_ns) = (&summary.tcp, summary.duration_ns);
            let sections = tcp_page::sections(tcp, run_ns, Span::Run, matrix, columns);
            lines.push(Line::default());
            lines.extend(tcp_page::fit(sections, usize::MAX));
            lines
        }
    };
    lines.push(Line::default());
    lines.extend(lost(&summary.lost, columns));
    lines.extend(flow(own_cost(&summary.own), columns));
    lines
}

fn head(summary: &Summary, more: Vec<Line>, columns: usize) -> Vec<Line> {
    let mut parts = vec![
        Line::styled(
            Style::Bold,
            format!("SUMMARY of {}", age(summary.duration_ns)),
        ),
        Line::plain(counted(summary.snapshots, "snapshot")),
    ];
    parts.extend(more);
    flow(parts, columns)
}

/// TCP sockets in short: the states at the end, speeds and transitions over the run.
fn of_tcp(summary: &Summary, columns: usize) -> Vec<Line> {
    let (tcp, run_ns) = (&summary.tcp, summary.duration_ns);
    let mut lines = vec![Line::default()];
    lines.extend(tcp::section(
        "TCP at the end",
        tcp,
        run_ns,
        columns,
        usize::MAX,
    ));
    if !tcp.transitions.is_empty() {
        let (head, rows) = tcp_transitions::list(&tcp.transitions, run_ns, Span::Run, columns);
        lines.push(Line::default());
        lines.extend(head.into_iter().chain(rows));
    }
    lines
}

fn of_load(summary: &Summary, by: GroupBy, columns: usize) -> Vec<Line> {
    let [load1, load5, load15] = summary.averages.map(tasks);
    let load = vec![
        Line::plain(format!("{} exited", counted(summary.exited, "task"))),
        Line::plain(format!("load at the end  {load1}  {load5}  {load15}")),
    ];
    let mut lines = head(summary, load, columns);
    lines.extend(flow(mean(&summary.mean), columns));
    lines.extend(flow(samples(summary), columns));
    if !summary.groups.is_empty() {
        let table = table::of_run(&summary.groups, by, columns);
        lines.extend([
            Line::default(),
            Line::styled(Style::Bold, "TOP CONTRIBUTORS"),
        ]);
        lines.extend(wrap(
            "load as at the end, the rest averaged over the run",
            columns,
            0,
        ));
        lines.push(table.head);
        lines.extend(table.groups.into_iter().flat_map(GroupLines::lines));
    }
    lines.extend(by_cause(summary, columns));
    if !summary.episodes.is_empty() {
        lines.extend([
            Line::default(),
            Line::styled(Style::Bold, "LONGEST BLOCKED"),
        ]);
        lines.extend(episodes(&summary.episodes));
    }
    lines
}

/// The whole run, of which the events were shown already.
pub(super) fn of_events(summary: &Summary, columns: usize) -> Vec<Line> {
    let head = format!("SUMMARY of {}", age(summary.duration_ns));
    let mut lines = vec![Line::styled(Style::Bold, head)];
    lines.extend(by_cause(summary, columns));
    lines.push(Line::default());
    lines.extend(lost(&summary.lost, columns));
    lines.extend(flow(own_cost(&summary.own), columns));
    lines
}

/// Blocked time by cause, and how long the episodes were.
fn by_cause(summary: &Summary, columns: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let by_cause = turned::of_causes(&summary.causes, summary.mean.blocked, columns);
    if !by_cause.groups.is_empty() {
        lines.extend([
            Line::default(),
            Line::styled(Style::Bold, "BLOCKED BY CAUSE"),
            by_cause.head,
        ]);
        let more = by_cause.groups.len().saturating_sub(CAUSES) as u64;
        let rows = by_cause.groups.into_iter().take(CAUSES);
        lines.extend(rows.flat_map(GroupLines::lines));
        if more > 0 {
            lines.push(Line::plain(format!("  {}", left_out(more))));
        }
    }
    if !summary.lengths.is_empty() {
        let heading = "LENGTHS OF BLOCKED EPISODES";
        lines.extend([Line::default(), Line::styled(Style::Bold, heading)]);
        lines.extend(wrap(
            "how many not shorter than --min-block, and of those how many from each length on up to \
             twice that",
            columns,
            0,
        ));
        lines.extend(lengths(&summary.lengths, columns));
    }
    lines
}

fn samples(summary: &Summary) -> Vec<Line> {
    if summary.samples == 0 {
        return vec![Line::plain("kernel's samples: none fell into the run")];
    }
    vec![
        Line::plain(format!("kernel's samples: {}", grouped(summary.samples))),
        Line::plain(format!(
            "{} with every task named",
            grouped(summary.samples_named)
        )),
        Line::plain(format!(
            "{} tasks off on average",
            tasks(summary.sample_error)
        )),
    ]
}

fn episodes(episodes: &[LongEpisode]) -> Vec<Line> {
    let lengths: Vec<_> = episodes
        .iter()
        .map(|episode| age(episode.length_ns))
        .collect();
    let wide = lengths
        .iter()
        .map(|length| width(length))
        .max()
        .unwrap_or(0);
    let row = |(episode, length): (&LongEpisode, &String)| {
        let name = task(episode.comm.as_str(), episode.pid, episode.tid);
        let line = Line::styled(Style::Red, format!("  {}", right(length, wide)))
            .with(Style::Plain, format!("  {name}"));
        if episode.is_open {
            line.with(Style::Red, "   still blocked")
        } else {
            let began = age(episode.began_ago_ns);
            line.with(Style::Plain, format!("   began {began} before the end"))
        }
    };
    episodes.iter().zip(&lengths).map(row).collect()
}

fn lost(lost: &[Lost], columns: usize) -> Vec<Line> {
    let lines: Vec<_> = lost
        .iter()
        .filter(|lost| lost.count > 0)
        .flat_map(|lost| {
            let count = grouped(lost.count);
            wrap(
                &format!("lost {count} {}: {}", lost.reason, lost.meaning),
                columns,
                6,
            )
        })
        .collect();
    if lines.is_empty() {
        vec![Line::plain("lost 0")]
    } else {
        lines
    }
}
