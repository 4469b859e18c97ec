//! The table turned round: what tasks are blocked by, then who they are.

use super::{
    line::{Line, Style, cut_end, left, list, right, width},
    quantity::{cell, shows, tasks},
    sections::cause,
    table::{GroupLines, Table},
};
use crate::{
    snapshot::{CauseRow, DeviceRow, Waiter},
    text::Text,
};

/// The columns, with the figures they show.
const HEADINGS: [(&str, &str); 4] = [
    (BLOCKED, "snapshot.causes[].blocked"),
    (CAUSE, "snapshot.causes[].cause"),
    (DEVICE, "snapshot.devices[].device"),
    (WHO, "snapshot.causes[].waiters[].name"),
];
const BLOCKED: &str = "BLOCK";
const CAUSE: &str = "CAUSE";
const DEVICE: &str = "DEVICE";
const WHO: &str = "WHO";

/// Every heading with the path of its figure, for the documentation.
pub(super) fn headings() -> impl Iterator<Item = (&'static str, &'static str)> {
    HEADINGS.into_iter()
}

/// Room that the number takes.
const NUMBER_ROOM: usize = 7;
/// Blanks before each column.
const GAP: usize = 2;
/// Of the room for text, what is blocked on has this share at most.
const NAME_SHARE: (usize, usize) = (3, 5);
/// Of a screen without an edge that is this much.
const WIDEST_NAME: usize = 100;

struct Row {
    blocked: f64,
    name: String,
    waiters: Vec<String>,
    /// Those beyond them.
    more: u64,
}

/// The table by cause; its last row is all blocked time.
pub(super) fn of_causes(rows: &[CauseRow], blocked: f64, columns: usize) -> Table {
    let row = |row: &CauseRow| Row {
        blocked: row.blocked,
        name: cause(row.cause, row.detail.as_ref()),
        more: more(&row.waiters, row.waiters_total),
        waiters: waiters(&row.waiters),
    };
    lay_out(CAUSE, rows.iter().map(row), blocked, columns)
}

/// The table by block device; its last row is all blocked time.
pub(super) fn of_devices(rows: &[DeviceRow], blocked: f64, columns: usize) -> Table {
    let row = |row: &DeviceRow| Row {
        blocked: row.blocked,
        name: row
            .device
            .as_ref()
            .map_or("(no device)", Text::as_str)
            .to_owned(),
        more: more(&row.waiters, row.waiters_total),
        waiters: waiters(&row.waiters),
    };
    lay_out(DEVICE, rows.iter().map(row), blocked, columns)
}

fn waiters(waiters: &[Waiter]) -> Vec<String> {
    let one = |waiter: &Waiter| match waiter.pid {
        Some(pid) => format!("{}[{pid}] {}", waiter.name, tasks(waiter.blocked)),
        None => format!("{} {}", waiter.name, tasks(waiter.blocked)),
    };
    let shown = waiters.iter().filter(|waiter| shows(waiter.blocked));
    shown.map(one).collect()
}

fn more(waiters: &[Waiter], total: u64) -> u64 {
    let shown = waiters.iter().filter(|waiter| shows(waiter.blocked));
    total.saturating_sub(shown.count() as u64)
}

fn lay_out(heading: &str, rows: impl Iterator<Item = Row>, blocked: f64, columns: usize) -> Table {
    let rows: Vec<Row> = rows.filter(|row| shows(row.blocked)).collect();
    let room = columns.saturating_sub(NUMBER_ROOM + 2 * GAP);
    let natural = rows.iter().map(|row| width(&row.name)).max().unwrap_or(0);
    let most = (room / NAME_SHARE.1 * NAME_SHARE.0).min(WIDEST_NAME);
    let name = natural.max(heading.len()).min(most);
    let rest = room.saturating_sub(name);
    let number = |style, text: &str| Line::styled(style, right(text, NUMBER_ROOM));
    let line = |row: &Row| {
        let mut line = number(Style::Red, &cell(row.blocked));
        line.push(Style::Plain, " ".repeat(GAP));
        line.push(Style::Plain, left(&cut_end(&row.name, name), name));
        line.push(Style::Plain, " ".repeat(GAP));
        line.with(Style::Plain, list(&row.waiters, row.more, rest))
    };
    let head = number(Style::Bold, BLOCKED)
        .with(Style::Bold, " ".repeat(GAP))
        .with(Style::Bold, left(heading, name + GAP))
        .with(Style::Bold, WHO);
    let total = number(Style::Bold, &tasks(blocked)).with(Style::Bold, "  total");
    Table {
        head,
        groups: rows.iter().map(|row| GroupLines::of(line(row))).collect(),
        tail: vec![total],
    }
}
