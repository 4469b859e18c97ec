//! How often tracer does again what costs more on a larger host.

use crate::host::own;

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
}
