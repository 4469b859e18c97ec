//! A mount: its space, its inodes, whether it can be written and answers.

use super::{Answer, Mount, Reading, Space, files_on, growing, number};
use crate::{
    check::{
        finding::{Figure, Finding, Verdict, figure_of},
        limits::{DISK_LEFT, DISK_SPACE, INODES, Limits},
    },
    render::{
        quantity::{age, bytes, counted, grouped},
        time::rfc3339,
    },
    text::Text,
};

/// Above this size it also counts how much is left.
const LARGE: u64 = 20 << 30;

/// The figures of a mount.
pub(super) fn figures(mount: &Mount, figures: &mut Vec<Figure>) {
    let Answer::Space(space) = mount.answer else {
        return;
    };
    if space.total > 0 {
        figures.push(number("disk_total_bytes", mount, space.total));
        figures.push(number("disk_used_bytes", mount, space.used));
        figures.push(number("disk_left_bytes", mount, space.left));
        let used = space.used_ratio();
        figures.push(figure_of("disk_used_ratio", &mount.point, used));
    }
    if space.inodes_total > 0 {
        figures.push(number("inodes_total", mount, space.inodes_total));
        figures.push(number("inodes_used", mount, space.inodes_used));
        let used = space.inodes_ratio();
        figures.push(figure_of("inodes_used_ratio", &mount.point, used));
    }
}

/// What is wrong with a mount.
pub(super) fn judge(mount: &Mount, reading: &Reading, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &mount.answer {
        Answer::Silent => findings.push(silent(mount)),
        Answer::Dead(error) => findings.push(dead(mount, error)),
        // Who made it read-only does not wait for it to fill.
        Answer::Space(space) if !mount.is_read_only => {
            findings.extend(space_of(mount, space, reading, limits));
            findings.extend(inodes(mount, space, limits));
        }
        Answer::Space(_) => {}
    }
    findings.extend(read_only(mount));
    findings.extend(errors(mount));
    findings
}

/// How a finding of space begins.
pub(super) fn space_words(point: &Text) -> String {
    format!("{point} is full to ")
}

fn space_of(mount: &Mount, space: &Space, reading: &Reading, limits: &Limits) -> Option<Finding> {
    if space.total == 0 {
        return None;
    }
    let used = space.used_ratio();
    let by_part = limits.judge(&DISK_SPACE, used);
    let by_left = limits.judge(&DISK_LEFT, space.left as f64);
    let is_large = space.total > LARGE;
    let verdict = if is_large {
        by_part.min(by_left)
    } else {
        by_part
    };
    if verdict == Verdict::Ok {
        return None;
    }
    let mut what = format!(
        "{}{:.1} %, {} of {} left",
        space_words(&mount.point),
        used * 100.0,
        bytes(space.left),
        bytes(space.total)
    );
    if mount.kind.as_str() == "tmpfs" {
        what += ", of memory";
    }
    let per_s: f64 = files_on(reading, mount).map(|file| file.bytes_per_s).sum();
    if per_s >= 1.0 && space.left > 0 {
        let left_ns = space.left as f64 / per_s * 1e9;
        what += &format!("; at this rate none in {}", age(left_ns as u64));
    }
    let why = if is_large {
        format!("{}; {}", limits.why(&DISK_SPACE), limits.why(&DISK_LEFT))
    } else {
        limits.why(&DISK_SPACE)
    };
    Some(Finding {
        verdict,
        what,
        who: growing(reading, mount),
        why,
        next: "sudo tracer check --only disks,deleted --du".to_owned(),
    })
}

fn inodes(mount: &Mount, space: &Space, limits: &Limits) -> Option<Finding> {
    let verdict = limits.judge(&INODES, space.inodes_ratio());
    (space.inodes_total > 0 && verdict > Verdict::Ok).then(|| Finding {
        verdict,
        what: format!(
            "{} has {} of {} inodes left, {:.1} % are used",
            mount.point,
            grouped(space.inodes_total.saturating_sub(space.inodes_used)),
            grouped(space.inodes_total),
            space.inodes_ratio() * 100.0
        ),
        why: limits.why(&INODES),
        next: format!(
            "du --inodes -x -d 3 {} | sort -n | tail",
            quoted(&mount.point)
        ),
        ..Finding::default()
    })
}

/// As one word of a shell. What was made safe to print may not be the name any more.
fn quoted(path: &Text) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@".contains(&b);
    if path.as_str().bytes().all(is_plain) {
        path.to_string()
    } else {
        format!("'{}'", path.as_str().replace('\'', r"'\''"))
    }
}

/// `FUSE mount /mnt/x`.
fn named(mount: &Mount) -> String {
    let kind = mount.kind.as_str();
    let kind = match kind.split_once('.').map_or(kind, |(base, _)| base) {
        "fuse" | "fuseblk" => "FUSE",
        "nfs" | "nfs4" => "NFS",
        _ => kind,
    };
    format!("{kind} mount {}", mount.point)
}

fn source(mount: &Mount) -> Vec<String> {
    if mount.source.as_str().is_empty() {
        return Vec::new();
    }
    vec![format!("{} ({})", mount.source, mount.kind)]
}

fn silent(mount: &Mount) -> Finding {
    Finding {
        verdict: Verdict::Critical,
        what: format!("{} does not answer", named(mount)),
        who: source(mount),
        why: "statfs did not return within 1 s: whoever uses it waits, and may not be killed"
            .to_owned(),
        next: "sudo tracer run --by cause".to_owned(),
    }
}

fn dead(mount: &Mount, error: &str) -> Finding {
    Finding {
        verdict: Verdict::Warning,
        what: format!("{} is dead: {error}", named(mount)),
        who: source(mount),
        why: "whoever served it is gone: all that is done with it fails".to_owned(),
        next: format!("umount -l {}", quoted(&mount.point)),
    }
}

/// Read-only although it should not be. An administrator's `remount,ro` makes both the
/// mount and the file system read-only, the kernel after an error the file system alone.
fn read_only(mount: &Mount) -> Option<Finding> {
    // One without a layer to write to is read-only from the begin.
    let is_layered = mount.kind.as_str() == "overlay";
    let has_turned = mount.is_super_read_only && !mount.is_read_only && !is_layered;
    let (verdict, what, why) = if mount.has_given_up || has_turned {
        (
            Verdict::Critical,
            "has been made read-only by the kernel",
            "it does so after errors of the file system or its device: every write fails",
        )
    } else if mount.is_read_only && mount.is_to_be_written {
        (
            Verdict::Warning,
            "is read-only, and /etc/fstab says that it is not",
            "somebody made it so by hand, or it could not be mounted otherwise",
        )
    } else {
        return None;
    };
    Some(Finding {
        verdict,
        what: format!("{} {what}", mount.point),
        who: source(mount),
        why: why.to_owned(),
        next: "sudo tracer check --only kernel --all".to_owned(),
    })
}

/// With `errors=remount-ro` a kernel before 6.15 may refuse writes and show it nowhere: it
/// sets SB_RDONLY no more, and `emergency_ro` not yet (seen in Debian's 6.1 and 6.12).
fn errors(mount: &Mount) -> Option<Finding> {
    let errors = mount.errors.as_ref()?;
    let is_hidden = mount.is_read_only_after_errors && read_only(mount).is_none();
    let refuses = if is_hidden {
        "; it has errors=remount-ro: if the last came since it was mounted, writes fail, at \
         fsync at the latest"
    } else {
        ""
    };
    (errors.count > 0).then(|| Finding {
        verdict: Verdict::Warning,
        what: format!(
            "{} keeps {} in its superblock, the last of {} in {}",
            mount.point,
            counted(errors.count, "error"),
            rfc3339(errors.last),
            errors.function
        ),
        who: source(mount),
        why: format!("the file system was found damaged, and has not been checked since{refuses}"),
        next: format!("e2fsck -f {}, once it is unmounted", quoted(&mount.source)),
    })
}
