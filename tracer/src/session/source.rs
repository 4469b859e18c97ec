//! Everything that is read, put together as one reading.

use std::os::fd::OwnedFd;

use anyhow::Context as _;
use tokio::io::{Interest, unix::AsyncFd};
use tracer_common::lost;

use super::{
    memory::Memory, naming::Naming, nanoseconds, parts::Parts, sockets::Sockets, watching::Watching,
};
use crate::{
    aggregate::{
        Reading,
        oom::OomReading,
        tcp::{Seeds, TcpReading},
    },
    cli::WatchArgs,
    clock::{self, MonotonicNs},
    decode::{block, clock::ClockReading, fold, task},
    error::KernelError,
    host::{
        capabilities, cgroups::Cgroups, facts, load, memory, namespaces, own,
        user_stacks::Launcher, users,
    },
    kernel::{
        loader::{self, LoadOptions},
        reader::Reader,
    },
    rights,
    snapshot::HookState,
    text::Text,
};

/// The oldest kernel: task storage for tracing programs, and its fixes.
pub const LEAST_KERNEL: (u32, u32) = (5, 14);

/// Memory that a start takes at most, in bytes: on 6.18 45 MiB at the peak of `tracer run`
/// and 50 MiB of `tracer check`, a third of it the kernel side's tables.
pub const LEAST_ROOM_BYTES: u64 = 56 << 20;

/// CLOCK_MONOTONIC is steered by at most 500 ppm against the scheduler's clock
/// (`MAXFREQ`, include/linux/timex.h), so the offset between them can have grown by that.
const STEERING: u64 = 2000;

/// What a reading is to bring besides what changed.
#[derive(Clone, Copy)]
pub(super) struct Wants {
    /// Tasks that did not change too.
    pub(super) every_task: bool,
    /// Who holds the sockets in CLOSE_WAIT.
    pub(super) holders: bool,
}

/// The kernel side and the host, ready to be read.
pub(super) struct Source {
    reader: Reader,
    cgroups: Cgroups,
    naming: Naming,
    sockets: Sockets,
    memory: Memory,
    watching: Watching,
    /// Why the kernel's log cannot be read.
    no_log: Option<anyhow::Error>,
    is_locked: bool,
    /// Rights that could not be given up once everything was attached.
    kept_right: Option<String>,
    /// The sockets from before the start, until they are in a reading.
    seeds: Option<Seeds>,
    /// Why they are not known.
    unseeded: Option<anyhow::Error>,
    /// Episodes that the ring had refused by the last reading.
    episodes_refused: u64,
    /// What failed, until it is in a reading.
    parts: Parts,
    /// Bytes of kills that were none, until they are in a reading.
    undecodable: usize,
    in_force: usize,
    latest: ClockReading,
}

impl Source {
    /// Checks the rights and attaches every probe. Without a launcher no user stack is named.
    pub(super) fn attach(
        args: &WatchArgs,
        launcher: Option<Launcher>,
    ) -> anyhow::Result<(Self, Vec<HookState>)> {
        check_host()?;
        let cgroups = Cgroups::new();
        let loaded = loader::load(&LoadOptions {
            btf: args.btf.clone(),
            cgroups: cgroups.version(),
            min_block_ns: nanoseconds(args.min_block),
            own_netns: namespaces::own_inode()?,
            functions: args.function_hooks.into(),
            verbose: args.verbose,
        })?;
        own::trim_memory();
        let hooks = loaded.hooks.clone();
        let mut reader = Reader::new(loaded)?;
        let kept_right = rights::attached();
        let recount_after = nanoseconds(args.recount_after);
        let mut sockets = Sockets::new(cgroups.version(), recount_after, launcher)?;
        let seeds = reader
            .counts_sockets()
            .then(|| sockets.seed(&mut reader))
            .transpose();
        let (seeds, unseeded) = match seeds {
            Ok(seeds) => (seeds, None),
            Err(error) => (None, Some(error)),
        };
        let (memory, no_log) = Memory::new();
        let source = Self {
            memory,
            watching: Watching::default(),
            no_log,
            is_locked: false,
            kept_right,
            in_force: hooks.iter().filter(|hook| hook.why.is_none()).count(),
            seeds,
            unseeded,
            sockets,
            reader,
            cgroups,
            naming: Naming::default(),
            episodes_refused: 0,
            parts: Parts::default(),
            undecodable: 0,
            latest: ClockReading::default(),
        };
        Ok((source, hooks))
    }

    /// Why the sockets from before the start are not known, if they are not.
    pub(super) fn unseeded(&self) -> Option<&anyhow::Error> {
        self.unseeded.as_ref()
    }

    /// What could not be given up once everything was attached.
    pub(super) fn kept_right(&self) -> Option<&str> {
        self.kept_right.as_deref()
    }

    /// Who ends soon locks no memory.
    pub(super) fn leave_unlocked(&mut self) {
        self.is_locked = true;
    }

    /// Why the kernel's log cannot be read, if it cannot.
    pub(super) fn no_log(&self) -> Option<&anyhow::Error> {
        self.no_log.as_ref()
    }

    /// A descriptor that is readable once somebody was killed.
    pub(super) fn wakes_at_kills(&self) -> std::io::Result<OwnedFd> {
        self.reader.wakes_at_kills()
    }

    /// What there is of kills, and nothing else.
    pub(super) fn read_kills(&mut self) -> OomReading {
        let Self {
            reader,
            naming,
            parts,
            ..
        } = self;
        let (reading, undecodable) = self.memory.reading(reader, naming, parts);
        self.undecodable += undecodable;
        reading
    }

    /// Has what a kill needs at hand: the names of functions, and memory that cannot be
    /// taken away.
    fn prepare_for_kills(&mut self) {
        if self.is_locked || !self.naming.want_symbols() {
            return;
        }
        self.is_locked = true;
        if let Err(error) = own::lock_memory() {
            log::warn!("tracer's memory cannot be locked: {error}");
        }
    }

    /// Waits for the names of kernel functions.
    pub(super) fn load_symbols(&mut self) {
        self.naming.load_symbols();
    }

    /// Every task, for the first time.
    pub(super) fn read_first(&mut self) -> anyhow::Result<Reading> {
        self.read(Wants {
            every_task: true,
            holders: true,
        })
    }

    /// What changed since the last reading, or every task.
    pub(super) fn read(&mut self, wants: Wants) -> anyhow::Result<Reading> {
        let is_complete = wants.every_task;
        self.prepare_for_kills();
        let oom = self.read_kills();
        // Before the tasks, which can take longer than the kernel takes from a sample
        // to the averages: so they are of the moment the reading stands for.
        let averages = load::read().context("cannot read the load averages")?;
        let [arrived, ran] = if is_complete {
            [0; 2]
        } else {
            self.latest.changed_since
        };
        if self.reader.counts_sockets() && self.seeds.is_none() {
            let recounted = self.sockets.recount(&mut self.reader);
            self.seeds = self
                .parts
                .optional("counting the TCP sockets", recounted)
                .flatten();
        }
        let control = [arrived, ran, self.latest.now.0];
        let sockets = self.sockets.next_look(wants.holders);
        let raw = self.reader.read(control, self.offset_limit(), sockets)?;
        let clock = ClockReading::new(raw.clock);
        self.latest = clock;
        let (mut tasks, exits) = (task::decode(&raw.tasks), task::decode(&raw.exits));
        let mut episodes = block::decode(&raw.episodes);
        let waits = tasks
            .readings
            .iter_mut()
            .map(|task| &mut task.blocked.waits);
        let ended = episodes.readings.iter_mut().map(|one| &mut one.waits);
        waits.chain(ended).for_each(Naming::keep_file);
        let refused = raw.counters[lost::EPISODE_RING as usize];
        let has_refused = std::mem::replace(&mut self.episodes_refused, refused) != refused;
        let names = self.naming.name(
            &self.reader,
            &tasks.readings,
            &episodes.readings,
            has_refused,
        );
        let names = self.parts.optional("naming what tasks wait for", names);
        let folds = fold::decode(&raw.folds);
        let seeds = self.seeds.take();
        let raw_sockets = raw.sockets.transpose();
        let raw_sockets = self.parts.optional("reading the TCP sockets", raw_sockets);
        let tcp = raw_sockets
            .flatten()
            .map(|raw| self.sockets.reading(raw, seeds));
        let tcp = self
            .parts
            .optional("looking at the TCP sockets", tcp.transpose());
        let mut tcp = tcp.flatten();
        if let Some((tcp, _)) = &mut tcp {
            tcp.stack_losses.unwatched = self.watching.refused;
        }
        for listener in self.sockets.take_deaf() {
            self.reader.forget_listener(listener);
        }
        let (tcp, undecodable) = tcp.unzip();
        let seen = tasks.readings.iter().chain(&exits.readings);
        let waiting = tcp.iter().flat_map(|tcp: &TcpReading| &tcp.waiting);
        let waiting = waiting.flatten();
        // No process need be left that has the socket.
        let of_sockets = waiting.map(|socket| (socket.cgroup, 0));
        let of_sockets = of_sockets.filter(|(id, _)| *id != 0);
        let of_tasks = seen.map(|task| (task.cgroup, task.pid));
        let cgroup_names = self.cgroups.resolve(of_tasks.chain(of_sockets));
        Ok(Reading {
            clock,
            wall: clock::wall_at(clock.now),
            averages,
            cpus: facts::online_cpus(),
            is_complete,
            undecodable: (tasks.undecodable
                + exits.undecodable
                + folds.undecodable
                + episodes.undecodable
                + std::mem::take(&mut self.undecodable)
                + undecodable.unwrap_or(0)) as u64,
            tasks: tasks.readings,
            exits: exits.readings,
            exit_table: raw
                .exit_table
                .into_iter()
                .map(|(comm, words)| (Text::from_bytes(&comm), task::exit_totals(words)))
                .collect(),
            folds: folds.readings,
            counters: raw.counters,
            cgroup_names,
            episodes: episodes.readings,
            names: names.unwrap_or_default(),
            failed_parts: self.parts.take_failed(),
            tcp,
            oom,
        })
    }

    /// Watches where these processes open connections, and no others; where that costs
    /// all of the host, those of them whose turn it is.
    pub(super) fn watch_openings(&mut self, suspects: &[u32]) {
        let watched = match self.reader.watching_slows_all() {
            false => self.reader.watch_openings(suspects),
            true => {
                let now = clock::monotonic();
                let pids = self.watching.choose(now, suspects, users::of_process);
                self.reader.watch_openings(pids)
            }
        };
        self.parts
            .optional("watching where sockets are opened", watched);
    }

    /// When it is to be chosen anew who is watched.
    pub(super) fn watches_until(&self) -> Option<MonotonicNs> {
        self.watching.ends_at()
    }

    /// Probes in force.
    pub(super) fn hooks_in_force(&self) -> usize {
        self.in_force
    }

    /// The kernel side, for its cost.
    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Sends what the kernel programs log to this process's log.
    pub(super) fn forward_log(&mut self) -> anyhow::Result<()> {
        let logger = self.reader.logger()?;
        // SAFETY: the logger owns the descriptor it shows, for as long as it lives.
        let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
            .context("cannot wait for the kernel programs' log")?;
        tokio::spawn(async move {
            while let Ok(mut guard) = logger.readable_mut().await {
                guard.get_inner_mut().flush();
                guard.clear_ready();
            }
        });
        Ok(())
    }

    /// The largest clock offset that is believed: the last one, and what the
    /// clocks can have drifted since.
    fn offset_limit(&self) -> u64 {
        let known = self.latest.sched_offset_ns;
        if known == 0 {
            return 0;
        }
        known.wrapping_add(clock::monotonic().since_ns(self.latest.now) / STEERING)
    }
}

/// Whether this process and this kernel can do it at all.
fn check_host() -> Result<(), KernelError> {
    let missing = capabilities::missing();
    if !missing.is_empty() {
        return Err(KernelError::Rights {
            missing: missing.join(" and "),
        });
    }
    let release = facts::host().kernel;
    match facts::version(release.as_str()) {
        Some(version) if version < LEAST_KERNEL => Err(KernelError::OldKernel {
            release: release.to_string(),
        }),
        _ => check_room(),
    }
}

/// To be killed by the kernel in the middle of the start would say nothing.
fn check_room() -> Result<(), KernelError> {
    match memory::room() {
        Some(room) if room.left_bytes < LEAST_ROOM_BYTES => Err(KernelError::Memory {
            cgroup: room.cgroup,
            limit_mib: room.limit_bytes >> 20,
            left_mib: room.left_bytes >> 20,
            needed_mib: LEAST_ROOM_BYTES >> 20,
        }),
        _ => Ok(()),
    }
}
