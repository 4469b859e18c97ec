//! Output of libtest, as it really looks, and what is counted from it.

use super::*;

fn tally(output: &str) -> Tally {
    let mut tally = Tally::default();
    output.lines().for_each(|line| tally.read(line));
    tally
}

fn read_live(tally: &mut Tally, output: &str) {
    output.lines().for_each(|line| tally.read_live(line));
}

fn counts(tally: &Tally) -> (usize, usize, usize) {
    (tally.passed, tally.failed, tally.skipped.len())
}

#[test]
fn several_programs_are_summed() {
    let tally = tally(
        "running 2 tests\n\
         test a ... ok\n\
         test b ... ok\n\n\
         test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\n\
         running 0 tests\n\n\
         test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s\n\
         test result: FAILED. 10 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s\n",
    );
    assert_eq!(counts(&tally), (12, 3, 0));
}

#[test]
fn a_test_that_says_skipped_is_not_a_pass() {
    let tally = tally(
        "running 3 tests\n\
         test oom::global ... SKIPPED oom::global: no swap: and no memory\n\
         ok\n\
         SKIPPED oom::memcg: cgroup v1 only\n\
         SKIPPED oom::memcg: and read-only\n\
         test sched::wait ... ok\n\
         test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n",
    );
    assert_eq!(counts(&tally), (1, 0, 2));
    assert_eq!(
        tally.skipped[0],
        Skip {
            test: "oom::global".to_owned(),
            reason: "no swap: and no memory".to_owned()
        }
    );
    assert_eq!(tally.skipped[1].reason, "cgroup v1 only");
}

#[test]
fn a_test_that_says_skipped_and_fails_has_failed() {
    let tally = tally(
        "test oom::global ... SKIPPED global: no swap\n\
         FAILED\n\n\
         failures:\n\n\
         ---- oom::global stdout ----\n\
         \x20   not a name\n\n\
         failures:\n\
         \x20   oom::global\n\n\
         test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n",
    );
    assert_eq!(counts(&tally), (4, 1, 0));
}

#[test]
fn what_failing_tests_said_is_said_again() {
    let mut tally = tally(
        "test episodes ... episodes: 59.0, expected 60.0 +- 0.0\n\
         \n\
         thread 'episodes' (310) panicked at tests/tests/truth.rs:69:5:\n\
         episodes: 59 is not 60 +- 0\n\
         note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n\
         FAILED\n\
         test other ... \n\
         thread 'other' panicked at src/lib.rs:1:1:\n\
         assertion `left == right` failed\n\
         \x20 left: 1\n\
         \x20right: 2\n\
         FAILED\n\
         test third ... ok\n",
    );
    tally.end();
    assert_eq!(
        tally.failures(),
        "failed episodes: episodes: 59 is not 60 +- 0\n\
         failed other: assertion `left == right` failed left: 1 right: 2\n"
    );
}

#[test]
fn ignored_tests_are_skipped_with_their_reason() {
    let tally = tally(
        "test slow ... ignored, takes an hour\n\
         test src/lib.rs - f (line 3) ... ignored\n\
         test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.10s\n",
    );
    assert_eq!(counts(&tally), (5, 0, 2));
    assert_eq!(tally.skipped[0].reason, "takes an hour");
    assert_eq!(tally.skipped[1].reason, "marked #[ignore]");
}

#[test]
fn a_program_that_died_is_one_failure_and_leaves_nothing_for_the_next() {
    let mut tally = tally(
        "running 2 tests\n\
         test a ... SKIPPED a: no reason that counts\n\
         running 1 test\n\
         test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
    );
    assert_eq!(counts(&tally), (1, 1, 0));
    tally.end();
    assert_eq!(counts(&tally), (1, 1, 0));
    tally.read("running 1 test");
    tally.end();
    assert_eq!(counts(&tally), (1, 2, 0));
}

#[test]
fn live_tests_are_counted_one_by_one() {
    let mut tally = tally(
        "running 1 test\n\
         test unit ... ok\n\
         test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
    );
    read_live(
        &mut tally,
        "running 4 tests\n\
         --- truth::good\n\
         test result: ok. 70 passed; 0 failed; 0 ignored\n\
         test truth::good ... ok <1.000s>\n\
         --- truth::slow\n\
         thread 'truth::slow' (7) panicked at truth.rs:1:1:\n\
         too slow\n\n\
         second try truth::slow: CPUs stand still\n\
         test truth::slow ... ok <2.000s> (2nd)\n\
         --- truth::bad\n\
         thread 'truth::bad' (8) panicked at truth.rs:2:1:\n\
         59 is not 60\n\
         test truth::bad ... FAILED <2.000s>\n\
         --- oom::swap\n\
         SKIPPED swap: there is none\n\
         test oom::swap ... ok <0.010s>\n\
         test result: FAILED. 3 passed; 1 failed; 0 ignored\n",
    );
    tally.end();
    assert_eq!(tally.closing_line(), "3 passed, 1 failed, 1 skipped");
    assert_eq!(
        tally.second_tries(),
        "passed at the second try: truth::slow\n"
    );
    assert_eq!(
        tally.failures(),
        "failed truth::slow: too slow\nfailed truth::bad: 59 is not 60\n"
    );
}

#[test]
fn live_tests_without_a_result_are_one_failure() {
    let mut tally = Tally::default();
    read_live(
        &mut tally,
        "running 9 tests\n\
         --- truth::good\n\
         test truth::good ... ok <1.000s>\n\
         --- truth::last\n\
         test result: ok. 2 passed; 0 failed; 0 ignored\n",
    );
    tally.end();
    assert_eq!(counts(&tally), (1, 1, 0));
    tally.end();
    assert_eq!(counts(&tally), (1, 1, 0), "the next has nothing of it");
}

#[test]
fn what_was_counted_elsewhere_is_added() {
    let mut whole = tally("test result: ok. 2 passed; 0 failed; 0 ignored\n");
    let other = tally("test result: FAILED. 3 passed; 1 failed; 0 ignored\nrunning 2 tests\n");
    whole.merge(other);
    assert_eq!(counts(&whole), (5, 2, 0));
}

#[test]
fn lines_that_only_look_alike_are_not_counted() {
    let tally = tally(
        "running late tests\n\
         test result: none of yours\n\
         a line about SKIPPED tests: none\n\
         test result: ok. many passed; 0 failed\n",
    );
    assert_eq!(counts(&tally), (0, 0, 0));
    assert!(!tally.program.running);
}

#[test]
fn the_closing_line_has_its_form() {
    assert_eq!(
        Tally::default().closing_line(),
        "0 passed, 0 failed, 0 skipped"
    );
}
