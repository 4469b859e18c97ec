//! The part of the JSON lines that says what the TCP sockets do.

use serde::{Serialize, Serializer};

use super::{
    json::{Number, text},
    words,
};
use crate::{
    snapshot::{self, StateCount, TcpState},
    text::Text,
};

/// TCP sockets at a tick, or over the run.
#[derive(Serialize)]
pub(super) struct Tcp<'a> {
    states: States<'a>,
    namespaces: Vec<Namespace<'a>>,
    opened: u64,
    closed: u64,
    transitions: Vec<Transition>,
    counters: Counters,
    resets_by_reason: Vec<Reset<'a>>,
    actors: Vec<Actor<'a>>,
    ports: Vec<Port<'a>>,
    close_wait: Vec<CloseWait<'a>>,
    time_wait: Vec<Closer<'a>>,
    time_wait_total: u64,
    time_wait_fin_wait2: u64,
    time_wait_unnamed: u64,
    closed_first: ClosedFirst,
    advice: Option<&'a str>,
}

impl<'a> From<&'a snapshot::TcpBreakdown> for Tcp<'a> {
    fn from(tcp: &'a snapshot::TcpBreakdown) -> Self {
        let time_wait = &tcp.time_wait;
        Self {
            states: States(&tcp.states),
            namespaces: tcp.namespaces.iter().map(Namespace::from).collect(),
            opened: tcp.opened(),
            closed: tcp.closed(),
            transitions: tcp.transitions.iter().map(Transition::from).collect(),
            counters: tcp.counters.into(),
            resets_by_reason: tcp.resets.iter().map(Reset::from).collect(),
            actors: tcp.actors.iter().map(Actor::from).collect(),
            ports: tcp.ports.iter().map(Port::from).collect(),
            close_wait: tcp.close_wait.iter().map(CloseWait::from).collect(),
            time_wait: time_wait.closers.iter().map(Closer::from).collect(),
            time_wait_total: time_wait.total,
            time_wait_fin_wait2: time_wait.fin_wait2,
            time_wait_unnamed: time_wait.unnamed,
            closed_first: ClosedFirst {
                here: time_wait.closed_first_here,
                by_peer: time_wait.closed_first_by_peer,
            },
            advice: time_wait.advice,
        }
    }
}

/// Resets of a reason.
#[derive(Serialize)]
struct Reset<'a> {
    reason: &'a str,
    count: u64,
}

impl<'a> From<&'a (Text, u64)> for Reset<'a> {
    fn from((reason, count): &'a (Text, u64)) -> Self {
        Self {
            reason: reason.as_str(),
            count: *count,
        }
    }
}

/// States of the kernel's old numbers are there even without a socket.
const ALWAYS: std::ops::RangeInclusive<u8> = 1..=11;

/// Numbers of sockets by the name of their state.
struct States<'a>(&'a [StateCount]);

impl Serialize for States<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let count = |state| {
            let found = self.0.iter().find(|counted| counted.state == state);
            found.map_or(0, |counted| counted.count)
        };
        let always = ALWAYS.map(TcpState).map(|state| (state, count(state)));
        let others = self.0.iter().filter(|one| !ALWAYS.contains(&one.state.0));
        let others = others.map(|counted| (counted.state, counted.count));
        let all = always.chain(others);
        serializer.collect_map(all.map(|(state, count)| (words::state(state), count)))
    }
}

#[derive(Serialize)]
struct Namespace<'a> {
    netns: Netns<'a>,
    states: States<'a>,
}

impl<'a> From<&'a snapshot::NamespaceStates> for Namespace<'a> {
    fn from(namespace: &'a snapshot::NamespaceStates) -> Self {
        Self {
            netns: (&namespace.netns).into(),
            states: States(&namespace.states),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Netns<'a> {
    inode: u32,
    name: Option<&'a str>,
    own: bool,
}

impl<'a> From<&'a snapshot::Netns> for Netns<'a> {
    fn from(netns: &'a snapshot::Netns) -> Self {
        Self {
            inode: netns.inode,
            name: text(&netns.name),
            own: netns.is_own,
        }
    }
}

#[derive(Serialize)]
struct Transition {
    from: &'static str,
    to: &'static str,
    count: u64,
}

impl From<&snapshot::Transition> for Transition {
    fn from(transition: &snapshot::Transition) -> Self {
        Self {
            from: words::state(transition.from),
            to: words::state(transition.to),
            count: transition.count,
        }
    }
}

#[derive(Serialize)]
struct Counters {
    handshakes_failed: u64,
    resets_sent: u64,
    connections_reset: u64,
    retransmitted: u64,
    handshakes_retransmitted: u64,
    timed_out: u64,
    closed_unread: u64,
    accept_queue_full: u64,
}

impl From<snapshot::TcpCounters> for Counters {
    fn from(counters: snapshot::TcpCounters) -> Self {
        Self {
            handshakes_failed: counters.handshakes_failed,
            resets_sent: counters.resets_sent,
            connections_reset: counters.connections_reset,
            retransmitted: counters.retransmitted,
            handshakes_retransmitted: counters.handshakes_retransmitted,
            timed_out: counters.timed_out,
            closed_unread: counters.closed_unread,
            accept_queue_full: counters.accept_queue_full,
        }
    }
}

#[derive(Serialize)]
struct Actor<'a> {
    pid: u32,
    comm: &'a str,
    side: &'a str,
    port: u16,
    opened: u64,
    closed_first: u64,
}

impl<'a> From<&'a snapshot::Actor> for Actor<'a> {
    fn from(actor: &'a snapshot::Actor) -> Self {
        Self {
            pid: actor.pid,
            comm: actor.comm.as_str(),
            side: words::side(actor.side),
            port: actor.port,
            opened: actor.opened,
            closed_first: actor.closed_first,
        }
    }
}

#[derive(Serialize)]
struct Port<'a> {
    netns: Netns<'a>,
    side: &'a str,
    port: u16,
    listener: Option<Listener<'a>>,
    established: u64,
    handshakes: Vec<Bucket>,
    unmeasured: u64,
    held: Vec<Bucket>,
}

#[derive(Serialize)]
struct Listener<'a> {
    pid: u32,
    comm: &'a str,
}

impl<'a> From<&'a snapshot::Port> for Port<'a> {
    fn from(port: &'a snapshot::Port) -> Self {
        let listener = |(pid, comm): &'a (u32, Text)| Listener {
            pid: *pid,
            comm: comm.as_str(),
        };
        Self {
            netns: (&port.netns).into(),
            side: words::side(port.side),
            port: port.port,
            listener: port.listener.as_ref().map(listener),
            established: port.established,
            handshakes: buckets(&port.handshakes),
            unmeasured: port.unmeasured,
            held: buckets(&port.held),
        }
    }
}

/// Times by length; buckets that are empty are left out.
#[derive(Serialize)]
struct Bucket {
    from_ns: u64,
    count: u64,
}

fn buckets(times: &snapshot::Times) -> Vec<Bucket> {
    let bucket = |(from_ns, count)| Bucket { from_ns, count };
    times.buckets().map(bucket).collect()
}

#[derive(Serialize)]
struct CloseWait<'a> {
    pid: Option<u32>,
    comm: &'a str,
    cgroup: Option<&'a str>,
    sockets: u64,
    oldest_ns: u64,
    growth_per_s: Number,
    leak: bool,
    why: &'a str,
    stack: Vec<&'a str>,
    samples: Vec<Socket<'a>>,
}

impl<'a> From<&'a snapshot::CloseWait> for CloseWait<'a> {
    fn from(process: &'a snapshot::CloseWait) -> Self {
        Self {
            pid: process.pid,
            comm: process.comm.as_str(),
            cgroup: text(&process.cgroup),
            sockets: process.sockets,
            oldest_ns: process.oldest_ns,
            growth_per_s: Number(process.growth_per_s),
            leak: process.leak,
            why: &process.why,
            stack: process.stack.iter().map(Text::as_str).collect(),
            samples: process.samples.iter().map(Socket::from).collect(),
        }
    }
}

/// A socket in CLOSE_WAIT.
#[derive(Serialize)]
pub(super) struct Socket<'a> {
    fd: Option<u32>,
    local: String,
    remote: String,
    age_ns: u64,
    is_least: bool,
    netns: Netns<'a>,
    cgroup: Option<&'a str>,
    unread_bytes: u32,
    side: Option<&'a str>,
    stack: Vec<&'a str>,
    timer: Timer,
}

impl<'a> From<&'a snapshot::WaitingSocket> for Socket<'a> {
    fn from(socket: &'a snapshot::WaitingSocket) -> Self {
        Self {
            fd: socket.fd,
            local: words::address(socket.local),
            remote: words::address(socket.remote),
            age_ns: socket.age_ns,
            is_least: socket.is_least,
            netns: (&socket.netns).into(),
            cgroup: text(&socket.cgroup),
            unread_bytes: socket.unread_bytes,
            side: socket.side.map(words::side),
            stack: socket.stack.iter().map(Text::as_str).collect(),
            timer: socket.timer.into(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Timer {
    kind: &'static str,
    due_ns: u64,
    retransmits: u32,
    probes: u32,
}

impl From<snapshot::Timer> for Timer {
    fn from(timer: snapshot::Timer) -> Self {
        Self {
            kind: words::timer(timer.kind),
            due_ns: timer.due_ns,
            retransmits: timer.retransmits,
            probes: timer.probes,
        }
    }
}

/// Who left sockets in TIME_WAIT. The port is the local one where connections were
/// accepted, the remote one where they were made.
#[derive(Serialize)]
struct Closer<'a> {
    pid: u32,
    comm: &'a str,
    side: &'a str,
    local_port: Option<u16>,
    remote_port: Option<u16>,
    count: u64,
}

impl<'a> From<&'a snapshot::Closer> for Closer<'a> {
    fn from(closer: &'a snapshot::Closer) -> Self {
        let (local_port, remote_port) = match closer.side {
            snapshot::Side::Accepted => (Some(closer.port), None),
            snapshot::Side::Connected => (None, Some(closer.port)),
        };
        Self {
            pid: closer.pid,
            comm: closer.comm.as_str(),
            side: words::side(closer.side),
            local_port,
            remote_port,
            count: closer.count,
        }
    }
}

#[derive(Serialize)]
struct ClosedFirst {
    here: u64,
    by_peer: u64,
}
