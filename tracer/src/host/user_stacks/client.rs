//! tracer's side: has the opener and the reader started, asks them, and has them ended.
//!
//! Nothing here waits for one of them without an end. A process that cannot be killed at
//! once (in D) is left to be reaped when it has ended; while too many of those are left no
//! other is started.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, SendFlags},
};

use super::{
    CPU_US, channel,
    known::Known,
    launcher::{Ask, Launcher},
    protocol::{Answer, Request},
};
use crate::{
    clock::{self, MonotonicNs},
    decode::opening::{Program, UserStack},
    text::Text,
};

/// The hidden first arguments.
pub(super) const OPENER: &str = "serve-as-opener-of-user-stacks";
pub(super) const READER: &str = "serve-as-reader-of-user-stacks";

pub(super) const NS_PER_S: u64 = 1_000_000_000;
/// A stack must be named in this time, in ns.
const ANSWER_NS: u64 = NS_PER_S;
/// The two must have started in this time, in ns: on an overloaded host it takes longer.
const START_NS: u64 = 5 * NS_PER_S;
/// A process is let alone for so long after it was given up, the first time, in ns; each
/// time twice as long, up to the last.
const REST_NS: u64 = 60 * NS_PER_S;
/// One that has cost less than half of what it may: most likely there was no CPU for it.
const BRIEF_REST_NS: u64 = 5 * NS_PER_S;
const LONGEST_REST_NS: u64 = 3600 * NS_PER_S;
/// After a start that failed the next one comes no sooner, in ns.
const RESTART_NS: u64 = 10 * NS_PER_S;
/// Killed processes that have not ended yet. Those of one process are two at most.
const UNDEAD: usize = 8;
/// Processes that were given up and are remembered.
const REMEMBERED: usize = 1024;

/// CPU time of all of these processes so far, in ns.
static CPU_NS: AtomicU64 = AtomicU64::new(0);

/// CPU time of all openers and readers so far, in ns.
pub(crate) fn cpu_ns() -> u64 {
    CPU_NS.load(Ordering::Relaxed)
}

/// What came of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Its functions, innermost first, and whether something was not read that they could
    /// be in.
    Functions(Vec<Text>, bool),
    /// The process has gone.
    Gone,
    /// It took too long or too much, now or a short time ago, or nothing can be started.
    GivenUp,
}

/// Names stacks, one at a time.
pub struct Client {
    /// Starts and ends the two. Without it no stack is named.
    launcher: Option<Launcher>,
    /// CPU time of the launcher that is in [`CPU_NS`] already.
    launched_ns: u64,
    pair: Option<Pair>,
    /// Killed processes that have not ended, with the process that they read of.
    undead: Vec<(u32, u32)>,
    sequence: u64,
    given_up: HashMap<Program, Rest>,
    start_at: MonotonicNs,
    known: Known,
}

/// How long a process is let alone.
#[derive(Clone, Copy)]
struct Rest {
    until: MonotonicNs,
    length_ns: u64,
}

/// The two processes.
struct Pair {
    opener: Worker,
    reader: Worker,
}

struct Worker {
    pid: u32,
    channel: OwnedFd,
    /// CPU time that is in [`CPU_NS`] already.
    counted_ns: u64,
}

impl Client {
    /// One that has its processes started by this launcher.
    pub fn new(launcher: Option<Launcher>) -> Self {
        Self {
            launcher,
            launched_ns: 0,
            pair: None,
            undead: Vec::new(),
            sequence: 0,
            given_up: HashMap::new(),
            start_at: MonotonicNs::default(),
            known: Known::default(),
        }
    }

    /// Names the functions of a stack of a process. Takes a second at most, or six when
    /// the processes must be started.
    pub fn name(&mut self, program: Program, stack: &UserStack) -> Named {
        let pid = program.pid;
        self.reap();
        let now = clock::monotonic();
        let rests = self.given_up.get(&program);
        let rests = rests.is_some_and(|rest| now < rest.until);
        if rests || self.undead.iter().any(|(of, _)| *of == pid) {
            return Named::GivenUp;
        }
        if let Some(known) = self.known.like(program, stack, now) {
            return known;
        }
        let Some(mut pair) = self.pair.take().or_else(|| self.start(pid, now)) else {
            return Named::GivenUp;
        };
        self.sequence += 1;
        let request = Request {
            sequence: self.sequence,
            pid,
            stack: stack.clone(),
        };
        let before = cpu_ns();
        let answer = pair.ask(&request);
        pair.count();
        let took_us = cpu_ns().saturating_sub(before) / 1000;
        match answer {
            Ok(answer) => {
                self.pair = Some(pair);
                let words = answer.words.clone();
                let named = named(answer);
                self.known.learn(program, stack, words, &named, now);
                named
            }
            Err(_) => {
                self.bury(pid, pair);
                let is_cheap = took_us < CPU_US as u64 / 2;
                let rest_ns = if is_cheap { BRIEF_REST_NS } else { REST_NS };
                self.give_up(program, rest_ns, clock::monotonic());
                Named::GivenUp
            }
        }
    }

    /// Ends the processes; the next stack starts others.
    pub fn rest(&mut self) {
        if let Some(pair) = self.pair.take() {
            self.bury(0, pair);
        }
        self.reap();
    }

    fn give_up(&mut self, program: Program, rest_ns: u64, now: MonotonicNs) {
        if self.given_up.len() >= REMEMBERED {
            self.given_up.retain(|_, rest| now < rest.until);
        }
        if self.given_up.len() >= REMEMBERED {
            self.given_up.clear();
        }
        let before = self.given_up.get(&program);
        let length_ns = before.map_or(rest_ns, |rest| LONGEST_REST_NS.min(2 * rest.length_ns));
        let until = now + length_ns;
        self.given_up.insert(program, Rest { until, length_ns });
    }

    fn start(&mut self, pid: u32, now: MonotonicNs) -> Option<Pair> {
        if self.undead.len() + 2 > UNDEAD || now < self.start_at {
            return None;
        }
        let launcher = self.launcher.as_ref()?;
        let mut pair = Pair::start(launcher).ok();
        if let Some(started) = &mut pair
            && started.await_ready().is_err()
        {
            pair.take()
                .into_iter()
                .for_each(|pair| self.bury(pid, pair));
        }
        if pair.is_none() {
            self.start_at = clock::monotonic() + RESTART_NS;
        }
        pair
    }

    fn bury(&mut self, pid: u32, pair: Pair) {
        let both = [pair.opener, pair.reader];
        let both = both.into_iter().map(|worker| (pid, worker.pid));
        self.undead.extend(both);
        self.reap();
    }

    /// Kills those that are left, and forgets those that have ended.
    fn reap(&mut self) {
        let Some(launcher) = &self.launcher else {
            return;
        };
        // One that cannot be asked has gone, and they with it.
        self.undead
            .retain(|(_, child)| matches!(launcher.end(*child), Ok(false)));
        count(&mut self.launched_ns, launcher.cpu_ns());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.rest();
    }
}

impl Pair {
    fn start(launcher: &Launcher) -> io::Result<Self> {
        let (files_out, files_in) = channel::pair()?;
        let (to_opener, requests) = channel::pair()?;
        let (from_reader, answers) = channel::pair()?;
        let start = |role, (stdin, stdout): (OwnedFd, OwnedFd), channel| {
            let pid = launcher.run(role, &stdin, &stdout)?;
            io::Result::Ok(Worker {
                pid,
                channel,
                counted_ns: 0,
            })
        };
        let reader = start(Ask::Reader, (files_in, answers), from_reader)?;
        match start(Ask::Opener, (requests, files_out), to_opener) {
            Ok(opener) => Ok(Self { opener, reader }),
            Err(error) => {
                // It has done nothing yet, and ends by itself: the other end is closed.
                launcher.end(reader.pid)?;
                Err(error)
            }
        }
    }

    fn await_ready(&mut self) -> io::Result<()> {
        let until = clock::monotonic() + START_NS;
        let (mut opener, mut reader) = (false, false);
        while !(opener && reader) {
            self.wait(until)?;
            opener |= receive(&self.opener)?.is_some();
            reader |= receive(&self.reader)?.is_some();
        }
        self.count();
        Ok(())
    }

    fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        let until = clock::monotonic() + ANSWER_NS;
        let bytes = request.encode();
        channel::send(&self.opener.channel, &bytes, &[], SendFlags::DONTWAIT)?;
        // The opener says when it has closed what it opened.
        let (mut is_closed, mut answer) = (false, None);
        loop {
            if let Some(said) = receive(&self.opener)? {
                same(said == request.sequence.to_le_bytes())?;
                is_closed = true;
            }
            if let Some(said) = receive(&self.reader)? {
                let said = Answer::decode(&said).ok_or(io::ErrorKind::InvalidData)?;
                same(said.sequence == request.sequence && answer.is_none())?;
                answer = Some(said);
            }
            match answer {
                Some(answer) if is_closed => return Ok(answer),
                _ => self.wait(until)?,
            }
        }
    }

    /// Waits until one of them says something.
    fn wait(&self, until: MonotonicNs) -> io::Result<()> {
        let left = until.since_ns(clock::monotonic());
        if left == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let time = Timespec {
            tv_sec: (left / NS_PER_S) as i64,
            tv_nsec: (left % NS_PER_S) as _,
        };
        let readable = |worker| PollFd::from_borrowed_fd(worker, PollFlags::IN);
        let mut both = [&self.opener, &self.reader].map(|it| readable(it.channel.as_fd()));
        match poll(&mut both, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn count(&mut self) {
        self.opener.count();
        self.reader.count();
    }
}

impl Worker {
    /// Adds the CPU time that it has taken.
    fn count(&mut self) {
        count(&mut self.counted_ns, clock::cpu_of_process(self.pid));
    }
}

/// Adds to [`CPU_NS`] what a process has taken since it was counted.
fn count(counted_ns: &mut u64, taken_ns: Option<u64>) {
    if let Some(ns) = taken_ns {
        CPU_NS.fetch_add(ns.saturating_sub(*counted_ns), Ordering::Relaxed);
        *counted_ns = ns;
    }
}

/// The next packet, if there is one. Descriptors that come with it are not taken.
fn receive(from: &Worker) -> io::Result<Option<Vec<u8>>> {
    match channel::receive_bytes(&from.channel, RecvFlags::DONTWAIT) {
        Ok(Some(bytes)) => Ok(Some(bytes)),
        Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn same(is_same: bool) -> io::Result<()> {
    match is_same {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Foreign names, made safe.
fn named(answer: Answer) -> Named {
    if answer.is_gone {
        return Named::Gone;
    }
    let names = answer.names.iter();
    let functions: Vec<Text> = names.map(|name| Text::from_bytes(name)).collect();
    Named::Functions(functions, answer.is_partial)
}
