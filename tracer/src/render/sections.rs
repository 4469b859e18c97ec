//! The parts of a tick's text, from the host line down to tracer's own cost.
//! What does not fit goes to a line of its own; nothing is dropped but blanks.

use super::{
    line::{Line, Style, cut_end, left, right, width, wrap},
    quantity::{age, bytes, counted, cpu_percent, cpu_percent_of_ns, grouped, tasks},
    time::clock,
    words,
};
use crate::{
    clock::WallNs,
    snapshot::{
        BlockedTask, CauseLengths, HookState, Link, LoadBreakdown, Lost, OwnCost, Queue, Role,
        Snapshot, Start, TaskMean,
    },
    text::Text,
};

/// Blanks between two parts of a line.
const GAP: usize = 3;
/// Blanks before what continues a line.
const INDENT: usize = 6;

/// Puts parts on as few lines as hold them, in order.
pub(super) fn flow(parts: impl IntoIterator<Item = Line>, columns: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.width() + GAP + part.width() <= columns => {
                line.push(Style::Plain, " ".repeat(GAP));
                line.append(part);
            }
            Some(_) => {
                let mut line = Line::plain(" ".repeat(INDENT));
                line.append(part);
                lines.push(line);
            }
            None => lines.push(part),
        }
    }
    lines
}

/// What is known before the first tick: the host, what is missing, notes.
pub(super) fn start(start: &Start, columns: usize) -> Vec<Line> {
    let interval = Line::plain(format!("every {}", age(start.interval_ns)));
    let interval = (!start.next).then_some(interval);
    let mut lines = flow(
        host_parts(start, start.host.cpus)
            .into_iter()
            .chain(interval),
        columns,
    );
    lines.extend(caveats(start, columns));
    lines
}

/// The probes that are missing, and the notes.
pub(super) fn caveats(start: &Start, columns: usize) -> Vec<Line> {
    let notes = start.notes.iter().map(|note| format!("note: {note}"));
    missing(&start.hooks)
        .into_iter()
        .chain(notes)
        .flat_map(|sentence| wrap(&sentence, columns, INDENT))
        .collect()
}

/// One probe with its reason, several in a sentence: whole kernels lack a kind of them.
fn missing(hooks: &[HookState]) -> Option<String> {
    let missing: Vec<_> = hooks.iter().filter(|hook| hook.why.is_some()).collect();
    if let [hook] = *missing {
        let why = hook.why.as_deref().unwrap_or_default();
        let (name, without) = (hook.name, hook.without);
        return Some(format!("hook {name} missing: {why}; without it: {without}"));
    }
    let names: Vec<_> = missing.iter().map(|hook| hook.name).collect();
    let mut without: Vec<_> = missing.iter().map(|hook| hook.without).collect();
    without.dedup();
    (!names.is_empty()).then(|| {
        format!(
            "{} hooks missing (`tracer doctor` says why): {}; without them: {}",
            names.len(),
            names.join(", "),
            without.join("; ")
        )
    })
}

fn host_parts(start: &Start, cpus: u32) -> Vec<Line> {
    vec![
        Line::styled(Style::Bold, format!("tracer {}", start.version)),
        Line::plain(start.host.hostname.as_str()),
        Line::plain(format!("Linux {}", start.host.kernel)),
        Line::plain(counted(cpus.into(), "CPU")),
    ]
}

/// The host and the moment.
pub(super) fn host(start: Option<&Start>, snapshot: &Snapshot, columns: usize) -> Vec<Line> {
    let mut parts = start.map_or_else(Vec::new, |start| host_parts(start, snapshot.cpus));
    let uptime_ns = snapshot.uptime_s.saturating_mul(1_000_000_000);
    parts.push(Line::plain(format!("up {}", age(uptime_ns))));
    parts.push(moment(snapshot.time));
    if let Some(start) = start {
        parts.push(Line::plain(format!("every {}", age(start.interval_ns))));
    }
    flow(parts, columns)
}

fn moment(time: WallNs) -> Line {
    Line::plain(format!("{} UTC", clock(time)))
}

/// The averages, the verdict, the kernel's last sample, the mean.
pub(super) fn load(load: &LoadBreakdown, columns: usize) -> Vec<Line> {
    let [load1, load5, load15] = load.averages.map(tasks);
    let mut line = Line::styled(Style::Bold, format!("load  {load1}  {load5}  {load15}"));
    line.push(Style::Plain, format!("   {} a CPU", tasks(load.per_cpu)));
    let advice = words::advice(load.verdict);
    let mut lines = if line.width() + GAP + width(advice) <= columns {
        vec![line.with(Style::Plain, format!("   {advice}"))]
    } else {
        let mut lines = vec![line];
        lines.extend(indented(wrap(advice, columns.saturating_sub(INDENT), 0)));
        lines
    };
    lines.extend(flow(sample(load), columns));
    lines.extend(flow(mean(&load.mean), columns));
    if let Some(tasks) = load.leaked {
        lines.extend(wrap(&words::leaked(tasks), columns, INDENT));
    }
    lines
}

fn indented(lines: Vec<Line>) -> impl Iterator<Item = Line> {
    lines.into_iter().map(|line| {
        let mut indented = Line::plain(" ".repeat(INDENT));
        indented.append(line);
        indented
    })
}

fn sample(load: &LoadBreakdown) -> Vec<Line> {
    let mut parts = match load.last_sample {
        Some(sample) => {
            let all_named = sample.active == sample.named;
            let style = if all_named {
                Style::Plain
            } else {
                Style::Magenta
            };
            let noun = if sample.active == 1 { "task" } else { "tasks" };
            vec![
                Line::plain(format!("kernel's sample {}", clock(sample.time))),
                Line::styled(
                    style,
                    format!("{} {noun}, {} named", sample.active, sample.named),
                ),
            ]
        }
        None => vec![Line::plain("kernel's sample: none yet")],
    };
    if let Some(ns) = load.next_sample_in_ns {
        parts.push(Line::plain(format!("next in {}", age(ns))));
    }
    parts
}

/// The four numbers of a mean, with their names.
pub(super) fn mean(mean: &TaskMean) -> Vec<Line> {
    let named = |name, value| format!("{name} {}", tasks(value));
    vec![
        Line::plain(format!("mean   {}", named("running", mean.running))),
        Line::plain(named("waiting", mean.waiting)),
        Line::plain(named("throttled", mean.throttled)),
        Line::plain(named("blocked", mean.blocked)),
    ]
}

/// A name as people say it: the process, and the thread where it is another.
pub(super) fn task(comm: &str, pid: u32, tid: u32) -> String {
    if pid == tid {
        format!("{comm}[{pid}]")
    } else {
        format!("{comm}[{pid}] tid {tid}")
    }
}

/// A cause and what it is on, as people say it.
pub(super) fn cause(cause: &str, detail: Option<&Text>) -> String {
    match detail {
        Some(detail) => format!("{cause} {detail}"),
        None => cause.to_owned(),
    }
}

const BLOCKED: &str = "BLOCKED NOW";

/// Blanks before a blocked task.
const BLOCKED_INDENT: usize = 2;

/// The heading of the blocked tasks, with what stands beside it.
pub(super) fn blocked_heading(text: &str) -> Line {
    Line::styled(Style::Bold, left(BLOCKED, width(BLOCKED) + GAP)).with(Style::Plain, text)
}

/// The blocked tasks, the longest first; how many more are said by the caller.
pub(super) fn blocked(tasks: &[BlockedTask], columns: usize) -> Vec<Line> {
    let ages: Vec<_> = tasks.iter().map(|task| age(task.age_ns)).collect();
    let wide = ages.iter().map(|age| width(age)).max().unwrap_or(0);
    let row = |(blocked, age): (&BlockedTask, &String)| {
        let name = task(blocked.comm.as_str(), blocked.pid, blocked.tid);
        let mut line = Line::plain(" ".repeat(BLOCKED_INDENT));
        line.push(Style::Red, right(age, wide));
        line.push(Style::Plain, format!("  {name}"));
        let gap = " ".repeat(GAP);
        let room = columns.saturating_sub(line.width() + GAP);
        line.with(Style::Dim, gap + &cut_end(&why(blocked), room))
    };
    tasks.iter().zip(&ages).map(row).collect()
}

/// What a task is blocked by, and what those are blocked by that it waits for.
fn why(task: &BlockedTask) -> String {
    if task.stack.is_empty() && task.detail.is_none() && task.waits_for.is_empty() {
        // Nobody looked at it: it is below the threshold.
        return String::new();
    }
    let mut words = cause(task.cause, task.detail.as_ref());
    words.extend(task.waits_for.iter().map(behind));
    words
}

/// What is said of a task that another waits for; a holder is named before.
pub(super) fn behind(link: &Link) -> String {
    let mut words = String::new();
    if link.role == Role::Child {
        words = format!(", child {}[{}]", link.comm, link.pid);
    }
    if let Some(its_cause) = link.cause {
        let its_cause = cause(its_cause, link.detail.as_ref());
        words.push_str(&format!(", which waits for {its_cause}"));
    } else if let (Role::Holder, Some(function)) = (link.role, &link.sleeps_in) {
        words.push_str(&format!(", which sleeps in {function}"));
    }
    words
}

/// The kernel stack of a blocked task, innermost first.
pub(super) fn stack(task: &BlockedTask) -> impl Iterator<Item = Line> {
    let indent = " ".repeat(BLOCKED_INDENT + 2 * GAP);
    let frame = move |frame: &Text| Line::styled(Style::Dim, format!("{indent}{frame}"));
    task.stack.iter().map(frame)
}

/// Tasks behind one and the same, a sentence each; one alone is no queue.
pub(super) fn queues(queues: &[Queue], columns: usize) -> Vec<Line> {
    let queues = queues.iter().filter(|queue| queue.waiting > 1);
    let sentence = |queue: &Queue| {
        let root = &queue.root;
        let name = task(root.comm.as_str(), root.pid, root.tid);
        let waits = match (root.cause, &root.sleeps_in) {
            (Some(its_cause), _) => {
                format!("which waits for {}", cause(its_cause, root.detail.as_ref()))
            }
            (None, Some(function)) => format!("which sleeps in {function}"),
            (None, None) => "which is not blocked itself".to_owned(),
        };
        let count = grouped(queue.waiting);
        let text = if queue.is_circle {
            format!(
                "{count} tasks wait for each other: {} of {name}, {waits}. If that lasts, it is a \
                 deadlock",
                queue.cause
            )
        } else {
            format!("{count} tasks wait for {} of {name}, {waits}", queue.cause)
        };
        wrap(&text, columns, INDENT)
    };
    queues.flat_map(sentence).collect()
}

/// Episodes by length, a line a cause.
pub(super) fn lengths(lengths: &[CauseLengths], columns: usize) -> Vec<Line> {
    let line = |lengths: &CauseLengths| {
        let buckets = (0..).zip(&lengths.buckets).filter(|(_, count)| **count > 0);
        let bucket = |(power, count): (u32, &u64)| {
            let from = if power == 0 { 0 } else { 1_000 << power };
            Line::plain(format!("{}: {}", age(from), grouped(*count)))
        };
        let head = format!("  {} {}", lengths.cause, grouped(lengths.episodes));
        let head = std::iter::once(Line::plain(head));
        flow(head.chain(buckets.map(bucket)), columns)
    };
    lengths.iter().flat_map(line).collect()
}

/// What says that rows were left out.
pub(super) fn left_out(rows: u64) -> String {
    format!(".. {}", counted(rows, "more row"))
}

/// What was lost, the probes, tracer's own cost.
pub(super) fn footer(snapshot: &Snapshot, columns: usize) -> Vec<Line> {
    let (in_force, all) = snapshot.hooks_in_force;
    let style = if in_force < all {
        Style::Red
    } else {
        Style::Plain
    };
    let mut parts = lost(&snapshot.lost);
    parts.push(Line::styled(style, format!("hooks {in_force} of {all}")));
    parts.extend(own_cost(&snapshot.own));
    flow(parts, columns)
}

fn lost(lost: &[Lost]) -> Vec<Line> {
    let parts: Vec<_> = lost
        .iter()
        .filter(|lost| lost.count > 0)
        .map(|lost| {
            Line::styled(
                Style::Red,
                format!("lost {} {}", grouped(lost.count), lost.reason),
            )
        })
        .collect();
    if parts.is_empty() {
        vec![Line::plain("lost 0")]
    } else {
        parts
    }
}

/// What tracer takes, in parts.
pub(super) fn own_cost(own: &OwnCost) -> Vec<Line> {
    let programs = match own.bpf_ns {
        Some(ns) => cpu_percent_of_ns(ns),
        None => "not measured yet".to_owned(),
    };
    vec![
        Line::plain(format!(
            "tracer itself: {} of a CPU",
            cpu_percent(own.cpu_ratio)
        )),
        Line::plain(format!("its probes: {programs}")),
        Line::plain(format!(
            "{}, maps {}",
            bytes(own.rss_bytes),
            bytes(own.map_bytes)
        )),
    ]
}
