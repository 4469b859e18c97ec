//! What a line of the kernel's log is, when it belongs to a memory kill.
//!
//! A line can hold foreign text: names of tasks (15 bytes), paths of cgroups, names of
//! devices. So a line is known by its own beginning, which no name of a task is long
//! enough to imitate, or by its whole form up to its end. Formats: mm/oom_kill.c,
//! mm/memcontrol.c, lib/dump_stack.c, read in 5.15, 6.1, 6.12 and 6.18.

use super::report::{Constraint, LoggedKill, LoggedTrigger};
use crate::text::Text;

/// The longest name of a task (`TASK_COMM_LEN`, less its end).
const COMM_CHARS: usize = 15;
/// `pr_warn`.
const WARNING: u32 = 4;

/// Beginnings of lines about a victim (callers of `oom_kill_process`).
const OF_VICTIM: [&str; 3] = [
    "Memory cgroup out of memory: ",
    "Out of memory: ",
    "Out of memory (oom_kill_allocating_task): ",
];
/// `out_of_memory`.
const NO_PROCESSES: &str = "Out of memory and no killable processes";
/// `__oom_kill_process`, with the function's name in front on some kernels.
const EXITING: [&str; 2] = ["oom_kill_process: ", "__oom_kill_process: "];
const IS_EXITING: &str = "is already exiting. Skip killing the task";
/// Between a victim's name and its sizes (`__oom_kill_process`).
const TOTAL_VM: &str = ") total-vm:";
/// `dump_oom_victim`, `dump_header`.
const SUMMARY: &str = "oom-kill:";
const SUMMARY_BEGIN: &str = "oom-kill:constraint=CONSTRAINT_";
/// `mem_cgroup_print_oom_group`.
const GROUP: &str = "Tasks in ";
const OF_GROUP: &str = " are going to be killed due to memory.oom.group set";
/// `dump_tasks`.
const TABLE: &str = "[  pid  ]";
const TABLE_BEGIN: &str = "[  pid  ]   uid  tgid total_vm ";

/// A line of a report.
#[derive(Debug)]
pub(super) enum Line<'a> {
    /// Its first.
    Invoked(LoggedTrigger),
    /// Which task wrote the report: its thread id, and what begins with its name.
    Caller { tid: u32, comm: &'a str },
    /// A function of the stack.
    Frame(Text),
    /// What is charged to the cgroup, and its limit, in bytes.
    Usage { usage: u64, limit: u64 },
    /// The columns of the table of tasks.
    Columns(&'a str),
    /// What is written in pieces: [`Pieces`].
    Pieces,
    /// The victim, with its sizes.
    Killed(Box<LoggedKill>),
    /// Nobody is killed after it.
    NoVictim,
}

/// What a line is; `None` when it is no known line of a report.
pub(super) fn line(level: u32, text: &str) -> Option<Line<'_>> {
    of_victim(text)
        .or_else(|| invoked(level, text).map(Line::Invoked))
        .or_else(|| Pieces::begin(text).map(|_| Line::Pieces))
        .or_else(|| usage(text))
        .or_else(|| {
            text.strip_prefix(TABLE)
                .filter(|_| text.starts_with(TABLE_BEGIN))
                .map(Line::Columns)
        })
        .or_else(|| caller(text))
        .or_else(|| frame(text).map(Line::Frame))
}

fn of_victim(text: &str) -> Option<Line<'_>> {
    if text.starts_with(NO_PROCESSES) {
        return Some(Line::NoVictim);
    }
    let mut beginnings = OF_VICTIM.iter().chain(&EXITING);
    let rest = beginnings.find_map(|begin| text.strip_prefix(begin))?;
    if rest.starts_with("OOM victim ") && rest.ends_with(IS_EXITING) {
        return Some(Line::NoVictim);
    }
    killed(rest).map(|kill| Line::Killed(Box::new(kill)))
}

/// `Killed process PID (NAME) total-vm:NkB, anon-rss:NkB, ..`; the name can hold
/// anything, so what follows it is searched from the end.
fn killed(rest: &str) -> Option<LoggedKill> {
    let rest = rest.strip_prefix("Killed process ")?;
    let (head, sizes) = rest.rsplit_once(TOTAL_VM)?;
    let (pid, comm) = head.split_once(" (")?;
    let size = |name: &str| {
        let (_, value) = sizes.split_once(name)?;
        kilobytes(value)
    };
    kilobytes(sizes)?;
    let adj = sizes.split_once("oom_score_adj:");
    Some(LoggedKill {
        pid: pid.parse().ok()?,
        comm: comm.into(),
        anon_rss_bytes: size(", anon-rss:")?,
        file_rss_bytes: size(", file-rss:").unwrap_or(0),
        shmem_rss_bytes: size(", shmem-rss:").unwrap_or(0),
        page_table_bytes: size(" pgtables:").unwrap_or(0),
        oom_score_adj: adj.and_then(|(_, adj)| adj.parse().ok()).unwrap_or(0),
        ..LoggedKill::default()
    })
}

/// `NAME invoked oom-killer: gfp_mask=0xN(..), order=N, oom_score_adj=N`, to its end. The
/// level tells a task called `Tasks in /` from that line, which can be cut after its path.
fn invoked(level: u32, text: &str) -> Option<LoggedTrigger> {
    let (comm, rest) = text.split_once(" invoked oom-killer: gfp_mask=0x")?;
    let (mask, rest) = rest.split_once("), order=")?;
    let (order, adj) = rest.split_once(", oom_score_adj=")?;
    let is_mask = mask
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_|(".contains(c));
    adj.parse::<i32>().ok()?;
    let is_its_own = level == WARNING || !comm.starts_with(GROUP);
    (is_its_own && is_mask && is_comm(comm)).then_some(())?;
    Some(LoggedTrigger {
        comm: comm.into(),
        order: order.parse().ok()?,
        ..LoggedTrigger::default()
    })
}

/// `CPU: N [UID: N ]PID: N Comm: NAME ..` (`dump_stack_print_info`).
fn caller(text: &str) -> Option<Line<'_>> {
    let (cpu, mut rest) = text.strip_prefix("CPU: ")?.split_once(' ')?;
    if let Some(after) = rest.strip_prefix("UID: ") {
        let (uid, after) = after.split_once(' ')?;
        uid.parse::<u32>().ok()?;
        rest = after;
    }
    let (tid, comm) = rest.strip_prefix("PID: ")?.split_once(" Comm: ")?;
    cpu.parse::<u32>().ok()?;
    let tid = tid.parse().ok()?;
    Some(Line::Caller { tid, comm })
}

/// `memory: usage NkB, limit NkB, failcnt N` (`mem_cgroup_print_oom_meminfo`).
fn usage(text: &str) -> Option<Line<'_>> {
    let rest = text.strip_prefix("memory: usage ")?;
    let (usage, rest) = rest.split_once("kB, limit ")?;
    let (limit, failures) = rest.split_once("kB, failcnt ")?;
    failures.parse::<u64>().ok()?;
    let bytes = |number: &str| number.parse::<u64>().ok()?.checked_mul(1024);
    let (usage, limit) = (bytes(usage)?, bytes(limit)?);
    Some(Line::Usage { usage, limit })
}

/// `function+0x5/0x10 [module]`. One with a question mark was only lying about.
fn frame(text: &str) -> Option<Text> {
    let (function, rest) = text.trim_start().split_once("+0x")?;
    let (offset, rest) = rest.split_once("/0x")?;
    let (size, module) = rest.split_once(' ').unwrap_or((rest, ""));
    let is_hex = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_hexdigit());
    let is_module = module.is_empty() || module.starts_with('[') && module.ends_with(']');
    let is_function = !function.is_empty()
        && function
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.$".contains(c));
    (is_function && is_hex(offset) && is_hex(size) && is_module).then(|| function.into())
}

/// A line that the kernel writes in pieces (`pr_cont`): where another CPU writes between
/// two of them, the rest comes as records of their own, with the flag `c`.
#[derive(Debug)]
pub(super) struct Pieces {
    text: String,
}

/// What a line of pieces says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) constraint: Option<Constraint>,
    pub(super) oom_memcg: Option<Text>,
    pub(super) task_memcg: Option<Text>,
}

impl Pieces {
    /// Two paths and what is around them.
    const MOST_BYTES: usize = 3 * super::RECORD_BYTES;

    /// The line whose first piece, or whole, this is.
    pub(super) fn begin(text: &str) -> Option<Self> {
        let group = text.strip_prefix(GROUP);
        let is_group = group.is_some_and(|path| path.is_empty() || path.starts_with('/'));
        let is_it = text.starts_with(SUMMARY_BEGIN) || is_group;
        is_it.then(|| Self { text: text.into() })
    }

    /// Takes the next piece.
    pub(super) fn go_on(&mut self, piece: &str) {
        if self.text.len() + piece.len() <= Self::MOST_BYTES {
            self.text.push_str(piece);
        }
    }

    /// Whether all of a cgroup are killed.
    pub(super) fn is_of_group(&self) -> bool {
        self.text.starts_with(GROUP) && self.text.ends_with(OF_GROUP)
    }

    /// What it says so far; `None` for another line.
    pub(super) fn summary(&self) -> Option<Summary> {
        let fields = self.text.strip_prefix(SUMMARY)?;
        let constraint = match fields.split(',').next() {
            Some("constraint=CONSTRAINT_NONE") => Some(Constraint::None),
            Some("constraint=CONSTRAINT_CPUSET") => Some(Constraint::Cpuset),
            Some("constraint=CONSTRAINT_MEMORY_POLICY") => Some(Constraint::MemoryPolicy),
            Some("constraint=CONSTRAINT_MEMCG") => Some(Constraint::Memcg),
            _ => None,
        };
        let (oom_memcg, task_memcg) = paths(fields).unzip();
        Some(Summary {
            constraint,
            oom_memcg: oom_memcg.flatten(),
            task_memcg,
        })
    }
}

/// The paths of `..,cpuset=NAME,mems_allowed=LIST,oom_memcg=PATH,task_memcg=PATH,task=NAME,
/// pid=N,uid=N`, or of `..,global_oom,task_memcg=PATH,..`. The name of a cpuset has no
/// slash, so what is first with one is the kernel's. Where names leave more than one way
/// to read the rest, none is believed.
fn paths(fields: &str) -> Option<(Option<Text>, Text)> {
    let (of_host, of_cgroup) = (",global_oom,task_memcg=/", ",oom_memcg=/");
    let host = fields.find(of_host).map(|at| (at, at + of_host.len() - 1));
    let cgroup = fields
        .find(of_cgroup)
        .map(|at| (at, at + of_cgroup.len() - 1));
    let (_, begin) = host.into_iter().chain(cgroup).min()?;
    let rest = fields.get(begin..)?;
    let (rest, uid) = rest.rsplit_once(",uid=")?;
    let (rest, pid) = rest.rsplit_once(",pid=")?;
    uid.parse::<u32>().ok()?;
    pid.parse::<u32>().ok()?;
    let comm = |(at, word): (usize, &str)| {
        let comm = rest.get(at + word.len()..)?;
        is_comm(comm).then(|| rest.get(..at))?
    };
    let rest = only(rest.match_indices(",task=").filter_map(comm))?;
    if host.is_some_and(|(at, _)| cgroup.is_none_or(|(other, _)| at < other)) {
        return Some((None, rest.into()));
    }
    // The victim is in the cgroup that is full, or below it.
    let both = |(at, word): (usize, &str)| {
        let (full, its) = (rest.get(..at)?, rest.get(at + word.len()..)?);
        let below = its.strip_prefix(full)?;
        (below.is_empty() || below.starts_with('/')).then_some((full, its))
    };
    let (full, its) = only(rest.match_indices(",task_memcg=").filter_map(both))?;
    Some((Some(full.into()), its.into()))
}

/// The only one there is.
fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// Whether a task can be called so.
pub(super) fn is_comm(text: &str) -> bool {
    text.chars().count() <= COMM_CHARS
}

/// `NkB..`, in bytes.
fn kilobytes(text: &str) -> Option<u64> {
    let (number, _) = text.split_once("kB")?;
    number.parse::<u64>().ok()?.checked_mul(1024)
}
