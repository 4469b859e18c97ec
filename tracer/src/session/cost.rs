//! What tracer itself takes: CPU, memory, and time in its kernel programs.
//!
//! The kernel counts program time only while its BPF statistics are on, which
//! costs every program on the host some 30 ns a call. So they are on for the
//! first second or a little more, and again every minute, unless the host has
//! them on anyway.

use std::os::fd::OwnedFd;

use super::source::Source;
use crate::{clock::MonotonicNs, host::own, kernel::reader::Reader, snapshot::OwnCost, text};

const NS_PER_S: f64 = 1e9;
/// A little less than the least whole interval that most people take.
const MEASURED_NS: u64 = 900_000_000;
const MEASURE_EVERY_NS: u64 = 60_000_000_000;

pub(super) struct CostMeter {
    began: Mark,
    latest: Mark,
    measuring: Option<Measurement>,
    measured_at: MonotonicNs,
    bpf_ns: Option<u64>,
    map_bytes: u64,
}

#[derive(Clone, Copy)]
struct Mark {
    at: MonotonicNs,
    cpu_ns: u64,
}

struct Measurement {
    from: MonotonicNs,
    run_ns: u64,
    /// Statistics stay on as long as this is open.
    _stats: Option<OwnedFd>,
}

impl CostMeter {
    pub(super) fn new(source: &Source, now: MonotonicNs) -> Self {
        // The start (type information, verifier) is not what a run costs.
        let mark = Mark {
            at: now,
            cpu_ns: own::cpu_ns(),
        };
        Self {
            began: mark,
            latest: mark,
            measuring: measure(source, now),
            measured_at: now,
            bpf_ns: None,
            map_bytes: source.reader().map_bytes(),
        }
    }

    /// Ends a measurement that is long enough, begins one when it is time.
    pub(super) fn watch(&mut self, source: &Source, now: MonotonicNs) {
        if let Some(measuring) = self
            .measuring
            .take_if(|m| now.since_ns(m.from) >= MEASURED_NS)
        {
            let run_ns = source
                .reader()
                .program_run_ns()
                .saturating_sub(measuring.run_ns);
            let elapsed = now.since_ns(measuring.from) as f64;
            self.bpf_ns = Some((run_ns as f64 / elapsed * NS_PER_S) as u64);
            self.measured_at = now;
        } else if self.measuring.is_none() && now.since_ns(self.measured_at) >= MEASURE_EVERY_NS {
            self.measuring = measure(source, now);
            self.measured_at = now;
            self.map_bytes = source.reader().map_bytes();
        }
    }

    /// The cost since the last call.
    pub(super) fn interval(&mut self, now: MonotonicNs) -> OwnCost {
        let mark = Mark {
            at: now,
            cpu_ns: own::cpu_ns(),
        };
        let before = std::mem::replace(&mut self.latest, mark);
        self.cost(before, mark)
    }

    /// The cost since the start.
    pub(super) fn total(&self, now: MonotonicNs) -> OwnCost {
        self.cost(
            self.began,
            Mark {
                at: now,
                cpu_ns: own::cpu_ns(),
            },
        )
    }

    fn cost(&self, from: Mark, to: Mark) -> OwnCost {
        let elapsed = to.at.since_ns(from.at).max(1);
        OwnCost {
            cpu_ratio: to.cpu_ns.saturating_sub(from.cpu_ns) as f64 / elapsed as f64,
            bpf_ns: self.bpf_ns,
            rss_bytes: own::rss_bytes(),
            map_bytes: self.map_bytes,
        }
    }
}

/// Begins a measurement; `None` when the kernel does not let us.
fn measure(source: &Source, now: MonotonicNs) -> Option<Measurement> {
    let setting = text::read("/proc/sys/kernel/bpf_stats_enabled");
    let is_on = setting.is_ok_and(|value| value.trim() == "1");
    let stats = if is_on {
        None
    } else {
        Some(Reader::statistics().ok()?)
    };
    Some(Measurement {
        from: now,
        run_ns: source.reader().program_run_ns(),
        _stats: stats,
    })
}
