//! Memory kills as the kernel's log tells them, also from before the start.
//!
//! A report is many records, of which any but the last can be missing: they are
//! ratelimited (`dump_header`, `__oom_kill_process`, mm/oom_kill.c; read in 5.15, 6.1,
//! 6.12 and 6.18). What a process writes to the log itself is told apart by its
//! facility (`devkmsg_write`, kernel/printk/printk.c) and not believed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
};

use crate::text::Text;

/// Where the kernel shows its log (Documentation/ABI/testing/dev-kmsg).
pub const KMSG: &str = "/dev/kmsg";
/// The longest record (`PRINTK_MESSAGE_MAX`, kernel/printk/internal.h).
pub const RECORD_BYTES: usize = 8192;
/// So many tasks of a report are kept, the largest.
const TASKS_KEPT: usize = 10;
/// So many functions of a report's stack are kept.
const FRAMES_KEPT: usize = 48;
/// A report that has not ended after this time is given up.
const REPORT_US: u64 = 10_000_000;
/// The priority is a level of three bits; the facility is above it.
const FACILITY_SHIFT: u32 = 3;

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

/// A task of a report's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoggedTask {
    /// Thread id.
    pub pid: u32,
    /// Name.
    pub comm: Text,
    /// Resident pages.
    pub rss_pages: u64,
    /// Entries in swap.
    pub swap_pages: u64,
    /// Page tables, in bytes.
    pub page_table_bytes: u64,
    /// `oom_score_adj`.
    pub oom_score_adj: i32,
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
    /// The largest tasks at that moment, the largest first; the victim too.
    pub tasks: Vec<LoggedTask>,
}

impl LoggedKill {
    /// Whether somebody asked for it by SysRq (`is_sysrq_oom`, include/linux/oom.h).
    pub fn is_sysrq(&self) -> bool {
        self.trigger
            .as_ref()
            .is_some_and(|trigger| trigger.order < 0)
    }
}

/// The kernel's log, read as it grows.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
    parser: Parser,
    buffer: Vec<u8>,
}

impl KernelLog {
    /// Opens it at its begin.
    ///
    /// # Errors
    /// It cannot be opened (without CAP_SYSLOG where `kernel.dmesg_restrict` is set).
    pub fn open() -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(KMSG)?;
        Ok(Self {
            file,
            parser: Parser::default(),
            buffer: vec![0; RECORD_BYTES],
        })
    }

    /// Kills since the last time, and how often records were overwritten before they
    /// were read.
    pub fn read(&mut self) -> (Vec<LoggedKill>, u64) {
        let (mut kills, mut gaps) = (Vec::new(), 0);
        loop {
            match self.file.read(&mut self.buffer) {
                Ok(0) => return (kills, gaps),
                Ok(n) => {
                    let record = self.buffer.get(..n).unwrap_or_default();
                    kills.extend(self.parser.record(record));
                }
                // The next read goes on with the oldest that is there.
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => gaps += 1,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return (kills, gaps),
            }
        }
    }
}

/// A line that the kernel itself wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// How bad, from 0 (`KERN_EMERG`) to 7 (`KERN_DEBUG`).
    pub level: u32,
    /// Its number since boot.
    pub sequence: u64,
    /// When, in us since boot (`local_clock`).
    pub at_us: u64,
    /// What it says: foreign text.
    pub text: String,
}

impl Message {
    /// From a record of /dev/kmsg; `None` for one that a process wrote.
    pub fn of_kernel(record: &[u8]) -> Option<Self> {
        let record = String::from_utf8_lossy(record);
        let (head, rest) = record.split_once(';')?;
        let mut head = head.split(',');
        let priority: u32 = head.next()?.parse().ok()?;
        let sequence: u64 = head.next()?.parse().ok()?;
        let at_us: u64 = head.next()?.parse().ok()?;
        (priority >> FACILITY_SHIFT == 0).then(|| Self {
            level: priority,
            sequence,
            at_us,
            // Further lines are key and value pairs.
            text: unescaped(rest.lines().next().unwrap_or_default()),
        })
    }
}

/// Makes kills of records, one by one.
#[derive(Debug, Default)]
pub struct Parser {
    report: Option<Report>,
}

/// What of a report was read so far.
#[derive(Debug, Default)]
struct Report {
    began_us: u64,
    kill: LoggedKill,
    columns: Vec<String>,
}

impl Parser {
    /// Takes a record of /dev/kmsg; a kill when it ends one.
    pub fn record(&mut self, record: &[u8]) -> Option<LoggedKill> {
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
                columns: Vec::new(),
            });
            return None;
        }
        self.report
            .take_if(|report| at_us.saturating_sub(report.began_us) > REPORT_US);
        if let Some((_, rest)) = message.split_once("Killed process ") {
            let mut kill = self
                .report
                .as_ref()
                .map_or_else(LoggedKill::default, |r| r.kill.clone());
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
    fn learn(&mut self, message: &str) {
        if let Some(fields) = message.strip_prefix("oom-kill:") {
            self.columns.clear();
            summary(fields, &mut self.kill);
        } else if let Some(rest) = message.strip_prefix("memory: usage ") {
            self.kill.usage_bytes = kilobytes(rest);
            self.kill.limit_bytes = rest.split_once("limit ").and_then(|(_, l)| kilobytes(l));
        } else if message.starts_with("[  pid  ]") {
            let names = message.trim_start_matches("[  pid  ]").split_whitespace();
            self.columns = names.map(str::to_owned).collect();
        } else if let Some(row) = message
            .strip_prefix('[')
            .filter(|_| !self.columns.is_empty())
        {
            if let Some(task) = task(row, &self.columns) {
                keep(&mut self.kill.tasks, task);
            }
        } else if let Some(trigger) = &mut self.kill.trigger {
            if let Some((_, rest)) = message
                .split_once("PID: ")
                .filter(|_| message.starts_with("CPU:"))
            {
                trigger.pid = number(rest);
            } else if let Some(function) = frame(message)
                && self.columns.is_empty()
                && trigger.stack.len() < FRAMES_KEPT
            {
                trigger.stack.push(function);
            }
        }
    }
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
    let (head, sizes) = rest.rsplit_once(") total-vm:")?;
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

/// A row of the table of tasks, without its first bracket. The columns differ from
/// kernel to kernel; the name is the last.
fn task(row: &str, columns: &[String]) -> Option<LoggedTask> {
    let (pid, mut rest) = row.split_once(']')?;
    let mut task = LoggedTask {
        pid: pid.trim().parse().ok()?,
        ..LoggedTask::default()
    };
    for column in columns {
        rest = rest.trim_start();
        if column == "name" {
            task.comm = rest.into();
            break;
        }
        let (value, after) = rest.split_once(' ')?;
        rest = after;
        match column.as_str() {
            "rss" => task.rss_pages = value.parse().ok()?,
            "pgtables_bytes" => task.page_table_bytes = value.parse().ok()?,
            "swapents" => task.swap_pages = value.parse().ok()?,
            "oom_score_adj" => task.oom_score_adj = value.parse().ok()?,
            _ => {}
        }
    }
    Some(task)
}

/// Keeps the largest.
fn keep(tasks: &mut Vec<LoggedTask>, task: LoggedTask) {
    let size = |task: &LoggedTask| task.rss_pages.saturating_add(task.swap_pages);
    let at = tasks.partition_point(|kept| size(kept) >= size(&task));
    tasks.insert(at, task);
    tasks.truncate(TASKS_KEPT);
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

/// The kernel writes what is not printable, and the backslash, as `\xNN`.
fn unescaped(line: &str) -> String {
    let mut bytes = Vec::with_capacity(line.len());
    let mut rest = line.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = rest.strip_prefix(b"\\x").and_then(|hex| hex.get(..2));
        let byte = escaped
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[path = "kmsg_tests.rs"]
mod tests;
