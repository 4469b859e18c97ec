//! The text that is about TCP sockets alone: a list for each question, cut to
//! the rows of the screen.

use super::{
    grid::{self, Cell, Column, number, plain, text},
    line::{Line, Style},
    quantity::{age, grouped},
    sections::{flow, left_out},
    tcp::{netns, states},
    tcp_lists,
    tcp_lists::{actors, close_wait, count, heading, ports, time_wait},
    tcp_transitions, words,
};
use crate::{
    snapshot::{NamespaceStates, TcpBreakdown, TcpState},
    text::Text,
};

/// Blanks before a table.
const INDENT: usize = 2;
/// With fewer rows a list is not worth its heading.
const FEW_ROWS: usize = 3;

/// States in the order in which a screen too narrow keeps them.
const STATES: [TcpState; 13] = [
    TcpState::ESTABLISHED,
    TcpState::TIME_WAIT,
    TcpState::CLOSE_WAIT,
    TcpState::SYN_RECV,
    TcpState::SYN_SENT,
    TcpState::FIN_WAIT1,
    TcpState::FIN_WAIT2,
    TcpState::LAST_ACK,
    TcpState::CLOSING,
    TcpState::LISTEN,
    TcpState::CLOSE,
    TcpState::NEW_SYN_RECV,
    TcpState::BOUND_INACTIVE,
];
/// Those of them that are not always shown.
const RARE_STATES: usize = 3;

const NETNS: Column = text("NETNS", "snapshot.tcp.namespaces[].netns.name");
const STATE_PATH: &str = "snapshot.tcp.namespaces[].states.{state}";

/// Every heading with the path of its figure, for the documentation.
pub(super) fn headings() -> impl Iterator<Item = (&'static str, &'static str)> {
    let columns = tcp_lists::columns().chain([NETNS]);
    columns.map(|column| (column.heading, column.path))
}

/// A list under its heading.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// What it is called where there is no room for it.
    name: &'static str,
    /// What stays.
    head: Vec<Line>,
    /// What is cut where the screen is too low.
    rows: Vec<Line>,
    /// With fewer rows than this the section is not worth its heading.
    least: usize,
}

impl Section {
    /// A section without rows.
    pub(super) fn new(name: &'static str, head: Vec<Line>) -> Self {
        Self {
            name,
            head,
            rows: Vec::new(),
            least: FEW_ROWS,
        }
    }

    /// The section with rows, of which it needs some.
    pub(super) fn with_rows(mut self, rows: Vec<Line>, least: usize) -> Self {
        self.rows = rows;
        self.least = least;
        self
    }

    /// The section with a table, if that has rows.
    pub(super) fn with_table(
        mut self,
        columns: &[Column],
        rows: &[Vec<Cell>],
        room: usize,
    ) -> Self {
        if !rows.is_empty() {
            let (head, rows) = grid::lay_out(columns, rows, INDENT, room);
            self.head.push(head);
            self.rows.extend(rows);
        }
        self
    }

    /// Rows without which it is left out.
    fn needed(&self) -> usize {
        self.head.len() + self.rows.len().min(self.least)
    }
}

/// What a page is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// An interval: numbers a second.
    Tick,
    /// The whole run: transitions are counted.
    Run,
}

/// All of it, what to look at first coming first.
pub(super) fn sections(
    tcp: &TcpBreakdown,
    interval_ns: u64,
    span: Span,
    matrix: bool,
    columns: usize,
) -> Vec<Section> {
    let (head, rows) = match matrix {
        true => tcp_transitions::grid(&tcp.transitions, interval_ns, span, columns),
        false => tcp_transitions::list(&tcp.transitions, interval_ns, span, columns),
    };
    let mut sections = vec![
        sockets(tcp, interval_ns, span, columns),
        close_wait(&tcp.close_wait, columns),
        time_wait(tcp, interval_ns, columns),
        Section::new("TRANSITIONS", head).with_rows(rows, FEW_ROWS),
    ];
    if !tcp.ports.is_empty() {
        sections.push(ports(&tcp.ports, interval_ns, columns));
    }
    if !tcp.actors.is_empty() {
        sections.push(actors(&tcp.actors, interval_ns, columns));
    }
    if tcp.namespaces.len() > 1 {
        sections.push(namespaces(tcp, columns));
    }
    sections
}

/// The sections one below the other, in at most so many rows. Those at the end go
/// first; of the others, short ones are whole and long ones share what is left.
pub(super) fn fit(mut sections: Vec<Section>, rows: usize) -> Vec<Line> {
    let needed = |sections: &[Section]| sections.iter().map(Section::needed).sum::<usize>();
    let mut dropped = Vec::new();
    while needed(&sections) + usize::from(!dropped.is_empty()) > rows
        && sections.len() > 1
        && let Some(section) = sections.pop()
    {
        dropped.insert(0, section.name);
    }
    let mut free = rows.saturating_sub(needed(&sections));
    if !dropped.is_empty() && free > 0 {
        free -= 1;
    }
    // Blank lines, if they do not take the last room.
    let blanks = sections.len().saturating_sub(1);
    let has_blanks = free >= blanks;
    free -= if has_blanks { blanks } else { 0 };
    let more = |section: &Section| section.rows.len().saturating_sub(section.least);
    let mut shares: Vec<_> = sections.iter().map(more).enumerate().collect();
    shares.sort_by_key(|(_, more)| *more);
    let mut sharing = shares.len();
    for (_, share) in &mut shares {
        *share = (*share).min(free / sharing);
        free -= *share;
        sharing -= 1;
    }
    shares.sort_by_key(|(at, _)| *at);
    let mut lines = Vec::new();
    for (section, (at, share)) in sections.into_iter().zip(shares) {
        if has_blanks && at > 0 {
            lines.push(Line::default());
        }
        lines.extend(section.head);
        lines.extend(cut(section.rows, section.least + share));
    }
    if !dropped.is_empty() && lines.len() < rows {
        let words = format!(".. no room for {}", dropped.join(", "));
        lines.push(Line::plain(words));
    }
    lines
}

/// The first rows, and how many there are besides.
fn cut(mut rows: Vec<Line>, room: usize) -> Vec<Line> {
    if rows.len() > room {
        let kept = room.saturating_sub(1);
        let more = left_out((rows.len() - kept) as u64);
        rows.truncate(kept);
        if room > 0 {
            rows.push(Line::plain(format!("  {more}")));
        }
    }
    rows
}

/// How many sockets are in which state, and what the kernel counted.
fn sockets(tcp: &TcpBreakdown, interval_ns: u64, span: Span, room: usize) -> Section {
    let others = STATES.get(RARE_STATES..).unwrap_or_default();
    let heading = match span {
        Span::Tick => "SOCKETS",
        Span::Run => "SOCKETS at the end",
    };
    let mut head = states(heading, tcp, others, interval_ns, room);
    head.extend(counters(tcp, interval_ns, room));
    Section::new("SOCKETS", head)
}

/// The same by network namespace.
fn namespaces(tcp: &TcpBreakdown, room: usize) -> Section {
    let state = |state| number(words::state(state), STATE_PATH);
    let has_sockets = |state: &TcpState| tcp.in_state(*state) > 0;
    let states: Vec<_> = STATES.into_iter().filter(has_sockets).collect();
    let columns = states.iter().copied().map(state);
    let columns: Vec<_> = std::iter::once(NETNS).chain(columns).collect();
    let row = |namespace: &NamespaceStates| {
        let count = |state: &TcpState| count(namespace.in_state(*state));
        let name = plain(netns(&namespace.netns));
        std::iter::once(name)
            .chain(states.iter().map(count))
            .collect()
    };
    let rows: Vec<_> = tcp.namespaces.iter().map(row).collect();
    let name = "NETWORK NAMESPACES";
    Section::new(name, vec![Line::styled(Style::Bold, name)]).with_table(&columns, &rows, room)
}

/// The kernel's counters that are not zero.
fn counters(tcp: &TcpBreakdown, interval_ns: u64, room: usize) -> Vec<Line> {
    let counters = &tcp.counters;
    let counts = [
        ("accept queue full", counters.accept_queue_full),
        ("handshakes failed", counters.handshakes_failed),
        ("connections reset", counters.connections_reset),
        ("resets sent", counters.resets_sent),
        ("closed with data unread", counters.closed_unread),
        ("given up without an answer", counters.timed_out),
        ("segments sent again", counters.retransmitted),
        ("SYNs sent again", counters.handshakes_retransmitted),
    ];
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let mut parts: Vec<_> = counts
        .map(|(words, count)| Line::plain(format!("{words} {}", grouped(count))))
        .collect();
    if !tcp.resets.is_empty() {
        let reason = |(reason, count): &(Text, u64)| format!("{reason} {}", grouped(*count));
        let reasons: Vec<_> = tcp.resets.iter().map(reason).collect();
        parts.push(Line::plain(format!("reset for {}", reasons.join(", "))));
    }
    if parts.is_empty() {
        return Vec::new();
    }
    let words = format!("in {}", age(interval_ns));
    let head = std::iter::once(heading("KERNEL'S COUNTERS", &words));
    flow(head.chain(parts), room)
}
