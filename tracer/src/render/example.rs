//! A host in trouble, as a model: what the tests of the outputs show.

use super::{
    example_oom::oom,
    example_syn::syn,
    example_tcp::{tcp, tcp_of_run},
};
use crate::{
    clock::{MonotonicNs, WallNs},
    snapshot::{
        BlockedStack, BlockedTask, CauseLengths, CauseRow, CauseShare, DeviceRow, Group, GroupBy,
        HookState, Host, KernelSample, LENGTH_BUCKETS, Link, LoadBreakdown, LongEpisode, Lost,
        OtherGroups, OwnCost, Queue, Role, Rows, Snapshot, Start, Subject, Summary, TaskMean,
        Verdict, Waiter,
    },
    text::Text,
};

const S: u64 = 1_000_000_000;

pub(crate) fn start() -> Start {
    Start {
        version: "0.1.0",
        host: Host {
            cpus: 16,
            kernel: "6.12.117".into(),
            hostname: "db-7".into(),
        },
        interval_ns: S,
        by: GroupBy::Process,
        rows: Rows::Groups,
        subject: Subject::All,
        matrix: false,
        next: false,
        hooks: vec![
            HookState {
                name: "sched_switch",
                via: "tp_btf".to_owned(),
                why: None,
                without: "blocked time",
            },
            HookState {
                name: "hrtimer_expire_exit",
                via: "tp_btf".to_owned(),
                why: Some("no such tracepoint in this kernel".to_owned()),
                without: "names of tasks that stopped running between the kernel's sample and the \
                          next snapshot",
            },
        ],
        notes: vec!["this pid namespace is not the host's: only its own tasks are seen".to_owned()],
    }
}

fn group(pid: u32, comm: &str, threads: u64, load: [f64; 3], mean: [f64; 4]) -> Group {
    Group {
        pid: Some(pid),
        comm: Some(comm.into()),
        cgroup: Some(format!("/system.slice/{comm}.service").as_str().into()),
        user: Some(comm.into()),
        threads,
        load,
        mean: task_mean(mean),
        ..Group::default()
    }
}

fn task_mean([running, waiting, throttled, blocked]: [f64; 4]) -> TaskMean {
    TaskMean {
        running,
        waiting,
        throttled,
        blocked,
    }
}

pub(crate) fn groups() -> Vec<Group> {
    vec![
        Group {
            episodes: 841,
            causes: vec![
                share("disk", Some("vdb ext4 read /data"), 8.1),
                share("mmap_lock", Some("mmap held by mysqld[2211]"), 1.7),
                share("journal", Some("vdb ext4 sync /data"), 0.904),
                share("brief", None, 0.196),
            ],
            ..group(
                2211,
                "mysqld",
                14,
                [11.8, 7.2, 3.1],
                [0.11, 0.02, 0.0, 10.9],
            )
        },
        Group {
            pid: None,
            exited: 40,
            made_by: Some((990, "php-fpm".into())),
            threads: 0,
            ..group(0, "php-fpm", 0, [2.31, 1.1, 0.4], [2.2, 0.11, 0.0, 0.0])
        },
        Group {
            exited: 3,
            ..group(991, "api", 212, [1.5, 1.2, 0.9], [0.5, 0.6, 0.8, 0.0])
        },
        Group {
            is_kernel: true,
            causes: vec![share("disk", Some("vda write"), 1.7)],
            cgroup: Some("/".into()),
            user: Some("root".into()),
            ..group(
                412,
                "jbd2/vda-8",
                1,
                [1.004, 0.7, 0.2],
                [0.003, 0.0, 0.0, 1.7],
            )
        },
    ]
}

fn share(cause: &'static str, detail: Option<&str>, blocked: f64) -> CauseShare {
    CauseShare {
        cause,
        detail: detail.map(Text::from),
        blocked,
    }
}

fn waiter(pid: Option<u32>, name: &str, blocked: f64) -> Waiter {
    Waiter {
        pid,
        name: name.into(),
        blocked,
    }
}

/// What all tasks are blocked by; adds up to 12.6.
pub(crate) fn causes() -> Vec<CauseRow> {
    let mysqld = |blocked| waiter(Some(2211), "mysqld", blocked);
    let row = |share: CauseShare, device: Option<&str>, waiters: Vec<Waiter>| CauseRow {
        cause: share.cause,
        detail: share.detail,
        device: device.map(Text::from),
        blocked: share.blocked,
        waiters_total: waiters.len() as u64,
        waiters,
    };
    vec![
        row(
            share("disk", Some("vdb ext4 read /data"), 8.1),
            Some("vdb"),
            vec![mysqld(8.1), waiter(Some(731), "node_exporter", 0.001)],
        ),
        row(
            share("mmap_lock", Some("mmap held by mysqld[2211]"), 1.7),
            None,
            vec![mysqld(1.7)],
        ),
        row(
            share("disk", Some("vda write"), 1.7),
            Some("vda"),
            vec![waiter(Some(412), "jbd2/vda-8", 1.7)],
        ),
        row(
            share("journal", Some("vdb ext4 sync /data"), 0.904),
            Some("vdb"),
            vec![mysqld(0.904)],
        ),
        CauseRow {
            waiters_total: 24,
            ..row(
                share("brief", None, 0.196),
                None,
                vec![mysqld(0.18), waiter(None, "php-fpm", 0.016)],
            )
        },
        row(
            share("unknown", Some("sync_inodes_one"), 0.001),
            None,
            vec![],
        ),
    ]
}

/// The same by device.
pub(crate) fn devices() -> Vec<DeviceRow> {
    let row = |device: Option<&str>, blocked, waiters: Vec<Waiter>| DeviceRow {
        device: device.map(Text::from),
        blocked,
        waiters_total: waiters.len() as u64,
        waiters,
    };
    let mysqld = |blocked| waiter(Some(2211), "mysqld", blocked);
    vec![
        row(Some("vdb"), 9.004, vec![mysqld(9.004)]),
        row(
            None,
            1.896,
            vec![mysqld(1.88), waiter(None, "php-fpm", 0.016)],
        ),
        row(Some("vda"), 1.7, vec![waiter(Some(412), "jbd2/vda-8", 1.7)]),
    ]
}

fn lengths() -> Vec<CauseLengths> {
    let lengths = |cause, from: usize, counts: &[u64]| {
        let mut buckets = [0; LENGTH_BUCKETS];
        buckets
            .iter_mut()
            .skip(from)
            .zip(counts)
            .for_each(|(bucket, count)| *bucket = *count);
        CauseLengths {
            cause,
            episodes: counts.iter().sum(),
            buckets,
        }
    };
    vec![
        lengths(
            "disk",
            9,
            &[120, 3_480, 20_111, 4_420, 1_001, 240, 31, 0, 2],
        ),
        lengths("journal", 13, &[77, 51, 4]),
        lengths("mmap_lock", 27, &[1]),
    ]
}

/// mysqld: a thread that reads holds the lock which two others want.
fn blocked() -> Vec<BlockedTask> {
    const READ: [&str; 6] = [
        "folio_wait_bit_common",
        "filemap_get_pages",
        "filemap_read",
        "vfs_read",
        "ksys_pread64",
        "do_syscall_64",
    ];
    let stack = |frames: &[&str]| frames.iter().map(|frame| Text::from(*frame)).collect();
    let reader = Link {
        sleeps_in: None,
        pid: 2211,
        tid: 2290,
        comm: "mysqld".into(),
        role: Role::Holder,
        cause: Some("disk"),
        detail: Some("vdb ext4 page fault /data".into()),
    };
    let waits_for_reader = BlockedTask {
        pid: 2211,
        tid: 2301,
        comm: "mysqld".into(),
        age_ns: 3_200_000_000,
        cause: "mmap_lock",
        detail: Some("mmap held by mysqld[2211]".into()),
        stack: stack(&["vm_mmap_pgoff", "ksys_mmap_pgoff", "do_syscall_64"]),
        waits_for: vec![reader.clone()],
    };
    vec![
        BlockedTask {
            pid: 2211,
            tid: 2290,
            comm: "mysqld".into(),
            age_ns: 252 * S,
            cause: "disk",
            detail: reader.detail.clone(),
            stack: stack(&READ),
            waits_for: Vec::new(),
        },
        waits_for_reader.clone(),
        BlockedTask {
            tid: 2302,
            age_ns: 3_100_000_000,
            ..waits_for_reader
        },
        BlockedTask {
            pid: 412,
            tid: 412,
            comm: "jbd2/vda-8".into(),
            age_ns: 850_000_000,
            cause: "disk",
            detail: Some("vda write".into()),
            stack: stack(&READ[..1]),
            waits_for: Vec::new(),
        },
        BlockedTask {
            pid: 77,
            tid: 77,
            comm: "make".into(),
            age_ns: 41_000_000,
            cause: "vfork",
            detail: None,
            stack: stack(&["wait_for_vfork_done", "kernel_clone", "do_syscall_64"]),
            waits_for: vec![Link {
                sleeps_in: None,
                pid: 78,
                tid: 78,
                comm: "sh".into(),
                role: Role::Child,
                cause: None,
                detail: None,
            }],
        },
        BlockedTask {
            pid: 2211,
            tid: 2291,
            comm: "mysqld".into(),
            age_ns: 3_200_000,
            cause: "unknown",
            ..BlockedTask::default()
        },
    ]
}

fn lost() -> Vec<Lost> {
    vec![
        Lost {
            reason: "ring_full",
            count: 0,
            meaning: "episodes that are not listed",
        },
        Lost {
            reason: "storage_busy",
            count: 1_204,
            meaning: "blocked episodes whose begin is known only from the time the task last ran",
        },
    ]
}

fn own() -> OwnCost {
    OwnCost {
        cpu_ratio: 0.003,
        bpf_ns: Some(1_200_000),
        rss_bytes: 9_542_042,
        map_bytes: 524_288,
    }
}

pub(crate) fn snapshot() -> Snapshot {
    let sample = KernelSample {
        at: MonotonicNs(7 * S),
        time: WallNs(1_795_439_120 * S + 4_000_000),
        active: 17,
        named: 16,
    };
    Snapshot {
        time: WallNs(1_795_439_121 * S + 123_456_789),
        interval_ns: S + 42,
        uptime_s: 41 * 86_400 + 3 * 3_600 + 59,
        cpus: 16,
        load: LoadBreakdown {
            averages: [18.42, 12.1, 6.310_000_4],
            per_cpu: 1.151_25,
            samples: vec![sample],
            last_sample: Some(sample),
            next_sample_in_ns: Some(3_240_000_000),
            mean: task_mean([3.9, 1.2, 0.8, 12.6]),
            groups: groups(),
            before_start: [0.31, 1.0, 1.5],
            unexplained: [0.02, -0.01, 0.0],
            delayed: [0.5, 0.2, 0.0],
            other: OtherGroups {
                groups: 131,
                mean: task_mean([1.087, 0.47, 0.0, 0.0]),
                load: [0.98, 0.71, 0.21],
            },
            verdict: Verdict::MostlyBlocked,
            leaked: Some(1),
        },
        blocked: blocked(),
        blocked_total: 14,
        queues: vec![Queue {
            is_circle: false,
            root: blocked()[1].waits_for[0].clone(),
            cause: "mmap_lock",
            waiting: 2,
        }],
        causes: causes(),
        devices: devices(),
        lengths: lengths(),
        tcp: tcp(),
        syn: syn(),
        oom: oom(),
        lost: lost(),
        hooks_in_force: (3, 4),
        own: own(),
    }
}

pub(crate) fn summary() -> Summary {
    let episode = |tid, length_ns, began_ago_ns, is_open| LongEpisode {
        pid: 2211,
        tid,
        comm: "mysqld".into(),
        length_ns,
        began_ago_ns,
        is_open,
    };
    Summary {
        duration_ns: 30 * S,
        snapshots: 30,
        mean: task_mean([3.9, 1.2, 0.8, 12.6]),
        averages: [18.42, 12.1, 6.31],
        groups: groups(),
        episodes: vec![
            episode(2290, 252 * S, 252 * S, true),
            episode(2291, 850_000_000, 12 * S, false),
        ],
        causes: causes(),
        devices: devices(),
        lengths: lengths(),
        samples: 6,
        samples_named: 5,
        sample_error: 1.0 / 6.0,
        exited: 43,
        tcp: tcp_of_run(),
        syn: syn(),
        oom: oom(),
        lost: lost(),
        own: own(),
    }
}

/// A stack with its frames innermost first.
pub(crate) fn blocked_stack(
    comm: &str,
    cause: &'static str,
    detail: Option<&str>,
    frames: &[&str],
    blocked_ns: u64,
) -> BlockedStack {
    BlockedStack {
        pid: Some(2211),
        comm: comm.into(),
        cause,
        detail: detail.map(Into::into),
        frames: frames.iter().map(|&frame| frame.into()).collect(),
        blocked_ns,
    }
}

/// Who was blocked, and where.
pub(crate) fn blocked_stacks() -> Vec<BlockedStack> {
    const READ: [&str; 9] = [
        "io_schedule",
        "folio_wait_bit_common",
        "filemap_get_pages",
        "filemap_read",
        "ext4_file_read_iter",
        "vfs_read",
        "ksys_pread64",
        "do_syscall_64",
        "entry_SYSCALL_64_after_hwframe",
    ];
    const FSYNC: [&str; 6] = [
        "jbd2_log_wait_commit",
        "ext4_sync_file",
        "do_fsync",
        "__x64_sys_fsync",
        "do_syscall_64",
        "entry_SYSCALL_64_after_hwframe",
    ];
    const MMAP: [&str; 5] = [
        "rwsem_down_write_slowpath",
        "down_write_killable",
        "vm_mmap_pgoff",
        "do_syscall_64",
        "entry_SYSCALL_64_after_hwframe",
    ];
    const FAULT: [&str; 5] = [
        "io_schedule",
        "folio_wait_bit_common",
        "filemap_fault",
        "exc_page_fault",
        "asm_exc_page_fault",
    ];
    let disk = Some("vdb ext4 read");
    let stack = blocked_stack;
    let mut stacks = vec![
        stack("mysqld", "disk", disk, &READ, 141 * S),
        stack("mysqld", "disk", disk, &FAULT, 31 * S),
        stack("mysqld", "disk", Some("vda ext4 read"), &READ[..8], 9 * S),
        stack("mysqld", "journal", Some("vdb ext4"), &FSYNC, 52 * S),
        stack("mysqld", "lock", Some("mmap_lock"), &MMAP, 17 * S),
        stack("mysqld", "unknown", None, &[], 700_000_000),
        stack("rsync <&> 7", "disk", disk, &READ, 12_345_678_901),
        stack("rsync <&> 7", "writeback throttle", Some("vdb"), &[], 8 * S),
        stack(
            "漢字;漢字",
            "network file system",
            Some("10.0.0.1:/srv"),
            &["rpc_wait_bit_killable"],
            6 * S,
        ),
        stack("jbd2/vda-8", "disk", Some("vda write"), &FAULT[..2], 3 * S),
        stack(
            "dd",
            "disk",
            None,
            &["balance_dirty_pages 7"],
            40 * S / 1_000_000,
        ),
    ];
    let again = stacks[0].clone();
    stacks.push(BlockedStack {
        pid: Some(2300),
        blocked_ns: S / 2,
        ..again
    });
    stacks
}
