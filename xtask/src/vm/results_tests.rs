//! Output of guests, and what is told of it.

use super::*;

const OUTPUT: &str = "\
::doctor {\"can_run\":true}
running 3 tests
--- truth::blocked
blocked: 1.0000, expected 1.0000 +- 0.0200
test truth::blocked ... ok <4.312s>
--- oom::global
SKIPPED global: no swap
test oom::global ... ok <0.100s>
--- truth::waits
thread 'truth::waits' (9) panicked at truth.rs:1:1:
59 is not 60
";

const FAILED: &str = "\
test truth::waits ... FAILED <3.000s>
test result: FAILED. 2 passed; 1 failed; 0 ignored
";

const SECOND: &str = "\
second try truth::waits: its CPU stands still
test truth::waits ... ok <2.600s> (2nd)
test result: ok. 3 passed; 0 failed; 0 ignored
";

fn read_with(output: &str, end: &End, may_be_none: bool) -> Vec<Tested> {
    let mut log = Log::default();
    for line in output.lines() {
        log.read(line);
    }
    log.tests(end, may_be_none)
}

fn read(output: &str, end: &End) -> Vec<Tested> {
    read_with(output, end, false)
}

fn outcomes(tests: &[Tested]) -> Vec<(&str, Outcome)> {
    let tests = tests.iter();
    tests
        .map(|test| (test.name.as_str(), test.outcome.clone()))
        .collect()
}

#[test]
fn each_test_has_its_outcome() {
    assert_eq!(
        outcomes(&read(&format!("{OUTPUT}{FAILED}"), &End::Left(1))),
        [
            ("truth::blocked", Outcome::Passed),
            ("oom::global", Outcome::Skipped("no swap".to_owned())),
            ("truth::waits", Outcome::Failed)
        ]
    );
}

#[test]
fn an_end_that_no_test_explains_is_a_failure() {
    let passed = "running 1 test\n--- a::b\ntest a::b ... ok <1.0s>\n";
    let whole = format!("{passed}test result: ok. 1 passed; 0 failed; 0 ignored\n");
    assert_eq!(
        outcomes(&read(&whole, &End::Left(0))),
        [("a::b", Outcome::Passed)]
    );
    for (output, end, why) in [
        (&*whole, End::Left(1), "status 1, though no test failed"),
        (
            passed,
            End::Left(0),
            "the live tests' program ended without a result",
        ),
        ("", End::Left(0), "no live test ran"),
        ("", End::Left(2), "status 2, though no test failed"),
    ] {
        let tests = read(output, &end);
        let last = tests.last().unwrap();
        assert_eq!(last.outcome, Outcome::Failed, "{end:?}");
        assert_eq!(last.said, [why], "{end:?}");
    }
    // Why a guest did not come to its end is told from its last words.
    assert!(read("", &End::TimedOut(9)).is_empty());
}

#[test]
fn a_pattern_may_fit_no_test_of_a_kernel() {
    assert!(read_with("", &End::Left(2), true).is_empty());
    assert_eq!(read_with("", &End::Left(0), true).len(), 1);
}

#[test]
fn the_doctors_answer_is_not_for_people_and_comes_once() {
    let mut log = Log::default();
    assert!(!log.read("::doctor {\"can_run\":true}"));
    assert!(!log.read("::doctor {\"can_run\":false}"));
    assert_eq!(log.doctor.unwrap()["can_run"], true);
}

#[test]
fn the_table_has_a_column_a_kernel() {
    let report = |kernel, suite, tests| Report {
        kernel,
        release: String::new(),
        suite,
        skipped: None,
        tests,
        took: Duration::from_secs(61),
    };
    let failed = read(&format!("{OUTPUT}{FAILED}"), &End::Left(1));
    let second = read(&format!("{OUTPUT}{SECOND}"), &End::Left(0));
    let reports = [
        report("6.1", Suite::Full, failed),
        report("6.12", Suite::Contract, second),
        report("7.x", Suite::Full, Vec::new()),
    ];
    assert_eq!(
        table(&reports),
        "                       6.1        6.12         7.x\n\
         suite                 full    contract        full\n\
         truth::blocked         4 s         4 s           -\n\
         oom::global        skipped     skipped           -\n\
         truth::waits        FAILED   3 s (2nd)           -\n\
         passed                   1           2           0\n\
         failed                   1           0           0\n\
         skipped                  1           1           0\n\
         seconds                 61          61          61\n"
    );
    let json = json(&reports);
    assert_eq!(json["kernels"][1]["suite"], "contract");
    let waits = &json["kernels"][1]["tests"][2];
    assert_eq!(waits["outcome"], "passed");
    assert_eq!(waits["tries"], 2);
}
