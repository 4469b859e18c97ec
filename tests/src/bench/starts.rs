//! From exec to the first figures.

use anyhow::{Context as _, Result};

use super::{
    contenders::{Contender, Program, Settles},
    document::{Document, Quantity, TO_TRACER, TRACER, Workload},
    measure::Effort,
    running::Running,
    scripts,
};
use crate::time::monotonic_ns;

/// The trial.
pub(super) const STARTS: &str = "from exec to the first figures";
/// Its quantity.
pub(super) const TIME: Quantity = Quantity {
    name: "time",
    unit: "ms",
    ratio_to: TO_TRACER,
};
const NS_PER_MS: f64 = 1e6;
const SHOWS_S: f64 = 30.0;

const fn start(
    name: &'static str,
    program: Program,
    args: &'static [&'static str],
    word: &'static str,
) -> Contender {
    Contender {
        name,
        program,
        args,
        settles: Settles::Refreshed { word, not: None },
    }
}

/// The contenders and how each shows figures once, as soon as it can.
const CONTENDERS: [Contender; 8] = [
    start(
        TRACER,
        Program::Tracer,
        &[
            "run",
            "--format",
            "json",
            "--interval",
            "1s",
            "--count",
            "1",
        ],
        "\"type\":\"snapshot\"",
    ),
    start(
        "tracer --interval 100ms",
        Program::Tracer,
        &[
            "run",
            "--format",
            "json",
            "--interval",
            "100ms",
            "--count",
            "1",
        ],
        "\"type\":\"snapshot\"",
    ),
    start("runqlat 1 1", Program::Named("runqlat"), &["1", "1"], "->"),
    start("cpudist 1 1", Program::Named("cpudist"), &["1", "1"], "->"),
    start(
        "runqlat.bt, one second",
        Program::Named("bpftrace"),
        &["-e", scripts::RUNQLAT_ONCE],
        "@usecs",
    ),
    start(
        "top -b -n 1",
        Program::Named("top"),
        &["-b", "-n", "1"],
        "top - ",
    ),
    start(
        "pidstat 1 1",
        Program::Named("pidstat"),
        &["1", "1"],
        "%CPU",
    ),
    start("offcputime 1", Program::Named("offcputime"), &["1"], "    "),
];

pub(super) fn measure(document: &mut Document, effort: &Effort) -> Result<()> {
    if !effort.wants(STARTS) {
        return Ok(());
    }
    document.workloads.push(Workload {
        name: STARTS.to_owned(),
        how: "on the idle machine. All but top look over an interval, of one second unless \
              another is named, and it is part of the time"
            .to_owned(),
    });
    for round in 0..effort.start_rounds {
        eprintln!("{STARTS}: round {} of {}", round + 1, effort.start_rounds);
        let mut contenders: Vec<&Contender> = CONTENDERS.iter().collect();
        contenders.rotate_left(round % CONTENDERS.len());
        for contender in contenders {
            if document.is_skipped(STARTS, contender.name) {
                continue;
            }
            let from = monotonic_ns();
            let shown = Running::started(contender)
                .and_then(|mut running| running.refresh(SHOWS_S))
                .context("showed no figures");
            match shown {
                Ok(at) => {
                    let ms = (at - from) as f64 / NS_PER_MS;
                    document.note(STARTS, contender.name, &TIME, ms);
                }
                Err(reason) => document.skip(STARTS, contender.name, &format!("{reason:#}")),
            }
        }
    }
    Ok(())
}
