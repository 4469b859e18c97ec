//! Room for the kernel's reports of kills: it writes ten within five seconds, and of
//! further kills only the last line (`oom_kill_process`, mm/oom_kill.c).

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
};

use crate::time::eventually;

/// `DEFAULT_RATELIMIT_INTERVAL`, include/linux/ratelimit_types.h.
const INTERVAL_US: u64 = 5_000_000;
/// Reports of the interval that leave room for those of a test, and of tests beside it.
const FEW: usize = 2;
/// `PRINTK_MESSAGE_MAX`, kernel/printk/internal.h.
const RECORD_BYTES: usize = 8192;

/// Waits until the next kills have their reports in the kernel's log.
pub fn await_room() {
    let is_quiet = || recent().expect("the kernel's log") <= FEW;
    assert!(eventually(60.0, is_quiet), "others are killed all the time");
}

/// Reports of the last interval. What is written here says what time it is by the log's
/// clock.
fn recent() -> io::Result<usize> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let mut log = options.custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
    log.write_all(b"<7>tracer-test: who was killed?\n")?;
    let (mut reports, mut now_us) = (Vec::new(), 0);
    let mut record = [0; RECORD_BYTES];
    loop {
        let line = match log.read(&mut record) {
            Ok(n) => String::from_utf8_lossy(&record[..n]).into_owned(),
            // Overwritten meanwhile.
            Err(e) if e.raw_os_error() == Some(libc::EPIPE) => continue,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => return Err(e),
        };
        let at_us = line.split(',').nth(2).and_then(|at| at.parse().ok());
        now_us = at_us.unwrap_or(now_us);
        if line.contains(" invoked oom-killer: ") {
            reports.push(now_us);
        }
    }
    let is_recent = |at_us: &&u64| **at_us + INTERVAL_US > now_us;
    Ok(reports.iter().filter(is_recent).count())
}
