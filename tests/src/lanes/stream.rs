//! What the parallel lane shares: a tracer for each way to hook functions, which writes
//! its lines into a file, and readers of it.
//!
//! A test reads from where the file ends when it begins. At the end of the lane the whole
//! file is judged (`recorded`).

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{Mutex, MutexGuard},
    thread,
    time::{Duration, UNIX_EPOCH},
};

use serde_json::Value;

use super::child::STREAMS;
use crate::{
    known::await_symbols,
    memory::host_oom_kills,
    time::{NS, monotonic_ns},
    tracer::{Tracer, command},
};

/// The way to hook functions of a shared tracer that nobody says more of.
pub const AUTO: &str = "auto";
/// How every tracer of the tests is started.
pub(crate) const RUN: [&str; 5] = ["run", "--format", "json", "--top", "1000"];
/// Further options of every shared tracer. The short leak age and interval are what makes
/// tests of leaks quick; no test may ask for less.
pub const ARGS: [&str; 4] = ["--interval", "500ms", "--leak-age", "2s"];
/// A reader that hears nothing for so long says that the tracer is gone, in s.
const SILENCE_S: f64 = 60.0;
/// The counters of the host from before the first tracer.
const BEFORE: &str = "oom_kills_before";

/// The shared tracers that run, each with its way to hook functions, and what went wrong
/// with one that was ended.
#[derive(Default)]
pub(super) struct Streams {
    running: Mutex<Vec<(String, Child)>>,
    failures: Mutex<Vec<String>>,
}

impl Streams {
    /// Starts one for each way, and waits until each knows the kernel's symbols.
    pub(super) fn start<'a>(
        folder: &Path,
        ways: impl Iterator<Item = &'a &'a str>,
    ) -> Result<Self, String> {
        let mut ways: Vec<&str> = ways.copied().chain([AUTO]).collect();
        ways.sort_unstable();
        ways.dedup();
        let streams = Self::default();
        for way in &ways {
            let tracer = start(folder, way).map_err(|e| e.to_string())?;
            lock(&streams.running).push(((*way).to_owned(), tracer));
        }
        for way in ways {
            let path = file(folder, way);
            // It panics where tracer has not begun as it should, and has said why.
            let known = thread::spawn(move || await_symbols(&mut Tracer::follow(&path)));
            let known = known.join();
            known.map_err(|_| format!("no tracer with --function-hooks {way}"))?;
        }
        Ok(streams)
    }

    /// Ends those of ways that no test is left for; the usual one goes on.
    pub(super) fn keep(&self, is_wanted: impl Fn(&str) -> bool) {
        let is_over = |way: &str| way != AUTO && !is_wanted(way);
        let mut running = lock(&self.running);
        for (way, mut tracer) in running.extract_if(.., |(way, _)| is_over(way)) {
            if let Err(error) = end(&way, &mut tracer) {
                lock(&self.failures).push(error);
            }
        }
    }

    /// Ends all; each has written its last line then.
    pub(super) fn end(self) -> Result<(), String> {
        for (way, tracer) in lock(&self.running).iter_mut() {
            if let Err(error) = end(way, tracer) {
                lock(&self.failures).push(error);
            }
        }
        let failures = lock(&self.failures);
        match failures.as_slice() {
            [] => Ok(()),
            failures => Err(failures.join("; ")),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

fn end(way: &str, tracer: &mut Child) -> Result<(), String> {
    // SAFETY: touches no memory.
    unsafe { libc::kill(tracer.id() as i32, libc::SIGTERM) };
    let status = tracer.wait().map_err(|e| e.to_string())?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("tracer --function-hooks {way} ended with {status}")),
    }
}

fn start(folder: &Path, way: &str) -> io::Result<Child> {
    fs::write(folder.join(BEFORE), host_oom_kills().to_string())?;
    command()
        .args(RUN)
        .args(ARGS)
        .args(["--function-hooks", way])
        .stdout(File::create(file(folder, way))?)
        .stdin(Stdio::null())
        .spawn()
}

impl Drop for Streams {
    fn drop(&mut self) {
        for (_, tracer) in lock(&self.running).iter_mut() {
            let _ = tracer.kill();
            let _ = tracer.wait();
        }
    }
}

fn file(folder: &Path, way: &str) -> PathBuf {
    folder.join(format!("{way}.jsonl"))
}

/// The file that the shared tracer of a way writes, where there is one.
pub(crate) fn of(way: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os(STREAMS)?);
    Some(file(&folder, way))
}

/// All that the shared tracer of the lane has written, line by line, and the kernel's count
/// of kills before it began; none for a test with a tracer of its own.
pub fn recorded() -> Option<(impl Iterator<Item = Value>, u64)> {
    let path = of(AUTO)?;
    let before = fs::read_to_string(path.with_file_name(BEFORE)).expect("a count");
    let before = before.parse().expect("a number");
    let lines = BufReader::new(File::open(path).expect("a recorded stream")).lines();
    let lines = lines.map(|line| {
        let line = line.expect("tracer writes UTF-8");
        serde_json::from_str(&line).expect("every line is JSON")
    });
    Some((lines, before))
}

/// Lines of a file that grows, from its end on.
pub(crate) struct Follow {
    lines: BufReader<File>,
}

impl Follow {
    /// The file's first line, and those that come from now on.
    pub(crate) fn from_now(path: &Path) -> io::Result<(String, Self)> {
        let mut lines = BufReader::new(File::open(path)?);
        let mut follow = Self { lines };
        let first = follow.next()?;
        lines = follow.lines;
        let end = last_line(lines.get_mut())?;
        lines.seek(SeekFrom::Start(end))?;
        Ok((first, Self { lines }))
    }

    /// When the file was written to last, by the wall clock.
    pub(crate) fn written_ns(&self) -> io::Result<u64> {
        let written = self.lines.get_ref().metadata()?.modified()?;
        let since = written.duration_since(UNIX_EPOCH);
        Ok(since.map_err(io::Error::other)?.as_nanos() as u64)
    }

    /// The next line, once it is whole.
    pub(crate) fn next(&mut self) -> io::Result<String> {
        let mut line = String::new();
        let began_ns = monotonic_ns();
        loop {
            self.lines.read_line(&mut line)?;
            if line.ends_with('\n') {
                return Ok(line);
            }
            if (monotonic_ns() - began_ns) as f64 / NS > SILENCE_S {
                let said = format!("the shared tracer says nothing for {SILENCE_S} s");
                return Err(io::Error::new(io::ErrorKind::TimedOut, said));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Where the last line of a file begins, whole or not.
fn last_line(file: &mut File) -> io::Result<u64> {
    const PIECE: u64 = 64 << 10;
    let mut end = file.seek(SeekFrom::End(0))?;
    while end > 0 {
        let begin = end.saturating_sub(PIECE);
        file.seek(SeekFrom::Start(begin))?;
        let mut piece = vec![0; (end - begin) as usize];
        file.read_exact(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

/// What was lost by reason at the end of a stream, where that was more than nothing.
pub fn losses(snapshot: &Value) -> BTreeMap<String, u64> {
    let all = snapshot["lost"].as_object().expect("lost").iter();
    all.map(|(reason, count)| (reason.clone(), count.as_u64().expect("a count")))
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_reader_begins_with_the_line_that_is_not_whole_yet() {
        let path = env::temp_dir().join(format!("tracer-follow-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        let long = "x".repeat(200_000);
        write!(file, "first\nsecond\n{long}").unwrap();
        let (first, mut follow) = Follow::from_now(&path).unwrap();
        assert_eq!(first, "first\n");
        write!(file, "y\nnext\n").unwrap();
        assert_eq!(follow.next().unwrap(), format!("{long}y\n"));
        assert_eq!(follow.next().unwrap(), "next\n");
        fs::remove_file(path).unwrap();
    }
}
