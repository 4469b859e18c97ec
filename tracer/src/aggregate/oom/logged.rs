//! What the kernel's log says of a kill, as the model has it.

use super::View;
use crate::{
    clock::WallNs,
    host::kmsg::{Constraint, LoggedKill, LoggedTask},
    snapshot::{Candidate, Kill, KillKind, KillScope, Named, ProcessMemory},
};

/// A kill that only the log tells of.
pub(super) fn of_log(logged: &LoggedKill, time: WallNs) -> Kill {
    let trigger = logged.trigger.as_ref();
    Kill {
        time,
        kind: KillKind::Oom,
        is_from_log: true,
        victim: ProcessMemory {
            pid: logged.pid,
            comm: logged.comm.clone(),
            user: None,
            cgroup: logged.task_memcg.clone(),
            anon_rss_bytes: logged.anon_rss_bytes,
            file_rss_bytes: logged.file_rss_bytes,
            shmem_rss_bytes: logged.shmem_rss_bytes,
            swap_bytes: None,
            page_table_bytes: logged.page_table_bytes,
            oom_score_adj: logged.oom_score_adj,
        },
        trigger: trigger.map(|trigger| Named {
            pid: trigger.pid.unwrap_or(0),
            comm: trigger.comm.clone(),
        }),
        stack: trigger.map_or_else(Vec::new, |trigger| trigger.stack.clone()),
        ..Kill::default()
    }
}

/// What only the log knows.
pub(super) fn learn(kill: &mut Kill, logged: &LoggedKill) {
    let constraint = logged.constraint.map(|constraint| match constraint {
        Constraint::None => KillScope::Host,
        Constraint::Memcg => KillScope::Memcg,
        Constraint::Cpuset => KillScope::Cpuset,
        Constraint::MemoryPolicy => KillScope::MemoryPolicy,
    });
    kill.scope = if logged.is_sysrq() {
        Some(KillScope::Sysrq)
    } else {
        constraint.or(kill.scope)
    };
    kill.memcg = logged.oom_memcg.clone().or(kill.memcg.take());
    kill.limit_bytes = logged.limit_bytes;
    kill.usage_bytes = logged.usage_bytes;
    let order = logged.trigger.as_ref().map(|trigger| trigger.order);
    kill.order = order.or(kill.order);
}

/// Who else was big, by the log's table. Users are known, cgroups and scores not yet.
pub(super) fn take_table(kill: &mut Kill, logged: &LoggedKill, view: View<'_>) {
    let Some(tasks) = &logged.tasks else {
        return;
    };
    let bytes = |pages: u64| pages.saturating_mul(view.page_bytes);
    let is_other = |task: &&LoggedTask| task.pid != kill.victim.pid && task.tid != logged.pid;
    let others = tasks.iter().filter(is_other).map(|task| Candidate {
        process: ProcessMemory {
            pid: task.pid,
            comm: task.comm.clone(),
            user: task.uid.map(|uid| view.users.name(uid)),
            cgroup: None,
            anon_rss_bytes: bytes(task.anon_pages),
            file_rss_bytes: bytes(task.file_pages),
            shmem_rss_bytes: bytes(task.shmem_pages),
            swap_bytes: Some(bytes(task.swap_pages)),
            page_table_bytes: task.page_table_bytes,
            oom_score_adj: task.oom_score_adj,
        },
        oom_score: 0,
    });
    kill.others = others.collect();
    kill.is_table_of_log = true;
}
