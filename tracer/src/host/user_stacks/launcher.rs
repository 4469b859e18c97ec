//! The launcher: a process of tracer's own, started while tracer still has root's rights,
//! that starts openers and readers and ends them.
//!
//! What that takes (to become another user, to kill one) tracer itself gives up. It hears
//! tracer alone, one request a packet, and answers each at once. [`Launcher`] is tracer's
//! side.

use std::{
    cell::Cell,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, Stdio, id},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, SendFlags},
};

use super::{
    channel,
    client::{NS_PER_S, OPENER, READER},
    sandbox,
};
use crate::clock;

/// The hidden first argument.
pub(super) const LAUNCHER: &str = "serve-as-launcher-of-readers";
/// An answer must come in this time, in ns: to start a process takes longer on an
/// overloaded host.
const ANSWER_NS: u64 = 5 * NS_PER_S;

const NO_START: &str = "it ends at its start, as where CAP_SETPCAP, CAP_SETUID, CAP_SETGID or \
                        CAP_KILL is missing, or system calls cannot be filtered";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// An opener, with two descriptors. The answer is its pid, or 0.
    Opener,
    /// A reader, likewise.
    Reader,
    /// The end of one of them, by its pid. The answer is 1 once it has ended.
    End(u32),
}

impl Ask {
    fn encode(self, sequence: u32) -> [u8; 12] {
        let (kind, pid) = match self {
            Self::Opener => (0_u32, 0),
            Self::Reader => (1, 0),
            Self::End(pid) => (2, pid),
        };
        words([kind, pid, sequence])
    }

    fn decode(bytes: &[u8]) -> Option<(Self, u32)> {
        let [kind, pid, sequence] = numbers(bytes)?;
        let ask = match kind {
            0 => Self::Opener,
            1 => Self::Reader,
            2 => Self::End(pid),
            _ => return None,
        };
        Some((ask, sequence))
    }
}

/// Starts openers and readers.
#[derive(Debug)]
pub struct Launcher {
    child: Child,
    channel: OwnedFd,
    /// Of the latest request: an answer that came too late is to an earlier one.
    sequence: Cell<u32>,
}

impl Launcher {
    /// Starts it, and waits until it has given up what it does not need.
    ///
    /// # Errors
    /// It cannot be started, or lacks the rights.
    pub fn start() -> io::Result<Self> {
        let (channel, its) = channel::pair()?;
        let mut child = program(LAUNCHER)
            .stdin(Stdio::from(its))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let sequence = Cell::new(0);
        if let Err(error) = answer(&channel, 0) {
            // It can be killed: tracer has its rights still.
            let _ = child.kill().and_then(|()| child.wait());
            return Err(match error.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::other(NO_START),
                _ => error,
            });
        }
        Ok(Self {
            child,
            channel,
            sequence,
        })
    }

    /// CPU time that it has taken, in ns.
    pub(super) fn cpu_ns(&self) -> Option<u64> {
        clock::cpu_of_process(self.child.id())
    }

    /// Starts one with two descriptors; its pid.
    pub(super) fn run(&self, role: Ask, stdin: &OwnedFd, stdout: &OwnedFd) -> io::Result<u32> {
        match self.ask(role, &[stdin, stdout])? {
            0 => Err(io::ErrorKind::Other.into()),
            pid => Ok(pid),
        }
    }

    /// Kills one; whether it has ended.
    pub(super) fn end(&self, pid: u32) -> io::Result<bool> {
        Ok(self.ask(Ask::End(pid), &[])? == 1)
    }

    fn ask(&self, ask: Ask, descriptors: &[&OwnedFd]) -> io::Result<u32> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let descriptors: Vec<_> = descriptors.iter().map(|one| one.as_fd()).collect();
        let bytes = ask.encode(sequence);
        channel::send(&self.channel, &bytes, &descriptors, SendFlags::DONTWAIT)?;
        answer(&self.channel, sequence)
    }
}

/// The answer to a request; 0 is the launcher's start.
fn answer(from: &OwnedFd, sequence: u32) -> io::Result<u32> {
    let until = clock::monotonic() + ANSWER_NS;
    loop {
        match channel::receive_bytes(from, RecvFlags::DONTWAIT) {
            Ok(Some(bytes)) => match numbers(&bytes) {
                Some([of, answer]) if of == sequence => return Ok(answer),
                Some(_) => continue,
                None => return Err(io::ErrorKind::InvalidData.into()),
            },
            Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let left = until.since_ns(clock::monotonic());
        if left == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let time = Timespec {
            tv_sec: (left / NS_PER_S) as i64,
            tv_nsec: (left % NS_PER_S) as _,
        };
        match poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Serves until tracer closes its end.
///
/// # Errors
/// The channel is broken.
pub(super) fn serve() -> io::Result<()> {
    let tracer = io::stdin();
    let mut children = Vec::new();
    let answer = |sequence: u32, answer: u32| {
        let bytes: [u8; 8] = words([sequence, answer]);
        channel::send(&tracer, &bytes, &[], SendFlags::empty())
    };
    answer(0, 0)?;
    while let Some((bytes, descriptors)) = channel::receive(&tracer, RecvFlags::empty())? {
        let (ask, sequence) = Ask::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        let done = match ask {
            Ask::Opener => run(&mut children, OPENER, descriptors),
            Ask::Reader => run(&mut children, READER, descriptors),
            Ask::End(pid) => u32::from(end(&mut children, pid)),
        };
        answer(sequence, done)?;
    }
    Ok(())
}

fn run(children: &mut Vec<Child>, role: &str, descriptors: Vec<OwnedFd>) -> u32 {
    let Ok([stdin, stdout]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return 0;
    };
    let started = program(role)
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .spawn();
    started.map_or(0, |child| {
        let pid = child.id();
        children.push(child);
        pid
    })
}

/// Kills a child, and reaps it if it has ended: a pid that is no child of this process is left alone.
fn end(children: &mut Vec<Child>, pid: u32) -> bool {
    let Some(child) = children.iter_mut().find(|child| child.id() == pid) else {
        return true;
    };
    // One that has ended is as good.
    let _ = child.kill();
    let has_ended = !matches!(child.try_wait(), Ok(None));
    if has_ended {
        children.retain(|child| child.id() != pid);
    }
    has_ended
}

/// tracer's own program in a role. A signal from the terminal is for tracer, which ends it.
fn program(role: &str) -> Command {
    let mut command = Command::new(sandbox::PROGRAM);
    command
        .args([role, &id().to_string()])
        .env_clear()
        .process_group(0);
    command
}

fn words<const N: usize, const BYTES: usize>(numbers: [u32; N]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (to, from) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
        *to = from.to_le_bytes();
    }
    bytes
}

fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let (numbers, rest) = bytes.as_chunks();
    let numbers: [[u8; 4]; N] = numbers.try_into().ok()?;
    rest.is_empty().then(|| numbers.map(u32::from_le_bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::Ask;

    proptest! {
        #[test]
        fn a_request_comes_back(pid: u32, sequence: u32) {
            for ask in [Ask::Opener, Ask::Reader, Ask::End(pid)] {
                assert_eq!(Ask::decode(&ask.encode(sequence)), Some((ask, sequence)));
            }
        }

        #[test]
        fn any_bytes_are_a_request_or_none(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let is_request = bytes.len() == 12 && bytes[0] < 3 && bytes[1..4] == [0; 3];
            assert_eq!(Ask::decode(&bytes).is_some(), is_request);
        }
    }
}
