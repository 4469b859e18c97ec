//! The run: every trial in its order, and the document that comes of it.

use anyhow::Result;

use super::{
    budgets, crowds,
    document::{Document, SCHEMA},
    events, machine, slowdown, starts,
};
use crate::time::{monotonic_ns, utc_text, wall_ns};

/// How long and how often.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Only the workloads whose name contains this.
    pub only: Option<String>,
    /// Whether this is the short run.
    pub is_quick: bool,
    /// Rounds of the trials about context switches, where a few ns are judged.
    pub switch_rounds: usize,
    /// Rounds of the other trials in which events are counted or throughput is
    /// measured.
    pub other_rounds: usize,
    /// Rounds in which crowds are looked at.
    pub crowd_rounds: usize,
    /// Rounds in which starts are timed.
    pub start_rounds: usize,
    /// Length of a slot in which something is counted, in ms.
    pub slot_ms: u64,
    /// Refreshes of a slot in which a crowd is looked at.
    pub refreshes: u64,
}

impl Effort {
    /// The run whose figures are shown: about 15 minutes.
    pub const FULL: Self = Self {
        only: None,
        is_quick: false,
        switch_rounds: 7,
        other_rounds: 3,
        crowd_rounds: 3,
        start_rounds: 5,
        slot_ms: 1500,
        refreshes: 2,
    };
    /// The run that shows that all of it works: about two minutes.
    pub const QUICK: Self = Self {
        only: None,
        is_quick: true,
        switch_rounds: 1,
        other_rounds: 1,
        crowd_rounds: 1,
        start_rounds: 1,
        slot_ms: 500,
        refreshes: 2,
    };

    pub(super) fn wants(&self, workload: &str) -> bool {
        let only = self.only.as_deref();
        only.is_none_or(|only| workload.contains(only))
    }

    /// What was typed to have this.
    fn command(&self) -> String {
        let mut command = "cargo xtask bench".to_owned();
        if self.is_quick {
            command += " --quick";
        }
        if let Some(only) = &self.only {
            command += &format!(" --only '{only}'");
        }
        command
    }
}

/// Measures everything. What cannot be measured here is in the document as
/// skipped.
///
/// # Errors
/// tracer or the empty program does not run here.
pub fn run(effort: &Effort) -> Result<Document> {
    machine::show_tracepoints();
    let mut document = Document {
        schema: SCHEMA,
        date: utc_text(wall_ns()),
        command: effort.command(),
        machine: machine::look()?,
        versions: machine::versions(),
        workloads: Vec::new(),
        figures: Vec::new(),
        skipped: Vec::new(),
        verdicts: Vec::new(),
    };
    let trials: [fn(&mut Document, &Effort) -> Result<()>; 4] = [
        events::measure,
        slowdown::measure,
        crowds::measure,
        starts::measure,
    ];
    let began = monotonic_ns();
    for trial in trials {
        trial(&mut document, effort)?;
        eprintln!("{} s so far", (monotonic_ns() - began) / 1_000_000_000);
    }
    document.finish();
    document.verdicts = budgets::judge(&document);
    Ok(document)
}

/// The order of a round: each begins with another contender, and every other
/// goes backwards, so that none always has the same neighbour before it.
pub(super) fn order<'a>(names: &[&'a str], round: usize) -> Vec<&'a str> {
    let mut order = names.to_vec();
    if !order.is_empty() {
        let by = round % order.len();
        order.rotate_left(by);
    }
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_rotates_and_turns() {
        let names = ["a", "b", "c"];
        assert_eq!(order(&names, 0), ["a", "b", "c"]);
        assert_eq!(order(&names, 1), ["a", "c", "b"]);
        assert_eq!(order(&names, 2), ["c", "a", "b"]);
        assert_eq!(order(&names, 3), ["c", "b", "a"]);
        assert!(order(&[], 4).is_empty());
    }
}
