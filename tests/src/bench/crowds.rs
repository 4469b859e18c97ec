//! What a look at every task costs, with few of them and with many.
//!
//! Each contender looks once a second. Its CPU time is its process's own: a BPF
//! iterator runs within the read(2) of the process that reads it, so tracer's is
//! in there. It is taken from the end of one refresh to the end of a later one.

use anyhow::{Context as _, Result};

use super::{
    contenders::{self, FLOOR_OF_TASKS, STATE_WALKER, WALKER},
    document::{Document, Quantity, TO_TRACER, TRACER, Workload},
    measure::{Effort, order},
    process,
    running::Running,
};
use crate::provoke;

/// CPU time of a refresh.
pub(super) const A_SNAPSHOT: Quantity = Quantity {
    name: "CPU a snapshot",
    unit: "ms",
    ratio_to: TO_TRACER,
};
/// CPU at a refresh a second.
pub(super) const CPU: Quantity = Quantity {
    name: "CPU of the process",
    unit: "% of a CPU",
    ratio_to: TO_TRACER,
};
/// Resident memory.
pub(super) const RSS: Quantity = Quantity {
    name: "resident memory",
    unit: "MiB",
    ratio_to: TO_TRACER,
};
const MIB: f64 = 1_048_576.0;
const NS_PER_MS: f64 = 1e6;
/// How long a refresh may take among many that want to run, in s.
const REFRESH_S: f64 = 30.0;

/// The crowds that are budgeted.
pub(super) const FEW: &str = "100 sleeping processes";
/// The same.
pub(super) const MANY: &str = "10,000 sleeping processes";
/// The same, in one process.
pub(super) const THREADS: &str = "10,000 sleeping threads of one process";

struct Crowd {
    name: &'static str,
    how: &'static str,
    workload: &'static [&'static str],
    contenders: &'static [&'static str],
    in_quick: bool,
}

/// Who can look at processes, in the order of the pages.
pub(super) const ALL: &[&str] = &[
    TRACER,
    FLOOR_OF_TASKS,
    WALKER,
    STATE_WALKER,
    "top",
    "pidstat",
];

/// A new crowd is a row here.
const CROWDS: [Crowd; 5] = [
    Crowd {
        name: FEW,
        how: "looked at once a second",
        workload: &["crowd", "100"],
        contenders: ALL,
        in_quick: false,
    },
    Crowd {
        name: "1,000 sleeping processes",
        how: "looked at once a second",
        workload: &["crowd", "1000"],
        contenders: ALL,
        in_quick: false,
    },
    Crowd {
        name: MANY,
        how: "looked at once a second",
        workload: &["crowd", "10000"],
        contenders: ALL,
        in_quick: true,
    },
    Crowd {
        name: THREADS,
        how: "looked at once a second. top and pidstat look at processes only, so they have no \
              figure here",
        workload: &["sleepers", "10000"],
        contenders: &[TRACER, FLOOR_OF_TASKS, WALKER, STATE_WALKER],
        in_quick: true,
    },
    Crowd {
        name: "1,000 threads, 200 of them running",
        how: "looked at once a second; those that run or want to are at nice 19, the contenders \
              at their own priority, which is nice -20 for tracer. top and pidstat look at \
              processes only, of which this is one",
        workload: &["runnable", "800", "200"],
        contenders: ALL,
        in_quick: true,
    },
];

pub(super) fn measure(document: &mut Document, effort: &Effort) -> Result<()> {
    let is_wanted = |crowd: &&Crowd| {
        effort.wants(crowd.name) && (crowd.in_quick || !effort.is_quick || effort.only.is_some())
    };
    for crowd in CROWDS.iter().filter(is_wanted) {
        document.workloads.push(Workload {
            name: crowd.name.to_owned(),
            how: crowd.how.to_owned(),
        });
        let mut workload = provoke::Workload::ready(crowd.workload);
        workload.go();
        for round in 0..effort.crowd_rounds {
            eprintln!(
                "{}: round {} of {}",
                crowd.name,
                round + 1,
                effort.crowd_rounds
            );
            for name in order(crowd.contenders, round) {
                if document.is_skipped(crowd.name, name) {
                    continue;
                }
                if let Err(reason) = slot(document, crowd.name, name, effort.refreshes) {
                    document.skip(crowd.name, name, &format!("{reason:#}"));
                }
            }
        }
    }
    Ok(())
}

fn slot(document: &mut Document, crowd: &str, name: &str, refreshes: u64) -> Result<()> {
    let mut running = Running::settled(contenders::named(name)?)?;
    let pid = running.pid().context("there is no process to look at")?;
    // The first refresh after the start is no usual one for any of them.
    let from = running.refresh(REFRESH_S)?;
    let cpu_from = process::cpu_ns(pid)?;
    let mut to = from;
    for _ in 0..refreshes {
        to = running.refresh(REFRESH_S)?;
    }
    let cpu_ns = process::cpu_ns(pid)?.saturating_sub(cpu_from) as f64;
    let a_snapshot = cpu_ns / NS_PER_MS / refreshes as f64;
    let cpu_percent = cpu_ns / (to - from) as f64 * 100.0;
    let rss_mib = process::rss_bytes(pid)? as f64 / MIB;
    document.note(crowd, name, &A_SNAPSHOT, a_snapshot);
    document.note(crowd, name, &CPU, cpu_percent);
    document.note(crowd, name, &RSS, rss_mib);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_of_every_crowd_has_a_row() {
        for crowd in CROWDS {
            for name in crowd.contenders {
                assert!(contenders::names().any(|known| known == *name), "{name}");
            }
        }
    }
}
