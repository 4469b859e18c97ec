//! A contender while it runs: started, settled, ended.
//!
//! Its output is read and thrown away by a thread, which only notes when a
//! refresh was complete. At its end it is killed: nothing is pinned, and what
//! some tools print when asked to end takes them seconds.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;

use super::{
    contenders::{Contender, Program, Settles},
    held::{self, Held},
};
use crate::{
    bpf,
    time::{eventually, let_pass, monotonic_ns},
};

/// How long a contender may take to settle, in s.
const SETTLES_S: f64 = 30.0;
const LOOK_EVERY_S: f64 = 0.02;
/// So many looks in a row must find the same before it counts as settled.
const SAME_LOOKS: usize = 15;
/// What programs say on stderr that is no reason for anything: bpftrace may not
/// raise a limit that kernels since 5.11 do not have.
const NO_REASON: [&str; 2] = ["RLIMIT_MEMLOCK", "WARNING"];

/// A contender that runs; it is killed when dropped.
pub(super) struct Running {
    process: Option<Process>,
    _empty: Vec<Ebpf>,
}

struct Process {
    child: Child,
    refreshes: Receiver<u64>,
    stderr: Option<thread::JoinHandle<String>>,
}

/// A moment at the end of a refresh.
pub(super) type RefreshNs = u64;

impl Running {
    /// Starts it, and returns when it has settled. The error is its own first
    /// line of complaint where it had one.
    pub(super) fn settled(contender: &Contender) -> Result<Self> {
        let mut running = Self::started(contender)?;
        let Some(process) = &mut running.process else {
            return Ok(running);
        };
        match contender.settles {
            Settles::Attached => process.attached()?,
            Settles::Refreshed { .. } => drop(process.refresh(SETTLES_S)?),
        }
        Ok(running)
    }

    /// Starts it, no more.
    pub(super) fn started(contender: &Contender) -> Result<Self> {
        let Some(mut command) = contender.program.command()? else {
            let empty = match contender.program {
                Program::Empty(tracepoints) => tracepoints,
                _ => &[],
            };
            return Ok(Self {
                process: None,
                _empty: empty.iter().map(|at| bpf::empty_program(at)).collect(),
            });
        };
        let mut child = command
            .args(contender.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} does not start", contender.name))?;
        let (sender, refreshes) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            let (word, not) = match contender.settles {
                Settles::Attached => ("", None),
                Settles::Refreshed { word, not } => (word, not),
            };
            thread::spawn(move || note_refreshes(stdout, word, not, &sender));
        }
        let stderr = child.stderr.take().map(|mut stderr| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = stderr.read_to_end(&mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            })
        });
        Ok(Self {
            process: Some(Process {
                child,
                refreshes,
                stderr,
            }),
            _empty: Vec::new(),
        })
    }

    /// Its process; `None` where it is none.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// What it holds of BPF. The empty program is held by this process itself.
    pub(super) fn held(&self) -> Result<Held> {
        Ok(held::by(self.pid().unwrap_or_else(std::process::id))?)
    }

    /// Waits for the end of its next refresh.
    pub(super) fn refresh(&mut self, seconds: f64) -> Result<RefreshNs> {
        let process = self.process.as_mut().context("there is no process")?;
        process.refresh(seconds)
    }
}

impl Process {
    fn attached(&mut self) -> Result<()> {
        let mut latest = Default::default();
        let mut same = 0;
        let end = monotonic_ns() + (SETTLES_S * crate::time::NS) as u64;
        while monotonic_ns() < end {
            if self.child.try_wait()?.is_some() {
                bail!("{}", self.complaint());
            }
            let held = held::by(self.child.id())?;
            // Maps may grow all the time; programs and attachments come once.
            let look = (held.programs, held.attachments);
            let is_attached = !look.0.is_empty() && look.1 > 0;
            same = if is_attached && look == latest {
                same + 1
            } else {
                0
            };
            if same == SAME_LOOKS {
                return Ok(());
            }
            latest = look;
            let_pass(LOOK_EVERY_S);
        }
        bail!("attached nothing within {SETTLES_S} s");
    }

    fn refresh(&mut self, seconds: f64) -> Result<RefreshNs> {
        let timeout = Duration::from_secs_f64(seconds);
        if let Ok(at) = self.refreshes.recv_timeout(timeout) {
            return Ok(at);
        }
        // Its output has ended, or it takes too long.
        if eventually(0.2, || matches!(self.child.try_wait(), Ok(Some(_)))) {
            bail!("{}", self.complaint());
        }
        bail!("no refresh within {seconds} s");
    }

    /// The first line of a dead program's stderr that is a reason.
    fn complaint(&mut self) -> String {
        let stderr = self.stderr.take().and_then(|thread| thread.join().ok());
        let stderr = stderr.unwrap_or_default();
        first_reason(&stderr).map_or_else(|| "it ended, and said nothing".to_owned(), str::to_owned)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(process) = &mut self.process else {
            return;
        };
        let programs = held::by(process.child.id()).unwrap_or_default().programs;
        let _ = process.child.kill();
        let _ = process.child.wait();
        // The kernel frees programs a while later: the next slot must not meet them.
        eventually(5.0, || held::costs(&programs).is_empty());
    }
}

/// Sends the time of each complete refresh: of the line with `word` and, from the
/// first on that is without `not`, of every other.
fn note_refreshes(
    stdout: ChildStdout,
    word: &str,
    not: Option<&str>,
    refreshes: &Sender<RefreshNs>,
) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    let mut has_settled = false;
    while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let now = monotonic_ns();
        let text = String::from_utf8_lossy(&line);
        if text.contains(word) {
            has_settled |= not.is_none_or(|not| !text.contains(not));
            if has_settled && refreshes.send(now).is_err() {
                // Nobody asks any more; what comes is still read to its end.
                has_settled = false;
            }
        }
        drop(text);
        line.clear();
    }
}

fn first_reason(stderr: &str) -> Option<&str> {
    stderr
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !NO_REASON.iter().any(|no| line.contains(no)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_first_line_that_is_one() {
        let stderr =
            "\nERROR: couldn't set RLIMIT_MEMLOCK\nx: WARNING: y\n  ERROR: no probe\nlater\n";
        assert_eq!(first_reason(stderr), Some("ERROR: no probe"));
        assert_eq!(first_reason("\n"), None);
    }
}
