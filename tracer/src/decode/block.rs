//! Why tasks are blocked: episodes over the threshold, and kernel stacks.

use bytes::Bytes;
use tracer_common::{
    COMM_BYTES,
    block::{EpisodeRecord, LENGTH_BUCKETS, STACK_FRAMES, WAKER_FRAMES, WaitsFor},
};

use super::{
    Decoded,
    bytes::{u32, u64},
    records,
};
use crate::{clock::MonotonicNs, text::Text};

/// An episode over the threshold, at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpisodeReading {
    /// Its begin.
    pub begin: MonotonicNs,
    /// Its end.
    pub end: MonotonicNs,
    /// Fork time of the task; with the tid it names the task for good.
    pub start: MonotonicNs,
    /// What it waited for.
    pub waits: WaitsFor,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the task.
    pub comm: Text,
    /// Who woke it.
    pub waker: WakerReading,
}

/// The task that ran at a waking: the waker, unless an interrupt was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WakerReading {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the task.
    pub comm: Text,
    /// Kernel stack of the waking, innermost first.
    pub frames: Vec<u64>,
}

/// Numbers of episodes by length: bucket `n` has those from 2^n us on.
pub type Lengths = [u64; LENGTH_BUCKETS];

/// Decodes a run of `EpisodeRecord`s.
pub fn decode(bytes: &Bytes) -> Decoded<EpisodeReading> {
    records(bytes, size_of::<EpisodeRecord>(), |record| {
        episode(record).ok()
    })
}

/// The frames of a `StackEntry`, innermost first, and the lengths.
pub fn stack(words: &[u64; STACK_FRAMES + LENGTH_BUCKETS]) -> (Vec<u64>, Lengths) {
    let (frames, lengths) = words.split_at(STACK_FRAMES);
    let mut buckets = Lengths::default();
    buckets.copy_from_slice(lengths);
    (before_zero(frames), buckets)
}

fn before_zero(frames: &[u64]) -> Vec<u64> {
    let frames = frames.iter().copied();
    frames.take_while(|frame| *frame != 0).collect()
}

fn episode(mut b: Bytes) -> Result<EpisodeReading, bytes::TryGetError> {
    let b = &mut b;
    let (begin, end, start) = (u64(b)?, u64(b)?, u64(b)?);
    let waits = waits(b)?;
    let mut frames = [0; WAKER_FRAMES];
    for frame in &mut frames {
        *frame = u64(b)?;
    }
    let (depth, _reserved) = (u32(b)?, u32(b)?);
    let (pid, tid, waker_pid, waker_tid) = (u32(b)?, u32(b)?, u32(b)?, u32(b)?);
    let name = |at: usize| Text::from_bytes(b.get(at..at + COMM_BYTES).unwrap_or_default());
    Ok(EpisodeReading {
        begin: MonotonicNs(begin),
        end: MonotonicNs(end),
        start: MonotonicNs(start),
        waits,
        pid,
        tid,
        comm: name(0),
        waker: WakerReading {
            pid: waker_pid,
            tid: waker_tid,
            comm: name(COMM_BYTES),
            frames: frames.into_iter().take(depth as usize).collect(),
        },
    })
}

pub(super) fn waits(b: &mut Bytes) -> Result<WaitsFor, bytes::TryGetError> {
    Ok(WaitsFor {
        stack: u64(b)?,
        lock: u64(b)?,
        bio_ns: u64(b)?,
        bio_device: u32(b)?,
        bio_operation: u32(b)?,
        syscall: u32(b)?,
        file_system: u32(b)?,
        file_device: u32(b)?,
        holder: u32(b)?,
        child: u32(b)?,
        switches: u32(b)?,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{any, prop, proptest};
    use tracer_common::block::EpisodeRecord;

    use super::decode;

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_counted(bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
            let length = bytes.len();
            let decoded = decode(&Bytes::from(bytes));
            let used = decoded.readings.len() * size_of::<EpisodeRecord>();
            assert_eq!(used + decoded.undecodable, length);
        }
    }
}
