//! TCP sockets: (state, reading) -> state -> model.
//!
//! `population.rs` counts sockets by state, `waiting.rs` and `history.rs` tell leaks from
//! sockets that are merely closed late, `closers.rs` puts TIME_WAIT on who closed first. All sums of
//! the kernel side are since its start; what is shown of an interval is a difference.

mod alarms;
mod closers;
mod hertz;
mod history;
mod listeners;
mod openings;
mod population;
mod sockets;
mod waiting;

#[cfg(test)]
pub(super) mod tests;
#[cfg(test)]
mod tests_counts;

use std::{collections::HashMap, net::IpAddr};

use tracer_common::tcp::{
    CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, Matrix, PAIRS, Population, STATES, TIME_WAIT,
};

pub use self::alarms::ClosingReading;
use self::{
    alarms::Alarms, closers::Closers, listeners::Listeners, population::Populations,
    waiting::WaitingTable,
};
pub use self::{
    hertz::Hertz,
    history::TcpAges,
    openings::{OpeningReading, StackLosses},
    population::Seeds,
};
use super::syn::{self, SynAggregate, SynCounters};
use crate::{
    clock::{MonotonicNs, WallNs},
    decode::{
        clock::ClockReading,
        cookie::CookieReading,
        syn::ListenerReading,
        tcp::{ActorKey, ActorReading, HolderReading, PortReading, WaitingReading},
    },
    snapshot::{
        Actor, Event, LeakEvent, NamespaceStates, Netns, Port, Side, StateCount, SynBreakdown,
        TcpBreakdown, TcpCounters, TcpState, TimeWait, Times, Transition,
    },
    text::Text,
};

/// A network namespace at one moment.
#[derive(Clone, Debug, Default)]
pub struct NamespaceReading {
    /// Which.
    pub netns: Netns,
    /// When its counters were read.
    pub counted: MonotonicNs,
    /// Its counters, since it exists.
    pub counters: TcpCounters,
    /// Its counters of SYNs and cookies.
    pub syn: SynCounters,
    /// Its sockets in TIME_WAIT, and those in FIN_WAIT2 that no process has any more.
    pub time_wait: u64,
    /// Of those, the ones in FIN_WAIT2.
    pub fin_wait2: u64,
}

/// Everything about TCP sockets at one moment.
#[derive(Clone, Debug)]
pub struct TcpReading {
    /// Transitions since the start.
    pub matrix: Matrix,
    /// Came into each state less left it since the start, by namespace.
    pub populations: Vec<(u32, Population)>,
    /// Sockets from before the start; with the first reading only.
    pub seeds: Option<Seeds>,
    /// Who opened and closed, since the start.
    pub actors: Vec<ActorReading>,
    /// Connections by port, since the start.
    pub ports: Vec<PortReading>,
    /// What actors, then ports did that were let go for others.
    pub dropped: [u64; 2],
    /// Sockets in CLOSE_WAIT; `None` when they were not looked at.
    pub waiting: Option<Vec<WaitingReading>>,
    /// Sockets in LISTEN.
    pub listening: Vec<ListenerReading>,
    /// What they did with SYN cookies, by their address in the kernel; `None` where
    /// functions cannot be hooked.
    pub cookies: Option<HashMap<u64, CookieReading>>,
    /// Whom their handshakes come from, where that was looked at.
    pub sources: HashMap<u64, Vec<IpAddr>>,
    /// Who holds them, when it was looked up.
    pub holders: Option<Vec<HolderReading>>,
    /// Connections that suspected processes opened.
    pub openings: Vec<OpeningReading>,
    /// Resets sent since the start, by reason.
    pub resets: Vec<(Text, u64)>,
    /// Stacks of openings that have no names, or not all, since the start.
    pub stack_losses: StackLosses,
    /// The namespaces that are known.
    pub namespaces: Vec<NamespaceReading>,
    /// Transitions that the hook missed, since the start.
    pub missed: u64,
    /// The most namespaces that could not be opened at one look.
    pub unopened: u64,
}

/// All that is known of TCP sockets.
#[derive(Debug)]
pub struct TcpAggregate {
    options: TcpAges,
    populations: Populations,
    closers: Closers,
    listeners: Listeners,
    syn: SynAggregate,
    alarms: Alarms,
    waiting: WaitingTable,
    hertz: Hertz,
    now: MonotonicNs,
    wall: WallNs,
    latest: Sums,
    /// At the start, and at the last snapshot.
    first: Sums,
    before: Sums,
    names: HashMap<u32, Netns>,
    /// In TIME_WAIT, and in FIN_WAIT2 without a process.
    time_wait: [u64; 2],
}

/// Sums that a difference is made of.
#[derive(Clone, Debug)]
struct Sums {
    matrix: Matrix,
    actors: HashMap<ActorKey, ActorReading>,
    ports: HashMap<PortId, PortReading>,
    counters: HashMap<u32, TcpCounters>,
    resets: HashMap<Text, u64>,
    missed: u64,
    unopened: u64,
    stack_losses: StackLosses,
    dropped: [u64; 2],
}

type PortId = (u32, crate::snapshot::Side, u16);

impl Default for Sums {
    fn default() -> Self {
        Self {
            matrix: [0; PAIRS],
            actors: HashMap::new(),
            ports: HashMap::new(),
            counters: HashMap::new(),
            resets: HashMap::new(),
            missed: 0,
            unopened: 0,
            stack_losses: StackLosses::default(),
            dropped: [0; 2],
        }
    }
}

impl Sums {
    fn of(reading: &TcpReading) -> Self {
        let port = |port: &PortReading| ((port.netns, port.side, port.port), port.clone());
        let counters = reading.namespaces.iter();
        Self {
            matrix: reading.matrix,
            actors: reading
                .actors
                .iter()
                .map(|actor| (actor.key, actor.clone()))
                .collect(),
            ports: reading.ports.iter().map(port).collect(),
            counters: counters
                .map(|namespace| (namespace.netns.inode, namespace.counters))
                .collect(),
            resets: reading.resets.iter().cloned().collect(),
            missed: reading.missed,
            unopened: reading.unopened,
            stack_losses: reading.stack_losses,
            dropped: reading.dropped,
        }
    }
}

impl TcpAggregate {
    /// Begins with a first reading.
    pub fn new(options: TcpAges, clock: &ClockReading, first: &TcpReading) -> Self {
        let mut sums = Sums::of(first);
        // The hooks have counted since the start, a moment ago; only the kernel's own
        // counters are older.
        sums.matrix = [0; PAIRS];
        sums.actors.clear();
        sums.ports.clear();
        sums.resets.clear();
        Self {
            options,
            populations: Populations::default(),
            closers: Closers::default(),
            listeners: Listeners::default(),
            syn: SynAggregate::default(),
            alarms: Alarms::default(),
            waiting: WaitingTable::new(clock.now),
            hertz: Hertz::new(clock),
            now: clock.now,
            wall: WallNs::default(),
            latest: sums.clone(),
            first: sums.clone(),
            before: sums,
            names: HashMap::new(),
            time_wait: [0; 2],
        }
    }

    /// Takes a reading in; `cgroups` are the names of cgroups.
    pub fn observe(&mut self, clock: &ClockReading, wall: WallNs, reading: &TcpReading) {
        (self.now, self.wall) = (clock.now, wall);
        self.hertz.learn(clock);
        for namespace in &reading.namespaces {
            let netns = namespace.netns.clone();
            self.names.insert(netns.inode, netns);
        }
        self.populations.observe(reading);
        self.closers.observe(self.now, &reading.actors);
        let holders = reading.holders.as_deref();
        self.listeners
            .observe(self.now, &reading.ports, &reading.listening, holders);
        self.syn.observe(self.now, reading);
        let closing = reading.seeds.as_ref().map(|seeds| &*seeds.closing);
        self.alarms.observe(self.now, &reading.namespaces, closing);
        self.waiting
            .observe(clock, self.options, self.hertz, reading);
        let namespaces = || reading.namespaces.iter();
        let (all, fin_wait2) = (
            namespaces().map(|n| n.time_wait).sum::<u64>(),
            namespaces().map(|n| n.fin_wait2).sum(),
        );
        self.time_wait = [all, fin_wait2];
        let latest = Sums::of(reading);
        // A namespace that comes later began with nothing that was ours to see.
        for (inode, counters) in &latest.counters {
            for sums in [&mut self.first, &mut self.before] {
                sums.counters.entry(*inode).or_insert(*counters);
            }
        }
        self.latest = latest;
    }

    /// Whether the next reading should say who holds the sockets in CLOSE_WAIT.
    pub fn wants_holders(&self) -> bool {
        self.waiting.wants_holders(self.now) || self.listeners.wants_holders(self.now)
    }

    /// Processes that may leak: where they open connections is worth a look.
    pub fn suspects(&self) -> Vec<u32> {
        self.waiting.suspects().to_vec()
    }

    /// What is notable since this was asked last.
    pub fn take_events(&mut self, cgroup: impl Fn(u32, u64) -> Option<Text>) -> Vec<Event> {
        let names = &self.names;
        let dead = self
            .alarms
            .dead_peers(self.wall, self.options.dead_peer_ns, |inode| {
                named(names, inode)
            });
        let storms = self.alarms.storms(self.wall);
        let listeners = &self.listeners;
        let syn = self.syn.take_events(
            self.wall,
            syn::View {
                process: &|listener| listeners.holding(listener),
                netns: &|inode| named(names, inode),
            },
        );
        let leaks = self.take_leaks(cgroup).into_iter().map(Event::Leak);
        leaks
            .chain(storms.into_iter().map(Event::ResetStorm))
            .chain(dead.into_iter().map(Event::DeadPeer))
            .chain(syn.into_iter().map(|event| Event::Syn(Box::new(event))))
            .collect()
    }

    fn take_leaks(&mut self, cgroup: impl Fn(u32, u64) -> Option<Text>) -> Vec<LeakEvent> {
        let told = self.waiting.take_events(self.options, self.hertz);
        let event = |(process, socket): (waiting::Process, waiting::Socket)| LeakEvent {
            time: self.wall,
            pid: process.pid,
            comm: process.comm.clone(),
            socket: self.socket(&process, &socket, &cgroup),
            sockets: process.sockets,
            stack: process.stack,
        };
        told.into_iter().map(event).collect()
    }

    /// Listeners from before the start that there was no room for.
    pub fn listeners_left_out(&self) -> u64 {
        self.listeners.left_out()
    }

    /// What actors did that were let go for others, since the start.
    pub fn dropped_actors(&self) -> u64 {
        let [actors, _] = self.latest.dropped;
        actors
    }

    /// Connections of ports that were let go for others, since the start.
    pub fn dropped_ports(&self) -> u64 {
        let [_, ports] = self.latest.dropped;
        ports
    }

    /// Transitions that were missed since the start.
    pub fn missed(&self) -> u64 {
        self.latest.missed
    }

    /// Transitions that the kernel ran no hook for, at the least.
    pub fn unseen(&self) -> u64 {
        self.populations.unseen()
    }

    /// Network namespaces that could not be opened.
    pub fn unopened(&self) -> u64 {
        self.latest.unopened
    }

    /// Stacks of openings that have no names, or not all, since the start.
    pub fn stack_losses(&self) -> StackLosses {
        self.latest.stack_losses
    }

    /// Listeners; ends their interval.
    pub fn syn_snapshot(&mut self) -> SynBreakdown {
        let (names, listeners) = (&self.names, &self.listeners);
        self.syn.snapshot(syn::View {
            process: &|listener| listeners.holding(listener),
            netns: &|inode| named(names, inode),
        })
    }

    /// Listeners, with what they had since the start.
    pub fn syn_summary(&self) -> SynBreakdown {
        self.syn.summary(syn::View {
            process: &|listener| self.listeners.holding(listener),
            netns: &|inode| self.netns(inode),
        })
    }

    /// Ends the interval.
    pub fn snapshot(&mut self, cgroup: impl Fn(u32, u64) -> Option<Text>) -> TcpBreakdown {
        let breakdown = self.breakdown(&self.before, cgroup);
        self.before = self.latest.clone();
        breakdown
    }

    /// The whole run.
    pub fn summary(&self, cgroup: impl Fn(u32, u64) -> Option<Text>) -> TcpBreakdown {
        self.breakdown(&self.first, cgroup)
    }

    fn breakdown(&self, before: &Sums, cgroup: impl Fn(u32, u64) -> Option<Text>) -> TcpBreakdown {
        let transitions = transitions(&self.latest.matrix, &before.matrix);
        let (states, namespaces) = self.states();
        let count = |to: u32| -> u64 {
            let is_it =
                |t: &&Transition| u32::from(t.from.0) == ESTABLISHED && u32::from(t.to.0) == to;
            transitions.iter().filter(is_it).map(|t| t.count).sum()
        };
        let (here, by_peer) = (count(FIN_WAIT1), count(CLOSE_WAIT));
        TcpBreakdown {
            time_wait: self.time_wait(here, by_peer),
            states,
            namespaces,
            transitions,
            counters: self.counters(before),
            resets: self.resets(before),
            actors: self.actors(before),
            ports: self.ports(before),
            close_wait: self
                .waiting
                .processes()
                .iter()
                .map(|(process, sockets)| {
                    let samples = sockets.iter().map(|s| self.socket(process, s, &cgroup));
                    process.clone().model(samples)
                })
                .collect(),
        }
    }

    fn netns(&self, inode: u32) -> Netns {
        named(&self.names, inode)
    }

    /// By state, together and by namespace. TIME_WAIT is the kernel's own count, less what is
    /// in FIN_WAIT2.
    fn states(&self) -> (Vec<StateCount>, Vec<NamespaceStates>) {
        let mut all = [0_u64; STATES];
        let mut namespaces = Vec::new();
        for (inode, mut population) in self.populations.iter() {
            if let Some([all, fin_wait2]) = self.populations.time_wait(inode) {
                population[TIME_WAIT as usize] = all.saturating_sub(fin_wait2);
                population[FIN_WAIT2 as usize] += fin_wait2;
            }
            for (all, one) in all.iter_mut().zip(&population) {
                *all += one;
            }
            let states = state_counts(&population);
            if !states.is_empty() {
                namespaces.push(NamespaceStates {
                    netns: self.netns(inode),
                    states,
                });
            }
        }
        namespaces.sort_by_key(|n| (!n.netns.is_own, n.netns.inode));
        (state_counts(&all), namespaces)
    }

    fn counters(&self, before: &Sums) -> TcpCounters {
        let mut sum = TcpCounters::default();
        for (inode, now) in &self.latest.counters {
            let before = before.counters.get(inode).copied().unwrap_or_default();
            add_difference(&mut sum, now, &before);
        }
        sum
    }

    fn resets(&self, before: &Sums) -> Vec<(Text, u64)> {
        let since = |(reason, now): (&Text, &u64)| {
            let before = before.resets.get(reason).copied().unwrap_or(0);
            (reason.clone(), now.saturating_sub(before))
        };
        let mut resets: Vec<(Text, u64)> = self.latest.resets.iter().map(since).collect();
        resets.retain(|(_, count)| *count > 0);
        resets.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
        resets
    }

    fn actors(&self, before: &Sums) -> Vec<Actor> {
        let mut actors: Vec<Actor> = self
            .latest
            .actors
            .values()
            .map(|now| {
                let before = before.actors.get(&now.key);
                let (opened, closed_first) =
                    before.map_or((0, 0), |before| (before.opened, before.closed_first));
                Actor {
                    pid: now.key.pid,
                    comm: now.comm.clone(),
                    side: now.key.side,
                    port: now.key.port,
                    opened: now.opened.saturating_sub(opened),
                    closed_first: now.closed_first.saturating_sub(closed_first),
                }
            })
            .filter(|actor| actor.opened + actor.closed_first > 0)
            .collect();
        actors.sort_by_key(|a| (std::cmp::Reverse(a.opened + a.closed_first), a.pid, a.port));
        actors
    }

    fn ports(&self, before: &Sums) -> Vec<Port> {
        let mut ports: Vec<Port> = self
            .latest
            .ports
            .iter()
            .map(|(id, now)| Port {
                netns: self.netns(now.netns),
                side: now.side,
                port: now.port,
                listener: match now.side {
                    Side::Accepted => self.listeners.of(now.netns, now.port),
                    Side::Connected => None,
                },
                established: now
                    .established
                    .saturating_sub(before.ports.get(id).map_or(0, |before| before.established)),
                handshakes: Times(now.handshakes.clone()),
                unmeasured: now.unmeasured,
                held: Times(now.held.clone()),
            })
            .collect();
        ports.sort_by_key(|p| (std::cmp::Reverse(p.established), p.port, p.netns.inode));
        ports
    }

    fn time_wait(&self, here: u64, by_peer: u64) -> TimeWait {
        let [total, fin_wait2] = self.time_wait;
        let (closers, unnamed) = self.closers.put(total);
        TimeWait {
            total,
            fin_wait2,
            advice: closers::advice(total, &closers),
            closers,
            unnamed,
            closed_first_here: here,
            closed_first_by_peer: by_peer,
        }
    }

    fn socket(
        &self,
        process: &waiting::Process,
        socket: &waiting::Socket,
        cgroup: impl Fn(u32, u64) -> Option<Text>,
    ) -> crate::snapshot::WaitingSocket {
        let pid = process.pid.unwrap_or_default();
        let name = cgroup(pid, socket.reading.cgroup);
        let mut model = socket.model(
            self.waiting.now(),
            self.hertz,
            self.netns(socket.reading.netns),
            name,
        );
        model.stack = self.waiting.stack(socket).to_vec();
        model
    }
}

/// A namespace, with its name if it has one.
fn named(names: &HashMap<u32, Netns>, inode: u32) -> Netns {
    let unknown = || Netns {
        inode,
        ..Netns::default()
    };
    names.get(&inode).cloned().unwrap_or_else(unknown)
}

/// Adds what was counted from one moment to another.
fn add_difference(sum: &mut TcpCounters, now: &TcpCounters, before: &TcpCounters) {
    let add = |sum: &mut u64, now: u64, before: u64| *sum += now.saturating_sub(before);
    add(
        &mut sum.handshakes_failed,
        now.handshakes_failed,
        before.handshakes_failed,
    );
    add(&mut sum.resets_sent, now.resets_sent, before.resets_sent);
    add(
        &mut sum.connections_reset,
        now.connections_reset,
        before.connections_reset,
    );
    add(
        &mut sum.retransmitted,
        now.retransmitted,
        before.retransmitted,
    );
    add(
        &mut sum.handshakes_retransmitted,
        now.handshakes_retransmitted,
        before.handshakes_retransmitted,
    );
    add(&mut sum.timed_out, now.timed_out, before.timed_out);
    add(
        &mut sum.closed_unread,
        now.closed_unread,
        before.closed_unread,
    );
    add(
        &mut sum.accept_queue_full,
        now.accept_queue_full,
        before.accept_queue_full,
    );
}

fn transitions(now: &Matrix, before: &Matrix) -> Vec<Transition> {
    let mut transitions: Vec<Transition> = now
        .iter()
        .zip(before)
        .enumerate()
        .map(|(pair, (now, before))| Transition {
            from: TcpState((pair / STATES) as u8),
            to: TcpState((pair % STATES) as u8),
            count: now.wrapping_sub(*before),
        })
        .filter(|transition| transition.count > 0)
        .collect();
    transitions.sort_by_key(|t| (std::cmp::Reverse(t.count), t.from, t.to));
    transitions
}

fn state_counts(population: &Population) -> Vec<StateCount> {
    (0..)
        .zip(population)
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| StateCount {
            state: TcpState(state),
            count: *count,
        })
        .collect()
}
