//! What is known of TCP sockets, put together as one reading: the kernel side's part,
//! the network namespaces, their counters, and the sockets from before the start.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tracer_common::{
    lost,
    tcp::{
        CLOSE, FIN_WAIT1, FIN_WAIT2, Moves, STATES, SYN_RECV, TIME_WAIT, TIMER_KEEPALIVE,
        TIMER_RETRANSMIT, TIMER_WINDOW_PROBE,
    },
};

use crate::{
    aggregate::{
        syn::SynCounters,
        tcp::{ClosingReading, NamespaceReading, Seeds, TcpReading},
    },
    clock::{self, MonotonicNs},
    decode::{
        cookie, opening,
        syn::{self, ListenerReading},
        tcp::{self, WaitingReading},
    },
    host::{
        namespaces::{Ask, Namespace, Namespaces, within},
        netstat::{self, NetCounters},
        sock_diag::{SockDiag, SocketEntry, States},
        sysctls::{self, TcpSysctls},
        user_stacks::Launcher,
    },
    kernel::{
        cookies::RawCookies,
        fields::CgroupVersion,
        reader::Reader,
        sockets::{RawSockets, SocketLook},
    },
    snapshot::{Cookies, Netns, SynSettings, TcpCounters, TcpState, Timer, TimerKind},
};

use super::{
    effort::Effort,
    left_over::{LeftOver, is_left_over},
    openings::Openings,
};

/// Namespaces come and go: looked for anew after so many readings, and whenever the
/// hook has seen one that is not known.
const READINGS_A_LOOK: u32 = 30;

/// The counters of namespaces in which nothing happens are read again after this time, in ns.
const QUIET_AFTER: u64 = 10_000_000_000;
/// Full SYN queues are looked into again after this time, in ns.
const QUEUES_AFTER: u64 = 2_000_000_000;
/// Closed here, and not yet by the peer or not acknowledged: with `TCP_LAST_ACK` and
/// `TCP_CLOSING`, include/net/tcp_states.h.
const CLOSING_STATES: [u32; 4] = [FIN_WAIT1, FIN_WAIT2, 9, 11];
/// Each socket in CLOSE_WAIT takes some 3 us of CPU time at a look, and any user can have
/// tens of thousands: for each of them the next look comes so much later, in ns.
const REST_A_SOCKET: u64 = 64_000;
/// To find a moment without a transition.
const TRIES: u32 = 20;
/// The ring of transitions is read so often, until all are there: a CPU that is taken away
/// while it writes one holds up all later ones (`__bpf_ringbuf_reserve`,
/// kernel/bpf/ringbuf.c). A millisecond lies between two reads.
const LAST_READS: u32 = 100;

/// The sockets of the host.
pub(super) struct Sockets {
    namespaces: Namespaces,
    latest: HashMap<u32, Known>,
    readings: u32,
    /// Namespaces that were looked for in vain as the hook saw them.
    sought: HashSet<u32>,
    /// When they may be looked for again.
    seek_at: MonotonicNs,
    /// Whether one was no longer where it was seen: it has gone, or only a process of it.
    has_gone: bool,
    /// The most that could not be opened at one look.
    unopened: u64,
    /// Whether the identities of sockets' cgroups are of the hierarchy that has names.
    names_cgroups: bool,
    openings: Openings,
    /// Sockets are counted anew after this time, in ns.
    recount_after: u64,
    recount_at: MonotonicNs,
    /// The kernel does not list sockets.
    is_uncountable: bool,
    /// Namespaces in which something waited at a listener.
    queues: HashSet<u32>,
    /// When the counters of quiet namespaces are to be read again.
    quiet_at: MonotonicNs,
    /// When SYN queues may be looked at again.
    queues_at: MonotonicNs,
    /// When those in CLOSE_WAIT may be looked at again.
    waiting_at: MonotonicNs,
    /// Listeners of the last reading that are none any more.
    deaf: Vec<u64>,
    left_over: LeftOver,
}

/// The counters of a namespace, as of when something last happened there.
struct Known {
    moves: Moves,
    counters: NetCounters,
    counted: MonotonicNs,
    settings: SynSettings,
}

impl Sockets {
    pub(super) fn new(
        cgroups: CgroupVersion,
        recount_after: u64,
        launcher: Option<Launcher>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            namespaces: Namespaces::find().context("cannot find the network namespaces")?,
            latest: HashMap::new(),
            readings: 0,
            sought: HashSet::new(),
            seek_at: MonotonicNs::default(),
            has_gone: false,
            unopened: 0,
            names_cgroups: cgroups == CgroupVersion::V2,
            openings: Openings::new(launcher),
            recount_after,
            recount_at: clock::monotonic() + recount_after,
            is_uncountable: false,
            queues: HashSet::new(),
            quiet_at: MonotonicNs::default(),
            queues_at: MonotonicNs::default(),
            waiting_at: MonotonicNs::default(),
            deaf: Vec::new(),
            left_over: LeftOver::default(),
        })
    }

    /// Counts the sockets from before the start, in every namespace.
    ///
    /// # Errors
    /// The kernel does not list them. The hook is told that it is over all the same.
    pub(super) fn seed(&mut self, reader: &mut Reader) -> anyhow::Result<Seeds> {
        let (seeds, listed) = self.count(reader, Seeds::default())?;
        self.is_uncountable = listed.is_err();
        listed.map(|is_whole| {
            if !is_whole {
                self.recount_at = clock::monotonic();
            }
            seeds
        })
    }

    /// Counts them anew, when it is time. Where that fails, or too much happens meanwhile,
    /// it is tried again later, and what is known stays.
    ///
    /// # Errors
    /// The kernel refuses to read its maps.
    pub(super) fn recount(&mut self, reader: &mut Reader) -> anyhow::Result<Option<Seeds>> {
        if self.is_uncountable || clock::monotonic() < self.recount_at {
            return Ok(None);
        }
        reader.begin_seeding()?;
        let mut before = reader.moves()?;
        let mut uncertain = u64::MAX;
        for _ in 0..TRIES {
            // What was counted before is no longer to be told.
            reader.seeds();
            let after = reader.moves()?;
            uncertain = transitions_between(&before, &after);
            before = after;
            if uncertain == 0 {
                break;
            }
        }
        let begin = Seeds {
            before: before.iter().map(tcp::population).collect(),
            uncertain,
            ..Seeds::default()
        };
        let (seeds, listed) = self.count(reader, begin)?;
        Ok(listed.is_ok_and(|is_whole| is_whole).then_some(seeds))
    }

    /// The sockets, and whether the kernel has listed them; if so, whether all transitions
    /// since the beginning are known. Without one of them, a socket would be counted as it
    /// was not.
    fn count(
        &mut self,
        reader: &mut Reader,
        begin: Seeds,
    ) -> anyhow::Result<(Seeds, anyhow::Result<bool>)> {
        let effort = Effort::begin();
        let lost_before = reader.lost(lost::SEED_RING)?;
        let mut seeds = begin;
        let listed = self.list_all(&mut seeds);
        reader.end_seeding()?;
        let mut is_whole = false;
        for _ in 0..LAST_READS {
            let more = tcp::seeds(&reader.seeds()).readings;
            seeds.transitions.extend(more);
            is_whole = reader.has_all_seeds()?;
            if is_whole {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        is_whole &= reader.lost(lost::SEED_RING)? == lost_before;
        self.recount_at = clock::monotonic() + effort.pause(self.recount_after);
        Ok((seeds, listed.map(|()| is_whole)))
    }

    /// Every socket that there is.
    fn list_all(&self, seeds: &mut Seeds) -> anyhow::Result<()> {
        for namespace in self.namespaces.all() {
            let inode = namespace.inode;
            let known = seeds.sockets.len();
            let known_closing = seeds.closing.len();
            let (sockets, closing) = (&mut seeds.sockets, &mut seeds.closing);
            let listed = list(namespace, |socket| {
                sockets.push((inode, socket.cookie, socket.state.into()));
                if CLOSING_STATES.contains(&socket.state.into()) {
                    closing.push(closing_reading(inode, &socket));
                }
            });
            match listed {
                Ok(()) => seeds.namespaces.push(inode),
                Err(error) if namespace.is_own => return Err(error),
                // It has gone meanwhile, or cannot be opened: what is known stays.
                Err(_) => {
                    seeds.sockets.truncate(known);
                    seeds.closing.truncate(known_closing);
                }
            }
        }
        Ok(())
    }

    /// What the next reading is to look at.
    pub(super) fn next_look(&self, wants_holders: bool) -> SocketLook {
        if clock::monotonic() < self.waiting_at {
            SocketLook::Counts
        } else if wants_holders {
            SocketLook::Holders
        } else {
            SocketLook::Waiting
        }
    }

    /// One reading, and how many bytes of it were none.
    ///
    /// # Errors
    /// The processes cannot be listed.
    pub(super) fn reading(
        &mut self,
        mut raw: RawSockets,
        seeds: Option<Seeds>,
    ) -> anyhow::Result<(TcpReading, usize)> {
        self.look(&raw.moves)?;
        // Both can be large: the bytes go at once.
        let waiting = raw.waiting.take().map(|raw| tcp::waiting(&raw));
        let holders = raw.holders.take().map(|raw| tcp::holders(&raw));
        let openings = opening::decode(&raw.openings);
        let listeners = syn::listeners(&raw.listeners);
        let (listening, gone): (Vec<_>, Vec<_>) =
            listeners.readings.into_iter().partition(Result::is_ok);
        let listening: Vec<_> = listening.into_iter().flatten().collect();
        self.deaf = gone.into_iter().filter_map(Result::err).collect();
        let undecodable = listeners.undecodable
            + waiting.as_ref().map_or(0, |w| w.undecodable)
            + holders.as_ref().map_or(0, |h| h.undecodable)
            + openings.undecodable;
        let openings = self.openings.name(openings.readings);
        let waiting = waiting.map(|waiting| self.waiting(waiting.readings));
        let sources = self.sources(raw.cookies.as_ref(), &listening);
        let cookies = raw
            .cookies
            .map(|raw| cookie::cookies(&raw.totals, &raw.kinds));
        // Listeners that came and went between two readings.
        for socket in cookies.iter().flat_map(HashMap::keys) {
            if !listening.iter().any(|listener| listener.socket == *socket) {
                self.deaf.push(*socket);
            }
        }
        let mut namespaces = self.counters(&raw.moves, &listening);
        self.left_over.tell_apart(&self.namespaces, &mut namespaces);
        let reading = TcpReading {
            matrix: raw.matrix,
            seeds,
            actors: raw.actors.iter().map(|(k, v)| tcp::actor(*k, v)).collect(),
            ports: raw.ports.iter().map(|(k, v)| tcp::port(*k, v)).collect(),
            dropped: raw.dropped,
            waiting,
            holders: holders.map(|holders| holders.readings),
            namespaces,
            listening,
            cookies,
            sources,
            openings,
            resets: raw.resets,
            stack_losses: self.openings.lost,
            populations: raw.moves.iter().map(tcp::population).collect(),
            missed: raw.missed,
            unopened: self.unopened,
        };
        Ok((reading, undecodable))
    }

    /// Those in CLOSE_WAIT; says when the next look at them is due.
    fn waiting(&mut self, readings: Vec<Option<WaitingReading>>) -> Vec<WaitingReading> {
        // In the same memory, which `flatten` would not do.
        #[expect(clippy::filter_map_identity, reason = "see above")]
        let mut waiting: Vec<_> = readings.into_iter().filter_map(|one| one).collect();
        if !self.names_cgroups {
            waiting.iter_mut().for_each(|socket| socket.cgroup = 0);
        }
        self.waiting_at = clock::monotonic() + waiting.len() as u64 * REST_A_SOCKET;
        waiting
    }

    /// Whom handshakes come from: by cookies that were sent, else by what is in the SYN
    /// queue of listeners that are nearly full, which is looked at now and then.
    fn sources(
        &mut self,
        cookies: Option<&RawCookies>,
        listening: &[ListenerReading],
    ) -> HashMap<u64, Vec<IpAddr>> {
        let mut sources = cookies.map_or_else(HashMap::new, |raw| cookie::sources(&raw.sources));
        let now = clock::monotonic();
        if now < self.queues_at {
            return sources;
        }
        let effort = Effort::begin();
        let is_full = |l: &&ListenerReading| l.syn_queue > l.backlog / 4 * 3 && l.syn_queue > 0;
        let unknown = listening.iter().filter(is_full);
        let unknown = unknown.filter(|listener| !sources.contains_key(&listener.socket));
        let places: HashMap<(u32, u16), u64> = unknown
            .map(|listener| ((listener.netns, listener.local.port()), listener.socket))
            .collect();
        let namespaces: HashSet<u32> = places.keys().map(|(netns, _)| *netns).collect();
        for netns in &namespaces {
            let Some(namespace) = self.namespaces.get(*netns) else {
                continue;
            };
            let mut queued = Vec::new();
            // One that goes away meanwhile has none.
            let listed = requests(namespace, |local, remote| {
                if let Some(socket) = places.get(&(*netns, local)) {
                    queued.push((*socket, remote));
                }
            });
            if listed.is_ok() {
                for (socket, remote) in queued {
                    sources.entry(socket).or_default().push(remote);
                }
            }
        }
        if !namespaces.is_empty() {
            self.queues_at = now + effort.pause(QUEUES_AFTER);
        }
        sources
    }

    /// Listeners that the kernel side may forget.
    pub(super) fn take_deaf(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.deaf)
    }

    fn look(&mut self, moves: &[(u32, Moves)]) -> anyhow::Result<()> {
        self.readings += 1;
        let mut ask = None;
        if self.readings >= READINGS_A_LOOK {
            ask = Some(Ask::ByTurns);
        }
        let now = clock::monotonic();
        if now >= self.seek_at {
            // With sockets, it may be another one: numbers of those that are gone come again.
            let with_sockets = moves.iter().filter(|moves| has_sockets(moves));
            for (inode, _) in with_sockets {
                self.sought.remove(inode);
            }
            if self.has_gone {
                ask = Some(Ask::All);
            }
        }
        for &(inode, _) in moves {
            if self.namespaces.get(inode).is_none() && self.sought.insert(inode) {
                ask = Some(Ask::All);
            }
        }
        if let Some(ask) = ask {
            let effort = Effort::begin();
            self.readings = 0;
            self.has_gone = false;
            let changes = self.namespaces.refresh(ask);
            for gone in changes.context("cannot look for network namespaces")?.gone {
                self.latest.remove(&gone.inode);
                self.sought.remove(&gone.inode);
            }
            self.seek_at = clock::monotonic() + effort.pause(0);
        }
        self.unopened = self.unopened.max(self.namespaces.unopened());
        Ok(())
    }

    /// The counters of each namespace: read again where something happened, and now and
    /// then all of them: of a SYN that nobody waits for there is no transition.
    fn counters(
        &mut self,
        moves: &[(u32, Moves)],
        listening: &[ListenerReading],
    ) -> Vec<NamespaceReading> {
        // Of handshakes that come to nothing there is no transition.
        let has_queue = |l: &&ListenerReading| l.syn_queue > 0 || l.accept_queue > 0;
        let now = listening
            .iter()
            .filter(has_queue)
            .map(|l| l.netns)
            .collect();
        // What came until a queue was empty is read once more.
        let queues: HashSet<u32> = std::mem::replace(&mut self.queues, now);
        let queues: HashSet<u32> = queues.union(&self.queues).copied().collect();
        let settings_are_old = self.readings == 0;
        let moves: HashMap<u32, &Moves> = moves.iter().map(|(inode, m)| (*inode, m)).collect();
        let nothing = [0; 2 * STATES];
        let mut readings = Vec::new();
        let effort = Effort::begin();
        let all_are_read = clock::monotonic() >= self.quiet_at;
        for namespace in self.namespaces.all() {
            let inode = namespace.inode;
            let moves = **moves.get(&inode).unwrap_or(&&nothing);
            let known = self.latest.get(&inode);
            let is_quiet = |known: &&Known| {
                !all_are_read
                    && known.moves == moves
                    && known.counters.time_wait_now == 0
                    && !namespace.is_own
                    && !queues.contains(&inode)
                    && !known.settings.always_sends()
            };
            let (counters, counted) = match known.filter(is_quiet) {
                Some(known) => (known.counters, known.counted),
                None => match netstat::read(namespace) {
                    Ok(counters) => (counters, clock::monotonic()),
                    // What it had stays as it was until the next look.
                    Err(_) => {
                        self.has_gone = true;
                        match known {
                            Some(known) => (known.counters, known.counted),
                            None => continue,
                        }
                    }
                },
            };
            let settings = known.filter(|_| !settings_are_old);
            let settings = match settings {
                Some(known) => known.settings,
                // One that goes away meanwhile has none.
                None => {
                    sysctls::read(namespace).map_or_else(|_| SynSettings::default(), syn_settings)
                }
            };
            self.latest.insert(
                inode,
                Known {
                    moves,
                    counters,
                    counted,
                    settings,
                },
            );
            readings.push(NamespaceReading {
                netns: Netns {
                    inode,
                    name: namespace.name.clone(),
                    is_own: namespace.is_own,
                },
                counted,
                counters: tcp_counters(&counters),
                syn: syn_counters(inode, settings, &counters),
                time_wait: counters.time_wait_now,
                fin_wait2: 0,
            });
        }
        if all_are_read {
            self.quiet_at = clock::monotonic() + effort.pause(QUIET_AFTER);
        }
        readings
    }
}

/// Requests of a namespace: local port, and the peer's address.
fn requests(
    namespace: &Namespace,
    mut on_request: impl FnMut(u16, IpAddr) + Send,
) -> anyhow::Result<()> {
    within(namespace, move || -> anyhow::Result<()> {
        SockDiag::open()?.dump(States(1 << SYN_RECV | 1 << NEW_SYN_RECV), |socket| {
            if socket.is_request {
                let remote = socket.remote.ip().to_canonical();
                on_request(socket.local.port(), remote);
            }
        })?;
        Ok(())
    })?
}

/// Every TCP socket of a namespace but requests and those in TIME_WAIT.
fn list(
    namespace: &Namespace,
    mut on_socket: impl FnMut(SocketEntry) + Send,
) -> anyhow::Result<()> {
    let states = States(States::ALL.0 & !(1 << TIME_WAIT | 1 << NEW_SYN_RECV | 1 << CLOSE));
    within(namespace, move || -> anyhow::Result<()> {
        SockDiag::open()?.dump(states, |socket| {
            if !is_left_over(&socket) && !socket.is_request {
                on_socket(socket);
            }
        })?;
        Ok(())
    })?
}

fn closing_reading(netns: u32, socket: &SocketEntry) -> ClosingReading {
    let kind = match socket.timer {
        TIMER_RETRANSMIT => TimerKind::Retransmit,
        TIMER_KEEPALIVE => TimerKind::Keepalive,
        TIMER_WINDOW_PROBE => TimerKind::WindowProbe,
        _ => TimerKind::Off,
    };
    let count = u32::from(socket.retransmits);
    let is_retransmit = kind == TimerKind::Retransmit;
    ClosingReading {
        netns,
        cookie: socket.cookie,
        state: TcpState(socket.state),
        local: socket.local,
        remote: socket.remote,
        timer: Timer {
            kind,
            due_ns: u64::from(socket.expires_ms) * 1_000_000,
            retransmits: if is_retransmit { count } else { 0 },
            probes: if is_retransmit { 0 } else { count },
        },
    }
}

/// Whether a namespace has any by its moves. None is left open that is closed.
fn has_sockets(moves: &(u32, Moves)) -> bool {
    let (_, population) = tcp::population(moves);
    let states = population.iter().zip(0..);
    states
        .filter(|(_, state)| *state != CLOSE)
        .any(|(count, _)| *count > 0)
}

/// How many transitions made these moves into these.
fn transitions_between(before: &[(u32, Moves)], after: &[(u32, Moves)]) -> u64 {
    let before: HashMap<u32, &Moves> = before.iter().map(|(inode, m)| (*inode, m)).collect();
    let of = |(inode, after): &(u32, Moves)| -> u64 {
        let nothing = [0; 2 * STATES];
        let before = before.get(inode).copied().unwrap_or(&nothing);
        let came = after.iter().zip(before).take(STATES);
        came.map(|(after, before)| u64::from(after.wrapping_sub(*before)))
            .sum()
    };
    after.iter().map(of).sum()
}

fn syn_settings(settings: TcpSysctls) -> SynSettings {
    SynSettings {
        syncookies: settings.syncookies,
        max_syn_backlog: settings.max_syn_backlog,
        somaxconn: settings.somaxconn,
    }
}

fn syn_counters(netns: u32, settings: SynSettings, counters: &NetCounters) -> SynCounters {
    SynCounters {
        netns,
        settings,
        cookies: Cookies {
            sent: counters.cookies_sent,
            valid: counters.cookies_valid,
            failed: counters.cookies_failed,
        },
        syn_queue_full_drops: counters.syn_queue_full_drops,
        accept_queue_full: counters.listen_overflows,
        drops: counters.listen_drops,
    }
}

/// `TCP_NEW_SYN_RECV`, include/net/tcp_states.h.
const NEW_SYN_RECV: u32 = 12;

fn tcp_counters(counters: &NetCounters) -> TcpCounters {
    TcpCounters {
        handshakes_failed: counters.attempt_fails,
        resets_sent: counters.resets_sent,
        connections_reset: counters.established_resets,
        retransmitted: counters.retransmitted_segments,
        handshakes_retransmitted: counters.syn_retransmits,
        timed_out: counters.aborts_on_timeout,
        closed_unread: counters.aborts_on_data + counters.aborts_on_close,
        accept_queue_full: counters.listen_overflows,
    }
}
