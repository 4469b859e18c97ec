//! Names for what tasks wait for: kernel functions, block devices, mounts. Each is
//! looked up once, when it first turns up.

use std::{
    collections::HashSet,
    sync::mpsc::{Receiver, TryRecvError, channel},
    thread,
};

use tracer_common::block::{
    LOCK_KIND, NO_STACK, STACK_ANY_LOCK, STACK_FREEZE_LOCK, STACK_INODE_LOCK, STACK_LOCK, WaitsFor,
};

use crate::{
    aggregate::{
        causes::Cause,
        why::{NewNames, is_block_device},
    },
    clock::{self, MonotonicNs},
    decode::{
        block::{self, EpisodeReading},
        task::TaskReading,
    },
    error::KernelError,
    host::{
        devices::Devices,
        mounts::{Mount, Mounts},
        own, wchan,
    },
    kernel::{
        reader::Reader,
        symbols::{Symbols, SymbolsError},
        syscalls::is_on_descriptor,
    },
    text::Text,
};

/// Devices and mounts come and go, and their numbers come again: after this time, in ns,
/// they are asked for again.
const FORGET_AFTER: u64 = 5_000_000_000;
/// So many times in a reading a mount is looked for.
const MOUNTS_SOUGHT: u32 = 8;
/// So many holders are looked at in a reading.
const HOLDERS: usize = 32;

/// What has a name already.
#[derive(Default)]
pub(super) struct Naming {
    symbols: Lookup,
    /// Stacks that wait for the functions' names.
    unnamed: Vec<(u64, Vec<u64>)>,
    stacks: HashSet<u64>,
    functions: HashSet<u64>,
    /// Locks that were looked for among the symbols.
    locks: HashSet<u64>,
    device_names: Devices,
    devices: HashSet<u32>,
    mounts: HashSet<u32>,
    /// File systems that are no mount of tracer's, nor of these processes.
    unmounted: HashSet<(u32, u32)>,
    /// When names were forgotten last.
    forgot_at: Option<MonotonicNs>,
}

/// The kernel's symbols. Reading them takes a twentieth of a second, on an emulated
/// CPU seconds, so a thread of its own does it.
#[derive(Default)]
enum Lookup {
    #[default]
    NotWanted,
    Reading(Receiver<Result<Symbols, SymbolsError>>),
    Ready(Symbols),
    /// There are none; the start has said so.
    Missing,
}

impl Naming {
    /// Waits for the kernel's symbols.
    pub(super) fn load_symbols(&mut self) {
        self.symbols.wait();
    }

    /// Begins to read the kernel's symbols; whether they are there.
    pub(super) fn want_symbols(&mut self) -> bool {
        self.symbols.want();
        matches!(self.symbols, Lookup::Ready(_) | Lookup::Missing)
    }

    /// Names of functions, now: waits for the symbols.
    pub(super) fn functions(&mut self, frames: impl Iterator<Item = u64>) -> Vec<(u64, Text)> {
        let frames: HashSet<u64> = frames.collect();
        if frames.is_empty() {
            return Vec::new();
        }
        self.symbols.wait();
        let name = |frame: u64| match &self.symbols {
            Lookup::Ready(symbols) => function(symbols, frame),
            _ => Text::from("?"),
        };
        frames
            .into_iter()
            .map(|frame| (frame, name(frame)))
            .collect()
    }

    /// Leaves of a task's file only what it can be blocked at.
    pub(super) fn keep_file(waits: &mut WaitsFor) {
        let is_on_descriptor = is_on_descriptor(waits.syscall);
        if !is_on_descriptor {
            waits.file_device = 0;
        }
        let is_of_lock = matches!(
            waits.stack & STACK_LOCK,
            STACK_INODE_LOCK | STACK_FREEZE_LOCK
        );
        // Of a block device's own file the file system says nothing.
        if !(is_of_lock || is_on_descriptor) || waits.file_device != 0 {
            waits.file_system = 0;
        }
    }

    /// Names that these readings need and that were not given before.
    ///
    /// `wants_lengths` asks for the lengths of all episodes so far, not only of the
    /// stacks that had some since the last reading.
    pub(super) fn name(
        &mut self,
        reader: &Reader,
        tasks: &[TaskReading],
        episodes: &[EpisodeReading],
        wants_lengths: bool,
    ) -> Result<NewNames, KernelError> {
        let mut new = NewNames::default();
        let now = clock::monotonic();
        let forgot_at = self.forgot_at;
        if forgot_at.is_none_or(|at| now.since_ns(at) >= FORGET_AFTER) {
            self.device_names.forget();
            self.devices.clear();
            self.mounts.clear();
            self.unmounted.clear();
            new.alone = Some(alone());
            self.forgot_at = Some(now);
        }
        let mut ended: HashSet<u64> = episodes.iter().map(|one| one.waits.stack).collect();
        if wants_lengths {
            ended.extend(reader.stack_keys());
        }
        let open = tasks.iter().map(|task| task.blocked.waits.stack);
        let seen: HashSet<u64> = open.filter(|key| !self.stacks.contains(key)).collect();
        for key in ended.union(&seen) {
            let Some(words) = reader.stack(*key)? else {
                continue;
            };
            let (frames, lengths) = block::stack(&words);
            if ended.contains(key) {
                new.lengths.push((*key, lengths));
            }
            if *key != NO_STACK && self.stacks.insert(*key) {
                self.unnamed.push((*key, frames));
            }
        }
        self.name_functions(episodes, &mut new);
        new.sleeps = sleeping_holders(tasks);
        let open = tasks.iter().filter(|task| task.is_blocked);
        let open = open.map(|task| (task.pid, &task.blocked.waits));
        let ended = episodes.iter().map(|one| (one.pid, &one.waits));
        let mut left = MOUNTS_SOUGHT;
        for (pid, waits) in open.chain(ended) {
            self.name_devices(waits, &mut new);
            self.name_lock(waits, &mut new);
            if left > 0 && self.wants_mount(pid, waits.file_system) {
                left -= 1;
                self.name_mount(pid, waits.file_system, &mut new);
            }
        }
        Ok(new)
    }

    fn name_functions(&mut self, episodes: &[EpisodeReading], new: &mut NewNames) {
        if self.unnamed.is_empty() && episodes.is_empty() {
            return;
        }
        self.symbols.want();
        let find: Box<dyn Fn(u64) -> Text> = match &self.symbols {
            Lookup::Ready(symbols) => Box::new(|address| function(symbols, address)),
            Lookup::Missing => Box::new(|_| Text::from("?")),
            Lookup::NotWanted | Lookup::Reading(_) => return,
        };
        let of_stacks = self.unnamed.iter().flat_map(|(_, frames)| frames);
        let of_wakers = episodes.iter().flat_map(|episode| &episode.waker.frames);
        for address in of_stacks.chain(of_wakers) {
            if self.functions.insert(*address) {
                new.functions.push((*address, find(*address)));
            }
        }
        drop(find);
        new.stacks = std::mem::take(&mut self.unnamed);
    }

    fn name_devices(&mut self, waits: &WaitsFor, new: &mut NewNames) {
        // The number of a file system is that of its block device, if it has one.
        for device in [waits.bio_device, waits.file_device, waits.file_system] {
            if is_block_device(device) && self.devices.insert(device) {
                new.devices.push((device, self.device_names.name(device)));
            }
        }
    }

    /// A lock that is a variable of the kernel.
    fn name_lock(&mut self, waits: &WaitsFor, new: &mut NewNames) {
        let Lookup::Ready(symbols) = &self.symbols else {
            return;
        };
        let lock = waits.lock & !LOCK_KIND;
        if waits.stack & STACK_LOCK != STACK_ANY_LOCK || self.locks.contains(&lock) {
            return;
        }
        // Locks of objects come and go: they are looked for again.
        if let Some(name) = symbols.lock(lock) {
            self.locks.insert(lock);
            new.locks.push((lock, name.into()));
        }
    }

    fn wants_mount(&self, pid: u32, file_system: u32) -> bool {
        file_system != 0
            && !self.mounts.contains(&file_system)
            && !self.unmounted.contains(&(file_system, pid))
    }

    /// Of a mount that only the task's own namespace has, that one's name is taken.
    fn name_mount(&mut self, pid: u32, file_system: u32, new: &mut NewNames) {
        let own = || Mounts::read().ok()?.find(file_system).cloned();
        let of_task = || Mounts::of_process(pid).ok()?.find(file_system).cloned();
        match own().or_else(of_task) {
            Some(mount) => {
                self.mounts.insert(file_system);
                new.mounts.push((file_system, mount));
            }
            // Another task on it may be in a namespace that has it.
            None => {
                self.unmounted.insert((file_system, pid));
            }
        }
    }
}

/// Holders of locks that are not blocked themselves, and what they sleep in.
fn sleeping_holders(tasks: &[TaskReading]) -> Vec<(u32, Text)> {
    let blocked: Vec<_> = tasks.iter().filter(|task| task.is_blocked).collect();
    let tids: HashSet<u32> = blocked.iter().map(|task| task.tid).collect();
    let holders = blocked.iter().map(|task| task.blocked.waits.holder);
    let holders: HashSet<u32> = holders
        .filter(|tid| *tid != 0 && !tids.contains(tid))
        .collect();
    let holders = holders.into_iter().take(HOLDERS);
    holders
        .filter_map(|tid| Some((tid, wchan::of(tid)?)))
        .collect()
}

/// The mounts of file servers, where there is one of a kind.
fn alone() -> Vec<(Cause, Mount)> {
    let Ok(mounts) = Mounts::read() else {
        return Vec::new();
    };
    let of_cause = |cause: Cause| {
        let mount = mounts.only(|kind| Cause::Disk.on(kind) == cause)?;
        Some((cause, mount.clone()))
    };
    let causes = [Cause::Fuse, Cause::NetworkFs];
    causes.into_iter().filter_map(of_cause).collect()
}

impl Lookup {
    /// Does not come back before it is decided whether there are any.
    fn wait(&mut self) {
        self.want();
        if let Self::Reading(receiver) = self {
            *self = match receiver.recv() {
                Ok(Ok(symbols)) => Self::Ready(symbols),
                Ok(Err(_)) | Err(_) => Self::Missing,
            };
        }
    }

    fn want(&mut self) {
        match self {
            Self::NotWanted => {
                let (sender, receiver) = channel();
                thread::spawn(move || {
                    // Nobody listens any more when the run has ended.
                    let _ = sender.send(Symbols::read());
                });
                *self = Self::Reading(receiver);
            }
            Self::Reading(receiver) => match receiver.try_recv() {
                Ok(Ok(symbols)) => {
                    *self = Self::Ready(symbols);
                    own::trim_memory();
                }
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => *self = Self::Missing,
                Err(TryRecvError::Empty) => {}
            },
            Self::Ready(_) | Self::Missing => {}
        }
    }
}

/// A frame is where the call returns to, which can be the next function's begin.
fn function(symbols: &Symbols, address: u64) -> Text {
    let symbol = symbols.function(address.wrapping_sub(1));
    Text::from(symbol.map_or("?", |symbol| symbol.name))
}
