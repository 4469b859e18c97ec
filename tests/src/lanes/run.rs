//! Runs the tests: lane after lane, and those of the parallel lane side by side.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Condvar, Mutex},
    thread,
};

use super::{
    Lane, Test, child, ledger,
    options::{Options, USAGE},
    plan, report,
    report::Report,
    stream::Streams,
};
use crate::time::host_or_guest;

/// What fails where there is nothing recorded.
static SHARED: Test = Test::new("lanes::the_shared_tracer_records", || {});

/// What xtask stops the other guests for, and lets them go on after (xtask/src/vm/turns.rs).
const ALONE: &str = "::alone\n";
const TOGETHER: &str = "::together\n";

/// The program: all tests, table by table.
pub fn main(tables: &[&'static [Test]]) -> ExitCode {
    let all: Vec<&Test> = tables.iter().copied().flatten().collect();
    let args: Vec<String> = env::args().skip(1).collect();
    if let [word, name, ..] = args.as_slice()
        && word == child::CHILD
    {
        let test = all.iter().find(|test| test.name == name);
        let is_passed = test.is_some_and(|test| child::be(test));
        return ExitCode::from(if is_passed { 0 } else { 101 });
    }
    // Some wait for most of their time; an emulated CPU is busy with fewer.
    let options = match Options::of(&args, host_or_guest(8, 2)) {
        Ok(options) => options,
        Err(error) => return refuse(&format!("{error}\n{USAGE}")),
    };
    let strangers = ledger::strangers(all.iter().map(|test| test.name));
    if !strangers.is_empty() {
        return refuse(&format!("tests/flaky.toml names no test: {strangers:?}"));
    }
    let wanted = plan::of(&all, &options, host_or_guest(false, true));
    if options.is_list {
        report::say(&report::list(&wanted, |test| plan::lane(test, &options)));
        return ExitCode::SUCCESS;
    }
    if wanted.is_empty() {
        return refuse("no test of that name runs here (`--list` shows them)");
    }
    match run(&wanted, &options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => refuse(&format!("{error}")),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("live: {why}");
    ExitCode::from(2)
}

fn run(wanted: &[&Test], options: &Options) -> io::Result<bool> {
    let folder = Folder::new()?;
    let report = Report::default();
    report.begin(wanted.len());
    let of = |lane: Lane| -> Vec<&Test> {
        let tests = wanted.iter().copied();
        tests
            .filter(|test| plan::lane(test, options) == lane)
            .collect()
    };
    let alone = |lane: Lane, streams: Option<&Path>| {
        for test in of(lane) {
            // The kernel's sample cannot bear a CPU that stands still.
            let needs_all = options.is_serial && test.lane == Lane::Stream;
            report::say(if needs_all { ALONE } else { "" });
            one(test, &folder.0, streams, options, &report);
            report::say(if needs_all { TOGETHER } else { "" });
        }
    };
    alone(Lane::First, None);
    let (parallel, stream) = (of(Lane::Parallel), of(Lane::Stream));
    if !parallel.is_empty() || !stream.is_empty() {
        let tests = parallel.iter().chain(&stream);
        // A host hooks no functions: all ways would see the same there.
        let ways = tests.flat_map(|test| host_or_guest(&[][..], test.streams));
        let lane = || -> Result<(), String> {
            let streams = Streams::start(&folder.0, ways)?;
            side_by_side(parallel.clone(), options, &folder.0, &streams, &report);
            streams.end()
        };
        match lane() {
            Ok(()) => alone(Lane::Stream, Some(&folder.0)),
            // Without what it records nothing of the lane has been shown.
            Err(error) => report.end(&SHARED, &child::Ended::unborn(&SHARED, &error), 1),
        }
    }
    alone(Lane::Serial, None);
    alone(Lane::Last, None);
    Ok(report.close())
}

/// The parallel lane.
fn side_by_side(
    waiting: Vec<&Test>,
    options: &Options,
    folder: &Path,
    streams: &Streams,
    report: &Report,
) {
    let in_guest = host_or_guest(false, true);
    // A test that runs many times is to show how often it fails, and not beside itself.
    let jobs = if options.times > 1 { 1 } else { options.jobs };
    let (state, one_has_ended) = (Mutex::new((waiting, Vec::<&Test>::new())), Condvar::new());
    let lock = || state.lock().unwrap_or_else(|e| e.into_inner());
    let work = || {
        let mut now = lock();
        while !now.0.is_empty() {
            let Some(place) = plan::next(&now.0, &now.1, in_guest) else {
                now = one_has_ended.wait(now).unwrap_or_else(|e| e.into_inner());
                continue;
            };
            let test = now.0.remove(place);
            now.1.push(test);
            drop(now);
            one(test, folder, Some(folder), options, report);
            now = lock();
            let place = now.1.iter().position(|other| other.name == test.name);
            place.map(|place| now.1.remove(place));
            let (waiting, running) = &*now;
            let left = || waiting.iter().chain(running);
            streams.keep(|way| left().any(|test| test.streams.contains(&way)));
            one_has_ended.notify_all();
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
}

/// A test, and once more if it is in the ledger and fails, unless all runs count.
fn one(test: &Test, folder: &Path, streams: Option<&Path>, options: &Options, report: &Report) {
    let output = |tries: usize| folder.join(format!("{:?}-{tries}", thread::current().id()));
    for tries in 1.. {
        let ended = child::run(test, &output(tries), streams, options.is_serial);
        let ended = ended.unwrap_or_else(|e| child::Ended::unborn(test, &e.to_string()));
        match ledger::entry(test.name) {
            Some(entry) if options.times == 1 && !ended.is_passed && tries == 1 => {
                report.once_more(test, &ended, entry);
            }
            _ => return report.end(test, &ended, tries),
        }
    }
}

/// A folder for what tests write and tracers record; it goes with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("tracer-live-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
