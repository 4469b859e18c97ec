//! A host that is well and has nothing to do: `tracer check` must find nothing.

use serde_json::Value;
use tests::{
    check::Look,
    lanes::{Test, gate_or_all},
    test,
    time::{NS, monotonic_ns},
};

pub(crate) const TESTS: &[Test] = &[test!(an_idle_host_gives_no_warning)
    .guest("a host has a history")
    .first("others leave kills and errors behind")];

/// Looks, one after the other, in the gate and where there is time: each has its own chance
/// of a false alarm.
const LOOKS: (usize, usize) = (3, 10);
const SAMPLE_S: f64 = 1.0;
/// A host needs some 30 ms more than the sample, an emulated CPU 2 s, twice as long while
/// another guest is busy: what is limited here is that a look comes to its end.
const MOST_MORE_S: f64 = 9.0;

/// Looks at a fresh guest, without a false alarm.
fn an_idle_host_gives_no_warning() {
    let sample = format!("{SAMPLE_S}s");
    let mut alarms = Vec::new();
    let mut longest_s: f64 = 0.0;
    for n in 1..=gate_or_all(LOOKS.0, LOOKS.1) {
        let began_ns = monotonic_ns();
        let look = Look::now(&["--sample", &sample]);
        let took_s = (monotonic_ns() - began_ns) as f64 / NS;
        longest_s = longest_s.max(took_s);
        let rows = look.0["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 12, "every row is looked at");
        println!("look {n} took {took_s:.2} s");
        for row in rows {
            let findings = row["findings"].as_array().expect("findings");
            if !findings.is_empty() || row["unseen"] != Value::Array(Vec::new()) {
                println!(
                    "{}: {} unseen {}",
                    row["row"], row["summary"], row["unseen"]
                );
            }
            for finding in findings {
                println!("{finding}");
                let is_alarm = ["warning", "critical"]
                    .iter()
                    .any(|v| finding["verdict"] == *v);
                if is_alarm {
                    alarms.push(format!("look {n}: {}: {finding}", row["row"]));
                }
            }
        }
    }
    println!("the longest look took {longest_s:.2} s");
    assert!(alarms.is_empty(), "{}", alarms.join("\n"));
    let most_s = SAMPLE_S + MOST_MORE_S;
    assert!(longest_s <= most_s, "a look took {longest_s:.2} s");
}
