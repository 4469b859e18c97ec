//! What the kernel says of itself: taint, clock source, counts of memory errors, and the
//! messages of its log.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use crate::{
    check::rows::{
        kernel::{Clock, Log, MemoryErrors, Reading},
        messages::classify,
    },
    clock,
    host::kmsg::{KMSG, Message, RECORD_BYTES},
    text::Text,
};

const TAINTED: &str = "/proc/sys/kernel/tainted";
const CLOCKS: &str = "/sys/devices/system/clocksource/clocksource0";
const EDAC: &str = "/sys/devices/system/edac/mc";
/// No more records are read: a kernel that writes faster than it is read must not keep
/// the row. The largest log that is usual, 16 MiB, has about as many.
const MOST_RECORDS: usize = 262_144;

/// Everything, as of now.
pub(in crate::check) fn read() -> Reading {
    use procfs::Current as _;
    let mut unseen = Vec::new();
    let tainted = number(Path::new(TAINTED));
    if tainted.is_none() {
        unseen.push(format!("taint: {TAINTED} cannot be read"));
    }
    let log = match log() {
        Ok(log) => Some(log),
        Err(error) => {
            unseen.push(format!(
                "the kernel's log: {error}; {KMSG} needs CAP_SYSLOG"
            ));
            None
        }
    };
    Reading {
        now_us: clock::monotonic().0 / 1_000,
        uptime_s: procfs::Uptime::current().ok().map(|uptime| uptime.uptime),
        tainted,
        clock: clock_source(),
        memory: memory_errors(Path::new(EDAC)),
        log,
        unseen,
    }
}

fn text(path: &Path) -> Option<Text> {
    let bytes = fs::read(path).ok()?;
    Some(Text::from_bytes(bytes.trim_ascii()))
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.as_str().parse().ok()
}

fn clock_source() -> Option<Clock> {
    let file = |name| text(&Path::new(CLOCKS).join(name));
    Some(Clock {
        current: file("current_clocksource")?,
        available: file("available_clocksource").unwrap_or_default(),
    })
}

/// A line a memory controller; none where no driver for one is loaded
/// (Documentation/admin-guide/ras.rst).
fn memory_errors(edac: &Path) -> Vec<MemoryErrors> {
    let Ok(controllers) = fs::read_dir(edac) else {
        return Vec::new();
    };
    let one = |entry: fs::DirEntry| {
        let path = entry.path();
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("mc")?.parse::<u32>().ok()?;
        Some(MemoryErrors {
            controller: name.into(),
            corrected: number(&path.join("ce_count"))?,
            uncorrected: number(&path.join("ue_count"))?,
        })
    };
    let mut all: Vec<MemoryErrors> = controllers.flatten().filter_map(one).collect();
    all.sort_by(|a, b| a.controller.cmp(&b.controller));
    all
}

/// What the log has, from its oldest record to the newest that is there.
fn log() -> io::Result<Log> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(KMSG)?;
    let mut buffer = vec![0; RECORD_BYTES];
    let mut log = Log::default();
    for _ in 0..MOST_RECORDS {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(log),
            Ok(n) => take(&mut log, buffer.get(..n).unwrap_or_default()),
            // Overwritten before it was read; the next is the oldest that is there.
            Err(e) if e.raw_os_error() == Some(libc::EPIPE) => log.is_from_boot = Some(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(log),
            Err(e) => return Err(e),
        }
    }
    log.is_cut = true;
    Ok(log)
}

fn take(log: &mut Log, record: &[u8]) {
    let Some(message) = Message::of_kernel(record) else {
        return;
    };
    // Processes may write to the log too, but the kernel was first.
    log.is_from_boot.get_or_insert(message.sequence == 0);
    log.oldest_us.get_or_insert(message.at_us);
    if message.is_piece {
        return;
    }
    if let Some(kind) = classify(message.level, &message.text) {
        let seen = log.seen.entry(kind).or_default();
        seen.count += 1;
        seen.last_us = message.at_us;
        seen.keep(message.at_us, Text::from(message.text.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::proptest, prop_assert};

    use super::{log, read, take};
    use crate::{
        check::rows::{kernel::Log, messages::Kind},
        host::kmsg::forged::other_line,
    };

    #[test]
    fn what_a_process_wrote_is_not_believed() {
        const TEXT: &str = "INFO: task x:12 blocked for more than 120 seconds.";
        let mut log = Log::default();
        // LOG_USER and error, then LOG_KERN and error.
        take(&mut log, format!("11,7,1000,-;{TEXT}\n").as_bytes());
        assert!(log.seen.is_empty());
        take(
            &mut log,
            format!("3,8,2000,-;{TEXT}\n SUBSYSTEM=x\n").as_bytes(),
        );
        let seen = &log.seen[&Kind::HungTask];
        assert_eq!((seen.count, seen.last_us), (1, 2000));
        assert_eq!(seen.newest[0], (2000, TEXT.into()));
        assert_eq!((log.is_from_boot, log.oldest_us), (Some(false), Some(2000)));
        for rubbish in [&b""[..], b";", b"3,1;x", b"x,1,1;y", b"\xff,\xff;\xff"] {
            take(&mut log, rubbish);
        }
        assert_eq!(log.seen.len(), 1);
    }

    proptest! {
        /// Whatever tasks, cgroups and devices are called, also where another CPU breaks
        /// the line.
        #[test]
        fn foreign_names_are_no_message((level, line) in other_line()) {
            let mut log = Log::default();
            let first = line.split('|').next().unwrap_or_default();
            for text in [&line.replace('|', ""), first] {
                take(&mut log, format!("{level},1,1,-;{text}\n").as_bytes());
            }
            for piece in line.split('|').skip(1) {
                take(&mut log, format!("3,2,1,c;{piece}\n").as_bytes());
            }
            // This one is a message, whatever the cgroup is called.
            if line.starts_with("cgroup: fork rejected by pids controller in ") {
                log.seen.remove(&Kind::ForkRefused);
            }
            prop_assert!(log.seen.is_empty(), "{:?}", log.seen.keys());
        }
    }

    #[test]
    fn this_kernel_can_be_read() {
        let reading = read();
        assert!(reading.tainted.is_some());
        assert!(reading.uptime_s.is_some_and(|seconds| seconds > 0.0));
        // Not everywhere without root.
        assert_eq!(reading.log.is_some(), log().is_ok());
    }
}
