//! What disks did over the sample (/proc/diskstats), and which processes had them do it
//! (/proc/PID/io).

use std::{collections::HashMap, fs, path::PathBuf};

use procfs::DiskStat;

use crate::{
    check::rows::disks::{Device, User},
    host::devices::Devices,
    text::Text,
};

const MINOR_BITS: u32 = 20;
/// Processes that are named.
const NAMED: usize = 3;

/// Counters of every block device since boot.
pub(in crate::check) fn counters() -> Vec<DiskStat> {
    procfs::diskstats().unwrap_or_default()
}

/// What whole disks did between: no partitions, and nothing that is made of others.
pub(in crate::check) fn rates(before: &[DiskStat], now: &[DiskStat], seconds: f64) -> Vec<Device> {
    let mut names = Devices::new();
    let disks = now.iter().filter(|disk| is_disk(&disk.name));
    let rates = disks.filter_map(|now| {
        let before = before
            .iter()
            .find(|b| (b.major, b.minor) == (now.major, now.minor))?;
        if is_made_up(&now.name) && !is_used(before, now) {
            return None;
        }
        let number =
            u32::try_from(now.major).ok()? << MINOR_BITS | u32::try_from(now.minor).ok()?;
        Some(rate(names.name(number), before, now, seconds.max(0.001)))
    });
    rates.collect()
}

fn is_disk(name: &str) -> bool {
    let path = PathBuf::from("/sys/block").join(name.replace('/', "!"));
    let has_parts = fs::read_dir(path.join("slaves")).is_ok_and(|mut parts| parts.next().is_some());
    path.exists() && !has_parts
}

/// Loop devices and zram have their requests from files and memory. A host has many that
/// do nothing.
fn is_made_up(name: &str) -> bool {
    let words = ["loop", "ram", "zram"];
    words.iter().any(|word| name.starts_with(word))
}

/// Whether a device had requests.
fn is_used(before: &DiskStat, now: &DiskStat) -> bool {
    now.time_in_progress > before.time_in_progress || now.in_progress > 0
}

/// As iostat(1) has it: `r/s`, `w/s`, `await` of reads, writes and discards, `%util`.
fn rate(name: Text, before: &DiskStat, now: &DiskStat, seconds: f64) -> Device {
    let reads = now.reads.saturating_sub(before.reads);
    let writes = now.writes.saturating_sub(before.writes);
    let more = |of: fn(&DiskStat) -> Option<u64>| {
        of(now).unwrap_or(0).saturating_sub(of(before).unwrap_or(0))
    };
    let requests = reads + writes + more(|d| d.discards);
    let took_ms = now.time_reading.saturating_sub(before.time_reading)
        + now.time_writing.saturating_sub(before.time_writing)
        + more(|d| d.time_discarding);
    let busy_ms = now.time_in_progress.saturating_sub(before.time_in_progress);
    let is_stuck = requests + more(|d| d.flushes) == 0;
    Device {
        name,
        busy: (busy_ms as f64 / 1e3 / seconds).min(1.0),
        wait_ms: (requests > 0).then(|| took_ms as f64 / requests as f64),
        reads_per_s: reads as f64 / seconds,
        writes_per_s: writes as f64 / seconds,
        requests_per_s: requests as f64 / seconds,
        stuck: if is_stuck {
            before.in_progress.min(now.in_progress)
        } else {
            0
        },
    }
}

/// What each process had read from and written to block devices since it began, in bytes.
/// That of children comes on top all at once when they have ended and are waited for; the
/// third number, page faults of such children, changes then.
pub(in crate::check) fn users() -> HashMap<i32, [u64; 3]> {
    let Ok(all) = procfs::process::all_processes() else {
        return HashMap::new();
    };
    let one = |process: procfs::process::Process| {
        // Of others it needs root.
        let io = process.io().ok()?;
        let children = process.stat().ok()?.cminflt;
        Some((process.pid, [io.read_bytes, io.write_bytes, children]))
    };
    all.flatten().filter_map(one).collect()
}

/// Who read and wrote the most between; of all devices together.
pub(in crate::check) fn most(
    before: &HashMap<i32, [u64; 3]>,
    now: &HashMap<i32, [u64; 3]>,
    seconds: f64,
) -> Vec<User> {
    let mut all: Vec<_> = now
        .iter()
        .filter_map(|(pid, [read_now, written_now, children_now])| {
            // One that began meanwhile, or took over the number, has what it has.
            let [read, written, children] = before.get(pid).copied().unwrap_or_default();
            let (read, written) = (
                read_now.checked_sub(read)?,
                written_now.checked_sub(written)?,
            );
            let has_childrens = *children_now != children;
            (read + written > 0).then_some((read + written, *pid, [read, written], has_childrens))
        })
        .collect();
    all.sort_by_key(|(sum, pid, ..)| (std::cmp::Reverse(*sum), *pid));
    let named = all.into_iter().take(NAMED).map(|(_, pid, of, has)| User {
        pid,
        comm: comm(pid),
        bytes_per_s: of.map(|bytes| bytes as f64 / seconds.max(0.001)),
        has_childrens: has,
    });
    named.collect()
}

fn comm(pid: i32) -> Text {
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    Text::from_bytes(comm.trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use procfs::DiskStat;

    use super::{most, rate};

    #[test]
    fn who_read_and_wrote_the_most() {
        let before = HashMap::from([(1, [100, 100, 5]), (2, [0, 50, 5]), (3, [7, 7, 7])]);
        let now = HashMap::from([
            (1, [200, 100, 6]),
            (2, [0, 1050, 5]),
            (3, [7, 7, 8]),
            (-4, [0, 60, 0]),
        ]);
        let most = most(&before, &now, 2.0);
        let found: Vec<_> = most
            .iter()
            .map(|user| (user.pid, user.bytes_per_s, user.has_childrens))
            .collect();
        assert_eq!(
            found,
            [
                (2, [0.0, 500.0], false),
                (1, [50.0, 0.0], true),
                (-4, [0.0, 30.0], false)
            ]
        );
    }

    #[test]
    fn rates_are_those_of_iostat() {
        let before = DiskStat::from_line("8 0 sda 100 0 0 50 10 0 0 5 2 1000 0 0 0 0 0 0 0");
        let now = DiskStat::from_line("8 0 sda 140 0 0 250 20 0 0 105 1 1500 0 0 0 0 0 0 0");
        let (before, now) = (before.unwrap(), now.unwrap());
        let device = rate("sda".into(), &before, &now, 2.0);
        assert_eq!((device.reads_per_s, device.writes_per_s), (20.0, 5.0));
        assert_eq!((device.busy, device.wait_ms), (0.25, Some(6.0)));
        assert_eq!(device.stuck, 0);
        assert_eq!(rate("sda".into(), &now, &now, 2.0).stuck, 1);
    }
}
