//! `tracer check` beside the kernel's own figures, and with trouble that is made on purpose.
//! Rows have files of their own: check_disks.rs and so on.

use std::process::Command;

use tests::{assert_near, check::Look};

/// The words after a line's first, as numbers.
fn numbers(text: &str, line: &str) -> Vec<f64> {
    let line = text.lines().find_map(|l| l.trim_start().strip_prefix(line));
    let line = line.unwrap_or_else(|| panic!("no {line}: {text}"));
    line.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Memory is what free(1) says.
#[test]
fn memory_is_that_of_free() {
    let free = || {
        let output = Command::new("free").arg("-b").output().expect("free runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let look = Look::now(&["--only", "memory", "--sample", "100ms"]);
    let free = numbers(&free(), "Mem:");
    for (at, name) in [
        (0, "memory_total_bytes"),
        (2, "memory_free_bytes"),
        (4, "memory_buff_cache_bytes"),
        (5, "memory_available_bytes"),
    ] {
        // What the processes in between take.
        let changed = if at == 0 { 0.0 } else { 64.0 * 1024.0 * 1024.0 };
        assert_near(name, look.figure("memory", name, ""), free[at], changed);
    }
}
