//! The command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    error::ErrorKind, parser::ValueSource,
};

use crate::{
    check::finding::Row,
    kernel::loader::FunctionHooks,
    snapshot::{GroupBy, Rows},
};

const EXAMPLES: &str = "\
Examples:
  sudo tracer run                              watch the load on a terminal
  sudo tracer run --by cgroup --interval 5s    which service the load comes from
  sudo tracer run --by cause                   what tasks are blocked by
  sudo tracer tcp                              sockets: leaks, TIME_WAIT, who closed first
  sudo tracer syn                              listeners: SYN floods, full queues, slow servers
  sudo tracer oom                              who was killed for memory, and who is next
  sudo tracer run --format json --duration 1m  JSON Lines, for a program
  sudo tracer events --min-block 100ms         long blocks and leaked sockets, one by one
  sudo tracer check                            the whole host at a look, worst first
  sudo tracer doctor                           what this kernel and these rights allow

Exit status: 0 at the end, after Ctrl-C or SIGTERM too; 1 when something failed, or
`check --fail-on` found something that bad; 2 for bad usage. NO_COLOR is obeyed.";

/// Shows what the load average is made of, what sockets do and who is killed, live, from the
/// kernel's own events.
#[derive(Debug, Parser)]
#[command(name = "tracer", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the load, itemised, TCP sockets, listeners and memory kills, at every interval
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Show the load alone, and why tasks are blocked; also as a flame graph
    #[command(after_help = LOAD_EXAMPLES)]
    Load(LoadArgs),
    /// Show the TCP sockets alone: states, transitions, CLOSE_WAIT leaks, TIME_WAIT
    #[command(after_help = TCP_EXAMPLES)]
    Tcp(TcpArgs),
    /// Show listeners alone: SYN queues, accept queues, SYN cookies, and a verdict
    #[command(after_help = SYN_EXAMPLES)]
    Syn(RunArgs),
    /// Show memory alone: who was killed and why, who is next, which cgroups are full
    #[command(after_help = OOM_EXAMPLES)]
    Oom(OomArgs),
    /// Tell of blocked tasks, leaked sockets, floods and memory kills one by one, as they happen
    #[command(after_help = EVENTS_EXAMPLES)]
    Events(EventsArgs),
    /// Look at the whole host once: what is wrong, with figures, and who is to blame
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Tell what this kernel and these rights allow, and what to do about it
    Doctor(DoctorArgs),
}

/// Options of the table of the load. A page without that table has nothing to do with them.
const OF_TABLE: [&str; 3] = ["by", "top", "pid"];
/// Pages of one subject, without the table. As JSON they carry everything.
const WITHOUT_TABLE: [&str; 3] = ["tcp", "syn", "oom"];

/// The command line; ends the program where it is wrong, with status 2.
pub fn parse() -> Cli {
    parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// The same, of these words.
fn parse_from(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let Some((name, of)) = matches
        .subcommand()
        .filter(|(name, _)| WITHOUT_TABLE.contains(name))
    else {
        return Ok(cli);
    };
    let is_json = of.get_one("format") == Some(&Format::Json);
    let is_given = |option: &&&str| of.value_source(option) == Some(ValueSource::CommandLine);
    match OF_TABLE.iter().find(is_given).filter(|_| !is_json) {
        None => Ok(cli),
        Some(option) => {
            let why = format!(
                "--{option} is of the table of the load, which the page of `tracer {name}` does \
                 not have; with --format json it holds for .load"
            );
            Err(command.error(ErrorKind::ArgumentConflict, why))
        }
    }
}

const CHECK_EXAMPLES: &str = "\
Examples:
  sudo tracer check                            a verdict a line, worst first
  sudo tracer check --all --sample 10s         every row with its figures
  sudo tracer check --only disks,deleted --du  what fills the fullest file system
  sudo tracer check --fail-on critical         for a script: exits 1 when something is critical
  tracer check --print-config > limits.toml    every limit, to be changed and given to --config

Verdicts: ok, note, warning, critical. Without root it looks at what it may, and says what
it could not see.";

const SYN_EXAMPLES: &str = "\
Examples:
  sudo tracer syn                      what waits at each listener, and what is the matter
  sudo tracer syn --format json | jq '.syn.listeners[]? | select(.verdict != \"healthy\")'
  sudo tracer events                   floods and slow servers as they begin and end";

const OOM_EXAMPLES: &str = "\
Examples:
  sudo tracer oom                      kills as they happen, past ones, and who is next
  sudo tracer oom --next               who would be killed now: one look, then the end
  sudo tracer oom --next --format json | jq '.oom.next[0] // empty'
  sudo tracer events                   kills one by one, among other events";

const RUN_EXAMPLES: &str = "\
Examples:
  sudo tracer run                                   until Ctrl-C, then a summary
  sudo tracer run --duration 30s --by comm          half a minute, by name
  sudo tracer run --format json | jq '.load.mean // empty'   one part, for a program
  sudo tracer run --pid 2211 --min-block 100ms      one process, long blocks only

Words: running is on a CPU, waiting is runnable without one, throttled is held by a
cgroup's CPU limit, blocked is uninterruptible sleep (D). 1.00 is one task all the time.";

const LOAD_EXAMPLES: &str = "\
Examples:
  sudo tracer load --by cause                           what tasks are blocked by, then who
  sudo tracer load --duration 1m --flame blocked.svg    a picture of all blocked time
  sudo tracer load --duration 1m --folded blocked.txt   the same for other flame graph tools";

const TCP_EXAMPLES: &str = "\
Examples:
  sudo tracer tcp                                       until Ctrl-C, then a summary
  sudo tracer tcp --leak-age 1m                         sockets may stay in CLOSE_WAIT for a minute
  sudo tracer tcp --matrix --interval 10s               from which state to which, as a grid
  sudo tracer tcp --format json | jq '.tcp.close_wait // empty'   one part

Words: who closes first keeps the socket in TIME_WAIT for a minute. At the other side it
is in CLOSE_WAIT until the process there closes it too; one that forgets to leaks sockets.";

const EVENTS_EXAMPLES: &str = "\
Examples:
  sudo tracer events                                    blocks of 1 ms and more, as they end
  sudo tracer events --min-block 100ms --stacks         long ones, with the kernel's stack
  sudo tracer events --format json --duration 1m        JSON Lines, for a program

A task that stays blocked is told when it passes 1 s, 10 s, 60 s and 120 s, and again
when it is woken. A socket is told when its process leaks and it passes --leak-age, a
listener when its trouble begins and ends, a kill within 100 ms.";

/// Of options that only a test has a reason to change.
const DEAD_PEER_AGE: &str = "9s";
const RECOUNT_AFTER: &str = "10s";

/// Options of all that watch.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// Stop after this time [default: at Ctrl-C]
    #[arg(long, value_name = "TIME", value_parser = positive, allow_hyphen_values = true)]
    pub duration: Option<Duration>,

    /// Look at blocked episodes from this length on: why, on what, who woke
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = time)]
    pub min_block: Duration,

    /// From this age on, a socket in CLOSE_WAIT can be a leak; at least 100ms
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = leak_age,
          allow_hyphen_values = true)]
    pub leak_age: Duration,

    /// From this age on, the peer of a closed connection does not answer
    #[arg(long, value_name = "TIME", default_value = DEAD_PEER_AGE, value_parser = positive,
          hide = true)]
    pub dead_peer_age: Duration,

    /// Count all sockets anew after this time
    #[arg(long, value_name = "TIME", default_value = RECOUNT_AFTER, value_parser = positive,
          hide = true)]
    pub recount_after: Duration,

    /// Show the kernel stack of each blocked task
    #[arg(long)]
    pub stacks: bool,

    /// Read the kernel's type information from here, not /sys/kernel/btf/vmlinux
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,

    /// How to hook kernel functions
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    pub function_hooks: HowFunctions,

    /// Write debug lines, those of the kernel programs too, to standard error
    #[arg(long, short)]
    pub verbose: bool,
}

/// Options of `tracer run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Time between two snapshots, 100ms to 1h
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval,
          allow_hyphen_values = true)]
    pub interval: Duration,

    /// Stop after this many snapshots
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// How to show it: auto is tui on a terminal, else text
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// What a row of the table is
    #[arg(long, value_enum, default_value_t)]
    pub by: By,

    /// At most this many rows; the rest is summed up as `other`
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub top: u16,

    /// Only this process has a row; the rest is summed up as `other`
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,

    /// What all that watch have in common
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// Options of `tracer load`.
#[derive(Args, Debug)]
pub struct LoadArgs {
    /// Those of `tracer run`
    #[command(flatten)]
    pub run: RunArgs,

    /// At the end, write a flame graph of all blocked time to this file (SVG)
    #[arg(long, value_name = "FILE")]
    pub flame: Option<PathBuf>,

    /// At the end, write all blocked time by process, cause and stack to this file
    #[arg(long, value_name = "FILE")]
    pub folded: Option<PathBuf>,
}

/// Options of `tracer tcp`.
#[derive(Args, Debug)]
pub struct TcpArgs {
    /// Those of `tracer run`
    #[command(flatten)]
    pub run: RunArgs,

    /// Show transitions as a grid, from which state to which
    #[arg(long)]
    pub matrix: bool,
}

/// Options of `tracer oom`.
#[derive(Args, Debug)]
pub struct OomArgs {
    /// Those of `tracer run`
    #[command(flatten)]
    pub run: RunArgs,

    /// Look once, and show who would be killed next, on the host and in each cgroup with a limit
    #[arg(long)]
    pub next: bool,
}

/// Options of `tracer events`.
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// Stop after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    pub format: PlainFormat,

    /// Only events of this process
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,

    /// What all that watch have in common
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// Options of `tracer check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// How long to watch for what only time shows; at least 100ms
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = sample,
          allow_hyphen_values = true)]
    pub sample: Duration,

    /// Only these rows
    #[arg(long, value_enum, value_name = "ROW", value_delimiter = ',')]
    pub only: Vec<Row>,

    /// Show the rows that are ok one by one too
    #[arg(long)]
    pub all: bool,

    /// Look for the largest directories of the fullest file system, 10 s at most
    #[arg(long)]
    pub du: bool,

    /// Exit 1 when something is as bad as this, or a row could not look
    #[arg(long, value_enum, value_name = "VERDICT")]
    pub fail_on: Option<FailOn>,

    /// What the exit status says: `nagios` is 0 ok or note, 1 warning, 2 critical, 3 unknown
    #[arg(long, value_enum, value_name = "SCHEME", conflicts_with = "fail_on")]
    pub exit_codes: Option<ExitCodes>,

    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    pub format: PlainFormat,

    /// Limits that differ from the usual ones (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print every limit with its reason as TOML, and end
    #[arg(long)]
    pub print_config: bool,

    /// Read the kernel's type information from here, not /sys/kernel/btf/vmlinux
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
}

/// What the exit status of `tracer check` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExitCodes {
    /// That of monitoring plugins: 0 ok or note, 1 warning, 2 critical, 3 unknown
    Nagios,
}

/// What makes `tracer check` exit 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// A row of which a part could not be looked at, or worse
    Unknown,
    /// A warning, or something critical
    Warning,
    /// Something critical
    Critical,
}

/// Options of `tracer doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    pub format: PlainFormat,

    /// Read the kernel's type information from here, not /sys/kernel/btf/vmlinux
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
}

/// How kernel functions may be hooked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum HowFunctions {
    /// fentry, else kprobe, else not at all
    #[default]
    Auto,
    /// By trampolines only
    Fentry,
    /// By breakpoints only
    Kprobe,
    /// Not at all
    Off,
}

impl From<HowFunctions> for FunctionHooks {
    fn from(how: HowFunctions) -> Self {
        match how {
            HowFunctions::Auto => Self::Any,
            HowFunctions::Fentry => Self::Fentry,
            HowFunctions::Kprobe => Self::Kprobe,
            HowFunctions::Off => Self::Off,
        }
    }
}

/// How a run is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// tui on a terminal, else text
    #[default]
    Auto,
    /// A page that refreshes in place
    Tui,
    /// Plain text, a block a snapshot
    Text,
    /// JSON Lines
    Json,
}

/// How it is shown where there is no page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PlainFormat {
    /// Plain text
    #[default]
    Text,
    /// JSON: Lines, or one object
    Json,
}

/// What a row is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// A process; those that exited are put together by name
    #[default]
    Process,
    /// All tasks of one name
    Comm,
    /// All tasks of one cgroup
    Cgroup,
    /// All tasks of one user
    User,
    /// Why tasks are blocked, then the processes
    Cause,
    /// The block device that tasks are blocked at, then the processes
    Device,
}

impl From<By> for Rows {
    fn from(by: By) -> Self {
        match by {
            By::Process | By::Comm | By::Cgroup | By::User => Self::Groups,
            By::Cause => Self::Causes,
            By::Device => Self::Devices,
        }
    }
}

impl From<By> for GroupBy {
    fn from(by: By) -> Self {
        match by {
            By::Process | By::Cause | By::Device => Self::Process,
            By::Comm => Self::Comm,
            By::Cgroup => Self::Cgroup,
            By::User => Self::User,
        }
    }
}

const LEAST_INTERVAL: Duration = Duration::from_millis(100);
const MOST_INTERVAL: Duration = Duration::from_secs(3600);

fn interval(text: &str) -> Result<Duration, String> {
    let time = positive(text)?;
    if time < LEAST_INTERVAL {
        Err("shorter than 100ms; the kernel's averages move every 5 s".into())
    } else if time > MOST_INTERVAL {
        Err("longer than 1h; use --duration for the length of the run".into())
    } else {
        Ok(time)
    }
}

fn sample(text: &str) -> Result<Duration, String> {
    let time = positive(text)?;
    if time < LEAST_INTERVAL {
        Err("shorter than 100ms; rates need some time".into())
    } else if time > MOST_INTERVAL {
        Err("longer than 1h; `tracer run` watches for as long as you like".into())
    } else {
        Ok(time)
    }
}

const LEAST_LEAK_AGE: Duration = Duration::from_millis(100);

fn leak_age(text: &str) -> Result<Duration, String> {
    let time = positive(text)?;
    if time < LEAST_LEAK_AGE {
        Err("shorter than 100ms; a process needs some time to close a socket".into())
    } else {
        Ok(time)
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        return Err("a time cannot be negative".into());
    }
    match time(text)? {
        Duration::ZERO => Err("a time of zero; give one such as 1s or 500ms".into()),
        time => Ok(time),
    }
}

/// A number alone is seconds, as vmstat(8) and sleep(1) have it.
fn time(text: &str) -> Result<Duration, String> {
    let is_number = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let seconds = text.parse().ok().filter(|_| is_number);
    match seconds.map(Duration::try_from_secs_f64) {
        Some(Ok(time)) => Ok(time),
        _ => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; give a time such as 500ms, 1s or 2m")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory as _, Parser as _};

    use super::{Cli, Command};

    fn interval(text: &str) -> Result<Duration, String> {
        match Cli::try_parse_from(["tracer", "run", "--interval", text]) {
            Ok(Cli {
                command: Command::Run(args),
            }) => Ok(args.interval),
            Ok(_) => unreachable!("run was asked for"),
            Err(error) => {
                assert_eq!(error.exit_code(), 2, "bad usage exits 2");
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn options_of_the_table_are_refused_where_there_is_none() {
        let status = |words: &str| {
            let args = words.split(' ').map(std::ffi::OsString::from);
            super::parse_from(args).err().map(|error| error.exit_code())
        };
        for page in ["tcp", "syn", "oom"] {
            for option in ["--pid 1", "--top 1", "--by comm"] {
                assert_eq!(status(&format!("tracer {page} {option}")), Some(2));
                let json = format!("tracer {page} {option} --format json");
                assert_eq!(status(&json), None);
            }
            assert_eq!(status(&format!("tracer {page}")), None);
        }
        assert_eq!(status("tracer run --pid 1 --top 1 --by comm"), None);
        assert_eq!(
            status("tracer check --exit-codes nagios --fail-on warning"),
            Some(2)
        );
    }

    #[test]
    fn intervals() {
        assert_eq!(interval("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(interval("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(interval("5"), Ok(Duration::from_secs(5)));
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for (bad, word) in [
            ("0s", "zero"),
            ("-1s", "negative"),
            ("1ms", "shorter than 100ms"),
            ("10000h", "longer than 1h"),
            ("99999999999999999999s", "such as 500ms"),
            ("soon", "such as 500ms"),
            ("0.0.5", "such as 500ms"),
            ("99999999999999999999", "such as 500ms"),
        ] {
            let error = interval(bad).expect_err(bad);
            assert!(error.contains(word), "{bad}: {error}");
        }
    }

    #[test]
    fn leak_ages() {
        let age = |text| match Cli::try_parse_from(["tracer", "tcp", "--leak-age", text]) {
            Ok(Cli {
                command: Command::Tcp(args),
            }) => Ok(args.run.watch.leak_age),
            Ok(_) => unreachable!("tcp was asked for"),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(age("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(age("100ms"), Ok(Duration::from_millis(100)));
        for (bad, word) in [("99ms", "shorter than 100ms"), ("-1s", "negative")] {
            let error = age(bad).expect_err(bad);
            assert!(error.contains(word), "{bad}: {error}");
        }
    }

    #[test]
    fn help() {
        let mut command = Cli::command().term_width(100);
        insta::assert_snapshot!("help", command.render_help());
        for name in [
            "run", "load", "tcp", "syn", "oom", "events", "check", "doctor",
        ] {
            let sub = command.find_subcommand_mut(name).expect(name);
            insta::assert_snapshot!(format!("help-{name}"), sub.render_help());
        }
    }
}
