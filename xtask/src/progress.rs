//! Long steps whose output nobody wants to read, unless they fail.
//!
//! The child writes into a log under target/setup. Meanwhile a terminal shows
//! one line, drawn anew several times a second: seconds so far and the log's
//! last line. Anything else than a terminal (CI) gets a plain line at the
//! beginning, one every 15 s and one at the end.

use std::fs::{self, File};
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{clock, process, workspace};

const REDRAW: Duration = Duration::from_millis(250);
const PLAIN_LINE: Duration = Duration::from_secs(15);
/// Wide enough to tell, narrow enough not to wrap on an 80-column terminal.
const COLUMNS: usize = 78;
const TAIL_LINES: usize = 20;

/// Runs a program to its end, its output in target/setup/`log`.log.
///
/// `doing` says what it is about ("installing gcc"), `estimate` how long it
/// takes. A failure shows the log's end, then `advice`.
pub(crate) fn watch(
    command: &mut Command,
    doing: &str,
    estimate: &str,
    log: &str,
    advice: &str,
) -> Result<()> {
    let path = workspace::target("setup").join(format!("{log}.log"));
    let file = create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let started = clock::now();
    eprintln!("{doing} ({estimate})");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| process::not_started(command))?;

    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait()));
    let terminal = std::io::stderr().is_terminal();
    let pause = if terminal { REDRAW } else { PLAIN_LINE };
    let status = loop {
        match end.recv_timeout(pause) {
            Ok(status) => break status.context("waiting for the program")?,
            Err(RecvTimeoutError::Timeout) => {
                let seconds = started.elapsed().as_secs();
                let last = last_line(&tail(&path)?);
                let line: String = format!("  {seconds} s: {last}")
                    .chars()
                    .take(COLUMNS)
                    .collect();
                if terminal {
                    eprint!("\r\x1b[2K{line}");
                    std::io::stderr().flush()?;
                } else {
                    eprintln!("{line}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                anyhow::bail!("lost sight of `{}`", process::describe(command));
            }
        }
    };
    if terminal {
        eprint!("\r\x1b[2K");
    }
    let seconds = started.elapsed().as_secs_f64();
    if status.success() {
        eprintln!("  done in {seconds:.1} s");
    } else {
        eprintln!(
            "  failed after {seconds:.1} s; the end of {}:",
            path.display()
        );
        let tail = tail(&path)?;
        let lines: Vec<&str> = tail.lines().collect();
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            eprintln!("  | {line}");
        }
    }
    process::check(command, status, advice)
}

fn create(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create(path)
}

/// The last 8 KiB of a log: enough for its last lines, cheap to read often.
fn tail(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(8192)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last line that shows something, without the control characters that
/// would spoil a line of one's own.
fn last_line(log: &str) -> String {
    let shown = |line: &&str| !line.trim().is_empty();
    let line = log.split(['\n', '\r']).rfind(shown).unwrap_or("");
    line.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_last_that_shows_something() {
        assert_eq!(last_line("Get:1 a\nGet:2 b\n\n"), "Get:2 b");
        assert_eq!(last_line("10%\r20%\r"), "20%");
        assert_eq!(last_line("plain\n\u{1b}[1mbold"), "[1mbold");
        assert_eq!(last_line(""), "");
    }
}
