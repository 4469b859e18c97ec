//! The live tests on this machine, as root. What cargo builds stays the user's: only the
//! program of the live tests itself is root's.

use std::process::Command;

use anyhow::Result;

use crate::build::{self, LiveTests};
use crate::{root, setup, workspace};

/// Their program, without options; root's password is asked for first.
pub(crate) fn command(live: &LiveTests) -> Result<Command> {
    let variables = [
        ("TRACER_BIN", workspace::tracer_binary("release")),
        ("TRACER_BPF_OBJECT", build::kernel_object()),
        ("TRACER_PROVOKE", live.provoke.clone()),
    ];
    let nginx = setup::nginx().map(|path| ("TRACER_NGINX", path));
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .chain(&nginx)
        .map(|(name, path)| Ok((*name, workspace::utf8(path)?)))
        .collect::<Result<_>>()?;
    root::ask_password()?;
    root::command(&live.live, &variables)
}
