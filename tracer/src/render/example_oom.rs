//! Memory of a host in trouble: a cgroup at its limit, one killed whole, and names that
//! mean harm.

use crate::{
    clock::WallNs,
    snapshot::{
        Candidate, CgroupMemory, HostMemory, Kill, KillKind, KillScope, Named, OomBreakdown,
        ProcessMemory,
    },
    text::Text,
};

const MIB: u64 = 1 << 20;
const S: u64 = 1_000_000_000;
/// 2026-11-24 12:00:00 UTC.
const NOON: u64 = 1_795_521_600 * S;

fn process(pid: u32, comm: &str, mib: u64, adj: i32) -> ProcessMemory {
    ProcessMemory {
        pid,
        comm: comm.into(),
        user: Some("app".into()),
        cgroup: Some("/api.slice/api.service".into()),
        anon_rss_bytes: mib * MIB,
        file_rss_bytes: 12 * MIB,
        shmem_rss_bytes: 0,
        swap_bytes: Some(3 * MIB),
        page_table_bytes: mib * MIB / 512,
        oom_score_adj: adj,
    }
}

fn java() -> Candidate {
    Candidate {
        process: process(771, "java", 5_200, 300),
        oom_score: 812,
    }
}

fn named(pid: u32, comm: &str) -> Named {
    Named {
        pid,
        comm: comm.into(),
    }
}

/// For the limit of a cgroup, with others; the table is of that moment.
pub(crate) fn of_cgroup() -> Kill {
    Kill {
        time: WallNs(NOON),
        kind: KillKind::Oom,
        is_past: false,
        is_from_log: false,
        victim: process(991, "api", 1_900, 0),
        points: Some(1_301),
        trigger: Some(named(993, "api-worker")),
        trigger_cgroup: Some("/api.slice/api.service".into()),
        scope: Some(KillScope::Memcg),
        memcg: Some("/api.slice".into()),
        limit_bytes: Some(2_048 * MIB),
        usage_bytes: Some(2_047 * MIB),
        order: Some(0),
        group: vec![named(992, "helper"), named(993, "api-worker")],
        sharing: vec![named(998, "\x1b[2Jtwin")],
        others: vec![java()],
        is_table_of_log: true,
        stack: vec![
            "oom_kill_process".into(),
            "out_of_memory".into(),
            "mem_cgroup_out_of_memory".into(),
        ],
    }
}

/// One by a process, one on its way out, one of the log.
pub(crate) fn others() -> [Kill; 3] {
    [
        Kill {
            time: WallNs(NOON - 2 * S),
            kind: KillKind::Signal,
            victim: ProcessMemory {
                cgroup: None,
                ..process(1_204, "batch", 800, 0)
            },
            trigger: Some(named(402, "systemd-oomd")),
            ..Kill::default()
        },
        Kill {
            time: WallNs(NOON - 3 * S),
            kind: KillKind::Exiting,
            victim: process(1_300, "cron", 3, -17),
            trigger: Some(named(1_300, "cron")),
            scope: Some(KillScope::Host),
            order: Some(3),
            ..Kill::default()
        },
        Kill {
            time: WallNs(NOON - 4_000 * S),
            is_past: true,
            is_from_log: true,
            victim: ProcessMemory {
                comm: Text::from_bytes(b"\x1b[2Jcart\n"),
                user: None,
                swap_bytes: None,
                ..process(4_194_304, "", 12, 0)
            },
            ..Kill::default()
        },
    ]
}

pub(crate) fn oom() -> OomBreakdown {
    let [signal, exiting, past] = others();
    OomBreakdown {
        memory: Some(HostMemory {
            total_bytes: 16_384 * MIB,
            available_bytes: 3_100 * MIB,
            swap_total_bytes: 2_048 * MIB,
            swap_free_bytes: 17 * MIB,
            oom_kills: Some(4),
        }),
        kills: vec![exiting.clone(), signal.clone(), of_cgroup()],
        recent: vec![of_cgroup(), signal, exiting, past],
        killed: 3,
        signalled: 1,
        next: vec![
            java(),
            Candidate {
                process: ProcessMemory {
                    cgroup: Some("/kubepods.slice/pod\u{202e}0123".into()),
                    swap_bytes: Some(0),
                    ..process(2_211, "mysqld", 4_100, -500)
                },
                oom_score: 410,
            },
        ],
        cgroups: vec![
            CgroupMemory {
                path: "/api.slice".into(),
                limit_bytes: 2_048 * MIB,
                usage_bytes: 1_864 * MIB,
                used_ratio: 0.91,
                left_bytes: 184 * MIB,
                is_killed_whole: true,
                oom_kills: Some(4),
                next: Some(java()),
            },
            CgroupMemory {
                path: "/idle.slice".into(),
                limit_bytes: 512 * MIB,
                usage_bytes: 0,
                used_ratio: 0.0,
                left_bytes: 512 * MIB,
                ..CgroupMemory::default()
            },
        ],
        cgroups_total: 7,
    }
}
