//! Makes kills of the log's records.
//!
//! A report is many records, of which any but the last can be missing: they are
//! ratelimited, all but the last together (`dump_header`, `__oom_kill_process`,
//! mm/oom_kill.c; read in 5.15, 6.1, 6.12 and 6.18).

use super::{
    Message,
    lines::{Line, Pieces, Summary, line},
    table::{LoggedTask, Table},
};
use crate::text::Text;

/// So many functions of a report's stack are kept.
const FRAMES_KEPT: usize = 48;
/// A report of which records are lost is given up after this time: its end may be among
/// them. A whole one lasts as long as it takes, on a serial console a minute, as the
/// out-of-memory killer holds its lock meanwhile (`oom_lock`, mm/oom_kill.c).
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
    /// Records were lost since.
    has_gap: bool,
    kill: LoggedKill,
    table: Option<Table>,
    /// The last line that comes in pieces.
    pieces: Option<Pieces>,
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
            report.has_gap = true;
        }
        self.next = sequence.saturating_add(1);
        let message = Message::of_kernel(record)?;
        if message.is_piece {
            // It can be foreign text alone: it is no line.
            if let Some(report) = &mut self.report {
                report.go_on(&message.text);
            }
            return None;
        }
        self.message(&message)
    }

    fn message(&mut self, message: &Message) -> Option<LoggedKill> {
        let line = line(message.level, &message.text);
        let at_us = message.at_us;
        let is_over = matches!(line, Some(Line::NoVictim));
        self.report.take_if(|report| {
            let is_old = at_us.saturating_sub(report.began_us) > REPORT_US;
            is_over || report.has_gap && is_old
        });
        match line {
            Some(Line::Invoked(trigger)) => {
                self.report = Some(Report {
                    began_us: at_us,
                    kill: LoggedKill {
                        trigger: Some(trigger),
                        ..LoggedKill::default()
                    },
                    ..Report::default()
                });
                None
            }
            Some(Line::Killed(victim)) => {
                let known = self.report.as_mut().and_then(Report::take);
                Some(killed(known.unwrap_or_default(), *victim, at_us))
            }
            line => {
                if let Some(report) = &mut self.report {
                    report.learn(line, &message.text);
                }
                None
            }
        }
    }
}

/// A victim, with what its report said before.
fn killed(known: LoggedKill, victim: LoggedKill, at_us: u64) -> LoggedKill {
    LoggedKill {
        at_us,
        trigger: known.trigger,
        constraint: known.constraint,
        oom_memcg: known.oom_memcg,
        task_memcg: known.task_memcg,
        usage_bytes: known.usage_bytes,
        limit_bytes: known.limit_bytes,
        tasks: known.tasks,
        ..victim
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

    fn learn(&mut self, line: Option<Line<'_>>, text: &str) {
        match line {
            Some(Line::Usage { usage, limit }) => {
                self.kill.usage_bytes = Some(usage);
                self.kill.limit_bytes = Some(limit);
            }
            Some(Line::Columns(names)) => self.table = Some(Table::new(names)),
            Some(Line::Pieces) => {
                self.pieces = Pieces::begin(text);
                self.read_pieces();
            }
            Some(Line::Caller { tid, comm }) => {
                // Another CPU can write its own report meanwhile.
                if let Some(trigger) = &mut self.kill.trigger
                    && trigger.pid.is_none()
                    && Text::from(comm).as_str().starts_with(trigger.comm.as_str())
                {
                    trigger.pid = Some(tid);
                }
            }
            Some(Line::Frame(function)) => {
                if let Some(trigger) = &mut self.kill.trigger
                    && self.table.is_none()
                    && trigger.stack.len() < FRAMES_KEPT
                {
                    trigger.stack.push(function);
                }
            }
            _ => {
                if let Some(table) = &mut self.table {
                    table.row(text);
                }
            }
        }
    }

    /// Takes a further piece of a line.
    fn go_on(&mut self, piece: &str) {
        if let Some(pieces) = &mut self.pieces {
            pieces.go_on(piece);
            self.read_pieces();
        }
    }

    fn read_pieces(&mut self) {
        let Some(pieces) = &self.pieces else { return };
        if pieces.is_of_group() {
            self.of = Whose::Group;
        }
        if let Some(summary) = pieces.summary() {
            let Summary {
                constraint,
                oom_memcg,
                task_memcg,
            } = summary;
            self.kill.tasks = self.table.take().map(Table::end).or(self.kill.tasks.take());
            (self.kill.constraint, self.kill.oom_memcg) = (constraint, oom_memcg);
            self.kill.task_memcg = task_memcg;
        }
    }
}
