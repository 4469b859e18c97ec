//! What is found of mounts and devices, without either.

use super::{
    Answer, Device, Errors, Growing, Largest, Mount, Reading, Space, User, judge, judged_once,
};
use crate::{
    check::{
        finding::{Finding, RowReport, Verdict},
        limits::Limits,
    },
    clock::WallNs,
};

const GIB: u64 = 1 << 30;

fn space(total: u64, left: u64) -> Answer {
    Answer::Space(Space {
        total,
        used: total - left,
        left,
        inodes_total: 1000,
        inodes_used: 10,
    })
}

fn mount(answer: Answer) -> Mount {
    Mount {
        kind: "ext4".into(),
        source: "/dev/sda1".into(),
        point: "/var".into(),
        device: (8, 1),
        stat_device: (8, 1),
        answer,
        ..Mount::default()
    }
}

fn of(mounts: Vec<Mount>) -> RowReport {
    let reading = Reading {
        mounts,
        ..Reading::default()
    };
    judge(&reading, &Limits::default())
}

fn verdict(answer: Answer) -> Verdict {
    of(vec![mount(answer)]).verdict()
}

fn one(mount: Mount) -> Finding {
    let report = of(vec![mount]);
    let [finding] = &report.findings[..] else {
        panic!("{report:?}");
    };
    finding.clone()
}

#[test]
fn space_counts_by_part_and_on_large_ones_by_what_is_left_too() {
    assert_eq!(verdict(space(10 * GIB, 2 * GIB)), Verdict::Ok);
    assert_eq!(verdict(space(10 * GIB, GIB)), Verdict::Warning);
    assert_eq!(verdict(space(10 * GIB, GIB / 5)), Verdict::Critical);
    assert_eq!(verdict(space(10_000 * GIB, 100 * GIB)), Verdict::Ok);
    assert_eq!(verdict(space(10_000 * GIB, 9 * GIB)), Verdict::Warning);
    assert_eq!(verdict(space(10_000 * GIB, GIB)), Verdict::Critical);
    // 60 % are left, and it is little: the part decides.
    assert_eq!(verdict(space(100 * GIB, 60 * GIB)), Verdict::Ok);
    // What has no space at all is not full.
    assert_eq!(verdict(space(0, 0)), Verdict::Ok);
}

#[test]
fn who_fills_it_is_named_with_the_time_that_is_left() {
    let grows = |device, pid, mib: f64| Growing {
        device,
        pid,
        comm: "log".into(),
        fd: 3,
        path: "/var/log/x".into(),
        bytes_per_s: mib * 1024.0 * 1024.0,
    };
    let mut reading = Reading {
        mounts: vec![mount(space(10 * GIB, GIB / 2))],
        growing: vec![grows((8, 2), 1, 90.0), grows((8, 1), 7, 8.0)],
        ..Reading::default()
    };
    let report = judge(&reading, &Limits::default());
    let [finding] = &report.findings[..] else {
        panic!("{report:?}");
    };
    assert_eq!(finding.who, ["log[7] fd 3 grows 8.0 MiB/s: /var/log/x"]);
    assert_eq!(
        finding.what,
        "/var is full to 95.0 %, 512.0 MiB of 10.0 GiB left; at this rate none in 1 m 4 s"
    );
    // btrfs: files have another device than the mount.
    reading.mounts[0].stat_device = (8, 2);
    let report = judge(&reading, &Limits::default());
    assert_eq!(report.findings[0].who.len(), 2);
}

#[test]
fn inodes_run_out_with_space_left() {
    let answer = Answer::Space(Space {
        total: GIB,
        left: GIB,
        used: 0,
        inodes_total: 100,
        inodes_used: 99,
    });
    let finding = one(mount(answer));
    assert_eq!(finding.verdict, Verdict::Critical);
    assert!(finding.what.starts_with("/var has 1 of 100 inodes left"));
}

#[test]
fn read_only_on_purpose_is_fine_and_by_the_kernel_is_not() {
    let full = || mount(space(10 * GIB, 0));
    let on_purpose = Mount {
        is_read_only: true,
        is_super_read_only: true,
        ..full()
    };
    assert!(of(vec![on_purpose.clone()]).findings.is_empty());
    let to_be_written = Mount {
        is_to_be_written: true,
        ..on_purpose
    };
    let finding = one(to_be_written);
    assert_eq!(finding.verdict, Verdict::Warning);
    assert!(finding.what.contains("/etc/fstab"));
    let healthy = || mount(space(10 * GIB, 9 * GIB));
    for turned in [
        Mount {
            is_super_read_only: true,
            ..healthy()
        },
        Mount {
            has_given_up: true,
            ..healthy()
        },
    ] {
        let finding = one(turned);
        assert_eq!(finding.verdict, Verdict::Critical);
        assert!(finding.what.contains("made read-only by the kernel"));
    }
    let layered = Mount {
        is_super_read_only: true,
        kind: "overlay".into(),
        ..healthy()
    };
    assert!(of(vec![layered]).findings.is_empty());
}

#[test]
fn errors_of_the_file_system_and_servers_that_are_gone() {
    let damaged = Mount {
        errors: Some(Errors {
            count: 2,
            function: "ext4_lookup".into(),
            last: WallNs(1_700_000_000_000_000_000),
        }),
        ..mount(space(10 * GIB, 9 * GIB))
    };
    let refuses = Mount {
        is_read_only_after_errors: true,
        ..damaged.clone()
    };
    assert!(one(refuses).why.contains("writes fail"));
    let finding = one(damaged);
    assert_eq!(finding.verdict, Verdict::Warning);
    assert!(!finding.why.contains("writes fail"));
    assert!(finding.what.contains("2 errors"), "{}", finding.what);
    assert!(finding.what.contains("2023-11-14T22:13:20"));
    let far = |answer| Mount {
        kind: "fuse.sshfs".into(),
        ..mount(answer)
    };
    let finding = one(far(Answer::Silent));
    assert_eq!(finding.verdict, Verdict::Critical);
    assert_eq!(finding.what, "FUSE mount /var does not answer");
    let finding = one(far(Answer::Dead("not connected".into())));
    assert_eq!(finding.what, "FUSE mount /var is dead: not connected");
}

#[test]
fn layers_over_a_file_system_that_is_there_are_not_counted_again() {
    let layer = |left| Mount {
        kind: "overlay".into(),
        ..mount(space(10 * GIB, left))
    };
    // What changes between two questions makes no difference.
    let all = vec![layer(GIB), mount(space(10 * GIB, 2 * GIB)), layer(3 * GIB)];
    assert_eq!(judged_once(all).len(), 1);
    let alone = vec![layer(GIB), layer(GIB), mount(space(9 * GIB, GIB))];
    assert_eq!(judged_once(alone).len(), 2);
}

#[test]
fn devices_are_busy_slow_or_stuck() {
    let found = |device: Device| {
        let reading = Reading {
            devices: vec![device],
            ..Reading::default()
        };
        let report = judge(&reading, &Limits::default());
        let findings = report.findings.iter();
        findings.map(|f| f.what.clone()).collect::<Vec<_>>()
    };
    let device = |busy, ms, per_s| Device {
        name: "sda".into(),
        busy,
        wait_ms: Some(ms),
        requests_per_s: per_s,
        reads_per_s: per_s,
        ..Device::default()
    };
    assert_eq!(found(device(0.5, 1.0, 100.0)), [""; 0]);
    assert_eq!(
        found(device(0.9, 9.0, 100.0)),
        ["sda is 90 % busy: 100/s reads, 0/s writes"]
    );
    // It serves many at once, and nobody waits.
    let quick = Reading {
        devices: vec![device(0.9, 0.2, 40_000.0)],
        ..Reading::default()
    };
    assert_eq!(judge(&quick, &Limits::default()).verdict(), Verdict::Note);
    assert_eq!(
        found(device(0.5, 60.0, 5.0)),
        ["sda takes 60 ms for a request: 5.0/s reads, 0/s writes"]
    );
    // Four requests say nothing.
    assert_eq!(found(device(0.5, 60.0, 4.0)), [""; 0]);
    let reading = Reading {
        devices: vec![device(0.9, 1.0, 100.0)],
        users: vec![User {
            pid: 7,
            comm: "dd".into(),
            bytes_per_s: [0.0, 1024.0],
            has_childrens: false,
        }],
        ..Reading::default()
    };
    let report = judge(&reading, &Limits::default());
    assert_eq!(
        report.findings[0].who,
        ["dd[7] reads 0 B/s, writes 1.0 KiB/s"]
    );
    let stuck = Device {
        stuck: 3,
        wait_ms: None,
        ..device(1.0, 0.0, 0.0)
    };
    assert_eq!(
        found(stuck),
        ["sda has 3 requests and finished none while it was watched"]
    );
}

#[test]
fn the_largest_directories_stand_with_what_is_full() {
    let mut reading = Reading {
        mounts: vec![mount(space(10 * GIB, GIB / 2))],
        largest: Some(Largest {
            point: "/var".into(),
            directories: vec![("/var/log".into(), 8 * GIB)],
            seen_bytes: 9 * GIB,
            is_cut_short: true,
        }),
        ..Reading::default()
    };
    let report = judge(&reading, &Limits::default());
    let [finding] = &report.findings[..] else {
        panic!("{report:?}");
    };
    assert_eq!(finding.who[0], "8.0 GiB in /var/log");
    assert!(finding.who[1].contains("cut short after 10 s"));
    reading.mounts = vec![mount(space(10 * GIB, 9 * GIB))];
    let report = judge(&reading, &Limits::default());
    assert_eq!(report.verdict(), Verdict::Note);
}
