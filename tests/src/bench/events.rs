//! ns an event: what the kernel's BPF statistics say of a contender's programs.
//!
//! Each contender has a slot of a round to itself, the empty program too, with
//! nothing else attached. So none pays for code that another has pushed out of
//! the cache. What the empty program costs a call in the same round, the floor,
//! is taken off every call.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{
    contenders::{self, FLOOR, FLOOR_OF_SIGNALS, FLOOR_OF_TCP},
    document::{Document, Quantity, Reference, TO_TRACER, TRACER, Workload},
    held,
    measure::{Effort, order},
    process,
    running::Running,
};
use crate::{
    bpf, provoke,
    time::{NS, monotonic_ns},
};

/// The workload of context switches.
pub(super) const SWITCHES: &str = "context switches";
/// The workload of TCP connections.
pub(super) const CONNECTIONS: &str = "TCP connections";
/// ns a transition of all programs on `inet_sock_set_state`, with the floor in it.
pub(super) const TRANSITION: Quantity = Quantity {
    name: "programs on inet_sock_set_state",
    unit: "ns a transition",
    ratio_to: TO_TRACER,
};
/// ns a call of the program on `sched_switch`, with the floor in it.
pub(super) const HOOK: Quantity = Quantity {
    name: "program on sched_switch",
    unit: "ns a call",
    ratio_to: TO_TRACER,
};
/// The same without the floor.
pub(super) const HOOK_NET: Quantity = Quantity {
    name: "the same, net of the floor",
    unit: "ns a call",
    ratio_to: TO_TRACER_OR_NOISE,
};
const ALL_NET: Quantity = Quantity {
    name: "all programs, net of the floor",
    unit: "ns an event",
    ratio_to: TO_TRACER_OR_NOISE,
};
const A_CALL: Quantity = Quantity {
    name: "time",
    unit: "ns a call",
    ratio_to: None,
};
const CALLS: Quantity = Quantity {
    name: "calls",
    unit: "a second",
    ratio_to: None,
};
const CPU: Quantity = Quantity {
    name: "CPU of the process",
    unit: "% of a CPU",
    ratio_to: TO_TRACER,
};
const RSS: Quantity = Quantity {
    name: "resident memory",
    unit: "MiB",
    ratio_to: TO_TRACER,
};
const MAPS: Quantity = Quantity {
    name: "memory of its maps",
    unit: "MiB",
    ratio_to: TO_TRACER,
};
/// A net cost below 1 ns is noise, and counts as 1 ns in a ratio.
const TO_TRACER_OR_NOISE: Option<Reference> = Some(Reference {
    contender: TRACER,
    at_least: 1.0,
});
const MIB: f64 = 1_048_576.0;
/// The names of programs on the tracepoint begin so, whoever wrote them.
const SWITCH_PROGRAM: &str = "sched_switch";
/// The names of tracer's programs on transitions begin so.
const TRANSITION_PROGRAM: &str = "inet_sock_set";
/// A program that is called less often has too few calls for a figure.
const FEWEST_CALLS: u64 = 10;

/// A workload whose events are counted.
struct Trial {
    name: &'static str,
    how: &'static str,
    source: Source,
    contenders: &'static [&'static str],
    /// Of an event: transitions of TCP sockets.
    transitions: u64,
    rounds: fn(&Effort) -> usize,
}

/// Where the events come from.
enum Source {
    /// `stress-ng --switch`; the programs on `sched_switch` count them.
    StressSwitch,
    /// A workload of `provoke` that counts them itself.
    Provoke(&'static str),
}

/// A new workload is a row here.
const TRIALS: [Trial; 5] = [
    Trial {
        name: SWITCHES,
        how: "`stress-ng --switch 1`; an event is a call of the contender's program on \
              sched_switch",
        source: Source::StressSwitch,
        contenders: &[
            FLOOR,
            TRACER,
            "runqlat",
            "runqslower",
            "cpudist",
            "offcputime",
            "runqlat.bt",
            "cpudist.bt",
            "offcputime.bt",
        ],
        transitions: 0,
        rounds: |effort| effort.switch_rounds,
    },
    Trial {
        name: "short-lived processes",
        how: "one process after the other that exits at once; an event is a process",
        source: Source::Provoke("processes"),
        contenders: &[FLOOR, TRACER, "runqlat", "cpudist", "offcputime"],
        transitions: 0,
        rounds: |effort| effort.other_rounds,
    },
    Trial {
        name: CONNECTIONS,
        how: "connected, accepted and closed over loopback; an event is a connection, with nine \
              transitions of its two sockets. *all programs* are those of context switches too, \
              of which there are more than transitions",
        source: Source::Provoke("connections"),
        contenders: &[FLOOR, FLOOR_OF_TCP, TRACER, "tcpstates", "tcplife"],
        transitions: 9,
        rounds: |effort| effort.other_rounds,
    },
    Trial {
        name: "signals",
        how: "a process sends itself signals that it ignores; an event is a signal. tracer looks \
              for SIGKILL alone",
        source: Source::Provoke("signals"),
        contenders: &[FLOOR, FLOOR_OF_SIGNALS, TRACER, "sigsnoop"],
        transitions: 0,
        rounds: |effort| effort.other_rounds,
    },
    Trial {
        name: "block I/O",
        how: "direct writes of 4 KiB into a file in the folder for temporary files; an event is \
              a write",
        source: Source::Provoke("writes"),
        contenders: &[FLOOR, TRACER, "biosnoop"],
        transitions: 0,
        rounds: |effort| effort.other_rounds,
    },
];

impl Trial {
    fn each_program(&self) -> String {
        format!("{}, program by program", self.name)
    }
}

/// What a slot found.
struct Slot {
    /// Its length.
    seconds: f64,
    /// Programs by name: calls and ns of the slot.
    programs: BTreeMap<String, (u64, u64)>,
    /// Events, where the workload counts them.
    events: Option<u64>,
    /// CPU of the process as a part of one CPU, RSS and maps in bytes.
    process: Option<(f64, u64, u64)>,
}

pub(super) fn measure(document: &mut Document, effort: &Effort) -> Result<()> {
    for trial in TRIALS.iter().filter(|trial| effort.wants(trial.name)) {
        document.workloads.push(Workload {
            name: trial.name.to_owned(),
            how: trial.how.to_owned(),
        });
        document.workloads.push(Workload {
            name: trial.each_program(),
            how: "the same slots; the floor is not taken off".to_owned(),
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
    let mut slots = Vec::new();
    for name in order(trial.contenders, round) {
        if document.is_skipped(trial.name, name) {
            continue;
        }
        match slot(name, trial, effort) {
            Ok(slot) => slots.push((name, slot)),
            Err(reason) => document.skip(trial.name, name, &format!("{reason:#}")),
        }
    }
    let floor = slots
        .iter()
        .find(|(name, _)| *name == FLOOR)
        .and_then(|(_, slot)| slot.hook_ns());
    let Some(floor_ns) = floor else {
        return Ok(());
    };
    for (name, slot) in &slots {
        let mut note = |quantity, value: Option<f64>| {
            if let Some(value) = value {
                document.note(trial.name, name, quantity, value);
            }
        };
        if matches!(trial.source, Source::StressSwitch) {
            note(&HOOK, slot.hook_ns());
            if *name != FLOOR {
                note(&HOOK_NET, slot.hook_ns().map(|ns| ns - floor_ns));
            }
        }
        if *name != FLOOR {
            note(&ALL_NET, slot.all_net_ns(floor_ns));
        }
        note(&TRANSITION, slot.transition_ns(name, trial.transitions));
        if let Some((cpu_ratio, rss_bytes, map_bytes)) = slot.process {
            note(&CPU, Some(cpu_ratio * 100.0));
            note(&RSS, Some(rss_bytes as f64 / MIB));
            note(&MAPS, Some(map_bytes as f64 / MIB));
        }
        let called = slot
            .programs
            .iter()
            .filter(|(_, (calls, _))| *calls >= FEWEST_CALLS);
        for (program, &(calls, ns)) in called {
            let whose = format!("{name}: {program}");
            let each = trial.each_program();
            document.note(&each, &whose, &A_CALL, ns as f64 / calls as f64);
            document.note(&each, &whose, &CALLS, calls as f64 / slot.seconds);
        }
    }
    Ok(())
}

fn slot(name: &str, trial: &Trial, effort: &Effort) -> Result<Slot> {
    let running = Running::settled(contenders::named(name)?)?;
    let _statistics = bpf::statistics();
    let held = running.held()?;
    let cpu = |running: &Running| running.pid().map(process::cpu_ns).transpose();
    let (cpu_before, from) = (cpu(&running)?, monotonic_ns());
    let before = held::costs(&held.programs);
    let events = trial.source.run(effort.slot_ms)?;
    let after = held::costs(&held.programs);
    let elapsed_ns = (monotonic_ns() - from) as f64;
    let process = match (cpu_before, cpu(&running)?, running.pid()) {
        (Some(before), Some(after), Some(pid)) => Some((
            after.saturating_sub(before) as f64 / elapsed_ns,
            process::rss_bytes(pid)?,
            running.held()?.map_bytes(),
        )),
        _ => None,
    };
    let mut programs = BTreeMap::<String, (u64, u64)>::new();
    for (id, (program, now)) in after {
        let (calls, ns) = before
            .get(&id)
            .map_or((0, 0), |(_, before)| (before.calls, before.ns));
        let sum = programs.entry(program).or_default();
        sum.0 += now.calls - calls;
        sum.1 += now.ns - ns;
    }
    ensure!(
        programs.values().any(|(calls, _)| *calls > 0),
        "attached, but never called by the kernel"
    );
    Ok(Slot {
        seconds: elapsed_ns / NS,
        programs,
        events,
        process,
    })
}

impl Slot {
    fn hook(&self) -> Option<(u64, u64)> {
        let is_hook = |name: &str| name.starts_with(SWITCH_PROGRAM) || name == "floor";
        let (_, hook) = self.programs.iter().find(|(name, _)| is_hook(name))?;
        (hook.0 > 0).then_some(*hook)
    }

    fn hook_ns(&self) -> Option<f64> {
        let (calls, ns) = self.hook()?;
        Some(ns as f64 / calls as f64)
    }

    /// Each of the transitions that there are in an event.
    fn transition_ns(&self, contender: &str, transitions: u64) -> Option<f64> {
        let count = self.events? * transitions;
        // The others' programs have nothing else to do.
        let is_on_it =
            |program: &str| contender != TRACER || program.starts_with(TRANSITION_PROGRAM);
        let on_it = self.programs.iter().filter(|(name, _)| is_on_it(name));
        let ns: u64 = on_it.map(|(_, (_, ns))| ns).sum();
        (count > 0).then(|| ns as f64 / count as f64)
    }

    fn all_net_ns(&self, floor_ns: f64) -> Option<f64> {
        let events = self.events.or_else(|| Some(self.hook()?.0))?;
        let calls: u64 = self.programs.values().map(|(calls, _)| calls).sum();
        let ns: u64 = self.programs.values().map(|(_, ns)| ns).sum();
        Some((ns as f64 - calls as f64 * floor_ns) / events.max(1) as f64)
    }
}

impl Source {
    /// Runs it for so long; how many events there were, if it counts them.
    fn run(&self, ms: u64) -> Result<Option<u64>> {
        match self {
            Self::StressSwitch => {
                // It takes whole seconds only.
                let seconds = ms.div_ceil(1000).to_string();
                let ended = Command::new("stress-ng")
                    .args(["--switch", "1", "-q", "-t", &seconds])
                    .status()
                    .context("stress-ng does not start: install it")?;
                ensure!(ended.success(), "stress-ng failed ({ended})");
                Ok(None)
            }
            Self::Provoke(mode) => Ok(Some(provoke::count(mode, ms)?.count)),
        }
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

    #[test]
    fn the_floor_is_taken_off_every_call() {
        let programs = [("sched_switch", (10, 5000)), ("sched_wakeup", (5, 1000))];
        let slot = Slot {
            seconds: 1.0,
            programs: programs.map(|(name, cost)| (name.to_owned(), cost)).into(),
            events: None,
            process: None,
        };
        assert_eq!(slot.hook_ns(), Some(500.0));
        assert_eq!(slot.all_net_ns(80.0), Some(480.0));
        let counted = Slot {
            events: Some(100),
            ..slot
        };
        assert_eq!(counted.all_net_ns(80.0), Some(48.0));
        assert_eq!(counted.transition_ns("tcpstates", 6), Some(10.0));
        assert_eq!(counted.transition_ns(TRACER, 6), Some(0.0));
        assert_eq!(counted.transition_ns(TRACER, 0), None);
    }
}
