//! Folds: who was runnable on a CPU when the kernel counted.

use bytes::Bytes;
use tracer_common::fold::{FOLD_DELAYED, FOLD_TASKS, FoldRecord};

use super::{
    Decoded,
    bytes::{i64, u32, u64},
    records,
};
use crate::clock::MonotonicNs;

/// One CPU's fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoldReading {
    /// When.
    pub at: MonotonicNs,
    /// The jiffy of the next fold: names the sample.
    pub next_fold_jiffy: u64,
    /// `jiffies` at that moment.
    pub jiffies: u64,
    /// What the CPU gave to the sample; can be negative for one CPU.
    pub active: i64,
    /// The CPU.
    pub cpu: u32,
    /// `rq->nr_running` as it was counted.
    pub nr_running: u32,
    /// Its queued tasks.
    pub tasks: Vec<FoldTask>,
}

/// A queued task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoldTask {
    /// Thread id.
    pub tid: u32,
    /// Asleep, yet still queued and counted.
    pub is_delayed: bool,
}

/// Decodes a run of `FoldRecord`s.
pub fn decode(bytes: &Bytes) -> Decoded<FoldReading> {
    records(bytes, size_of::<FoldRecord>(), |record| fold(record).ok())
}

fn fold(mut b: Bytes) -> Result<FoldReading, bytes::TryGetError> {
    let b = &mut b;
    let (at, next_fold_jiffy, jiffies, active) = (u64(b)?, u64(b)?, u64(b)?, i64(b)?);
    let (cpu, nr_running, listed, _flags) = (u32(b)?, u32(b)?, u32(b)?, u32(b)?);
    let tasks = (0..(listed as usize).min(FOLD_TASKS))
        .map(|_| {
            let word = u32(b)?;
            Ok(FoldTask {
                tid: word & !FOLD_DELAYED,
                is_delayed: word & FOLD_DELAYED != 0,
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(FoldReading {
        at: MonotonicNs(at),
        next_fold_jiffy,
        jiffies,
        active,
        cpu,
        nr_running,
        tasks,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{any, prop, proptest};
    use tracer_common::fold::FoldRecord;

    use super::{FoldTask, decode};

    #[test]
    fn a_delayed_task_is_told_from_a_runnable_one() {
        let mut words = vec![0_u8; size_of::<FoldRecord>()];
        words[..8].copy_from_slice(&7_u64.to_ne_bytes());
        words[40..44].copy_from_slice(&2_u32.to_ne_bytes());
        words[48..52].copy_from_slice(&11_u32.to_ne_bytes());
        words[52..56].copy_from_slice(&(12 | 1_u32 << 31).to_ne_bytes());
        let decoded = decode(&Bytes::from(words));
        let tasks = [
            FoldTask {
                tid: 11,
                is_delayed: false,
            },
            FoldTask {
                tid: 12,
                is_delayed: true,
            },
        ];
        assert_eq!(decoded.readings[0].tasks, tasks);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_counted(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
            let length = bytes.len();
            let decoded = decode(&Bytes::from(bytes));
            let used = decoded.readings.len() * size_of::<FoldRecord>();
            assert_eq!(used + decoded.undecodable, length);
        }
    }
}
