//! A disk: how busy it is, and how long a request takes.

use super::{Device, User};
use crate::{
    check::{
        finding::{Figure, Finding, Verdict, figure_of},
        limits::{DEVICE_BUSY, DEVICE_WAIT, Limits},
    },
    render::quantity::{bytes, counted, rate},
};

/// In ms; a device that answers faster is busy, and nobody waits for it.
const QUICK_MS: f64 = 5.0;
/// Fewer requests than this say nothing of how long one takes.
const LEAST_PER_S: f64 = 5.0;

/// The figures of a device.
pub(super) fn figures(device: &Device) -> Vec<Figure> {
    let of = |name, value| figure_of(name, &device.name, value);
    let mut figures = vec![of("device_busy_ratio", device.busy)];
    figures.extend(device.wait_ms.map(|ms| of("device_wait_ms", ms)));
    figures.push(of("device_reads_per_s", device.reads_per_s));
    figures.push(of("device_writes_per_s", device.writes_per_s));
    figures
}

/// What is wrong with a device.
pub(super) fn judge(device: &Device, users: &[User], limits: &Limits) -> Vec<Finding> {
    let next = "sudo tracer run --by device".to_owned();
    let mut findings = Vec::new();
    if device.stuck > 0 {
        findings.push(Finding {
            verdict: Verdict::Critical,
            what: format!(
                "{} has {} and finished none while it was watched",
                device.name,
                counted(device.stuck, "request")
            ),
            why: "the device, or the way to it, does not answer".to_owned(),
            next: next.clone(),
            ..Finding::default()
        });
        return findings;
    }
    let load = format!(
        "{} reads, {} writes",
        rate(device.reads_per_s),
        rate(device.writes_per_s)
    );
    // Of all devices together: a process has no counters by device.
    let who: Vec<String> = users.iter().map(user).collect();
    let verdict = limits.judge(&DEVICE_BUSY, device.busy);
    if verdict > Verdict::Ok {
        let quick = device.wait_ms.filter(|ms| *ms < QUICK_MS);
        let after = quick
            .map(|ms| format!(", {ms:.1} ms each"))
            .unwrap_or_default();
        findings.push(Finding {
            verdict: if quick.is_some() {
                Verdict::Note
            } else {
                verdict
            },
            what: format!(
                "{} is {:.0} % busy: {load}{after}",
                device.name,
                device.busy * 100.0
            ),
            who: who.clone(),
            why: limits.why(&DEVICE_BUSY),
            next: next.clone(),
        });
    }
    if let Some(ms) = device.wait_ms
        && device.requests_per_s >= LEAST_PER_S
        && let verdict @ (Verdict::Warning | Verdict::Critical) = limits.judge(&DEVICE_WAIT, ms)
    {
        findings.push(Finding {
            verdict,
            what: format!("{} takes {ms:.0} ms for a request: {load}", device.name),
            who,
            why: limits.why(&DEVICE_WAIT),
            next,
        });
    }
    findings
}

fn user(user: &User) -> String {
    let [read, written] = user.bytes_per_s.map(|per_s| bytes(per_s as u64));
    let children = if user.has_childrens {
        ", with children that ended"
    } else {
        ""
    };
    format!(
        "{}[{}] reads {read}/s, writes {written}/s{children}",
        user.comm, user.pid
    )
}
