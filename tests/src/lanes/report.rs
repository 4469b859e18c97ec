//! What the program prints: as libtest does, and a test's own words in one piece.

use std::{
    io::{self, Write as _},
    sync::Mutex,
};

use super::{Lane, Test, child::Ended, ledger::Entry};

/// Counts of tests, and their words, one test at a time.
#[derive(Default)]
pub(super) struct Report(Mutex<Counts>);

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    passed: usize,
    failed: usize,
}

impl Report {
    /// The first line.
    pub(super) fn begin(&self, tests: usize) {
        say(&format!("running {tests} tests\n"));
    }

    /// A test has ended for good.
    pub(super) fn end(&self, test: &Test, ended: &Ended, tries: usize) {
        let mut counts = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if ended.is_passed {
            counts.passed += 1;
        } else {
            counts.failed += 1;
        }
        let mark = if tries > 1 { " (2nd)" } else { "" };
        say(&(block(test, ended) + &verdict(test, ended, mark)));
    }

    /// A test has failed, and gets another try.
    pub(super) fn once_more(&self, test: &Test, ended: &Ended, entry: &Entry) {
        let _one_at_a_time = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let second = format!("second try {}: {}\n", test.name, entry.reason);
        say(&(block(test, ended) + &second));
    }

    /// The last line; whether no test has failed.
    pub(super) fn close(&self) -> bool {
        let counts = *self.0.lock().unwrap_or_else(|e| e.into_inner());
        let Counts { passed, failed } = counts;
        let word = if failed == 0 { "ok" } else { "FAILED" };
        say(&format!(
            "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored\n"
        ));
        failed == 0
    }
}

/// What a test wrote, behind its name.
fn block(test: &Test, ended: &Ended) -> String {
    let end = if ended.said.is_empty() || ended.said.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("--- {}\n{}{end}", test.name, ended.said)
}

fn verdict(test: &Test, ended: &Ended, mark: &str) -> String {
    let word = if ended.is_passed { "ok" } else { "FAILED" };
    format!(
        "test {} ... {word} <{:.3}s>{mark}\n",
        test.name, ended.seconds
    )
}

/// A line for xtask.
pub(super) fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    // Nobody who listens: the status still says how it went.
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

/// The table of `--list`.
pub(super) fn list(tests: &[&Test], lane_of: impl Fn(&Test) -> Lane) -> String {
    let row = |test: &&Test| {
        let place = match (test.host_only, test.guest_only) {
            ("", "") => "host, guests".to_owned(),
            ("", why) => format!("guests ({why})"),
            (why, _) => format!("host ({why})"),
        };
        let tier = match (test.all_only, test.in_contract) {
            ("", true) => "every kernel".to_owned(),
            ("", false) => "oldest and newest".to_owned(),
            (why, _) => format!("--all ({why})"),
        };
        let lane = match lane_of(test) {
            Lane::Parallel => "parallel".to_owned(),
            lane => format!("{lane:?} ({})", test.why_alone).to_lowercase(),
        };
        format!("{:<70} {place}; {tier}; {lane}\n", test.name)
    };
    tests.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_ends_in_the_verdict() {
        let test = Test::new("a::test", || {});
        let ended = Ended {
            is_passed: true,
            seconds: 4.3124,
            said: "words without an end".to_owned(),
        };
        assert_eq!(
            block(&test, &ended) + &verdict(&test, &ended, " (2nd)"),
            "--- a::test\nwords without an end\ntest a::test ... ok <4.312s> (2nd)\n"
        );
    }
}
