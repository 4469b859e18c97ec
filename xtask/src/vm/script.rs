//! What a guest runs: its job, as text for busybox's shell.
//!
//! A program that fails is asked about over the serial line: the tests to run once
//! more, by themselves, are the answer, as xtask has counted them anyway. Nothing
//! stands between a program and the line, so what it says comes when it says it.

use crate::vm::image;
use crate::vm::kernels::Kernel;
use crate::vm::results;

/// Test programs that run in guests. The cost of a hook under emulation says
/// nothing of its cost on a CPU, so those stay outside.
const PROGRAMS: [&str; 11] = [
    GUEST,
    "truth",
    "causes",
    "storms",
    "events",
    "tcp",
    "sockets",
    "syn",
    "oom",
    "nodes",
    // The last: it moves the memory controller, for good.
    "memory_v1",
];
/// Tests of what cannot be done to a host.
pub(crate) const GUEST_ONLY: [&str; 3] = [GUEST, "nodes", "memory_v1"];
/// Those of any kind.
const GUEST: &str = "guest";
/// The test that needs all of the host's CPUs, and its program.
pub(super) const ALONE: (&str, &str) = ("truth", "the_kernels_samples_are_named");
/// The one test for kernels that tracer refuses.
pub(super) const REFUSED: &str = "a_kernel_below_the_floor_is_refused";

/// The serial line that carries what a job says, and the answers to it.
const SERIAL: &str = "/dev/ttyS1";
/// `run PROGRAM WHICH..`. The question is on a line of its own, even after a program
/// that died in the middle of one; the answer is names of tests, or nothing.
const RUN: &str = r#"
run() {
    once="$1 --test-threads=1 --nocapture"
    shift
    $once "$@" && return
    echo
    echo $question
    read -r names <$answers
    [ -n "$names" ] && $once --exact $names || failed=1
}
"#;

/// The job for a kernel; its status is 1 when a test has failed.
pub(super) fn of(kernel: &Kernel, pattern: Option<&str>) -> String {
    let mut script = String::new();
    for (name, value) in image::VARIABLES {
        script += &format!("export {name}={value}\n");
    }
    let doctor = results::DOCTOR;
    script += &format!("echo \"{doctor}$(tracer doctor --format json)\"\n");
    script += &opening(SERIAL);
    let run = |program: &str, which: &str| format!("run {} {which}\n", image::test_path(program));
    // A kernel that is refused has one test, which the others have not.
    if kernel.refused {
        return script + &run(GUEST, &format!("--exact {REFUSED}")) + "exit $failed\n";
    }
    let pattern = pattern.unwrap_or("");
    let (of, alone) = ALONE;
    let is_program = PROGRAMS.contains(&pattern);
    for program in PROGRAMS {
        if is_program && program != pattern {
            continue;
        }
        let tests = if is_program { "" } else { pattern };
        let which = format!("--skip {REFUSED} --skip {alone} {}", quoted(tests));
        script += &run(program, &which);
    }
    if alone.contains(pattern) {
        // On a line of its own, even after a program that died in the middle of
        // one. The others are stopped within a second.
        script += &format!("echo\necho {}\nsleep 1\n", results::ALONE);
        script += &run(of, &format!("--exact {alone}"));
        script += &format!("echo {}\n", results::TOGETHER);
    }
    script + "exit $failed\n"
}

/// What `run` needs; answers come from a file.
fn opening(answers: &str) -> String {
    let question = results::AGAIN;
    format!("failed=0\nquestion={question}\nanswers={answers}{RUN}")
}

/// A word for the shell, whatever is in it; nothing for an empty one.
fn quoted(word: &str) -> String {
    if word.is_empty() {
        return String::new();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
