//! Tests that may fail once: the ledger `tests/flaky.toml`, each with its reason.
//!
//! A name that is not in it has one try. The ledger is compiled in, so a guest has it too.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

static TEXT: &str = include_str!("../../flaky.toml");

/// Why a test may have a second try.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// What goes wrong, and why it is not the product's fault as far as is known.
    pub(super) reason: String,
    /// The day it was put in, as 2026-11-29.
    pub(super) since: String,
    /// What is being done about it.
    pub(super) doing: String,
}

type Ledger = BTreeMap<String, Entry>;

static LEDGER: LazyLock<Ledger> =
    LazyLock::new(|| toml::from_str(TEXT).unwrap_or_else(|e| panic!("tests/flaky.toml: {e}")));

/// The entry of a test, if it has one.
pub(super) fn entry(test: &str) -> Option<&'static Entry> {
    LEDGER.get(test)
}

/// Names in the ledger that no test has: it moved, or was mended.
pub(super) fn strangers<'a>(tests: impl Iterator<Item = &'a str> + Clone) -> Vec<&'static str> {
    let is_there = |name: &str| tests.clone().any(|test| test == name);
    let names = LEDGER.keys().map(String::as_str);
    names.filter(|name| !is_there(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the project allows itself; three is the aim.
    const MOST: usize = 4;

    #[test]
    fn every_entry_says_why_since_when_and_what_is_done() {
        for (name, entry) in LEDGER.iter() {
            let words = [&entry.reason, &entry.since, &entry.doing];
            assert!(words.iter().all(|word| word.len() >= 10), "{name}");
        }
        assert!(LEDGER.len() <= MOST, "the ledger has {}", LEDGER.len());
    }
}
