//! The live tests: the real thing provoked on a real kernel, as root.
//!
//! Each module has a table of its tests, with where and beside what they may run; see
//! `tests::lanes`. `live --list` shows them all.

mod cookies;
mod leaks;
mod listeners;
mod sockets;
mod syn;
mod tcp;

fn main() -> std::process::ExitCode {
    tests::lanes::main(&[
        cookies::TESTS,
        leaks::TESTS,
        sockets::TESTS,
        syn::TESTS,
        tcp::TESTS,
    ])
}
