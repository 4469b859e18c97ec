//! Any memory and kills, for what holds of every model.

use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any, prop_oneof},
};

use super::properties::{detail, name};
use crate::{
    clock::WallNs,
    snapshot::{
        Candidate, CgroupMemory, HostMemory, Kill, KillKind, KillScope, Named, OomBreakdown,
        ProcessMemory,
    },
};

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..1_000_000_000_u64, any::<u64>()]
}

fn process() -> impl Strategy<Value = ProcessMemory> {
    let names = (name(), detail(), detail());
    (
        any::<u32>(),
        names,
        size(),
        option::of(size()),
        any::<i32>(),
    )
        .prop_map(
            |(pid, (comm, user, cgroup), bytes, swap_bytes, oom_score_adj)| ProcessMemory {
                pid,
                comm,
                user,
                cgroup,
                anon_rss_bytes: bytes,
                file_rss_bytes: bytes,
                shmem_rss_bytes: 0,
                swap_bytes,
                page_table_bytes: bytes,
                oom_score_adj,
            },
        )
}

fn candidate() -> impl Strategy<Value = Candidate> {
    (process(), any::<u32>()).prop_map(|(process, oom_score)| Candidate { process, oom_score })
}

fn named() -> impl Strategy<Value = Named> {
    (any::<u32>(), name()).prop_map(|(pid, comm)| Named { pid, comm })
}

fn scope() -> impl Strategy<Value = Option<KillScope>> {
    option::of(prop_oneof![
        Just(KillScope::Host),
        Just(KillScope::Memcg),
        Just(KillScope::Cpuset),
        Just(KillScope::MemoryPolicy),
        Just(KillScope::Sysrq),
    ])
}

pub(super) fn kill() -> impl Strategy<Value = Kill> {
    let kind = prop_oneof![
        Just(KillKind::Oom),
        Just(KillKind::Exiting),
        Just(KillKind::Signal)
    ];
    let numbers = (option::of(size()), option::of(any::<i32>()), any::<u32>());
    let lists = (
        vec(named(), 0..9),
        vec(candidate(), 0..5),
        vec(name(), 0..4),
    );
    let who = (process(), option::of(named()), detail());
    (kind, any::<[bool; 3]>(), who, scope(), numbers, lists).prop_map(
        |(
            kind,
            [is_past, is_from_log, is_table_of_log],
            who,
            scope,
            (bytes, order, time),
            lists,
        )| {
            let (victim, trigger, memcg) = who;
            let (group, others, stack) = lists;
            Kill {
                time: WallNs(u64::from(time) * 1_000_000_000),
                kind,
                is_past,
                is_from_log,
                victim,
                points: None,
                trigger,
                trigger_cgroup: memcg.clone(),
                scope,
                memcg,
                limit_bytes: bytes,
                usage_bytes: bytes,
                order,
                sharing: group.clone(),
                group,
                others,
                is_table_of_log,
                stack,
            }
        },
    )
}

fn cgroup() -> impl Strategy<Value = CgroupMemory> {
    let next = option::of(candidate());
    (name(), size(), size(), any::<bool>(), 0.0..1e6, next).prop_map(
        |(path, limit_bytes, usage_bytes, is_killed_whole, used_ratio, next)| CgroupMemory {
            path,
            limit_bytes,
            usage_bytes,
            used_ratio,
            left_bytes: limit_bytes.saturating_sub(usage_bytes),
            is_killed_whole,
            oom_kills: Some(usage_bytes),
            next,
        },
    )
}

pub(super) fn oom() -> impl Strategy<Value = OomBreakdown> {
    let memory = option::of((size(), size()).prop_map(|(one, other)| HostMemory {
        total_bytes: one,
        available_bytes: other,
        swap_total_bytes: other,
        swap_free_bytes: one,
        oom_kills: Some(one),
    }));
    let lists = (
        vec(kill(), 0..5),
        vec(candidate(), 0..11),
        vec(cgroup(), 0..5),
    );
    (memory, lists, size()).prop_map(|(memory, (kills, next, cgroups), count)| OomBreakdown {
        memory,
        recent: kills.clone(),
        kills,
        killed: count,
        signalled: count,
        next,
        cgroups,
        cgroups_total: count,
    })
}
