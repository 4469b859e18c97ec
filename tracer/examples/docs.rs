//! Writes the pages of the documentation that are made from tables into the
//! directory given: `cargo run -p tracer --example docs -- docs`.

use std::{env, fs, io, path::PathBuf, process::ExitCode};

use tracer::render::docs;

fn main() -> ExitCode {
    let Some(directory) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: docs DIRECTORY");
        return ExitCode::from(2);
    };
    let write = |name: &str, page: String| -> io::Result<()> {
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(name), page)
    };
    let written = write("figures.md", docs::figures_page())
        .and_then(|()| write("hooks.md", docs::hooks_page()))
        .and_then(|()| write("check.md", docs::check_page()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "cannot write the pages into {}: {error}",
                directory.display()
            );
            ExitCode::FAILURE
        }
    }
}
