//! Rules of the source that no type can hold: they read it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each file of tracer's own source, with what stands before its tests.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut open = vec![root.clone()];
    let mut all = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                let name = path.strip_prefix(&root).expect("below it").to_path_buf();
                all.push((name, code.to_owned()));
            }
        }
    }
    all
}

/// What /proc/PID shows also when the first thread has ended, and what is asked of a
/// thread by its own id.
const OF_ANY_PROCESS: [&str; 6] = ["/stat", "/status", "/comm", "/io", "/task", "/wchan"];

/// What the crate procfs reads of the first thread alone.
const CALLS: [&str; 5] = [".fd()", ".fd_from_fd(", ".maps()", ".smaps", ".mountinfo()"];

/// A process whose first thread has ended has no descriptors, memory and namespaces under
/// /proc/PID: `host/living.rs` knows a thread that has.
#[test]
fn processes_are_looked_at_through_a_thread_that_lives() {
    let sources = sources();
    assert!(sources.len() > 100, "{}", sources.len());
    for (path, code) in sources {
        let has_procfs = code.contains("procfs::");
        if path == Path::new("host/living.rs") {
            continue;
        }
        for line in code.lines().filter(|line| !line.trim().starts_with("//")) {
            let rest = line
                .split("\"/proc/{")
                .nth(1)
                .and_then(|r| r.split_once('}'));
            let Some((name, file)) = rest else {
                for call in CALLS.iter().filter(|_| has_procfs) {
                    assert!(!line.contains(call), "{}: {line}", path.display());
                }
                continue;
            };
            let is_thread = name == "tid";
            let is_of_any = OF_ANY_PROCESS.iter().any(|of| file.starts_with(of));
            assert!(is_thread || is_of_any, "{}: {line}", path.display());
        }
    }
}
