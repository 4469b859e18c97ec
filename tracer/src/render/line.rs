//! One line of text: styled spans that know their width on a screen, and are
//! cut rather than wrapped. Width counts columns, so a wide character is two.

use unicode_width::UnicodeWidthChar;

use super::quantity::grouped;

/// What stands where something was cut off; one column wide.
const CUT: char = '…';

/// How a span looks when colours are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Style {
    /// As the terminal has it.
    #[default]
    Plain,
    /// Headings.
    Bold,
    /// Blocked, and what went missing.
    Red,
    /// Waiting and throttled.
    Yellow,
    /// What tracer could not name.
    Magenta,
    /// What explains the line above.
    Dim,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Red => "\x1b[31m",
            Self::Yellow => "\x1b[33m",
            Self::Magenta => "\x1b[35m",
            Self::Dim => "\x1b[2m",
        }
    }
}

/// One line, without its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    spans: Vec<(Style, String)>,
}

impl Line {
    /// A line of one plain span.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::default().with(Style::Plain, text)
    }

    /// A line of one span.
    pub(crate) fn styled(style: Style, text: impl Into<String>) -> Self {
        Self::default().with(style, text)
    }

    /// The line with one more span.
    pub(crate) fn with(mut self, style: Style, text: impl Into<String>) -> Self {
        self.push(style, text);
        self
    }

    /// The line in one style.
    pub(super) fn all(mut self, style: Style) -> Self {
        self.spans.iter_mut().for_each(|span| span.0 = style);
        self
    }

    /// Appends a span.
    pub(crate) fn push(&mut self, style: Style, text: impl Into<String>) {
        self.spans.push((style, text.into()));
    }

    /// Appends another line's spans.
    pub(crate) fn append(&mut self, other: Self) {
        self.spans.extend(other.spans);
    }

    /// Columns it takes.
    pub(super) fn width(&self) -> usize {
        self.spans.iter().map(|(_, text)| width(text)).sum()
    }

    /// Writes the line in at most `columns`, without blanks at its end.
    pub(crate) fn write(&self, out: &mut String, columns: usize, color: bool) {
        let mut left = columns;
        let cut_somewhere = self.width() > columns;
        let mut pending_blanks = String::new();
        for (style, text) in &self.spans {
            let shown = if cut_somewhere && width(text) >= left {
                cut_short(text, left)
            } else {
                text.clone()
            };
            left -= width(&shown);
            let inked = shown.trim_end_matches(' ');
            if inked.is_empty() {
                pending_blanks.push_str(&shown);
            } else {
                out.push_str(&pending_blanks);
                let code = if color { style.code() } else { "" };
                out.push_str(code);
                out.push_str(inked);
                out.push_str(if code.is_empty() { "" } else { "\x1b[0m" });
                pending_blanks = " ".repeat(shown.len() - inked.len());
            }
            if left == 0 {
                break;
            }
        }
    }
}

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// The text's begin in at most `columns`, with a mark that something is gone
/// even where all of it would just fit: for a text that is followed by more.
fn cut_short(text: &str, columns: usize) -> String {
    if columns == 0 {
        return String::new();
    }
    let mut kept = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += char_width(c);
        if used > columns {
            break;
        }
        kept.push(c);
    }
    kept.push(CUT);
    kept
}

/// The text in at most `columns`, its end cut off.
pub(super) fn cut_end(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        text.to_owned()
    } else {
        cut_short(text, columns)
    }
}

/// The text in at most `columns`, its begin cut off: for paths.
pub(super) fn cut_start(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    cut_short(&text.chars().rev().collect::<String>(), columns)
        .chars()
        .rev()
        .collect()
}

/// Of a list as many as fit into `columns`, then how many there are besides, `more`
/// of them not in the list. The first is cut rather than left out.
pub(super) fn list(items: &[String], more: u64, columns: usize) -> String {
    let rest = |left_out: u64| match left_out {
        0 => String::new(),
        left_out => format!(", {} more", grouped(left_out)),
    };
    let Some(first) = items.first() else {
        return cut_end(rest(more).trim_start_matches(", "), columns);
    };
    let (mut taken, mut used) = (0, 0);
    for (at, item) in items.iter().enumerate() {
        used += width(item) + if at == 0 { 0 } else { width(", ") };
        let left_out = more.saturating_add((items.len() - at - 1) as u64);
        if used + width(&rest(left_out)) <= columns {
            taken = at + 1;
        }
    }
    let shown = items.get(..taken).unwrap_or_default();
    if shown.is_empty() {
        return cut_end(&format!("{first}, {CUT}"), columns);
    }
    shown.join(", ") + &rest(more.saturating_add((items.len() - taken) as u64))
}

/// Padded at its begin to `columns`.
pub(super) fn right(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}

/// Padded at its end to `columns`.
pub(super) fn left(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// A sentence over as many lines as it takes, those after the first indented.
pub(crate) fn wrap(sentence: &str, columns: usize, indent: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in sentence.split(char::is_whitespace) {
        let word_width = width(word);
        let gap = usize::from(!line.trim().is_empty());
        if gap == 1 && used + gap + word_width > columns {
            lines.push(Line::plain(std::mem::take(&mut line)));
            line = " ".repeat(indent);
            used = indent;
        } else if gap == 1 {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += word_width;
    }
    if !line.trim().is_empty() {
        lines.push(Line::plain(line));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{Line, Style, cut_end, cut_start, list, width, wrap};

    fn written(line: &Line, columns: usize, color: bool) -> String {
        let mut out = String::new();
        line.write(&mut out, columns, color);
        out
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(width("漢字[7]"), 7);
        assert_eq!(cut_end("漢字漢字", 6), "漢字…");
        assert_eq!(cut_end("漢字漢字", 8), "漢字漢字");
        assert_eq!(cut_start("/a/漢字漢字", 6), "…漢字");
        assert_eq!(cut_end("abc", 0), "");
    }

    #[test]
    fn a_line_is_cut_where_a_span_ends_too() {
        let line = Line::plain("abcd").with(Style::Red, "efgh");
        assert_eq!(written(&line, 8, false), "abcdefgh");
        assert_eq!(written(&line, 6, false), "abcde…");
        assert_eq!(written(&line, 4, false), "abc…");
        assert_eq!(written(&line, 6, true), "abcd\x1b[31me…\x1b[0m");
    }

    #[test]
    fn a_list_ends_between_two_items() {
        let items = ["disk vdb 8.10", "journal 0.90", "brief 0.20"].map(str::to_owned);
        for (columns, more, text) in [
            (40, 0, "disk vdb 8.10, journal 0.90, brief 0.20"),
            (39, 0, "disk vdb 8.10, journal 0.90, brief 0.20"),
            (38, 0, "disk vdb 8.10, journal 0.90, 1 more"),
            (39, 1, "disk vdb 8.10, journal 0.90, 2 more"),
            (34, 0, "disk vdb 8.10, 2 more"),
            (20, 0, "disk vdb 8.10, …"),
            (15, 0, "disk vdb 8.10,…"),
            (10, 0, "disk vdb …"),
            (0, 0, ""),
        ] {
            assert_eq!(list(&items, more, columns), text, "{columns}");
        }
        assert_eq!(list(&[], 1_204, 40), "1,204 more");
        assert_eq!(list(&[], 0, 40), "");
    }

    #[test]
    fn no_blanks_at_the_end() {
        let line = Line::plain("a ")
            .with(Style::Red, "  ")
            .with(Style::Bold, "b  ");
        assert_eq!(written(&line, 20, false), "a   b");
        assert_eq!(written(&line, 20, true), "a   \x1b[1mb\x1b[0m");
    }

    #[test]
    fn a_sentence_wraps_at_words() {
        let lines = wrap("a kernel\nwithout it", 9, 2);
        let text: Vec<_> = lines.iter().map(|line| written(line, 9, false)).collect();
        assert_eq!(text, ["a kernel", "  without", "  it"]);
    }
}
