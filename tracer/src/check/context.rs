//! What rows share: the sample's begin and end, the limits, and readings that more than
//! one of them needs, each made once.

use std::{
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use super::{
    finding::Row,
    limits::Limits,
    read::{
        descriptors::{self, Descriptors},
        processes::{self, Processes},
    },
};
use crate::{
    cli::CheckArgs,
    clock::{self, MonotonicNs},
    session::{self, Watched},
};

/// Shared by the threads of all rows.
pub(super) struct Context {
    began: MonotonicNs,
    until: MonotonicNs,
    /// The limits in force.
    pub(super) limits: Limits,
    /// Whether the largest directories are looked for.
    pub(super) wants_du: bool,
    processes: Shared<Processes>,
    descriptors: Shared<Descriptors>,
    watched: Shared<Result<Watched, String>>,
}

/// A reading that a thread of its own makes, for whoever asks.
type Shared<T> = Arc<OnceLock<T>>;

impl Context {
    /// Begins the sample.
    pub(super) fn new(args: &CheckArgs, rows: &[Row], limits: Limits) -> Self {
        let began = clock::monotonic();
        let until = began + u64::try_from(args.sample.as_nanos()).unwrap_or(u64::MAX);
        let wants = |needed: &[Row]| rows.iter().any(|row| needed.contains(row));
        let context = Self {
            began,
            until,
            limits,
            wants_du: args.du,
            processes: Arc::default(),
            descriptors: Arc::default(),
            watched: Arc::default(),
        };
        if wants(&[
            Row::Load,
            Row::Cpu,
            Row::Memory,
            Row::Processes,
            Row::Disks,
            Row::Files,
        ]) {
            make(&context.processes, move || processes::read(until));
        }
        if wants(&[Row::Deleted, Row::Files, Row::Sockets, Row::Disks]) {
            make(&context.descriptors, move || descriptors::read(until));
        }
        if Self::wants_events(rows) {
            let (sample, btf) = (args.sample, args.btf.clone());
            make(&context.watched, move || {
                session::sample(sample, btf).map_err(|error| format!("{error:#}"))
            });
        }
        context
    }

    /// Whether a row needs the kernel's events.
    pub(super) fn wants_events(rows: &[Row]) -> bool {
        let needed = [
            Row::Load,
            Row::Cpu,
            Row::Oom,
            Row::Processes,
            Row::Sockets,
            Row::Syn,
        ];
        rows.iter().any(|row| needed.contains(row))
    }

    /// What could not be given up once everything was attached, if that is known by now.
    pub(super) fn kept_right(&self) -> Option<String> {
        self.watched.get()?.as_ref().ok()?.kept_right.clone()
    }

    /// When the sample ends.
    pub(super) fn until(&self) -> MonotonicNs {
        self.until
    }

    /// Its length.
    pub(super) fn sample_ns(&self) -> u64 {
        self.until.since_ns(self.began)
    }

    /// Waits for the sample's end; the seconds between `since` and now.
    pub(super) fn wait(&self, since: MonotonicNs) -> f64 {
        sleep_until(self.until);
        clock::monotonic().since_ns(since) as f64 / 1e9
    }

    /// Every process, at the begin and at the end of the sample. Waits for both.
    pub(super) fn processes(&self) -> &Processes {
        self.processes.wait()
    }

    /// Every descriptor of every process. Waits for it.
    pub(super) fn descriptors(&self) -> &Descriptors {
        self.descriptors.wait()
    }

    /// What the kernel's events said over the sample, or why they could not be had.
    pub(super) fn watched(&self) -> Result<&Watched, &str> {
        self.watched.wait().as_ref().map_err(String::as_str)
    }
}

fn make<T: Send + Sync + 'static>(shared: &Shared<T>, read: impl FnOnce() -> T + Send + 'static) {
    let shared = Arc::clone(shared);
    thread::spawn(move || shared.set(read()).ok());
}

/// Sleeps until then.
pub(super) fn sleep_until(until: MonotonicNs) {
    thread::sleep(Duration::from_nanos(until.since_ns(clock::monotonic())));
}
