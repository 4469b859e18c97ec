//! Text for people: a block a tick, or a page that takes the place of the last.
//!
//! A block is all there is to say. A page is cut to the screen: rows of the two
//! lists are left out, with a line that says how many.

use super::{
    Render, TextOptions,
    line::Line,
    oom, oom_page, sections, summary, syn,
    table::{self, GroupLines, Table},
    tcp,
    tcp_page::{self, Section, Span},
    turned,
};
use crate::snapshot::{Rows, Snapshot, Start, Subject, Summary};

const CLEAR: &str = "\x1b[2J";
const HOME: &str = "\x1b[H";
const ERASE_TO_LINE_END: &str = "\x1b[K";
const ERASE_TO_SCREEN_END: &str = "\x1b[J";
const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// A page with fewer rows for its lists than this has no blank lines.
const FEW_ROWS: usize = 6;
/// Blank lines of a page.
const BLANK_LINES: usize = 4;
/// TCP sockets take one row of so many at most, where they are not the subject.
const TCP_SHARE: usize = 5;

/// Text for people.
#[derive(Debug)]
pub struct TextRenderer {
    options: TextOptions,
    start: Option<Start>,
}

impl TextRenderer {
    /// A renderer for a screen like this.
    pub fn new(options: TextOptions) -> Self {
        Self {
            options,
            start: None,
        }
    }

    /// The screen has a new size, in columns and rows.
    pub fn resize(&mut self, width: u16, height: u16) {
        self.options.width = width;
        self.options.height = height;
    }

    fn columns(&self) -> usize {
        if self.options.width == 0 {
            u16::MAX.into()
        } else {
            self.options.width.into()
        }
    }

    fn rows(&self) -> usize {
        if self.options.page && self.options.height > 0 {
            self.options.height.into()
        } else {
            usize::MAX
        }
    }

    fn write(&self, lines: &[Line], out: &mut String) {
        for line in lines {
            line.write(out, self.columns(), self.options.color);
            out.push('\n');
        }
    }

    /// The page's last line has no end, or a full screen would scroll. To erase
    /// on a line that is full would erase its last character.
    fn write_page(&self, lines: &[Line], out: &mut String) {
        out.push_str(HOME);
        for (at, line) in lines.iter().enumerate() {
            let is_last = at + 1 == lines.len();
            out.push_str(if is_last { ERASE_TO_SCREEN_END } else { "" });
            line.write(out, self.columns(), self.options.color);
            if !is_last {
                out.push_str(if line.width() < self.columns() {
                    ERASE_TO_LINE_END
                } else {
                    ""
                });
                out.push('\n');
            }
        }
    }

    fn subject(&self) -> Subject {
        let start = self.start.as_ref();
        start.map(|start| start.subject).unwrap_or_default()
    }

    fn lines(&self, snapshot: &Snapshot) -> Vec<Line> {
        let rows = self.rows();
        let mut lines = match self.subject() {
            Subject::Tcp => self.about_tcp(snapshot),
            Subject::Syn => self.lists(snapshot, syn::sections(&snapshot.syn, self.columns())),
            Subject::Oom => self.about_memory(snapshot),
            Subject::All | Subject::Load => self.about_load(snapshot),
        };
        if self.options.page
            && let Some(start) = &self.start
        {
            let caveats = sections::caveats(start, self.columns());
            if lines.len() + caveats.len() <= rows {
                lines.extend(caveats);
            }
        }
        // A screen too low for all that: blanks go, then the end.
        if lines.len() > rows {
            lines.retain(|line| line.width() > 0);
            lines.truncate(rows);
        }
        lines
    }

    fn about_tcp(&self, snapshot: &Snapshot) -> Vec<Line> {
        let matrix = self.start.as_ref().is_some_and(|start| start.matrix);
        let (tcp, interval_ns) = (&snapshot.tcp, snapshot.interval_ns);
        let lists = tcp_page::sections(tcp, interval_ns, Span::Tick, matrix, self.columns());
        self.lists(snapshot, lists)
    }

    fn about_memory(&self, snapshot: &Snapshot) -> Vec<Line> {
        let columns = self.columns();
        if !self.start.as_ref().is_some_and(|start| start.next) {
            return self.lists(snapshot, oom_page::sections(&snapshot.oom, columns));
        }
        // One look: there is no interval, and nothing was lost in it.
        let lists = oom_page::who_is_next(&snapshot.oom, columns);
        tcp_page::fit(lists.into(), self.rows())
    }

    /// Lists between the host's line and tracer's own.
    fn lists(&self, snapshot: &Snapshot, lists: Vec<Section>) -> Vec<Line> {
        let (columns, rows) = (self.columns(), self.rows());
        let mut lines = sections::host(self.start.as_ref(), snapshot, columns);
        let footer = sections::footer(snapshot, columns);
        let free = rows.saturating_sub(lines.len() + footer.len() + 2);
        lines.push(Line::default());
        lines.extend(tcp_page::fit(lists, free));
        lines.push(Line::default());
        lines.extend(footer);
        lines
    }

    fn about_load(&self, snapshot: &Snapshot) -> Vec<Line> {
        let (columns, rows) = (self.columns(), self.rows());
        let start = self.start.as_ref();
        let (by, rows_of) = start
            .map(|start| (start.by, start.rows))
            .unwrap_or_default();
        let blocked = snapshot.load.mean.blocked;
        let table = match rows_of {
            Rows::Groups => table::of_tick(&snapshot.load, by, columns),
            Rows::Causes => turned::of_causes(&snapshot.causes, blocked, columns),
            Rows::Devices => turned::of_devices(&snapshot.devices, blocked, columns),
        };

        let mut lines = sections::host(start, snapshot, columns);
        lines.push(Line::default());
        lines.extend(sections::load(&snapshot.load, columns));
        lines.push(Line::default());
        let mut footer = sections::queues(&snapshot.queues, columns);
        footer.push(Line::default());
        let mut blank_lines = BLANK_LINES;
        let own = sections::footer(snapshot, columns);
        // The headings of both lists, and the blank line between them.
        let headings = 1 + table.tail.len() + 2;
        if self.subject() == Subject::All {
            let others = lines.len() + headings + footer.len() + own.len();
            let left_over = rows.saturating_sub(others - blank_lines + FEW_ROWS);
            let room = left_over.clamp(1, (rows / TCP_SHARE).max(1));
            let (tcp, interval_ns) = (&snapshot.tcp, snapshot.interval_ns);
            footer.extend(tcp::section("TCP", tcp, interval_ns, columns, room));
            footer.push(Line::default());
            footer.extend(syn::section(&snapshot.syn, columns));
            footer.extend(oom::section(&snapshot.oom, columns));
            footer.push(Line::default());
            blank_lines += 2;
        }
        footer.extend(own);

        let fixed = lines.len() + headings + footer.len();
        let mut free = rows.saturating_sub(fixed);
        if free < FEW_ROWS {
            // The blank lines go, below.
            free = rows.saturating_sub(fixed - blank_lines);
        }
        let needed = table.groups.iter().map(GroupLines::height).sum();
        let (group_rows, blocked_rows) = share(free, needed, self.blocked_rows_needed(snapshot));

        lines.extend(group_lines(table, group_rows));
        lines.push(Line::default());
        lines.extend(self.blocked_lines(snapshot, blocked_rows));
        lines.extend(footer);
        lines
    }

    /// With the stacks, where they are wanted.
    fn blocked_rows_needed(&self, snapshot: &Snapshot) -> usize {
        let frames: usize = snapshot.blocked.iter().map(|task| task.stack.len()).sum();
        blocked_rows_needed(snapshot) + if self.options.stacks { frames } else { 0 }
    }

    fn blocked_lines(&self, snapshot: &Snapshot, rows: usize) -> Vec<Line> {
        let listed = snapshot.blocked.len();
        let all = snapshot.blocked_total.max(listed as u64);
        // On a single row the longest blocked task stands beside the count.
        let shown = if blocked_rows_needed(snapshot) <= rows {
            listed
        } else {
            rows.saturating_sub(1).max(1)
        };
        let shown = snapshot.blocked.get(..shown).unwrap_or(&snapshot.blocked);
        let left_out = all - shown.len() as u64;
        let words = match left_out {
            0 if listed == 0 => "none".to_owned(),
            0 => String::new(),
            left_out => sections::left_out(left_out),
        };
        if shown.is_empty() || rows == 1 {
            // No room below for what was left out.
            let mut lines = vec![sections::blocked_heading(&words)];
            lines.extend(sections::blocked(shown, self.columns()));
            return lines;
        }
        let mut lines = vec![sections::blocked_heading("")];
        // As many frames as there is room for.
        let mut room = match self.options.stacks {
            true => rows.saturating_sub(shown.len() + usize::from(left_out > 0)),
            false => 0,
        };
        for (line, task) in sections::blocked(shown, self.columns())
            .into_iter()
            .zip(shown)
        {
            lines.push(line);
            let before = lines.len();
            lines.extend(sections::stack(task).take(room));
            room -= lines.len() - before;
        }
        if left_out > 0 {
            lines.push(Line::plain(format!("  {words}")));
        }
        lines
    }
}

impl Render for TextRenderer {
    fn start(&mut self, start: &Start) -> Vec<u8> {
        self.start = Some(start.clone());
        let mut out = String::new();
        if self.options.page {
            out.extend([HIDE_CURSOR, CLEAR, HOME]);
        }
        self.write(&sections::start(start, self.columns()), &mut out);
        out.into_bytes()
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Vec<u8> {
        let lines = self.lines(snapshot);
        let mut out = String::new();
        if self.options.page {
            self.write_page(&lines, &mut out);
        } else {
            out.push('\n');
            self.write(&lines, &mut out);
        }
        out.into_bytes()
    }

    fn end(&mut self, summary: &Summary) -> Vec<u8> {
        let mut out = String::from("\n");
        if self.options.page {
            out.extend([SHOW_CURSOR, "\n"]);
        }
        let mut lines = summary::lines(summary, self.start.as_ref(), self.columns());
        if self.options.page
            && let Some(start) = &self.start
        {
            // The first page took their place.
            lines.extend(sections::caveats(start, self.columns()));
        }
        self.write(&lines, &mut out);
        out.into_bytes()
    }
}

/// How many rows each list gets: all it has, or the blocked tasks a third and
/// the groups the rest, with what one leaves over going to the other.
fn share(free: usize, groups: usize, blocked: usize) -> (usize, usize) {
    if groups.saturating_add(blocked) <= free {
        return (groups, blocked);
    }
    let blocked_rows = blocked.min((free / 3).max(free.saturating_sub(groups)).max(1));
    (groups.min(free.saturating_sub(blocked_rows)), blocked_rows)
}

fn group_lines(table: Table, rows: usize) -> Vec<Line> {
    let needed: usize = table.groups.iter().map(GroupLines::height).sum();
    // Without room for all of them, one line says so.
    let room = if needed <= rows {
        rows
    } else {
        rows.saturating_sub(1)
    };
    let mut lines = vec![table.head];
    let (mut used, mut left_out) = (0, 0);
    for group in table.groups {
        let height = group.height();
        if used + height <= room {
            lines.extend(group.lines());
        } else if used < room {
            // The row at least.
            lines.push(group.row);
        } else {
            left_out += 1;
        }
        used += height;
    }
    if left_out > 0 && rows > 0 {
        let left_out = sections::left_out(left_out);
        lines.push(Line::plain(format!("  {left_out}")));
    }
    lines.extend(table.tail);
    lines
}

/// Rows that the blocked tasks would take below their heading: one each, and one for
/// those that the list has no room for.
fn blocked_rows_needed(snapshot: &Snapshot) -> usize {
    let listed = snapshot.blocked.len();
    listed + usize::from(listed > 0 && snapshot.blocked_total > listed as u64)
}
