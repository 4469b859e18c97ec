//! A test as a process of its own: started, watched, and cleared away after.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitStatus},
    thread,
    time::Duration,
};

use super::Test;
use crate::time::{NS, host_or_guest, monotonic_ns};

/// The first word of a child's arguments; the second is its test.
pub(super) const CHILD: &str = "--child";
/// A further one, where every test runs alone.
pub(super) const SERIAL: &str = "--serial";
/// Where the recorded streams are; not set for a test with tracers of its own.
pub(super) const STREAMS: &str = "TRACER_STREAMS";

/// How a test ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) is_passed: bool,
    pub(super) seconds: f64,
    /// All that it and its workloads wrote, to stdout and stderr.
    pub(super) said: String,
}

impl Ended {
    /// The end of a test that could not begin.
    pub(super) fn unborn(test: &Test, why: &str) -> Self {
        Self {
            is_passed: false,
            seconds: 0.0,
            said: format!("thread '{}' panicked at its start:\n{why}\n", test.name),
        }
    }
}

/// Runs a test to its end, or to its limit. `place` takes what it writes; `streams` is
/// the folder of what the shared tracers record; `is_serial` says that all tests run alone.
pub(super) fn run(
    test: &Test,
    place: &Path,
    streams: Option<&Path>,
    is_serial: bool,
) -> io::Result<Ended> {
    let began_ns = monotonic_ns();
    // A file and no pipe: what a test leaves running would hold that open.
    let output = File::create(place)?;
    let mut command = Command::new(env::current_exe()?);
    command
        .args([CHILD, test.name])
        .args(is_serial.then_some(SERIAL))
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0);
    match streams {
        Some(folder) => command.env(STREAMS, folder),
        None => command.env_remove(STREAMS),
    };
    let die_with_me = || {
        // SAFETY: touches no memory.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        Ok(())
    };
    // SAFETY: one system call, which is safe between fork and exec.
    unsafe { command.pre_exec(die_with_me) };
    let mut child = command.spawn()?;
    let group = -(child.id() as i32);
    let limit_s = test.limit_s.unwrap_or(host_or_guest(120, 240));
    let seconds = || (monotonic_ns() - began_ns) as f64 / NS;
    let ended: Option<ExitStatus> = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if seconds() > limit_s as f64 {
            break None;
        }
        thread::sleep(Duration::from_millis(20));
    };
    // Its workloads too, whatever became of it.
    // SAFETY: touches no memory.
    unsafe { libc::kill(group, libc::SIGKILL) };
    child.wait()?;
    let mut said = String::from_utf8_lossy(&fs::read(place)?).into_owned();
    if ended.is_none() {
        let name = test.name;
        said += &format!("\nthread '{name}' panicked at its limit:\n");
        said += &format!("it took longer than {limit_s} s\n");
    } else if let Some(signal) = ended.and_then(signal_of) {
        let name = test.name;
        said += &format!("\nthread '{name}' panicked at its end:\n");
        said += &format!("it was killed by signal {signal}\n");
    }
    let _ = fs::remove_file(place);
    Ok(Ended {
        is_passed: ended.is_some_and(|status| status.success()),
        seconds: seconds(),
        said,
    })
}

fn signal_of(status: ExitStatus) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    status.signal()
}

/// Is the child: runs the test in a thread of its name, so that a panic says whose it is.
pub(super) fn be(test: &Test) -> bool {
    let run = test.run;
    let thread = thread::Builder::new().name(test.name.to_owned());
    let test = thread.spawn(run);
    test.is_ok_and(|test| test.join().is_ok())
}

/// Whether this is a test of a run that takes its time (`--serial`), and not of the gate.
pub(super) fn is_in_no_hurry() -> bool {
    env::args().any(|word| word == SERIAL)
}
