//! Drives a run: attach, then at each tick read, aggregate and render, until
//! the time is over or a signal comes; then the summary.

mod cost;
mod effort;
mod left_over;
mod memory;
mod naming;
mod once;
mod openings;
mod output;
mod output_file;
mod parts;
mod pictures;
mod screen;
mod sockets;
mod source;
mod watching;
mod writer;

pub(crate) use self::screen::{encode, width_and_color};
pub use self::{
    once::{Watched, sample},
    source::{LEAST_KERNEL, LEAST_ROOM_BYTES},
};

use std::{io, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{CommandFactory as _, error::ErrorKind};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
};

use self::{
    cost::CostMeter,
    output::Output,
    pictures::Pictures,
    source::{Source, Wants},
};
use crate::{
    aggregate::{LoadAggregate, Options, Reading, tcp::TcpAges},
    cli::{By, Cli, EventsArgs, Format, LoadArgs, OomArgs, RunArgs, TcpArgs, WatchArgs},
    clock::{self, MonotonicNs},
    host::{facts, own, user_stacks::Launcher, users::Users},
    kernel::{probes::PROBES, symbols::Symbols},
    rights,
    snapshot::{Event, Start, Subject},
};

/// The first snapshot of who only wants to look once.
const AT_ONCE: Duration = Duration::from_millis(1);
/// How often `tracer events` looks.
const EVENTS_INTERVAL: Duration = Duration::from_millis(250);
/// After a kill the next one is waited for no sooner than this, in ns: one that kills
/// thousands of processes shall not keep tracer busy, and is told soon enough.
const REST_AFTER_KILL: u64 = 20_000_000;
/// At the end it is looked so often whether all is written.
const WRITTEN_EVERY: Duration = Duration::from_millis(10);

/// Runs until the end that the arguments or a signal set.
///
/// # Errors
/// The kernel side cannot be brought up or read, or the output cannot be written.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    watch(Setup::of_run(args), Pictures::default())
}

/// The same, with files at its end.
///
/// # Errors
/// As [`run`], or a file cannot be written.
pub fn load(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let pictures = Pictures::create(args)?;
    let setup = Setup {
        subject: Subject::Load,
        ..Setup::of_run(&args.run)
    };
    watch(setup, pictures)
}

/// The same, of which a text shows the TCP sockets alone.
///
/// # Errors
/// As [`run`].
pub fn tcp(args: &TcpArgs) -> anyhow::Result<ExitCode> {
    let setup = Setup {
        subject: Subject::Tcp,
        matrix: args.matrix,
        ..Setup::of_run(&args.run)
    };
    watch(setup, Pictures::default())
}

/// The same, of which a text shows listeners alone.
///
/// # Errors
/// As [`run`].
pub fn syn(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let setup = Setup {
        subject: Subject::Syn,
        ..Setup::of_run(args)
    };
    watch(setup, Pictures::default())
}

/// The same, of which a text shows memory alone; with `--next` once, at once.
///
/// # Errors
/// As [`run`].
pub fn oom(args: &OomArgs) -> anyhow::Result<ExitCode> {
    let of_run = Setup::of_run(&args.run);
    let (interval, count) = match args.next {
        true => (AT_ONCE, Some(1)),
        false => (of_run.interval, of_run.count),
    };
    // One look is no page.
    let format = match args.run.format {
        Format::Auto if args.next => Format::Text,
        format => format,
    };
    let setup = Setup {
        subject: Subject::Oom,
        next: args.next,
        interval,
        count,
        output: Output::new(format, args.run.watch.stacks),
        ..of_run
    };
    watch(setup, Pictures::default())
}

/// Tells of events until the end that the arguments or a signal set.
///
/// # Errors
/// As [`run`].
pub fn events(args: &EventsArgs) -> anyhow::Result<ExitCode> {
    let setup = Setup {
        watch: &args.watch,
        interval: EVENTS_INTERVAL,
        count: args.count,
        by: By::Process,
        top: 0,
        pid: args.pid,
        subject: Subject::All,
        matrix: false,
        next: false,
        shows: Shows::Events,
        output: Output::of_events(args.format, args.watch.stacks),
    };
    watch(setup, Pictures::default())
}

fn watch(setup: Setup<'_>, pictures: Pictures) -> anyhow::Result<ExitCode> {
    if setup.watch.verbose {
        env_logger::Builder::new()
            .filter_level(log::LevelFilter::Debug)
            .init();
    }
    // Both take rights that are given up next.
    let launcher = Launcher::start();
    own::raise_priority();
    let kept_rights = rights::WATCH.give_up();
    // One thread does everything: a tracer should not be a load of its own.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(Session::begin(setup, pictures, launcher, kept_rights)?.drive())?;
    Ok(ExitCode::SUCCESS)
}

/// What is shown as time goes by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// A snapshot an interval, and tasks that hang.
    Snapshots,
    /// Blocked tasks one by one.
    Events,
}

/// What a command asks for.
struct Setup<'a> {
    watch: &'a WatchArgs,
    interval: Duration,
    /// Of what is shown.
    count: Option<u64>,
    by: By,
    top: u16,
    pid: Option<u32>,
    subject: Subject,
    matrix: bool,
    next: bool,
    shows: Shows,
    output: Output,
}

impl<'a> Setup<'a> {
    fn of_run(args: &'a RunArgs) -> Self {
        let is_by_process = matches!(args.by, By::Process | By::Cause | By::Device);
        if args.pid.is_some() && !is_by_process {
            let message = "--pid goes with --by process, cause or device only";
            Cli::command()
                .error(ErrorKind::ArgumentConflict, message)
                .exit();
        }
        Self {
            watch: &args.watch,
            interval: args.interval,
            count: args.count,
            by: args.by,
            top: args.top,
            pid: args.pid,
            subject: Subject::All,
            matrix: false,
            next: false,
            shows: Shows::Snapshots,
            output: Output::new(args.format, args.watch.stacks),
        }
    }
}

struct Session {
    source: Source,
    aggregate: LoadAggregate,
    cost: CostMeter,
    output: Output,
    pictures: Pictures,
    shows: Shows,
    start: Start,
    began: MonotonicNs,
    /// When the reading before was.
    read_at: Option<MonotonicNs>,
    interval_ns: u64,
    until: Option<MonotonicNs>,
    count: Option<u64>,
    /// Snapshots or events so far.
    shown: u64,
    /// A signal has ended it.
    is_stopped: bool,
    is_verbose: bool,
}

impl Session {
    /// Attaches and takes the first reading.
    fn begin(
        setup: Setup<'_>,
        pictures: Pictures,
        launcher: io::Result<Launcher>,
        mut kept_rights: Vec<String>,
    ) -> anyhow::Result<Self> {
        let watch = setup.watch;
        let (launcher, no_launcher) = match launcher {
            Ok(launcher) => (Some(launcher), None),
            Err(error) => (None, Some(error)),
        };
        let (mut source, hooks) = Source::attach(watch, launcher)?;
        kept_rights.extend(source.kept_right().map(str::to_owned));
        if setup.shows == Shows::Events {
            // An event is told once, so names must be there at once.
            source.load_symbols();
        }
        let first = source.read_first()?;
        let began = first.clock.now;
        let options = Options {
            by: setup.by.into(),
            top: setup.top.into(),
            pid: setup.pid,
            min_block_ns: nanoseconds(watch.min_block),
            leaks: TcpAges {
                leak_age_ns: nanoseconds(watch.leak_age),
                dead_peer_ns: nanoseconds(watch.dead_peer_age),
            },
            users: Users::read(),
        };
        let interval_ns = nanoseconds(setup.interval);
        let start = Start {
            version: env!("CARGO_PKG_VERSION"),
            host: facts::host(),
            interval_ns,
            by: setup.by.into(),
            rows: setup.by.into(),
            subject: setup.subject,
            matrix: setup.matrix,
            next: setup.next,
            hooks,
            notes: notes(&source, no_launcher, &kept_rights),
        };
        Ok(Self {
            aggregate: LoadAggregate::new(options, &first),
            cost: CostMeter::new(&source, began),
            output: setup.output,
            pictures,
            shows: setup.shows,
            source,
            start,
            began,
            read_at: None,
            interval_ns,
            until: watch.duration.map(|duration| began + nanoseconds(duration)),
            count: setup.count,
            shown: 0,
            is_stopped: false,
            is_verbose: watch.verbose,
        })
    }

    /// The run, and its end.
    async fn drive(mut self) -> anyhow::Result<()> {
        if self.is_verbose {
            self.source.forward_log()?;
        }
        let mut end = Ending::listen()?;
        let is_open = self.output.start(&self.start)? && self.watch(&mut end).await?;
        if is_open {
            // What happened since the last snapshot belongs to the summary too.
            let reading = self.read()?;
            self.tell(&reading)?;
            let own = self.cost.total(reading.clock.now);
            self.aggregate.set_unwritten(self.output.dropped());
            self.output.end(&self.aggregate.summary(own))?;
        }
        let title = format!("blocked time on {}", self.start.host.hostname);
        // The hooks go first: a file or an output that hangs may hold up what is left.
        drop(self.source);
        // A reader that is slow gets all of it, but for one who wants the end now.
        while !self.is_stopped && self.output.is_busy() {
            tokio::select! {
                () = end.wait() => self.is_stopped = true,
                () = tokio::time::sleep(WRITTEN_EVERY) => {}
            }
        }
        let is_written = self.output.finish();
        self.pictures.write(&title, &self.aggregate.stacks())?;
        is_written
    }

    /// Reads, and takes the reading in.
    fn read(&mut self) -> anyhow::Result<Reading> {
        let tcp = self.aggregate.tcp();
        let holders = tcp.is_some_and(|tcp| tcp.wants_holders());
        let reading = self.source.read(Wants {
            every_task: self.aggregate.wants_complete(),
            holders,
        })?;
        self.aggregate.observe(&reading);
        if let Some(tcp) = self.aggregate.tcp() {
            let suspects = tcp.suspects();
            self.source.watch_openings(&suspects);
        }
        Ok(reading)
    }

    /// Tells what is notable of a reading; whether somebody still reads the output.
    fn tell(&mut self, reading: &Reading) -> anyhow::Result<bool> {
        let before = self.read_at.replace(reading.clock.now);
        let mut blocked = Vec::new();
        if self.shows == Shows::Events {
            blocked = self.aggregate.woken(reading);
        }
        blocked.extend(self.aggregate.still_blocked(before));
        let blocked = blocked.into_iter().map(Event::Blocked);
        let sockets = self.aggregate.socket_events();
        let kills = self.aggregate.kills(reading.clock.now);
        self.tell_all(blocked.chain(sockets).chain(kills))
    }

    /// Takes in who was killed, and tells what can be told; whether somebody still reads
    /// the output.
    fn tell_kills(&mut self) -> anyhow::Result<bool> {
        let reading = self.source.read_kills();
        let now = clock::monotonic();
        self.aggregate
            .observe_kills((now, clock::wall_at(now)), &reading);
        let kills = self.aggregate.kills(now);
        self.tell_all(kills.into_iter())
    }

    fn tell_all(&mut self, events: impl Iterator<Item = Event>) -> anyhow::Result<bool> {
        let mut events: Vec<Event> = events.collect();
        if self.shows == Shows::Events {
            let wanted = self.count.map_or(u64::MAX, |count| count - self.shown);
            events.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
            self.shown += events.len() as u64;
        }
        if events.is_empty() {
            return Ok(true);
        }
        self.output.events(&events)
    }

    /// Reads and shows until the end; whether somebody still reads the output.
    async fn watch(&mut self, end: &mut Ending) -> anyhow::Result<bool> {
        let mut tick = self.began + self.interval_ns;
        let kills = self.source.wakes_at_kills()?;
        // SAFETY: the descriptor is owned, and shows itself.
        let kills = unsafe { AsyncFd::register_with_interest(kills, Interest::READABLE) }
            .context("cannot wait for kills")?;
        let mut rests_until = self.began;
        loop {
            let last = self.until.is_some_and(|until| until <= tick);
            let tick_at = if last {
                self.until.unwrap_or(tick)
            } else {
                tick
            };
            let dues = [
                self.aggregate.next_sample_due(),
                self.source.watches_until(),
            ];
            let due = dues.into_iter().flatten().fold(tick_at, MonotonicNs::min);
            let kill_due = self.aggregate.next_kill_due();
            let wake = kill_due.map_or(due, |kill_due| due.min(kill_due.max(rests_until)));
            let rests = clock::monotonic() < rests_until;
            tokio::select! {
                () = end.wait() => {
                    self.is_stopped = true;
                    return Ok(true);
                }
                () = tokio::time::sleep_until(clock::deadline(rests_until).into()), if rests => {
                    continue;
                }
                ready = kills.readable(), if !rests => {
                    ready.context("cannot wait for kills")?.clear_ready();
                    rests_until = clock::monotonic() + REST_AFTER_KILL;
                    let is_open = self.tell_kills()?;
                    if is_open && !self.is_enough() {
                        continue;
                    }
                }
                () = tokio::time::sleep_until(clock::deadline(wake).into()) => {
                    // All else waits for its own time: kills can come without end.
                    if wake < due {
                        rests_until = clock::monotonic() + REST_AFTER_KILL;
                        let is_open = self.tell_kills()?;
                        if is_open && !self.is_enough() {
                            continue;
                        }
                    }
                }
            }
            let reading = self.read()?;
            let now = reading.clock.now;
            self.cost.watch(&self.source, now);
            let mut is_open = self.tell(&reading)?;
            if is_open && !self.is_enough() && now < tick_at {
                continue;
            }
            let own = self.cost.interval(now);
            let hooks = (self.source.hooks_in_force(), PROBES.len());
            self.aggregate.set_unwritten(self.output.dropped());
            let snapshot = self.aggregate.snapshot(own, hooks);
            if self.shows == Shows::Snapshots {
                is_open = is_open && self.output.snapshot(&snapshot)?;
                self.shown += 1;
            }
            if !is_open || last || self.is_enough() {
                return Ok(is_open);
            }
            // After a stop (SIGSTOP, a suspended machine) missed ticks are not made up for.
            let missed = now.since_ns(tick) / self.interval_ns;
            tick = tick + (missed + 1) * self.interval_ns;
        }
    }

    fn is_enough(&self) -> bool {
        self.count.is_some_and(|count| self.shown >= count)
    }
}

/// The signals that end a run in order.
struct Ending([Signal; 3]);

impl Ending {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn notes(source: &Source, no_launcher: Option<io::Error>, kept_rights: &[String]) -> Vec<String> {
    let kept = kept_rights.iter();
    let mut notes: Vec<String> = kept.map(|kept| format!("rights: {kept}")).collect();
    if let Some(error) = no_launcher {
        notes.push(format!(
            "where leaking processes open their sockets stays unknown: what reads their \
             files cannot be started: {error}"
        ));
    }
    if !facts::in_initial_pid_namespace() {
        notes.push(
            "this is not the host's pid namespace: processes outside of it are not seen, \
             and what the kernel counts of them is unexplained"
                .into(),
        );
    }
    if let Err(error) = Symbols::check() {
        notes.push(format!("why tasks are blocked stays unknown: {error}"));
    }
    if let Some(error) = source.unseeded() {
        notes.push(format!(
            "TCP sockets from before the start are not counted: {error:#}"
        ));
    }
    if let Some(error) = source.no_log() {
        notes.push(format!(
            "kills from before the start are not known, nor whose limit was reached: {error:#}"
        ));
    }
    notes
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
