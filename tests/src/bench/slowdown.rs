//! Throughput lost: how much less a workload gets done with a contender running.
//!
//! BPF statistics see what is inside a program only. This sees all of it: the
//! way into the program, caches, the contender's own process. BPF statistics
//! are off here, since they cost as much as a small program.
//!
//! Before and after each contender's slot the workload runs alone, and the slot
//! is held against the mean of these two: the machine's own drift drops out.

use anyhow::Result;

use super::{
    contenders::{self, FLOOR, FLOOR_OF_BOTH, FLOOR_OF_TCP, SS},
    document::{Document, NOTHING, Quantity, TO_TRACER, TRACER, Workload},
    measure::{Effort, order},
    running::Running,
};
use crate::provoke;

/// The workload whose slow-down is budgeted.
pub(super) const ROUND_TRIPS: &str = "pipe round trips on one CPU";
/// The same of sockets.
pub(super) const CONNECTIONS: &str = "TCP connections, throughput";
const RATE: Quantity = Quantity {
    name: "throughput",
    unit: "a second",
    ratio_to: Some(super::document::Reference {
        contender: NOTHING,
        at_least: 0.0,
    }),
};
/// Of the throughput without, in the slots beside it.
pub(super) const LOST: Quantity = Quantity {
    name: "lost",
    unit: "%",
    ratio_to: None,
};

/// CPU time that each thing took more than without, in the slots beside it. What
/// other programs of the host do meanwhile does not show in it.
pub(super) const ADDED: Quantity = Quantity {
    name: "CPU time added",
    unit: "ns each",
    ratio_to: TO_TRACER,
};

struct Trial {
    name: &'static str,
    how: &'static str,
    mode: &'static str,
    contenders: &'static [&'static str],
    rounds: fn(&Effort) -> usize,
}

/// A new workload is a row here.
const TRIALS: [Trial; 3] = [
    Trial {
        name: ROUND_TRIPS,
        how: "a byte goes to another process on the same CPU and back: two context switches and \
              two wakings. Nothing else is done, so no program that works loses as much. \
              *empty programs on both hooks* do nothing on sched_switch and on sched_waking, \
              tracer's two hot hooks: this much is lost to any tool that hooks both",
        mode: "round-trips",
        contenders: &[
            FLOOR,
            FLOOR_OF_BOTH,
            TRACER,
            "runqlat",
            "runqslower",
            "cpudist",
            "offcputime",
            "runqlat.bt",
            "cpudist.bt",
            "offcputime.bt",
        ],
        rounds: |effort| effort.switch_rounds,
    },
    Trial {
        name: "short-lived processes, throughput",
        how: "one process after the other that exits at once, on one CPU",
        mode: "processes",
        contenders: &[TRACER, "runqlat", "cpudist", "offcputime"],
        rounds: |effort| effort.other_rounds,
    },
    Trial {
        name: CONNECTIONS,
        how: "connected, accepted and closed over loopback, on one CPU: nine transitions and a \
              few context switches each. *empty programs on TCP states* are two that do nothing \
              on inet_sock_set_state, where tracer has two",
        mode: "connections",
        contenders: &[FLOOR_OF_TCP, TRACER, "tcpstates", "tcplife", SS],
        rounds: |effort| effort.other_rounds,
    },
];

pub(super) fn measure(document: &mut Document, effort: &Effort) -> Result<()> {
    for trial in TRIALS.iter().filter(|trial| effort.wants(trial.name)) {
        document.workloads.push(Workload {
            name: trial.name.to_owned(),
            how: trial.how.to_owned(),
        });
        let rounds = (trial.rounds)(effort);
        for round in 0..rounds {
            eprintln!("{}: round {} of {rounds}", trial.name, round + 1);
            measure_round(document, trial, round, effort)?;
        }
    }
    Ok(())
}

fn measure_round(
    document: &mut Document,
    trial: &Trial,
    round: usize,
    effort: &Effort,
) -> Result<()> {
    let mut before = Slot::run(trial, effort)?;
    document.note(trial.name, NOTHING, &RATE, before.rate);
    for name in order(trial.contenders, round) {
        if document.is_skipped(trial.name, name) {
            continue;
        }
        let with = match contenders::named(name).and_then(Running::settled) {
            Ok(_running) => Slot::run(trial, effort)?,
            Err(reason) => {
                document.skip(trial.name, name, &format!("{reason:#}"));
                continue;
            }
        };
        let after = Slot::run(trial, effort)?;
        document.note(trial.name, NOTHING, &RATE, after.rate);
        document.note(trial.name, name, &RATE, with.rate);
        let lost = 1.0 - with.rate / f64::midpoint(before.rate, after.rate);
        document.note(trial.name, name, &LOST, lost * 100.0);
        let added = with.each_ns - f64::midpoint(before.each_ns, after.each_ns);
        document.note(trial.name, name, &ADDED, added);
        before = after;
    }
    Ok(())
}

/// What a slot found.
struct Slot {
    /// Things done a second.
    rate: f64,
    /// CPU time of each, in ns.
    each_ns: f64,
}

impl Slot {
    fn run(trial: &Trial, effort: &Effort) -> Result<Self> {
        let done = provoke::count(trial.mode, effort.slot_ms)?;
        Ok(Self {
            rate: done.count as f64 * 1000.0 / effort.slot_ms as f64,
            each_ns: done.cpu_ns as f64 / done.count.max(1) as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_of_every_trial_has_a_row() {
        for trial in TRIALS {
            for name in trial.contenders {
                assert!(contenders::names().any(|known| known == *name), "{name}");
            }
        }
    }
}
