//! TCP sockets in words, and what a text that is about more than them says of them.

use super::{
    line::{Line, Style, list, wrap},
    quantity::{age, counted, grouped, growth, rate},
    sections::flow,
    words,
};
use crate::{
    snapshot::{
        CloseWait, Netns, Side, TcpBreakdown, TcpState, Timer, TimerKind, WaitingSocket, per_second,
    },
    text::Text,
};

/// Blanks before what explains the line above.
const INDENT: usize = 6;
/// With no more rows than this there is the first line of the states and of the leaks.
const FEW_ROWS: usize = 2;
/// States that are shown without a socket too.
const ALWAYS: [TcpState; 3] = [
    TcpState::ESTABLISHED,
    TcpState::TIME_WAIT,
    TcpState::CLOSE_WAIT,
];

/// The process that has a socket.
pub(super) fn owner(pid: Option<u32>, comm: &Text) -> String {
    match pid {
        Some(pid) => format!("{comm}[{pid}]"),
        None => "(no process)".to_owned(),
    }
}

/// Both ends of a connection, with an arrow in the direction in which it was made.
pub(super) fn ends(socket: &WaitingSocket) -> String {
    let arrow = match socket.side {
        Some(Side::Accepted) => "<-",
        Some(Side::Connected) => "->",
        None => "<->",
    };
    let [local, remote] = [socket.local, socket.remote].map(words::address);
    format!("{local} {arrow} {remote}")
}

/// Which connections: by port, and by who made them.
pub(super) fn connections(side: Side, port: u16) -> String {
    match side {
        Side::Accepted => format!("accepted on {port}"),
        Side::Connected => format!("connected to {port}"),
    }
}

/// So many functions are named on a line.
const INNERMOST: usize = 3;
/// And so many where there is more room.
const MANY: usize = 8;

/// In which functions a process got a socket: the innermost ones.
pub(super) fn origin(side: Option<Side>, stack: &[Text]) -> Option<String> {
    origin_within(side, stack, INNERMOST)
}

/// The same, with more functions around them.
pub(super) fn whole_origin(side: Option<Side>, stack: &[Text]) -> Option<String> {
    let more = stack.len().saturating_sub(MANY);
    let origin = origin_within(side, stack, MANY)?;
    Some(if more > 0 {
        format!("{origin} < .. {more} more")
    } else {
        origin
    })
}

fn origin_within(side: Option<Side>, stack: &[Text], most: usize) -> Option<String> {
    let functions: Vec<_> = stack.iter().take(most).map(Text::as_str).collect();
    let how = side.map_or("opened", words::side);
    let is_known = !functions.is_empty();
    is_known.then(|| format!("{how} in {}", functions.join(" < ")))
}

/// How long the process has not closed the socket, for a column.
pub(super) fn socket_age(socket: &WaitingSocket) -> String {
    let least = if socket.is_least { ">" } else { "" };
    format!("{least}{}", age(socket.age_ns))
}

/// A network namespace as people say it.
pub(super) fn netns(netns: &Netns) -> String {
    match &netns.name {
        Some(name) => name.to_string(),
        None if netns.is_own => "(this one)".to_owned(),
        None => format!("net:[{}]", netns.inode),
    }
}

/// The same, where it is not tracer's own.
pub(super) fn foreign(namespace: &Netns) -> Option<String> {
    let is_foreign = !namespace.is_own;
    is_foreign.then(|| format!("netns {}", netns(namespace)))
}

/// A socket's timer, as `netstat -o` shows it: seconds, retransmissions, probes.
pub(super) fn timer(timer: Timer) -> String {
    let name = words::timer(timer.kind);
    if timer.kind == TimerKind::Off {
        return name.to_owned();
    }
    let (s, hundredths) = (
        timer.due_ns / 1_000_000_000,
        timer.due_ns / 10_000_000 % 100,
    );
    let Timer {
        retransmits,
        probes,
        ..
    } = timer;
    format!("{name} ({s}.{hundredths:02}/{retransmits}/{probes})")
}

/// Numbers of sockets by state, and how fast they come and go.
pub(super) fn states(
    heading: &'static str,
    tcp: &TcpBreakdown,
    others: &[TcpState],
    interval_ns: u64,
    columns: usize,
) -> Vec<Line> {
    let has_sockets = |state: &&TcpState| tcp.in_state(**state) > 0;
    let states = ALWAYS.iter().chain(others.iter().filter(has_sockets));
    let state = |state: &TcpState| {
        let count = tcp.in_state(*state);
        let style = match *state {
            TcpState::CLOSE_WAIT if count > 0 => Style::Yellow,
            _ => Style::Plain,
        };
        Line::styled(
            style,
            format!("{} {}", words::state(*state), grouped(count)),
        )
    };
    let speed = |word, count| {
        let rate = rate(per_second(count, interval_ns));
        Line::plain(format!("{word} {rate}"))
    };
    let mut parts = vec![Line::styled(Style::Bold, heading)];
    if tcp.states.is_empty() {
        parts.push(Line::plain("no sockets"));
    } else {
        parts.extend(states.map(state));
    }
    parts.extend([
        speed("opened", tcp.opened()),
        speed("closed", tcp.closed()),
        speed("reset", tcp.counters.connections_reset),
    ]);
    flow(parts, columns)
}

/// A process with sockets in CLOSE_WAIT: how many, and whether it leaks; in parts.
pub(super) fn waiting(process: &CloseWait) -> [Line; 2] {
    let (mark, style) = match process.leak {
        true => ("leak", Style::Red),
        false => ("    ", Style::Plain),
    };
    let name = owner(process.pid, &process.comm);
    let (count, growth) = (grouped(process.sockets), growth(process.growth_per_s));
    let oldest = process.samples.first();
    let is_least = oldest.is_some_and(|oldest| oldest.is_least);
    let least = if is_least { "over " } else { "" };
    let oldest = format!("oldest {least}{}", age(process.oldest_ns));
    let line = Line::plain("  ")
        .with(style, mark)
        .with(Style::Bold, format!("  {name}"))
        .with(style, format!("   {count} in CLOSE_WAIT, {growth}"));
    [line, Line::styled(style, oldest)]
}

/// The same with one of its sockets, to look at.
fn leak(process: &CloseWait, columns: usize) -> Vec<Line> {
    let mut parts = waiting(process).to_vec();
    if let Some(socket) = process.samples.first() {
        let word = match socket.side {
            Some(Side::Accepted) => "from",
            Some(Side::Connected) => "to",
            None => "with",
        };
        let fd = socket.fd.map_or_else(String::new, |fd| format!("fd {fd} "));
        let remote = words::address(socket.remote);
        let words = format!("e.g. {fd}{word} {remote}");
        parts.push(Line::plain(words));
        let origin = origin(socket.side, &process.stack);
        parts.extend(origin.map(|origin| Line::styled(Style::Dim, origin)));
    }
    flow(parts, columns)
}

/// TCP sockets in a few lines, in at most so many rows.
pub(super) fn section(
    heading: &'static str,
    tcp: &TcpBreakdown,
    interval_ns: u64,
    columns: usize,
    rows: usize,
) -> Vec<Line> {
    let states = states(heading, tcp, &[TcpState::SYN_RECV], interval_ns, columns);
    let (leaks, others): (Vec<_>, Vec<_>) = tcp.close_wait.iter().partition(|one| one.leak);
    let leaks: Vec<_> = leaks
        .iter()
        .flat_map(|process| leak(process, columns))
        .collect();
    if rows <= FEW_ROWS && !leaks.is_empty() {
        // The worst leak says most.
        let first = states.into_iter().take(rows.saturating_sub(1));
        return first.take(1).chain(leaks.into_iter().take(1)).collect();
    }
    let mut lines = states;
    lines.extend(leaks);
    lines.extend(time_wait(tcp, columns));
    if !others.is_empty() {
        let item = |process: &&CloseWait| {
            let name = owner(process.pid, &process.comm);
            format!("{} {name}", grouped(process.sockets))
        };
        let items: Vec<_> = others.iter().map(item).collect();
        lines.push(listed("CLOSE_WAIT, no leak", &items, columns));
    }
    if lines.len() > rows {
        let kept = rows.saturating_sub(1).max(1);
        let left_out = counted((lines.len() - kept) as u64, "more row");
        lines.truncate(kept);
        if rows > 1 {
            lines.push(Line::plain(format!("  .. {left_out}: tracer tcp has all")));
        }
    }
    lines
}

fn time_wait(tcp: &TcpBreakdown, columns: usize) -> Vec<Line> {
    let time_wait = &tcp.time_wait;
    let mut items: Vec<_> = time_wait
        .closers
        .iter()
        .map(|closer| {
            let name = owner(Some(closer.pid), &closer.comm);
            let connections = connections(closer.side, closer.port);
            format!("{} {name} {connections}", grouped(closer.count))
        })
        .collect();
    if time_wait.unnamed > 0 {
        items.push(format!("{} unnamed", grouped(time_wait.unnamed)));
    }
    let mut lines = Vec::new();
    if !items.is_empty() {
        lines.push(listed("TIME_WAIT, closed first by", &items, columns));
    }
    lines.extend(advice(tcp, columns));
    lines
}

/// What can be done about TIME_WAIT.
pub(super) fn advice(tcp: &TcpBreakdown, columns: usize) -> Vec<Line> {
    let room = columns.saturating_sub(INDENT);
    let advice = tcp.time_wait.advice.into_iter();
    let lines = advice.flat_map(|advice| wrap(advice, room, 0));
    lines.map(indented).collect()
}

/// A line below another.
pub(super) fn indented(line: Line) -> Line {
    let mut indented = Line::plain(" ".repeat(INDENT));
    indented.append(line);
    indented
}

fn listed(heading: &str, items: &[String], columns: usize) -> Line {
    let line = Line::plain(format!("  {heading}   "));
    let room = columns.saturating_sub(line.width());
    line.with(Style::Plain, list(items, 0, room))
}
