//! Sockets in CLOSE_WAIT by process.
//!
//! A socket is looked at once it waits for a while: what is closed within moments is no
//! matter. `history.rs` says which processes leak.

use std::collections::HashMap;

use super::{
    TcpReading,
    hertz::Hertz,
    history::{History, Moment, Number, TcpAges},
    openings::Openings,
    sockets::Sockets,
};
use crate::{
    clock::MonotonicNs,
    decode::{
        clock::ClockReading,
        tcp::{HolderReading, WaitingReading},
    },
    snapshot::{CloseWait, Netns, Timer, WaitingSocket},
    text::Text,
};

/// A second, in ns.
const SECOND: u64 = 1_000_000_000;
/// Nobody is looked up more often than this, in ns: it is a walk over all descriptors.
const LOOK_UP_NS: u64 = SECOND;
/// Holders change (a socket is passed on, a process ends): looked up anew after this.
const LOOK_UP_AGAIN_NS: u64 = 30 * SECOND;
/// Samples of a process.
const SAMPLES: usize = 5;
/// So many processes at a time.
const SUSPECTS: usize = 16;

/// A socket in CLOSE_WAIT, and who holds it.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    pub(super) reading: WaitingReading,
    holder: Option<Holder>,
    /// Whether it was there when holders were looked up last.
    is_looked_up: bool,
    pub(super) was_told: bool,
    /// Whether the look that is being taken in has it.
    pub(super) is_there: bool,
}

/// A process that holds a socket, and its descriptor.
#[derive(Clone, Copy, Debug)]
struct Holder {
    start: MonotonicNs,
    pid: u32,
    fd: u32,
}

impl Socket {
    pub(super) fn new(reading: WaitingReading) -> Self {
        Self {
            reading,
            holder: None,
            is_looked_up: false,
            was_told: false,
            is_there: true,
        }
    }

    /// An address can come again: then it is another socket.
    pub(super) fn is(&self, reading: &WaitingReading) -> bool {
        (self.reading.since, self.reading.remote) == (reading.since, reading.remote)
    }

    /// Time since the peer's FIN, and whether it may be longer.
    fn age(&self, now: MonotonicNs, hertz: Hertz) -> (u64, bool) {
        match self.reading.since {
            Some(since) => (now.since_ns(since), false),
            None => (hertz.ns(self.reading.idle_jiffies.into()), true),
        }
    }

    pub(super) fn model(
        &self,
        now: MonotonicNs,
        hertz: Hertz,
        netns: Netns,
        cgroup: Option<Text>,
    ) -> WaitingSocket {
        let (age_ns, is_least) = self.age(now, hertz);
        let reading = &self.reading;
        WaitingSocket {
            fd: self.holder.as_ref().map(|holder| holder.fd),
            side: Some(reading.side),
            local: reading.local,
            remote: reading.remote,
            age_ns,
            is_least,
            netns,
            cgroup,
            unread_bytes: reading.unread_bytes,
            stack: Vec::new(),
            timer: Timer {
                kind: reading.timer,
                due_ns: hertz.until_ns(reading.due_jiffies),
                retransmits: reading.retransmits.into(),
                probes: reading.probes.into(),
            },
        }
    }
}

/// Whose a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// A process, by id and start.
    Process(u32, MonotonicNs),
    /// Nobody has accepted it.
    Nobody,
    /// It has a descriptor, and none was found.
    Unknown,
}

/// A process with sockets in CLOSE_WAIT, as far as it is computed.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: Option<u32>,
    pub(super) comm: Text,
    pub(super) sockets: u64,
    oldest_ns: u64,
    growth_per_s: f64,
    leaks: bool,
    why: String,
    pub(super) stack: Vec<Text>,
}

impl Process {
    pub(super) fn model(self, samples: impl Iterator<Item = WaitingSocket>) -> CloseWait {
        let samples: Vec<WaitingSocket> = samples.take(SAMPLES).collect();
        CloseWait {
            pid: self.pid,
            comm: self.comm,
            cgroup: samples.first().and_then(|socket| socket.cgroup.clone()),
            sockets: self.sockets,
            oldest_ns: self.oldest_ns,
            growth_per_s: self.growth_per_s,
            leak: self.leaks,
            why: self.why,
            stack: self.stack,
            samples,
        }
    }
}

/// All sockets in CLOSE_WAIT.
#[derive(Debug)]
pub(super) struct WaitingTable {
    sockets: Sockets,
    /// Names of the processes that hold some.
    names: HashMap<(u32, MonotonicNs), Text>,
    histories: HashMap<Owner, History>,
    /// When the sockets were looked at last: all below is of then.
    now: MonotonicNs,
    looked_up: MonotonicNs,
    processes: Vec<(Process, Vec<Socket>)>,
    suspects: Vec<u32>,
    /// Whether leaks were told since then.
    is_told: bool,
    /// Sockets that wait for long and have no holder that is known.
    unknown: u64,
    openings: Openings,
}

impl WaitingTable {
    pub(super) fn new(now: MonotonicNs) -> Self {
        Self {
            sockets: Sockets::default(),
            names: HashMap::new(),
            histories: HashMap::new(),
            now,
            looked_up: now,
            processes: Vec::new(),
            suspects: Vec::new(),
            is_told: true,
            unknown: 0,
            openings: Openings::default(),
        }
    }

    pub(super) fn wants_holders(&self, now: MonotonicNs) -> bool {
        let since = now.since_ns(self.looked_up);
        let is_due = self.unknown > 0 && since >= LOOK_UP_NS;
        let has_sockets = self.histories.values().any(History::has_sockets);
        is_due || (has_sockets && since >= LOOK_UP_AGAIN_NS)
    }

    pub(super) fn observe(
        &mut self,
        clock: &ClockReading,
        options: TcpAges,
        hertz: Hertz,
        reading: &TcpReading,
    ) {
        let now = clock.now;
        let Some(waiting) = &reading.waiting else {
            // There are so many that they are not looked at each time.
            self.openings.observe(&reading.openings, &self.sockets);
            return;
        };
        let before = std::mem::replace(&mut self.now, now);
        // What is gone was closed, or its process ended.
        self.sockets.update(waiting, |socket| {
            let (age, _) = socket.age(before, hertz);
            if let Some(history) = self.histories.get_mut(&owner(socket))
                && age >= options.long_ns()
            {
                history.note_closed(now, age);
            }
        });
        if let Some(holders) = &reading.holders {
            self.looked_up = now;
            self.name(holders);
        }
        self.openings.observe(&reading.openings, &self.sockets);
        self.count(options, hertz);
        self.processes = self.find_processes(options, hertz);
        self.suspects = self.find_suspects(options, hertz);
        self.is_told = false;
    }

    /// When the sockets were looked at last.
    pub(super) fn now(&self) -> MonotonicNs {
        self.now
    }

    /// Every process with a socket that waits for long, leaks first, then the most
    /// sockets; each with its oldest sockets.
    pub(super) fn processes(&self) -> &[(Process, Vec<Socket>)] {
        &self.processes
    }

    /// Processes that may leak, those first that are suspected for the shortest time.
    pub(super) fn suspects(&self) -> &[u32] {
        &self.suspects
    }

    /// Where a socket was opened.
    pub(super) fn stack(&self, socket: &Socket) -> &[Text] {
        self.openings.stack(socket)
    }

    fn find_suspects(&self, options: TcpAges, hertz: Hertz) -> Vec<u32> {
        let mut suspects: HashMap<(u32, MonotonicNs), MonotonicNs> = HashMap::new();
        for socket in self.sockets.iter() {
            let age = socket.age(self.now, hertz).0;
            let owner = owner(socket);
            if age >= options.suspicious_ns()
                && let Owner::Process(pid, start) = owner
                && let Some(history) = self.histories.get(&owner)
                && history.is_suspicious(self.now, age)
            {
                suspects.insert((pid, start), history.began);
            }
        }
        let mut suspects: Vec<_> = suspects.into_iter().collect();
        suspects.sort_by_key(|(process, began)| (std::cmp::Reverse(*began), *process));
        suspects
            .into_iter()
            .filter(|((pid, start), _)| !self.openings.are_enough(*pid, *start))
            .take(SUSPECTS)
            .map(|((pid, _), _)| pid)
            .collect()
    }

    /// Of several processes that hold a socket, the one that began last accepted it: a
    /// parent that accepts before it forks closes its own descriptor.
    fn name(&mut self, holders: &[HolderReading]) {
        self.names.clear();
        for socket in self.sockets.iter_mut() {
            socket.holder = None;
            socket.is_looked_up = true;
        }
        for holder in holders {
            let Some(socket) = self.sockets.get_mut(holder.socket) else {
                continue;
            };
            let is_later = socket.holder.as_ref().is_none_or(|known| {
                (known.start, known.pid, holder.fd) < (holder.start, holder.pid, known.fd)
            });
            if is_later {
                let HolderReading { start, pid, fd, .. } = *holder;
                socket.holder = Some(Holder { start, pid, fd });
                let name = self.names.entry((pid, start));
                name.or_insert_with(|| holder.comm.clone());
            }
        }
    }

    fn count(&mut self, options: TcpAges, hertz: Hertz) {
        let mut numbers: HashMap<Owner, Number> = HashMap::new();
        self.unknown = 0;
        for socket in self.sockets.iter() {
            if socket.age(self.now, hertz).0 >= options.long_ns() {
                let owner = owner(socket);
                self.unknown += u64::from(owner == Owner::Unknown);
                if owner == Owner::Unknown && !socket.is_looked_up {
                    continue;
                }
                let number = numbers.entry(owner).or_default();
                number.all += 1;
                match socket.reading.since {
                    None => number.from_before += 1,
                    Some(since) => {
                        let long = since + options.long_ns();
                        let first = number.first_long.map_or(long, |first| first.min(long));
                        number.first_long = Some(first);
                    }
                }
            }
        }
        let now = self.now;
        self.histories
            .retain(|owner, history| numbers.contains_key(owner) || history.is_remembered(now));
        for owner in self.histories.keys() {
            numbers.entry(*owner).or_default();
        }
        for (owner, number) in numbers {
            let history = self.histories.entry(owner);
            let history = history.or_insert_with(|| History::new(now, &number));
            history.note(now, number.all);
        }
    }

    fn find_processes(&self, options: TcpAges, hertz: Hertz) -> Vec<(Process, Vec<Socket>)> {
        let now = self.now;
        let mut by_process: HashMap<Owner, Vec<&Socket>> = HashMap::new();
        for socket in self.sockets.iter() {
            let is_pending = owner(socket) == Owner::Unknown && !socket.is_looked_up;
            if self.histories.contains_key(&owner(socket)) && !is_pending {
                by_process.entry(owner(socket)).or_default().push(socket);
            }
        }
        let mut processes: Vec<(Process, Vec<Socket>)> = by_process
            .into_iter()
            .filter(|(_, sockets)| {
                let is_long = |s: &&Socket| s.age(now, hertz).0 >= options.long_ns();
                sockets.iter().any(is_long)
            })
            .map(|(id, mut sockets)| {
                sockets.sort_by_key(|socket| {
                    (
                        std::cmp::Reverse(socket.age(now, hertz).0),
                        socket.reading.socket,
                    )
                });
                let process = self.judge(id, &sockets, now, options, hertz);
                (process, self.samples(&sockets))
            })
            .collect();
        processes.sort_by_key(|(p, _)| (!p.leaks, std::cmp::Reverse(p.sockets), p.pid));
        processes
    }

    /// The oldest; one of which it is known where it was opened is among them, if any is.
    fn samples(&self, sockets: &[&Socket]) -> Vec<Socket> {
        let is_known = |socket: &&&Socket| !self.stack(socket).is_empty();
        let oldest = sockets.iter().take(SAMPLES);
        let known = sockets.iter().find(is_known);
        let instead = known.filter(|_| !oldest.clone().any(|socket| is_known(&socket)));
        let kept = SAMPLES - usize::from(instead.is_some());
        oldest
            .take(kept)
            .chain(instead)
            .map(|s| (**s).clone())
            .collect()
    }

    fn judge(
        &self,
        id: Owner,
        sockets: &[&Socket],
        now: MonotonicNs,
        options: TcpAges,
        hertz: Hertz,
    ) -> Process {
        let oldest_ns = sockets.first().map_or(0, |s| s.age(now, hertz).0);
        let history = self.histories.get(&id);
        let is_aged = |s: &&&Socket| s.age(now, hertz).0 >= options.leak_age_ns;
        let moment = Moment {
            now,
            oldest_ns,
            aged: sockets.iter().filter(is_aged).count() as u64,
            began_here: sockets.iter().any(|s| s.reading.since.is_some()),
        };
        let (leaks, why) = match (id, history) {
            (Owner::Process(..), Some(history)) => history.verdict(options, &moment),
            (Owner::Nobody, _) => {
                let why = "no process has accepted them: they wait in the accept queue";
                (false, why.to_owned())
            }
            _ => (false, "who holds them was not found".to_owned()),
        };
        let process = match id {
            Owner::Process(pid, start) => Some((pid, start)),
            Owner::Nobody | Owner::Unknown => None,
        };
        let name = process.and_then(|process| self.names.get(&process));
        Process {
            pid: process.map(|(pid, _)| pid),
            comm: name.cloned().unwrap_or_default(),
            sockets: sockets.len() as u64,
            oldest_ns,
            growth_per_s: history.map_or(0.0, History::growth_per_s),
            leaks,
            why,
            stack: self.openings.usual(sockets),
        }
    }

    /// For each process that leaks one socket that has just passed the age, the oldest
    /// of them; the others count as told.
    pub(super) fn take_events(&mut self, options: TcpAges, hertz: Hertz) -> Vec<(Process, Socket)> {
        let now = self.now;
        if std::mem::replace(&mut self.is_told, true) {
            return Vec::new();
        }
        let all = self.processes.iter().map(|(process, _)| process);
        let leaks: Vec<Process> = all.filter(|process| process.leaks).cloned().collect();
        let mut events = Vec::new();
        for process in leaks {
            let mut new: Vec<&mut Socket> = self
                .sockets
                .iter_mut()
                .filter(|s| s.holder.as_ref().map(|holder| holder.pid) == process.pid)
                .filter(|s| !s.was_told && s.age(now, hertz).0 >= options.leak_age_ns)
                .collect();
            new.sort_by_key(|socket| std::cmp::Reverse(socket.age(now, hertz).0));
            for socket in &mut new {
                socket.was_told = true;
            }
            if let Some(oldest) = new.first() {
                events.push((process, (**oldest).clone()));
            }
        }
        events
    }
}

fn owner(socket: &Socket) -> Owner {
    match &socket.holder {
        Some(holder) => Owner::Process(holder.pid, holder.start),
        None if socket.reading.has_file => Owner::Unknown,
        None => Owner::Nobody,
    }
}
