//! What a guest runs: its job, as text for busybox's shell, and which live tests that is.
//!
//! Where a test may run, and beside which others, is said beside the test (`tests/`).
//! Here is only what depends on the kernel.

use crate::flake::Repeat;
use crate::vm::guest::LIMIT_S;
use crate::vm::image;
use crate::vm::kernels::{Kernel, Suite};
use crate::vm::results;

/// The one test for kernels that tracer refuses.
pub(super) const REFUSED: &str = "guest::a_kernel_below_the_floor_is_refused";

/// Which tests the guests run.
#[derive(Clone, Debug)]
pub(super) enum Plan {
    /// On each kernel its suite, tests side by side.
    Gate,
    /// On each kernel the full suite, each test alone.
    All,
    /// Of the full suite the tests whose name contains this.
    Some { pattern: String, alone: bool },
    /// These, many times.
    Repeat(Repeat),
}

impl Plan {
    /// The suite that a kernel runs.
    pub(super) fn suite(&self, kernel: &Kernel) -> Suite {
        match (self, kernel.suite) {
            (_, Suite::Refused) => Suite::Refused,
            (Plan::Gate, suite) => suite,
            _ => Suite::Full,
        }
    }

    /// Whether each test is to run alone.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self, Plan::All | Plan::Some { alone: true, .. })
    }

    /// Whether it runs tests many times, and is no verdict on a kernel.
    pub(super) fn is_repeat(&self) -> bool {
        matches!(self, Plan::Repeat(_))
    }

    /// How long a guest may take; however often a test is to run, one that hangs is silent.
    pub(super) fn limit_s(&self) -> u64 {
        match self.is_repeat() {
            true => 24 * LIMIT_S,
            false => LIMIT_S,
        }
    }

    /// Whether a kernel may have no test of it.
    pub(super) fn may_be_none(&self) -> bool {
        matches!(self, Plan::Some { .. } | Plan::Repeat(_))
    }

    /// What the live tests' program is told on a kernel; nothing when the kernel has no
    /// test of the plan.
    pub(super) fn arguments(&self, kernel: &Kernel) -> Option<Vec<String>> {
        if let Plan::Repeat(repeat) = self {
            return Some(repeat.arguments());
        }
        let suite = self.suite(kernel);
        let pattern = match self {
            Plan::Some { pattern, .. } => Some(pattern.as_str()),
            _ => None,
        };
        // The others have not that one test.
        let words = match suite {
            Suite::Refused if !REFUSED.contains(pattern.unwrap_or("")) => return None,
            Suite::Refused => vec!["--exact", REFUSED],
            _ => {
                let mut words = vec!["--suite", suite.word(), "--skip", REFUSED];
                words.extend(self.is_alone().then_some("--serial"));
                words.extend(pattern);
                words
            }
        };
        Some(words.into_iter().map(str::to_owned).collect())
    }

    /// Programs that keep a CPU busy beside the tests.
    fn load(&self) -> u32 {
        match self {
            Plan::Repeat(repeat) => repeat.load,
            _ => 0,
        }
    }
}

/// The job for a kernel; its status is that of the live tests' program. Nothing when
/// there are no tests for it.
pub(super) fn of(kernel: &Kernel, plan: &Plan) -> Option<String> {
    let arguments = plan.arguments(kernel)?;
    let mut script = String::new();
    for (name, value) in image::VARIABLES {
        script += &format!("export {name}={value}\n");
    }
    let doctor = results::DOCTOR;
    script += &format!("echo \"{doctor}$(tracer doctor --format json)\"\n");
    for _ in 0..plan.load() {
        // They end with the guest.
        script += "while :; do :; done &\n";
    }
    script += image::LIVE;
    for word in &arguments {
        script += &format!(" {}", quoted(word));
    }
    Some(script + "\n")
}

/// A word for the shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernels::KERNELS;

    fn told(name: &str, plan: &Plan) -> Option<String> {
        let kernel = KERNELS.iter().find(|kernel| kernel.name == name).unwrap();
        Some(plan.arguments(kernel)?.join(" "))
    }

    fn some(pattern: &str, alone: bool) -> Plan {
        Plan::Some {
            pattern: pattern.to_owned(),
            alone,
        }
    }

    #[test]
    fn the_gate_has_a_suite_a_kernel() {
        let others = format!("--skip {REFUSED}");
        let told = |name| told(name, &Plan::Gate).unwrap();
        assert_eq!(told("5.10"), format!("--exact {REFUSED}"));
        assert_eq!(told("6.1"), format!("--suite full {others}"));
        assert_eq!(told("6.12"), format!("--suite contract {others}"));
        assert_eq!(told("6.18"), format!("--suite contract {others}"));
        assert_eq!(told("7.x"), format!("--suite full {others}"));
    }

    #[test]
    fn all_is_the_full_suite_alone_on_every_kernel() {
        let full = format!("--suite full --skip {REFUSED} --serial");
        for kernel in &KERNELS[1..] {
            assert_eq!(told(kernel.name, &Plan::All).unwrap(), full);
        }
        assert_eq!(told("5.10", &Plan::All), Some(format!("--exact {REFUSED}")));
    }

    #[test]
    fn a_pattern_goes_to_the_full_suite_and_to_a_refused_kernel_if_it_fits() {
        let full = format!("--suite full --skip {REFUSED}");
        assert_eq!(
            told("6.12", &some("oom", false)),
            Some(format!("{full} oom"))
        );
        assert_eq!(
            told("6.12", &some("oom", true)),
            Some(format!("{full} --serial oom"))
        );
        assert_eq!(told("5.10", &some("oom", false)), None);
        assert!(told("5.10", &some("refused", false)).is_some());
    }

    #[test]
    fn the_job_runs_the_tests_once_beside_what_is_asked_for() {
        let repeat = Plan::Repeat(Repeat {
            names: vec!["causes::a_queue".to_owned(), "it's".to_owned()],
            times: 20,
            load: 2,
        });
        let job = of(&KERNELS[1], &repeat).unwrap();
        assert!(job.contains("export TRACER_IN_GUEST=1\n"));
        assert!(job.contains("echo \"::doctor $(tracer doctor --format json)\"\n"));
        assert_eq!(job.matches("while :; do :; done &\n").count(), 2);
        let last = job.lines().last().unwrap();
        let words = r"'--exact' '--times' '20' 'causes::a_queue' 'it'\''s'";
        assert_eq!(last, format!("/tests/live {words}"));
    }
}
