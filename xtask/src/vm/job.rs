//! One kernel's guest: made, run, and what came of it.
//!
//! A guest that QEMU brought down, or that hung, is started once more: that says nothing
//! of tracer. It is named with the tests that needed a second try.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::build::LiveTests;
use crate::live::{Outcome, Tested};
use crate::vm::emulator::Emulator;
use crate::vm::guest::{self, End, Guest};
use crate::vm::kernels::{self, Image, Kernel};
use crate::vm::results::{self, Log, Report};
use crate::vm::script::{self, Plan};
use crate::vm::turns::Turns;
use crate::vm::{docs_folder, image};
use crate::{clock, workspace};

const LAST_LINES: usize = 15;
/// QEMU 7.2 brings down one guest in ten or so (`guest::ran_stale_code`).
const MOST_RETRIES: u32 = 2;

/// The test that is xtask's own.
pub(super) const DOCTOR_TEST: &str = "doctor says what is kept";

/// What every guest is made of.
pub(super) struct Base {
    emulator: Emulator,
    /// The archive that all share.
    archive: Vec<u8>,
}

impl Base {
    /// An error where no guest can be had at all.
    pub(super) fn provide(live: &LiveTests) -> Result<Self> {
        let emulator = Emulator::provide()?;
        let archive = image::base(live, &kernels::busybox()?)?;
        Ok(Self { emulator, archive })
    }
}

/// What every guest does.
pub(super) struct Job {
    pub(super) turns: Turns,
    pub(super) plan: Plan,
    pub(super) keep: bool,
}

impl Job {
    /// Runs it on a kernel. What cannot be had is skipped, and says so; a guest
    /// that cannot be started counts as a test that failed.
    pub(super) fn on(&self, kernel: &Kernel, base: &Result<Base>) -> Report {
        let mut report = Report {
            kernel: kernel.name,
            release: String::new(),
            suite: self.plan.suite(kernel),
            skipped: None,
            tests: Vec::new(),
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
        report.tests = self.boot(kernel, &image, base).unwrap_or_else(|error| {
            println!("{:<5}| error: {error:#}", kernel.name);
            vec![Tested::failed("the guest's start", format!("{error:#}"))]
        });
        report.took = began.elapsed();
        report
    }

    fn boot(&self, kernel: &Kernel, image: &Image, base: &Base) -> Result<Vec<Tested>> {
        let name = kernel.name;
        let Some(script) = script::of(kernel, &self.plan) else {
            return Ok(Vec::new());
        };
        let folder = workspace::target("vm").join(name);
        fs::create_dir_all(&folder)?;
        let initrd = folder.join(guest::INITRD);
        let own = image::own(image, script)?;
        fs::write(&initrd, [&base.archive[..], &own].concat())?;
        let mut bad_ends = Vec::new();
        let mut listen = || -> Result<(Log, End)> {
            let (log, end) = self.listen(name, image, &base.emulator, &folder)?;
            bad_ends.extend(bad_end(&end, &folder)?);
            Ok((log, end))
        };
        let mut times = 1;
        let (mut log, mut end) = listen()?;
        while times <= MOST_RETRIES && guest::ran_stale_code(&end, &folder)? {
            println!("{name:<5}| QEMU ran code that the kernel had patched: once more");
            (log, end) = listen()?;
            times += 1;
        }
        // What was to run many times is told as far as it came.
        if matches!(end, End::TimedOut(_)) && !self.plan.is_repeat() {
            println!("{name:<5}| hung: once more");
            (log, end) = listen()?;
            times += 1;
        }
        fs::remove_file(&initrd)?;
        let mut tests = Vec::new();
        if !self.plan.is_repeat() {
            tests.push(self.doctor(name, log.doctor.take())?);
        }
        tests.extend(log.tests(&end, self.plan.may_be_none()));
        tests.extend(came_to_its_end(&end, times, bad_ends));
        Ok(tests)
    }

    /// Runs a guest, showing what it says.
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
            limit_s: self.plan.limit_s(),
        };
        let end = guest.run(&self.turns, |line| match line {
            // Only where tests run one by one does one of them mean the whole guest.
            results::ALONE if self.plan.is_alone() => {
                // The one before ends first, or this would wait for itself.
                drop(alone.take());
                alone = Some(self.turns.alone(&monitor));
            }
            results::TOGETHER => drop(alone.take()),
            _ if log.read(line) => println!("{name:<5}| {line}"),
            _ => {}
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
            return Ok(Tested::failed(name, "it said nothing"));
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
            let why = format!("it says something else of `{key}`; see above");
            return Ok(Tested::failed(name, why));
        }
        Ok(Tested {
            outcome: Outcome::Passed,
            said: Vec::new(),
            ..Tested::failed(name, "")
        })
    }
}

/// Where what the doctor says of a kernel is kept.
fn kept(kernel: &str) -> PathBuf {
    docs_folder().join(format!("{kernel}.json"))
}

/// Why a guest did not come to its end, with its last words.
fn bad_end(end: &End, folder: &Path) -> Result<Option<String>> {
    let why = match end {
        End::Left(_) => return Ok(None),
        End::TimedOut(limit) => {
            format!("killed by a signal, or as it had no end, or no word, in {limit} s")
        }
        End::Died(status) => format!("died: QEMU ended with {status}"),
    };
    let words = guest::last_words(folder, LAST_LINES)?;
    let words = words.trim_end().replace('\n', "; ");
    Ok(Some(format!("{why}; {words}")))
}

/// What is told of the end of a guest that had a bad one, or more starts than one: that is
/// QEMU's doing, so a good end makes it a pass, with its second try named.
fn came_to_its_end(end: &End, times: u32, bad_ends: Vec<String>) -> Option<Tested> {
    if bad_ends.is_empty() {
        return None;
    }
    Some(Tested {
        outcome: if matches!(end, End::Left(_)) {
            Outcome::Passed
        } else {
            Outcome::Failed
        },
        tries: times,
        said: bad_ends,
        ..Tested::failed("the guest comes to its end", "")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_hung_is_named_with_its_second_end() {
        let words = |count: usize| vec!["hung".to_owned(); count];
        assert_eq!(came_to_its_end(&End::Left(1), 1, Vec::new()), None);
        let ended = came_to_its_end(&End::Left(1), 2, words(1)).unwrap();
        assert_eq!((ended.outcome, ended.tries), (Outcome::Passed, 2));
        let hung = came_to_its_end(&End::TimedOut(600), 2, words(2)).unwrap();
        assert_eq!((hung.outcome, hung.tries), (Outcome::Failed, 2));
        assert_eq!(hung.said.len(), 2);
    }
}
