//! What the kernel says of itself, judged.

use super::{Clock, Log, MemoryErrors, Reading, Seen, judge};
use crate::check::{
    finding::{RowReport, Verdict},
    limits::Limits,
    rows::messages::Kind,
};

const S: u64 = 1_000_000;

fn calm() -> Reading {
    Reading {
        now_us: 100_000 * S,
        uptime_s: Some(100_000.0),
        tainted: Some(0),
        clock: Some(Clock {
            current: "tsc".into(),
            available: "tsc hpet acpi_pm".into(),
        }),
        log: Some(Log {
            oldest_us: Some(0),
            is_from_boot: Some(true),
            ..Log::default()
        }),
        ..Reading::default()
    }
}

fn look(reading: &Reading) -> RowReport {
    judge(reading, &Limits::default())
}

#[test]
fn a_calm_kernel() {
    let report = look(&calm());
    assert_eq!(report.verdict(), Verdict::Ok);
    assert_eq!(
        report.summary,
        "up 1 d 3 h   not tainted   clock tsc   nothing in the log"
    );
}

#[test]
fn a_taint_by_modules_is_a_note_and_one_by_a_death_is_not() {
    for (bits, verdict) in [
        (1, Verdict::Note),
        (1 << 12 | 1 << 13, Verdict::Note),
        (1 << 9, Verdict::Note),
        (1 << 18, Verdict::Note),
        (1 << 40, Verdict::Note),
        (1 << 4, Verdict::Warning),
        (1 << 5, Verdict::Warning),
        (1 << 7 | 1, Verdict::Warning),
        (1 << 14, Verdict::Warning),
    ] {
        let tainted = Some(bits);
        assert_eq!(look(&Reading { tainted, ..calm() }).verdict(), verdict);
    }
    let report = look(&Reading {
        tainted: Some(1 << 7 | 1),
        ..calm()
    });
    assert_eq!(
        report.findings[0].who,
        [
            "D: the kernel died once (oops or BUG)",
            "P: a proprietary module was loaded"
        ]
    );
    assert!(report.summary.contains("tainted PD"));
}

#[test]
fn a_message_of_the_last_hour_is_a_warning() {
    for (ago_s, verdict) in [
        (1, Verdict::Warning),
        (3_600, Verdict::Warning),
        (3_601, Verdict::Note),
    ] {
        let mut reading = calm();
        let at_us = reading.now_us - ago_s * S;
        let mut seen = Seen {
            count: 7,
            last_us: at_us,
            ..Seen::default()
        };
        for older in [300, 200, 100, 0] {
            seen.keep(at_us - older * S, format!("{older}").as_str().into());
        }
        let log = reading.log.as_mut().unwrap();
        log.seen.insert(Kind::HungTask, seen);
        let report = look(&reading);
        assert_eq!(report.verdict(), verdict);
        let finding = &report.findings[0];
        assert!(finding.what.starts_with("7 hung tasks in the kernel's log"));
        let who: Vec<&str> = finding.who.iter().map(|w| &w[w.len() - 3..]).collect();
        assert_eq!(who, [": 0", "100", "200"]);
    }
}

#[test]
fn a_slow_clock_is_found() {
    for (current, verdict) in [
        ("hpet", Verdict::Warning),
        ("acpi_pm", Verdict::Warning),
        ("jiffies", Verdict::Warning),
        ("kvm-clock", Verdict::Ok),
        ("arch_sys_counter", Verdict::Ok),
    ] {
        let clock = Some(Clock {
            current: current.into(),
            available: "hpet acpi_pm".into(),
        });
        assert_eq!(look(&Reading { clock, ..calm() }).verdict(), verdict);
    }
}

#[test]
fn memory_that_cannot_be_corrected_is_critical() {
    for (corrected, uncorrected, verdict) in [
        (0, 0, Verdict::Ok),
        (5, 0, Verdict::Note),
        (0, 1, Verdict::Critical),
    ] {
        let memory = vec![MemoryErrors {
            controller: "mc0".into(),
            corrected,
            uncorrected,
        }];
        assert_eq!(look(&Reading { memory, ..calm() }).verdict(), verdict);
    }
}

#[test]
fn a_log_that_was_overwritten_says_how_far_it_goes_back() {
    let mut reading = calm();
    let log = reading.log.as_mut().unwrap();
    log.is_from_boot = Some(false);
    log.oldest_us = Some(reading.now_us - 60 * S);
    let report = look(&reading);
    assert!(
        report
            .summary
            .ends_with("nothing in the log of the last 1 m"),
        "{}",
        report.summary
    );
    let unread = Reading {
        log: None,
        unseen: vec!["the kernel's log: no".into()],
        ..calm()
    };
    assert_eq!(look(&unread).unseen, unread.unseen);
}
