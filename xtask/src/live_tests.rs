//! Output of the live tests' program, and what is told of it.

use super::*;

fn read(output: &str) -> Vec<Tested> {
    let mut reader = Reader::default();
    output
        .lines()
        .filter_map(|line| reader.read(line))
        .collect()
}

fn outcomes(tests: &[Tested]) -> Vec<(&str, Outcome, u32)> {
    let tests = tests.iter();
    tests
        .map(|test| (test.name.as_str(), test.outcome.clone(), test.tries))
        .collect()
}

#[test]
fn each_test_has_its_outcome_and_its_time() {
    let tests = read(
        "running 4 tests\n\
         --- causes::a_queue\n\
         blocked: 1.0000, expected 1.0000 +- 0.0200\n\
         test causes::a_queue ... ok <4.312s>\n\
         --- oom::global\n\
         SKIPPED oom::global: no swap: and no memory\n\
         SKIPPED global: and read-only\n\
         test oom::global ... ok <0.100s>\n\
         --- truth::waits\n\
         thread 'truth::waits' (12) panicked at truth.rs:1:1:\n\
         59 is not 60\n\
         note: run with `RUST_BACKTRACE=1`\n\
         test truth::waits ... FAILED <2s>\n\
         --- faults::dump\n\
         test faults::dump ... ignored, takes an hour\n\
         test result: FAILED. 2 passed; 1 failed; 1 ignored\n",
    );
    let skipped = |reason: &str| Outcome::Skipped(reason.to_owned());
    assert_eq!(
        outcomes(&tests),
        [
            ("causes::a_queue", Outcome::Passed, 1),
            ("oom::global", skipped("no swap: and no memory"), 1),
            ("truth::waits", Outcome::Failed, 1),
            ("faults::dump", skipped("takes an hour"), 1),
        ]
    );
    assert_eq!(tests[0].took, Duration::from_millis(4312));
    assert_eq!(tests[2].said, ["59 is not 60"]);
}

#[test]
fn what_a_test_writes_is_never_taken_for_another() {
    let tests = read(
        "--- faults::pipe\n\
         test oom::global ... ok <1s>\n\
         test faults::pipe ... \n\
         test faults::pipe ... ok\n\
         test result: ok. 9 passed; 0 failed; 0 ignored\n\
         running 3 tests\n\
         --- oom::global\n\
         SKIPPED oom::global: nothing of mine\n\
         second try oom::global: nor this\n\
         thread 'main' panicked at src/main.rs:1:1:\n\
         provoked\n\
         test faults::pipe ... ok <0.5s>\n",
    );
    assert_eq!(outcomes(&tests), [("faults::pipe", Outcome::Passed, 1)]);
    assert!(tests[0].said.is_empty(), "what passes has not failed");
}

#[test]
fn a_pass_at_the_second_try_keeps_what_was_said_at_the_first() {
    let first = "--- causes::x\n\
                 thread 'causes::x' panicked at limit:\n\
                 took longer than 120 s\n\n";
    let second = "second try causes::x: its disk is slow\n";
    let end = "test causes::x ... ok <1.2s> (2nd)\n";
    let between = "--- oom::y\ntest oom::y ... ok <1s>\n";
    for output in [
        format!("{first}{second}{end}"),
        format!("{first}{second}--- causes::x\nSKIPPED y: no\n{end}"),
    ] {
        let tests = read(&output);
        assert_eq!(outcomes(&tests), [("causes::x", Outcome::Passed, 2)]);
        assert_eq!(tests[0].said, ["took longer than 120 s"]);
    }
    // Others may end before the second try does.
    let tests = read(&format!("{first}{second}{between}--- causes::x\n{end}"));
    let expected = [
        ("oom::y", Outcome::Passed, 1),
        ("causes::x", Outcome::Passed, 2),
    ];
    assert_eq!(outcomes(&tests), expected);
}

#[test]
fn a_skip_of_the_first_try_is_none_of_the_second() {
    let tests = read(
        "--- causes::x\n\
         SKIPPED x: no disk\n\
         second try causes::x: why\n\
         test causes::x ... ok <1.2s> (2nd)\n\
         --- causes::z\n\
         SKIPPED z: no disk\n\
         test causes::z ... FAILED <1.2s>\n",
    );
    let expected = [
        ("causes::x", Outcome::Passed, 2),
        ("causes::z", Outcome::Failed, 1),
    ];
    assert_eq!(outcomes(&tests), expected);
    assert_eq!(
        tests[1].said,
        ["no panic; the last it wrote: SKIPPED z: no disk"]
    );
}

#[test]
fn a_program_that_was_taken_down_is_still_running() {
    let mut reader = Reader::default();
    assert!(!reader.is_running());
    for line in ["running 2 tests", "--- a::b", "test result: ok. 1 passed"] {
        reader.read(line);
    }
    assert!(reader.is_running(), "a test wrote the result");
    reader.read("test a::b ... ok <1s>");
    reader.read("test result: ok. 1 passed; 0 failed; 0 ignored");
    assert!(!reader.is_running());
}

#[test]
fn a_verdict_has_its_form() {
    let verdict = |line| Verdict::of(line).map(|verdict| (verdict.word, verdict.is_second));
    assert_eq!(verdict("test a::b ... ok <1.0s>"), Some((Word::Ok, false)));
    assert_eq!(
        verdict("test a::b ... FAILED <1.0s> (2nd)"),
        Some((Word::Failed, true))
    );
    assert_eq!(
        verdict("test a::b ... ignored <0.000s>"),
        Some((Word::Ignored("it is ignored"), false))
    );
    for line in [
        "test a::b ... ok",
        "test a::b ... ok <-1s>",
        "test a::b ... ok <1>",
        "test a::b ... okay <1s>",
        "test a::b ... ignoreds",
        "test a::b",
    ] {
        assert_eq!(verdict(line), None, "{line}");
    }
}
