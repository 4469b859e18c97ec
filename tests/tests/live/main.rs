//! The live tests: the real thing provoked on a real kernel, as root.
//!
//! Each module has a table of its tests, with where and beside what they may run; see
//! `tests::lanes`. `live --list` shows them all.

mod check;
mod check_cpu;
mod check_disks;
mod check_guest;
mod check_idle;
mod check_limits;
mod check_network;
mod cost;
mod faults;
mod guest;
mod memory_v1;
mod nodes;
mod oom;

fn main() -> std::process::ExitCode {
    tests::lanes::main(&[
        check::TESTS,
        check_cpu::TESTS,
        check_disks::TESTS,
        check_guest::TESTS,
        check_idle::TESTS,
        check_limits::TESTS,
        check_network::TESTS,
        cost::TESTS,
        faults::TESTS,
        guest::TESTS,
        memory_v1::TESTS,
        nodes::TESTS,
        oom::TESTS,
    ])
}
