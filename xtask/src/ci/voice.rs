//! How the programs of a step are run: shown, or in the background.
//!
//! Beside guests, what only compiles must not keep them from a CPU, nor write among what
//! they say. So it is run with the least priority, and what it says goes into a file under
//! target/ci, to be shown if the step fails.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};

use crate::{process, workspace};

/// How a step's programs are run.
pub(super) enum Voice {
    /// Their output is shown as it comes.
    Shown,
    /// It is kept in a file.
    Kept(PathBuf),
}

impl Voice {
    /// Keeps what a step says in a file of its name, which is empty then.
    pub(super) fn kept(step: &str) -> Result<Self> {
        let path = workspace::target("ci").join(file_name(step));
        let create = || -> std::io::Result<File> {
            fs::create_dir_all(workspace::target("ci"))?;
            File::create(&path)
        };
        create().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self::Kept(path))
    }

    /// Runs a program to its end; one with failure is an error that closes with `advice`.
    pub(super) fn run(&self, mut command: Command, advice: &str) -> Result<()> {
        let Voice::Kept(path) = self else {
            return process::run(&mut command, advice);
        };
        let file = append(path)?;
        let mut quiet = nicely(&command);
        quiet.stdout(file.try_clone()?).stderr(file);
        let status = quiet
            .status()
            .with_context(|| process::not_started(&command))?;
        process::check(&command, status, advice)
    }

    /// Runs a program to its end, and hands over each line of its stdout.
    pub(super) fn stream(
        &self,
        command: &mut Command,
        mut line: impl FnMut(&str),
    ) -> Result<ExitStatus> {
        let Voice::Kept(path) = self else {
            return process::stream(command, |said| {
                println!("{said}");
                line(said);
            });
        };
        let mut file = append(path)?;
        process::stream(nicely(command).stderr(file.try_clone()?), |said| {
            // The count is what matters; a full disk makes itself felt elsewhere.
            let _ = writeln!(file, "{said}");
            line(said);
        })
    }

    /// What was kept so far; nothing of what was shown.
    pub(super) fn said(&self) -> String {
        match self {
            Voice::Shown => String::new(),
            Voice::Kept(path) => {
                let bytes = fs::read(path).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            }
        }
    }
}

fn append(path: &PathBuf) -> Result<File> {
    let file = File::options().append(true).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn file_name(step: &str) -> String {
    format!("{}.log", step.replace(' ', "-"))
}

/// The same command with the least priority, where there is the program `nice`.
fn nicely(command: &Command) -> Command {
    let mut quiet = match process::installed("nice").next() {
        Some(nice) => {
            let mut quiet = Command::new(nice);
            quiet.args(["-n", "19"]).arg(command.get_program());
            quiet
        }
        None => Command::new(command.get_program()),
    };
    quiet.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => quiet.env(name, value),
            None => quiet.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        quiet.current_dir(folder);
    }
    quiet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_priority_changes_nothing_else() {
        let mut command = Command::new("/bin/sh");
        let script = "echo $WORD ${HOME-none}; pwd; cut -d' ' -f19 /proc/self/stat";
        command
            .args(["-c", script])
            .env("WORD", "a b")
            .current_dir("/");
        command.env_remove("HOME");
        let said = process::read(&mut nicely(&command)).unwrap();
        let expected = match process::installed("nice").next() {
            Some(_) => "a b none\n/\n19\n",
            None => "a b none\n/\n",
        };
        assert!(said.starts_with(expected), "{said}");
    }

    #[test]
    fn what_is_kept_has_both_outputs() {
        let path = std::env::temp_dir().join(format!("xtask-voice-{}", std::process::id()));
        File::create(&path).unwrap();
        let voice = Voice::Kept(path.clone());
        let say = |words: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", words]);
            command
        };
        voice.run(say("echo out; echo err >&2"), "").unwrap();
        assert!(voice.run(say("exit 3"), "see above").is_err());
        let mut lines = Vec::new();
        let status = voice.stream(&mut say("echo counted; echo more >&2"), |line| {
            lines.push(line.to_owned());
        });
        assert!(status.unwrap().success());
        assert_eq!(lines, ["counted"]);
        let said = voice.said();
        fs::remove_file(path).unwrap();
        assert!(said.starts_with("out\nerr\n"), "{said}");
        assert!(
            said.contains("counted\n") && said.contains("more\n"),
            "{said}"
        );
    }

    #[test]
    fn a_step_has_a_file_of_its_name() {
        assert_eq!(file_name("unit tests"), "unit-tests.log");
    }
}
