//! The table of tasks that the log has of a kill: the state right before it
//! (`dump_tasks`, mm/oom_kill.c; not with `vm.oom_dump_tasks` 0).
//!
//! The columns differ from kernel to kernel. Sizes are in pages, but for page tables.

use super::lines::is_comm;
use crate::text::Text;

/// So many tasks of a table are kept, the largest.
const TASKS_KEPT: usize = 11;
/// A thread id in a row is at least so wide. With it and the numbers after it a row is
/// longer than the name of a task, which another line may begin with.
const TID_COLUMNS: usize = 7;

/// A task of a report's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoggedTask {
    /// Thread id of one that has the process's memory, mostly the first.
    pub tid: u32,
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: Text,
    /// User id.
    pub uid: Option<u32>,
    /// Resident pages.
    pub rss_pages: u64,
    /// Of these the anonymous; all of them where the table tells no kinds apart.
    pub anon_pages: u64,
    /// Pages of files.
    pub file_pages: u64,
    /// Shared memory.
    pub shmem_pages: u64,
    /// Entries in swap.
    pub swap_pages: u64,
    /// Page tables, in bytes.
    pub page_table_bytes: u64,
    /// `oom_score_adj`.
    pub oom_score_adj: i32,
}

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<String>,
    tasks: Vec<LoggedTask>,
}

impl Table {
    /// One with these columns, after that of the thread id.
    pub(super) fn new(names: &str) -> Self {
        Self {
            columns: names.split_whitespace().map(str::to_owned).collect(),
            tasks: Vec::new(),
        }
    }

    /// Takes a row; what is none, as others write to the log meanwhile, is passed over.
    pub(super) fn row(&mut self, message: &str) {
        let row = message.strip_prefix('[');
        if let Some(task) = row.and_then(|row| task(row, &self.columns)) {
            keep(&mut self.tasks, task);
        }
    }

    /// The largest tasks, once all rows have come.
    pub(super) fn end(self) -> Vec<LoggedTask> {
        self.tasks
    }
}

/// A row, without its first bracket. The name is the last column.
fn task(row: &str, columns: &[String]) -> Option<LoggedTask> {
    let (tid, mut rest) = row.split_once(']')?;
    if tid.len() < TID_COLUMNS {
        return None;
    }
    let tid = tid.trim().parse().ok()?;
    let mut task = LoggedTask {
        tid,
        pid: tid,
        ..LoggedTask::default()
    };
    for column in columns {
        rest = rest.trim_start();
        if column == "name" {
            is_comm(rest).then_some(())?;
            task.comm = rest.into();
            break;
        }
        let (value, after) = rest.split_once(' ')?;
        rest = after;
        match column.as_str() {
            "uid" => task.uid = value.parse().ok(),
            "tgid" => task.pid = value.parse().ok()?,
            "rss" => task.rss_pages = value.parse().ok()?,
            "rss_anon" => task.anon_pages = value.parse().ok()?,
            "rss_file" => task.file_pages = value.parse().ok()?,
            "rss_shmem" => task.shmem_pages = value.parse().ok()?,
            "pgtables_bytes" => task.page_table_bytes = value.parse().ok()?,
            "swapents" => task.swap_pages = value.parse().ok()?,
            "oom_score_adj" => task.oom_score_adj = value.parse().ok()?,
            _ => drop(value.parse::<i64>().ok()?),
        }
    }
    if !columns.iter().any(|column| column == "rss_anon") {
        task.anon_pages = task.rss_pages;
    }
    Some(task)
}

/// Keeps the largest.
fn keep(tasks: &mut Vec<LoggedTask>, task: LoggedTask) {
    let size = |task: &LoggedTask| task.rss_pages.saturating_add(task.swap_pages);
    let at = tasks.partition_point(|kept| size(kept) >= size(&task));
    tasks.insert(at, task);
    tasks.truncate(TASKS_KEPT);
}
