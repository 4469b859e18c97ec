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
const PROGRAMS: [&str; 18] = [
    // The first: others leave kills and errors.
    IDLE,
    GUEST,
    CHECK_GUEST,
    "truth",
    "causes",
    "storms",
    "events",
    "tcp",
    "sockets",
    "syn",
    "oom",
    NODES,
    "check",
    "check_cpu",
    "check_disks",
    "check_limits",
    "check_network",
    // The last: it moves the memory controller, for good.
    MEMORY_V1,
];
/// Tests of these programs that stay outside: they hold tracer against what busybox has
/// not or has otherwise, or no kernel makes a difference to them.
const OUTSIDE: [&str; 11] = [
    "memory_is_that_of_free",
    "sockets_are_those_of_ss",
    "the_status_is_what_was_asked_for",
    "cpus_are_those_of_mpstat",
    "all_cpus_are_those_of_vmstat",
    "a_pinned_hog_is_named_with_its_cpu",
    "zombies_are_put_on_their_parent",
    "a_process_near_its_limit_of_descriptors_is_named",
    "space_and_inodes_are_those_of_df",
    "what_a_deleted_file_holds_is_found",
    "what_a_disk_does_is_what_the_kernel_counts",
];
/// A host that is well.
const IDLE: &str = "check_idle";
/// What cannot be done to a host.
const GUEST: &str = "guest";
/// `tracer check` of the same.
const CHECK_GUEST: &str = "check_guest";
/// A host of two nodes.
const NODES: &str = "nodes";
/// Memory cgroups of v1.
const MEMORY_V1: &str = "memory_v1";
/// Programs that do not run on the host.
pub(crate) const GUEST_ONLY: [&str; 5] = [IDLE, GUEST, CHECK_GUEST, NODES, MEMORY_V1];
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
        let outside = OUTSIDE.map(|test| format!("--skip {test} ")).concat();
        let which = format!("--skip {REFUSED} --skip {alone} {outside}{}", quoted(tests));
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
