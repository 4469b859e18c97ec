//! Counting tests from what libtest prints.
//!
//! The counts are those of the `test result:` lines. libtest knows no test that
//! finds at run time that it cannot run; ours print `SKIPPED <test>: <reason>`
//! and return, and libtest takes them for passed. They are moved to the skipped
//! ones, and so are ignored tests: a test that did not run is never a pass.
//!
//! Failed tests may get a second try: then the program's next run corrects the
//! counts of the one before, and those that passed are named.

/// Of what a test said as it failed, so much is said again in the end.
const MOST_WORDS: usize = 300;

/// A program that fails more tests than this is broken, and none gets a second try.
const MOST_AGAIN: usize = 3;

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
    in_panic: bool,
    program: Program,
    /// What the last program failed.
    failures: Vec<String>,
    /// What the next one runs once more.
    again: Vec<String>,
}

/// What is known of the test program whose verdict is not there yet.
#[derive(Default)]
struct Program {
    /// The tests that it runs once more; none for a first run.
    again: Vec<String>,
    /// The tests that began.
    started: Vec<String>,
    skipped: Vec<Skip>,
    ignored: Vec<Skip>,
    failures: Vec<String>,
    in_failures: bool,
    running: bool,
}

impl Tally {
    /// Takes in one line of a test program's stdout.
    pub(crate) fn read(&mut self, line: &str) {
        self.read_panic(line);
        if let Some((name, _)) = started(line) {
            self.program.started.push(name.to_owned());
        }
        if let Some((passed, failed)) = verdict(line) {
            self.close_program(passed, failed);
        } else if is_start(line) {
            let again = std::mem::take(&mut self.again);
            self.end();
            self.program.again = again;
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

    /// Panics are printed as `thread 'oom::global' (12) panicked at src/oom.rs:1:2:`, what
    /// was said in lines of its own, and a note.
    fn read_panic(&mut self, line: &str) {
        if let Some(test) = panicked(line) {
            let (test, said) = (test.to_owned(), String::new());
            self.panics.push(Panic { test, said });
            self.in_panic = true;
        } else if line.is_empty() || line.starts_with("note: ") || line == "FAILED" {
            self.in_panic = false;
        } else if let Some(panic) = self.panics.last_mut().filter(|_| self.in_panic) {
            let space = if panic.said.is_empty() { "" } else { " " };
            let left = MOST_WORDS.saturating_sub(panic.said.len());
            panic.said.push_str(space);
            panic.said.extend(line.trim().chars().take(left));
        }
    }

    /// Takes in the end of a test program: one without a verdict was taken down
    /// by a test, which is counted as failed.
    pub(crate) fn end(&mut self) {
        let program = std::mem::take(&mut self.program);
        // Those of a second run have failed already.
        self.failed += usize::from(program.running && program.again.is_empty());
        self.failures.clear();
        self.again.clear();
    }

    /// In place of [`Tally::end`]: the tests of the program that are to be run once
    /// more, by themselves; what that prints is to be read next. None when there are
    /// too many, or when the program has no verdict.
    pub(crate) fn again(&mut self) -> Vec<String> {
        let names = std::mem::take(&mut self.failures);
        let is_wanted = !self.program.running && names.len() <= MOST_AGAIN;
        self.end();
        self.again = if is_wanted { names } else { Vec::new() };
        self.again.clone()
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

    /// What was not a pass at the second try stays failed.
    fn close_again(&mut self, mut program: Program) {
        let mut names = std::mem::take(&mut program.again);
        names.retain(|name| program.has_passed(name));
        self.passed += names.len();
        self.failed -= names.len();
        self.second.append(&mut names);
    }

    fn close_program(&mut self, passed: usize, failed: usize) {
        let program = std::mem::take(&mut self.program);
        if program.is_second() {
            return self.close_again(program);
        }
        let Program {
            mut skipped,
            ignored,
            failures,
            ..
        } = program;
        // A test that says it is skipped and fails afterwards has failed.
        skipped.retain(|skip| !failures.iter().any(|name| same_test(name, &skip.test)));
        self.passed += passed.saturating_sub(skipped.len());
        self.failed += failed;
        self.skipped.append(&mut skipped);
        self.skipped.extend(ignored);
        // A list with other words in it names no tests.
        let is_whole = failures.len() == failed;
        self.failures = if is_whole { failures } else { Vec::new() };
    }
}

impl Program {
    /// Whether it runs tests once more, and not others, as the run that should have
    /// done so never began.
    fn is_second(&self) -> bool {
        self.again.iter().any(|name| self.started.contains(name))
    }

    fn has_passed(&self, name: &String) -> bool {
        let is_skipped = |skip: &Skip| same_test(name, &skip.test);
        self.started.contains(name)
            && !self.failures.contains(name)
            && !self.skipped.iter().any(is_skipped)
    }
}

/// Whether libtest's name, with its modules, is that of a test which may have
/// named itself without them.
fn same_test(libtest: &str, own: &str) -> bool {
    libtest
        .strip_suffix(own)
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
pub(crate) fn started(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
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
