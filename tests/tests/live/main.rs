//! The live tests: the real thing provoked on a real kernel, as root.
//!
//! Each module has a table of its tests, with where and beside what they may run; see
//! `tests::lanes`. `live --list` shows them all. Within a lane they begin in the order of
//! the tables: those that take longest first.

mod adverse;
mod causes;
mod check;
mod check_cpu;
mod check_disks;
mod check_guest;
mod check_idle;
mod check_limits;
mod check_network;
mod check_owners;
mod cookies;
mod cost;
mod events;
mod faults;
mod full_tables;
mod guest;
mod hostile_stacks;
mod leaks;
mod listeners;
mod memory_v1;
mod named_files;
mod namespaces;
mod nodes;
mod oom;
mod oom_limits;
mod recorded;
mod rights;
mod sockets;
mod storms;
mod syn;
mod tcp;
mod truth;

fn main() -> std::process::ExitCode {
    tests::lanes::main(&[
        recorded::TESTS,
        truth::TESTS,
        storms::TESTS,
        sockets::TESTS,
        causes::TESTS,
        faults::TESTS,
        leaks::TESTS,
        rights::TESTS,
        hostile_stacks::TESTS,
        oom::TESTS,
        oom_limits::TESTS,
        adverse::TESTS,
        nodes::TESTS,
        syn::TESTS,
        cookies::TESTS,
        tcp::TESTS,
        namespaces::TESTS,
        full_tables::TESTS,
        events::TESTS,
        named_files::TESTS,
        guest::TESTS,
        check::TESTS,
        check_cpu::TESTS,
        check_disks::TESTS,
        check_guest::TESTS,
        check_idle::TESTS,
        check_limits::TESTS,
        check_network::TESTS,
        check_owners::TESTS,
        cost::TESTS,
        memory_v1::TESTS,
    ])
}
