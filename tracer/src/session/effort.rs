//! How often tracer does again what costs more on a larger host.

use crate::{
    clock::{self, MonotonicNs},
    host::own,
};

/// A part of a CPU: what is done again rests so many times as long as it took.
const TIMES_ITS_LENGTH: u64 = 500;

/// The CPU time that something takes. Not its time by the clock: on a busy host, that
/// is mostly spent waiting for a CPU, and costs the others nothing.
pub(super) struct Effort {
    began_ns: u64,
}

impl Effort {
    pub(super) fn begin() -> Self {
        Self {
            began_ns: own::cpu_ns(),
        }
    }

    /// How long to wait until it is done again, in ns; at least `least`.
    pub(super) fn pause(&self, least: u64) -> u64 {
        let took = own::cpu_ns().saturating_sub(self.began_ns);
        least.max(took.saturating_mul(TIMES_ITS_LENGTH))
    }
}

/// CPU time for what any user can cause as often as he likes: so much at once, and a part
/// of a CPU in the long run.
pub(super) struct Allowance {
    left_ns: u64,
    at: MonotonicNs,
}

impl Allowance {
    const AT_ONCE_NS: u64 = 200_000_000;
    /// One in so many ns.
    const PART: u64 = 32;

    pub(super) fn new() -> Self {
        Self {
            left_ns: Self::AT_ONCE_NS,
            at: clock::monotonic(),
        }
    }

    /// Whether any of it is left.
    pub(super) fn has_some(&mut self, now: MonotonicNs) -> bool {
        let more = now.0.saturating_sub(self.at.0) / Self::PART;
        self.left_ns = self.left_ns.saturating_add(more).min(Self::AT_ONCE_NS);
        self.at = self.at.max(now);
        self.left_ns > 0
    }

    /// Takes off what something has taken. The last time may take more than is left: the
    /// rest comes back late.
    pub(super) fn spend(&mut self, effort: &Effort) {
        self.spend_ns(own::cpu_ns().saturating_sub(effort.began_ns));
    }

    fn spend_ns(&mut self, took: u64) {
        let owed = took.saturating_sub(self.left_ns);
        self.left_ns = self.left_ns.saturating_sub(took);
        self.at = MonotonicNs(self.at.0.saturating_add(owed.saturating_mul(Self::PART)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_rests_longer() {
        let effort = Effort::begin();
        while own::cpu_ns() - effort.began_ns < 4_000_000 {
            std::hint::black_box(());
        }
        let rest = effort.pause(0);
        assert!(rest >= 4_000_000 * TIMES_ITS_LENGTH, "{rest}");
        assert_eq!(effort.pause(u64::MAX), u64::MAX);
    }

    #[test]
    fn what_is_asked_for_without_end_gets_its_part() {
        const LOOK_NS: u64 = 40_000_000;
        const SECOND_NS: u64 = 1_000_000_000;
        let mut allowance = Allowance::new();
        let begin = allowance.at;
        let mut of_second = |second: u64| {
            let looks = (0..20).filter(|look| {
                let ns = second * SECOND_NS + look * SECOND_NS / 20;
                let has_some = allowance.has_some(MonotonicNs(begin.0 + ns));
                if has_some {
                    allowance.spend_ns(LOOK_NS);
                }
                has_some
            });
            looks.count() as u64 * LOOK_NS
        };
        let first = of_second(0);
        assert!(first >= Allowance::AT_ONCE_NS, "{first}");
        let later: u64 = (1..=100).map(of_second).sum();
        let part = 100 * SECOND_NS / Allowance::PART;
        assert!(later.abs_diff(part) <= 2 * LOOK_NS, "{later} of {part}");
    }
}
