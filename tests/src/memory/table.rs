//! The table of tasks that the kernel writes to its log with a kill (`dump_tasks`,
//! mm/oom_kill.c), read without tracer.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
};

/// Whether there is such a table (Documentation/admin-guide/sysctl/vm.rst).
const SYSCTL: &str = "/proc/sys/vm/oom_dump_tasks";
/// `PRINTK_MESSAGE_MAX`, kernel/printk/internal.h.
const RECORD_BYTES: usize = 8192;

/// Has the kernel write the table or not, until this is dropped.
pub struct Dumped(String);

impl Dumped {
    /// Sets it.
    ///
    /// # Errors
    /// The kernel does not let us.
    pub fn set(is_dumped: bool) -> io::Result<Self> {
        let before = fs::read_to_string(SYSCTL)?;
        fs::write(SYSCTL, if is_dumped { "1" } else { "0" })?;
        Ok(Self(before))
    }
}

impl Drop for Dumped {
    fn drop(&mut self) {
        let _ = fs::write(SYSCTL, &self.0);
    }
}

/// The first row of a process, by the names of the columns.
pub fn row(pid: u32) -> Option<HashMap<String, String>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let mut log = options.open("/dev/kmsg").expect("the kernel's log");
    let mut record = [0; RECORD_BYTES];
    let mut columns = Vec::new();
    loop {
        let line = match log.read(&mut record) {
            Ok(n) => String::from_utf8_lossy(&record[..n]).into_owned(),
            // Overwritten meanwhile.
            Err(e) if e.raw_os_error() == Some(libc::EPIPE) => continue,
            Err(_) => return None,
        };
        let (_, message) = line.split_once(';').expect("a record");
        let message = message.lines().next().unwrap_or_default();
        if let Some(names) = message.strip_prefix("[  pid  ]") {
            columns = names.split_whitespace().map(str::to_owned).collect();
        } else if let Some((_, values)) = message.split_once(']') {
            let values = values.split_whitespace().map(str::to_owned);
            let row: HashMap<String, String> = columns.iter().cloned().zip(values).collect();
            if row.get("tgid") == Some(&pid.to_string()) {
                return Some(row);
            }
        }
    }
}
