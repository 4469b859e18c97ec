//! What a look at a host found: a report a row, with figures, findings, and what could
//! not be seen.

use super::figures::CHECK_FIGURES;

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Nothing to do.
    #[default]
    Ok,
    /// Worth knowing.
    Note,
    /// It could not be looked at.
    Unknown,
    /// Worth a look soon.
    Warning,
    /// Something fails, or is about to.
    Critical,
}

/// What is looked at, in the order in which equals are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Row {
    /// The load average and what it is made of
    Load,
    /// Each CPU's time
    Cpu,
    /// Memory and swap
    Memory,
    /// Kills for memory
    Oom,
    /// Space, inodes, devices
    Disks,
    /// Space held by files that are deleted and still open
    Deleted,
    /// Open files against their limits
    Files,
    /// Zombies, blocked tasks, process ids
    Processes,
    /// Sockets by state, ports, queues
    Sockets,
    /// SYN queues and cookies
    Syn,
    /// Errors, drops, retransmissions
    Network,
    /// What the kernel itself complains of
    Kernel,
}

/// Every row, in order.
pub const ROWS: [Row; 12] = [
    Row::Load,
    Row::Cpu,
    Row::Memory,
    Row::Oom,
    Row::Disks,
    Row::Deleted,
    Row::Files,
    Row::Processes,
    Row::Sockets,
    Row::Syn,
    Row::Network,
    Row::Kernel,
];

impl Row {
    /// Its name, as `--only` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Oom => "oom",
            Self::Disks => "disks",
            Self::Deleted => "deleted",
            Self::Files => "files",
            Self::Processes => "processes",
            Self::Sockets => "sockets",
            Self::Syn => "syn",
            Self::Network => "network",
            Self::Kernel => "kernel",
        }
    }
}

/// A number with the name that says its unit (`_bytes`, `_ratio`, `_per_s`).
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// Of what: a CPU, a mount, a state; empty where there is one only.
    pub of: String,
    /// The number.
    pub value: f64,
}

/// A figure of which there is one.
pub fn figure(name: &'static str, value: impl Into<f64>) -> Figure {
    figure_of(name, "", value)
}

/// A figure of which there are several. Foreign text comes as [`crate::text::Text`].
/// Only what is in [`CHECK_FIGURES`] can be one.
pub fn figure_of(name: &'static str, of: impl ToString, value: impl Into<f64>) -> Figure {
    let is_known = || CHECK_FIGURES.iter().any(|known| known.name == name);
    debug_assert!(is_known(), "{name} is not in check/figures.rs");
    Figure {
        name,
        of: of.to_string(),
        value: value.into(),
    }
}

/// Something that is wrong, or worth knowing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// How bad it is.
    pub verdict: Verdict,
    /// What, with its figures.
    pub what: String,
    /// Who is responsible, a line each, the worst first.
    pub who: Vec<String>,
    /// Why that is bad: the limit, with its reason.
    pub why: String,
    /// The next command to run, ours first; empty where there is none.
    pub next: String,
}

/// What a row found.
#[derive(Clone, Debug, PartialEq)]
pub struct RowReport {
    /// Which row.
    pub row: Row,
    /// Its figures in a line.
    pub summary: String,
    /// The figures.
    pub figures: Vec<Figure>,
    /// What is wrong; none where all is well.
    pub findings: Vec<Finding>,
    /// What could not be seen, and why.
    pub unseen: Vec<String>,
    /// Nothing could be seen of what it judges: without a finding it is no `ok`.
    pub is_blind: bool,
    /// Nor is it where only a part could be seen.
    pub is_partial: bool,
}

impl RowReport {
    /// A report without findings.
    pub fn new(row: Row, summary: impl Into<String>, figures: Vec<Figure>) -> Self {
        Self {
            row,
            summary: summary.into(),
            figures,
            findings: Vec::new(),
            unseen: Vec::new(),
            is_blind: false,
            is_partial: false,
        }
    }

    /// The report of a row that could not look, and why.
    pub fn blind(row: Row, why: impl Into<String>) -> Self {
        Self::new(row, "", Vec::new()).blinded(why)
    }

    /// The same report, of a row that could not look.
    #[must_use]
    pub fn blinded(mut self, why: impl Into<String>) -> Self {
        self.unseen.push(why.into());
        self.is_blind = true;
        self.summary = "could not be looked at".into();
        self
    }

    /// The worst of its findings; `Unknown` when it could not look, or not at all of it.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|finding| finding.verdict);
        let blind = (self.is_blind || self.is_partial).then_some(Verdict::Unknown);
        verdicts.chain(blind).max().unwrap_or_default()
    }
}
