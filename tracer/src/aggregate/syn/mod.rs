//! Listeners: (state, reading) -> state -> model.
//!
//! The queues are a listener's own, and so are cookies where functions can be hooked.
//! Elsewhere they are counted by network namespace: they are put on a listener where no
//! other one of its namespace can have had them.

mod cookies;
mod sources;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use self::{
    cookies::Tally,
    verdict::{Seen, judge},
};
use crate::{
    aggregate::tcp::TcpReading,
    clock::{MonotonicNs, WallNs},
    decode::{syn::ListenerReading, tcp::PortReading},
    snapshot::{
        Cookies, Listener, NamespaceSyn, Netns, Side, SynBreakdown, SynEvent, SynSettings,
        SynSources, SynVerdict,
    },
    text::Text,
};

const SECOND: u64 = 1_000_000_000;
/// The last seconds, in ns.
const WINDOW_NS: u64 = 3 * SECOND;
/// A cookie that was answered has come back by then.
const ANSWERED_NS: u64 = SECOND;
/// So many listeners are in a list.
const LISTED: usize = 50;
/// A burst fills the accept queue too, but not for as long as this.
const SLOW_NS: u64 = SECOND / 2;
/// A listener can have cookies when its SYN queue is as full as this: it is looked at
/// once a reading only.
const NEARLY_FULL: f64 = 0.75;

/// The listener that a namespace's cookies are of, by the namespace.
type Owners = HashMap<u32, Option<u64>>;

/// Who can be that.
#[derive(Clone, Copy, Debug, Default)]
enum Candidate {
    #[default]
    None,
    One(u64),
    Several,
}

impl Candidate {
    fn add(&mut self, socket: u64) {
        *self = match self {
            Self::None => Self::One(socket),
            _ => Self::Several,
        };
    }
}

/// A namespace's counters since it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SynCounters {
    /// Inode number of the namespace.
    pub netns: u32,
    /// Its settings.
    pub settings: SynSettings,
    /// Cookies.
    pub cookies: Cookies,
    /// `TCPReqQFullDrop`.
    pub syn_queue_full_drops: u64,
    /// `ListenOverflows`.
    pub accept_queue_full: u64,
    /// `ListenDrops`.
    pub drops: u64,
}

/// Who listens, and what namespaces are called.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) process: &'a dyn Fn(&ListenerReading) -> (u32, Text),
    pub(super) netns: &'a dyn Fn(u32) -> Netns,
}

/// All that is known of listeners.
#[derive(Debug, Default)]
pub(super) struct SynAggregate {
    known: HashMap<u64, Known>,
    namespaces: HashMap<u32, Namespace>,
    events: Vec<(u64, SynVerdict, Option<u64>)>,
    /// Whether there was a reading.
    has_begun: bool,
}

/// A listener.
#[derive(Debug)]
struct Known {
    reading: ListenerReading,
    /// Drops at the start, and at the last snapshot.
    drops: [u32; 2],
    /// Its drops and cookies of the last seconds, the oldest first; one from before them too.
    window: VecDeque<(MonotonicNs, (u32, Cookies))>,
    /// When its SYN queue was last nearly full.
    was_full: Option<MonotonicNs>,
    /// Since when its accept queue is full at every look.
    accept_full: Option<MonotonicNs>,
    verdict: SynVerdict,
    why: String,
    /// Since when there is trouble.
    since: MonotonicNs,
    /// Cookies that are its own, and what came of them, since it is known.
    cookies: Tally,
    /// The same at the start, and at the last snapshot.
    marks: [Tally; 2],
    /// Whether all cookies since then could be put somewhere.
    are_known: [bool; 2],
    sources: Option<SynSources>,
}

#[derive(Debug, Default)]
struct Namespace {
    now: SynCounters,
    first: SynCounters,
    before: SynCounters,
    /// Readings of the last seconds, the oldest first; one from before them too.
    window: VecDeque<(MonotonicNs, SynCounters)>,
}

impl SynAggregate {
    pub(super) fn observe(&mut self, now: MonotonicNs, reading: &TcpReading) {
        let mut new_cookies = HashMap::new();
        let counters = || reading.namespaces.iter().map(|namespace| &namespace.syn);
        for counters in counters() {
            let namespace = self.namespaces.entry(counters.netns);
            let namespace = namespace.or_insert_with(|| Namespace::new(counters));
            let new = cookies_since(counters.cookies, namespace.now.cookies);
            new_cookies.insert(counters.netns, new);
            namespace.observe(now, counters);
        }
        self.namespaces
            .retain(|netns, _| counters().any(|counters| counters.netns == *netns));
        let mut before = std::mem::take(&mut self.known);
        // What is full as tracer begins has been for a while.
        let begin = if self.has_begun {
            now
        } else {
            MonotonicNs::default()
        };
        self.has_begun = true;
        for listener in &reading.listening {
            let known = before.remove(&listener.socket);
            let known = known.filter(|known| known.is(listener));
            let mut known = known.unwrap_or_else(|| Known::new(listener, now));
            known.reading = listener.clone();
            if f64::from(listener.syn_queue) >= NEARLY_FULL * f64::from(listener.backlog.max(1)) {
                known.was_full = Some(now);
            }
            let is_full = listener.accept_queue >= listener.backlog.max(1);
            known.accept_full = known.accept_full.or(Some(begin)).filter(|_| is_full);
            self.known.insert(listener.socket, known);
        }
        let owners = self.owners(now);
        match &reading.cookies {
            Some(hooked) => {
                for (socket, known) in &mut self.known {
                    if let Some(hooked) = hooked.get(socket) {
                        known.cookies = Tally::hooked(hooked);
                    }
                }
            }
            None => self.put_cookies(&owners, &new_cookies, reading),
        }
        for (socket, known) in &mut self.known {
            let (drops, cookies) = (known.reading.drops, known.cookies.cookies);
            keep(&mut known.window, now, (drops, cookies));
            if let Some(addresses) = reading.sources.get(socket) {
                let hooked = reading.cookies.as_ref().and_then(|all| all.get(socket));
                known.sources = Some(sources::model(addresses, hooked));
            }
        }
        self.judge(&owners, now, reading.cookies.is_some());
    }

    /// Puts new cookies on the one listener that can have had them.
    fn put_cookies(&mut self, owners: &Owners, new: &HashMap<u32, Cookies>, reading: &TcpReading) {
        for (socket, known) in &mut self.known {
            let netns = known.reading.netns;
            let port = known.reading.local.port();
            let is_it =
                |p: &&PortReading| (p.netns, p.side, p.port) == (netns, Side::Accepted, port);
            let port = reading.ports.iter().find(is_it);
            known
                .cookies
                .see_unmeasured(port.map_or(0, |port| port.unmeasured));
            let Some(new) = new.get(&netns).filter(|new| **new != Cookies::default()) else {
                continue;
            };
            match owners.get(&netns).copied().flatten() {
                Some(owner) if owner == *socket => known.cookies.add(*new),
                Some(_) => {}
                None => known.are_known = [false; 2],
            }
        }
    }

    /// The one listener of each namespace that its cookies are of; `None` where it can be
    /// any of several.
    fn owners(&self, now: MonotonicNs) -> Owners {
        let mut candidates: HashMap<u32, [Candidate; 2]> = HashMap::new();
        for (socket, known) in &self.known {
            let netns = known.reading.netns;
            let namespace = self.namespaces.get(&netns);
            let always = namespace.is_some_and(|n| n.now.settings.always_sends());
            let [full, any] = candidates.entry(netns).or_default();
            if always || known.was_full_lately(now) {
                full.add(*socket);
            }
            any.add(*socket);
        }
        let owner = |candidates: [Candidate; 2]| match candidates {
            [Candidate::One(socket), _] | [Candidate::None, Candidate::One(socket)] => Some(socket),
            _ => None,
        };
        candidates
            .into_iter()
            .map(|(netns, candidates)| (netns, owner(candidates)))
            .collect()
    }

    fn judge(&mut self, owners: &Owners, now: MonotonicNs, is_hooked: bool) {
        let mut dropped_in: HashMap<u32, u64> = HashMap::new();
        for known in self.known.values() {
            *dropped_in.entry(known.reading.netns).or_default() += known.dropped();
        }
        for (socket, known) in &mut self.known {
            let reading = known.reading.clone();
            let Some(namespace) = self.namespaces.get(&reading.netns) else {
                continue;
            };
            let is_owner = owners.get(&reading.netns).copied().flatten() == Some(*socket);
            // Where several are full, what is counted can be any one's.
            let can_be = is_owner || known.was_full_lately(now);
            let (cookies, sent) = match is_hooked {
                true => (Some(known.answered(now)), known.sent_lately()),
                false if can_be => (Some(namespace.answered(now)), namespace.sent_lately()),
                false => (None, 0),
            };
            let dropped_full = if can_be { namespace.dropped_full() } else { 0 };
            let (dropped, refused) = (known.dropped(), namespace.refused());
            let of_all = dropped_in.get(&reading.netns).copied().unwrap_or_default();
            // What the others dropped can all have been refused.
            let by_others = of_all.saturating_sub(dropped);
            let seen = Seen {
                syn_queue: reading.syn_queue,
                young: reading.young,
                accept_queue: reading.accept_queue,
                backlog: reading.backlog,
                settings: namespace.now.settings,
                cookies,
                turned_away: sent + dropped_full,
                dropped,
                refused,
                overflowed: refused.saturating_sub(by_others).min(dropped),
            };
            let (verdict, mut why) = judge(&seen);
            if verdict == SynVerdict::SlowAccept && !known.is_slow(now) {
                // It can be a burst: what it was, it stays.
                if known.verdict == SynVerdict::NotJudged {
                    known.verdict = SynVerdict::Healthy;
                }
                continue;
            }
            if seen.turned_away > 0 && !is_owner && !(is_hooked && dropped_full == 0) {
                why.push_str(", counted for all listeners of the namespace");
            }
            if verdict != known.verdict {
                if known.verdict.is_trouble() {
                    let lasted = now.since_ns(known.since);
                    self.events.push((*socket, known.verdict, Some(lasted)));
                }
                if verdict.is_trouble() {
                    self.events.push((*socket, verdict, None));
                }
                known.since = now;
            }
            (known.verdict, known.why) = (verdict, why);
        }
    }

    /// What has begun or is over since this was asked last.
    pub(super) fn take_events(&mut self, time: WallNs, view: View<'_>) -> Vec<SynEvent> {
        let events = std::mem::take(&mut self.events);
        let event = |(socket, verdict, lasted_ns)| {
            Some(SynEvent {
                time,
                verdict,
                lasted_ns,
                listener: self.known.get(&socket)?.model(0, view),
            })
        };
        events.into_iter().filter_map(event).collect()
    }

    /// Ends the interval.
    pub(super) fn snapshot(&mut self, view: View<'_>) -> SynBreakdown {
        let breakdown = self.breakdown(1, view);
        for known in self.known.values_mut() {
            known.drops[1] = known.reading.drops;
            known.marks[1] = known.cookies.clone();
            known.are_known[1] = true;
        }
        for namespace in self.namespaces.values_mut() {
            namespace.before = namespace.now.clone();
        }
        breakdown
    }

    /// Since the start.
    pub(super) fn summary(&self, view: View<'_>) -> SynBreakdown {
        self.breakdown(0, view)
    }

    fn breakdown(&self, span: usize, view: View<'_>) -> SynBreakdown {
        let mut listeners: Vec<_> = self.known.values().map(|k| k.model(span, view)).collect();
        listeners.sort_by(|a, b| {
            let key = |l: &Listener| (l.verdict, l.syn_queue.max(l.accept_queue));
            key(b).cmp(&key(a)).then(a.local.cmp(&b.local))
        });
        let listeners_total = listeners.len() as u64;
        listeners.truncate(LISTED);
        let has_listener = |netns: u32| self.known.values().any(|k| k.reading.netns == netns);
        let mut namespaces: Vec<_> = self
            .namespaces
            .iter()
            .filter(|(netns, _)| has_listener(**netns))
            .map(|(netns, namespace)| namespace.model(span, (view.netns)(*netns)))
            .collect();
        namespaces.sort_by_key(|n| (!n.netns.is_own, n.netns.inode));
        SynBreakdown {
            listeners,
            listeners_total,
            namespaces,
        }
    }
}

impl Known {
    fn new(reading: &ListenerReading, now: MonotonicNs) -> Self {
        Self {
            reading: reading.clone(),
            drops: [reading.drops; 2],
            window: VecDeque::new(),
            was_full: None,
            accept_full: None,
            verdict: SynVerdict::NotJudged,
            why: String::new(),
            since: now,
            cookies: Tally::default(),
            marks: [Tally::default(), Tally::default()],
            are_known: [true; 2],
            sources: None,
        }
    }

    /// In the last seconds.
    fn dropped(&self) -> u64 {
        let oldest = self.window.front();
        let oldest = oldest.map_or(self.reading.drops, |(_, (drops, _))| *drops);
        drops_since(self.reading.drops, oldest)
    }

    /// See [`answered`].
    fn answered(&self, now: MonotonicNs) -> Cookies {
        let window = self.window.iter();
        answered(now, window.map(|(at, (_, cookies))| (*at, *cookies)))
    }

    fn sent_lately(&self) -> u64 {
        let oldest = self.window.front();
        let oldest = oldest.map_or(0, |(_, (_, cookies))| cookies.sent);
        self.cookies.cookies.sent.saturating_sub(oldest)
    }

    fn was_full_lately(&self, now: MonotonicNs) -> bool {
        let full = self.was_full;
        full.is_some_and(|at| now.since_ns(at) <= WINDOW_NS)
    }

    /// Whether its accept queue has been full for so long that it is no burst.
    fn is_slow(&self, now: MonotonicNs) -> bool {
        let full = self.accept_full;
        full.is_some_and(|since| now.since_ns(since) >= SLOW_NS)
    }

    /// An address can come again, and be another listener's then.
    fn is(&self, reading: &ListenerReading) -> bool {
        (self.reading.netns, self.reading.local) == (reading.netns, reading.local)
    }

    fn model(&self, span: usize, view: View<'_>) -> Listener {
        let reading = &self.reading;
        let is_known = self.are_known.get(span).copied().unwrap_or(false);
        let mark = self.marks.get(span).filter(|_| is_known);
        let drops = self.drops.get(span).copied().unwrap_or(reading.drops);
        Listener {
            process: Some((view.process)(reading)),
            local: reading.local,
            netns: (view.netns)(reading.netns),
            syn_queue: reading.syn_queue,
            young: reading.young,
            accept_queue: reading.accept_queue,
            backlog: reading.backlog,
            cookies: mark.map(|mark| cookies_since(self.cookies.cookies, mark.cookies)),
            by_cookie: mark.map(|mark| self.cookies.since(mark)),
            sources: self
                .sources
                .clone()
                // Where a process does not accept, the latest known can be of long ago.
                .filter(|_| {
                    span == 0 || matches!(self.verdict, SynVerdict::Flood | SynVerdict::Burst)
                }),
            drops: drops_since(reading.drops, drops),
            verdict: self.verdict,
            why: self.why.clone(),
        }
    }
}

impl Namespace {
    /// What was counted before it was first seen is nobody's.
    fn new(counters: &SynCounters) -> Self {
        Self {
            now: counters.clone(),
            first: counters.clone(),
            before: counters.clone(),
            window: VecDeque::new(),
        }
    }

    fn observe(&mut self, now: MonotonicNs, counters: &SynCounters) {
        self.now = counters.clone();
        keep(&mut self.window, now, counters.clone());
    }

    /// As of the begin of the window.
    fn oldest(&self) -> &SynCounters {
        self.window
            .front()
            .map_or(&self.first, |(_, oldest)| oldest)
    }

    /// See [`answered`].
    fn answered(&self, now: MonotonicNs) -> Cookies {
        let window = self.window.iter();
        answered(now, window.map(|(at, counters)| (*at, counters.cookies)))
    }

    fn sent_lately(&self) -> u64 {
        cookies_since(self.now.cookies, self.oldest().cookies).sent
    }

    fn dropped_full(&self) -> u64 {
        let dropped = self.now.syn_queue_full_drops;
        dropped.saturating_sub(self.oldest().syn_queue_full_drops)
    }

    fn refused(&self) -> u64 {
        let before = self.oldest().accept_queue_full;
        self.now.accept_queue_full.saturating_sub(before)
    }

    fn model(&self, span: usize, netns: Netns) -> NamespaceSyn {
        let before = if span == 0 { &self.first } else { &self.before };
        let now = &self.now;
        NamespaceSyn {
            netns,
            settings: now.settings,
            cookies: cookies_since(now.cookies, before.cookies),
            syn_queue_full_drops: now
                .syn_queue_full_drops
                .saturating_sub(before.syn_queue_full_drops),
            accept_queue_full: now
                .accept_queue_full
                .saturating_sub(before.accept_queue_full),
            drops: now.drops.saturating_sub(before.drops),
        }
    }
}

/// Cookies sent in a window that have had their time to come back, and the most of them that
/// can have done so: all that came back in the window, some of them later ones.
fn answered(
    now: MonotonicNs,
    window: impl DoubleEndedIterator<Item = (MonotonicNs, Cookies)> + Clone,
) -> Cookies {
    let (_, oldest) = window.clone().next().unwrap_or_default();
    let latest = window.clone().next_back().unwrap_or_default().1;
    let old = window
        .rev()
        .find(|(at, _)| now.since_ns(*at) >= ANSWERED_NS);
    let sent_by = old.map_or(oldest, |(_, cookies)| cookies);
    let came = cookies_since(latest, oldest);
    let sent = cookies_since(sent_by, oldest).sent;
    Cookies {
        sent,
        valid: came.valid.min(sent),
        failed: came.failed,
    }
}

/// Keeps the last seconds. The oldest stays until the next one is as old as the window.
fn keep<T>(window: &mut VecDeque<(MonotonicNs, T)>, now: MonotonicNs, new: T) {
    window.push_back((now, new));
    let is_old = |(at, _): &(MonotonicNs, T)| now.since_ns(*at) >= WINDOW_NS;
    while window.get(1).is_some_and(is_old) {
        window.pop_front();
    }
}

/// They wrap. Fewer than before are those of another one, at the same place.
fn drops_since(now: u32, before: u32) -> u64 {
    let drops = now.wrapping_sub(before);
    u64::from(if drops > u32::MAX / 2 { 0 } else { drops })
}

fn cookies_since(now: Cookies, before: Cookies) -> Cookies {
    Cookies {
        sent: now.sent.saturating_sub(before.sent),
        valid: now.valid.saturating_sub(before.valid),
        failed: now.failed.saturating_sub(before.failed),
    }
}
