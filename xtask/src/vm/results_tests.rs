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

fn read(output: &str, end: &End) -> Vec<Tested> {
    let mut log = Log::default();
    for line in output.lines() {
        log.read(line, clock::now());
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
        took: Duration::from_secs(61),
    };
    let reports = [
        report("6.1", read(OUTPUT, &End::Left(1))),
        report("7.x", Vec::new()),
    ];
    assert_eq!(
        table(&reports),
        "                 6.1         7.x\n\
         blocked          0 s           -\n\
         oom          skipped           -\n\
         waits         FAILED           -\n\
         passed             1           0\n\
         failed             1           0\n\
         skipped            1           0\n\
         seconds           61          61\n"
    );
}
