//! Why tasks were blocked: what a stack, a device, a file system and a lock are
//! called, and what that comes to.
//!
//! Time is put on a [`Why`] as soon as it is read. What that is called is asked for
//! when it is shown: names of kernel functions can come later than the first stack.

use std::collections::HashMap;

use tracer_common::block::{LOCK_KIND, STACK_LOCK, WaitsFor};

use super::{
    causes::{self, Cause, Finding, LockWait},
    wakers::{self, Interrupt},
};
use crate::{
    clock::MonotonicNs,
    decode::block::{Lengths, WakerReading},
    host::mounts::Mount,
    text::Text,
};

/// Whether a `dev_t` is that of a block device: what has none, such as the `s_dev` of a
/// file system without one, has major number 0 (include/linux/kdev_t.h).
pub fn is_block_device(number: u32) -> bool {
    number >> 20 != 0
}

/// A bio that was submitted longer than this before the task blocked is not what it
/// waits for, when the system call says something else.
const BIO_IS_RECENT_NS: u64 = 1_000_000_000;

/// What blocked time is put on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Episodes shorter than the threshold, which nobody looked at.
    Brief,
    /// Episodes whose record was lost.
    Lost,
    /// What was looked at.
    At(Place),
}

/// Where a task was blocked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Key of its kernel stack.
    pub stack: u64,
    /// Block device, 0 for none.
    pub device: u32,
    /// `s_dev` of the file system, 0 for none.
    pub file_system: u32,
    /// Address of its lock, if that has a name; 0 else.
    pub lock: u64,
    /// The other side, where the stack is that of a lock, or is not told yet.
    pub party: Option<Party>,
}

/// Whom a task waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Party {
    /// Process id.
    pub pid: u32,
    /// Name of the process.
    pub comm: Text,
    /// It holds the lock; else it is only known to have woken the task.
    pub is_holder: bool,
}

/// Who woke a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waker {
    /// A task.
    Task(Party),
    /// An interrupt, on top of whatever ran.
    Interrupt(Interrupt),
}

/// A cause, and what is known beyond it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reason {
    /// Why.
    pub cause: Cause,
    /// On what: device, file system, holder.
    pub detail: Option<Text>,
    /// The block device by itself.
    pub device: Option<Text>,
}

/// A kernel stack by name.
#[derive(Debug, Default)]
struct Stack {
    /// Innermost first.
    frames: Vec<Text>,
    finding: Finding,
}

/// Names of all that tasks wait for.
#[derive(Debug, Default)]
pub struct Names {
    functions: HashMap<u64, Text>,
    stacks: HashMap<u64, Stack>,
    lengths: HashMap<u64, Lengths>,
    devices: HashMap<u32, Text>,
    locks: HashMap<u64, Text>,
    mounts: HashMap<u32, Mount>,
    alone: HashMap<Cause, Mount>,
    sleeps: HashMap<u32, Text>,
}

/// New names, as a reading brings them.
#[derive(Debug, Default)]
pub struct NewNames {
    /// Functions by return address.
    pub functions: Vec<(u64, Text)>,
    /// Frames of stacks by key, innermost first; all functions are known by now.
    pub stacks: Vec<(u64, Vec<u64>)>,
    /// Lengths of the episodes that ended in a stack, by key, cumulative.
    pub lengths: Vec<(u64, Lengths)>,
    /// Block devices by number.
    pub devices: Vec<(u32, Text)>,
    /// Locks that are variables of the kernel, such as `rtnl_mutex`, by address.
    pub locks: Vec<(u64, Text)>,
    /// Mounts by `s_dev`.
    pub mounts: Vec<(u32, Mount)>,
    /// For causes that are of one kind of file system: its mount, where there is
    /// exactly one; `None` while that is not looked at.
    pub alone: Option<Vec<(Cause, Mount)>>,
    /// By thread id, the functions that holders of locks sleep in now, who are not
    /// blocked themselves.
    pub sleeps: Vec<(u32, Text)>,
}

impl Names {
    /// Takes new names in.
    pub fn learn(&mut self, new: &NewNames) {
        self.functions.extend(new.functions.iter().cloned());
        for (key, frames) in &new.stacks {
            let frames = self.named(frames);
            let finding = causes::find_told(&frames, LockWait::of_key(*key));
            self.stacks.insert(*key, Stack { frames, finding });
        }
        self.lengths.extend(new.lengths.iter().copied());
        self.devices.extend(new.devices.iter().cloned());
        self.locks.extend(new.locks.iter().cloned());
        self.mounts.extend(new.mounts.iter().cloned());
        self.sleeps = new.sleeps.iter().cloned().collect();
        if let Some(alone) = &new.alone {
            self.alone = alone.iter().cloned().collect();
        }
    }

    /// What a holder of a lock sleeps in, who is not blocked.
    pub fn sleeps_in(&self, tid: u32) -> Option<&Text> {
        self.sleeps.get(&tid)
    }

    /// What the stack says.
    pub fn finding(&self, stack: u64) -> Finding {
        self.stacks
            .get(&stack)
            .map(|stack| stack.finding)
            .unwrap_or_default()
    }

    /// The stack's functions, innermost first; none while it has no names.
    pub fn frames(&self, stack: u64) -> &[Text] {
        self.stacks.get(&stack).map_or(&[], |stack| &stack.frames)
    }

    /// What a task waits for, or waited for until it was woken.
    ///
    /// `began` is when it blocked; `find` tells the process of a thread id.
    pub fn place(
        &self,
        waits: &WaitsFor,
        began: MonotonicNs,
        waker: Option<&WakerReading>,
        find: impl Fn(u32) -> Option<(u32, Text)>,
    ) -> Place {
        let holder = || {
            let (pid, comm) = find(waits.holder).filter(|_| waits.holder != 0)?;
            Some(Party {
                pid,
                comm,
                is_holder: true,
            })
        };
        let stack = self.stacks.get(&waits.stack);
        let party = match stack.map(|stack| stack.finding.cause.is_lock()) {
            Some(true) => holder().or_else(|| self.woken_by(waker?)),
            Some(false) => None,
            // Its names come later and can say that it is a lock. Those of a waker's
            // frames do not: it could be an interrupt.
            None => holder(),
        };
        let lock = waits.lock & !LOCK_KIND;
        let has_name = waits.stack & STACK_LOCK != 0 && self.locks.contains_key(&lock);
        Place {
            stack: waits.stack,
            device: device(waits, began),
            file_system: waits.file_system,
            lock: if has_name { lock } else { 0 },
            party,
        }
    }

    /// What a place is called.
    pub fn reason(&self, why: &Why) -> Reason {
        let place = match why {
            Why::Brief => return Reason::of(Cause::Brief),
            Why::Lost => return Reason::of(Cause::Lost),
            Why::At(place) => place,
        };
        let Finding {
            cause,
            file_system,
            operation,
            supervisor,
            ..
        } = self.finding(place.stack);
        // A system call on a path tells no file system; with a single mount of the kind
        // it is that one.
        let alone = || self.alone.get(&cause).filter(|_| place.file_system == 0);
        let mount = self.mounts.get(&place.file_system).or_else(alone);
        let mount = mount.filter(|_| cause.is_on_file_system());
        // A file system that is passed on, such as by FUSE, waits for that below it.
        let is_below = mount.is_some_and(|mount| {
            cause.on(mount.base()) != cause && file_system.is_some_and(|own| cause.on(own) == cause)
        });
        let cause = mount
            .filter(|_| !is_below)
            .map_or(cause, |mount| cause.on(mount.base()));
        let of_task = (place.device != 0 && cause.is_on_device())
            .then(|| self.devices.get(&place.device).cloned())
            .flatten();
        // Of two files the other may be what it waits for.
        let has_two = matches!(operation, Some("splice" | "copy"));
        let of_mount = || {
            let is_of_mount = !is_below && !has_two && cause.is_on_device_of_mount();
            is_of_mount.then(|| self.device_below(place.file_system, mount))?
        };
        let device = of_task.or_else(of_mount);
        let mut words: Vec<String> = Vec::new();
        words.extend(device.as_ref().map(ToString::to_string));
        let kind = mount.filter(|_| !is_below);
        let kind = kind.map(|mount| mount.kind.as_str()).or(file_system);
        words.extend(kind.filter(|kind| *kind != cause.word()).map(Into::into));
        // Of some causes the operation says the same again.
        let is_said = matches!(cause, Cause::Vfork | Cause::Exec | Cause::Coredump);
        let operation = operation.filter(|_| !is_said);
        words.extend(operation.map(Into::into));
        words.extend(supervisor.map(Into::into));
        let lock = self.locks.get(&place.lock).filter(|_| cause.is_lock());
        words.extend(lock.map(ToString::to_string));
        if let Some(mount) = mount {
            if mount.source.as_str().contains(':') {
                // The server of a network file system.
                words.push(mount.source.to_string());
            }
            words.push(mount.point.to_string());
        }
        if let Some(party) = place.party.as_ref().filter(|_| cause.is_lock()) {
            let how = if party.is_holder {
                "held by"
            } else {
                "woken by"
            };
            words.push(format!("{how} {}[{}]", party.comm, party.pid));
        }
        if cause == Cause::Unknown {
            let top = self
                .frames(place.stack)
                .iter()
                .find(|frame| is_telling(frame));
            words.extend(top.map(ToString::to_string));
        }
        Reason {
            cause,
            detail: (!words.is_empty()).then(|| Text::from(words.join(" ").as_str())),
            // That of a frozen file system has nothing to do.
            device: device.filter(|_| cause.is_on_device()),
        }
    }

    /// The block device of a file system: `s_dev` is its number, or it has none of its own
    /// (btrfs) and the mount has the name.
    fn device_below(&self, file_system: u32, mount: Option<&Mount>) -> Option<Text> {
        if is_block_device(file_system) {
            return self.devices.get(&file_system).cloned();
        }
        let name = mount?.source.as_str().strip_prefix("/dev/")?;
        Some(name.strip_prefix("mapper/").unwrap_or(name).into())
    }

    /// Episodes by length and cause, those with most episodes first.
    pub fn lengths(&self) -> Vec<(Cause, Lengths)> {
        let mut causes: HashMap<Cause, Lengths> = HashMap::new();
        for (stack, lengths) in &self.lengths {
            let sum = causes.entry(self.finding(*stack).cause).or_default();
            sum.iter_mut().zip(lengths).for_each(|(sum, n)| *sum += n);
        }
        let mut causes: Vec<_> = causes.into_iter().collect();
        causes.retain(|(_, lengths)| lengths.iter().any(|n| *n > 0));
        causes.sort_by_key(|(cause, lengths)| {
            (std::cmp::Reverse(lengths.iter().sum::<u64>()), *cause)
        });
        causes
    }

    /// Who woke a task.
    pub fn waker(&self, waker: &WakerReading) -> Waker {
        let frames = self.named(&waker.frames);
        match wakers::interrupt(&frames) {
            Some(interrupt) => Waker::Interrupt(interrupt),
            None => Waker::Task(Party {
                pid: waker.pid,
                comm: waker.comm.clone(),
                is_holder: false,
            }),
        }
    }

    fn woken_by(&self, waker: &WakerReading) -> Option<Party> {
        match self.waker(waker) {
            Waker::Task(party) => Some(party),
            Waker::Interrupt(_) => None,
        }
    }

    /// Functions by name, `?` for what has none.
    fn named(&self, frames: &[u64]) -> Vec<Text> {
        let name = |frame| self.functions.get(frame).cloned();
        let unknown = || Text::from("?");
        let names = frames
            .iter()
            .map(|frame| name(frame).unwrap_or_else(unknown));
        names.collect()
    }
}

impl Reason {
    fn of(cause: Cause) -> Self {
        Self {
            cause,
            ..Self::default()
        }
    }
}

/// The device of the bio it submitted just before, else the device that its system
/// call's file is.
fn device(waits: &WaitsFor, began: MonotonicNs) -> u32 {
    let is_recent = began.since_ns(MonotonicNs(waits.bio_ns)) < BIO_IS_RECENT_NS;
    if waits.bio_ns != 0 && is_recent {
        waits.bio_device
    } else {
        waits.file_device
    }
}

/// The scheduler's own functions are on top of every stack.
fn is_telling(frame: &Text) -> bool {
    let name = frame.as_str();
    !matches!(name, "?" | "context_switch") && !name.contains("schedule")
}
