//! What is written twice is the same twice: the generated pages, and the names
//! of the kernel fields on both sides.

use std::{collections::BTreeSet, fs, path::Path};

use tracer::{
    kernel::fields::FIELDS,
    render::docs::{check_page, figures_page, hooks_page},
};

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn generated_pages_are_fresh() {
    for (path, page) in [
        ("docs/figures.md", figures_page()),
        ("docs/check.md", check_page()),
        ("docs/hooks.md", hooks_page()),
    ] {
        assert_eq!(read(path), page, "{path} is stale: run `cargo xtask docs`");
    }
}

/// An offset that only one side knows would stay 0, and read rubbish.
#[test]
fn both_sides_name_the_same_fields() {
    let source = read("tracer-ebpf/src/field.rs");
    let list = source
        .split("offsets!(")
        .nth(1)
        .and_then(|rest| rest.split(");").next());
    let kernel: BTreeSet<&str> = list
        .expect("the list")
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    // Where these are takes more than a path: `resolve` finds out.
    let others = [
        "CSS_SET_CGROUP",
        "CSS_CGROUP",
        "CSS_SET_MEMORY",
        "FREEZE_LOCK_BYTES",
        "MM_FILE_PAGES",
        "MM_ANON_PAGES",
        "MM_SWAP_ENTRIES",
        "MM_SHMEM_PAGES",
    ];
    let user: BTreeSet<&str> = FIELDS
        .iter()
        .map(|field| field.name)
        .chain(others)
        .collect();
    assert_eq!(kernel, user);
}
