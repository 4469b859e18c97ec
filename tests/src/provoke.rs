//! Workloads, as processes of their own: `provoke MODE ..` (src/bin/provoke.rs).

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// The program of the workloads: `TRACER_PROVOKE`, as xtask sets it.
fn command() -> Command {
    Command::new(std::env::var_os("TRACER_PROVOKE").expect("TRACER_PROVOKE names the workloads"))
}

/// A workload that runs; it is killed when dropped.
pub struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Workload {
    /// Starts a workload and waits until it says that it is ready to go.
    pub fn ready(args: &[&str]) -> Self {
        Self::ready_in(args, &[])
    }

    /// The same at nice 19: what burns CPU time takes it from nobody who measures beside it.
    pub fn nicely(args: &[&str]) -> Self {
        Self::nicely_in(args, &[])
    }

    /// The same in cgroups.
    pub fn nicely_in(args: &[&str], cgroups: &[&Path]) -> Self {
        let workload = Self::ready_in(args, cgroups);
        // SAFETY: touches no memory.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, workload.pid(), 19) };
        workload
    }

    /// The same in cgroups, given as directories.
    pub fn ready_in(args: &[&str], cgroups: &[&Path]) -> Self {
        let (workload, said) = Self::start(args, cgroups);
        assert_eq!(said, "ready");
        workload
    }

    /// The same, of a workload that there cannot be everywhere.
    ///
    /// # Errors
    /// It ended instead, and has said why on stderr.
    pub fn try_ready(args: &[&str]) -> io::Result<Self> {
        let (workload, said) = Self::start(args, &[]);
        if said == "ready" {
            Ok(workload)
        } else {
            let args = args.join(" ");
            Err(io::Error::other(format!("provoke {args}: see stderr")))
        }
    }

    fn start(args: &[&str], cgroups: &[&Path]) -> (Self, String) {
        let mut child = command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the workload starts");
        for cgroup in cgroups {
            let procs = cgroup.join("cgroup.procs");
            std::fs::write(procs, child.id().to_string()).expect("a task can be moved");
        }
        let mut workload = Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().expect("stdout is a pipe")),
            child,
        };
        let said = workload.line();
        (workload, said)
    }

    /// One process that does nothing, from its start to its end.
    pub fn nothing() {
        let status = command().arg("nothing").status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it begin.
    pub fn go(&mut self) {
        let stdin = self.stdin.as_mut().expect("it was not ended yet");
        stdin.write_all(b"go\n").expect("the workload listens");
    }

    /// Its next word.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("UTF-8");
        line.trim_end().to_owned()
    }

    /// Lets it end by itself.
    pub fn end(mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a workload that counts got done.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// How often.
    pub count: u64,
    /// In how much CPU time, its own and that of its children, in ns.
    pub cpu_ns: u64,
}

/// Runs a workload that counts what it does for `ms`.
///
/// # Errors
/// It could not do it, and has said why on stderr.
pub fn count(mode: &str, ms: u64) -> anyhow::Result<Done> {
    let mut workload = Workload::ready(&[mode, &ms.to_string()]);
    workload.go();
    let line = workload.line();
    workload.end();
    let done = line.split_once(' ').and_then(|(count, cpu_ns)| {
        Some(Done {
            count: count.parse().ok()?,
            cpu_ns: cpu_ns.parse().ok()?,
        })
    });
    done.ok_or_else(|| anyhow::anyhow!("the workload {mode} failed"))
}
