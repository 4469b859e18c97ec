//! `vm`: the live tests on other kernels, in guests made on the spot.
//!
//! A guest is a Debian cloud kernel under QEMU without KVM, with an initramfs
//! of busybox, the static tracer and the static live tests, and two disks. What
//! its tests say is shown as it comes, the kernel's name in front. In the end
//! there is a table, tests by kernels, and the same as JSON under target/vm.
//!
//! A test that fails is run once more: the job asks which those are, as the counts
//! are kept here. One that passes then is named in the end.
//!
//! What `tracer doctor` says of each kernel is held against docs/kernels/.

mod apt;
mod emulator;
mod guest;
mod image;
mod kernels;
mod results;
mod script;
mod turns;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::Value;

use crate::build::{self, LiveTests};
use crate::setup::{self, Missing};
use crate::tally::{Panic, Skip, Tally};
use crate::{clock, docs, workspace};
use emulator::Emulator;
use guest::{End, Guest};
use kernels::{Image, KERNELS, Kernel};
use results::{Log, Outcome, Report, Tested};
pub(crate) use script::GUEST_ONLY;
use script::{ALONE, REFUSED};
use turns::Turns;

/// Guests at a time: each has two CPUs and keeps them busy.
const AT_A_TIME: usize = 2;
const LAST_LINES: usize = 15;
/// QEMU 7.2 brings down one guest in ten or so (`guest::ran_stale_code`).
const MOST_RETRIES: usize = 2;

/// The test that is xtask's own.
const DOCTOR_TEST: &str = "doctor says what is kept";

/// Options of `cargo xtask vm`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask vm                              truth, and what only a guest can bear, on every kernel
  cargo xtask vm --kernel 6.1 --kernel 6.12   on these
  cargo xtask vm --test blocked               tests whose name contains `blocked`
  cargo xtask vm --test causes                tests of the program tests/tests/causes.rs
  cargo xtask vm --keep                       write docs/kernels/ anew, and the page made from it")]
pub(crate) struct Options {
    /// Boot only this kernel; may be given several times
    #[arg(long = "kernel", value_name = "NAME", value_parser = KERNELS.map(|kernel| kernel.name))]
    kernels: Vec<String>,
    /// Run only the tests of the program of this name, or whose name contains this
    #[arg(long, value_name = "PATTERN")]
    test: Option<String>,
    /// Keep what `tracer doctor` says of each kernel, instead of comparing it; of a
    /// complete run also the table of tests
    #[arg(long)]
    keep: bool,
}

/// Runs the task: set-up, build, guests, report.
pub(crate) fn task(options: &Options) -> Result<ExitCode> {
    setup::guest_programs()?;
    let toolchain = setup::toolchain(Missing::Install)?;
    build::tracer(&toolchain, true)?;
    let reports = run(options)?;
    let mut tally = Tally::default();
    count(&reports, &mut tally);
    let is_complete = options.kernels.is_empty() && options.test.is_none();
    if options.keep {
        docs::task()?;
        // The page says what `-` and a number mean, and nothing of failures.
        if is_complete && tally.failed == 0 && reports.iter().all(|r| r.skipped.is_none()) {
            fs::write(docs_folder().join("tests.md"), results::page(&reports))?;
        }
    }
    // A pattern that fits nothing is a slip of the keyboard, not a success.
    let mut tests = reports.iter().flat_map(|report| &report.tests);
    let any_ran = tests.any(|test| test.name != DOCTOR_TEST);
    if !any_ran {
        println!("no test ran in a guest: is there one of that name?");
    }
    print!("{}{}", tally.failures(), tally.second_tries());
    println!("{}", tally.closing_line());
    Ok(if tally.failed > 0 || !any_ran {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The guests of a complete run, for `test` and `ci`; what is built is taken.
pub(crate) fn all(tally: &mut Tally) -> Result<()> {
    let options = Options {
        kernels: Vec::new(),
        test: None,
        keep: false,
    };
    count(&run(&options)?, tally);
    Ok(())
}

fn run(options: &Options) -> Result<Vec<Report>> {
    let job = Job {
        turns: Turns::default(),
        live: build::live_tests()?,
        test: options.test.clone(),
        keep: options.keep,
    };
    let base = match Emulator::provide().and_then(|qemu| Ok((qemu, kernels::busybox()?))) {
        Ok((emulator, busybox)) => Ok(Base {
            emulator,
            archive: image::base(&job.live, &busybox)?,
        }),
        Err(error) => Err(error),
    };
    let is_wanted = |kernel: &&Kernel| {
        // A kernel that is refused has one test; a pattern may leave it none.
        let pattern = options.test.as_deref().unwrap_or("");
        let has_tests = !kernel.refused || REFUSED.contains(pattern);
        let is_named = options.kernels.iter().any(|name| name == kernel.name);
        has_tests && (options.kernels.is_empty() || is_named)
    };
    let wanted: Vec<&Kernel> = KERNELS.iter().filter(is_wanted).collect();
    // The newest first: they take longest.
    let queue: Mutex<VecDeque<&Kernel>> = Mutex::new(wanted.iter().rev().copied().collect());
    let done: Mutex<Vec<Report>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(kernel) = take(&queue) {
                    let report = job.on(kernel, &base);
                    done.lock().unwrap_or_else(|e| e.into_inner()).push(report);
                }
            });
        }
    });
    let mut reports = done.into_inner().unwrap_or_else(|e| e.into_inner());
    reports.sort_by_key(|report| {
        KERNELS
            .iter()
            .position(|kernel| kernel.name == report.kernel)
    });
    println!("\n{}", results::table(&reports));
    let file = workspace::target("vm/results.json");
    fs::write(&file, format!("{:#}\n", results::json(&reports)))?;
    Ok(reports)
}

fn take<'a>(queue: &Mutex<VecDeque<&'a Kernel>>) -> Option<&'a Kernel> {
    queue.lock().unwrap_or_else(|e| e.into_inner()).pop_front()
}

/// Adds the outcomes to the closing count, with why tests were skipped and which were
/// run twice.
fn count(reports: &[Report], tally: &mut Tally) {
    for report in reports {
        let mut skip = |test: &str, reason: &String| {
            tally.skipped.push(Skip {
                test: format!("{test} on {}", report.kernel),
                reason: reason.clone(),
            });
        };
        for panic in &report.panics {
            tally.panics.push(Panic {
                test: format!("{} on {}", panic.test, report.kernel),
                said: panic.said.clone(),
            });
        }
        if let Some(reason) = &report.skipped {
            skip("all tests", reason);
        }
        for test in &report.tests {
            match &test.outcome {
                Outcome::Passed => {
                    tally.passed += 1;
                    if test.tries > 1 {
                        let second = format!("{} on {}", test.name, report.kernel);
                        tally.second.push(second);
                    }
                }
                Outcome::Failed => tally.failed += 1,
                Outcome::Skipped(reason) => skip(&test.name, reason),
            }
        }
    }
}

/// What every guest is made of.
struct Base {
    emulator: Emulator,
    /// The archive that all share.
    archive: Vec<u8>,
}

/// What every guest does.
struct Job {
    turns: Turns,
    live: LiveTests,
    test: Option<String>,
    keep: bool,
}

impl Job {
    /// Runs it on a kernel. What cannot be had is skipped, and says so; a guest
    /// that cannot be started counts as a test that failed.
    fn on(&self, kernel: &Kernel, base: &Result<Base>) -> Report {
        let mut report = Report {
            kernel: kernel.name,
            release: String::new(),
            skipped: None,
            tests: Vec::new(),
            panics: Vec::new(),
            took: Duration::ZERO,
        };
        let image = match base {
            Ok(base) => kernels::provide(kernel).map(|image| (image, base)),
            Err(error) => Err(anyhow!("{error:#}")),
        };
        let (image, base) = match image {
            Ok(both) => both,
            Err(error) => {
                report.skipped = Some(format!("no guest can be had: {error:#}"));
                return report;
            }
        };
        report.release.clone_from(&image.release);
        let began = clock::now();
        match self.boot(kernel, &image, base) {
            Ok((tests, panics)) => (report.tests, report.panics) = (tests, panics),
            Err(error) => {
                println!("{:<5}| error: {error:#}", kernel.name);
                report.tests.push(failed("the guest's start"));
            }
        }
        report.took = began.elapsed();
        report
    }

    fn boot(
        &self,
        kernel: &Kernel,
        image: &Image,
        base: &Base,
    ) -> Result<(Vec<Tested>, Vec<Panic>)> {
        let name = kernel.name;
        let folder = workspace::target("vm").join(name);
        fs::create_dir_all(&folder)?;
        let initrd = folder.join(guest::INITRD);
        let own = image::own(image, script::of(kernel, self.test.as_deref()))?;
        fs::write(&initrd, [&base.archive[..], &own].concat())?;
        let mut panics = Vec::new();
        let mut listen = || -> Result<(Log, End)> {
            let (mut log, end) = self.listen(name, image, &base.emulator, &folder)?;
            panics.extend(log.panics());
            panics.extend(bad_end(&end, &log, &folder)?);
            Ok((log, end))
        };
        let (mut log, mut end) = listen()?;
        for _ in 0..MOST_RETRIES {
            if !guest::ran_stale_code(&end, &folder)? {
                break;
            }
            println!("{name:<5}| QEMU ran code that the kernel had patched: once more");
            (log, end) = listen()?;
        }
        let has_hung = matches!(end, End::TimedOut(_));
        if has_hung {
            println!("{name:<5}| hung: once more");
            (log, end) = listen()?;
        }
        fs::remove_file(&initrd)?;
        let mut tests = vec![self.doctor(name, log.doctor.take())?];
        tests.extend(log.tests(&end, clock::now()));
        if has_hung {
            tests.push(came_to_its_end(&end));
        }
        // Without a pattern the tests that the job names must be among them.
        let expected = if kernel.refused { REFUSED } else { ALONE.1 };
        let is_there = tests.iter().any(|test| test.name == expected);
        if self.test.is_none() && end == End::Left(0) && !is_there {
            tests.push(failed(expected));
        }
        Ok((tests, panics))
    }

    /// Runs a guest, showing what it says, and what became of it if it does not end well.
    fn listen(
        &self,
        name: &str,
        image: &Image,
        emulator: &Emulator,
        folder: &Path,
    ) -> Result<(Log, End)> {
        // Short: a socket's path has room for some 100 bytes.
        let monitor = format!("tracer-vm-{}-{name}", std::process::id());
        let monitor = std::env::temp_dir().join(monitor);
        self.turns.enter(&monitor);
        let mut log = Log::default();
        let mut alone = None;
        let guest = Guest {
            emulator,
            vmlinuz: &image.vmlinuz,
            folder,
            monitor: &monitor,
        };
        let end = guest.run(&self.turns, |line| {
            match line {
                results::ALONE => alone = Some(self.turns.alone(&monitor)),
                results::TOGETHER => alone = None,
                results::AGAIN => {
                    let names = log.again(clock::now());
                    if !names.is_empty() {
                        println!("{name:<5}| once more, by themselves: {names}");
                    }
                    return Some(names);
                }
                _ if log.read(line, clock::now()) => println!("{name:<5}| {line}"),
                _ => {}
            }
            None
        });
        drop(alone);
        self.turns.leave(&monitor);
        let _ = fs::remove_file(&monitor);
        Ok((log, end?))
    }

    /// Holds what the doctor said of the hooks against what is kept of it.
    fn doctor(&self, kernel: &str, said: Option<Value>) -> Result<Tested> {
        let name = DOCTOR_TEST;
        let Some(said) = said else {
            return Ok(failed(name));
        };
        let file = kept(kernel);
        if self.keep {
            fs::write(&file, format!("{said:#}\n"))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let kept: Value = fs::read_to_string(&file)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        // The release and what depends on it changes with every update.
        let differs = ["can_run", "hooks"]
            .into_iter()
            .find(|key| said[key] != kept[key]);
        if let Some(key) = differs {
            println!(
                "{kernel:<5}| doctor says of `{key}`: {}; kept is {}; if that is right: cargo xtask vm --keep",
                said[key], kept[key]
            );
            return Ok(failed(name));
        }
        Ok(Tested {
            name: name.to_owned(),
            outcome: Outcome::Passed,
            took: Duration::ZERO,
            tries: 1,
        })
    }
}

/// Where what the doctor says of a kernel is kept.
fn kept(kernel: &str) -> PathBuf {
    docs_folder().join(format!("{kernel}.json"))
}

fn docs_folder() -> PathBuf {
    workspace::root().join("docs/kernels")
}

/// Why a guest did not come to its end, with the test that ran and its last words.
fn bad_end(end: &End, log: &Log, folder: &Path) -> Result<Option<Panic>> {
    let why = match end {
        End::Left(_) => return Ok(None),
        End::TimedOut(limit) => {
            format!("killed by a signal, or as it had no end, or no word, in {limit} s")
        }
        End::Died(status) => format!("died: QEMU ended with {status}"),
    };
    let words = guest::last_words(folder, LAST_LINES)?;
    let during = log.running().unwrap_or("no test");
    let said = format!(
        "{why}, during {during}; {}",
        words.trim_end().replace('\n', "; ")
    );
    let test = "the guest's end".to_owned();
    Ok(Some(Panic { test, said }))
}

/// Of a guest that hung and was started once more: QEMU was seen not to go on after a
/// stop. So it is named with the tests that needed a second try.
fn came_to_its_end(end: &End) -> Tested {
    Tested {
        outcome: if matches!(end, End::Left(_)) {
            Outcome::Passed
        } else {
            Outcome::Failed
        },
        tries: 2,
        ..failed("the guest comes to its end")
    }
}

fn failed(name: &str) -> Tested {
    Tested {
        name: name.to_owned(),
        outcome: Outcome::Failed,
        took: Duration::ZERO,
        tries: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_hung_is_named_with_its_second_end() {
        let ended = came_to_its_end(&End::Left(1));
        assert_eq!((ended.outcome, ended.tries), (Outcome::Passed, 2));
        let hung = came_to_its_end(&End::TimedOut(600));
        assert_eq!((hung.outcome, hung.tries), (Outcome::Failed, 2));
    }

    #[test]
    fn what_passed_at_the_second_try_is_named_with_its_kernel() {
        let test = |name: &str, tries| Tested {
            tries,
            outcome: Outcome::Passed,
            ..failed(name)
        };
        let report = Report {
            kernel: "6.1",
            release: String::new(),
            skipped: None,
            tests: vec![test("a", 1), test("b", 2), failed("c")],
            panics: Vec::new(),
            took: Duration::ZERO,
        };
        let mut tally = Tally::default();
        count(&[report], &mut tally);
        assert_eq!(tally.closing_line(), "2 passed, 1 failed, 0 skipped");
        assert_eq!(tally.second_tries(), "passed at the second try: b on 6.1\n");
    }
}
