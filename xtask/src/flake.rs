//! `flake`: how often live tests fail, run many times beside a load.
//!
//! What fails once in fifty runs of the gate is found here, with the name of the test and
//! the load that brings it out. No second try is a pass here.

use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use clap::Args;

use crate::ci::host;
use crate::live::{NO_MATCH, Outcome, Reader, Tested};
use crate::setup::{self, Missing};
use crate::tally::same_test;
use crate::{build, process, vm};

/// Options of `cargo xtask flake`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask flake a_queue_is_behind_its_root              20 times on this machine
  cargo xtask flake truth::what_sleeps_does_not_wait --times 100 --load 4
                                                            beside four busy loops
  cargo xtask flake oom::a_kill_is_told storms::a_storm --kernel 6.1
                                                            both in a guest")]
pub(crate) struct Options {
    /// Whole names of live tests, with or without their module
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// How often each is run
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Run them in a guest of this kernel
    #[arg(long, value_name = "KERNEL", value_parser = vm::kernel_names())]
    kernel: Option<String>,
    /// Beside so many programs that keep a CPU busy, on the machine that runs the tests
    #[arg(long, default_value_t = 0, value_name = "N")]
    load: u32,
}

/// Tests to be run many times.
#[derive(Clone, Debug)]
pub(crate) struct Repeat {
    pub(crate) names: Vec<String>,
    pub(crate) times: u32,
    pub(crate) load: u32,
}

impl Repeat {
    /// What the live tests' program is told.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let options = ["--exact", "--times"].map(str::to_owned);
        let times = self.times.to_string();
        let words = options.into_iter().chain([times]);
        words.chain(self.names.iter().cloned()).collect()
    }
}

/// Builds, runs the tests, and says how often each failed; success only when none did.
pub(crate) fn task(options: &Options) -> Result<ExitCode> {
    match &options.kernel {
        Some(_) => setup::guest_programs()?,
        None => setup::test_programs()?,
    }
    let toolchain = setup::toolchain(Missing::Install)?;
    build::tracer(&toolchain, true)?;
    let live = build::live_tests()?;
    let repeat = Repeat {
        names: options.names.clone(),
        times: options.times,
        load: options.load,
    };
    let tests = match &options.kernel {
        Some(kernel) => vm::repeat(kernel, &live, repeat)?,
        None => on_host(&live, &repeat)?,
    };
    let counts = counts(&options.names, &tests);
    println!();
    for count in &counts {
        println!("{}", count.line());
    }
    let is_well = counts
        .iter()
        .all(|count| count.failed == 0 && count.ran > 0);
    Ok(if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn on_host(live: &build::LiveTests, repeat: &Repeat) -> Result<Vec<Tested>> {
    let mut command = host::command(live)?;
    command.args(repeat.arguments());
    let load = Load::start(repeat.load)?;
    let mut reader = Reader::default();
    let mut tests = Vec::new();
    let status = process::stream(&mut command, |line| {
        println!("{line}");
        tests.extend(reader.read(line));
    })?;
    drop(load);
    let explained = tests.iter().any(|test| test.outcome == Outcome::Failed);
    let is_told = status.success() || explained || status.code() == Some(NO_MATCH);
    if reader.is_running() || !is_told {
        let why = format!("it ended without a result, or none that explains its {status}");
        tests.push(Tested::failed("the live tests' program", why));
    }
    Ok(tests)
}

/// What came of all runs of a test.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    name: String,
    ran: usize,
    failed: usize,
    /// What the first run said that failed.
    first: Option<String>,
    /// Why it did not run.
    skipped: Option<String>,
}

impl Count {
    fn line(&self) -> String {
        let Self {
            name, failed, ran, ..
        } = self;
        match (&self.first, &self.skipped) {
            (Some(first), _) => {
                format!("{name}: failed {failed} of {ran} (first failure: {first})")
            }
            (None, Some(reason)) if *ran == 0 => format!("{name}: skipped: {reason}"),
            (None, None) if *ran == 0 => format!("{name}: there is no live test of that name here"),
            _ => format!("{name}: failed {failed} of {ran}"),
        }
    }
}

/// By test; in the end those that were asked for and are none.
fn counts(asked: &[String], tests: &[Tested]) -> Vec<Count> {
    let mut names: Vec<&str> = Vec::new();
    for test in tests {
        if !names.contains(&test.name.as_str()) {
            names.push(&test.name);
        }
    }
    // One without its module that ran is in there with it.
    let is_there = |name: &&str| !names.iter().any(|full| same_test(full, name));
    let missing: Vec<&str> = asked.iter().map(String::as_str).filter(is_there).collect();
    names.extend(missing);
    names.iter().map(|name| count(name, tests)).collect()
}

fn count(name: &str, tests: &[Tested]) -> Count {
    let mut count = Count {
        name: name.to_owned(),
        ran: 0,
        failed: 0,
        first: None,
        skipped: None,
    };
    for test in tests.iter().filter(|test| test.name == name) {
        if let Outcome::Skipped(reason) = &test.outcome {
            count.skipped.get_or_insert_with(|| reason.clone());
            continue;
        }
        count.ran += 1;
        // A test that needed two tries failed at one.
        if test.outcome == Outcome::Failed || test.tries > 1 {
            count.failed += 1;
            let said = test.said.first().cloned().unwrap_or_default();
            count.first.get_or_insert(said);
        }
    }
    count
}

/// Busy loops, for as long as this lives.
struct Load(Child);

/// Ends its loops when its stdin is closed, which happens however xtask ends. It does not
/// hear Ctrl-C, since the loops of a shell do not either, and would be left.
const LOOPS: &str = "trap '' HUP INT QUIT TERM
for loop; do
    while :; do :; done &
    loops=\"$loops $!\"
done
echo $loops
read -r end
kill -KILL $loops";

impl Load {
    fn start(loops: u32) -> Result<Option<Self>> {
        if loops == 0 {
            return Ok(None);
        }
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", LOOPS, "load"]);
        shell.args((0..loops).map(|loop_| loop_.to_string()));
        let shell = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| process::not_started(&shell))?;
        Ok(Some(Self(shell)))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends; nothing hangs on how.
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    fn tested(name: &str, outcome: Outcome, tries: u32) -> Tested {
        Tested {
            outcome,
            tries,
            took: Duration::from_secs(1),
            ..Tested::failed(name, format!("{name} said so"))
        }
    }

    #[test]
    fn failures_are_counted_by_name() {
        let tests = [
            tested("a::x", Outcome::Passed, 1),
            tested("a::y", Outcome::Passed, 1),
            tested("a::x", Outcome::Failed, 1),
            tested("a::x", Outcome::Passed, 2),
            tested("a::z", Outcome::Skipped("no disk".to_owned()), 1),
        ];
        let asked = ["x", "a::y", "z", "w"].map(str::to_owned);
        let lines: Vec<String> = counts(&asked, &tests).iter().map(Count::line).collect();
        assert_eq!(
            lines,
            [
                "a::x: failed 2 of 3 (first failure: a::x said so)",
                "a::y: failed 0 of 1",
                "a::z: skipped: no disk",
                "w: there is no live test of that name here",
            ]
        );
    }

    #[test]
    fn the_loops_end_with_who_started_them() {
        let mut load = Load::start(2).unwrap().unwrap();
        let mut pids = String::new();
        let stdout = load.0.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut pids).unwrap();
        let folders: Vec<PathBuf> = pids
            .split_whitespace()
            .map(|pid| PathBuf::from(format!("/proc/{pid}/cmdline")))
            .collect();
        assert_eq!(folders.len(), 2);
        // A zombie has no command line.
        let runs = |path: &PathBuf| std::fs::read(path).is_ok_and(|line| !line.is_empty());
        assert!(folders.iter().all(runs));
        drop(load);
        // Killed, they take a moment to go.
        while folders.iter().any(runs) {
            std::thread::yield_now();
        }
    }
}
