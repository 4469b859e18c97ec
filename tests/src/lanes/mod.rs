//! The live tests as one program: which tests there are, where and beside what each
//! may run, and the running itself.
//!
//! Every test is a process of its own (`child`), so a panic, a namespace or a signal of
//! one is nobody else's. Those of the *parallel* lane run side by side and read one
//! recorded tracer (`stream`); *serial* ones, whose truth is of the whole host, run alone
//! after them, as the kernel's own bpf selftests do.

mod child;
mod ledger;
mod options;
mod plan;
mod report;
mod run;
pub mod stream;

pub use run::main;

/// A disk that does four reads a second; guests have it.
pub const VDA: &str = "vda";
/// A plain disk, and /mnt of the first mount namespace; guests have it.
pub const VDB: &str = "vdb";
/// Whether the kernel writes a table of processes at a kill (`vm.oom_dump_tasks`).
pub const OOM_TABLE: &str = "vm.oom_dump_tasks";

/// How many samples a test takes: in the gate, and where every test runs alone, which takes
/// its time (`cargo xtask test --all`).
pub fn gate_or_all<T>(in_gate: T, in_all: T) -> T {
    if child::is_in_no_hurry() {
        in_all
    } else {
        in_gate
    }
}

/// A guest's CPUs: a nice value counts within the guest only, and what burns CPU time in
/// one takes it from the other. On a host two such tests may run beside each other.
pub const GUEST_CPUS: &str = "the CPUs of a guest";

/// When a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Alone, before all others.
    First,
    /// Beside others: its truth is of a process, a namespace or a cgroup.
    Parallel,
    /// Over all that the shared tracer recorded meanwhile.
    Stream,
    /// Alone.
    Serial,
    /// Alone, after all others.
    Last,
}

/// A live test. The reasons are for `--list`, and for whoever reads the table.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// `module::function`.
    pub name: &'static str,
    run: fn(),
    lane: Lane,
    /// Why it does not run beside others.
    why_alone: &'static str,
    /// Why it runs nowhere but on a host; empty when it does.
    host_only: &'static str,
    /// Why it runs nowhere but in a guest; empty when it does.
    guest_only: &'static str,
    /// Why it only runs when everything is asked for; empty when it does otherwise.
    all_only: &'static str,
    in_contract: bool,
    needs: &'static [&'static str],
    /// Ways to hook functions, of the shared tracers that it reads besides the usual one.
    streams: &'static [&'static str],
    limit_s: Option<u64>,
}

impl Test {
    /// A test that may run beside others, anywhere. Made by [`crate::test!`].
    pub const fn new(name: &'static str, run: fn()) -> Self {
        Self {
            name,
            run,
            lane: Lane::Parallel,
            why_alone: "",
            host_only: "",
            guest_only: "",
            all_only: "",
            in_contract: false,
            needs: &[],
            streams: &[],
            limit_s: None,
        }
    }

    /// Runs alone, after those that run side by side.
    pub const fn serial(self, reason: &'static str) -> Self {
        self.alone(Lane::Serial, reason)
    }

    /// Runs alone, before all others.
    pub const fn first(self, reason: &'static str) -> Self {
        self.alone(Lane::First, reason)
    }

    /// Runs alone, and leaves something behind that no other test can bear.
    pub const fn last(self, reason: &'static str) -> Self {
        self.alone(Lane::Last, reason)
    }

    /// Judges all that the shared tracer recorded while others ran. With a tracer of its
    /// own it makes the load itself, which is `--serial`.
    pub const fn stream(self) -> Self {
        self.alone(Lane::Stream, "it judges the whole stream")
    }

    const fn alone(mut self, lane: Lane, reason: &'static str) -> Self {
        self.lane = lane;
        self.why_alone = reason;
        self
    }

    /// Runs on a host only.
    pub const fn host(mut self, reason: &'static str) -> Self {
        self.host_only = reason;
        self
    }

    /// Runs in a guest only.
    pub const fn guest(mut self, reason: &'static str) -> Self {
        self.guest_only = reason;
        self
    }

    /// Runs only when everything is asked for (`cargo xtask test --all`).
    pub const fn all_only(mut self, reason: &'static str) -> Self {
        self.all_only = reason;
        self
    }

    /// Is part of the contract suite too: what a kernel between the oldest and the newest
    /// must show.
    pub const fn contract(mut self) -> Self {
        self.in_contract = true;
        self
    }

    /// Does not run beside another test that needs one of the same things.
    pub const fn needs(mut self, things: &'static [&'static str]) -> Self {
        self.needs = things;
        self
    }

    /// Reads the shared tracers of these ways to hook functions too.
    pub const fn streams(mut self, ways: &'static [&'static str]) -> Self {
        self.streams = ways;
        self
    }

    /// Is killed, and has failed, after so many seconds.
    pub const fn limit_s(mut self, seconds: u64) -> Self {
        self.limit_s = Some(seconds);
        self
    }

    /// Whether a word names it: whole, with or without its module.
    fn is_called(&self, word: &str) -> bool {
        let function = self.name.rsplit("::").next();
        self.name == word || function == Some(word)
    }
}

/// A row of a table of tests: `test!(function)`.
#[macro_export]
macro_rules! test {
    ($function:ident) => {
        $crate::lanes::Test::new(
            $crate::lanes::without_crate(concat!(module_path!(), "::", stringify!($function))),
            $function,
        )
    };
}

/// `live::causes::a_test` without its first word.
pub const fn without_crate(path: &'static str) -> &'static str {
    let (_, rest) = path.as_bytes().split_at(CRATE.len());
    // The path is UTF-8, and its first word ASCII.
    match std::str::from_utf8(rest) {
        Ok(rest) => rest,
        Err(_) => path,
    }
}

/// The name of the program, as paths of its modules begin.
const CRATE: &str = "live::";
