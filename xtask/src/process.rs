//! Running other programs, with errors that say what was run and how it ended.
//!
//! A child's stdout goes to stderr unless it is asked for: `cargo xtask run`
//! keeps stdout for tracer's own records.

use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program to its end, its output shown on stderr.
///
/// An end with failure is an error that closes with `advice`: what to do next.
pub(crate) fn run(command: &mut Command, advice: &str) -> Result<()> {
    let status = command
        .stdout(io::stderr())
        .status()
        .with_context(|| not_started(command))?;
    check(command, status, advice)
}

/// Runs a program to its end and returns its stdout; its stderr is dropped.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| not_started(command))?;
    let said = String::from_utf8_lossy(&output.stderr);
    check(command, output.status, said.trim())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to its end, handing each line of its stdout to `line` as it
/// comes, without the line's end; its stderr is shown. How it ended is for the
/// caller to judge.
pub(crate) fn stream(command: &mut Command, mut line: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| not_started(command))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        // Bytes, not `lines()`: a test may print what is not UTF-8.
        while reader.read_until(b'\n', &mut bytes)? > 0 {
            line(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
            bytes.clear();
        }
    }
    child
        .wait()
        .with_context(|| format!("waiting for `{}`", describe(command)))
}

/// An error unless the program ended well; `advice` says what to do next.
pub(crate) fn check(command: &Command, status: ExitStatus, advice: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let separator = if advice.is_empty() { "" } else { ": " };
    bail!(
        "`{}` failed ({status}){separator}{advice}",
        describe(command)
    )
}

/// The program and its arguments, as one would type them, without its folder.
pub(crate) fn describe(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// What to say of a program that could not even be started.
pub(crate) fn not_started(command: &Command) -> String {
    format!(
        "`{}` did not start: is `{}` installed and on PATH?",
        describe(command),
        command.get_program().to_string_lossy()
    )
}

/// Every place a program of this name is installed, the first to be run first:
/// PATH, then cargo's own folder, then the administrator's, which a user's PATH
/// often leaves out.
pub(crate) fn installed(program: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(cargo_bin());
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    let program = program.to_owned();
    folders
        .into_iter()
        .map(move |folder| folder.join(&program))
        .filter(|file| file.is_file())
}

/// Where `cargo install` puts programs.
fn cargo_bin() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")))?;
    Some(home.join("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_its_status_and_the_advice() {
        let error = run(
            Command::new("/bin/sh").args(["-c", "exit 3"]),
            "try another",
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c exit 3` failed (exit status: 3): try another"
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = read(&mut Command::new("no-such-program")).unwrap_err();
        assert!(
            error.to_string().contains("is `no-such-program` installed"),
            "{error}"
        );
    }

    #[test]
    fn a_stream_is_cut_into_lines_even_without_a_last_newline() {
        let mut lines = Vec::new();
        let status = stream(Command::new("printf").arg(r"one\n\377\nlast"), |line| {
            lines.push(line.to_owned());
        });
        assert!(status.unwrap().success());
        assert_eq!(lines, ["one", "\u{fffd}", "last"]);
    }
}
