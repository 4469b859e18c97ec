//! TCP states by the kernel's names, and how often sockets went from one to another.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Names by number (include/net/tcp_states.h); 0 is none.
const NAMES: [&str; 12] = [
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
];

/// The name of a state.
pub fn name(state: u8) -> &'static str {
    NAMES.get(usize::from(state)).copied().unwrap_or("")
}

/// Transitions, each with how often it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transitions(BTreeMap<(String, String), u64>);

impl Transitions {
    /// Of one socket that went this way, `count` times.
    pub fn way(&mut self, states: &[&str], count: u64) {
        for pair in states.windows(2) {
            if let [from, to] = pair {
                self.add(from, to, count);
            }
        }
    }

    /// Those that JSON says, as `{from,to,count}` each.
    pub fn of(json: &Value) -> Self {
        let mut all = Self::default();
        for one in json.as_array().expect("transitions") {
            let word = |key: &str| one[key].as_str().expect("a state").to_owned();
            let count = one["count"].as_u64().expect("a count");
            all.add(&word("from"), &word("to"), count);
        }
        all
    }

    /// Adds others to these.
    pub fn extend(&mut self, others: &Self) {
        for ((from, to), count) in &others.0 {
            self.add(from, to, *count);
        }
    }

    /// These less others: what is left of each that is not the same, with its sign.
    pub fn less(&self, others: &Self) -> BTreeMap<String, i64> {
        let count = |all: &Self, pair| all.0.get(pair).copied().unwrap_or(0).cast_signed();
        let pairs = self.0.keys().chain(others.0.keys());
        pairs
            .map(|pair @ (from, to)| {
                let left = count(self, pair) - count(others, pair);
                (format!("{from} to {to}"), left)
            })
            .filter(|(_, left)| *left != 0)
            .collect()
    }

    /// How often one was made.
    pub fn count(&self, from: &str, to: &str) -> u64 {
        let pair = (from.to_owned(), to.to_owned());
        self.0.get(&pair).copied().unwrap_or(0)
    }

    /// How often any was made.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// As a table to print, one a line.
    pub fn table(&self) -> String {
        let line = |((from, to), count): (&(String, String), &u64)| {
            format!("  {from:>11} to {to:<11} {count}\n")
        };
        self.0.iter().map(line).collect()
    }

    /// As JSON, `{from,to,count}` each.
    pub fn json(&self) -> Value {
        let one = |((from, to), count): (&(String, String), &u64)| json!({"from": from, "to": to, "count": count});
        self.0.iter().map(one).collect()
    }

    fn add(&mut self, from: &str, to: &str, count: u64) {
        let pair = (from.to_owned(), to.to_owned());
        *self.0.entry(pair).or_default() += count;
    }
}

/// How many sockets are in each state.
pub type States = BTreeMap<String, u64>;

/// The same, with those in FIN_WAIT2 among those in TIME_WAIT: once no process has them the
/// kernel keeps both alike, and tracer tells them apart now and then only.
pub fn kept_alike(mut states: States) -> States {
    if let Some(count) = states.remove("FIN_WAIT2") {
        *states.entry("TIME_WAIT".to_owned()).or_default() += count;
    }
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_its_steps() {
        let mut made = Transitions::default();
        made.way(&["CLOSE", "SYN_SENT", "CLOSE"], 2);
        made.way(&["CLOSE", "SYN_SENT", "ESTABLISHED"], 1);
        assert_eq!(made.count("CLOSE", "SYN_SENT"), 3);
        assert_eq!(Transitions::of(&made.json()), made);
        let mut seen = made.clone();
        seen.way(&["LISTEN", "CLOSE"], 1);
        assert_eq!(seen.less(&made), [("LISTEN to CLOSE".to_owned(), 1)].into());
        assert_eq!(
            made.less(&seen),
            [("LISTEN to CLOSE".to_owned(), -1)].into()
        );
    }
}
