//! Processes that are killed, and the memory of processes.

use bytes::{Buf as _, Bytes};
use tracer_common::{
    COMM_BYTES,
    oom::{
        IN_VFORK, KILLER_FRAMES, KillRecord, MARKED, MemoryRecord, NO_REQUEST, OOM_SKIP,
        PAGE_KINDS, SIGNALLED_BY_KERNEL, SIGNALLED_BY_PROCESS,
    },
};

use super::{
    Decoded,
    bytes::{i64, u32, u64},
    records,
};
use crate::{clock::MonotonicNs, text::Text};

/// The memory of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryReading {
    /// When its task began (CLOCK_MONOTONIC).
    pub start: MonotonicNs,
    /// Identity of the cgroup that its memory is charged to; 0 for none.
    pub cgroup: u64,
    /// Address of its `mm_struct`: the same for processes that share their memory.
    pub mm: u64,
    /// Pages of files.
    pub file_pages: u64,
    /// Anonymous pages.
    pub anon_pages: u64,
    /// Pages in swap.
    pub swap_pages: u64,
    /// Pages of shared memory.
    pub shmem_pages: u64,
    /// Page tables, in bytes.
    pub page_table_bytes: u64,
    /// Address space, in pages.
    pub total_pages: u64,
    /// Process id.
    pub pid: u32,
    /// Thread id of the task that was looked at.
    pub tid: u32,
    /// User id.
    pub uid: u32,
    /// `oom_score_adj`.
    pub score_adj: i32,
    /// It runs on its parent's memory until it calls execve.
    pub is_in_vfork: bool,
    /// Its memory was freed for an earlier kill, or cannot be freed by one.
    pub is_skipped: bool,
    /// Its name.
    pub comm: Text,
}

/// What was seen of a kill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KillKind {
    /// The out-of-memory killer marked it.
    #[default]
    Marked,
    /// The kernel sent it SIGKILL.
    SignalledByKernel,
    /// A process sent it SIGKILL.
    SignalledByProcess,
}

/// What the out-of-memory killer was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomRequest {
    /// Identity of the cgroup at its limit; 0 for the host.
    pub cgroup: u64,
    /// What is out of memory, in pages, swap included.
    pub total_pages: u64,
    /// 2^order pages in one piece; -1 for SysRq.
    pub order: i32,
    /// `enum oom_constraint`, include/linux/oom.h.
    pub constraint: u32,
}

/// A process that is killed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KillReading {
    /// When.
    pub at: MonotonicNs,
    /// What was seen.
    pub kind: KillKind,
    /// Who.
    pub victim: MemoryReading,
    /// What for; `None` where nobody has noted it.
    pub request: Option<OomRequest>,
    /// Process id of who wanted memory, or sent the signal.
    pub killer_pid: u32,
    /// Its thread id.
    pub killer_tid: u32,
    /// Its name.
    pub killer_comm: Text,
    /// Identity of the cgroup that its memory is charged to.
    pub killer_cgroup: u64,
    /// Its kernel stack, innermost first; empty where a process sent the signal.
    pub frames: Vec<u64>,
}

/// Decodes a run of `MemoryRecord`s.
pub fn memory(bytes: &Bytes) -> Decoded<MemoryReading> {
    records(bytes, size_of::<MemoryRecord>(), |mut b| {
        memory_record(&mut b)
    })
}

/// Decodes a run of `KillRecord`s.
pub fn kills(bytes: &Bytes) -> Decoded<KillReading> {
    records(bytes, size_of::<KillRecord>(), |mut b| {
        let b = &mut b;
        let at = MonotonicNs(u64(b).ok()?);
        let victim = memory_record(b)?;
        let request = request(b)?;
        let killer_cgroup = u64(b).ok()?;
        let (killer_pid, killer_tid) = (u32(b).ok()?, u32(b).ok()?);
        let killer_comm = comm(b)?;
        let kind = match u32(b).ok()? {
            MARKED => KillKind::Marked,
            SIGNALLED_BY_KERNEL => KillKind::SignalledByKernel,
            SIGNALLED_BY_PROCESS => KillKind::SignalledByProcess,
            _ => return None,
        };
        let depth = u32(b).ok()? as usize;
        let mut frames = Vec::new();
        for _ in 0..depth.min(KILLER_FRAMES) {
            frames.push(u64(b).ok()?);
        }
        Some(KillReading {
            at,
            kind,
            victim,
            request,
            killer_pid,
            killer_tid,
            killer_comm,
            killer_cgroup,
            frames,
        })
    })
}

fn request(b: &mut Bytes) -> Option<Option<OomRequest>> {
    let (cgroup, total_pages) = (u64(b).ok()?, u64(b).ok()?);
    let (_tid, order) = (u32(b).ok()?, u32(b).ok()?.cast_signed());
    let (constraint, _reserved) = (u32(b).ok()?, u32(b).ok()?);
    Some((constraint != NO_REQUEST).then_some(OomRequest {
        cgroup,
        total_pages,
        order,
        constraint,
    }))
}

fn memory_record(b: &mut Bytes) -> Option<MemoryReading> {
    let (start, cgroup, mm) = (MonotonicNs(u64(b).ok()?), u64(b).ok()?, u64(b).ok()?);
    let mut pages = [0; PAGE_KINDS];
    for count in &mut pages {
        *count = u64::try_from(i64(b).ok()?).unwrap_or(0);
    }
    let [file_pages, anon_pages, swap_pages, shmem_pages] = pages;
    let (page_table_bytes, total_pages) = (u64(b).ok()?, u64(b).ok()?);
    let (pid, tid, uid) = (u32(b).ok()?, u32(b).ok()?, u32(b).ok()?);
    let (score_adj, flags) = (u32(b).ok()?.cast_signed(), u32(b).ok()?);
    let _reserved = u32(b).ok()?;
    Some(MemoryReading {
        start,
        cgroup,
        mm,
        file_pages,
        anon_pages,
        swap_pages,
        shmem_pages,
        page_table_bytes,
        total_pages,
        pid,
        tid,
        uid,
        score_adj,
        is_in_vfork: flags & IN_VFORK != 0,
        is_skipped: flags & OOM_SKIP != 0,
        comm: comm(b)?,
    })
}

fn comm(b: &mut Bytes) -> Option<Text> {
    let mut comm = [0; COMM_BYTES];
    b.try_copy_to_slice(&mut comm).ok()?;
    Some(Text::from_bytes(&comm))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{any, prop, proptest};
    use tracer_common::oom::{KillRecord, MemoryRecord};

    use super::{kills, memory};

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_counted(bytes in prop::collection::vec(any::<u8>(), 0..5_000)) {
            let length = bytes.len();
            let bytes = Bytes::from(bytes);
            let decoded = memory(&bytes);
            let used = decoded.readings.len() * size_of::<MemoryRecord>();
            assert_eq!(used + decoded.undecodable, length);
            let decoded = kills(&bytes);
            let used = decoded.readings.len() * size_of::<KillRecord>();
            assert_eq!(used + decoded.undecodable, length);
        }
    }
}
