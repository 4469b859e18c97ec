//! Whom the kernel would kill: `oom_badness` and `select_bad_process`, mm/oom_kill.c.

use crate::{
    decode::oom::MemoryReading,
    snapshot::{Candidate, ProcessMemory},
};

/// `OOM_SCORE_ADJ_MIN`, include/uapi/linux/oom.h.
const NEVER: i32 = -1000;
/// The first process of the host is never killed (`is_global_init`).
const INIT: u32 = 1;

/// What is out of memory: its size in pages, swap included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) pages: u64,
}

impl Room {
    pub(super) fn of_bytes(bytes: u64, page_bytes: u64) -> Self {
        // No room at all counts as a page (`out_of_memory`).
        Self {
            pages: (bytes / page_bytes).max(1),
        }
    }

    /// Pages that a process is worth; `None` when it is never killed.
    pub(super) fn badness(self, process: &MemoryReading, page_bytes: u64) -> Option<i64> {
        let is_passed_over = process.is_in_vfork || process.is_skipped;
        if process.score_adj == NEVER || process.pid == INIT || is_passed_over {
            return None;
        }
        let pages = process
            .file_pages
            .saturating_add(process.anon_pages)
            .saturating_add(process.shmem_pages)
            .saturating_add(process.swap_pages)
            .saturating_add(process.page_table_bytes / page_bytes);
        let pages = i64::try_from(pages).unwrap_or(i64::MAX);
        // The kernel divides first.
        let thousandth = i64::try_from(self.pages / 1000).unwrap_or(i64::MAX);
        let adjusted = i64::from(process.score_adj).saturating_mul(thousandth);
        Some(pages.saturating_add(adjusted))
    }

    /// `proc_oom_score`, fs/proc/base.c, from 5.9 on.
    pub(super) fn score(self, badness: Option<i64>) -> u32 {
        let Some(badness) = badness else {
            return 0;
        };
        let total = i128::from(self.pages.max(1));
        let score = (1000 + i128::from(badness) * 1000 / total) * 2 / 3;
        u32::try_from(score.max(0)).unwrap_or(u32::MAX)
    }
}

/// Those that may be killed, the first one first. Of two that are worth the same the
/// kernel takes the one that it sees later, which began later.
pub(super) fn rank<'a>(
    processes: impl Iterator<Item = &'a MemoryReading>,
    room: Room,
    page_bytes: u64,
) -> Vec<(&'a MemoryReading, i64)> {
    let worth = |process| Some((process, room.badness(process, page_bytes)?));
    let mut ranked: Vec<_> = processes.filter_map(worth).collect();
    ranked.sort_by_key(|(process, badness)| std::cmp::Reverse((*badness, process.start)));
    ranked
}

/// As the model has it.
pub(super) fn candidate(
    (process, badness): (&MemoryReading, i64),
    room: Room,
    model: impl Fn(&MemoryReading) -> ProcessMemory,
) -> Candidate {
    Candidate {
        process: model(process),
        oom_score: room.score(Some(badness)),
    }
}
