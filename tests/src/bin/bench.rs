//! What tracer costs, beside its peers. `cargo xtask bench` runs it.
//!
//! `bench measure [--quick] [--only WORD]` measures, as root, and writes one JSON
//! document on stdout; it ends with status 3 when a figure is over its budget. `bench report
//! RUN.json FOLDER [README.md]` makes the pages of it. `bench walk [--states]` is a peer,
//! `bench iterate` the floor of a snapshot.

use std::{fs, io::Write as _, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, anyhow, bail};
use tests::bench::{
    budgets, chart,
    document::Document,
    iterate, markdown,
    measure::{self, Effort},
    walker,
};

const OVER_BUDGET: u8 = 3;
const USAGE: &str = "usage: bench measure [--quick] [--only WORD] | \
                     report RUN.json FOLDER [README.md] | walk [--states] | iterate";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["measure", ref options @ ..] => effort(options).and_then(|effort| measure(&effort)),
        ["report", run, folder] => report(run, folder, None),
        ["report", run, folder, readme] => report(run, folder, Some(readme)),
        ["walk"] => walk(false),
        ["walk", "--states"] => walk(true),
        ["iterate"] => iterate::every_second().map(|()| ExitCode::SUCCESS),
        _ => Err(anyhow!(USAGE)),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn effort(options: &[&str]) -> Result<Effort> {
    let (mut effort, options) = match options {
        ["--quick", rest @ ..] => (Effort::QUICK, rest),
        rest => (Effort::FULL, rest),
    };
    match options {
        [] => {}
        ["--only", word] => effort.only = Some((*word).to_owned()),
        _ => bail!(USAGE),
    }
    Ok(effort)
}

fn measure(effort: &Effort) -> Result<ExitCode> {
    let document = measure::run(effort)?;
    std::io::stdout().write_all(document.to_json()?.as_bytes())?;
    let mut status = ExitCode::SUCCESS;
    for verdict in budgets::broken(&document) {
        let found = verdict.found.unwrap_or_default();
        let (name, limit, unit) = (&verdict.name, &verdict.limit, &verdict.unit);
        eprintln!("over budget: {name}: {found:.2} {unit}, {limit}");
        status = ExitCode::from(OVER_BUDGET);
    }
    Ok(status)
}

fn report(run: &str, folder: &str, readme: Option<&str>) -> Result<ExitCode> {
    let text = fs::read_to_string(run).with_context(|| format!("cannot read {run}"))?;
    let document = Document::from_json(&text)?;
    let folder = Path::new(folder);
    put(&folder.join("bench.json"), &text)?;
    put(&folder.join("bench.md"), &markdown::page(&document))?;
    put(&folder.join("bench.svg"), &chart::svg(&document)?)?;
    if let Some(readme) = readme {
        let old = fs::read_to_string(readme).with_context(|| format!("cannot read {readme}"))?;
        put(Path::new(readme), &markdown::into_readme(&old, &document)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

fn walk(with_states: bool) -> Result<ExitCode> {
    match walker::every_second(with_states) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => bail!("the walk ended: {error}"),
    }
}
