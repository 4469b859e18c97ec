//! Who listens on which port: known from the walks over all descriptors.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use tracer_common::syn::LISTENERS;

use crate::{
    clock::MonotonicNs,
    decode::{
        syn::ListenerReading,
        tcp::{HolderReading, PortReading},
    },
    snapshot::Side,
    text::Text,
};

/// For a listener that is not known another walk is made after this time, in ns.
const LOOK_UP_NS: u64 = 10_000_000_000;

/// Network namespace and port.
type Place = (u32, u16);
/// A place, and the socket that listens there; 0 where only connections are seen.
type Sought = (Place, u64);

/// Who listens.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    known: HashMap<Place, HolderReading>,
    /// The same by socket.
    holding: HashMap<u64, HolderReading>,
    /// Sockets that listen now, with who called listen(2).
    listening: HashMap<Place, HashMap<u64, (u32, Text)>>,
    /// Those with connections or a queue and no process, since the last walk.
    unknown: HashSet<Sought>,
    /// Those for which a walk was made in vain: they listen no more, or out of sight.
    given_up: HashSet<Sought>,
    /// Those of the first walk that the kernel side had no room for.
    left_out: Option<u64>,
    looked_up: MonotonicNs,
}

impl Listeners {
    pub(super) fn observe(
        &mut self,
        now: MonotonicNs,
        ports: &[PortReading],
        listening: &[ListenerReading],
        holders: Option<&[HolderReading]>,
    ) {
        self.listening.clear();
        for listener in listening {
            let place = (listener.netns, listener.local.port());
            let here = self.listening.entry(place).or_default();
            here.insert(listener.socket, listener.who.clone());
        }
        if let Some(holders) = holders {
            self.known.clear();
            self.holding.clear();
            for holder in holders.iter().filter(|holder| holder.is_listener) {
                keep_first(&mut self.known, (holder.netns, holder.port), holder);
                keep_first(&mut self.holding, holder.socket, holder);
            }
            self.looked_up = now;
            self.given_up.extend(self.unknown.drain());
            let there: HashSet<u64> = listening.iter().map(|one| one.socket).collect();
            let missing = self.holding.keys().filter(|one| !there.contains(one));
            // Otherwise it has gone since.
            let is_full = there.len() >= LISTENERS as usize;
            self.left_out
                .get_or_insert(if is_full { missing.count() as u64 } else { 0 });
        }
        let accepted = ports.iter().filter(|port| port.side == Side::Accepted);
        let places = accepted.map(|port| ((port.netns, port.port), 0));
        let sockets = listening.iter();
        let sockets = sockets.map(|one| ((one.netns, one.local.port()), one.socket));
        let sought: HashSet<Sought> = places.chain(sockets).collect();
        self.given_up.retain(|one| sought.contains(one));
        let is_unknown = |one: &Sought| {
            let (place, socket) = one;
            let is_known = match socket {
                0 => self.known.contains_key(place),
                socket => self.holding.contains_key(socket),
            };
            !is_known && !self.given_up.contains(one)
        };
        self.unknown = sought.into_iter().filter(is_unknown).collect();
    }

    /// Listeners from before the start that the kernel side had no room for.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.unwrap_or(0)
    }

    pub(super) fn wants_holders(&self, now: MonotonicNs) -> bool {
        !self.unknown.is_empty() && now.since_ns(self.looked_up) >= LOOK_UP_NS
    }

    /// Process id and name of who holds a listener; else of who made it, as of one that
    /// came since the last walk.
    pub(super) fn holding(&self, listener: &ListenerReading) -> (u32, Text) {
        let place = (listener.netns, listener.local.port());
        let holder = self.holding.get(&listener.socket);
        // A socket's address comes again.
        match holder.filter(|holder| (holder.netns, holder.port) == place) {
            Some(holder) => (holder.pid, holder.comm.clone()),
            None => listener.who.clone(),
        }
    }

    /// Process id and name of who listens: of the walk, as long as its socket is there;
    /// else who called listen(2) since.
    pub(super) fn of(&self, netns: u32, port: u16) -> Option<(u32, Text)> {
        let place = (netns, port);
        let now = self.listening.get(&place);
        let is_there =
            |holder: &&HolderReading| now.is_none_or(|now| now.contains_key(&holder.socket));
        match self.known.get(&place).filter(is_there) {
            Some(holder) => Some((holder.pid, holder.comm.clone())),
            None => now?.values().min_by_key(|(pid, _)| *pid).cloned(),
        }
    }
}

/// Workers have the listener of the process that began them: the first one stands for all.
fn keep_first<K: Eq + Hash>(known: &mut HashMap<K, HolderReading>, key: K, holder: &HolderReading) {
    let known = known.entry(key).or_insert_with(|| holder.clone());
    if (holder.start, holder.pid) < (known.start, known.pid) {
        *known = holder.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::{HolderReading, LOOK_UP_NS, ListenerReading, Listeners, PortReading};
    use crate::clock::MonotonicNs;

    #[test]
    fn a_listener_is_of_who_holds_it_else_of_who_made_it() {
        let holder = |socket, pid, start| HolderReading {
            socket,
            pid,
            start: MonotonicNs(start),
            port: 53,
            is_listener: true,
            comm: format!("p{pid}").as_str().into(),
            ..HolderReading::default()
        };
        let mut listeners = Listeners::default();
        // Two on one port, at other addresses; a worker holds the second one too.
        let holders = [holder(1, 7, 10), holder(2, 8, 20), holder(2, 9, 30)];
        listeners.observe(MonotonicNs(0), &[], &[], Some(&holders));
        let of = |socket, port| listeners.holding(&listener(socket, port)).0;
        assert_eq!([of(1, 53), of(2, 53)], [7, 8]);
        // One that came since, and one at the address of one that went.
        assert_eq!([of(3, 53), of(2, 80)], [5, 5]);
        // A port is of who listens there now, also before the next walk.
        assert_eq!(listeners.of(0, 53).unwrap().0, 7);
        listeners.observe(MonotonicNs(1), &[], &[listener(3, 53)], None);
        assert_eq!(listeners.of(0, 53).unwrap().0, 5);
        listeners.observe(MonotonicNs(2), &[], &[listener(1, 53)], None);
        assert_eq!(listeners.of(0, 53).unwrap().0, 7);
    }

    fn listener(socket: u64, port: u16) -> ListenerReading {
        ListenerReading {
            socket,
            local: ([127, 0, 0, 1], port).into(),
            netns: 0,
            syn_queue: 0,
            young: 0,
            accept_queue: 0,
            backlog: 1,
            drops: 0,
            who: (5, "maker".into()),
        }
    }

    #[test]
    fn a_new_listener_is_looked_for_where_one_was_given_up() {
        let at = |s: u64| MonotonicNs(s * 100 * LOOK_UP_NS);
        let port = |port| PortReading {
            port,
            ..PortReading::default()
        };
        let mut listeners = Listeners::default();
        let ports: Vec<PortReading> = (1..=2000).map(port).collect();
        listeners.observe(at(1), &ports, &[], None);
        assert!(listeners.wants_holders(at(1)));
        listeners.observe(at(1), &ports, &[], Some(&[]));
        assert_eq!(listeners.given_up.len(), 2000);
        assert!(!listeners.wants_holders(at(2)));
        listeners.observe(at(2), &ports, &[listener(9, 7)], None);
        assert!(listeners.wants_holders(at(2)));
        // What nobody connects to any more is not remembered.
        listeners.observe(at(3), &[], &[], None);
        assert!(listeners.given_up.is_empty());
    }
}
