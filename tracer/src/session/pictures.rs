//! Files that are written at the end of a run.

use std::{io, os::fd::AsFd};

use anyhow::{Context as _, ensure};

use super::output_file::OutputFile;
use crate::{
    cli::LoadArgs,
    render::{flame, folded},
    snapshot::BlockedStack,
};

/// Files that are open since before the run: one that cannot be written is told at
/// once, not after an hour.
#[derive(Default)]
pub(super) struct Pictures {
    flame: Option<OutputFile>,
    folded: Option<OutputFile>,
}

impl Pictures {
    /// Makes the files that were asked for.
    ///
    /// # Errors
    /// One cannot be written, or two outputs are one file, under whatever names.
    pub(super) fn create(args: &LoadArgs) -> anyhow::Result<Self> {
        let open = |path: &Option<_>| path.as_deref().map(OutputFile::open).transpose();
        let (flame, folded) = (open(&args.flame)?, open(&args.folded)?);
        if let (Some(flame), Some(folded)) = (&flame, &folded) {
            ensure_apart(flame, folded, "--flame", "--folded")?;
        }
        for (file, option) in [(&flame, "--flame"), (&folded, "--folded")] {
            if let Some(file) = file {
                ensure_apart(file, io::stdout(), option, "standard output")?;
                ensure_apart(file, io::stderr(), option, "standard error")?;
            }
        }
        for file in flame.iter().chain(&folded) {
            file.cut()?;
        }
        Ok(Self { flame, folded })
    }

    /// Writes what was blocked; `title` says of what.
    pub(super) fn write(self, title: &str, stacks: &[BlockedStack]) -> anyhow::Result<()> {
        if let Some(file) = self.flame {
            file.write(&flame::flame(title, stacks))?;
        }
        if let Some(file) = self.folded {
            file.write(&folded::folded(stacks))?;
        }
        Ok(())
    }
}

/// What one writes would be mixed with what the other does.
fn ensure_apart(file: &OutputFile, other: impl AsFd, one: &str, two: &str) -> anyhow::Result<()> {
    let path = file.path().display();
    let is_same = file.is_same(other);
    let is_same = is_same.with_context(|| format!("cannot compare {path} with {two}"))?;
    ensure!(
        !is_same,
        "{one} and {two} are the same file ({path}); give each a file of its own"
    );
    Ok(())
}
