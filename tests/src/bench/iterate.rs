//! The floor of a snapshot: the kernel walks over all tasks, and does nothing with them.

use std::{
    fs::File,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};
use aya::{Btf, Ebpf, programs::Iter};

use crate::{bpf, time::let_pass};

const PROGRAM: &str = "floor_task";

/// Walks once a second, and says so in a line each, for ever.
///
/// # Errors
/// The kernel refuses the program, or nobody reads the lines.
pub fn every_second() -> Result<()> {
    let mut ebpf = bpf::object();
    program(&mut ebpf)?.load("task", &Btf::from_sys_fs()?)?;
    loop {
        let mut file = open(&mut ebpf)?;
        // The program writes nothing: the first read is all of the walk, and the end.
        let bytes = io::copy(&mut file, &mut io::sink())?;
        let mut out = io::stdout().lock();
        writeln!(out, "walked, and found {bytes} bytes")?;
        out.flush()?;
        drop(out);
        let_pass(1.0);
    }
}

/// A new file each time: an iterator's cannot be rewound.
fn open(ebpf: &mut Ebpf) -> Result<File> {
    let program = program(ebpf)?;
    let link = program.attach()?;
    Ok(program.take_link(link)?.into_file()?)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Iter> {
    let program = ebpf.program_mut(PROGRAM).context("the object has it")?;
    Ok(program.try_into()?)
}
