//! The live tests' program, `live`: what it is told, and what its output says.
//!
//! It runs tests side by side, so what a test wrote comes as a block when the test ends:
//!
//! ```text
//! --- oom::global
//! what the test wrote
//! test oom::global ... ok <4.312s>
//! ```
//!
//! A test may write anything, even lines that look like these. So within a block only
//! the verdict on its own test ends it, and only what it says of itself counts.

use std::time::Duration;

use crate::tally::{Panic, Panics, same_test};

/// The status with which it says that no test fits, or that it was asked the wrong way.
pub(crate) const NO_MATCH: i32 = 2;

/// How a test came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// It did not run, for this reason.
    Skipped(String),
    Failed,
}

/// A test that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tested {
    /// With its module: `oom::global`.
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    /// Of its last run.
    pub(crate) took: Duration,
    /// How often it was run: twice when it failed at first.
    pub(crate) tries: u32,
    /// What it said as it failed, whether or not it passed at its second try.
    pub(crate) said: Vec<String>,
}

impl Tested {
    /// One that failed and has no run of its own, and why.
    pub(crate) fn failed(name: &str, why: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            outcome: Outcome::Failed,
            took: Duration::ZERO,
            tries: 1,
            said: vec![why.into()],
        }
    }

    /// Why it failed, once for each time, under this name.
    pub(crate) fn panics(&self, name: &str) -> impl Iterator<Item = Panic> {
        self.said.iter().map(move |said| Panic {
            test: name.to_owned(),
            said: said.clone(),
        })
    }
}

/// Reads the output line by line.
#[derive(Default)]
pub(crate) struct Reader {
    is_running: bool,
    block: Option<Block>,
}

/// A test whose verdict is not there yet.
struct Block {
    name: String,
    skip: Option<String>,
    panics: Panics,
    /// The last line that shows something.
    last: String,
    /// Its first run is over, and there is a second, which may come under a line of its own.
    is_again: bool,
}

impl Reader {
    /// Takes in a line; what became of a test, if the line ends it.
    pub(crate) fn read(&mut self, line: &str) -> Option<Tested> {
        if let Some(name) = begins(line)
            && self.block.as_ref().is_none_or(|block| block.is_left(name))
        {
            self.block = Some(Block::new(name));
            return None;
        }
        let Some(block) = &mut self.block else {
            return self.read_outside(line);
        };
        match Verdict::of(line) {
            Some(verdict) if verdict.name == block.name => {
                let block = self.block.take();
                block.map(|block| block.close(&verdict))
            }
            _ => {
                block.read(line);
                None
            }
        }
    }

    /// Whether tests were begun and nothing says how they came out: the program was taken down.
    pub(crate) fn is_running(&self) -> bool {
        self.is_running
    }

    /// The program has ended, well or not.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }

    fn read_outside(&mut self, line: &str) -> Option<Tested> {
        if crate::tally::is_start(line) {
            self.is_running = true;
        } else if line.starts_with("test result: ") {
            self.is_running = false;
        }
        // One that wrote nothing may have no block.
        Verdict::of(line).map(|verdict| Block::new(verdict.name).close(&verdict))
    }
}

impl Block {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            skip: None,
            panics: Panics::default(),
            last: String::new(),
            is_again: false,
        }
    }

    /// Whether another block may begin before this one has its verdict.
    fn is_left(&self, name: &str) -> bool {
        self.is_again && self.name != name
    }

    fn read(&mut self, line: &str) {
        self.panics.read(line);
        let again = line.strip_prefix("second try ");
        if again.is_some_and(|rest| rest.strip_prefix(&*self.name).is_some_and(is_reason)) {
            // What the first run found out about the machine, the second finds out again.
            self.is_again = true;
            self.skip = None;
        }
        if let Some((name, reason)) = skip(line)
            && same_test(&self.name, name)
            && self.skip.is_none()
        {
            self.skip = Some(reason.to_owned());
        }
        if !line.trim().is_empty() {
            self.last = line.trim().to_owned();
        }
    }

    fn close(self, verdict: &Verdict<'_>) -> Tested {
        let failed = verdict.word == Word::Failed;
        let mut said: Vec<String> = Vec::new();
        // A test that passed at once may have provoked a panic.
        if failed || verdict.is_second {
            said.extend(self.panics.all.into_iter().map(|panic| panic.said));
        }
        if failed && said.is_empty() {
            said.push(format!("no panic; the last it wrote: {}", self.last));
        }
        let outcome = match (&verdict.word, self.skip) {
            (Word::Failed, _) => Outcome::Failed,
            (Word::Ignored(reason), _) => Outcome::Skipped((*reason).to_owned()),
            (Word::Ok, Some(reason)) => Outcome::Skipped(reason),
            (Word::Ok, None) => Outcome::Passed,
        };
        Tested {
            name: self.name,
            outcome,
            took: verdict.took,
            tries: if verdict.is_second { 2 } else { 1 },
            said,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Word<'a> {
    Ok,
    Failed,
    Ignored(&'a str),
}

/// A line like `test oom::global ... ok <4.312s> (2nd)`.
#[derive(Debug, PartialEq, Eq)]
struct Verdict<'a> {
    name: &'a str,
    word: Word<'a>,
    took: Duration,
    is_second: bool,
}

impl<'a> Verdict<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (name, said) = line.strip_prefix("test ")?.split_once(" ... ")?;
        let (said, is_second) = match said.strip_suffix(" (2nd)") {
            Some(said) => (said, true),
            None => (said, false),
        };
        let timed = said.split_once(" <");
        let (word, seconds) = match timed.and_then(|(word, rest)| Some((word, seconds(rest)?))) {
            Some((word, seconds)) => (word, Some(seconds)),
            None => (said, None),
        };
        let word = match word {
            "ok" => Word::Ok,
            "FAILED" => Word::Failed,
            _ => {
                let reason = word.strip_prefix("ignored")?;
                Word::Ignored(match reason.strip_prefix(", ") {
                    Some(reason) => reason,
                    None if reason.is_empty() => "it is ignored",
                    None => return None,
                })
            }
        };
        // What did not run took no time; of everything else it is known.
        let took = match word {
            Word::Ignored(_) => seconds.unwrap_or_default(),
            _ => seconds?,
        };
        Some(Self {
            name,
            word,
            took,
            is_second,
        })
    }
}

/// The time in what follows the `<` of `<4.312s>`.
fn seconds(rest: &str) -> Option<Duration> {
    let seconds: f64 = rest.strip_suffix("s>")?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The test of `--- oom::global`.
fn begins(line: &str) -> Option<&str> {
    let name = line.strip_prefix("--- ")?;
    (name.contains("::") && !name.contains(char::is_whitespace)).then_some(name)
}

/// Test and reason of `SKIPPED oom::global: no swap`.
fn skip(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("SKIPPED ")?.split_once(": ")
}

/// Whether this is what follows a name, and not the rest of a longer one.
fn is_reason(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(": ")
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
