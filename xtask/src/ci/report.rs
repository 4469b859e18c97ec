//! What `test` and `ci` print in the end: steps, skipped tests, what failing tests said,
//! second tries, the count.
//!
//! The last line is `N passed, N failed, N skipped`, alone on its line and
//! always there, for people and for programs that look for it.

use std::time::Duration;

use crate::tally::Tally;

/// How a step ended.
pub(super) enum Outcome {
    /// All was well.
    Passed,
    /// It did not run, for this reason.
    Skipped(String),
    /// It went wrong, like this.
    Failed(String),
}

/// A step that is over.
pub(super) struct Report {
    pub(super) name: &'static str,
    pub(super) took: Duration,
    pub(super) outcome: Outcome,
}

impl Report {
    /// Whether the step went wrong.
    pub(super) fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    /// Its name, its time and how it ended.
    pub(super) fn line(&self) -> String {
        let (result, why) = match &self.outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Skipped(why) => ("skipped", why.as_str()),
            Outcome::Failed(why) => ("FAILED", why.as_str()),
        };
        let (name, seconds) = (self.name, self.took.as_secs_f64());
        let line = format!("{name:<12}{seconds:>7.1} s  {result:<8}{why}");
        line.trim_end().to_owned()
    }
}

/// Prints the report on stdout. `no_match` is a filter that fitted no test.
pub(super) fn print(reports: &[Report], tally: &Tally, no_match: Option<&str>) {
    println!("\n{}", table(reports));
    for skip in &tally.skipped {
        println!("skipped {}: {}", skip.test, skip.reason);
    }
    print!("{}{}", tally.failures(), tally.second_tries());
    if let Some(filter) = no_match {
        println!(
            "no test ran: is there one whose name contains `{filter}`? (tests of guests: `cargo xtask vm --test {filter}`)"
        );
    }
    println!("{}", tally.closing_line());
}

fn table(reports: &[Report]) -> String {
    let row = |report: &Report| report.line() + "\n";
    reports.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_a_step_with_its_reason() {
        let report = |name, millis, outcome| Report {
            name,
            took: Duration::from_millis(millis),
            outcome,
        };
        let reports = [
            report("format", 420, Outcome::Passed),
            report("build", 61_000, Outcome::Failed("no linker".to_owned())),
            report(
                "live tests",
                0,
                Outcome::Skipped("the build failed".to_owned()),
            ),
        ];
        assert_eq!(
            table(&reports),
            "format          0.4 s  passed\n\
             build          61.0 s  FAILED  no linker\n\
             live tests      0.0 s  skipped the build failed\n"
        );
    }
}
