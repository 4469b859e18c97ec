//! The length of a jiffy: the kernel tells it to nobody, so it is measured.

use crate::{clock::MonotonicNs, decode::clock::ClockReading};

/// A second, in ns.
const SECOND: u64 = 1_000_000_000;

/// The length of a jiffy.
#[derive(Clone, Copy, Debug)]
pub struct Hertz {
    began: (MonotonicNs, u64),
    jiffy_ns: Option<u64>,
    now_jiffies: u64,
}

impl Hertz {
    /// `CONFIG_HZ` of any kernel.
    const KNOWN: [u64; 5] = [100, 250, 300, 1000, 1024];
    /// Below this many jiffies two of them cannot be told apart.
    const ENOUGH: u64 = 20;

    pub(super) fn new(clock: &ClockReading) -> Self {
        Self {
            began: (clock.now, clock.jiffies),
            jiffy_ns: None,
            now_jiffies: clock.jiffies,
        }
    }

    pub(super) fn learn(&mut self, clock: &ClockReading) {
        self.now_jiffies = clock.jiffies;
        let (at, jiffies) = self.began;
        let (ns, jiffies) = (
            clock.now.since_ns(at),
            clock.jiffies.saturating_sub(jiffies),
        );
        if self.jiffy_ns.is_none() && jiffies >= Self::ENOUGH && ns > 0 {
            let hz = (u128::from(jiffies) * u128::from(SECOND) / u128::from(ns)) as u64;
            let nearest = Self::KNOWN
                .into_iter()
                .min_by_key(|known| known.abs_diff(hz));
            self.jiffy_ns = nearest.map(|hz| SECOND / hz);
        }
    }

    /// So many jiffies in ns; 0 as long as their length is not known.
    pub(super) fn ns(&self, jiffies: u64) -> u64 {
        jiffies.saturating_mul(self.jiffy_ns.unwrap_or(0))
    }

    /// Time until a moment in jiffies, in ns; 0 when it has passed.
    pub(super) fn until_ns(&self, jiffies: u64) -> u64 {
        self.ns(jiffies.saturating_sub(self.now_jiffies))
    }
}
