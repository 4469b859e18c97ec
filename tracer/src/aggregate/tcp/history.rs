//! What is known of a process's sockets in CLOSE_WAIT over time, and whether that is a
//! leak.
//!
//! A process leaks when the number of those that wait for long grows, one is older than
//! `--leak-age`, and none was ever closed that had waited about as long as its oldest: a
//! program that closes late, but always closes, does not leak.

use std::collections::VecDeque;

use crate::clock::MonotonicNs;

/// A second, in ns.
const SECOND: u64 = 1_000_000_000;
/// Growth is over this long at most, in ns.
const WINDOW_NS: u64 = 60 * SECOND;
/// Growth is over this long at least, in s.
const LEAST_GROWTH_S: f64 = 0.5;
/// Where a process opens connections is watched for so long at most, in ns.
const SUSPECTED_NS: u64 = 60 * SECOND;
/// A process that closes late is remembered for so long, in ns.
const REMEMBERED_NS: u64 = 600 * SECOND;
/// A process whose oldest socket is not this many times older than the longest that
/// it closed is late, and does not leak.
const TIMES_OLDER: u64 = 3;

/// From which age on sockets are told of.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpAges {
    /// `--leak-age`, in ns: one in CLOSE_WAIT is taken for leaked.
    pub leak_age_ns: u64,
    /// `--dead-peer-age`, in ns: the peer of one that was closed does not answer.
    pub dead_peer_ns: u64,
}

impl TcpAges {
    /// From this age on a socket is looked at.
    pub(super) fn long_ns(self) -> u64 {
        SECOND.min(self.leak_age_ns / 2)
    }

    /// From this age on of a socket its process is suspected.
    pub(super) fn suspicious_ns(self) -> u64 {
        self.long_ns().max(self.leak_age_ns / 4)
    }
}

/// A process's sockets that wait for long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Number {
    pub(super) all: u64,
    /// Of those, the ones from before tracer's start.
    pub(super) from_before: u64,
    /// When the first of the others had waited for long.
    pub(super) first_long: Option<MonotonicNs>,
}

/// A process's sockets at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: MonotonicNs,
    /// Age of the oldest, in ns.
    pub(super) oldest_ns: u64,
    /// Those older than `--leak-age`.
    pub(super) aged: u64,
    /// Whether one has begun to wait since tracer's start.
    pub(super) began_here: bool,
}

/// What is known of a process's sockets over time.
#[derive(Debug)]
pub(super) struct History {
    pub(super) began: MonotonicNs,
    /// Growth is counted from this moment and this number on.
    grows_from: (MonotonicNs, u64),
    /// Numbers of sockets, the latest last.
    numbers: VecDeque<(MonotonicNs, u64)>,
    /// The longest that it let a socket wait and closed it nevertheless, in ns.
    closed_after_ns: u64,
    closed: u64,
    /// When it closed the last of those.
    closed_at: MonotonicNs,
}

impl History {
    pub(super) fn new(now: MonotonicNs, number: &Number) -> Self {
        Self {
            began: now,
            // Neither those from before the start nor the first is growth.
            grows_from: (
                number.first_long.unwrap_or(now),
                number.from_before + u64::from(number.first_long.is_some()),
            ),
            numbers: VecDeque::new(),
            closed_after_ns: 0,
            closed: 0,
            closed_at: now,
        }
    }

    pub(super) fn note(&mut self, now: MonotonicNs, number: u64) {
        self.numbers.push_back((now, number));
        while let Some((at, _)) = self.numbers.front()
            && now.since_ns(*at) > WINDOW_NS
        {
            self.numbers.pop_front();
        }
    }

    /// One was closed that had waited for long.
    pub(super) fn note_closed(&mut self, now: MonotonicNs, after_ns: u64) {
        self.closed += 1;
        self.closed_at = now;
        self.closed_after_ns = self.closed_after_ns.max(after_ns);
    }

    pub(super) fn has_sockets(&self) -> bool {
        self.numbers.back().is_some_and(|(_, number)| *number > 0)
    }

    /// Whether it is worth remembering although nothing waits.
    pub(super) fn is_remembered(&self, now: MonotonicNs) -> bool {
        self.closed > 0 && now.since_ns(self.closed_at) < REMEMBERED_NS
    }

    /// Whether a socket of this age makes its process suspected.
    pub(super) fn is_suspicious(&self, now: MonotonicNs, age_ns: u64) -> bool {
        !self.is_late(age_ns) && now.since_ns(self.began) < SUSPECTED_NS
    }

    /// Whether it closes late, as far as a socket of this age can tell.
    fn is_late(&self, oldest_ns: u64) -> bool {
        self.closed > 0 && oldest_ns < self.closed_after_ns.saturating_mul(TIMES_OLDER)
    }

    /// How many more each second.
    pub(super) fn growth_per_s(&self) -> f64 {
        let (Some(&front), Some(&(to, last))) = (self.numbers.front(), self.numbers.back()) else {
            return 0.0;
        };
        let (from, first) = if front.0 == self.began {
            self.grows_from
        } else {
            front
        };
        let seconds = to.since_ns(from) as f64 / SECOND as f64;
        if seconds < LEAST_GROWTH_S {
            return 0.0;
        }
        (last as f64 - first as f64) / seconds
    }

    /// Whether it leaks, and why or why not.
    pub(super) fn verdict(&self, options: TcpAges, moment: &Moment) -> (bool, String) {
        let seconds = |ns: u64| format!("{:.1} s", ns as f64 / SECOND as f64);
        let leak_age = seconds(options.leak_age_ns);
        let closed_after = seconds(self.closed_after_ns);
        if self.is_late(moment.oldest_ns) {
            let closed = self.closed;
            let why = format!("closes late, not never: {closed} closed after up to {closed_after}");
            return (false, why);
        }
        if moment.aged == 0 {
            return (false, format!("none is older than {leak_age} yet"));
        }
        if !moment.began_here || self.growth_per_s() <= 0.0 {
            return (false, "held, and their number does not grow".to_owned());
        }
        let none = match self.closed {
            0 => "none was closed".to_owned(),
            closed => format!("only {closed} were closed, after up to {closed_after}"),
        };
        let aged = moment.aged;
        let looks = seconds(moment.now.since_ns(self.began));
        let why = format!(
            "{aged} wait for longer than {leak_age}, {none} in the {looks} that tracer looks"
        );
        (true, why)
    }
}
