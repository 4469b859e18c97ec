//! A small table: columns as wide as what stands in them. A screen too narrow
//! loses columns from the right, so the first ones are those that matter.

use super::line::{Line, Style, cut_end, left, right, width};

/// Blanks before each column.
const GAP: usize = 2;
/// A column of text is dropped rather than cut to less than this.
const LEAST_TEXT: usize = 12;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its heading.
    pub(super) heading: &'static str,
    /// The figure that it shows.
    pub(super) path: &'static str,
    /// Text begins at the left, a number ends at the right.
    pub(super) is_text: bool,
}

/// A column of numbers.
pub(super) const fn number(heading: &'static str, path: &'static str) -> Column {
    Column {
        heading,
        path,
        is_text: false,
    }
}

/// A column of text.
pub(super) const fn text(heading: &'static str, path: &'static str) -> Column {
    Column {
        heading,
        path,
        is_text: true,
    }
}

/// What stands in a row's column.
pub(super) type Cell = (Style, String);

/// A plain cell.
pub(super) fn plain(text: impl Into<String>) -> Cell {
    (Style::Plain, text.into())
}

/// The line of the headings, and a line a row. Columns in which no row has anything
/// are left out.
pub(super) fn lay_out(
    columns: &[Column],
    rows: &[Vec<Cell>],
    indent: usize,
    room: usize,
) -> (Line, Vec<Line>) {
    let mut shown = Vec::new();
    let mut used = indent;
    for (at, column) in columns.iter().enumerate() {
        let natural = rows.iter().filter_map(|row| row.get(at));
        let Some(natural) = natural.map(|(_, text)| width(text)).max() else {
            continue;
        };
        if natural == 0 {
            continue;
        }
        let natural = natural.max(width(column.heading));
        let gap = if shown.is_empty() { 0 } else { GAP };
        let left_over = room.saturating_sub(used + gap);
        let least = if column.is_text {
            natural.min(LEAST_TEXT.max(width(column.heading)))
        } else {
            natural
        };
        // The first one stays, however narrow the screen.
        if least > left_over && !shown.is_empty() {
            break;
        }
        let wide = natural.min(left_over.max(1));
        shown.push((at, column, gap, wide));
        used += gap + wide;
    }
    let line = |cell: &dyn Fn(usize, &Column) -> Cell| {
        let mut line = Line::plain(" ".repeat(indent));
        for &(at, column, gap, wide) in &shown {
            let (style, text) = cell(at, column);
            let text = cut_end(&text, wide);
            let text = match column.is_text {
                true => left(&text, wide),
                false => right(&text, wide),
            };
            line.push(Style::Plain, " ".repeat(gap));
            line.push(style, text);
        }
        line
    };
    let head = line(&|_, column| (Style::Bold, column.heading.to_owned()));
    let rows = rows
        .iter()
        .map(|row| line(&|at, _| row.get(at).cloned().unwrap_or_default()));
    (head, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::{lay_out, number, plain, text};

    fn written(room: usize) -> Vec<String> {
        let columns = [
            number("COUNT", ""),
            text("PROCESS", ""),
            number("EMPTY", ""),
            text("WHERE", ""),
        ];
        let row = |count: &str, process: &str, place: &str| {
            [count, process, "", place].map(plain).to_vec()
        };
        let rows = [
            row("1,204", "nginx[812]", "/system.slice/nginx.service"),
            row("7", "漢字[7]", ""),
        ];
        let (head, rows) = lay_out(&columns, &rows, 2, room);
        let write = |line: &super::Line| {
            let mut out = String::new();
            line.write(&mut out, room, false);
            out
        };
        [head].iter().chain(&rows).map(write).collect()
    }

    #[test]
    fn columns_go_from_the_right() {
        assert_eq!(
            written(50),
            [
                "  COUNT  PROCESS     WHERE",
                "  1,204  nginx[812]  /system.slice/nginx.service",
                "      7  漢字[7]"
            ]
        );
        assert_eq!(written(35)[1], "  1,204  nginx[812]  /system.slice…");
        assert_eq!(written(32)[1], "  1,204  nginx[812]");
        assert_eq!(written(18), ["  COUNT", "  1,204", "      7"]);
        assert_eq!(written(5)[1], "  1,…");
    }
}
