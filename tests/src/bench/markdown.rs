//! The pages: all of a run for docs/bench.md, the heart of it for README.md.
//!
//! Nothing is worked out here but how a number is said.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::{
    contenders::{FLOOR, FLOOR_OF_BOTH, FLOOR_OF_TASKS, FLOOR_OF_TCP},
    crowds,
    document::{Document, Figure, NOTHING, TRACER, Verdict},
    events, slowdown,
};

/// Lines between which README.md shows the run.
const MARKERS: (&str, &str) = ("<!-- bench -->\n", "<!-- /bench -->");

/// The whole run.
pub fn page(document: &Document) -> String {
    let mut page = format!(
        "# Cost beside its peers\n\n\
         Made by `{}`; do not edit. All values of all rounds are in [bench.json](bench.json).\n\n{}\n\n\
         ![ns a context switch](bench.svg)\n\n\
         How to read it: a cell is the median of the rounds, with the least and the most in \
         parentheses, then the median as a multiple of tracer's. With throughput it \
         is a multiple of the throughput with nothing running. A net cost of tracer below 1 ns \
         is noise and counts as 1 ns in a multiple. *{FLOOR}* is a BPF program that does nothing, \
         on sched_switch: what the kernel's own measurement of a program costs, called the floor. \
         *{FLOOR_OF_TASKS}* is the kernel's own walk over all tasks, with a program that does \
         nothing. Each contender runs alone in its slot, in an order that changes from round to round.\n\n\
         ## Budgets\n\n{}",
        document.command,
        machine(document),
        budgets(&document.verdicts),
    );
    for workload in &document.workloads {
        let figures: Vec<&Figure> = document
            .figures
            .iter()
            .filter(|figure| figure.workload == workload.name)
            .collect();
        let _ = write!(
            page,
            "\n## {}\n\nHow: {}.\n\n",
            capital(&workload.name),
            workload.how
        );
        page += &table(&figures);
    }
    page += "\n## Skipped\n\n";
    if document.skipped.is_empty() {
        page += "Nothing.\n";
    } else {
        page += "| workload | contender | its own words |\n| --- | --- | --- |\n";
    }
    for skipped in &document.skipped {
        let reason = skipped.reason.replace('|', "\\|");
        let _ = writeln!(
            page,
            "| {} | {} | {reason} |",
            skipped.workload, skipped.contender
        );
    }
    page
}

/// README.md with the heart of the run between its markers.
///
/// # Errors
/// It has no such markers.
pub fn into_readme(readme: &str, document: &Document) -> Result<String> {
    let missing = "README.md has no lines <!-- bench --> and <!-- /bench -->";
    let (before, rest) = readme.split_once(MARKERS.0).context(missing)?;
    let (_, after) = rest.split_once(MARKERS.1).context(missing)?;
    Ok([before, MARKERS.0, &heart(document), MARKERS.1, after].concat())
}

/// The heart of the run.
fn heart(document: &Document) -> String {
    let mut text = format!(
        "Measured by `{}` {}\n\nA context switch, and what two processes lose that only send a byte to and fro:\n\n\
         | | ns in the program on `sched_switch` | net of the empty program | throughput lost | ns of CPU time added to a round trip |\n\
         | --- | --- | --- | --- | --- |\n",
        document.command,
        machine(document),
    );
    let switches = |name: &str, quantity| cell(document.figure(events::SWITCHES, name, quantity));
    for name in contenders(document, slowdown::ROUND_TRIPS) {
        if name == NOTHING {
            continue;
        }
        let lost = document.figure(slowdown::ROUND_TRIPS, name, slowdown::LOST.name);
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} |",
            switches(name, events::HOOK.name),
            switches(name, events::HOOK_NET.name),
            lost.map_or_else(|| "-".to_owned(), |f| cell(Some(f)) + " %"),
            cell(document.figure(slowdown::ROUND_TRIPS, name, slowdown::ADDED.name)),
        );
    }
    text += "\nA look at every task, CPU time each:\n\n| |";
    let crowds = [crowds::MANY, crowds::THREADS];
    for crowd in crowds {
        let _ = write!(text, " {crowd}, ms |");
    }
    text += "\n| --- | --- | --- |\n";
    for name in crowds::ALL {
        let _ = write!(text, "| {name} |");
        for crowd in crowds {
            let figure = document.figure(crowd, name, crowds::A_SNAPSHOT.name);
            let _ = write!(text, " {} |", cell(figure));
        }
        text.push('\n');
    }
    text += "\nThe budgets:\n\n";
    text += &budgets(&document.verdicts);
    text += "\n![ns a context switch](docs/bench.svg)\n\n\
             All figures, with how each was measured and who could not take part, are in \
             [docs/bench.md](docs/bench.md).\n";
    text
}

fn machine(document: &Document) -> String {
    let machine = &document.machine;
    let versions: Vec<String> = document
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    format!(
        "on {}: {} CPUs ({}), {:.0} GiB, Linux {}; {}.",
        document.date,
        machine.cpus,
        machine.cpu,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        machine.kernel,
        versions.join(", "),
    )
}

fn budgets(verdicts: &[Verdict]) -> String {
    let mut text =
        "| budget | limit | found | | why |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for verdict in verdicts {
        let found = verdict
            .found
            .map_or_else(|| "not measured".to_owned(), number);
        let kept = match verdict.kept {
            Some(true) => "kept",
            Some(false) if verdict.is_goal => "**goal not reached**",
            Some(false) => "**over**",
            None => "",
        };
        let _ = writeln!(
            text,
            "| {} | {} {} | {found} | {kept} | {} |",
            verdict.name, verdict.limit, verdict.unit, verdict.reason
        );
    }
    text
}

/// Contenders down, quantities across.
fn table(figures: &[&Figure]) -> String {
    let mut contenders: Vec<&str> = Vec::new();
    let mut quantities: Vec<(&str, &str)> = Vec::new();
    for figure in figures {
        let quantity = (figure.quantity.as_str(), figure.unit.as_str());
        if !contenders.contains(&figure.contender.as_str()) {
            contenders.push(&figure.contender);
        }
        if !quantities.contains(&quantity) {
            quantities.push(quantity);
        }
    }
    // Programs of a contender stand together: `runqlat: sched_switch`.
    let whose = |name: &str| {
        name.split_once(": ")
            .map_or(name, |(whose, _)| whose)
            .to_owned()
    };
    let met: Vec<String> = contenders.iter().map(|name| whose(name)).collect();
    contenders.sort_by_key(|name| {
        let whose = whose(name);
        (rank(&whose), met.iter().position(|other| *other == whose))
    });
    let mut text = "| |".to_owned();
    for (name, unit) in &quantities {
        let _ = write!(text, " {name}, {unit} |");
    }
    text += "\n|";
    text += &" --- |".repeat(quantities.len() + 1);
    text.push('\n');
    for contender in contenders {
        let _ = write!(text, "| {contender} |");
        for (quantity, _) in &quantities {
            let figure = figures
                .iter()
                .find(|f| f.contender == contender && f.quantity == *quantity);
            let _ = write!(text, " {} |", cell(figure.copied()));
        }
        text.push('\n');
    }
    text
}

/// The contenders of a workload, what is no tool first.
pub(super) fn contenders<'a>(document: &'a Document, workload: &str) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for figure in document.figures.iter().filter(|f| f.workload == workload) {
        if !names.contains(&figure.contender.as_str()) {
            names.push(&figure.contender);
        }
    }
    names.sort_by_key(|name| rank(name));
    names
}

fn rank(name: &str) -> usize {
    let first = [NOTHING, FLOOR, FLOOR_OF_BOTH, FLOOR_OF_TCP, TRACER];
    first.iter().position(|n| *n == name).unwrap_or(first.len())
}

fn cell(figure: Option<&Figure>) -> String {
    let Some(figure) = figure else {
        return "-".to_owned();
    };
    let mut text = number(figure.median);
    if figure.rounds.len() > 1 {
        let _ = write!(
            text,
            " ({} to {})",
            number(figure.least),
            number(figure.most)
        );
    }
    let is_own = figure.ratio_to.as_deref() == Some(figure.contender.as_str());
    if let Some(ratio) = figure.ratio.filter(|_| !is_own) {
        let _ = write!(text, ", {}x", number(ratio));
    }
    text
}

/// About three digits, and thousands apart.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (sign, text) = text.strip_prefix('-').map_or(("", &*text), |t| ("-", t));
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut said = sign.to_owned();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            said.push(',');
        }
        said.push(digit);
    }
    said + fraction
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::chart;
    use crate::bench::document::{Quantity, TO_TRACER, Workload, tests::empty};

    const COST: Quantity = Quantity {
        name: "cost",
        unit: "ns",
        ratio_to: TO_TRACER,
    };

    fn small() -> Document {
        let mut document = empty();
        document.workloads.push(Workload {
            name: "work".to_owned(),
            how: "by hand".to_owned(),
        });
        for (name, ns) in [
            ("peer", 1234.0),
            (TRACER, 10.0),
            ("peer", 1236.0),
            (TRACER, 10.0),
        ] {
            document.note("work", name, &COST, ns);
        }
        document.skip("work", "other", "no | such");
        document.finish();
        document
    }

    #[test]
    fn numbers_have_three_digits_and_thousands_apart() {
        let said = [1234567.8, 999.6, 99.94, 9.994, 0.0, -3.21, -4567.0].map(number);
        assert_eq!(
            said,
            [
                "1,234,568",
                "1,000",
                "99.9",
                "9.99",
                "0.00",
                "-3.21",
                "-4,567"
            ]
        );
    }

    #[test]
    fn a_page_has_a_table_for_each_workload_and_names_the_skipped() {
        let page = page(&small());
        assert!(page.contains("## Work\n\nHow: by hand.\n\n| | cost, ns |\n| --- | --- |\n"));
        let rows = "| tracer | 10.0 (10.0 to 10.0) |\n| peer | 1,235 (1,234 to 1,236), 124x |\n";
        assert!(page.contains(rows), "{page}");
        assert!(page.contains("| work | other | no \\| such |"), "{page}");
    }

    #[test]
    fn the_pages_are_those_of_the_last_run() {
        let read = |path: &str| {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
            std::fs::read_to_string(format!("{root}/{path}")).unwrap()
        };
        let run = Document::from_json(&read("docs/bench.json")).unwrap();
        let again = "run `cargo run -p tests --bin bench -- report docs/bench.json docs README.md`";
        assert_eq!(read("docs/bench.md"), page(&run), "{again}");
        assert_eq!(read("docs/bench.svg"), chart::svg(&run).unwrap(), "{again}");
        let readme = read("README.md");
        assert_eq!(into_readme(&readme, &run).unwrap(), readme, "{again}");
    }

    #[test]
    fn the_readme_keeps_what_is_outside_the_markers() {
        let readme = "before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n";
        let new = into_readme(readme, &small()).unwrap();
        assert!(new.starts_with("before\n<!-- bench -->\nMeasured by"));
        assert!(new.ends_with("\n<!-- /bench -->\nafter\n"));
        assert!(!new.contains("old"));
        assert!(into_readme("no markers", &small()).is_err());
        assert_eq!(into_readme(&new, &small()).unwrap(), new);
    }
}
