//! Pages of the documentation that are made from the tables in the code, so
//! that they cannot say anything else.

use std::fmt::Write;

use serde_json::Value;

use super::{oom_page, syn, table, tcp_page, turned};
use crate::{
    check::{
        figures::{CHECK_FIGURES, CHECK_PATHS},
        finding::ROWS,
        limits::LIMITS,
    },
    figures::FIGURES,
    kernel::{fields::FIELDS, probes::PROBES},
};

/// docs/figures.md: every figure, and the columns of the text.
pub fn figures_page() -> String {
    let mut page = String::from(
        "# Figures\n\n\
         Made by `cargo run -p tracer --example docs -- docs` from tracer/src/figures.rs; do not edit.\n\n\
         What `--format json` writes, one object a line. `[]` stands for each element of a list, \
         `{reason}` and `{state}` for each key of a map. A number that is not known is null, never zero.\n",
    );
    for (line, title) in [
        ("start", "`start`: the first line"),
        ("snapshot", "`snapshot`: one line an interval"),
        ("event", "`event`: a line as something notable happens"),
        ("end", "`end`: the last line"),
    ] {
        let figures = FIGURES
            .iter()
            .filter_map(|figure| Some((figure, figure.path.strip_prefix(line)?)))
            .map(|(figure, path)| [code(path), figure.unit.to_owned(), cell(figure.help)]);
        section(&mut page, title, ["path", "unit", "what it says"], figures);
    }
    let columns = table::headings()
        .chain(turned::headings())
        .chain(tcp_page::headings())
        .chain(syn::headings())
        .chain(oom_page::headings())
        .map(|(heading, path)| {
            let figure = FIGURES.iter().find(|figure| figure.path == path);
            let help = figure.map(|figure| cell(figure.help)).unwrap_or_default();
            [code(heading), code(path), help]
        });
    section(
        &mut page,
        "Columns of the text",
        ["column", "path", "what it says"],
        columns,
    );
    page.push_str(
        "\nA dash is a number that rounds to 0.00. Each row is rounded by itself, so the rows can \
         differ from the total in the last digit; the total row is the kernel's own figure.\n",
    );
    page
}

/// docs/check.md: what `tracer check` finds, as JSON, and the limits it goes by.
pub fn check_page() -> String {
    let mut page = String::from(
        "# `tracer check`\n\n\
         Made by `cargo run -p tracer --example docs -- docs` from tracer/src/check/figures.rs and \
         limits.rs; do not edit.\n",
    );
    let paths = CHECK_PATHS.iter();
    let paths = paths.map(|(path, unit, help)| [code(path), (*unit).to_owned(), cell(help)]);
    let head = ["path", "unit", "what it says"];
    section(&mut page, "`--format json`: one object", head, paths);
    for row in ROWS {
        let figures = CHECK_FIGURES.iter().filter(|figure| figure.row == row);
        let figures = figures.map(|f| [code(f.name), cell(f.of), cell(f.help)]);
        let title = format!("Figures of `{}`", row.name());
        section(
            &mut page,
            &title,
            ["figure", "one for each", "what it says"],
            figures,
        );
    }
    let limits = LIMITS.iter().map(|limit| {
        let side = if limit.critical < limit.warning {
            "at most"
        } else {
            "from"
        };
        let number = |at: f64| match at.is_finite() {
            true => format!("{side} {at}"),
            false => String::new(),
        };
        let (warning, critical) = (number(limit.warning), number(limit.critical));
        [code(limit.name), warning, critical, cell(limit.reason)]
    });
    let head = ["limit", "warning", "critical", "why there"];
    section(&mut page, "Limits", head, limits);
    page.push_str(
        "\n`--print-config` prints them as TOML, and a changed copy is given with `--config`.\n",
    );
    page
}

/// What `tracer doctor --format json` says on kernels, by series; kept by
/// `cargo xtask vm --keep`.
const DOCTORS: [(&str, &str); 5] = [
    ("5.10", include_str!("../../../docs/kernels/5.10.json")),
    ("6.1", include_str!("../../../docs/kernels/6.1.json")),
    ("6.12", include_str!("../../../docs/kernels/6.12.json")),
    ("6.18", include_str!("../../../docs/kernels/6.18.json")),
    ("7.x", include_str!("../../../docs/kernels/7.x.json")),
];

/// docs/hooks.md: every probe, what became of it on which kernel, and every
/// kernel field that one reads.
pub fn hooks_page() -> String {
    let mut page = String::from(
        "# Hooks\n\n\
         Made by `cargo run -p tracer --example docs -- docs` from tracer/src/kernel/probes.rs and \
         fields.rs; do not edit.\n",
    );
    let probes = PROBES.iter().map(|probe| {
        [
            code(probe.name),
            code(&format!("{}/{}", probe.hook.kind(), probe.hook.target())),
            cell(probe.purpose),
            cell(probe.since),
            if probe.required { "yes" } else { "no" }.to_owned(),
            cell(probe.fallback),
            cell(probe.without),
        ]
    });
    section(
        &mut page,
        "Probes",
        [
            "probe",
            "hook",
            "what for",
            "least kernel",
            "required",
            "fallback",
            "lost without it",
        ],
        probes,
    );
    by_kernel(&mut page);
    let fields = FIELDS.iter().map(|field| {
        let paths = field
            .paths
            .iter()
            .map(|(root, path)| code(&format!("{root}.{}", path.join("."))));
        let paths: Vec<_> = paths.collect();
        let without = field
            .without
            .map_or_else(|| "tracer does not start".to_owned(), cell);
        [code(field.name), paths.join(", else "), without]
    });
    section(
        &mut page,
        "Kernel fields",
        ["name", "where", "lost without it"],
        fields,
    );
    page
}

/// How each probe is attached on each kernel.
fn by_kernel(page: &mut String) {
    page.push_str(
        "\n## Probes by kernel\n\n\
         What `tracer doctor --format json` says on Debian's cloud kernels, in guests that \
         `cargo xtask vm` boots; kept in docs/kernels.\n\n",
    );
    // What is kept has been read back by `cargo xtask vm`; anything else shows as refused.
    let answer = |text| serde_json::from_str(text).unwrap_or(Value::Null);
    let answers: Vec<Value> = DOCTORS.iter().map(|(_, text)| answer(text)).collect();
    let mut row = |first: String, cells: Vec<String>| {
        *page += &format!("| {first} | {} |\n", cells.join(" | "));
    };
    let series = DOCTORS.map(|(kernel, _)| kernel.to_owned()).into();
    row("probe".to_owned(), series);
    row("---".to_owned(), vec!["---".to_owned(); DOCTORS.len()]);
    for probe in PROBES {
        let cells = answers.iter().map(|answer| found(answer, probe.name));
        row(code(probe.name), cells.collect());
    }
    let releases = answers.iter().map(release);
    row("tried on".to_owned(), releases.collect());
}

/// How a probe is attached, or why it is not.
fn found(doctor: &Value, probe: &str) -> String {
    let hooks = doctor["hooks"].as_array();
    let hook = hooks.and_then(|hooks| hooks.iter().find(|hook| hook["name"] == probe));
    match hook {
        // The kind comes first, then the kernel's name for the place.
        Some(hook) if hook["state"] == "ok" => {
            let via = hook["via"].as_str().unwrap_or_default();
            code(via.split(' ').next().unwrap_or_default())
        }
        Some(hook) => cell(hook["why"].as_str().unwrap_or_default()),
        None if doctor["can_run"] == true => "not tried".to_owned(),
        None => "refused".to_owned(),
    }
}

/// The kernel, as the doctor names it.
fn release(doctor: &Value) -> String {
    let checks = doctor["checks"].as_array();
    let check = checks.and_then(|checks| checks.iter().find(|check| check["name"] == "kernel"));
    let finding = check.and_then(|check| check["finding"].as_str());
    cell(finding.unwrap_or_default().trim_start_matches("Linux "))
}

fn section<const N: usize>(
    page: &mut String,
    title: &str,
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    let row = |cells: &[String; N]| format!("| {} |\n", cells.join(" | "));
    // Writing to a string cannot fail.
    let _ = write!(page, "\n## {title}\n\n{}", row(&head.map(str::to_owned)));
    page.push_str(&row(&[const { "---" }; N].map(str::to_owned)));
    page.extend(rows.map(|cells| row(&cells)));
}

fn code(text: &str) -> String {
    format!("`{}`", cell(text))
}

/// Text that does not end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
