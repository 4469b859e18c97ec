//! What each command of tracer, and each of its processes, keeps of root's rights.
//!
//! [`TABLE`] is the whole of it: `tracer doctor` prints it, SECURITY.md repeats it, and the
//! live tests `rights` compare it with the kernel's own account of every thread. A command
//! gives up the rest in [`Rights::give_up`] before it starts a thread, as capabilities are
//! a thread's, and what only attaching needs in [`attached`]. What cannot be given up is
//! an answer of both, to be shown.

mod calls;
pub(crate) mod capabilities;
pub(crate) mod landlock;
pub(crate) mod seccomp;

use std::io;

use self::{
    capabilities::{
        BPF, CHECKPOINT_RESTORE, Capability, DAC_READ_SEARCH, IPC_LOCK, KILL, PERFMON, SETGID,
        SETPCAP, SETUID, SYS_ADMIN, SYS_PTRACE, SYSLOG,
    },
    landlock::Landlock,
    seccomp::Filter,
};

/// A row of the table.
#[derive(Debug)]
pub struct Rights {
    /// The commands or the process.
    pub of: &'static str,
    /// Capabilities that stay, as far as they are there.
    pub keeps: &'static [Capability],
    /// What the system call filter leaves, in words.
    pub may: &'static str,
    /// Whether what it runs may have what it keeps; else nothing may have anything.
    runs_programs: bool,
    /// What Landlock refuses, where the kernel has it.
    pub landlock: Landlock,
    filter: fn() -> Filter,
}

/// What watches, until it ends: `load`, `tcp`, `syn`, `oom` and `events` too.
pub const WATCH: Rights = Rights {
    of: "run",
    keeps: &[
        DAC_READ_SEARCH,
        IPC_LOCK,
        SYS_PTRACE,
        SYS_ADMIN,
        SYSLOG,
        PERFMON,
        BPF,
    ],
    may: "opens files to read them only; runs nothing, forks nothing, connects nowhere, \
          signals no process; so do load, tcp, syn, oom and events",
    runs_programs: false,
    landlock: Landlock::No,
    filter: calls::watch,
};

/// It ends soon, so no memory is locked. Its child asks mounts that may not answer.
pub const CHECK: Rights = Rights {
    of: "check",
    keeps: &[DAC_READ_SEARCH, SYS_PTRACE, SYS_ADMIN, SYSLOG, PERFMON, BPF],
    may: "opens files to read them only; runs nothing, connects nowhere",
    runs_programs: false,
    landlock: Landlock::No,
    filter: calls::check,
};

/// `tracer check --only` with rows that need neither BPF nor other network namespaces.
pub const CHECK_FILES: Rights = Rights {
    of: "check --only",
    keeps: &[DAC_READ_SEARCH, SYS_PTRACE, SYSLOG],
    may: "as check, and no bpf(2), perf_event_open(2) and setns(2)",
    runs_programs: false,
    landlock: Landlock::No,
    filter: calls::check_files,
};

/// It tries what the others do, and looks at no other process.
pub const DOCTOR: Rights = Rights {
    of: "doctor",
    keeps: &[DAC_READ_SEARCH, IPC_LOCK, SYS_ADMIN, SYSLOG, PERFMON, BPF],
    may: "as run, and no setns(2)",
    runs_programs: false,
    landlock: Landlock::Changes,
    filter: calls::doctor,
};

/// Starts and ends the two below: it has what they need, and what it takes to make one
/// of them another user and to end it. It reads messages of tracer and nothing else.
pub const LAUNCHER: Rights = Rights {
    of: "tracer-launcher",
    keeps: &[
        DAC_READ_SEARCH,
        KILL,
        SETGID,
        SETUID,
        SETPCAP,
        SYS_PTRACE,
        CHECKPOINT_RESTORE,
    ],
    may: "runs programs; makes no socket",
    runs_programs: true,
    landlock: Landlock::No,
    filter: calls::launcher,
};

/// Without these it can start no reader, or not end one; the others it only hands on.
pub(crate) const TO_START_READERS: &[Capability] = &[KILL, SETGID, SETUID, SETPCAP];

/// Opens files of suspected processes.
pub const OPENER: Rights = Rights {
    of: "tracer-opener",
    keeps: &[DAC_READ_SEARCH, SYS_PTRACE, CHECKPOINT_RESTORE],
    may: "opens files as user 65534; writes nothing, runs nothing, forks nothing, makes no \
          socket, signals no process",
    runs_programs: false,
    landlock: Landlock::No,
    filter: calls::opener,
};

/// Parses them.
pub const READER: Rights = Rights {
    of: "tracer-reader",
    keeps: &[],
    may: "reads what is open, sends answers, takes memory; anything else ends it",
    runs_programs: false,
    landlock: Landlock::All,
    filter: calls::reader,
};

/// Everything that runs.
pub const TABLE: [&Rights; 7] = [
    &WATCH,
    &CHECK,
    &CHECK_FILES,
    &DOCTOR,
    &LAUNCHER,
    &OPENER,
    &READER,
];

impl Rights {
    /// Gives up all other rights of the calling thread, and of those that it starts. What
    /// could not be given up, a line each.
    #[must_use]
    pub fn give_up(&self) -> Vec<String> {
        let mut kept = Vec::new();
        let mut note = |what: &str, done: io::Result<()>| {
            if let Err(error) = done {
                kept.push(format!("{what}: {error}"));
            }
        };
        let in_bounding_set = if self.runs_programs { self.keeps } else { &[] };
        // Who has no capability can gain none by what comes next.
        if capabilities::has_any() {
            note(
                "the bounding set of capabilities cannot be cleared",
                capabilities::bound(in_bounding_set),
            );
        }
        note(
            "capabilities that are not needed cannot be given up",
            capabilities::keep(self.keeps),
        );
        note("no_new_privs cannot be set", seccomp::no_new_privs());
        note(
            "Landlock cannot be put in force",
            self.landlock.put_in_force(),
        );
        note(
            "system calls cannot be filtered (CONFIG_SECCOMP_FILTER)",
            (self.filter)().install(),
        );
        kept
    }

    /// The capabilities by name, as `setpriv` and capabilities(7) have them.
    pub fn names(&self) -> String {
        names(self.keeps)
    }
}

/// Everything is attached: no thread of this process can load or make anything of BPF any
/// more. What could not be given up.
#[must_use]
pub fn attached() -> Option<String> {
    let closed = calls::attached().install();
    let note = |error| format!("loading BPF programs cannot be closed: {error}");
    closed.err().map(note)
}

fn names(of: &[Capability]) -> String {
    let names: Vec<&str> = of.iter().map(|one| one.name).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests;
