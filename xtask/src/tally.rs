//! Counting tests from what their programs print.
//!
//! Unit tests are libtest's: the counts are those of its `test result:` lines. libtest
//! knows no test that finds at run time that it cannot run; ours print
//! `SKIPPED <test>: <reason>` and return, and libtest takes them for passed. They are
//! moved to the skipped ones, and so are ignored tests: a test that did not run is never
//! a pass.
//!
//! Live tests are counted one by one (see `live`). One that failed and passed at its
//! second try is a pass, and is named.

use crate::live::{Outcome, Reader, Tested};

/// Of what a test said as it failed, so much is said again in the end.
const MOST_WORDS: usize = 300;

/// A test that did not run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) test: String,
    pub(crate) reason: String,
}

/// What a test said as it failed, whether or not it passed at its second try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panic {
    pub(crate) test: String,
    pub(crate) said: String,
}

/// The tests of any number of test programs, counted line by line.
#[derive(Default)]
pub(crate) struct Tally {
    /// Tests that ran and succeeded.
    pub(crate) passed: usize,
    /// Tests that failed.
    pub(crate) failed: usize,
    /// Tests that did not run.
    pub(crate) skipped: Vec<Skip>,
    /// Of the passed ones, those that had failed before.
    pub(crate) second: Vec<String>,
    /// Why tests failed, in the order in which they did.
    pub(crate) panics: Vec<Panic>,
    program: Program,
    live: Reader,
}

/// What is known of the test program whose verdict is not there yet.
#[derive(Default)]
struct Program {
    panics: Panics,
    skipped: Vec<Skip>,
    ignored: Vec<Skip>,
    failures: Vec<String>,
    in_failures: bool,
    running: bool,
}

impl Tally {
    /// Takes in one line of a libtest program's stdout.
    pub(crate) fn read(&mut self, line: &str) {
        self.program.panics.read(line);
        if let Some((passed, failed)) = verdict(line) {
            self.close_program(passed, failed);
        } else if is_start(line) {
            self.end();
            self.program.running = true;
        } else if let Some(skip) = skip(line) {
            // A test may find several reasons; it is one test all the same.
            if self
                .program
                .skipped
                .iter()
                .all(|seen| seen.test != skip.test)
            {
                self.program.skipped.push(skip);
            }
        } else if let Some(ignored) = ignored(line) {
            self.program.ignored.push(ignored);
        } else if line == "failures:" {
            // Printed twice: before what the tests wrote, then before the names.
            self.program.failures.clear();
            self.program.in_failures = true;
        } else if self.program.in_failures
            && let Some(name) = line.strip_prefix("    ")
        {
            self.program.failures.push(name.to_owned());
        }
    }

    /// Takes in one line of the live tests' program.
    pub(crate) fn read_live(&mut self, line: &str) {
        if let Some(tested) = self.live.read(line) {
            let name = tested.name.clone();
            self.add(&tested, &name);
        }
    }

    /// Counts a live test, under this name.
    pub(crate) fn add(&mut self, tested: &Tested, name: &str) {
        self.panics.extend(tested.panics(name));
        match &tested.outcome {
            Outcome::Passed => {
                self.passed += 1;
                if tested.tries > 1 {
                    self.second.push(name.to_owned());
                }
            }
            Outcome::Failed => self.failed += 1,
            Outcome::Skipped(reason) => self.skipped.push(Skip {
                test: name.to_owned(),
                reason: reason.clone(),
            }),
        }
    }

    /// Takes in the end of a test program: one without a verdict was taken down
    /// by a test, which is counted as failed.
    pub(crate) fn end(&mut self) {
        let program = std::mem::take(&mut self.program);
        self.panics.extend(program.panics.all);
        self.failed += usize::from(program.running) + usize::from(self.live.is_running());
        self.live.end();
    }

    /// Adds what was counted elsewhere.
    pub(crate) fn merge(&mut self, mut other: Tally) {
        other.end();
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.append(&mut other.skipped);
        self.second.append(&mut other.second);
        self.panics.append(&mut other.panics);
    }

    /// How many tests there were, run or not.
    pub(crate) fn tests(&self) -> usize {
        self.passed + self.failed + self.skipped.len()
    }

    /// A line for each time that a test failed, with what it said.
    pub(crate) fn failures(&self) -> String {
        let line = |panic: &Panic| format!("failed {}: {}\n", panic.test, panic.said);
        self.panics.iter().map(line).collect()
    }

    /// A line for each test that passed only when it was run once more.
    pub(crate) fn second_tries(&self) -> String {
        let line = |test: &String| format!("passed at the second try: {test}\n");
        self.second.iter().map(line).collect()
    }

    /// `N passed, N failed, N skipped`: for people, and for programs that look for it.
    pub(crate) fn closing_line(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed,
            self.skipped.len()
        )
    }

    fn close_program(&mut self, passed: usize, failed: usize) {
        let Program {
            panics,
            mut skipped,
            ignored,
            failures,
            ..
        } = std::mem::take(&mut self.program);
        // A test that says it is skipped and fails afterwards has failed.
        skipped.retain(|skip| !failures.iter().any(|name| same_test(name, &skip.test)));
        self.passed += passed.saturating_sub(skipped.len());
        self.failed += failed;
        self.skipped.append(&mut skipped);
        self.skipped.extend(ignored);
        self.panics.extend(panics.all);
    }
}

/// The panics in what test programs write.
#[derive(Default)]
pub(crate) struct Panics {
    pub(crate) all: Vec<Panic>,
    in_panic: bool,
}

impl Panics {
    /// They are printed as `thread 'oom::global' (12) panicked at src/oom.rs:1:2:`, what
    /// was said in lines of its own, and a note.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(test) = panicked(line) {
            let (test, said) = (test.to_owned(), String::new());
            self.all.push(Panic { test, said });
            self.in_panic = true;
        } else if is_end_of_panic(line) {
            self.in_panic = false;
        } else if let Some(panic) = self.all.last_mut().filter(|_| self.in_panic) {
            let space = if panic.said.is_empty() { "" } else { " " };
            let left = MOST_WORDS.saturating_sub(panic.said.len());
            panic.said.push_str(space);
            panic.said.extend(line.trim().chars().take(left));
        }
    }
}

/// Whether a name with its modules is that of a test which may have
/// named itself without them.
pub(crate) fn same_test(full: &str, own: &str) -> bool {
    full.strip_suffix(own)
        .is_some_and(|modules| modules.is_empty() || modules.ends_with("::"))
}

/// Whether a line is libtest's `running 3 tests`.
pub(crate) fn is_start(line: &str) -> bool {
    let count = line
        .strip_prefix("running ")
        .and_then(|rest| rest.split_once(" test"));
    count
        .is_some_and(|(count, plural)| count.parse::<usize>().is_ok() && matches!(plural, "" | "s"))
}

/// Name and the rest of `test <name> ... `, which with one test thread and no
/// capture is printed when the test begins.
fn started(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}

/// Whether a line is not of what a panic said any more.
fn is_end_of_panic(line: &str) -> bool {
    line.is_empty() || line.starts_with("note: ") || matches!(line, "FAILED" | "stack backtrace:")
}

/// The test of `thread '<test>' (<thread>) panicked at <place>`.
fn panicked(line: &str) -> Option<&str> {
    let (test, rest) = line.strip_prefix("thread '")?.split_once("' ")?;
    rest.contains("panicked at ").then_some(test)
}

/// The counts of `test result: ok. 3 passed; 1 failed; ...`: passed and failed.
fn verdict(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what| {
        let mut parts = counts.split("; ");
        parts.find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
    };
    Some((count("passed")?, count("failed")?))
}

/// The skip of `SKIPPED <test>: <reason>`, which with one test thread and no
/// capture stands behind libtest's own `test <name> ... `.
fn skip(line: &str) -> Option<Skip> {
    let own = started(line).map_or(line, |(_, own)| own);
    let (test, reason) = own.strip_prefix("SKIPPED ")?.split_once(": ")?;
    Some(Skip {
        test: test.to_owned(),
        reason: reason.to_owned(),
    })
}

/// The skip of `test <name> ... ignored, <reason>`; the reason may be missing.
fn ignored(line: &str) -> Option<Skip> {
    let (test, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    let reason = rest.strip_prefix(", ").unwrap_or("marked #[ignore]");
    Some(Skip {
        test: test.to_owned(),
        reason: reason.to_owned(),
    })
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
