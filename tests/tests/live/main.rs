//! The live tests: the real thing provoked on a real kernel, as root.
//!
//! Each module has a table of its tests, with where and beside what they may run; see
//! `tests::lanes`. `live --list` shows them all.

mod oom;

fn main() -> std::process::ExitCode {
    tests::lanes::main(&[
        oom::TESTS,
    ])
}
