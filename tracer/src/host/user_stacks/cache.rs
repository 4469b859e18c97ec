//! What the reader keeps of files from one stack to the next: copies of their tables, and
//! names. No descriptor.

use std::{collections::HashMap, ops::Range, os::fd::OwnedFd, rc::Rc};

use bytes::Bytes;
use framehop::{ExplicitModuleSectionInfo, Module};

use super::{
    elf::Elf,
    protocol::{FileKey, Mapping},
};

/// A table that is larger is not read, in bytes.
const LARGEST_TABLE: usize = 16 << 20;
/// Bytes of tables.
const BYTES: usize = 24 << 20;
/// When as many bytes are kept at the begin of a reading, all of them go.
const FULL: usize = 12 << 20;
/// Names, modules and files that are kept.
const NAMES: usize = 4096;
const MODULES: usize = 512;
const FILES: usize = 256;

/// What unwinds the code of a mapping.
pub(super) type Unwinding = Module<Bytes>;

#[derive(Default)]
pub(super) struct Cache {
    files: HashMap<FileKey, Option<Rc<Program>>>,
    modules: HashMap<(FileKey, u64, u64), Unwinding>,
    names: HashMap<(FileKey, u64), Option<Vec<u8>>>,
    bytes: usize,
}

/// A program's file.
pub(super) struct Program {
    pub(super) elf: Elf,
    eh_frame: Option<Bytes>,
    eh_frame_hdr: Option<Bytes>,
    /// A table was too large.
    pub(super) is_partial: bool,
}

impl Cache {
    /// Makes room before a reading.
    pub(super) fn make_room(&mut self) {
        let is_full = self.bytes > FULL
            || self.names.len() > NAMES
            || self.modules.len() > MODULES
            || self.files.len() > FILES;
        if is_full {
            *self = Self::default();
        }
    }

    /// The program in a file; `None` when it is none.
    pub(super) fn program(&mut self, key: FileKey, file: &OwnedFd) -> Option<Rc<Program>> {
        if let Some(known) = self.files.get(&key) {
            return known.clone();
        }
        let room = LARGEST_TABLE.min(BYTES.saturating_sub(self.bytes) / 2);
        let program = Program::read(file, room).map(Rc::new);
        self.bytes += program.as_ref().map_or(0, |program| program.bytes());
        self.files.insert(key, program.clone());
        program
    }

    /// What unwinds a mapping of it.
    pub(super) fn module(
        &mut self,
        key: FileKey,
        program: &Program,
        mapping: &Mapping,
    ) -> Option<Unwinding> {
        let range = mapping.range.clone();
        let of = (key, range.start, mapping.offset);
        if let Some(known) = self
            .modules
            .get(&of)
            .filter(|known| known.avma_range() == range)
        {
            return Some(known.clone());
        }
        let base = program.elf.base(range.start, mapping.offset)?;
        let module = program.module(range, base);
        self.modules.insert(of, module.clone());
        Some(module)
    }

    /// Names of addresses in a file, from its symbols where they are not known yet.
    pub(super) fn names(
        &mut self,
        key: FileKey,
        (program, file): (&Program, &OwnedFd),
        addresses: &[u64],
    ) -> Vec<Option<Vec<u8>>> {
        let is_new = |address: &&u64| !self.names.contains_key(&(key, **address));
        let mut new: Vec<u64> = addresses.iter().filter(is_new).copied().collect();
        new.sort_unstable();
        new.dedup();
        if !new.is_empty() {
            let found = program.elf.functions(file, &new);
            let found = new.into_iter().map(|address| (key, address)).zip(found);
            self.names.extend(found);
        }
        let name = |address: &u64| self.names.get(&(key, *address)).cloned().flatten();
        addresses.iter().map(name).collect()
    }
}

impl Program {
    fn read(file: &OwnedFd, room: usize) -> Option<Self> {
        let elf = Elf::read(file)?;
        let mut is_partial = false;
        let mut data = |name: &[u8]| {
            let section = elf.section(name)?;
            let data = section.data(file, room);
            is_partial |= data.is_none();
            data.map(Bytes::from)
        };
        let (eh_frame, eh_frame_hdr) = (data(b".eh_frame"), data(b".eh_frame_hdr"));
        Some(Self {
            eh_frame,
            eh_frame_hdr,
            is_partial,
            elf,
        })
    }

    fn bytes(&self) -> usize {
        let tables = [&self.eh_frame, &self.eh_frame_hdr];
        tables.into_iter().flatten().map(Bytes::len).sum()
    }

    fn module(&self, range: Range<u64>, base: u64) -> Unwinding {
        let svma = |name: &[u8]| self.elf.section(name)?.range();
        let info = ExplicitModuleSectionInfo {
            text_svma: svma(b".text"),
            got_svma: svma(b".got"),
            eh_frame_svma: svma(b".eh_frame"),
            eh_frame: self.eh_frame.clone(),
            eh_frame_hdr_svma: svma(b".eh_frame_hdr"),
            eh_frame_hdr: self.eh_frame_hdr.clone(),
            ..ExplicitModuleSectionInfo::default()
        };
        Module::new(String::new(), range, base, info)
    }
}
