//! The `tracer` program: parse, do, and say what failed.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use tracer::{
    check,
    cli::{self, Command},
    doctor,
    host::{own, user_stacks},
    kernel, session, text,
};

fn main() -> ExitCode {
    if let Some(code) = user_stacks::run_if_asked() {
        return code;
    }
    own::map_large_blocks();
    let command = cli::parse().command;
    kernel::features::make_sure();
    let done = match command {
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
            // It may quote what a file or the host says.
            say(format!("tracer: {}\n", text::lines(&format!("{error:#}"))));
            ExitCode::FAILURE
        }
    }
}

/// An error's message is waited for so long: standard error may be full, or a terminal
/// that is stopped.
const PATIENCE: Duration = Duration::from_millis(400);

/// Writes to standard error, if that can be written.
fn say(message: String) {
    let (done, is_done) = mpsc::channel();
    let write = move || {
        let written = io::stderr().write_all(message.as_bytes());
        let _ = done.send(written);
    };
    if thread::Builder::new().spawn(write).is_ok() {
        let _ = is_done.recv_timeout(PATIENCE);
    }
}
