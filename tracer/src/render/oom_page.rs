//! The text that is about memory alone: a list for each question.

use super::{
    grid::{Cell, Column, number, plain, text},
    line::{Line, Style},
    oom::{held, indented, memory, process, scope, style, why, with_it},
    quantity::{bytes, grouped},
    tcp_page::Section,
    time::clock,
};
use crate::{
    snapshot::{Candidate, CgroupMemory, Kill, OomBreakdown},
    text::Text,
};

/// Blanks before what explains a kill.
const INDENT: usize = 12;
/// Rows of a list without which it is left out.
const FEW_ROWS: usize = 3;

const NEXT: [Column; 9] = [
    number("SCORE", "snapshot.oom.next[].oom_score"),
    text("PROCESS", "snapshot.oom.next[].comm"),
    number("ADJ", "snapshot.oom.next[].oom_score_adj"),
    number("ANON", "snapshot.oom.next[].anon_rss_bytes"),
    number("FILE", "snapshot.oom.next[].file_rss_bytes"),
    number("SHMEM", "snapshot.oom.next[].shmem_rss_bytes"),
    number("SWAP", "snapshot.oom.next[].swap_bytes"),
    text("USER", "snapshot.oom.next[].user"),
    text("CGROUP", "snapshot.oom.next[].cgroup"),
];

const CGROUPS: [Column; 6] = [
    number("USED", "snapshot.oom.cgroups[].used_ratio"),
    number("LEFT", "snapshot.oom.cgroups[].left_bytes"),
    number("LIMIT", "snapshot.oom.cgroups[].limit_bytes"),
    number("KILLS", "snapshot.oom.cgroups[].oom_kills"),
    text("NEXT THERE", "snapshot.oom.cgroups[].next.comm"),
    text("MEMORY CGROUP", "snapshot.oom.cgroups[].path"),
];

/// Every heading with the path of its figure, for the documentation.
pub(super) fn headings() -> impl Iterator<Item = (&'static str, &'static str)> {
    let columns = NEXT.into_iter().chain(CGROUPS);
    columns.map(|column| (column.heading, column.path))
}

/// All of it, what to look at first coming first. `kills` are those of an interval or
/// the latest.
pub(super) fn sections(oom: &OomBreakdown, columns: usize) -> Vec<Section> {
    let mut sections = vec![
        Section::new("MEMORY", memory(oom, columns)),
        kills(oom, columns),
    ];
    sections.extend(who_is_next(oom, columns));
    sections
}

/// Who is next, on the host and in each cgroup with a limit.
pub(super) fn who_is_next(oom: &OomBreakdown, columns: usize) -> [Section; 2] {
    [next(&oom.next, columns), cgroups(oom, columns)]
}

fn kills(oom: &OomBreakdown, columns: usize) -> Section {
    let words = match (oom.killed, oom.signalled) {
        (0, 0) => "none since the start".to_owned(),
        (killed, signalled) => format!(
            "since the start: {} for memory, {} by a process",
            grouped(killed),
            grouped(signalled)
        ),
    };
    let head = Line::styled(Style::Bold, "KILLS").with(Style::Plain, format!("   {words}"));
    let rows = oom.recent.iter().flat_map(|kill| lines(kill, columns));
    Section::new("KILLS", vec![head]).with_rows(rows.collect(), FEW_ROWS)
}

/// A kill, and what is known of it.
pub(super) fn lines(kill: &Kill, columns: usize) -> Vec<Line> {
    let past = if kill.is_past {
        "   before the start"
    } else {
        ""
    };
    let mut lines = vec![
        Line::plain(format!("  {}  ", clock(kill.time)))
            .with(style(kill), format!("{:<8}", scope(kill)))
            .with(Style::Bold, format!("  {}", process(&kill.victim)))
            .with(Style::Plain, format!("   {}{past}", held(&kill.victim))),
    ];
    let mut said = vec![why(kill)];
    said.extend(with_it(kill));
    if !kill.others.is_empty() {
        let other = |other: &Candidate| {
            let process = &other.process;
            format!("{} {}", self::process(process), bytes(process.rss_bytes()))
        };
        let others: Vec<_> = kill.others.iter().take(3).map(other).collect();
        said.push(format!("also big there: {}", others.join(", ")));
    }
    for sentence in said {
        lines.extend(indented(&sentence, INDENT, columns));
    }
    lines
}

fn next(candidates: &[Candidate], columns: usize) -> Section {
    let name = "NEXT ON THE HOST";
    let row = |candidate: &Candidate| {
        let process = &candidate.process;
        vec![
            plain(candidate.oom_score.to_string()),
            plain(super::oom::process(process)),
            plain(process.oom_score_adj.to_string()),
            size(process.anon_rss_bytes),
            size(process.file_rss_bytes),
            size(process.shmem_rss_bytes),
            size(process.swap_bytes.unwrap_or(0)),
            of_text(process.user.as_ref()),
            of_text(process.cgroup.as_ref()),
        ]
    };
    let rows: Vec<_> = candidates.iter().map(row).collect();
    let mut head = Line::styled(Style::Bold, name);
    if rows.is_empty() {
        head.push(Style::Plain, "   not known");
    }
    Section::new(name, vec![head]).with_table(&NEXT, &rows, columns)
}

fn cgroups(oom: &OomBreakdown, columns: usize) -> Section {
    let name = "CGROUPS WITH A LIMIT OF MEMORY";
    let row = |cgroup: &CgroupMemory| {
        let next = cgroup.next.as_ref();
        let next = next.map(|next| super::oom::process(&next.process));
        let whole = if cgroup.is_killed_whole {
            " and all with it"
        } else {
            ""
        };
        vec![
            plain(format!("{:.0} %", cgroup.used_ratio * 100.0)),
            size(cgroup.left_bytes),
            size(cgroup.limit_bytes),
            plain(cgroup.oom_kills.map_or_else(String::new, grouped)),
            plain(next.map_or_else(|| "nobody".to_owned(), |next| next + whole)),
            of_text(Some(&cgroup.path)),
        ]
    };
    let rows: Vec<_> = oom.cgroups.iter().map(row).collect();
    let words = match oom.cgroups_total {
        0 => "   none".to_owned(),
        total if total > rows.len() as u64 => {
            format!("   the fullest {} of {}", rows.len(), grouped(total))
        }
        _ => String::new(),
    };
    let head = Line::styled(Style::Bold, name).with(Style::Plain, words);
    Section::new(name, vec![head]).with_table(&CGROUPS, &rows, columns)
}

fn size(size: u64) -> Cell {
    plain(match size {
        0 => "-".to_owned(),
        size => bytes(size),
    })
}

fn of_text(text: Option<&Text>) -> Cell {
    plain(text.map_or_else(String::new, Text::to_string))
}
