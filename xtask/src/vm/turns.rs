//! Guests at a time, and one alone when a test needs it.
//!
//! Guests have more CPUs together than their host has, so now and then a CPU of
//! one stands still. The kernel's load sample cannot bear that: it waits ten
//! ticks for every CPU. While such a test runs, the other guests are stopped
//! through QEMU's monitor, clocks and all, and notice nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The monitor's prompt: it waits for a command.
const PROMPT: &str = "(qemu) ";
const PATIENCE: Duration = Duration::from_secs(10);

/// The guests that run.
#[derive(Default)]
pub(super) struct Turns {
    alone: Mutex<()>,
    monitors: Mutex<Vec<PathBuf>>,
    stopped: Mutex<Vec<PathBuf>>,
}

impl Turns {
    /// A guest with this monitor runs from now on; not while another is alone.
    pub(super) fn enter(&self, monitor: &Path) {
        let _nobody_is_alone = lock(&self.alone);
        lock(&self.monitors).push(monitor.to_owned());
    }

    /// It has ended.
    pub(super) fn leave(&self, monitor: &Path) {
        lock(&self.monitors).retain(|other| other != monitor);
    }

    /// Whether it is stopped, for another to be alone.
    pub(super) fn is_stopped(&self, monitor: &Path) -> bool {
        lock(&self.stopped).iter().any(|stopped| stopped == monitor)
    }

    /// Stops all guests but this one until the answer is dropped.
    pub(super) fn alone(&self, monitor: &Path) -> Alone<'_> {
        let turn = lock(&self.alone);
        let mut others = lock(&self.monitors).clone();
        others.retain(|other| other != monitor);
        for other in &others {
            // One that has just ended does not listen any more, and needs no stop.
            let _ = say(other, "stop");
        }
        lock(&self.stopped).clone_from(&others);
        Alone {
            turns: self,
            others,
            _turn: turn,
        }
    }
}

/// A guest's time alone.
pub(super) struct Alone<'a> {
    turns: &'a Turns,
    others: Vec<PathBuf>,
    _turn: MutexGuard<'a, ()>,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        lock(&self.turns.stopped).clear();
        for other in &self.others {
            let said = say(other, "cont");
            let is_running = lock(&self.turns.monitors).contains(other);
            if let Err(error) = said
                && is_running
            {
                // It will be killed at its time limit, and said to have been.
                eprintln!("a guest that was stopped does not go on: {error:#}");
            }
        }
    }
}

/// Has a monitor carry out a command.
pub(super) fn say(monitor: &Path, command: &str) -> Result<()> {
    let talk = || -> Result<()> {
        let mut stream = UnixStream::connect(monitor)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        listen(&mut stream)?;
        writeln!(stream, "{command}")?;
        listen(&mut stream)
    };
    talk().with_context(|| format!("{}: `{command}`", monitor.display()))
}

/// Reads up to the prompt.
fn listen(stream: &mut UnixStream) -> Result<()> {
    let mut said = Vec::new();
    let mut piece = [0; 512];
    while !said.ends_with(PROMPT.as_bytes()) {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            bail!("the monitor hung up");
        }
        said.extend_from_slice(&piece[..length]);
    }
    Ok(())
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked has left nothing half done in here.
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
