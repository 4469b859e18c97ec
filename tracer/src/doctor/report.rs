//! The findings as text and as JSON.

use serde::Serialize;

use super::{Check, Examination, State};
use crate::render::json::Hook;

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    version: &'static str,
    can_run: bool,
    checks: Vec<Finding<'a>>,
    hooks: Vec<Hook<'a>>,
}

#[derive(Serialize)]
struct Finding<'a> {
    name: &'a str,
    state: &'static str,
    finding: &'a str,
    advice: &'a str,
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Limited => "limited",
        State::Failed => "failed",
    }
}

pub(super) fn json(found: &Examination) -> String {
    let findings = found.checks.iter().map(|check| Finding {
        name: &check.name,
        state: word(check.state),
        finding: &check.finding,
        advice: &check.advice,
    });
    let report = Report {
        schema: 1,
        version: env!("CARGO_PKG_VERSION"),
        can_run: found
            .checks
            .iter()
            .all(|check| check.state != State::Failed),
        checks: findings.collect(),
        hooks: found.hooks.iter().map(Hook::from).collect(),
    };
    // Strings and numbers only: it cannot fail.
    serde_json::to_string(&report).unwrap_or_default() + "\n"
}

pub(super) fn text(checks: &[Check]) -> String {
    let width = checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    let mut page = String::new();
    for check in checks {
        page += &format!(
            "{:<8} {:<width$}  {}\n",
            word(check.state),
            check.name,
            check.finding
        );
        if !check.advice.is_empty() {
            page += &format!("{:<8} {:<width$}  -> {}\n", "", "", check.advice);
        }
    }
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let verdict = match (count(State::Failed), count(State::Limited)) {
        (0, 0) => "tracer can run here, with everything".into(),
        (0, limited) => format!("tracer can run here; {limited} of {} limited", checks.len()),
        (failed, _) => format!(
            "tracer cannot run here: {failed} of {} failed",
            checks.len()
        ),
    };
    page + "\n" + &verdict + "\n"
}

#[cfg(test)]
mod tests {
    use super::{Check, Examination, State, json, text};
    use crate::snapshot::HookState;

    fn checks() -> Vec<Check> {
        let check = |name: &str, state, finding: &str, advice: &str| Check {
            name: name.into(),
            state,
            finding: finding.into(),
            advice: advice.into(),
        };
        vec![
            check("rights", State::Ok, "CAP_BPF and CAP_PERFMON are there", ""),
            check(
                "jit",
                State::Limited,
                "interpreted",
                "sysctl net.core.bpf_jit_enable=1",
            ),
            check(
                "BTF",
                State::Failed,
                "cannot read \"it\"",
                "a kernel that has it",
            ),
        ]
    }

    #[test]
    fn reports() {
        insta::assert_snapshot!("text", text(&checks()));
        let hook = HookState {
            name: "sched_switch",
            via: "tp_btf sched_switch".into(),
            why: None,
            without: "blocked time",
        };
        let found = Examination {
            checks: checks(),
            hooks: vec![hook],
        };
        insta::assert_snapshot!("json", json(&found));
    }
}
