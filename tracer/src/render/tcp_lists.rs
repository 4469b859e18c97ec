//! The lists of the page on TCP sockets: who forgets sockets, who closes first,
//! what each port and each process does.

use super::{
    cgroup,
    grid::{self, Cell, Column, number, plain, text},
    line::{Line, Style, wrap},
    quantity::{age, bytes, counted, grouped, rate},
    sections::flow,
    tcp::{
        advice, connections, foreign, indented, owner, socket_age, timer, waiting, whole_origin,
    },
    tcp_page::Section,
    words,
};
use crate::snapshot::{
    Actor, CloseWait, Closer, Port, TcpBreakdown, Times, WaitingSocket, per_second,
};

/// Blanks before a table below a row.
const DEEP_INDENT: usize = 8;
/// Rows of a process that leaks: itself, why, where it got them, two of its sockets.
const LEAK_ROWS: usize = 6;
/// Blanks before a cgroup, and the least room for one.
const CGROUP_GAP: usize = 3;
const LEAST_CGROUP: usize = 16;

const SOCKET: [Column; 7] = [
    number("FD", "snapshot.tcp.close_wait[].samples[].fd"),
    number("AGE", "snapshot.tcp.close_wait[].samples[].age_ns"),
    text("LOCAL", "snapshot.tcp.close_wait[].samples[].local"),
    text("REMOTE", "snapshot.tcp.close_wait[].samples[].remote"),
    number("UNREAD", "snapshot.tcp.close_wait[].samples[].unread_bytes"),
    text("TIMER", "snapshot.tcp.close_wait[].samples[].timer.kind"),
    text(
        "ELSEWHERE",
        "snapshot.tcp.close_wait[].samples[].netns.name",
    ),
];

const CLOSER: [Column; 3] = [
    number("SOCKETS", "snapshot.tcp.time_wait[].count"),
    text("CLOSED FIRST BY", "snapshot.tcp.time_wait[].pid"),
    text("CONNECTIONS", "snapshot.tcp.time_wait[].side"),
];

const PORT: [Column; 11] = [
    number("OPENED", "snapshot.tcp.ports[].established"),
    text("CONNECTIONS", "snapshot.tcp.ports[].port"),
    text("LISTENER", "snapshot.tcp.ports[].listener.pid"),
    number("HANDSHAKE P50", "snapshot.tcp.ports[].handshakes[].from_ns"),
    number("P99", "snapshot.tcp.ports[].handshakes[].from_ns"),
    number("MAX", "snapshot.tcp.ports[].handshakes[].from_ns"),
    number("HELD P50", "snapshot.tcp.ports[].held[].from_ns"),
    number("P99", "snapshot.tcp.ports[].held[].from_ns"),
    number("MAX", "snapshot.tcp.ports[].held[].from_ns"),
    number("UNMEASURED", "snapshot.tcp.ports[].unmeasured"),
    text("ELSEWHERE", "snapshot.tcp.ports[].netns.name"),
];

const ACTOR: [Column; 4] = [
    number("OPENED", "snapshot.tcp.actors[].opened"),
    number("CLOSED FIRST", "snapshot.tcp.actors[].closed_first"),
    text("PROCESS", "snapshot.tcp.actors[].pid"),
    text("CONNECTIONS", "snapshot.tcp.actors[].side"),
];

/// The columns of all tables.
pub(super) fn columns() -> impl Iterator<Item = Column> {
    let tables = [&SOCKET[..], &CLOSER, &PORT, &ACTOR];
    tables.into_iter().flatten().copied()
}

/// A heading, and what it means.
pub(super) fn heading(heading: &str, words: &str) -> Line {
    Line::styled(Style::Bold, heading).with(Style::Dim, format!("   {words}"))
}

/// A count, or a dash for none.
pub(super) fn count(count: u64) -> Cell {
    match count {
        0 => plain("-"),
        count => plain(grouped(count)),
    }
}

/// Who does not close what the peer has closed.
pub(super) fn close_wait(processes: &[CloseWait], room: usize) -> Section {
    let words = match processes {
        [] => "none",
        _ => "the peer has closed, the process here has not",
    };
    let rows = processes.iter();
    let rows = rows.flat_map(|process| of_process(process, room)).collect();
    Section::new("CLOSE_WAIT", vec![heading("CLOSE_WAIT", words)]).with_rows(rows, LEAK_ROWS)
}

/// A process, why it leaks or not, and its oldest sockets.
fn of_process(process: &CloseWait, room: usize) -> Vec<Line> {
    let mut lines = flow(waiting(process), room);
    if let Some(cgroup) = &process.cgroup
        && let Some(line) = lines.last_mut()
    {
        let left_over = room.saturating_sub(line.width() + CGROUP_GAP);
        if left_over >= LEAST_CGROUP {
            line.push(Style::Plain, " ".repeat(CGROUP_GAP));
            line.push(Style::Dim, cgroup::fit(cgroup.as_str(), left_over));
        }
    }
    let why = wrap(&process.why, room.saturating_sub(DEEP_INDENT), 0);
    lines.extend(why.into_iter().map(deep));
    let side = process.samples.first().and_then(|socket| socket.side);
    // Mostly one place forgets them all: it is said once.
    if let Some(origin) = whole_origin(side, &process.stack) {
        let origin = wrap(&origin, room.saturating_sub(DEEP_INDENT), 2);
        let dim = |line: Line| deep(line.all(Style::Dim));
        lines.extend(origin.into_iter().map(dim));
    }
    let row = |socket: &WaitingSocket| {
        vec![
            plain(
                socket
                    .fd
                    .map_or_else(|| "-".to_owned(), |fd| fd.to_string()),
            ),
            plain(socket_age(socket)),
            plain(words::address(socket.local)),
            plain(words::address(socket.remote)),
            plain(bytes(socket.unread_bytes.into())),
            plain(timer(socket.timer)),
            plain(elsewhere(socket, process)),
        ]
    };
    let rows: Vec<_> = process.samples.iter().map(row).collect();
    if rows.is_empty() {
        return lines;
    }
    let (head, rows) = grid::lay_out(&SOCKET, &rows, DEEP_INDENT, room);
    lines.push(head);
    for (line, socket) in rows.into_iter().zip(&process.samples) {
        lines.push(line);
        if socket.stack != process.stack
            && let Some(origin) = whole_origin(socket.side, &socket.stack)
        {
            lines.push(deep(indented(Line::styled(Style::Dim, origin))));
        }
    }
    let more = process.sockets.saturating_sub(process.samples.len() as u64);
    if more > 0 {
        let more = format!(".. {} more", grouped(more));
        lines.push(deep(Line::plain(more)));
    }
    lines
}

fn deep(line: Line) -> Line {
    let mut indented = Line::plain(" ".repeat(DEEP_INDENT));
    indented.append(line);
    indented
}

/// Namespace and cgroup of a socket, where they are others than one expects.
fn elsewhere(socket: &WaitingSocket, process: &CloseWait) -> String {
    let mut words: Vec<_> = foreign(&socket.netns).into_iter().collect();
    if let Some(cgroup) = &socket.cgroup
        && process.cgroup.as_ref() != Some(cgroup)
    {
        words.push(format!("cgroup {cgroup}"));
    }
    words.join(", ")
}

/// Who closes first, and keeps the sockets.
pub(super) fn time_wait(tcp: &TcpBreakdown, interval_ns: u64, room: usize) -> Section {
    let time_wait = &tcp.time_wait;
    let speed = |count| rate(per_second(count, interval_ns));
    let mut sockets = counted(time_wait.total, "socket");
    for (count, of_them) in [
        (time_wait.fin_wait2, "in FIN_WAIT2"),
        (time_wait.unnamed, "unnamed"),
    ] {
        if count > 0 {
            sockets += &format!(", {} of them {of_them}", grouped(count));
        }
    }
    let parts = [
        Line::styled(Style::Bold, "TIME_WAIT"),
        Line::plain(sockets),
        Line::plain(format!(
            "closed first here {}",
            speed(time_wait.closed_first_here)
        )),
        Line::plain(format!(
            "by the peer {}",
            speed(time_wait.closed_first_by_peer)
        )),
    ];
    let mut head = flow(parts, room);
    head.extend(advice(tcp, room));
    let row = |closer: &Closer| {
        vec![
            plain(grouped(closer.count)),
            plain(owner(Some(closer.pid), &closer.comm)),
            plain(connections(closer.side, closer.port)),
        ]
    };
    let rows: Vec<_> = time_wait.closers.iter().map(row).collect();
    Section::new("TIME_WAIT", head).with_table(&CLOSER, &rows, room)
}

/// Connections by port: how many, how long the handshakes took, how long sockets
/// were held after the peer's FIN.
pub(super) fn ports(ports: &[Port], interval_ns: u64, room: usize) -> Section {
    let times = |times: &Times| {
        let time = |percent| match times.percentile_ns(percent) {
            Some(ns) => plain(age(ns)),
            None => plain("-"),
        };
        [50, 99, 100].map(time)
    };
    let row = |port: &Port| {
        let listener = match &port.listener {
            Some((pid, comm)) => owner(Some(*pid), comm),
            None => String::new(),
        };
        let mut row = vec![
            plain(rate(per_second(port.established, interval_ns))),
            plain(connections(port.side, port.port)),
            plain(listener),
        ];
        row.extend(times(&port.handshakes));
        row.extend(times(&port.held));
        row.push(count(port.unmeasured));
        row.push(plain(foreign(&port.netns).unwrap_or_default()));
        row
    };
    let rows: Vec<_> = ports.iter().map(row).collect();
    let words = "times in powers of two, since the start; held: after the peer's FIN";
    let head = vec![heading("PORTS", words)];
    Section::new("PORTS", head).with_table(&PORT, &rows, room)
}

/// Which processes open connections, and which close them first.
pub(super) fn actors(actors: &[Actor], interval_ns: u64, room: usize) -> Section {
    let row = |actor: &Actor| {
        let speed = |count| match count {
            0 => plain("-"),
            count => plain(rate(per_second(count, interval_ns))),
        };
        vec![
            speed(actor.opened),
            speed(actor.closed_first),
            plain(owner(Some(actor.pid), &actor.comm)),
            plain(connections(actor.side, actor.port)),
        ]
    };
    let rows: Vec<_> = actors.iter().map(row).collect();
    let words = "who opens connections, and who closes them first";
    let head = vec![heading("PROCESSES", words)];
    Section::new("PROCESSES", head).with_table(&ACTOR, &rows, room)
}
