//! Sockets by state and namespace: those from before the start, and what changed since.
//!
//! The count of those from before takes a while, and sockets change meanwhile. A
//! socket that did was, when the hook began, in the state that its first transition
//! left. So the sum is exact although nothing stood still.
//!
//! They are counted anew now and then, since a kernel was seen that does not tell of
//! one transition in thousands.
//!
//! One is counted twice until the next count: a child of TCP Fast Open that comes while
//! they are listed, and is still in SYN_RECV then. It has no cookie when it comes.

use std::collections::{HashMap, HashSet};

use tracer_common::tcp::{CLOSE, LISTEN, Population, STATES, SYN_RECV, TIME_WAIT};

use super::{ClosingReading, TcpReading};
use crate::decode::tcp::SeedReading;

/// The sockets from before a moment: the start, or a later one.
#[derive(Clone, Debug, Default)]
pub struct Seeds {
    /// The namespaces in which they could be counted.
    pub namespaces: Vec<u32>,
    /// Came into each state less left it, from the start to that moment.
    pub before: Vec<(u32, Population)>,
    /// So many transitions may have been before that moment as well as after it.
    pub uncertain: u64,
    /// Every socket that sock_diag told of: namespace, cookie, state. Neither those in
    /// TIME_WAIT nor requests.
    pub sockets: Vec<(u32, u64, u32)>,
    /// Of those, the ones that were closed here and wait for the peer.
    pub closing: Vec<ClosingReading>,
    /// Transitions from that moment to the end of the count.
    pub transitions: Vec<SeedReading>,
}

/// Sockets by state.
#[derive(Debug, Default)]
pub(super) struct Populations {
    /// When the hook began, by namespace.
    base: HashMap<u32, [i64; STATES]>,
    now: HashMap<u32, Population>,
    /// What is kept like TIME_WAIT, and what of it is in FIN_WAIT2.
    time_wait: HashMap<u32, [u64; 2]>,
    unseen: u64,
}

impl Populations {
    pub(super) fn observe(&mut self, reading: &TcpReading) {
        if let Some(seeds) = &reading.seeds {
            self.seed(seeds);
        }
        self.now = reading.populations.iter().copied().collect();
        self.time_wait = reading
            .namespaces
            .iter()
            .map(|one| (one.netns.inode, [one.time_wait, one.fin_wait2]))
            .collect();
    }

    /// Every namespace with its sockets; TIME_WAIT is not among them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Population)> {
        let known = self.now.keys().chain(self.base.keys());
        let all: HashSet<u32> = known.chain(self.time_wait.keys()).copied().collect();
        all.into_iter().map(|inode| (inode, self.of(inode)))
    }

    /// Sockets of a namespace that are kept like those in TIME_WAIT, and how many of them are
    /// in FIN_WAIT2; `None` when its counters could not be read.
    pub(super) fn time_wait(&self, inode: u32) -> Option<[u64; 2]> {
        self.time_wait.get(&inode).copied()
    }

    /// Sockets that a later count found in another state than the hook had told, so at
    /// least as many transitions that it was not run for.
    pub(super) fn unseen(&self) -> u64 {
        self.unseen
    }

    fn of(&self, inode: u32) -> Population {
        let mut population = [0; STATES];
        let base = self.base.get(&inode).copied().unwrap_or_default();
        let now = self.now.get(&inode).copied().unwrap_or_default();
        for (state, place) in population.iter_mut().enumerate() {
            let (base, now) = (base.get(state), now.get(state));
            let sum = base.copied().unwrap_or(0) + now.copied().unwrap_or(0) as i64;
            // The hook can miss a transition, and counts how many it did.
            *place = u64::try_from(sum).unwrap_or(0);
        }
        // A socket that is closed is no longer there.
        population[CLOSE as usize] = 0;
        population
    }

    fn seed(&mut self, seeds: &Seeds) {
        let mut counts: HashMap<u32, [i64; STATES]> = HashMap::new();
        let mut add = |netns: u32, state: u32| {
            if let Some(place) = counts.entry(netns).or_default().get_mut(state as usize) {
                *place += 1;
            }
        };
        let mut counted = HashSet::new();
        // Children that have no cookie yet, by their address.
        let mut children = HashSet::new();
        for transition in &seeds.transitions {
            if transition.from == LISTEN && transition.to == SYN_RECV {
                children.insert(transition.socket);
                continue;
            }
            let is_new = transition.from == CLOSE || children.remove(&transition.socket);
            if counted.insert(transition.cookie) && !is_new {
                add(transition.netns, transition.from);
            }
        }
        for (netns, cookie, state) in &seeds.sockets {
            // The kernel lists one twice when others come before it in its bucket.
            if counted.insert(*cookie) {
                add(*netns, *state);
            }
        }
        let before: HashMap<u32, Population> = seeds.before.iter().copied().collect();
        for netns in &seeds.namespaces {
            let mut base = counts.remove(netns).unwrap_or_default();
            let before = before.get(netns).copied().unwrap_or([0; STATES]);
            for (place, before) in base.iter_mut().zip(before) {
                *place -= before.cast_signed();
            }
            // Neither is of a state that sock_diag lists as it is counted here.
            for state in [CLOSE, TIME_WAIT] {
                base[state as usize] = 0;
            }
            let unseen = match self.base.get(netns) {
                Some(known) => moved(known, &base).saturating_sub(seeds.uncertain),
                None => 0,
            };
            if unseen > 0 {
                log::debug!("network namespace {netns}: {unseen} sockets in another state");
            }
            if unseen > 0 || !self.base.contains_key(netns) {
                self.unseen += unseen;
                self.base.insert(*netns, base);
            }
        }
    }
}

/// The least number of sockets that went from one state to another, came or went.
fn moved(before: &[i64; STATES], after: &[i64; STATES]) -> u64 {
    let (mut came, mut left) = (0, 0);
    for (before, after) in before.iter().zip(after) {
        came += after.saturating_sub(*before).max(0).cast_unsigned();
        left += before.saturating_sub(*after).max(0).cast_unsigned();
    }
    came.max(left)
}
