//! Kills in words, and what a text that is about more than memory says of it.

use super::{
    line::{Line, Style, wrap},
    quantity::{bytes, counted, grouped},
    sections::flow,
    words,
};
use crate::snapshot::{
    Candidate, CgroupMemory, Kill, KillKind, KillScope, Named, OomBreakdown, ProcessMemory,
};

/// Blanks before what explains the line above.
const INDENT: usize = 6;
/// A cgroup as full as this is worth a word where memory is not the subject.
const NEARLY_FULL: f64 = 0.9;
/// So many others are named on a line.
const NAMED: usize = 5;

/// A process as people say it.
fn name(named: &Named) -> String {
    match named.pid {
        0 => named.comm.to_string(),
        pid => format!("{}[{pid}]", named.comm),
    }
}

/// A victim or a candidate as people say it.
pub(super) fn process(process: &ProcessMemory) -> String {
    format!("{}[{}]", process.comm, process.pid)
}

/// What a process had, in the order of what counts.
pub(super) fn held(process: &ProcessMemory) -> String {
    let mut parts = vec![format!("rss {}", bytes(process.rss_bytes()))];
    if let Some(swap) = process.swap_bytes.filter(|swap| *swap > 0) {
        parts.push(format!("swap {}", bytes(swap)));
    }
    parts.push(format!("page tables {}", bytes(process.page_table_bytes)));
    parts.push(format!("adj {}", process.oom_score_adj));
    parts.join(", ")
}

/// Why a process died: what was out of memory, and who wanted some.
pub(super) fn why(kill: &Kill) -> String {
    let trigger = kill.trigger.as_ref().map(name);
    if kill.kind == KillKind::Signal {
        let by = trigger.unwrap_or_else(|| "another process".to_owned());
        return format!("SIGKILL by {by}");
    }
    let mut words = match (kill.scope, &kill.memcg) {
        (Some(KillScope::Memcg), Some(path)) => format!("cgroup {path} out of memory"),
        (Some(KillScope::Memcg), None) => "a cgroup out of memory".to_owned(),
        (Some(KillScope::Host), _) => "host out of memory".to_owned(),
        (Some(KillScope::Cpuset), _) => "the nodes of a cpuset out of memory".to_owned(),
        (Some(KillScope::MemoryPolicy), _) => {
            "the nodes of a memory policy out of memory".to_owned()
        }
        (Some(KillScope::Sysrq), _) => "asked for by SysRq".to_owned(),
        (None, _) => "out of memory".to_owned(),
    };
    if let Some(limit) = kill.limit_bytes {
        words.push_str(&format!(" (limit {})", bytes(limit)));
    }
    if let Some(trigger) = trigger {
        let own = kill.trigger.as_ref().map(|trigger| trigger.pid) == Some(kill.victim.pid);
        let by = if own { "itself".to_owned() } else { trigger };
        words.push_str(&format!(", wanted by {by}"));
        if let Some(order) = kill.order.filter(|order| *order > 0) {
            words.push_str(&format!(" (order {order})"));
        }
    }
    if kill.kind == KillKind::Exiting {
        words.push_str("; it was on its way out, nobody else was killed");
    }
    words
}

/// Others that died with it.
pub(super) fn with_it(kill: &Kill) -> Vec<String> {
    let said = |others: &[Named], why: &str| {
        if others.is_empty() {
            return None;
        }
        let mut names: Vec<_> = others.iter().take(NAMED).map(name).collect();
        if others.len() > NAMED {
            names.push(format!("{} more", others.len() - NAMED));
        }
        Some(format!("with it, {why}: {}", names.join(", ")))
    };
    let group = said(&kill.group, "as memory.oom.group kills the cgroup whole");
    let sharing = said(&kill.sharing, "as they share its memory");
    group.into_iter().chain(sharing).collect()
}

/// What an event of a kill begins with.
pub(super) fn verb(kill: &Kill) -> &'static str {
    match kill.kind {
        KillKind::Oom => "OOM",
        KillKind::Exiting => "dying",
        KillKind::Signal => "SIGKILL",
    }
}

/// The style of a kill.
pub(super) fn style(kill: &Kill) -> Style {
    match kill.kind {
        _ if kill.is_past => Style::Dim,
        KillKind::Oom => Style::Red,
        KillKind::Exiting | KillKind::Signal => Style::Yellow,
    }
}

/// Who is next, in a few words.
fn next(candidate: &Candidate) -> String {
    let score = candidate.oom_score;
    format!("{}, score {score}", process(&candidate.process))
}

fn nearly_full(cgroup: &CgroupMemory) -> Line {
    let percent = (cgroup.used_ratio * 100.0) as u64;
    let mut words = format!("{} is at {percent} % of its limit", cgroup.path);
    if let Some(candidate) = &cgroup.next {
        words.push_str(&format!(", next there {}", next(candidate)));
    }
    Line::styled(Style::Yellow, words)
}

/// What a text says of memory where it is not the subject.
pub(super) fn section(oom: &OomBreakdown, columns: usize) -> Vec<Line> {
    let mut parts = vec![Line::styled(Style::Bold, "OOM")];
    let kills = oom.recent.iter().filter(|kill| !kill.is_past);
    match oom.killed {
        0 => parts.push(Line::plain("none since the start")),
        killed => parts.push(Line::styled(
            Style::Red,
            format!("{} killed since the start", grouped(killed)),
        )),
    }
    if let Some(candidate) = oom.next.first() {
        parts.push(Line::plain(format!("next on the host {}", next(candidate))));
    }
    let full = oom.cgroups.iter().filter(|c| c.used_ratio >= NEARLY_FULL);
    parts.extend(full.take(1).map(nearly_full));
    let mut lines = flow(parts, columns);
    if let Some(kill) = kills.into_iter().find(|kill| kill.kind == KillKind::Oom) {
        let words = format!("{}: {}", process(&kill.victim), why(kill));
        lines.extend(indented(&words, INDENT, columns));
    }
    lines
}

/// A sentence under the line that it explains.
pub(super) fn indented(words: &str, indent: usize, columns: usize) -> Vec<Line> {
    let lines = wrap(words, columns.saturating_sub(indent), 2);
    let line = |line| {
        let mut indented = Line::plain(" ".repeat(indent));
        indented.append(line);
        indented
    };
    lines.into_iter().map(line).collect()
}

/// The host's memory, and how many were killed.
pub(super) fn memory(oom: &OomBreakdown, columns: usize) -> Vec<Line> {
    let mut parts = vec![Line::styled(Style::Bold, "MEMORY")];
    match oom.memory {
        Some(memory) => {
            parts.push(Line::plain(format!("{} in all", bytes(memory.total_bytes))));
            parts.push(Line::plain(format!(
                "{} available",
                bytes(memory.available_bytes)
            )));
            parts.push(Line::plain(if memory.swap_total_bytes == 0 {
                "no swap".to_owned()
            } else {
                let [free, total] = [memory.swap_free_bytes, memory.swap_total_bytes].map(bytes);
                format!("{free} of {total} swap free")
            }));
            if let Some(kills) = memory.oom_kills {
                parts.push(Line::plain(format!(
                    "{} since boot",
                    counted(kills, "memory kill")
                )));
            }
        }
        None => parts.push(Line::plain("not known: /proc/meminfo cannot be read")),
    }
    flow(parts, columns)
}

/// The fixed word of a scope as people say it, for a column.
pub(super) fn scope(kill: &Kill) -> &'static str {
    match kill.kind {
        KillKind::Signal => "SIGKILL",
        KillKind::Exiting => "exiting",
        KillKind::Oom => kill.scope.map_or("memory", words::scope),
    }
}
