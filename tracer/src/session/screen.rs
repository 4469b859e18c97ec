//! What standard output shows text on: its size, colours and characters.

use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal as _},
    os::{fd::AsFd as _, unix::fs::FileTypeExt as _},
};

use unicode_width::UnicodeWidthChar as _;

/// The width of text where there is no terminal.
const NO_TERMINAL_COLUMNS: u16 = 160;
/// A terminal that does not tell its size: columns, rows.
const UNKNOWN_TERMINAL: (u16, u16) = (100, 40);
/// `COLUMNS` below says nothing that text can be laid out for.
const LEAST_COLUMNS: u16 = 20;

/// Columns and rows of the terminal on standard output.
pub(super) fn terminal_size() -> (u16, u16) {
    let size = terminal_size::terminal_size_of(io::stdout());
    size.map_or(UNKNOWN_TERMINAL, |(width, height)| (width.0, height.0))
}

/// Columns of a line on standard output: those of the terminal. Elsewhere those that
/// `COLUMNS` says; of a pipe, as to a pager, those of the terminal that errors go to.
pub(super) fn columns() -> u16 {
    if io::stdout().is_terminal() {
        return terminal_size().0;
    }
    let columns = env::var("COLUMNS").ok();
    let columns = columns.and_then(|columns| columns.trim().parse().ok());
    columns
        .filter(|columns| *columns >= LEAST_COLUMNS)
        .or_else(|| {
            let size = terminal_size::terminal_size_of(io::stderr())?;
            is_pipe().then_some(size.0.0)
        })
        .unwrap_or(NO_TERMINAL_COLUMNS)
}

fn is_pipe() -> bool {
    let copy = io::stdout().as_fd().try_clone_to_owned();
    let metadata = copy.and_then(|copy| std::fs::File::from(copy).metadata());
    metadata.is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Columns of a line on standard output, and whether it is coloured.
pub(crate) fn width_and_color() -> (usize, bool) {
    let is_colored = io::stdout().is_terminal() && allows_color();
    (columns().into(), is_colored)
}

/// Whether NO_COLOR and the terminal allow it.
pub(super) fn allows_color() -> bool {
    variable("NO_COLOR").is_none() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Text as the bytes of the locale: UTF-8, or ASCII where that is not UTF-8. There the mark
/// of what was cut is `~`, and any other character is as many `?` as it has columns.
pub(crate) fn encode(text: Vec<u8>) -> Vec<u8> {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(variable);
    if text.is_ascii() || is_utf8(locale) {
        return text;
    }
    ascii(&String::from_utf8_lossy(&text)).into_bytes()
}

/// locale(7): the first that is set decides, and none is the C locale, in ASCII.
fn is_utf8(locale: Option<OsString>) -> bool {
    let locale = locale.unwrap_or_default();
    let name = locale.to_string_lossy().to_ascii_lowercase();
    name.contains("utf-8") || name.contains("utf8")
}

fn ascii(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '…' => shown.push('~'),
            c if c.is_ascii() => shown.push(c),
            c => shown.extend(std::iter::repeat_n('?', c.width().unwrap_or(0))),
        }
    }
    shown
}

/// A variable that is set, and not empty.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{ascii, is_utf8};

    #[test]
    fn the_locale_says_whether_it_is_utf8() {
        for name in ["en_US.UTF-8", "C.utf8", "de_DE.utf-8@euro"] {
            assert!(is_utf8(Some(name.into())), "{name}");
        }
        for name in ["C", "POSIX", "en_US.ISO-8859-1"] {
            assert!(!is_utf8(Some(name.into())), "{name}");
        }
        assert!(!is_utf8(None));
    }

    #[test]
    fn ascii_takes_as_many_columns() {
        assert_eq!(ascii("/a…  ü漢\u{1b}[0m\n"), "/a~  ???\u{1b}[0m\n");
    }
}
