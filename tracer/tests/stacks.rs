//! Stacks that kernels gave, `stacks/`: a file is one kernel's, a line is
//! `comm;cause;outermost;...;innermost N`. Elements that begin with `[` are no frames,
//! and N is not looked at.

use std::{fs, path::Path};

use tracer::aggregate::causes::{Cause, find};

#[test]
fn recorded_stacks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stacks");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("folder of stacks")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "folded"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no recorded stacks");
    let mut wrong = Vec::new();
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(file).expect("recorded stacks");
        assert!(!text.trim().is_empty(), "{name}: no stack");
        for (i, line) in text.lines().enumerate() {
            if let Err(what) = hold_against(line) {
                wrong.push(format!("{name}:{}: {what}\n    {line}", i + 1));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn hold_against(line: &str) -> Result<(), String> {
    let (stack, count) = line.rsplit_once(' ').ok_or("no count")?;
    if count.parse::<u64>().is_err() {
        return Err(format!("`{count}` is no count"));
    }
    let mut parts = stack.split(';');
    let (Some(_comm), Some(recorded)) = (parts.next(), parts.next()) else {
        return Err("no cause".to_owned());
    };
    let mut frames: Vec<&str> = parts.filter(|part| !part.starts_with('[')).collect();
    frames.reverse();
    if frames.is_empty() {
        // Time that nobody looked at, and records that were lost.
        let unseen = [Cause::Brief, Cause::Lost].map(Cause::word);
        return if unseen.contains(&recorded) {
            Ok(())
        } else {
            Err("no frame".to_owned())
        };
    }
    let finding = find(&frames);
    // A read of the page cache looks alike on all file systems: what was recorded
    // knew the mount.
    let by_mount = ["fuse", "nfs"].map(|kind| finding.cause.on(kind).word());
    if finding.cause.word() == recorded || by_mount.contains(&recorded) {
        return Ok(());
    }
    let by = finding.frame.and_then(|i| frames.get(i));
    Err(format!(
        "recorded `{recorded}`, found `{}` by `{}`",
        finding.cause.word(),
        by.unwrap_or(&"nothing")
    ))
}
