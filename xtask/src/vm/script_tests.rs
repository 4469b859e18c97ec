//! The job's shell, with functions in place of test programs.

use std::process::Command;

use super::*;
use crate::vm::guest::End;
use crate::vm::results::{Log, Outcome, Tested};
use crate::{clock, process};

/// One that ends well.
const LAST: &str = r"last() {
    printf '\nrunning 1 test\n'
    echo 'test c ... ok'
    echo 'test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.00s'
}
";

/// Runs two programs, the first of which is this; what became of the tests, and the
/// script's status.
fn outcomes(first: &str) -> (Vec<Tested>, i32) {
    let opening = opening("/dev/stdin");
    let script = format!("{opening}{first}{LAST}run first --skip d\nrun last\nexit $failed");
    let mut log = Log::default();
    let status = process::converse(Command::new("/bin/sh").args(["-c", &script]), |line| {
        if line == results::AGAIN {
            return Some(log.again(clock::now()));
        }
        log.read(line, clock::now());
        None
    });
    let status = status.unwrap().code().unwrap();
    (log.tests(&End::Left(status), clock::now()), status)
}

/// Name, outcome and tries of each test.
fn told(tests: &[Tested]) -> Vec<(&str, bool, u32)> {
    let tests = tests.iter();
    tests
        .map(|test| {
            (
                test.name.as_str(),
                test.outcome == Outcome::Passed,
                test.tries,
            )
        })
        .collect()
}

/// A program of two tests, of which `b` fails; run once more, it says this.
fn failing(second: &str) -> String {
    format!(
        "first() {{
    printf '\\nrunning 2 tests\\n'
    if [ \"$*\" = '--test-threads=1 --nocapture --exact b' ]; then {second}; return; fi
    [ \"$*\" = '--test-threads=1 --nocapture --skip d' ] || exit 9
    echo 'test a ... ok'
    echo 'test b ... blocked: 59, expected 60'
    echo \"thread 'b' panicked at truth.rs:1:1:\"
    printf 'FAILED\\n\\nfailures:\\n\\nfailures:\\n    b\\n\\n'
    echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 1 filtered out; finished in 3.00s'
    return 101
}}
"
    )
}

#[test]
fn a_test_that_passes_at_the_second_try_has_passed() {
    let (tests, status) = outcomes(&failing(
        "echo 'test b ... ok'; echo 'test result: ok. 1 passed; 0 failed; 0 ignored'",
    ));
    let expected = [("a", true, 1), ("b", true, 2), ("c", true, 1)];
    assert_eq!(told(&tests), expected);
    assert_eq!(status, 0);
}

#[test]
fn a_test_that_fails_twice_has_failed() {
    let (tests, status) = outcomes(&failing(
        "printf 'test b ... FAILED\\nfailures:\\n    b\\ntest result: FAILED. 0 passed; 1 failed\\n'; return 101",
    ));
    let expected = [("a", true, 1), ("b", false, 2), ("c", true, 1)];
    assert_eq!(told(&tests), expected);
    assert_eq!(status, 1);
}

#[test]
fn a_program_that_dies_is_not_run_again() {
    let first = "first() { printf '\\nrunning 2 tests\\n'; printf 'test a ... '; sh -c 'kill -KILL $$'; }\n";
    let (tests, status) = outcomes(first);
    assert_eq!(told(&tests), [("a", false, 1), ("c", true, 1)]);
    assert_eq!(status, 1);
}

#[test]
fn a_second_try_that_dies_is_a_failure() {
    let began = "printf 'test b ... '; sh -c 'kill -KILL $$'";
    for (second, tries) in [(began, 2), ("return 3", 1)] {
        let (tests, status) = outcomes(&failing(second));
        let expected = [("a", true, 1), ("b", false, tries), ("c", true, 1)];
        assert_eq!(told(&tests), expected);
        assert_eq!(status, 1);
    }
}

#[test]
fn a_pattern_stays_one_word_of_the_shell() {
    assert_eq!(quoted("blocked"), "'blocked'");
    assert_eq!(quoted("a b'; reboot"), r"'a b'\''; reboot'");
    assert_eq!(quoted(""), "");
}
