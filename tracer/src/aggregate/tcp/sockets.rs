//! Sockets in CLOSE_WAIT by their address. Any user can have tens of thousands of them: so
//! they are in one block of memory, sorted, and a look changes it in place.

use super::waiting::Socket;
use crate::decode::tcp::WaitingReading;

/// All of them, sorted by address.
#[derive(Debug, Default)]
pub(super) struct Sockets(Vec<Socket>);

impl Sockets {
    /// Takes in what is there now. What is not any more goes to `gone`, also one whose
    /// address another socket has.
    pub(super) fn update(&mut self, waiting: &[WaitingReading], mut gone: impl FnMut(&Socket)) {
        let known = self.0.len();
        for reading in waiting {
            let known = self.0.get_mut(..known).unwrap_or_default();
            let place = known.binary_search_by_key(&reading.socket, |known| known.reading.socket);
            match place.ok().and_then(|place| known.get_mut(place)) {
                Some(socket) if socket.is(reading) => {
                    socket.reading.clone_from(reading);
                    socket.is_there = true;
                }
                _ => self.0.push(Socket::new(reading.clone())),
            }
        }
        self.0.retain_mut(|socket| {
            if !socket.is_there {
                gone(socket);
            }
            std::mem::take(&mut socket.is_there)
        });
        self.0.sort_unstable_by_key(|socket| socket.reading.socket);
        // The kernel can visit one twice while others come and go.
        self.0.dedup_by_key(|socket| socket.reading.socket);
        self.0.shrink_to(self.0.len() + self.0.len() / 4);
    }

    fn place(&self, address: u64) -> Option<usize> {
        let by_address = |socket: &Socket| socket.reading.socket;
        self.0.binary_search_by_key(&address, by_address).ok()
    }

    pub(super) fn has(&self, address: u64) -> bool {
        self.place(address).is_some()
    }

    pub(super) fn get_mut(&mut self, address: u64) -> Option<&mut Socket> {
        let place = self.place(address)?;
        self.0.get_mut(place)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Socket> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Socket> {
        self.0.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{collection::vec, prelude::*};

    use super::Sockets;
    use crate::{clock::MonotonicNs, decode::tcp::WaitingReading, snapshot::Side};

    fn reading((socket, since): (u64, u64)) -> WaitingReading {
        WaitingReading {
            socket,
            side: Side::Accepted,
            since: Some(MonotonicNs(since)),
            idle_jiffies: 0,
            cgroup: 0,
            netns: 1,
            local: ([127, 0, 0, 1], 80).into(),
            remote: ([127, 0, 0, 1], 81).into(),
            unread_bytes: 0,
            has_file: true,
            timer: crate::snapshot::TimerKind::Off,
            due_jiffies: 0,
            retransmits: 0,
            probes: 0,
        }
    }

    proptest! {
        /// It keeps what it knows of those that stay, and gives back each that goes, once.
        #[test]
        fn it_is_a_map_by_address(looks in vec(vec((0..20u64, 0..3u64), 0..30), 1..8)) {
            let mut sockets = Sockets::default();
            let mut before = BTreeMap::new();
            for look in looks {
                let now: BTreeMap<u64, u64> = look.into_iter().collect();
                let readings: Vec<_> = now.clone().into_iter().map(reading).collect();
                let mut gone = BTreeSet::new();
                sockets.update(&readings, |socket| {
                    assert!(gone.insert(socket.reading.socket));
                });
                let left = before.iter().filter(|(socket, since)| now.get(socket) != Some(since));
                prop_assert_eq!(gone, left.map(|(socket, _)| *socket).collect());
                let kept: Vec<(u64, bool)> =
                    sockets.iter().map(|s| (s.reading.socket, s.was_told)).collect();
                let expected: Vec<(u64, bool)> =
                    now.iter().map(|(s, since)| (*s, before.get(s) == Some(since))).collect();
                prop_assert_eq!(kept, expected);
                sockets.iter_mut().for_each(|socket| socket.was_told = true);
                for socket in 0..20 {
                    prop_assert_eq!(sockets.has(socket), now.contains_key(&socket));
                    prop_assert_eq!(sockets.get_mut(socket).is_some(), now.contains_key(&socket));
                }
                before = now;
            }
        }
    }
}
