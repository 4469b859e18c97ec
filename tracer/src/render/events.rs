//! Text of events: a line each, in the order in which they came.

use super::{
    Render, TextOptions,
    line::{Line, Style, right},
    oom,
    quantity::{age, bytes, grouped, rate},
    sections::{self, cause, task},
    summary, syn, tcp,
    time::clock_ms,
    words,
};
use crate::snapshot::{
    BlockedEvent, BlockedEventKind, DeadPeer, Event, Kill, LeakEvent, ResetStorm, Snapshot, Start,
    Summary, SynEvent, Waker,
};
use crate::text::Text;

/// Room for a length of time, so that lines stand in columns.
const LENGTH_ROOM: usize = 9;
/// Blanks before each frame of a stack.
const INDENT: usize = 16;

/// Text of events.
#[derive(Debug)]
pub struct EventsRenderer {
    options: TextOptions,
}

impl EventsRenderer {
    /// A renderer for a screen like this.
    pub fn new(options: TextOptions) -> Self {
        Self { options }
    }

    fn write(&self, lines: impl IntoIterator<Item = Line>) -> Vec<u8> {
        let mut out = String::new();
        for line in lines {
            line.write(&mut out, self.columns(), self.options.color);
            out.push('\n');
        }
        out.into_bytes()
    }

    /// A line, and the stack below it where stacks are wanted.
    fn line(&self, line: Line, stack: &[Text]) -> Vec<u8> {
        let indent = " ".repeat(INDENT);
        let frames = stack.iter().filter(|_| self.options.stacks);
        let frames = frames.map(|frame| Line::styled(Style::Dim, format!("{indent}{frame}")));
        self.write(std::iter::once(line).chain(frames))
    }

    fn columns(&self) -> usize {
        match self.options.width {
            0 => u16::MAX.into(),
            width => width.into(),
        }
    }
}

impl Render for EventsRenderer {
    fn start(&mut self, start: &Start) -> Vec<u8> {
        self.write(sections::start(start, self.columns()))
    }

    fn snapshot(&mut self, _snapshot: &Snapshot) -> Vec<u8> {
        Vec::new()
    }

    /// Sockets that a process leaked for the same time, and from the same place, are one line.
    fn events(&mut self, events: &[Event]) -> Vec<u8> {
        let mut text = Vec::new();
        for alike in events.chunk_by(is_same_leak) {
            text.extend(match alike {
                [Event::Leak(first), _, ..] => self.line(leak(first, alike.len()), &first.stack),
                _ => alike.iter().flat_map(|event| self.event(event)).collect(),
            });
        }
        text
    }

    fn event(&mut self, event: &Event) -> Vec<u8> {
        let (line, stack) = match event {
            Event::Blocked(event) => (blocked(event), event.stack.as_slice()),
            Event::Leak(event) => (leak(event, 1), event.stack.as_slice()),
            Event::ResetStorm(event) => (reset_storm(event), Default::default()),
            Event::DeadPeer(event) => (dead_peer(event), Default::default()),
            Event::Syn(event) => (listener(event), Default::default()),
            Event::Kill(kill) => (killed(kill), kill.stack.as_slice()),
        };
        self.line(line, stack)
    }

    fn end(&mut self, summary: &Summary) -> Vec<u8> {
        let mut lines = vec![Line::default()];
        lines.extend(summary::of_events(summary, self.columns()));
        self.write(lines)
    }
}

fn is_same_leak(one: &Event, other: &Event) -> bool {
    let (Event::Leak(one), Event::Leak(other)) = (one, other) else {
        return false;
    };
    (one.pid, &one.comm, &one.stack) == (other.pid, &other.comm, &other.stack)
        && one.socket.netns == other.socket.netns
}

/// Sockets that were forgotten: the first of them, and how many. Its age is the length.
fn leak(event: &LeakEvent, sockets: usize) -> Line {
    let socket = &event.socket;
    let length = right(&tcp::socket_age(socket), LENGTH_ROOM);
    let mut line = Line::plain(format!("{}  ", clock_ms(event.time)));
    line.push(Style::Red, format!("leak    {length}"));
    let name = tcp::owner(event.pid, &event.comm);
    line.push(Style::Bold, format!("  {name}"));
    let fd = socket
        .fd
        .map_or_else(String::new, |fd| format!("fd {fd}  "));
    let together = match sockets {
        1 => String::new(),
        sockets => format!("{} sockets, e.g. ", grouped(sockets as u64)),
    };
    line.push(
        Style::Plain,
        format!("   {together}{fd}{}", tcp::ends(socket)),
    );
    if socket.unread_bytes > 0 {
        let unread = bytes(socket.unread_bytes.into());
        line.push(Style::Plain, format!("   {unread} unread"));
    }
    let count = grouped(event.sockets);
    line.push(Style::Plain, format!("   {count} in CLOSE_WAIT"));
    if let Some(netns) = tcp::foreign(&socket.netns) {
        line.push(Style::Plain, format!("   {netns}"));
    }
    if let Some(origin) = tcp::origin(socket.side, &event.stack) {
        line.push(Style::Dim, format!("   {origin}"));
    }
    line
}

/// Many resets; how many is where others have the length.
fn reset_storm(event: &ResetStorm) -> Line {
    let mut line = Line::plain(format!("{}  ", clock_ms(event.time)));
    let most = event.sent_per_s.max(event.connections_per_s);
    let most = right(&rate(most), LENGTH_ROOM);
    line.push(Style::Red, format!("resets  {most}"));
    let (sent, ended) = (rate(event.sent_per_s), rate(event.connections_per_s));
    let words = format!("  sent {sent}   connections that a reset ended {ended}");
    line.push(Style::Plain, words);
    if let Some(netns) = tcp::foreign(&event.netns) {
        line.push(Style::Plain, format!("   {netns}"));
    }
    line
}

/// A peer that does not answer; for how long is its length.
fn dead_peer(event: &DeadPeer) -> Line {
    let mut line = Line::plain(format!("{}  ", clock_ms(event.time)));
    let length = right(&format!(">{}", age(event.age_ns)), LENGTH_ROOM);
    line.push(Style::Red, format!("no peer {length}"));
    line.push(Style::Bold, format!("  {}", event.peer));
    let (count, state) = (grouped(event.sockets), words::state(event.state));
    let [local, remote] = [event.local, event.remote].map(words::address);
    let timer = tcp::timer(event.timer);
    line.push(
        Style::Plain,
        format!(
            "   {count} closed here and not by it, e.g. {local} <-> {remote} {state}   {timer}"
        ),
    );
    if let Some(netns) = tcp::foreign(&event.netns) {
        line.push(Style::Plain, format!("   {netns}"));
    }
    line
}

/// A listener in trouble, or out of it; how long that lasted is its length.
fn listener(event: &SynEvent) -> Line {
    let of = &event.listener;
    let mut line = Line::plain(format!("{}  ", clock_ms(event.time)));
    let length = event.lasted_ns.map_or_else(String::new, age);
    let length = right(&length, LENGTH_ROOM);
    let verdict = words::syn_plain(event.verdict);
    match event.lasted_ns {
        None => line.push(
            syn::style(event.verdict),
            format!("SYN     {length}  {verdict}"),
        ),
        Some(_) => line.push(Style::Plain, format!("SYN     {length}  {verdict} is over")),
    }
    line.push(Style::Bold, format!("   {}", syn::name(of)));
    let local = words::address(of.local);
    line.push(Style::Plain, format!("   {local}"));
    if let Some(netns) = tcp::foreign(&of.netns) {
        line.push(Style::Plain, format!("   {netns}"));
    }
    if !of.why.is_empty() {
        line.push(Style::Dim, format!("   {}", of.why));
    }
    line
}

/// A process that was killed; what it had is its length.
fn killed(kill: &Kill) -> Line {
    let mut line = Line::plain(format!("{}  ", clock_ms(kill.time)));
    let size = right(&bytes(kill.victim.rss_bytes()), LENGTH_ROOM);
    line.push(oom::style(kill), format!("{:<8}{size}", oom::verb(kill)));
    line.push(Style::Bold, format!("  {}", oom::process(&kill.victim)));
    line.push(Style::Plain, format!("   {}", oom::why(kill)));
    for words in oom::with_it(kill) {
        line.push(Style::Plain, format!("   {words}"));
    }
    line
}

fn blocked(event: &BlockedEvent) -> Line {
    let length = right(&age(event.length_ns), LENGTH_ROOM);
    let mut line = Line::plain(format!("{}  ", clock_ms(event.time)));
    match event.kind {
        BlockedEventKind::Woken => line.push(Style::Plain, format!("blocked {length}")),
        BlockedEventKind::Still(_) => line.push(Style::Red, format!("STILL   {length}")),
    }
    let name = task(event.comm.as_str(), event.pid, event.tid);
    line.push(Style::Bold, format!("  {name}"));
    let why = cause(event.cause, event.detail.as_ref());
    line.push(Style::Plain, format!("   {why}"));
    for link in &event.waits_for {
        line.push(Style::Plain, sections::behind(link));
    }
    match &event.waker {
        None => {}
        // Where nobody is known to have held the lock, the cause names who woke.
        Some(Waker::Task { .. }) if why.contains(" woken by ") => {}
        Some(Waker::Task { pid, tid, comm }) => {
            let name = task(comm.as_str(), *pid, *tid);
            line.push(Style::Dim, format!("   woken by {name}"));
        }
        Some(Waker::Interrupt { is_soft, source }) => {
            let kind = if *is_soft { "softirq" } else { "interrupt" };
            line.push(Style::Dim, format!("   woken by {kind} ({source})"));
        }
    }
    line
}
