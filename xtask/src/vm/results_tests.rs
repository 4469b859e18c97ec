//! Output of guests, and what is told of it.

use super::*;
use crate::clock;

const OUTPUT: &str = "\
::doctor {\"can_run\":true}
running 3 tests
test blocked ... blocked: 1.0000, expected 1.0000 +- 0.0200
ok
test oom ... SKIPPED oom: no swap
ok
test waits ... wait: 3
thread 'waits' panicked at truth.rs:1:1:
FAILED

failures:

failures:
    waits

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.00s
";

/// What a job says when it runs once more what failed in `OUTPUT`.
const SECOND: &str = "
::again

running 1 test
test waits ... wait: 4
ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.00s
";

fn read(output: &str, end: &End) -> Vec<Tested> {
    let mut log = Log::default();
    for line in output.lines() {
        if line == AGAIN {
            log.again(clock::now());
        } else {
            log.read(line, clock::now());
        }
    }
    log.tests(end, clock::now())
}

fn outcomes(tests: &[Tested]) -> Vec<(&str, Outcome)> {
    let tests = tests.iter();
    tests
        .map(|test| (test.name.as_str(), test.outcome.clone()))
        .collect()
}

#[test]
fn each_test_has_its_outcome() {
    let skipped = Outcome::Skipped("no swap".to_owned());
    assert_eq!(
        outcomes(&read(OUTPUT, &End::Left(1))),
        [
            ("blocked", Outcome::Passed),
            ("oom", skipped),
            ("waits", Outcome::Failed)
        ]
    );
}

#[test]
fn a_second_try_takes_the_place_of_the_first() {
    let mut log = Log::default();
    for line in OUTPUT.lines() {
        log.read(line, clock::now());
    }
    assert_eq!(log.again(clock::now()), "waits");
    let tests = read(&format!("{OUTPUT}{SECOND}"), &End::Left(0));
    let tried: Vec<_> = tests
        .iter()
        .map(|test| (test.name.as_str(), test.outcome == Outcome::Passed))
        .zip(tests.iter().map(|test| test.tries))
        .collect();
    let expected = [
        (("blocked", true), 1),
        (("oom", false), 1),
        (("waits", true), 2),
    ];
    assert_eq!(tried, expected);
    let failing = SECOND.replace(
        "\nok\n",
        "\nFAILED\n\nfailures:\n\nfailures:\n    waits\n\n",
    );
    let tests = read(&format!("{OUTPUT}{failing}"), &End::Left(1));
    let last = tests.last().unwrap();
    assert_eq!((&last.outcome, last.tries), (&Outcome::Failed, 2));
    assert_eq!(tests.len(), 3);
}

#[test]
fn a_guest_that_dies_at_the_second_try_leaves_the_failure() {
    let until = SECOND.find("ok\n").unwrap();
    let tests = read(&format!("{OUTPUT}{}", &SECOND[..until]), &End::TimedOut(60));
    let waits = ("waits", Outcome::Failed);
    assert_eq!(outcomes(&tests).last(), Some(&waits));
    assert_eq!(tests.len(), 3);
}

#[test]
fn a_guest_that_dies_fails_the_test_that_ran() {
    let until = OUTPUT.find("ok\ntest oom").unwrap();
    let tests = read(&OUTPUT[..until], &End::TimedOut(60));
    assert_eq!(outcomes(&tests), [("blocked", Outcome::Failed)]);
}

#[test]
fn an_end_that_no_test_explains_is_a_failure() {
    let passed = "running 1 test\ntest a ... ok\n\
                  test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
    assert_eq!(
        outcomes(&read(passed, &End::Left(0))),
        [("a", Outcome::Passed)]
    );
    for (output, end) in [(passed, End::Left(1)), ("", End::TimedOut(9))] {
        let tests = read(output, &end);
        let last = tests.last().unwrap();
        assert_eq!(last.outcome, Outcome::Failed, "{end:?}");
    }
}

#[test]
fn the_doctors_answer_is_not_for_people() {
    let mut log = Log::default();
    assert!(!log.read("::doctor {\"can_run\":true}", clock::now()));
    assert_eq!(log.doctor.unwrap()["can_run"], true);
}

#[test]
fn the_table_has_a_column_a_kernel() {
    let report = |kernel, tests| Report {
        kernel,
        release: String::new(),
        skipped: None,
        tests,
        panics: Vec::new(),
        took: Duration::from_secs(61),
    };
    let reports = [
        report("6.1", read(OUTPUT, &End::Left(1))),
        report("6.12", read(&format!("{OUTPUT}{SECOND}"), &End::Left(0))),
        report("7.x", Vec::new()),
    ];
    assert_eq!(
        table(&reports),
        "                 6.1        6.12         7.x\n\
         blocked          0 s         0 s           -\n\
         oom          skipped     skipped           -\n\
         waits         FAILED   0 s (2nd)           -\n\
         passed             1           2           0\n\
         failed             1           0           0\n\
         skipped            1           1           0\n\
         seconds           61          61          61\n"
    );
    let waits = &json(&reports)["kernels"][1]["tests"][2];
    assert_eq!(waits["outcome"], "passed");
    assert_eq!(waits["tries"], 2);
}
