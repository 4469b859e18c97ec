//! Storms of resets, and peers that do not answer any more.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use super::NamespaceReading;
use crate::{
    clock::{MonotonicNs, WallNs},
    snapshot::{DeadPeer, Netns, ResetStorm, TcpCounters, TcpState, Timer},
};

const SECOND: u64 = 1_000_000_000;
/// Rates are over this time at least, in ns.
const WINDOW_NS: u64 = SECOND;
/// So many resets a second begin a storm, and so few may end it.
const STORM_PER_S: f64 = 100.0;
const CALM_PER_S: f64 = 20.0;
/// It ends when it is calm for so long, in ns.
const CALM_NS: u64 = 10 * SECOND;
/// In FIN_WAIT2 the peer has acknowledged, and may still have much to send, in ns.
const CLOSES_NS: u64 = 60 * SECOND;

/// A connection that was closed here, when all sockets were counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosingReading {
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Which one it is.
    pub cookie: u64,
    /// FIN_WAIT1, FIN_WAIT2, CLOSING or LAST_ACK.
    pub state: TcpState,
    /// Local address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Its timer.
    pub timer: Timer,
}

/// What is to be told.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    storms: HashMap<u32, Storm>,
    closing: HashMap<u64, Closing>,
    counted: MonotonicNs,
}

/// Resets of a namespace.
#[derive(Debug)]
struct Storm {
    netns: Netns,
    from: (MonotonicNs, TcpCounters),
    /// Each second: sent, and connections ended.
    rates: [f64; 2],
    /// When it was last above what is calm, in a storm.
    rough: Option<MonotonicNs>,
    was_told: bool,
}

#[derive(Debug)]
struct Closing {
    reading: ClosingReading,
    since: MonotonicNs,
    was_told: bool,
}

impl Alarms {
    pub(super) fn observe(
        &mut self,
        now: MonotonicNs,
        namespaces: &[NamespaceReading],
        closing: Option<&[ClosingReading]>,
    ) {
        for namespace in namespaces {
            let storm = self.storms.entry(namespace.netns.inode);
            let storm = storm.or_insert_with(|| Storm {
                netns: namespace.netns.clone(),
                from: (namespace.counted, namespace.counters),
                rates: [0.0; 2],
                rough: None,
                was_told: false,
            });
            storm.observe(namespace);
        }
        self.storms
            .retain(|inode, _| namespaces.iter().any(|n| n.netns.inode == *inode));
        if let Some(closing) = closing {
            self.counted = now;
            let mut before = std::mem::take(&mut self.closing);
            for reading in closing {
                let known = before.remove(&reading.cookie);
                let known = known.filter(|known| known.reading.state == reading.state);
                let closing = Closing {
                    reading: reading.clone(),
                    since: known.as_ref().map_or(now, |known| known.since),
                    was_told: known.is_some_and(|known| known.was_told),
                };
                self.closing.insert(reading.cookie, closing);
            }
        }
    }

    /// Storms that have begun.
    pub(super) fn storms(&mut self, time: WallNs) -> Vec<ResetStorm> {
        let new = self.storms.values_mut();
        let new = new.filter(|storm| storm.rough.is_some() && !storm.was_told);
        new.map(|storm| {
            storm.was_told = true;
            ResetStorm {
                time,
                netns: storm.netns.clone(),
                sent_per_s: storm.rates[0],
                connections_per_s: storm.rates[1],
            }
        })
        .collect()
    }

    /// Peers with connections that are newly found stuck, the most first.
    pub(super) fn dead_peers(
        &mut self,
        time: WallNs,
        dead_peer_ns: u64,
        netns: impl Fn(u32) -> Netns,
    ) -> Vec<DeadPeer> {
        let counted = self.counted;
        let mut peers: HashMap<(u32, IpAddr), Vec<&mut Closing>> = HashMap::new();
        for closing in self.closing.values_mut() {
            if closing.is_stuck(counted, dead_peer_ns) {
                let reading = &closing.reading;
                let peer = (reading.netns, reading.remote.ip().to_canonical());
                peers.entry(peer).or_default().push(closing);
            }
        }
        let mut events: Vec<DeadPeer> = peers
            .into_iter()
            .filter(|(_, stuck)| stuck.iter().any(|closing| !closing.was_told))
            .filter_map(|((inode, peer), mut stuck)| {
                stuck.iter_mut().for_each(|closing| closing.was_told = true);
                let oldest = stuck
                    .iter()
                    .min_by_key(|closing| (closing.since, closing.reading.cookie))?;
                Some(DeadPeer {
                    time,
                    netns: netns(inode),
                    peer,
                    sockets: stuck.len() as u64,
                    state: oldest.reading.state,
                    age_ns: counted.since_ns(oldest.since),
                    local: oldest.reading.local,
                    remote: oldest.reading.remote,
                    timer: oldest.reading.timer,
                })
            })
            .collect();
        events.sort_by_key(|event| (std::cmp::Reverse(event.sockets), event.peer));
        events
    }
}

impl Storm {
    fn observe(&mut self, reading: &NamespaceReading) {
        // Those of a quiet namespace are not read each time.
        let now = reading.counted;
        let (from, before) = self.from;
        let ns = now.since_ns(from);
        if ns < WINDOW_NS {
            return;
        }
        let counters = reading.counters;
        let rate =
            |now: u64, before: u64| now.saturating_sub(before) as f64 * SECOND as f64 / ns as f64;
        self.rates = [
            rate(counters.resets_sent, before.resets_sent),
            rate(counters.connections_reset, before.connections_reset),
        ];
        self.from = (now, counters);
        let most = self.rates.into_iter().fold(0.0, f64::max);
        match self.rough {
            None if most >= STORM_PER_S => self.rough = Some(now),
            Some(_) if most > CALM_PER_S => self.rough = Some(now),
            Some(last) if now.since_ns(last) >= CALM_NS => {
                (self.rough, self.was_told) = (None, false);
            }
            _ => {}
        }
    }
}

impl Closing {
    /// In the other states than FIN_WAIT2 what was sent is not acknowledged yet: a peer that
    /// takes longer than `dead_peer_ns`, and for which it had to be sent again, does not answer.
    fn is_stuck(&self, now: MonotonicNs, dead_peer_ns: u64) -> bool {
        let age = now.since_ns(self.since);
        if self.reading.state == TcpState::FIN_WAIT2 {
            return age >= CLOSES_NS;
        }
        // One that only reads slowly acknowledges: that sets the count back
        // (`tcp_clean_rtx_queue`, net/ipv4/tcp_input.c).
        age >= dead_peer_ns && self.reading.timer.retransmits > 0
    }
}
