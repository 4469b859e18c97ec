//! The kernel function that a task sleeps in, from /proc/TID/wchan
//! (`proc_pid_wchan`, fs/proc/base.c).

use std::fs;

use crate::text::Text;

/// `None` for a task that runs, is gone, or may not be looked at.
pub fn of(tid: u32) -> Option<Text> {
    let name = fs::read(format!("/proc/{tid}/wchan")).ok()?;
    (!name.is_empty() && name != b"0").then(|| Text::from_bytes(&name))
}
