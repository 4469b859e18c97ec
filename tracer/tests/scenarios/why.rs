//! What a scenario file may say of why tasks are blocked.

use std::collections::BTreeMap;

use serde::Deserialize;
use tracer::{
    aggregate::causes::Cause,
    aggregate::why::NewNames,
    clock::MonotonicNs,
    decode::block::{EpisodeReading, Lengths, WakerReading},
    host::mounts::Mount,
    text::Text,
};
use tracer_common::block::{
    NO_STACK, NO_SYSCALL, STACK_ANY_LOCK, STACK_FREEZE_LOCK, STACK_INODE_LOCK, STACK_LOCK,
    STACK_MMAP_LOCK, WaitsFor,
};

use super::format::{Scenario, moment};

/// Where the first function of a scenario is.
const FIRST_FUNCTION: u64 = 0xffff_ffff_8100_0010;
/// Where the first lock of a scenario is.
const FIRST_LOCK: u64 = 0xffff_ffff_8300_0000;

/// A kernel stack.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stack {
    /// Functions, innermost first, with blanks between; `?` for one without a name.
    pub frames: String,
    /// What the kernel says of the lock that is waited for.
    pub lock: Option<Told>,
    /// The names of its functions come with the first reading from here on.
    #[serde(default)]
    pub named: f64,
}

/// The lock that a stack's key tells.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    Any = STACK_ANY_LOCK as isize,
    MmapLock = STACK_MMAP_LOCK as isize,
    InodeLock = STACK_INODE_LOCK as isize,
    FreezeLock = STACK_FREEZE_LOCK as isize,
}

/// A mount, by its place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MountedAt {
    pub kind: String,
    pub source: String,
    /// Whether it is the only one of its kind.
    #[serde(default)]
    pub alone: bool,
}

impl MountedAt {
    fn mount(&self, point: &str) -> Mount {
        Mount {
            kind: self.kind.as_str().into(),
            source: self.source.as_str().into(),
            point: point.into(),
        }
    }
}

/// What a blocked task waits for.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Waiting {
    /// Name of a stack; none below the threshold.
    pub stack: Option<String>,
    /// Block device of its last bio.
    pub device: Option<String>,
    /// When it submitted that; as it blocked unless this says something else.
    pub bio: Option<f64>,
    /// Block device that its file is.
    pub file: Option<String>,
    /// Mount of its file.
    pub mount: Option<String>,
    /// A lock that is a variable of the kernel.
    pub lock: Option<String>,
    /// Task that holds the lock.
    pub holder: Option<String>,
    /// Its youngest child.
    pub child: Option<String>,
}

/// An episode over the threshold that ended.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Episode {
    pub task: String,
    /// Begin and end.
    pub span: [f64; 2],
    #[serde(default)]
    pub waits: Waiting,
    /// Task that ran at the waking.
    pub waker: Option<String>,
    /// Stack of the waking.
    pub waker_stack: Option<String>,
}

/// A task of the scenario, as far as others speak of it.
pub(crate) struct Named {
    pub pid: u32,
    pub tid: u32,
    pub comm: String,
    pub start: MonotonicNs,
}

impl Scenario {
    /// `began` is when the task blocked.
    pub(crate) fn waits(
        &self,
        waiting: &Waiting,
        began: MonotonicNs,
        tid: impl Fn(&str) -> u32,
    ) -> WaitsFor {
        let task = |name: &Option<String>| name.as_deref().map_or(0, &tid);
        let device = |name: &Option<String>| name.as_deref().map_or(0, |name| self.device(name));
        let bio = waiting.bio.map_or(began, moment);
        WaitsFor {
            stack: waiting.stack.as_deref().map_or(NO_STACK, |s| self.key(s)),
            lock: waiting.lock.as_deref().map_or(0, |lock| self.lock(lock)),
            bio_ns: waiting.device.as_ref().map_or(0, |_| bio.0),
            bio_device: device(&waiting.device),
            file_device: device(&waiting.file),
            file_system: waiting
                .mount
                .as_deref()
                .map_or(0, |point| self.mount(point)),
            holder: task(&waiting.holder),
            child: task(&waiting.child),
            syscall: NO_SYSCALL,
            ..WaitsFor::default()
        }
    }

    /// A record, as the kernel side would write it.
    pub(crate) fn episode(
        &self,
        episode: &Episode,
        find: impl Fn(&str) -> Named,
    ) -> EpisodeReading {
        let task = find(&episode.task);
        let [begin, end] = episode.span.map(moment);
        let waker = episode.waker.as_deref().map(&find);
        let frames = episode.waker_stack.as_deref();
        EpisodeReading {
            begin,
            end,
            start: task.start,
            waits: self.waits(&episode.waits, begin, |name| find(name).tid),
            pid: task.pid,
            tid: task.tid,
            comm: Text::from(task.comm.as_str()),
            waker: waker.map_or_else(WakerReading::default, |waker| WakerReading {
                pid: waker.pid,
                tid: waker.tid,
                comm: Text::from(waker.comm.as_str()),
                frames: frames.map_or_else(Vec::new, |name| self.frames(name)),
            }),
        }
    }

    /// The names that come between two times, the second one included.
    pub(crate) fn names(
        &self,
        after: f64,
        until: f64,
        lengths: &BTreeMap<String, BTreeMap<String, u64>>,
    ) -> NewNames {
        let is_new = |at: f64| at > after && at <= until;
        let new: Vec<_> = self
            .stacks
            .iter()
            .filter(|(_, s)| is_new(s.named))
            .collect();
        let functions = new.iter().flat_map(|(_, stack)| stack.frames.split(' '));
        let is_first = is_new(0.0);
        let devices = self.devices.iter().filter(|_| is_first);
        let locks = self.locks.iter().filter(|_| is_first);
        let mounts = self.mounts.iter().filter(|_| is_first);
        let alone = self.mounts.iter().filter(|(_, mount)| mount.alone);
        let alone = alone.map(|(point, mount)| {
            let mount = mount.mount(point);
            (Cause::Disk.on(mount.base()), mount)
        });
        NewNames {
            alone: is_first.then(|| alone.collect()),
            sleeps: Vec::new(),
            functions: functions.map(|f| (self.function(f), f.into())).collect(),
            stacks: new
                .iter()
                .map(|(name, _)| (self.key(name), self.frames(name)))
                .collect(),
            lengths: lengths
                .iter()
                .map(|(name, buckets)| (self.key(name), filled(buckets)))
                .collect(),
            devices: devices
                .map(|name| (self.device(name), name.as_str().into()))
                .collect(),
            locks: locks
                .map(|name| (self.lock(name), name.as_str().into()))
                .collect(),
            mounts: mounts
                .map(|(point, mount)| (self.mount(point), mount.mount(point)))
                .collect(),
        }
    }

    fn key(&self, name: &str) -> u64 {
        let told = self.stacks.get(name).and_then(|stack| stack.lock);
        let hash = place(self.stacks.keys(), name, "stack") * (STACK_LOCK + 1);
        hash | told.map_or(0, |told| told as u64)
    }

    fn lock(&self, name: &str) -> u64 {
        FIRST_LOCK + place(self.locks.iter(), name, "lock") * 64
    }

    fn device(&self, name: &str) -> u32 {
        place(self.devices.iter(), name, "device") as u32
    }

    fn mount(&self, point: &str) -> u32 {
        place(self.mounts.keys(), point, "mount") as u32
    }

    fn frames(&self, name: &str) -> Vec<u64> {
        let Some(stack) = self.stacks.get(name) else {
            panic!("no stack {name}");
        };
        let functions = stack.frames.split(' ');
        functions.map(|function| self.function(function)).collect()
    }

    fn function(&self, name: &str) -> u64 {
        let all = self.stacks.values().flat_map(|s| s.frames.split(' '));
        let all: std::collections::BTreeSet<_> = all.collect();
        let at = all.iter().position(|function| *function == name);
        FIRST_FUNCTION + at.expect("one of them") as u64 * 16
    }
}

/// From 1, for 0 is none.
fn place<'a>(mut names: impl Iterator<Item = &'a String>, name: &str, what: &str) -> u64 {
    match names.position(|known| known == name) {
        Some(at) => at as u64 + 1,
        None => panic!("no {what} {name}"),
    }
}

fn filled(buckets: &BTreeMap<String, u64>) -> Lengths {
    let mut lengths = Lengths::default();
    for (bucket, episodes) in buckets {
        lengths[bucket.parse::<usize>().expect("a bucket")] = *episodes;
    }
    lengths
}
