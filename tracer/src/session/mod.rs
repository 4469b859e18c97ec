//! Drives a run: attach, then at each tick read, aggregate and render, until
//! the time is over or a signal comes; then the summary.

mod cost;
mod naming;
mod output;
mod source;

pub use self::source::LEAST_KERNEL;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{CommandFactory as _, error::ErrorKind};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{cost::CostMeter, output::Output, source::Source};
use crate::{
    aggregate::{LoadAggregate, Options},
    cli::{By, Cli, RunArgs},
    clock::{self, MonotonicNs},
    host::{facts, own, users::Users},
    kernel::probes::PROBES,
    snapshot::Start,
};

/// Runs until the end that the arguments or a signal set.
///
/// # Errors
/// The kernel side cannot be brought up or read, or the output cannot be written.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    if args.pid.is_some() && args.by != By::Process {
        let message = "--pid is a row of its own only with --by process";
        Cli::command()
            .error(ErrorKind::ArgumentConflict, message)
            .exit();
    }
    if args.verbose {
        env_logger::Builder::new()
            .filter_level(log::LevelFilter::Debug)
            .init();
    }
    own::raise_priority();
    // One thread does everything: a tracer should not be a load of its own.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(Session::begin(args)?.drive())?;
    Ok(ExitCode::SUCCESS)
}

struct Session {
    source: Source,
    aggregate: LoadAggregate,
    cost: CostMeter,
    output: Output,
    start: Start,
    began: MonotonicNs,
    interval_ns: u64,
    until: Option<MonotonicNs>,
    count: Option<u64>,
    is_verbose: bool,
}

impl Session {
    /// Attaches and takes the first reading.
    fn begin(args: &RunArgs) -> anyhow::Result<Self> {
        let (mut source, hooks) = Source::attach(args)?;
        let first = source.read_first()?;
        let began = first.clock.now;
        let options = Options {
            by: args.by.into(),
            top: args.top.into(),
            pid: args.pid,
            min_block_ns: nanoseconds(args.min_block),
            users: Users::read(),
        };
        let interval_ns = nanoseconds(args.interval);
        let start = Start {
            version: env!("CARGO_PKG_VERSION"),
            host: facts::host(),
            interval_ns,
            by: args.by.into(),
            rows: args.by.into(),
            hooks,
            notes: notes(),
        };
        Ok(Self {
            aggregate: LoadAggregate::new(options, &first),
            cost: CostMeter::new(&source, began),
            output: Output::new(args.format, args.stacks),
            source,
            start,
            began,
            interval_ns,
            until: args.duration.map(|duration| began + nanoseconds(duration)),
            count: args.count,
            is_verbose: args.verbose,
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
            let reading = self.source.read(self.aggregate.wants_complete())?;
            self.aggregate.observe(&reading);
            let own = self.cost.total(reading.clock.now);
            self.output.end(&self.aggregate.summary(own))?;
        }
        Ok(())
    }

    /// Reads and shows until the end; whether somebody still reads the output.
    async fn watch(&mut self, end: &mut Ending) -> anyhow::Result<bool> {
        let mut tick = self.began + self.interval_ns;
        let mut shown = 0;
        loop {
            let last = self.until.is_some_and(|until| until <= tick);
            let tick_at = if last {
                self.until.unwrap_or(tick)
            } else {
                tick
            };
            let wake = self
                .aggregate
                .next_sample_due()
                .map_or(tick_at, |due| due.min(tick_at));
            tokio::select! {
                () = end.wait() => return Ok(true),
                () = tokio::time::sleep_until(clock::deadline(wake).into()) => {}
            }
            let reading = self.source.read(self.aggregate.wants_complete())?;
            self.aggregate.observe(&reading);
            let now = reading.clock.now;
            self.cost.watch(&self.source, now);
            if now < tick_at {
                continue;
            }
            let own = self.cost.interval(now);
            let hooks = (self.source.hooks_in_force(), PROBES.len());
            let is_open = self.output.snapshot(&self.aggregate.snapshot(own, hooks))?;
            shown += 1;
            if !is_open || last || self.count.is_some_and(|count| shown >= count) {
                return Ok(is_open);
            }
            // After a stop (SIGSTOP, a suspended machine) missed ticks are not made up for.
            let missed = now.since_ns(tick) / self.interval_ns;
            tick = tick + (missed + 1) * self.interval_ns;
        }
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

fn notes() -> Vec<String> {
    let mut notes = Vec::new();
    if !facts::in_initial_pid_namespace() {
        notes.push(
            "this is not the host's pid namespace: processes outside of it are not seen, \
             and what the kernel counts of them is unexplained"
                .into(),
        );
    }
    notes
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
