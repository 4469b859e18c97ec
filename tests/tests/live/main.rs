//! The live tests: the real thing provoked on a real kernel, as root.
//!
//! Each module has a table of its tests, with where and beside what they may run; see
//! `tests::lanes`. `live --list` shows them all. Long tests come first, so that the lane
//! ends soon after the last of them.

mod causes;
mod cookies;
mod events;
mod leaks;
mod listeners;
mod sockets;
mod storms;
mod syn;
mod tcp;
mod truth;

fn main() -> std::process::ExitCode {
    tests::lanes::main(&[
        truth::TESTS,
        storms::TESTS,
        causes::TESTS,
        events::TESTS,
        leaks::TESTS,
        tcp::TESTS,
        sockets::TESTS,
        cookies::TESTS,
        syn::TESTS,
    ])
}
