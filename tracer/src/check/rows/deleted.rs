//! Files without a name that are still open: space that comes back only when it is closed.

use std::collections::BTreeMap;

use crate::{
    check::{
        context::Context,
        finding::{Finding, Row, RowReport, Verdict, figure_of},
        limits::{DELETED_BYTES, Limits},
        read,
    },
    render::quantity::{bytes, counted},
    text::Text,
};

/// What a swap area is called here.
pub(in crate::check) const SWAP: &str = "swap";
/// Files that are named for a mount.
const NAMED: usize = 5;

/// A deleted file, with the first descriptor that holds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::check) struct Held {
    /// Where its file system is mounted.
    pub(in crate::check) mount: Text,
    pub(in crate::check) pid: u32,
    /// The thread that the descriptor is seen through: mostly the first one.
    pub(in crate::check) tid: u32,
    pub(in crate::check) fd: u32,
    pub(in crate::check) comm: Text,
    pub(in crate::check) path: Text,
    /// Its length, in bytes.
    pub(in crate::check) size: u64,
    /// What it takes, in bytes: what comes back.
    pub(in crate::check) used: u64,
    /// Other descriptors that hold it too.
    pub(in crate::check) more: u64,
    /// What of the kernel has it, and no process: a loop device, or a swap area.
    pub(in crate::check) by_kernel: Option<Text>,
}

/// Looks.
pub(super) fn look(context: &Context) -> RowReport {
    let (held, unseen) = read::deleted::held(context.descriptors());
    let is_partial = !unseen.is_empty();
    let mut report = RowReport {
        unseen,
        is_partial,
        ..judge(&held, &context.limits)
    };
    if is_partial {
        report.summary += ", as far as could be seen";
    }
    if context.descriptors().are_none() {
        return report.blinded(read::descriptors::NO_PROCESSES);
    }
    report
}

/// From files, each once, to a report.
fn judge(held: &[Held], limits: &Limits) -> RowReport {
    let all: u64 = held.iter().map(|file| file.used).sum();
    let summary = match held.len() {
        0 => "no deleted file is open".to_owned(),
        1 => format!("1 deleted file that is open holds {}", bytes(all)),
        count => format!(
            "{} that are open hold {}",
            counted(count as u64, "deleted file"),
            bytes(all)
        ),
    };
    let mut report = RowReport::new(Row::Deleted, summary, Vec::new());
    let mut by_mount: BTreeMap<&Text, Vec<&Held>> = BTreeMap::new();
    for file in held {
        by_mount.entry(&file.mount).or_default().push(file);
    }
    for (mount, mut files) in by_mount {
        files.sort_by_key(|file| (std::cmp::Reverse(file.used), file.pid, file.fd));
        let used: u64 = files.iter().map(|file| file.used).sum();
        report.figures.extend([
            figure_of("deleted_open_bytes", mount, used as f64),
            figure_of("deleted_open_files", mount, files.len() as f64),
        ]);
        report.findings.extend(finding(mount, used, &files, limits));
    }
    report
        .findings
        .sort_by_key(|f| std::cmp::Reverse(f.verdict));
    report
}

fn finding(mount: &Text, used: u64, files: &[&Held], limits: &Limits) -> Option<Finding> {
    let verdict = limits.judge(&DELETED_BYTES, used as f64);
    let worst = files.first()?;
    if verdict == Verdict::Ok {
        return None;
    }
    let mut who: Vec<String> = files.iter().take(NAMED).map(|file| line(file)).collect();
    let rest = files.len().saturating_sub(NAMED) as u64;
    if rest > 0 {
        who.push(format!("{} more", counted(rest, "file")));
    }
    Some(Finding {
        verdict,
        what: format!(
            "{} of {mount} are held by {} deleted and still open",
            bytes(used),
            counted(files.len() as u64, "file"),
        ),
        who,
        why: limits.why(&DELETED_BYTES),
        next: next(worst),
    })
}

fn next(worst: &Held) -> String {
    match &worst.by_kernel {
        Some(holder) if holder.as_str() == SWAP => "swapon --show; swapoff gives it back".into(),
        Some(device) => format!("losetup -l /dev/{device}; `losetup -d` gives it back"),
        None => format!(
            "restart or reload {}[{}]; or `: > /proc/{}/fd/{}`, which destroys the content",
            worst.comm, worst.pid, worst.tid, worst.fd
        ),
    }
}

/// `comm[pid] fd N holds 200.0 MiB: path`.
fn line(file: &Held) -> String {
    if let Some(holder) = &file.by_kernel {
        let size = bytes(file.used);
        return format!(
            "{holder} holds up to {size}, without a process: deleted {}",
            file.path
        );
    }
    let size = if file.size.abs_diff(file.used) > file.size / 10 {
        format!(" ({} long)", bytes(file.size))
    } else {
        String::new()
    };
    let more = match file.more {
        0 => String::new(),
        more => format!(", and {}", counted(more, "more descriptor")),
    };
    format!(
        "{}[{}] fd {} holds {}{size}: {}{more}",
        file.comm,
        file.pid,
        file.fd,
        bytes(file.used),
        file.path
    )
}

#[cfg(test)]
mod tests {
    use super::{Held, judge};
    use crate::check::{finding::Verdict, limits::Limits};

    const MIB: u64 = 1 << 20;

    fn held(mount: &str, pid: u32, mib: u64) -> Held {
        Held {
            mount: mount.into(),
            pid,
            tid: pid,
            fd: 3,
            comm: "log".into(),
            path: "/var/log/x".into(),
            size: mib * MIB,
            used: mib * MIB,
            more: 0,
            by_kernel: None,
        }
    }

    #[test]
    fn what_is_held_is_judged_by_mount() {
        assert_eq!(judge(&[], &Limits::default()).verdict(), Verdict::Ok);
        // Neither is enough for its mount.
        let little = [held("/", 1, 60), held("/var", 2, 60)];
        let report = judge(&little, &Limits::default());
        assert!(report.findings.is_empty());
        assert_eq!(report.figures.len(), 4);
        let much = [held("/", 1, 60), held("/", 2, 70)];
        let report = judge(&much, &Limits::default());
        assert_eq!(report.figures[0].value, (130 * MIB) as f64);
        assert_eq!(report.figures[1].value, 2.0);
        let [finding] = &report.findings[..] else {
            panic!("{report:?}");
        };
        assert_eq!(finding.verdict, Verdict::Warning);
        assert!(
            finding
                .what
                .starts_with("130.0 MiB of / are held by 2 files")
        );
        assert_eq!(finding.who[0], "log[2] fd 3 holds 70.0 MiB: /var/log/x");
        assert!(finding.next.contains("`: > /proc/2/fd/3`, which destroys"));
    }

    /// Evidence 51: the image of a loop device is deleted.
    #[test]
    fn what_the_kernel_holds_has_no_process() {
        let file = Held {
            by_kernel: Some("loop0".into()),
            path: "/var/tmp/x.img".into(),
            ..held("/", 0, 200)
        };
        let report = judge(&[file], &Limits::default());
        let finding = &report.findings[0];
        assert_eq!(
            finding.who,
            ["loop0 holds up to 200.0 MiB, without a process: deleted /var/tmp/x.img"]
        );
        assert!(finding.next.contains("losetup -d"), "{}", finding.next);
    }

    #[test]
    fn holes_and_other_holders_are_said() {
        let file = Held {
            size: 900 * MIB,
            more: 2,
            ..held("/", 1, 200)
        };
        let report = judge(&[file], &Limits::default());
        assert_eq!(
            report.findings[0].who,
            ["log[1] fd 3 holds 200.0 MiB (900.0 MiB long): /var/log/x, and 2 more descriptors"]
        );
    }
}
