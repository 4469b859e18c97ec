//! Disks: space and inodes of each mount that can fill, whether it can be written and
//! answers at all, and how busy the devices are.

mod devices;
mod mounts;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::{
    check::{
        context::Context,
        finding::{Figure, Finding, Row, RowReport, Verdict, figure_of},
        limits::Limits,
        read,
    },
    clock,
    render::quantity::bytes,
    text::Text,
};

/// The walk for the largest directories ends after so long.
const WALK: Duration = Duration::from_secs(10);
/// Files that are named for a mount.
const NAMED: usize = 3;

/// What there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Reading {
    pub(in crate::check) mounts: Vec<Mount>,
    pub(in crate::check) devices: Vec<Device>,
    /// Processes by what they read and write of block devices, the most first.
    pub(in crate::check) users: Vec<User>,
    /// Files that grow, the fastest first.
    pub(in crate::check) growing: Vec<Growing>,
    /// The largest directories, where they were looked for.
    pub(in crate::check) largest: Option<Largest>,
    pub(in crate::check) unseen: Vec<String>,
}

/// A file system, at one of its mount points.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Mount {
    pub(in crate::check) kind: Text,
    pub(in crate::check) source: Text,
    pub(in crate::check) point: Text,
    /// Major and minor number in mountinfo.
    pub(in crate::check) device: (u32, u32),
    /// Those that stat(2) has for its files: others on btrfs.
    pub(in crate::check) stat_device: (u32, u32),
    /// The mount is read-only.
    pub(in crate::check) is_read_only: bool,
    /// The file system itself is.
    pub(in crate::check) is_super_read_only: bool,
    /// The file system says that it gave up (`emergency_ro`, `shutdown`).
    pub(in crate::check) has_given_up: bool,
    /// It is mounted with `errors=remount-ro`.
    pub(in crate::check) is_read_only_after_errors: bool,
    /// /etc/fstab has it, and without `ro`.
    pub(in crate::check) is_to_be_written: bool,
    /// Errors that the file system keeps of itself.
    pub(in crate::check) errors: Option<Errors>,
    pub(in crate::check) answer: Answer,
}

/// Of ext4: /sys/fs/ext4/DEVICE.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Errors {
    pub(in crate::check) count: u64,
    /// The kernel function that met the last one.
    pub(in crate::check) function: Text,
    /// When, in ns since 1970.
    pub(in crate::check) last: clock::WallNs,
}

/// What statfs(2) said.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::check) enum Answer {
    Space(Space),
    /// Nothing in time.
    Silent,
    /// That whoever serves it is gone (ENOTCONN, ESTALE, EIO, ..).
    Dead(String),
}

impl Default for Answer {
    fn default() -> Self {
        Self::Space(Space::default())
    }
}

/// Space in bytes by the names of df(1), and inodes; a total of 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::check) struct Space {
    pub(in crate::check) total: u64,
    pub(in crate::check) used: u64,
    /// For others than root.
    pub(in crate::check) left: u64,
    pub(in crate::check) inodes_total: u64,
    pub(in crate::check) inodes_used: u64,
}

impl Space {
    /// The `Use%` of df(1).
    fn used_ratio(&self) -> f64 {
        ratio(self.used, self.used.saturating_add(self.left))
    }

    fn inodes_ratio(&self) -> f64 {
        ratio(self.inodes_used, self.inodes_total)
    }
}

fn ratio(part: u64, of: u64) -> f64 {
    if of == 0 {
        0.0
    } else {
        part as f64 / of as f64
    }
}

/// A whole disk over the sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Device {
    pub(in crate::check) name: Text,
    /// The part of the time in which it had requests.
    pub(in crate::check) busy: f64,
    /// How long a request took; `None` where none was finished.
    pub(in crate::check) wait_ms: Option<f64>,
    pub(in crate::check) reads_per_s: f64,
    pub(in crate::check) writes_per_s: f64,
    /// Reads, writes and discards that were finished.
    pub(in crate::check) requests_per_s: f64,
    /// Requests it had at both ends of the sample without finishing one.
    pub(in crate::check) stuck: u64,
}

/// A process that reads from or writes to block devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct User {
    pub(in crate::check) pid: i32,
    pub(in crate::check) comm: Text,
    /// Read, and written.
    pub(in crate::check) bytes_per_s: [f64; 2],
    /// That has in it what children did in all their life, which ended in the sample.
    pub(in crate::check) has_childrens: bool,
}

/// A file that grew while it was watched.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Growing {
    pub(in crate::check) device: (u32, u32),
    pub(in crate::check) pid: u32,
    pub(in crate::check) comm: Text,
    pub(in crate::check) fd: u32,
    pub(in crate::check) path: Text,
    pub(in crate::check) bytes_per_s: f64,
}

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Largest {
    /// Of which mount.
    pub(in crate::check) point: Text,
    /// Directories that are not in each other, the largest first, in bytes with all below.
    pub(in crate::check) directories: Vec<(Text, u64)>,
    /// What all that was seen takes.
    pub(in crate::check) seen_bytes: u64,
    /// It had not seen everything when its time was over.
    pub(in crate::check) is_cut_short: bool,
}

/// Looks at both ends of the sample.
pub(super) fn look(context: &Context) -> RowReport {
    let users = read::diskstats::users();
    let (before, began) = (read::diskstats::counters(), clock::monotonic());
    let seconds = context.wait(began);
    let now = read::diskstats::counters();
    let devices = read::diskstats::rates(&before, &now, seconds);
    let users = read::diskstats::most(&users, &read::diskstats::users(), seconds);
    let list = read::disks::list();
    let (mounts, mut unseen) = read::disks::ask(&list);
    let descriptors = context.descriptors();
    if descriptors.refused > 0 {
        unseen.push(format!(
            "files that grow in {} processes: needs root",
            descriptors.refused
        ));
    }
    let sample_s = context.sample_ns() as f64 / 1e9;
    let mut reading = Reading {
        mounts: judged_once(mounts),
        devices,
        users,
        growing: read::disks::growing(descriptors, sample_s),
        largest: None,
        unseen,
    };
    if context.wants_du {
        reading.largest = walk(&mut reading, &list);
    }
    let report = judge(&reading, &context.limits);
    if reading.mounts.is_empty() {
        return report.blinded("no file system is known: /proc/self/mountinfo");
    }
    report
}

/// Walks the fullest file system of this host; one that is far away may hang for ever.
fn walk(reading: &mut Reading, list: &read::disks::List) -> Option<Largest> {
    let local = |mount: &&Mount| mount.device.0 != 0 || mount.kind.as_str() == "tmpfs";
    let fullest = fullest(reading.mounts.iter().filter(local))?.clone();
    let path = list.path(fullest.device)?;
    let all_points = list.points();
    let found = read::within(WALK + Duration::from_secs(1), move || {
        read::du::walk(&path, &all_points, WALK)
    });
    match found {
        Ok(largest) => Some(Largest {
            point: fullest.point,
            ..largest
        }),
        Err(_) => {
            reading.unseen.push(format!(
                "the largest directories of {}: a directory did not answer",
                fullest.point
            ));
            None
        }
    }
}

/// A mount of overlayfs has the space of what is below it: once is enough.
fn judged_once(mounts: Vec<Mount>) -> Vec<Mount> {
    let mut once: Vec<Mount> = Vec::new();
    let (layers, others): (Vec<_>, Vec<_>) = mounts
        .into_iter()
        .partition(|mount| mount.kind.as_str() == "overlay");
    once.extend(others);
    for layer in layers {
        let same = |mount: &Mount| match (&mount.answer, &layer.answer) {
            (Answer::Space(a), Answer::Space(b)) => {
                (a.total, a.inodes_total) == (b.total, b.inodes_total)
            }
            _ => false,
        };
        if !once.iter().any(same) {
            once.push(layer);
        }
    }
    once
}

/// The one with the greatest part in use.
fn fullest<'a>(mounts: impl Iterator<Item = &'a Mount>) -> Option<&'a Mount> {
    let used = |mount: &'a Mount| match mount.answer {
        Answer::Space(space) if space.total > 0 && !mount.is_read_only => {
            Some((space.used_ratio(), mount))
        }
        _ => None,
    };
    let all = mounts.filter_map(used);
    all.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, m)| m)
}

/// From a reading to a report.
pub(in crate::check) fn judge(reading: &Reading, limits: &Limits) -> RowReport {
    let mut report = RowReport::new(Row::Disks, summary(reading), Vec::new());
    for mount in &reading.mounts {
        mounts::figures(mount, &mut report.figures);
        report
            .findings
            .extend(mounts::judge(mount, reading, limits));
    }
    for device in &reading.devices {
        report.figures.extend(devices::figures(device));
        report
            .findings
            .extend(devices::judge(device, &reading.users, limits));
    }
    if let Some(largest) = &reading.largest {
        add_largest(&mut report, largest);
    }
    report
        .findings
        .sort_by_key(|f| std::cmp::Reverse(f.verdict));
    report.unseen.clone_from(&reading.unseen);
    report
}

fn summary(reading: &Reading) -> String {
    let with_space = |m: &&Mount| matches!(m.answer, Answer::Space(s) if s.total > 0);
    let count = reading.mounts.iter().filter(with_space).count();
    let mounts = match fullest(reading.mounts.iter()) {
        Some(
            mount @ Mount {
                answer: Answer::Space(space),
                ..
            },
        ) => format!(
            "{count} file systems, fullest {}: {:.0} % used, {} left",
            mount.point,
            space.used_ratio() * 100.0,
            bytes(space.left)
        ),
        _ => format!("{count} file systems"),
    };
    let busiest = reading
        .devices
        .iter()
        .max_by(|a, b| a.busy.total_cmp(&b.busy));
    let device = busiest.map(|device| {
        let wait = device.wait_ms.map(|ms| format!(", {ms:.1} ms a request"));
        format!(
            "   {} {:.0} % busy{}",
            device.name,
            device.busy * 100.0,
            wait.unwrap_or_default()
        )
    });
    mounts + &device.unwrap_or_default()
}

/// To the finding of space of that mount; a note of its own where there is none.
fn add_largest(report: &mut RowReport, largest: &Largest) {
    let mut lines: Vec<String> = largest
        .directories
        .iter()
        .map(|(path, size)| format!("{} in {path}", bytes(*size)))
        .collect();
    if largest.is_cut_short {
        lines.push(format!(
            "cut short after {} s: the sizes are at least these, {} were seen",
            WALK.as_secs(),
            bytes(largest.seen_bytes)
        ));
    }
    let of = mounts::space_words(&largest.point);
    let full = report.findings.iter_mut().find(|f| f.what.starts_with(&of));
    if let Some(full) = full {
        full.who.extend(lines);
        return;
    }
    report.findings.push(Finding {
        verdict: Verdict::Note,
        what: format!("the largest directories of {}", largest.point),
        who: lines,
        ..Finding::default()
    });
}

/// Those that grow on a mount.
fn files_on<'a>(
    reading: &'a Reading,
    mount: &Mount,
) -> impl Iterator<Item = &'a Growing> + use<'a> {
    let devices = [mount.device, mount.stat_device];
    let on_it = move |file: &&Growing| devices.contains(&file.device);
    reading.growing.iter().filter(on_it)
}

/// `comm[pid] fd N grows X/s: path` of the fastest of them.
fn growing(reading: &Reading, mount: &Mount) -> Vec<String> {
    files_on(reading, mount)
        .take(NAMED)
        .map(|file| {
            format!(
                "{}[{}] fd {} grows {}/s: {}",
                file.comm,
                file.pid,
                file.fd,
                bytes(file.bytes_per_s as u64),
                file.path
            )
        })
        .collect()
}

/// A figure of a mount, in bytes or a count.
fn number(name: &'static str, mount: &Mount, value: u64) -> Figure {
    figure_of(name, &mount.point, value as f64)
}
