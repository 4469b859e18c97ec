//! `tracer check` as a program reads it: its one JSON object.

use std::{
    env, fs,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

use crate::tracer::run;

/// What a look found.
#[derive(Debug)]
pub struct Look(pub Value);

impl Look {
    /// Looks, with these options besides `--format json`; it must exit 0.
    pub fn now(args: &[&str]) -> Self {
        let args = [&["check", "--format", "json"], args].concat();
        let (status, stdout, stderr) = run(&args);
        assert!(status.success(), "{status}: {stderr}");
        Self(serde_json::from_str(&stdout).expect("one JSON object"))
    }

    /// A row.
    pub fn row(&self, name: &str) -> &Value {
        let rows = self.0["rows"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["row"] == name);
        row.unwrap_or_else(|| panic!("no row {name}: {}", self.0))
    }

    /// A row's verdict.
    pub fn verdict(&self, row: &str) -> &str {
        self.row(row)["verdict"].as_str().expect("a verdict")
    }

    /// A figure of a row; of what is empty where there is one only.
    pub fn figure(&self, row: &str, name: &str, of: &str) -> f64 {
        let row = self.row(row);
        let figures = row["figures"].as_array().expect("figures");
        let figure = figures.iter().find(|f| f["name"] == name && f["of"] == of);
        let figure = figure.unwrap_or_else(|| panic!("no {name} of {of:?}: {row}"));
        figure["value"].as_f64().expect("a number")
    }

    /// The finding of a row whose text, or one of its culprits, has all these words.
    pub fn finding(&self, row: &str, words: &[&str]) -> Option<&Value> {
        let findings = self.row(row)["findings"].as_array().expect("findings");
        findings.iter().find(|finding| {
            let all = finding.to_string();
            words.iter().all(|word| all.contains(word))
        })
    }

    /// The same, which must be there, and its verdict.
    pub fn found(&self, row: &str, words: &[&str]) -> &str {
        let finding = self.finding(row, words);
        let finding = finding.unwrap_or_else(|| panic!("no {words:?}: {}", self.row(row)));
        println!("{finding}");
        finding["verdict"].as_str().expect("a verdict")
    }
}

/// A file of limits; removed at the end.
#[derive(Debug)]
pub struct Config(PathBuf);

impl Config {
    /// One with this text.
    pub fn of(text: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tracer-limits-{}-{count}.toml", process::id());
        let path = env::temp_dir().join(name);
        fs::write(&path, text).expect("a file");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
