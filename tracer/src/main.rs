//! The `tracer` program: parse, do, and say what failed.

use std::process::ExitCode;

use clap::Parser as _;
use tracer::{
    check,
    cli::{Cli, Command},
    doctor,
    host::user_stacks,
    session,
};

fn main() -> ExitCode {
    if let Some(code) = user_stacks::run_if_asked() {
        return code;
    }
    let done = match Cli::parse().command {
        Command::Run(args) => session::run(&args),
        Command::Load(args) => session::load(&args),
        Command::Syn(args) => session::syn(&args),
        Command::Oom(args) => session::oom(&args),
        Command::Tcp(args) => session::tcp(&args),
        Command::Events(args) => session::events(&args),
        Command::Check(args) => check::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tracer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
