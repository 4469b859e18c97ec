//! Makes kills of the log's records.
//!
//! A report is many records, of which any but the last can be missing: they are
//! ratelimited, all but the last together (`dump_header`, `__oom_kill_process`,
//! mm/oom_kill.c; read in 5.15, 6.1, 6.12 and 6.18).

use super::{
    Message,
    table::{LoggedTask, Table},
};
use crate::text::Text;

/// So many functions of a report's stack are kept.
const FRAMES_KEPT: usize = 48;
/// A report that has not ended after this time is given up.
const REPORT_US: u64 = 10_000_000;

/// Whose memory ran out (`enum oom_constraint`, include/linux/oom.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// The host's.
    None,
    /// That of a cpuset's nodes.
    Cpuset,
    /// That of a policy's nodes.
    MemoryPolicy,
    /// A cgroup's.
    Memcg,
}

/// Who wanted memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoggedTrigger {
    /// Name of the task.
    pub comm: Text,
    /// Its thread id, where the log has it.
    pub pid: Option<u32>,
    /// 2^order pages in one piece; -1 for SysRq.
    pub order: i32,
    /// Its kernel stack, innermost first.
    pub stack: Vec<Text>,
}

/// A kill. Sizes are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoggedKill {
    /// When, in us since boot (`local_clock`, kernel/sched/clock.c).
    pub at_us: u64,
    /// Thread id of the victim.
    pub pid: u32,
    /// Its name.
    pub comm: Text,
    /// Who wanted memory.
    pub trigger: Option<LoggedTrigger>,
    /// Whose memory ran out.
    pub constraint: Option<Constraint>,
    /// The cgroup at its limit.
    pub oom_memcg: Option<Text>,
    /// The cgroup of the victim.
    pub task_memcg: Option<Text>,
    /// What was charged to the cgroup at its limit.
    pub usage_bytes: Option<u64>,
    /// Its limit.
    pub limit_bytes: Option<u64>,
    /// Anonymous memory of the victim.
    pub anon_rss_bytes: u64,
    /// Its pages of files.
    pub file_rss_bytes: u64,
    /// Its shared memory.
    pub shmem_rss_bytes: u64,
    /// Its page tables.
    pub page_table_bytes: u64,
    /// Its `oom_score_adj`.
    pub oom_score_adj: i32,
    /// The largest tasks right before the kill, the largest first; the victim too.
    /// `None` where the log has not the whole table.
    pub tasks: Option<Vec<LoggedTask>>,
}

impl LoggedKill {
    /// Whether somebody asked for it by SysRq (`is_sysrq_oom`, include/linux/oom.h).
    pub fn is_sysrq(&self) -> bool {
        self.trigger
            .as_ref()
            .is_some_and(|trigger| trigger.order < 0)
    }
}

/// Makes kills of records, one by one.
#[derive(Debug, Default)]
pub struct Parser {
    report: Option<Report>,
    /// The number of the record that comes next, if none is lost.
    next: u64,
}

/// What of a report was read so far.
#[derive(Debug, Default)]
struct Report {
    began_us: u64,
    kill: LoggedKill,
    table: Option<Table>,
    of: Whose,
}

/// Whose kill a report tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Whose {
    /// That of the next victim.
    #[default]
    Next,
    /// That of one that was told: the report of another one was left out.
    Told,
    /// Those of all of a cgroup.
    Group,
}

impl Parser {
    /// Takes a record of /dev/kmsg; a kill when it ends one.
    pub fn record(&mut self, record: &[u8]) -> Option<LoggedKill> {
        let sequence = Message::sequence_of(record)?;
        if sequence != self.next
            && let Some(report) = &mut self.report
        {
            // What is lost may be a row of it.
            report.table = None;
        }
        self.next = sequence.saturating_add(1);
        let Message { at_us, text, .. } = Message::of_kernel(record)?;
        self.message(at_us, &text)
    }

    fn message(&mut self, at_us: u64, message: &str) -> Option<LoggedKill> {
        if let Some(trigger) = invoked(message) {
            self.report = Some(Report {
                began_us: at_us,
                kill: LoggedKill {
                    trigger: Some(trigger),
                    ..LoggedKill::default()
                },
                ..Report::default()
            });
            return None;
        }
        self.report.take_if(|report| {
            at_us.saturating_sub(report.began_us) > REPORT_US || is_without_victim(message)
        });
        // A process can be called so; what it is told to have done is no kill.
        if let Some((_, rest)) = message.split_once("Killed process ")
            && rest.contains(TOTAL_VM)
        {
            let report = self.report.as_mut().and_then(Report::take);
            let mut kill = report.unwrap_or_default();
            killed(rest, &mut kill)?;
            kill.at_us = at_us;
            return Some(kill);
        }
        if let Some(report) = &mut self.report {
            report.learn(message);
        }
        None
    }
}

impl Report {
    /// What it says of a victim that is told now.
    fn take(&mut self) -> Option<LoggedKill> {
        match self.of {
            Whose::Next => {
                self.of = Whose::Told;
                let tasks = self.kill.tasks.take();
                Some(LoggedKill {
                    tasks,
                    ..self.kill.clone()
                })
            }
            Whose::Told => None,
            Whose::Group => Some(self.kill.clone()),
        }
    }

    fn learn(&mut self, message: &str) {
        if let Some(fields) = message.strip_prefix("oom-kill:") {
            self.kill.tasks = self.table.take().map(Table::end);
            summary(fields, &mut self.kill);
        } else if let Some(rest) = message.strip_prefix("memory: usage ") {
            self.kill.usage_bytes = kilobytes(rest);
            self.kill.limit_bytes = rest.split_once("limit ").and_then(|(_, l)| kilobytes(l));
        } else if message.contains(OF_GROUP) {
            self.of = Whose::Group;
        } else if let Some(names) = message.strip_prefix("[  pid  ]") {
            self.table = Some(Table::new(names));
        } else if let Some(table) = &mut self.table {
            table.row(message);
        } else if let Some(trigger) = &mut self.kill.trigger {
            if let Some((_, rest)) = message
                .split_once("PID: ")
                .filter(|_| message.starts_with("CPU:"))
            {
                trigger.pid = number(rest);
            } else if let Some(function) = frame(message)
                && trigger.stack.len() < FRAMES_KEPT
            {
                trigger.stack.push(function);
            }
        }
    }
}

/// `Tasks in PATH are going to be killed ..` (`mem_cgroup_print_oom_group`,
/// mm/memcontrol.c).
const OF_GROUP: &str = "are going to be killed due to memory.oom.group set";

/// Between a victim's name and its sizes (`__oom_kill_process`).
const TOTAL_VM: &str = ") total-vm:";

/// Whether it ends a report that nobody is killed after (`out_of_memory`,
/// `__oom_kill_process`).
fn is_without_victim(message: &str) -> bool {
    message.contains("Out of memory and no killable processes")
        || message.ends_with("is already exiting. Skip killing the task")
}

/// `NAME invoked oom-killer: gfp_mask=.., order=N, oom_score_adj=N`
fn invoked(message: &str) -> Option<LoggedTrigger> {
    let (comm, rest) = message.rsplit_once(" invoked oom-killer: ")?;
    let (_, order) = rest.split_once("order=")?;
    Some(LoggedTrigger {
        comm: comm.into(),
        order: signed(order)?,
        ..LoggedTrigger::default()
    })
}

/// `PID (NAME) total-vm:NkB, anon-rss:NkB, ..`; the name can hold anything, so what
/// follows is looked for from the end.
fn killed(rest: &str, kill: &mut LoggedKill) -> Option<()> {
    let pid = number(rest)?;
    let (head, sizes) = rest.rsplit_once(TOTAL_VM)?;
    let (_, comm) = head.split_once('(')?;
    let size = |name: &str| {
        let (_, value) = sizes.split_once(name)?;
        kilobytes(value)
    };
    kill.pid = pid;
    kill.comm = comm.into();
    kill.anon_rss_bytes = size("anon-rss:")?;
    kill.file_rss_bytes = size("file-rss:").unwrap_or(0);
    kill.shmem_rss_bytes = size("shmem-rss:").unwrap_or(0);
    kill.page_table_bytes = size("pgtables:").unwrap_or(0);
    let adj = sizes.split_once("oom_score_adj:");
    kill.oom_score_adj = adj.and_then(|(_, adj)| signed(adj)).unwrap_or(0);
    Some(())
}

/// `constraint=..,nodemask=..,..,oom_memcg=PATH,task_memcg=PATH,task=NAME,pid=N,uid=N`;
/// a path can hold a comma, and what follows it cannot.
fn summary(fields: &str, kill: &mut LoggedKill) {
    kill.constraint = match fields.split(',').next() {
        Some("constraint=CONSTRAINT_NONE") => Some(Constraint::None),
        Some("constraint=CONSTRAINT_CPUSET") => Some(Constraint::Cpuset),
        Some("constraint=CONSTRAINT_MEMORY_POLICY") => Some(Constraint::MemoryPolicy),
        Some("constraint=CONSTRAINT_MEMCG") => Some(Constraint::Memcg),
        _ => None,
    };
    let between = |from: &str, to: &str| {
        let (_, rest) = fields.split_once(from)?;
        Some(Text::from(rest.split_once(to)?.0))
    };
    kill.oom_memcg = between(",oom_memcg=", ",task_memcg=");
    kill.task_memcg = between(",task_memcg=", ",task=");
}

/// A line of a stack: `function+0x5/0x10`. One with a question mark was only lying about.
fn frame(message: &str) -> Option<Text> {
    let (function, rest) = message.trim_start().split_once("+0x")?;
    let is_function = !function.is_empty() && !function.contains([' ', ':', '?']);
    (is_function && rest.contains("/0x")).then(|| function.into())
}

/// The number that a text begins with.
fn number(text: &str) -> Option<u32> {
    digits(text).parse().ok()
}

fn signed(text: &str) -> Option<i32> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    Some(sign * digits(text).parse::<i32>().ok()?)
}

/// `NkB`, in bytes.
fn kilobytes(text: &str) -> Option<u64> {
    digits(text).parse::<u64>().ok()?.checked_mul(1024)
}

fn digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}
