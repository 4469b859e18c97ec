//! The kernel's log, and memory kills as it tells them, also from before the start.
//!
//! What a process writes to the log itself is told apart by its facility
//! (`devkmsg_write`, kernel/printk/printk.c) and not believed. `report.rs` makes kills
//! of records, `table.rs` reads the table of tasks that comes with one.

mod lines;
mod report;
mod table;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
};

pub use self::{
    report::{Constraint, LoggedKill, LoggedTrigger, Parser},
    table::LoggedTask,
};

/// Where the kernel shows its log (Documentation/ABI/testing/dev-kmsg).
pub const KMSG: &str = "/dev/kmsg";
/// The longest record (`PRINTK_MESSAGE_MAX`, kernel/printk/internal.h).
pub const RECORD_BYTES: usize = 8192;
/// The priority is a level of three bits; the facility is above it.
const FACILITY_SHIFT: u32 = 3;

/// The kernel's log, read as it grows.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
    parser: Parser,
    buffer: Vec<u8>,
}

impl KernelLog {
    /// Opens it at its begin.
    ///
    /// # Errors
    /// It cannot be opened (without CAP_SYSLOG where `kernel.dmesg_restrict` is set).
    pub fn open() -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(KMSG)?;
        Ok(Self {
            file,
            parser: Parser::default(),
            buffer: vec![0; RECORD_BYTES],
        })
    }

    /// Kills since the last time, and how often records were overwritten before they
    /// were read.
    pub fn read(&mut self) -> (Vec<LoggedKill>, u64) {
        let (mut kills, mut gaps) = (Vec::new(), 0);
        loop {
            match self.file.read(&mut self.buffer) {
                Ok(0) => return (kills, gaps),
                Ok(n) => {
                    let record = self.buffer.get(..n).unwrap_or_default();
                    kills.extend(self.parser.record(record));
                }
                // The next read goes on with the oldest that is there.
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => gaps += 1,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return (kills, gaps),
            }
        }
    }
}

/// A line that the kernel itself wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// How bad, from 0 (`KERN_EMERG`) to 7 (`KERN_DEBUG`).
    pub level: u32,
    /// Its number since boot.
    pub sequence: u64,
    /// When, in us since boot (`local_clock`).
    pub at_us: u64,
    /// It goes on with a line of an earlier record, which another CPU broke (the flag `c`,
    /// Documentation/ABI/testing/dev-kmsg). It can be nothing but the name of a cgroup.
    pub is_piece: bool,
    /// What it says: foreign text.
    pub text: String,
}

impl Message {
    /// The number of a record of /dev/kmsg, whoever wrote it; without losses each has the
    /// one after the last's.
    fn sequence_of(record: &[u8]) -> Option<u64> {
        let number = record.split(|&byte| byte == b',').nth(1)?;
        std::str::from_utf8(number).ok()?.parse().ok()
    }

    /// From a record of /dev/kmsg; `None` for one that a process wrote.
    pub fn of_kernel(record: &[u8]) -> Option<Self> {
        let record = String::from_utf8_lossy(record);
        let (head, rest) = record.split_once(';')?;
        let mut head = head.split(',');
        let priority: u32 = head.next()?.parse().ok()?;
        let sequence: u64 = head.next()?.parse().ok()?;
        let at_us: u64 = head.next()?.parse().ok()?;
        (priority >> FACILITY_SHIFT == 0).then(|| Self {
            level: priority,
            sequence,
            at_us,
            is_piece: head.next() == Some("c"),
            // Further lines are key and value pairs.
            text: unescaped(rest.lines().next().unwrap_or_default()),
        })
    }
}

/// The kernel writes what is not printable, and the backslash, as `\xNN`.
fn unescaped(line: &str) -> String {
    let mut bytes = Vec::with_capacity(line.len());
    let mut rest = line.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = rest.strip_prefix(b"\\x").and_then(|hex| hex.get(..2));
        let byte = escaped
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
pub(crate) mod forged;
#[cfg(test)]
mod tests;
