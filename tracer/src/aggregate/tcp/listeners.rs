//! Who listens on which port: known from the walks over all descriptors.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

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

/// Who listens.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    known: HashMap<Place, HolderReading>,
    /// The same by socket.
    holding: HashMap<u64, HolderReading>,
    /// Ports with connections and no listener, since the last walk.
    unknown: HashSet<Place>,
    /// Those for which a walk was made in vain: they listen no more, or out of sight.
    given_up: HashSet<Place>,
    looked_up: MonotonicNs,
}

impl Listeners {
    pub(super) fn observe(
        &mut self,
        now: MonotonicNs,
        ports: &[PortReading],
        listening: impl Iterator<Item = Place>,
        holders: Option<&[HolderReading]>,
    ) {
        if let Some(holders) = holders {
            self.known.clear();
            self.holding.clear();
            for holder in holders.iter().filter(|holder| holder.is_listener) {
                keep_first(&mut self.known, (holder.netns, holder.port), holder);
                keep_first(&mut self.holding, holder.socket, holder);
            }
            self.looked_up = now;
            self.given_up.extend(self.unknown.drain());
            self.given_up
                .retain(|place| !self.known.contains_key(place));
        }
        let accepted = ports.iter().filter(|port| port.side == Side::Accepted);
        let places = accepted
            .map(|port| (port.netns, port.port))
            .chain(listening);
        let is_unknown =
            |place: &Place| !self.known.contains_key(place) && !self.given_up.contains(place);
        self.unknown = places.filter(is_unknown).collect();
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

    /// Process id and name of who listens.
    pub(super) fn of(&self, netns: u32, port: u16) -> Option<(u32, Text)> {
        let holder = self.known.get(&(netns, port))?;
        Some((holder.pid, holder.comm.clone()))
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
    use super::{HolderReading, ListenerReading, Listeners};
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
        let places = std::iter::empty();
        listeners.observe(MonotonicNs(0), &[], places, Some(&holders));
        let of = |socket, port| {
            let listener = ListenerReading {
                socket,
                local: ([127, 0, 0, 1], port).into(),
                netns: 0,
                syn_queue: 0,
                young: 0,
                accept_queue: 0,
                backlog: 1,
                drops: 0,
                who: (5, "maker".into()),
            };
            listeners.holding(&listener).0
        };
        assert_eq!([of(1, 53), of(2, 53)], [7, 8]);
        // One that came since, and one at the address of one that went.
        assert_eq!([of(3, 53), of(2, 80)], [5, 5]);
    }
}
