//! Files that are written at the end of a run.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    cli::LoadArgs,
    render::{flame, folded},
    snapshot::BlockedStack,
};

/// Files that are open since before the run: one that cannot be written is told at
/// once, not after an hour.
#[derive(Default)]
pub(super) struct Pictures {
    flame: Option<(PathBuf, File)>,
    folded: Option<(PathBuf, File)>,
}

impl Pictures {
    /// Makes the files that were asked for.
    pub(super) fn create(args: &LoadArgs) -> anyhow::Result<Self> {
        let create = |path: &Option<PathBuf>| -> anyhow::Result<_> {
            let Some(path) = path else { return Ok(None) };
            let file = File::create(path).with_context(|| cannot_write(path))?;
            Ok(Some((path.clone(), file)))
        };
        Ok(Self {
            flame: create(&args.flame)?,
            folded: create(&args.folded)?,
        })
    }

    /// Writes what was blocked; `title` says of what.
    pub(super) fn write(self, title: &str, stacks: &[BlockedStack]) -> anyhow::Result<()> {
        if let Some((path, mut file)) = self.flame {
            file.write_all(&flame::flame(title, stacks))
                .with_context(|| cannot_write(&path))?;
        }
        if let Some((path, mut file)) = self.folded {
            file.write_all(&folded::folded(stacks))
                .with_context(|| cannot_write(&path))?;
        }
        Ok(())
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
