//! Files of /proc/PID that belong to one task: descriptors, memory, mounts, namespaces.
//!
//! A process lives on when its first thread ends before the others. Its /proc/PID is that
//! first thread's, and from then on shows no descriptor, no memory and no namespace
//! (`exit_files`, `exit_mm`, `exit_task_namespaces` in `do_exit`, kernel/exit.c). They are
//! read through a thread that lives: the kernel has a /proc/TID for each, which no listing
//! of /proc shows (`proc_pid_lookup`, fs/proc/base.c).

use std::{fs, io, path::PathBuf};

/// Threads that are asked. Those that have ended leave the list, but for the first one and
/// traced ones.
const MOST: usize = 1024;

/// A file of a process: `/proc/TID/file`, with a thread that lives.
pub fn path(pid: u32, file: &str) -> String {
    format!("/proc/{}/{file}", thread(pid))
}

/// A link of a process and where it is, as a thread that lives has it. Most have a first
/// thread that does: that is asked first.
///
/// # Errors
/// The process is gone, or may not be looked at.
pub fn read_link(pid: u32, file: &str) -> io::Result<(PathBuf, PathBuf)> {
    let first = PathBuf::from(format!("/proc/{pid}/{file}"));
    match fs::read_link(&first) {
        Ok(link) => Ok((first, link)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(_) => {
            let other = PathBuf::from(path(pid, file));
            let link = fs::read_link(&other)?;
            Ok((other, link))
        }
    }
}

/// The thread through which a process can be looked at: the first one, unless it has
/// ended. `pid` itself too when nothing is left of the process.
pub fn thread(pid: u32) -> u32 {
    if !has_ended(&format!("/proc/{pid}/stat")) {
        return pid;
    }
    let lives = |tid: &u32| *tid != pid && !has_ended(&format!("/proc/{pid}/task/{tid}/stat"));
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    let tids = entries.into_iter().flatten().flatten().take(MOST);
    let mut tids = tids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    tids.find(lives).unwrap_or(pid)
}

/// Whether a process is stopped: by a signal (T) or by a debugger (t).
pub fn is_stopped(pid: u32) -> bool {
    let stat = fs::read(format!("/proc/{}/stat", thread(pid)));
    stat.is_ok_and(|stat| matches!(state(&stat), Some(b'T' | b't')))
}

/// Whether this stat is of a task that has ended, or cannot be read.
fn has_ended(stat: &str) -> bool {
    fs::read(stat).map_or(true, |stat| {
        matches!(state(&stat), Some(b'Z' | b'X') | None)
    })
}

/// The letter behind the name, which can hold anything (`do_task_stat`, fs/proc/array.c).
fn state(stat: &[u8]) -> Option<u8> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    stat.get(end + 2).copied()
}

#[cfg(test)]
mod tests {
    use super::{path, state, thread};

    #[test]
    fn the_state_stands_behind_any_name() {
        assert_eq!(state(b"7 (cat) R 1 7"), Some(b'R'));
        assert_eq!(state(b"7 (a) Z (b) S 1 7"), Some(b'S'));
        assert_eq!(state(b"7 (x)"), None);
        assert_eq!(state(b""), None);
    }

    #[test]
    fn a_process_is_looked_at_through_its_first_thread() {
        let own = std::process::id();
        assert_eq!(thread(own), own);
        assert_eq!(path(own, "fd"), format!("/proc/{own}/fd"));
        // There is no such process.
        assert_eq!(thread(u32::MAX), u32::MAX);
    }
}
