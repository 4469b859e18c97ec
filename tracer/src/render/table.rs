//! The table of groups: which columns fit, how wide they are, what a row says.
//!
//! A screen too narrow drops columns in the order of [`DROPPED_FIRST`]; names
//! are cut, never wrapped.

use super::{
    cgroup,
    line::{Line, Style, cut_end, left, list, right, width},
    quantity::{cell, grouped, shows, tasks},
    sections::cause,
};
use crate::{
    snapshot::{Group, GroupBy, LoadBreakdown, TaskMean},
    text::Text,
};

/// A column of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Load1,
    Load5,
    Load15,
    Running,
    Waiting,
    Throttled,
    Blocked,
    Threads,
}

/// The columns of numbers, with their headings and the figures they show.
const NUMBERS: [(Column, &str, &str); 8] = [
    (Column::Load1, "LOAD1", "snapshot.load.groups[].load1"),
    (Column::Load5, "LOAD5", "snapshot.load.groups[].load5"),
    (Column::Load15, "LOAD15", "snapshot.load.groups[].load15"),
    (Column::Running, "RUN", "snapshot.load.groups[].running"),
    (Column::Waiting, "WAIT", "snapshot.load.groups[].waiting"),
    (
        Column::Throttled,
        "THROT",
        "snapshot.load.groups[].throttled",
    ),
    (Column::Blocked, "BLOCK", "snapshot.load.groups[].blocked"),
    (Column::Threads, "THREADS", "snapshot.load.groups[].threads"),
];

/// The columns of text.
const NAMES: [(&str, &str); 4] = [
    ("PROCESS", "snapshot.load.groups[].pid"),
    ("COMM", "snapshot.load.groups[].comm"),
    ("CGROUP", "snapshot.load.groups[].cgroup"),
    ("USER", "snapshot.load.groups[].user"),
];

/// What goes first when the screen is too narrow; before all, the second name.
const DROPPED_FIRST: [Column; 4] = [
    Column::Threads,
    Column::Load15,
    Column::Load5,
    Column::Throttled,
];

/// Room that a name shall have before a column is dropped for it.
const NAME_ROOM: usize = 24;
/// Room that the second name shall have, or it is dropped.
const CGROUP_ROOM: usize = 12;
/// Room that a number has at least, so that columns stand still as it grows.
const NUMBER_ROOM: usize = 5;
/// Blanks before each column.
const GAP: usize = 2;
/// Blanks before what continues a row and does not fit below its name.
const INDENT: usize = 6;

/// Every heading with the path of its figure, for the documentation.
pub(super) fn headings() -> impl Iterator<Item = (&'static str, &'static str)> {
    NUMBERS
        .iter()
        .map(|&(_, heading, path)| (heading, path))
        .chain(NAMES)
}

/// The lines of a table.
#[derive(Debug)]
pub(super) struct Table {
    /// The headings.
    pub(super) head: Line,
    /// A group each.
    pub(super) groups: Vec<GroupLines>,
    /// The rows that are no group, and the total.
    pub(super) tail: Vec<Line>,
}

/// A group's row, and what its tasks are blocked by.
#[derive(Debug)]
pub(super) struct GroupLines {
    /// The row.
    pub(super) row: Line,
    /// Below it, for a group that is blocked.
    pub(super) causes: Option<Line>,
}

impl GroupLines {
    /// A row alone.
    pub(super) fn of(row: Line) -> Self {
        Self { row, causes: None }
    }

    /// How many lines it takes.
    pub(super) fn height(&self) -> usize {
        1 + usize::from(self.causes.is_some())
    }

    /// The lines.
    pub(super) fn lines(self) -> impl Iterator<Item = Line> {
        std::iter::once(self.row).chain(self.causes)
    }
}

/// The table of a tick. Its last row is the kernel's averages, which all rows
/// above add up to, each of them rounded.
pub(super) fn of_tick(load: &LoadBreakdown, by: GroupBy, columns: usize) -> Table {
    let named = |name: &str, load: [f64; 3], style| Row {
        load: load.map(cell),
        name: name.to_owned(),
        style,
        ..Row::default()
    };
    let mut tail = Vec::new();
    if load.other.groups > 0 {
        tail.push(Row {
            mean: Some(load.other.mean),
            ..named(
                &format!("other ({} more)", grouped(load.other.groups)),
                load.other.load,
                Style::Plain,
            )
        });
    }
    for (name, part) in [
        ("before start", load.before_start),
        ("delayed dequeue", load.delayed),
    ] {
        if part.into_iter().any(shows) {
            tail.push(named(name, part, Style::Plain));
        }
    }
    let style = if load.unexplained.into_iter().any(shows) {
        Style::Magenta
    } else {
        Style::Plain
    };
    tail.push(named("unexplained", load.unexplained, style));
    tail.push(Row {
        load: load.averages.map(tasks),
        mean: Some(load.mean),
        name: "total".to_owned(),
        style: Style::Bold,
        ..Row::default()
    });
    lay_out(&load.groups, &tail, by, columns)
}

/// The table of a run: its top contributors alone.
pub(super) fn of_run(groups: &[Group], by: GroupBy, columns: usize) -> Table {
    lay_out(groups, &[], by, columns)
}

/// What a row says.
#[derive(Clone, Debug, Default)]
struct Row {
    load: [String; 3],
    mean: Option<TaskMean>,
    threads: String,
    name: String,
    /// What follows the name and outlives a cut.
    suffix: String,
    cgroup: String,
    style: Style,
}

impl Row {
    fn of_group(group: &Group, by: GroupBy, shows_threads: bool) -> Self {
        let text = |text: &Option<Text>| match text {
            Some(text) => text.as_str().to_owned(),
            None => "-".to_owned(),
        };
        let mut suffix = match (by, group.pid) {
            (GroupBy::Process, Some(pid)) => format!("[{pid}]"),
            (GroupBy::Process, None) => "[*]".to_owned(),
            _ => String::new(),
        };
        if by == GroupBy::Process && group.pid.is_none() && group.threads == 0 {
            if group.exited > 0 {
                suffix.push_str(&format!(" x{}", grouped(group.exited)));
            }
            suffix.push_str(" exited");
        } else {
            if group.threads > 1 && !shows_threads {
                suffix.push_str(&format!(" x{}", grouped(group.threads)));
            }
            if group.exited > 0 {
                suffix.push_str(&format!(" +{} exited", grouped(group.exited)));
            }
        }
        let (name, cgroup) = match by {
            GroupBy::Process => (text(&group.comm), text(&group.cgroup)),
            GroupBy::Comm => (text(&group.comm), String::new()),
            GroupBy::Cgroup => (text(&group.cgroup), String::new()),
            GroupBy::User => (text(&group.user), String::new()),
        };
        Self {
            load: group.load.map(cell),
            mean: Some(group.mean),
            threads: if group.threads == 0 {
                "-".to_owned()
            } else {
                grouped(group.threads)
            },
            name,
            suffix,
            cgroup,
            style: Style::Plain,
        }
    }

    /// A number as it stands in the table, and the style it has of its own.
    fn number(&self, column: Column) -> (String, Style) {
        let of_mean = |part: fn(&TaskMean) -> f64, style| match &self.mean {
            Some(mean) if shows(part(mean)) => (cell(part(mean)), style),
            Some(mean) => (cell(part(mean)), Style::Plain),
            None => Default::default(),
        };
        let [load1, load5, load15] = &self.load;
        match column {
            Column::Load1 => (load1.clone(), Style::Plain),
            Column::Load5 => (load5.clone(), Style::Plain),
            Column::Load15 => (load15.clone(), Style::Plain),
            Column::Running => of_mean(|mean| mean.running, Style::Plain),
            Column::Waiting => of_mean(|mean| mean.waiting, Style::Yellow),
            Column::Throttled => of_mean(|mean| mean.throttled, Style::Yellow),
            Column::Blocked => of_mean(|mean| mean.blocked, Style::Red),
            Column::Threads => (self.threads.clone(), Style::Plain),
        }
    }
}

/// The columns that fit, with their widths.
struct Layout {
    by: GroupBy,
    numbers: Vec<(Column, &'static str, usize)>,
    name: usize,
    /// `None`: no such column.
    cgroup: Option<usize>,
}

fn lay_out(groups: &[Group], tail: &[Row], by: GroupBy, columns: usize) -> Table {
    let rows = |shows_threads| -> Vec<Row> {
        groups
            .iter()
            .map(|group| Row::of_group(group, by, shows_threads))
            .collect()
    };
    let mut body = rows(true);
    let layout = Layout::new(&body, tail, by, columns);
    if !layout
        .numbers
        .iter()
        .any(|(column, ..)| *column == Column::Threads)
    {
        body = rows(false);
    }
    Table {
        head: layout.head(),
        groups: body
            .iter()
            .zip(groups)
            .map(|(row, group)| GroupLines {
                row: layout.line(row),
                causes: layout.causes(group, columns),
            })
            .collect(),
        tail: tail.iter().map(|row| layout.line(row)).collect(),
    }
}

impl Layout {
    fn new(body: &[Row], tail: &[Row], by: GroupBy, columns: usize) -> Self {
        let all = || body.iter().chain(tail);
        let mut numbers: Vec<_> = NUMBERS
            .iter()
            .map(|&(column, heading, _)| {
                let widest = all()
                    .map(|row| width(&row.number(column).0))
                    .max()
                    .unwrap_or(0);
                (column, heading, widest.max(heading.len()).max(NUMBER_ROOM))
            })
            .collect();
        let taken = |numbers: &[(Column, &str, usize)]| -> usize {
            numbers.iter().map(|(.., wide)| GAP + wide).sum()
        };
        let has_cgroup = by == GroupBy::Process
            && taken(&numbers) + GAP + NAME_ROOM + GAP + CGROUP_ROOM <= columns;
        for dropped in DROPPED_FIRST {
            if taken(&numbers) + GAP + NAME_ROOM <= columns {
                break;
            }
            numbers.retain(|(column, ..)| *column != dropped);
        }
        let room = columns.saturating_sub(taken(&numbers) + GAP);
        let natural = all()
            .map(|row| width(&row.name) + width(&row.suffix))
            .max()
            .unwrap_or(0);
        if !has_cgroup {
            return Self {
                by,
                numbers,
                name: room,
                cgroup: None,
            };
        }
        let path = all().map(|row| width(&row.cgroup)).max().unwrap_or(0);
        let name = natural
            .max(NAME_ROOM)
            .min(room - GAP - path.min(CGROUP_ROOM));
        let cgroup = Some(room - GAP - name);
        Self {
            by,
            numbers,
            name,
            cgroup,
        }
    }

    fn head(&self) -> Line {
        let mut line = Line::default();
        for (_, heading, wide) in &self.numbers {
            line.push(Style::Bold, right(heading, GAP + wide));
        }
        let heading = match self.by {
            GroupBy::Process => "PROCESS",
            GroupBy::Comm => "COMM",
            GroupBy::Cgroup => "CGROUP",
            GroupBy::User => "USER",
        };
        line.push(Style::Plain, " ".repeat(GAP));
        match self.cgroup {
            None => line.push(Style::Bold, heading),
            Some(_) => {
                line.push(Style::Bold, left(heading, self.name + GAP));
                line.push(Style::Bold, "CGROUP");
            }
        }
        line
    }

    fn line(&self, row: &Row) -> Line {
        let mut line = Line::default();
        for (column, _, wide) in &self.numbers {
            let (number, own) = row.number(*column);
            let style = if row.style == Style::Plain {
                own
            } else {
                row.style
            };
            line.push(style, right(&number, GAP + wide));
        }
        line.push(Style::Plain, " ".repeat(GAP));
        let name = self.name(row);
        match self.cgroup {
            None => line.push(row.style, name),
            Some(room) => {
                line.push(row.style, left(&name, self.name));
                line.push(Style::Plain, " ".repeat(GAP));
                line.push(row.style, cgroup::fit(&row.cgroup, room));
            }
        }
        line
    }

    /// Below the name, what the group is blocked by.
    fn causes(&self, group: &Group, columns: usize) -> Option<Line> {
        let shown: Vec<_> = group
            .causes
            .iter()
            .filter(|share| shows(share.blocked))
            .collect();
        if shown.is_empty() {
            return None;
        }
        let words: Vec<_> = shown
            .iter()
            .map(|share| {
                let cause = cause(share.cause, share.detail.as_ref());
                format!("{cause} {}", tasks(share.blocked))
            })
            .collect();
        let numbers: usize = self.numbers.iter().map(|(.., wide)| GAP + wide).sum();
        let indent = numbers + 2 * GAP;
        let natural = width(&words.join(", "));
        // What does not fit below the name begins further left.
        let indent = if indent + natural <= columns {
            indent
        } else {
            INDENT
        };
        let text = list(&words, 0, columns.saturating_sub(indent));
        Some(Line::plain(" ".repeat(indent)).with(Style::Dim, text))
    }

    /// The name, cut so that what follows it stays whole.
    fn name(&self, row: &Row) -> String {
        let room = self.name.saturating_sub(width(&row.suffix));
        if room < 2 && width(&row.name) > room {
            return cut_end(&format!("{}{}", row.name, row.suffix), self.name);
        }
        let name = match self.by {
            GroupBy::Cgroup => cgroup::fit(&row.name, room),
            _ => cut_end(&row.name, room),
        };
        name + &row.suffix
    }
}
