//! `tracer check`: the whole first look at a host, a verdict a line.
//!
//! Each row reads what it needs on a thread of its own, through `context.rs`, and judges
//! it: `rows/` has a file a row with the pure judge, `read/` the readers. A row that does
//! not answer in time is a finding too. `limits.rs` has every limit.

mod context;
pub mod figures;
pub mod finding;
pub mod limits;
mod read;
mod report;
mod rows;
mod text;

use std::{
    io::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use self::{
    context::Context,
    finding::{Finding, ROWS, Row, RowReport, Verdict},
    limits::Limits,
    report::Page,
};
use crate::{
    cli::{CheckArgs, ExitCodes, FailOn, PlainFormat},
    clock,
    host::facts,
    rights,
};

/// A row has so long beyond the sample.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks, and says what it found; 1 when something is as bad as `--fail-on`, or, with that,
/// when a row could not look.
///
/// # Errors
/// The file of limits is wrong, or standard output cannot be written.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    match run_once(args) {
        // What could not look at all is unknown.
        Err(error) if args.exit_codes == Some(ExitCodes::Nagios) => {
            let _ = writeln!(
                io::stderr(),
                "tracer: {}",
                crate::text::lines(&format!("{error:#}"))
            );
            Ok(ExitCode::from(nagios(Verdict::Unknown)))
        }
        done => done,
    }
}

/// The status of a monitoring plugin (Monitoring Plugins Development Guidelines, Plugin
/// Return Codes).
fn nagios(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Ok | Verdict::Note => 0,
        Verdict::Warning => 1,
        Verdict::Critical => 2,
        Verdict::Unknown => 3,
    }
}

fn run_once(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let rows: Vec<Row> = if args.only.is_empty() {
        ROWS.to_vec()
    } else {
        ROWS.into_iter()
            .filter(|row| args.only.contains(row))
            .collect()
    };
    let mut kept_rights = give_up_rights(if args.print_config { &[] } else { &rows });
    let limits = Limits::read(args.config.as_deref())?;
    if args.print_config {
        write(limits.print().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let began = clock::monotonic();
    let context = Arc::new(Context::new(args, &rows, limits));
    let reports = look(&context, &rows);
    kept_rights.extend(context.kept_right());
    say(&kept_rights);
    let worst = reports.iter().map(RowReport::verdict).max();
    let is_blind = reports.iter().any(|report| report.is_blind);
    let page = Page {
        host: facts::host(),
        time: clock::wall(),
        sample_ns: context.sample_ns(),
        took_ns: clock::monotonic().since_ns(began),
        reports,
    };
    let bytes = match args.format {
        PlainFormat::Json => report::json(&page).into_bytes(),
        PlainFormat::Text => {
            let (columns, is_colored) = crate::session::width_and_color();
            let text = text::text(&page, args.all, columns, is_colored);
            crate::session::encode(text.into_bytes())
        }
    };
    write(&bytes)?;
    let fails_from = args.fail_on.map(|fail_on| match fail_on {
        FailOn::Unknown => Verdict::Unknown,
        FailOn::Warning => Verdict::Warning,
        FailOn::Critical => Verdict::Critical,
    });
    let has_failed = fails_from.is_some_and(|from| is_blind || worst >= Some(from));
    let status = match args.exit_codes {
        Some(ExitCodes::Nagios) => nagios(worst.unwrap_or_default()),
        None => u8::from(has_failed),
    };
    // A thread that still waits for a mount or a device is not waited for.
    std::process::exit(i32::from(status));
}

/// Keeps what these rows need; what could not be given up.
fn give_up_rights(rows: &[Row]) -> Vec<String> {
    let wants_events = Context::wants_events(rows);
    // It reads in other network namespaces.
    let mut kept = match wants_events || rows.contains(&Row::Network) {
        true => rights::CHECK.give_up(),
        false => rights::CHECK_FILES.give_up(),
    };
    if !wants_events {
        kept.extend(rights::attached());
    }
    kept
}

/// Says on standard error which rights could not be given up.
fn say(kept_rights: &[String]) {
    let lines = kept_rights.iter();
    let lines: String = lines
        .map(|kept| format!("tracer: rights: {kept}\n"))
        .collect();
    // Who closed it does not want to know.
    let _ = io::stderr().write_all(lines.as_bytes());
}

fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Every row, side by side.
fn look(context: &Arc<Context>, rows: &[Row]) -> Vec<RowReport> {
    let (answer, answers) = mpsc::channel();
    for &row in rows {
        let (context, answer) = (Arc::clone(context), answer.clone());
        thread::spawn(move || {
            let look = AssertUnwindSafe(|| rows::look(row, &context));
            if let Ok(report) = catch_unwind(look) {
                let _ = answer.send(report);
            }
        });
    }
    drop(answer);
    let mut reports: Vec<RowReport> = Vec::new();
    let until = context.until() + PATIENCE.as_nanos() as u64;
    while reports.len() < rows.len() {
        let left = Duration::from_nanos(until.since_ns(clock::monotonic()));
        let Ok(report) = answers.recv_timeout(left) else {
            break;
        };
        reports.push(report);
    }
    for &row in rows {
        if !reports.iter().any(|report| report.row == row) {
            reports.push(silent(row));
        }
    }
    reports.sort_by_key(|report| (std::cmp::Reverse(report.verdict()), report.row));
    reports
}

/// The report of a row that has not answered.
fn silent(row: Row) -> RowReport {
    RowReport {
        findings: vec![Finding {
            verdict: Verdict::Critical,
            what: format!(
                "no answer within {} s of the sample's end",
                PATIENCE.as_secs()
            ),
            why: "what it reads hangs: a file system, a device or the kernel".to_owned(),
            next: "sudo tracer run --by cause".to_owned(),
            ..Finding::default()
        }],
        ..RowReport::new(row, "no answer", Vec::new())
    }
}
