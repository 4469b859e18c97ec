//! Output of libtest, as it really looks, and what is counted from it.

use super::*;

fn tally(output: &str) -> Tally {
    let mut tally = Tally::default();
    read(&mut tally, output);
    tally
}

fn read(tally: &mut Tally, output: &str) {
    output.lines().for_each(|line| tally.read(line));
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
    let tally = tally(
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

/// A program that fails these tests, each at the first line of its output.
fn failing(names: &[&str]) -> String {
    let failures: String = names.iter().map(|name| format!("    {name}\n")).collect();
    let count = names.len();
    format!(
        "\nrunning 9 tests\n\
         test good ... ok\n\
         test no_swap ... SKIPPED no_swap: there is none\n\
         ok\n\
         test bad ... episodes: 59.0000, expected 60.0000 +- 0.0000\n\
         FAILED\n\n\
         failures:\n\nfailures:\n{failures}\n\
         test result: FAILED. 2 passed; {count} failed; 0 ignored; 0 measured; 0 filtered out; finished in 54.00s\n\n"
    )
}

#[test]
fn a_pass_at_the_second_try_is_a_pass_and_is_named() {
    let mut tally = tally(&failing(&["bad", "mod::slow"]));
    assert_eq!(counts(&tally), (1, 2, 1));
    assert_eq!(tally.again(), ["bad", "mod::slow"]);
    read(
        &mut tally,
        "\nrunning 2 tests\n\
         test bad ... episodes: 60.0000, expected 60.0000 +- 0.0000\n\
         ok\n\
         test mod::slow ... took: 3\n\
         FAILED\n\n\
         failures:\n\nfailures:\n    mod::slow\n\n\
         test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out; finished in 9.00s\n\n",
    );
    tally.end();
    assert_eq!(counts(&tally), (2, 1, 1));
    assert_eq!(tally.second_tries(), "passed at the second try: bad\n");
    assert_eq!(tally.closing_line(), "2 passed, 1 failed, 1 skipped");
    assert!(tally.again().is_empty(), "there is no third");
}

#[test]
fn what_is_skipped_at_the_second_try_has_failed() {
    let mut tally = tally(&failing(&["mod::bad"]));
    assert_eq!(tally.again(), ["mod::bad"]);
    read(
        &mut tally,
        "running 1 test\n\
         test mod::bad ... SKIPPED bad: no disk any more\n\
         ok\n\
         test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 8 filtered out; finished in 0.10s\n",
    );
    assert_eq!(counts(&tally), (1, 1, 1));
    assert_eq!(tally.second_tries(), "");
}

#[test]
fn only_a_few_that_failed_by_name_get_a_second_try() {
    assert_eq!(tally(&failing(&["a", "b", "c"])).again().len(), 3);
    assert!(tally(&failing(&["a", "b", "c", "d"])).again().is_empty());
    let whole = failing(&["bad"]);
    let died = whole.split("FAILED").next().unwrap();
    let mut tally = tally(died);
    assert!(tally.again().is_empty());
    assert_eq!(counts(&tally), (0, 1, 0));
}

#[test]
fn a_second_try_that_dies_or_never_begins_leaves_the_counts() {
    let other = "\nrunning 1 test\ntest other ... ok\n\
                 test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
    let died = "\nrunning 1 test\ntest bad ... ";
    for second in [died, ""] {
        let mut tally = tally(&failing(&["bad"]));
        tally.again();
        read(&mut tally, second);
        read(&mut tally, other);
        assert_eq!(counts(&tally), (2, 1, 1), "{second:?}");
        assert_eq!(tally.second_tries(), "");
    }
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
