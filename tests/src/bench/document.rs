//! What a run found out: the one JSON document that every page is made from.
//!
//! A figure is a quantity of a contender under a workload. It keeps the value of
//! every round, so that a reader can judge the spread for themselves.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::statistics::{five_digits, median, range, ratio};

/// The version of the document's form.
pub const SCHEMA: u32 = 1;
/// The contender that is no contender: the workload alone.
pub const NOTHING: &str = "nothing";
/// The contender that all is about.
pub const TRACER: &str = "tracer";

/// A run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Document {
    /// `SCHEMA`.
    pub schema: u32,
    /// When the run began, UTC.
    pub date: String,
    /// What was typed.
    pub command: String,
    /// Where it ran.
    pub machine: Machine,
    /// Programs and their versions.
    pub versions: Vec<(String, String)>,
    /// What was measured, and how, in the order of the pages.
    pub workloads: Vec<Workload>,
    /// What came of it.
    pub figures: Vec<Figure>,
    /// Who could not take part, and why.
    pub skipped: Vec<Skipped>,
    /// The budgets, held against the figures.
    pub verdicts: Vec<Verdict>,
}

/// Where a run ran.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the CPUs.
    pub cpu: String,
    /// How many of them.
    pub cpus: usize,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: String,
}

/// A workload, or another kind of trial.
#[derive(Debug, Serialize, Deserialize)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// What is done and how it is measured.
    pub how: String,
}

/// A quantity: what the values of a figure are.
#[derive(Debug)]
pub struct Quantity {
    /// Its name, unique within a workload.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Whose figure it is put in relation to.
    pub ratio_to: Option<Reference>,
}

/// What a ratio is taken to.
#[derive(Debug)]
pub struct Reference {
    /// The contender.
    pub contender: &'static str,
    /// Its figure counts as this much when it is less, in the quantity's unit.
    pub at_least: f64,
}

/// tracer's own figure, whatever it is.
pub const TO_TRACER: Option<Reference> = Some(Reference {
    contender: TRACER,
    at_least: 0.0,
});

/// A quantity of a contender under a workload.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figure {
    /// The workload.
    pub workload: String,
    /// The contender.
    pub contender: String,
    /// The quantity.
    pub quantity: String,
    /// Its unit.
    pub unit: String,
    /// The value of each round.
    pub rounds: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// The least of them.
    pub least: f64,
    /// The most of them.
    pub most: f64,
    /// The median as a multiple of the reference's.
    pub ratio: Option<f64>,
    /// The reference: a contender.
    pub ratio_to: Option<String>,
    /// The reference counts as this much when it is less.
    pub ratio_at_least: Option<f64>,
}

/// A contender that could not take part.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The workload.
    pub workload: String,
    /// The contender.
    pub contender: String,
    /// Its own words, or ours.
    pub reason: String,
}

/// A budget, held against its figure.
#[derive(Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// What is limited.
    pub name: String,
    /// The limit, as said on a page.
    pub limit: String,
    /// What was found; `None` when it was not measured.
    pub found: Option<f64>,
    /// The unit of both.
    pub unit: String,
    /// Whether the limit is kept; `None` when it was not measured.
    pub kept: Option<bool>,
    /// Why this limit.
    pub reason: String,
    /// A goal is where tracer wants to get to: to miss it fails nothing.
    #[serde(default)]
    pub is_goal: bool,
}

impl Document {
    /// Notes the value of a round.
    pub fn note(&mut self, workload: &str, contender: &str, quantity: &Quantity, value: f64) {
        let value = five_digits(value);
        if let Some(figure) = self.figure_mut(workload, contender, quantity.name) {
            figure.rounds.push(value);
            return;
        }
        self.figures.push(Figure {
            workload: workload.to_owned(),
            contender: contender.to_owned(),
            quantity: quantity.name.to_owned(),
            unit: quantity.unit.to_owned(),
            rounds: vec![value],
            median: value,
            least: value,
            most: value,
            ratio: None,
            ratio_to: quantity.ratio_to.as_ref().map(|r| r.contender.to_owned()),
            ratio_at_least: quantity.ratio_to.as_ref().map(|r| r.at_least),
        });
    }

    /// Notes that a contender could not take part.
    pub fn skip(&mut self, workload: &str, contender: &str, reason: &str) {
        eprintln!("  {contender}: skipped: {reason}");
        self.skipped.push(Skipped {
            workload: workload.to_owned(),
            contender: contender.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// Whether a contender was skipped under a workload.
    pub fn is_skipped(&self, workload: &str, contender: &str) -> bool {
        self.skipped
            .iter()
            .any(|s| s.workload == workload && s.contender == contender)
    }

    /// A figure, if it was measured.
    pub fn figure(&self, workload: &str, contender: &str, quantity: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| {
            figure.workload == workload
                && figure.contender == contender
                && figure.quantity == quantity
        })
    }

    fn figure_mut(
        &mut self,
        workload: &str,
        contender: &str,
        quantity: &str,
    ) -> Option<&mut Figure> {
        self.figures.iter_mut().find(|figure| {
            figure.workload == workload
                && figure.contender == contender
                && figure.quantity == quantity
        })
    }

    /// Works out medians, spreads and ratios from the rounds.
    pub fn finish(&mut self) {
        for figure in &mut self.figures {
            if let (Some(median), Some((least, most))) =
                (median(&figure.rounds), range(&figure.rounds))
            {
                (figure.median, figure.least, figure.most) = (five_digits(median), least, most);
            }
        }
        let ratios: Vec<Option<f64>> = self.figures.iter().map(|f| self.ratio(f)).collect();
        for (figure, ratio) in self.figures.iter_mut().zip(ratios) {
            figure.ratio = ratio.map(five_digits);
        }
    }

    fn ratio(&self, of: &Figure) -> Option<f64> {
        let reference = of.ratio_to.as_deref()?;
        let to = self.figure(&of.workload, reference, &of.quantity)?;
        ratio(of.median, to.median, of.ratio_at_least?)
    }

    /// Reads a document back.
    ///
    /// # Errors
    /// It is none, or of another schema.
    pub fn from_json(text: &str) -> Result<Self> {
        let document: Self = serde_json::from_str(text).context("this is no document of a run")?;
        anyhow::ensure!(
            document.schema == SCHEMA,
            "the document has schema {}, this program writes {SCHEMA}: measure again",
            document.schema
        );
        Ok(document)
    }

    /// The document as JSON, with a line's end.
    ///
    /// # Errors
    /// Never, as long as no key is a number.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A document in which nothing was measured yet.
    pub(in super::super) fn empty() -> Document {
        Document {
            schema: SCHEMA,
            date: "2026-01-02 03:04 UTC".to_owned(),
            command: "cargo xtask bench".to_owned(),
            machine: Machine {
                cpu: "A CPU".to_owned(),
                cpus: 2,
                memory_bytes: 8 << 30,
                kernel: "6.1".to_owned(),
            },
            versions: vec![("tracer".to_owned(), "0.1.0".to_owned())],
            workloads: Vec::new(),
            figures: Vec::new(),
            skipped: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    const COST: Quantity = Quantity {
        name: "cost",
        unit: "ns",
        ratio_to: TO_TRACER,
    };

    #[test]
    fn rounds_become_a_median_a_spread_and_a_ratio() {
        let mut document = empty();
        for (name, ns) in [
            (TRACER, 10.0),
            ("peer", 50.0),
            (TRACER, 12.0),
            ("peer", 70.0),
        ] {
            document.note("work", name, &COST, ns);
        }
        document.finish();
        let peer = document.figure("work", "peer", "cost").unwrap();
        assert_eq!((peer.median, peer.least, peer.most), (60.0, 50.0, 70.0));
        assert_eq!(peer.rounds, [50.0, 70.0]);
        assert_eq!(peer.ratio, Some(5.4545));
    }

    #[test]
    fn a_document_comes_back_as_it_went() {
        let mut document = empty();
        document.note("work", TRACER, &COST, 1.5);
        document.skip("work", "peer", "no such program");
        document.finish();
        let text = document.to_json().unwrap();
        let back = Document::from_json(&text).unwrap();
        assert_eq!(back.to_json().unwrap(), text);
        assert!(back.is_skipped("work", "peer"));
        let other = text.replacen("\"schema\": 1", "\"schema\": 9", 1);
        assert!(
            Document::from_json(&other)
                .unwrap_err()
                .to_string()
                .contains("schema 9")
        );
    }
}
