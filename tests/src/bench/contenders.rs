//! The contenders: one row each. A new peer is a row here, and its name in the
//! lists of the workloads it takes part in.
//!
//! The peers come from Debian's packages libbpf-tools, bpftrace, procps and
//! sysstat; xtask installs them.

use std::{ffi::OsString, process::Command};

use anyhow::{Context as _, Result};

use super::{
    document::{NOTHING, TRACER},
    scripts,
};

/// The empty program on `sched_switch`: what the kernel's measurement of a
/// program costs by itself.
pub const FLOOR: &str = "empty program";
/// The same program, on `sched_waking` too: tracer's two hot hooks.
pub const FLOOR_OF_BOTH: &str = "empty programs on both hooks";
/// Two of them on `inet_sock_set_state`, where tracer has two.
pub const FLOOR_OF_TCP: &str = "empty programs on TCP states";
/// The same program on `signal_generate`.
pub const FLOOR_OF_SIGNALS: &str = "empty program on signals";
/// An iterator over all tasks that does nothing with them, `bench iterate`: what the
/// kernel's own walk costs.
pub const FLOOR_OF_TASKS: &str = "empty task iterator";
/// `ss` once a second: what is done without a tracer.
pub const SS: &str = "ss -tanp each second";
/// The walker of /proc/PID/task/*/schedstat, `bench walk`.
pub const WALKER: &str = "schedstat walker";
/// The same, which also reads /proc/PID/task/*/stat for the state.
pub const STATE_WALKER: &str = "schedstat and stat walker";

/// Who is measured.
pub(super) struct Contender {
    /// Its name on the pages.
    pub(super) name: &'static str,
    /// What is run.
    pub(super) program: Program,
    /// Its arguments.
    pub(super) args: &'static [&'static str],
    /// When it has settled, and can be measured.
    pub(super) settles: Settles,
}

/// What is run for a contender.
pub(super) enum Program {
    /// Nothing at all.
    Nothing,
    /// Nothing but the empty program, on each of these tracepoints.
    Empty(&'static [&'static str]),
    /// `TRACER_BIN`.
    Tracer,
    /// This program itself.
    Bench,
    /// A program of this name.
    Named(&'static str),
}

/// What says that a contender has settled.
pub(super) enum Settles {
    /// It holds programs, and no more of them or their attachments come.
    Attached,
    /// A line on stdout for which this is true. Every line with the word counts
    /// as a refresh.
    Refreshed {
        /// What is in exactly one line of a refresh.
        word: &'static str,
        /// What must not be in that line, at first.
        not: Option<&'static str>,
    },
}

const fn bpf(name: &'static str, args: &'static [&'static str]) -> Contender {
    Contender {
        name,
        program: Program::Named(name),
        args,
        settles: Settles::Attached,
    }
}

const fn script(name: &'static str, args: &'static [&'static str]) -> Contender {
    Contender {
        name,
        program: Program::Named("bpftrace"),
        args,
        settles: Settles::Attached,
    }
}

const fn refreshing(
    name: &'static str,
    program: Program,
    args: &'static [&'static str],
    word: &'static str,
    not: Option<&'static str>,
) -> Contender {
    Contender {
        name,
        program,
        args,
        settles: Settles::Refreshed { word, not },
    }
}

static CONTENDERS: [Contender; 23] = [
    Contender {
        name: NOTHING,
        program: Program::Nothing,
        args: &[],
        settles: Settles::Attached,
    },
    Contender {
        name: FLOOR,
        program: Program::Empty(&["sched_switch"]),
        args: &[],
        settles: Settles::Attached,
    },
    Contender {
        name: FLOOR_OF_BOTH,
        program: Program::Empty(&["sched_switch", "sched_waking"]),
        args: &[],
        settles: Settles::Attached,
    },
    Contender {
        name: FLOOR_OF_TCP,
        program: Program::Empty(&["inet_sock_set_state", "inet_sock_set_state"]),
        args: &[],
        settles: Settles::Attached,
    },
    Contender {
        name: FLOOR_OF_SIGNALS,
        program: Program::Empty(&["signal_generate"]),
        args: &[],
        settles: Settles::Attached,
    },
    refreshing(
        SS,
        Program::Named("sh"),
        &["-c", "while ss -tanp; do sleep 1; done"],
        "State",
        None,
    ),
    refreshing(
        TRACER,
        Program::Tracer,
        &["run", "--format", "json", "--interval", "1s"],
        "\"type\":\"snapshot\"",
        // tracer turns BPF statistics on for its first second, which slows every
        // program down. Once the figure is there, they are off again.
        Some("\"bpf_ns\":null"),
    ),
    // An hour: until it is ended.
    bpf("runqlat", &["3600"]),
    bpf("runqslower", &["10000"]),
    bpf("cpudist", &["3600"]),
    bpf("offcputime", &["3600"]),
    script("runqlat.bt", &["-e", scripts::RUNQLAT]),
    script("cpudist.bt", &["-e", scripts::CPUDIST]),
    script("offcputime.bt", &["-e", scripts::OFFCPUTIME]),
    bpf("tcpstates", &[]),
    bpf("tcplife", &[]),
    bpf("biosnoop", &[]),
    bpf("sigsnoop", &[]),
    refreshing(FLOOR_OF_TASKS, Program::Bench, &["iterate"], "walked", None),
    refreshing(WALKER, Program::Bench, &["walk"], "tasks", None),
    refreshing(
        STATE_WALKER,
        Program::Bench,
        &["walk", "--states"],
        "tasks",
        None,
    ),
    refreshing(
        "top",
        Program::Named("top"),
        &["-b", "-d", "1"],
        "top - ",
        None,
    ),
    // Line by line: into a pipe pidstat writes a block at a time.
    refreshing(
        "pidstat",
        Program::Named("stdbuf"),
        &["-oL", "pidstat", "1"],
        "%CPU",
        None,
    ),
];

/// The contender of a name.
pub(super) fn named(name: &str) -> Result<&'static Contender> {
    CONTENDERS
        .iter()
        .find(|contender| contender.name == name)
        .with_context(|| format!("contenders.rs has no row for {name}"))
}

/// Names of all contenders, for the tests of the lists that use them.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    CONTENDERS.iter().map(|contender| contender.name)
}

impl Program {
    /// The command that runs it; `None` where there is nothing to run.
    pub(super) fn command(&self) -> Result<Option<Command>> {
        let path: OsString = match self {
            Self::Nothing | Self::Empty(_) => return Ok(None),
            Self::Tracer => std::env::var_os("TRACER_BIN")
                .context("TRACER_BIN is not set: run `cargo xtask bench`")?,
            Self::Bench => std::env::current_exe()?.into(),
            Self::Named(name) => (*name).into(),
        };
        Ok(Some(Command::new(path)))
    }
}
