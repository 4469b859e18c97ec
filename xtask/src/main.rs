//! The project's own tasks, run as `cargo xtask <task>`.
//!
//! Cargo builds one target with one compiler; tracer needs two of each, a
//! linker that no toolchain brings, and root to try it. That is all this
//! program does, and CI runs the same tasks as a person at a desk. This file
//! is the index: one module a task, and the few things they share.
//!
//! What xtask says goes to stderr, so that stdout belongs to tracer (`run`)
//! or to the test report (`test`, `ci`).

mod bench;
mod build;
mod ci;
mod clock;
mod docs;
mod flake;
mod live;
mod process;
mod progress;
mod root;
mod run;
mod setup;
mod tally;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  cargo xtask setup                          make this machine able to build
  cargo xtask run                            build tracer and start it as root
  cargo xtask run -- --format json | jq      the same, with options for `tracer run`
  cargo xtask run -- doctor                  another of tracer's commands
  cargo xtask test                           everything CI checks
  cargo xtask test blocked                   only the tests named *blocked*
  cargo xtask test --all                     every live test on every kernel, each alone
  cargo xtask vm --kernel 6.1                the live tests on another kernel
  cargo xtask flake a_queue_is_behind_its_root --load 4
                                             one live test, 20 times beside a load
  cargo xtask bench --quick                  tracer's cost beside its peers, in two minutes";

/// Tasks of the tracer project
#[derive(Parser)]
#[command(bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Make this machine able to build tracer: compiler and linker for the kernel side
    Setup(setup::Options),
    /// Build the kernel side, then tracer with it inside
    Build(build::Options),
    /// Build tracer and run it as root
    Run(run::Options),
    /// Install what is missing, then run all that `ci` runs
    Test(ci::Options),
    /// Run every check and test, installing nothing
    Ci(ci::Options),
    /// Run the live tests on other kernels, in guests
    Vm(vm::Options),
    /// Run live tests many times, and say how often they failed
    Flake(flake::Options),
    /// Write the generated pages under docs/ anew
    Docs,
    /// Measure what tracer costs, beside its peers
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup(options) => setup::task(&options).map(|()| ExitCode::SUCCESS),
        Task::Build(options) => build::task(&options).map(|()| ExitCode::SUCCESS),
        Task::Run(options) => run::task(&options).map(|never| match never {}),
        Task::Test(options) => ci::task(&options, setup::Missing::Install),
        Task::Ci(options) => ci::task(&options, setup::Missing::Refuse),
        Task::Vm(options) => vm::task(&options),
        Task::Flake(options) => flake::task(&options),
        Task::Docs => docs::task().map(|()| ExitCode::SUCCESS),
        Task::Bench(options) => bench::task(&options),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_are_those_that_clap_can_read() {
        Cli::command().debug_assert();
        let is_read = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        for line in [
            "xtask test",
            "xtask test oom",
            "xtask ci --all",
            "xtask vm --all --test oom --kernel 6.1 --kernel 7.x",
            "xtask flake a::b c --times 5 --kernel 6.12 --load 2",
        ] {
            assert!(is_read(line), "{line}");
        }
        for line in [
            "xtask test --all oom",
            "xtask vm --kernel 2.6",
            "xtask flake",
            "xtask flake a --times 0",
        ] {
            assert!(!is_read(line), "{line}");
        }
    }
}
