//! Why tasks were blocked: what a stack, a device, a file system and a lock are
//! called, and what that comes to.
//!
//! Time is put on a [`Why`] as soon as it is read. What that is called is asked for
//! when it is shown: names of kernel functions can come later than the first stack.

use std::collections::HashMap;

use tracer_common::block::WaitsFor;

use super::{
    causes::{self, Cause, Finding},
    wakers::{self, Interrupt},
};
use crate::{
    clock::MonotonicNs,
    decode::block::{Lengths, WakerReading},
    host::mounts::Mount,
    text::Text,
};

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
            let finding = causes::find(&frames);
            self.stacks.insert(*key, Stack { frames, finding });
        }
        self.lengths.extend(new.lengths.iter().copied());
        self.devices.extend(new.devices.iter().cloned());
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
        Place {
            stack: waits.stack,
            device: device(waits, began),
            file_system: waits.file_system,
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
            ..
        } = self.finding(place.stack);
        // A system call on a path tells no file system; with a single mount of the kind
        // it is that one.
        let alone = || self.alone.get(&cause).filter(|_| place.file_system == 0);
        let mount = self.mounts.get(&place.file_system).or_else(alone);
        let mount = mount.filter(|_| cause.is_on_file_system());
        let cause = mount.map_or(cause, |mount| cause.on(mount.base()));
        let device = (place.device != 0 && cause.is_on_device())
            .then(|| self.devices.get(&place.device).cloned())
            .flatten();
        let mut words: Vec<String> = Vec::new();
        words.extend(device.as_ref().map(ToString::to_string));
        let kind = mount.map(|mount| mount.kind.as_str()).or(file_system);
        words.extend(kind.filter(|kind| *kind != cause.word()).map(Into::into));
        // Of some causes the operation says the same again.
        let is_said = matches!(cause, Cause::Vfork | Cause::Exec | Cause::Coredump);
        let operation = operation.filter(|_| !is_said);
        words.extend(operation.map(Into::into));
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
            device,
        }
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
