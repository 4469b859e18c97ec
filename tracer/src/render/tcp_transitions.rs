//! From which state to which: as a list of pairs, or as a grid.

use super::{
    line::{Line, Style, left, right, width},
    quantity::{compact, grouped},
    tcp_page::Span,
    words,
};
use crate::snapshot::{TcpState, Transition, per_second};

/// Blanks before a line, and between two pairs.
const INDENT: usize = 2;
const GAP: usize = 4;
/// Blanks before each column of the grid.
const CELL_GAP: usize = 1;
/// Room for a number, so that columns stand still as it grows.
const CELL_ROOM: usize = 5;

/// States with the names of their columns.
const COLUMNS: [(TcpState, &str); 13] = [
    (TcpState::CLOSE, "CLOSE"),
    (TcpState::LISTEN, "LISTN"),
    (TcpState::SYN_SENT, "SYN-S"),
    (TcpState::SYN_RECV, "SYN-R"),
    (TcpState::ESTABLISHED, "ESTAB"),
    (TcpState::FIN_WAIT1, "FIN-1"),
    (TcpState::FIN_WAIT2, "FIN-2"),
    (TcpState::CLOSING, "CLSNG"),
    (TcpState::TIME_WAIT, "TIM-W"),
    (TcpState::CLOSE_WAIT, "CLS-W"),
    (TcpState::LAST_ACK, "LST-A"),
    (TcpState::NEW_SYN_RECV, "NEW-R"),
    (TcpState::BOUND_INACTIVE, "BOUND"),
];
/// So many of them are there even when nothing happens.
const ALWAYS: usize = 11;

fn heading(words: &str, span: Span) -> Line {
    let unit = match span {
        Span::Tick => "a second",
        Span::Run => "in the whole run",
    };
    let words = format!("   {unit}{words}");
    Line::styled(Style::Bold, "TRANSITIONS").with(Style::Dim, words)
}

fn amount(count: u64, interval_ns: u64, span: Span) -> String {
    match span {
        Span::Tick => compact(per_second(count, interval_ns)),
        Span::Run => grouped(count),
    }
}

/// Pairs, the most frequent first, as many on a line as fit.
pub(super) fn list(
    transitions: &[Transition],
    interval_ns: u64,
    span: Span,
    columns: usize,
) -> (Vec<Line>, Vec<Line>) {
    if transitions.is_empty() {
        let head = Line::styled(Style::Bold, "TRANSITIONS").with(Style::Dim, "   none");
        return (vec![head], Vec::new());
    }
    let pairs: Vec<_> = transitions
        .iter()
        .map(|one| {
            let pair = format!("{} -> {}", words::state(one.from), words::state(one.to));
            (amount(one.count, interval_ns, span), pair)
        })
        .collect();
    let widest = |part: fn(&(String, String)) -> &String| {
        let widths = pairs.iter().map(|pair| width(part(pair)));
        widths.max().unwrap_or(0)
    };
    let (numbers, names) = (widest(|pair| &pair.0), widest(|pair| &pair.1));
    let wide = numbers + 2 + names + GAP;
    let in_a_line = ((columns + GAP).saturating_sub(INDENT) / wide).max(1);
    let line = |pairs: &[(String, String)]| {
        let mut line = Line::plain(" ".repeat(INDENT));
        for (at, (number, pair)) in pairs.iter().enumerate() {
            let gap = if at == 0 { 0 } else { GAP };
            line.push(Style::Plain, right(number, numbers + gap));
            line.push(Style::Plain, format!("  {}", left(pair, names)));
        }
        line
    };
    let lines = pairs.chunks(in_a_line).map(line).collect();
    (vec![heading("", span)], lines)
}

/// A row for each state before, a column for each state after. Where the screen is
/// too narrow for all, states that nothing came from or went to have none; where it
/// is too narrow for those, the grid is a list.
pub(super) fn grid(
    transitions: &[Transition],
    interval_ns: u64,
    span: Span,
    columns: usize,
) -> (Vec<Line>, Vec<Line>) {
    let count = |from: TcpState, to: TcpState| {
        let found = transitions
            .iter()
            .find(|one| one.from == from && one.to == to);
        found.map_or(0, |one| one.count)
    };
    let cell = |from, to| match count(from, to) {
        0 => "-".to_owned(),
        count => amount(count, interval_ns, span),
    };
    let cells = transitions.iter().map(|one| width(&cell(one.from, one.to)));
    let wide = CELL_GAP + cells.max().unwrap_or(0).max(CELL_ROOM);
    let names = COLUMNS.map(|(state, _)| width(words::state(state)));
    let names = names.into_iter().max().unwrap_or(0);
    let is_narrow = INDENT + names + ALWAYS * wide > columns;
    let is_shown = |at: usize, is_used: bool| is_used || (at < ALWAYS && !is_narrow);
    let from = COLUMNS
        .iter()
        .enumerate()
        .filter(|(at, (state, _))| is_shown(*at, transitions.iter().any(|one| one.from == *state)));
    let to: Vec<_> = COLUMNS
        .iter()
        .enumerate()
        .filter(|(at, (state, _))| is_shown(*at, transitions.iter().any(|one| one.to == *state)))
        .map(|(_, column)| column)
        .collect();
    if INDENT + names + to.len() * wide > columns {
        return list(transitions, interval_ns, span, columns);
    }
    let mut head = Line::plain(" ".repeat(INDENT + names));
    for (_, name) in &to {
        head.push(Style::Bold, right(name, wide));
    }
    let row = |(_, (from, _)): (usize, &(TcpState, &str))| {
        let mut line = Line::plain(" ".repeat(INDENT));
        line.push(Style::Plain, left(words::state(*from), names));
        for (to, _) in &to {
            line.push(Style::Plain, right(&cell(*from, *to), wide));
        }
        line
    };
    let words = ", from the state at the left to the one above";
    (vec![heading(words, span), head], from.map(row).collect())
}
