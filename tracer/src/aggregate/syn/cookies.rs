//! Connections by cookie, and what they have lost.

use std::collections::{BTreeMap, HashMap};

use super::cookies_since;
use crate::{
    decode::cookie::{CookieKind, CookieReading},
    snapshot::{ByCookie, Cookies},
};

/// What a listener did with cookies since it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) cookies: Cookies,
    connections: Connections,
}

/// What came of them.
#[derive(Clone, Debug)]
enum Connections {
    /// By hooks.
    Hooked {
        established: u64,
        kinds: HashMap<CookieKind, u64>,
    },
    /// Handshakes without a time, where functions cannot be hooked: the kernel keeps
    /// nothing of a SYN that it answers by a cookie, so it can take the time of the
    /// handshake by timestamps only. Of the port, when the listener was first seen and now.
    Unmeasured { first: Option<u64>, now: u64 },
}

impl Default for Connections {
    fn default() -> Self {
        Self::Unmeasured {
            first: None,
            now: 0,
        }
    }
}

impl Tally {
    pub(super) fn hooked(reading: &CookieReading) -> Self {
        Self {
            cookies: Cookies {
                sent: reading.sent,
                valid: reading.valid,
                failed: reading.failed,
            },
            connections: Connections::Hooked {
                established: reading.established,
                kinds: reading.kinds.iter().copied().collect(),
            },
        }
    }

    pub(super) fn add(&mut self, new: Cookies) {
        self.cookies.sent += new.sent;
        self.cookies.valid += new.valid;
        self.cookies.failed += new.failed;
    }

    /// Handshakes of the port without a time, since tracer's start.
    pub(super) fn see_unmeasured(&mut self, unmeasured: u64) {
        if let Connections::Unmeasured { first, now } = &mut self.connections {
            first.get_or_insert(unmeasured);
            *now = unmeasured;
        }
    }

    /// Those without timestamps, where functions cannot be hooked. A handshake whose
    /// SYN-ACK was lost has no time either.
    fn unmeasured(&self) -> u64 {
        match self.connections {
            Connections::Unmeasured { first, now } => {
                let unmeasured = now.saturating_sub(first.unwrap_or(now));
                unmeasured.min(self.cookies.valid)
            }
            Connections::Hooked { .. } => 0,
        }
    }

    /// What came of the cookies since then.
    pub(super) fn since(&self, before: &Self) -> ByCookie {
        let Connections::Hooked { established, kinds } = &self.connections else {
            return ByCookie {
                without_timestamps: self.unmeasured().saturating_sub(before.unmeasured()),
                ..ByCookie::default()
            };
        };
        let nothing = HashMap::new();
        let (established_before, kinds_before) = match &before.connections {
            Connections::Hooked { established, kinds } => (*established, kinds),
            Connections::Unmeasured { .. } => (0, &nothing),
        };
        let established = established.saturating_sub(established_before);
        let valid = cookies_since(self.cookies, before.cookies).valid;
        let new: Vec<(CookieKind, u64)> = kinds
            .iter()
            .map(|(kind, count)| {
                let before = kinds_before.get(kind).copied().unwrap_or(0);
                (*kind, count.saturating_sub(before))
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        let without = |has: fn(&CookieKind) -> bool| -> u64 {
            let lost = new.iter().filter(|(kind, _)| !has(kind));
            lost.map(|(_, count)| count).sum()
        };
        let mut mss = BTreeMap::new();
        for (kind, count) in &new {
            *mss.entry(kind.mss).or_default() += count;
        }
        ByCookie {
            established: Some(established),
            refused: Some(valid.saturating_sub(established)),
            without_timestamps: without(|kind| kind.timestamps),
            without_window_scaling: Some(without(|kind| kind.window_scaling)),
            without_sack: Some(without(|kind| kind.sack)),
            without_ecn: Some(without(|kind| kind.ecn)),
            mss: mss.into_iter().collect(),
        }
    }
}
