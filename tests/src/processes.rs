//! Processes and threads as /proc has them.

use std::fs;

/// Processes that a process has started, and those that these have.
pub fn descendants(pid: u32) -> Vec<u32> {
    let of_each = children(pid).into_iter().flat_map(|child| {
        let own = std::iter::once(child);
        own.chain(descendants(child)).collect::<Vec<_>>()
    });
    of_each.collect()
}

fn children(pid: u32) -> Vec<u32> {
    let lists = threads(pid).into_iter().filter_map(|thread| {
        fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).ok()
    });
    let lists: Vec<String> = lists.collect();
    let words = lists.iter().flat_map(|list| list.split_whitespace());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Ids of the threads of a process; none when it has gone.
pub fn threads(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let names = tasks.into_iter().flatten().filter_map(|task| {
        let name = task.ok()?.file_name();
        name.to_str()?.parse().ok()
    });
    names.collect()
}

/// What a thread may do, by /proc/PID/task/TID/status and its nice value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadRights {
    /// `CapInh`, `CapPrm`, `CapEff`, `CapBnd`, `CapAmb`.
    pub capabilities: [u64; 5],
    /// `NoNewPrivs`.
    pub no_new_privs: bool,
    /// `Seccomp`: 2 is a filter.
    pub seccomp: u32,
    /// Its nice value.
    pub nice: i32,
    /// Its file system user.
    pub user: u32,
}

/// The name and the rights of a thread; `None` when it has gone.
pub fn rights(pid: u32, thread: u32) -> Option<(String, ThreadRights)> {
    let read = |file| fs::read_to_string(format!("/proc/{pid}/task/{thread}/{file}")).ok();
    let (status, stat) = (read("status")?, read("stat")?);
    let line = |key: &str| {
        Some(
            status
                .lines()
                .find_map(|line| line.strip_prefix(key))?
                .trim(),
        )
    };
    let mask = |key| u64::from_str_radix(line(key)?, 16).ok();
    let capabilities = [
        mask("CapInh:")?,
        mask("CapPrm:")?,
        mask("CapEff:")?,
        mask("CapBnd:")?,
        mask("CapAmb:")?,
    ];
    let (_, after) = stat.rsplit_once(')')?;
    let rights = ThreadRights {
        capabilities,
        no_new_privs: line("NoNewPrivs:")? == "1",
        seccomp: line("Seccomp:")?.parse().ok()?,
        nice: after.split_whitespace().nth(16)?.parse().ok()?,
        user: line("Uid:")?.split_whitespace().nth(3)?.parse().ok()?,
    };
    Some((line("Name:")?.to_owned(), rights))
}
