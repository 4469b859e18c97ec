//! What is read of a program's file: segments, sections, symbols. 64 bits, little endian.
//!
//! By pread(2) alone, into memory of a known size: a mapped file that is cut ends who
//! reads it.

use std::{ops::Range, os::fd::OwnedFd};

use super::demangle;

/// Segments and sections of a file; of a program in use there are some forty.
const SEGMENTS: usize = 128;
const SECTIONS: usize = 1024;
/// Bytes of the names of sections.
const SECTION_NAMES: usize = 64 << 10;
/// Symbols at once, and at most.
const SYMBOLS_AT_ONCE: usize = 4096;
const SYMBOLS: u64 = 2 << 20;
/// Bytes of a name as the linker has it.
const RAW_NAME: usize = 4096;

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const SECTION: usize = 64;
const SYMBOL: usize = 24;
/// `\x7fELF`, 64 bits, little endian (include/uapi/linux/elf.h).
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
const PT_LOAD: u32 = 1;
const PF_X: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_NOBITS: u32 = 8;
const SHT_DYNSYM: u32 = 11;
/// Of what may be a function: no type, function, function that is chosen at start.
const STT: [u8; 3] = [0, 2, 10];
/// The smallest page.
const PAGE: u64 = 4096;

/// As many bytes of a file as there are from a place on, at most `length`.
pub(super) fn read_at(file: &OwnedFd, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match rustix::io::pread(file, room, at.saturating_add(filled as u64)) {
            Ok(0) | Err(_) => break,
            Ok(more) => filled += more,
        }
    }
    bytes.truncate(filled);
    bytes
}

/// The parts of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Elf {
    code: Vec<Segment>,
    sections: Vec<Section>,
}

/// A segment of code.
#[derive(Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    address: u64,
    size: u64,
}

/// A section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    name: Vec<u8>,
    kind: u32,
    address: u64,
    offset: u64,
    /// In bytes.
    pub(super) size: u64,
    link: u32,
}

impl Section {
    /// Addresses, as the file has them.
    pub(super) fn range(&self) -> Option<Range<u64>> {
        Some(self.address..self.address.checked_add(self.size)?)
    }

    /// What is in it; `None` where that is more than so many bytes.
    pub(super) fn data(&self, file: &OwnedFd, most: usize) -> Option<Vec<u8>> {
        let size = usize::try_from(self.size).ok()?;
        let has_it = self.kind != SHT_NOBITS && size <= most;
        has_it.then(|| read_at(file, self.offset, size))
    }
}

impl Elf {
    /// Reads the headers. `None`: this is no program.
    pub(super) fn read(file: &OwnedFd) -> Option<Self> {
        let header = read_at(file, 0, HEADER);
        header.starts_with(MAGIC).then_some(())?;
        let segments = table(
            file,
            (u64_at(&header, 32)?, SEGMENT),
            (&header, 54),
            SEGMENTS,
        )?;
        let code = segments.chunks_exact(SEGMENT).filter_map(|segment| {
            let is_code = u32_at(segment, 0)? == PT_LOAD && u32_at(segment, 4)? & PF_X != 0;
            is_code.then_some(Segment {
                offset: u64_at(segment, 8)?,
                address: u64_at(segment, 16)?,
                size: u64_at(segment, 32)?,
            })
        });
        let code = code.collect();
        // A file without sections still says where its code is.
        let sections = table(
            file,
            (u64_at(&header, 40)?, SECTION),
            (&header, 58),
            SECTIONS,
        );
        let mut sections: Vec<(u32, Section)> = sections
            .unwrap_or_default()
            .chunks_exact(SECTION)
            .filter_map(section)
            .collect();
        let names = usize::from(u16_at(&header, 62)?);
        let names = sections.get(names).map(|(_, section)| section.clone());
        let names = names.map_or_else(Vec::new, |names| {
            read_at(file, names.offset, SECTION_NAMES.min(names.size as usize))
        });
        for (at, section) in &mut sections {
            section.name = text_at(&names, *at as usize).to_vec();
        }
        let sections = sections.into_iter().map(|(_, section)| section).collect();
        Some(Self { code, sections })
    }

    /// The section of a name.
    pub(super) fn section(&self, name: &[u8]) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// What is added to an address in the file to get the one in the process, for a
    /// mapping of its code. It begins at a page, and the segment somewhere in it.
    pub(super) fn base(&self, start: u64, offset: u64) -> Option<u64> {
        let page = PAGE - 1;
        let code = self.code.iter().find(|segment| {
            let end = segment.offset.saturating_add(segment.size);
            (segment.offset & !page..end).contains(&offset)
        })?;
        let begin = start.wrapping_sub(offset);
        Some(begin.wrapping_sub(code.address.wrapping_sub(code.offset)))
    }

    /// The functions at some addresses of the file, by its symbols.
    pub(super) fn functions(&self, file: &OwnedFd, addresses: &[u64]) -> Vec<Option<Vec<u8>>> {
        let mut names = vec![None; addresses.len()];
        for kind in [SHT_SYMTAB, SHT_DYNSYM] {
            let table = self.sections.iter().find(|section| section.kind == kind);
            let Some(table) = table.filter(|_| names.iter().any(Option::is_none)) else {
                continue;
            };
            let Some(strings) = self.sections.get(table.link as usize) else {
                continue;
            };
            let found = nearest(file, table, addresses);
            for (name, found) in names.iter_mut().zip(found) {
                if name.is_none() {
                    *name = found.symbol().and_then(|at| {
                        let at = strings.offset.checked_add(u64::from(at))?;
                        let raw = read_at(file, at, RAW_NAME);
                        let raw = text_at(&raw, 0);
                        (!raw.is_empty()).then(|| demangle::name(raw))
                    });
                }
            }
        }
        names
    }
}

/// What the symbols say of an address: where its function begins, and what it is called.
#[derive(Clone, Copy, Default)]
struct Nearest {
    /// The last that begins before it and has it inside: begin, place of the name.
    around: Option<(u64, u32)>,
    /// The last before it that has no length.
    open: Option<(u64, u32)>,
    /// Begin of the last before it.
    last: u64,
}

impl Nearest {
    /// A function without a length ends where another begins.
    fn symbol(self) -> Option<u32> {
        let open = self.open.filter(|(begin, _)| *begin == self.last);
        self.around.or(open).map(|(_, name)| name)
    }
}

fn nearest(file: &OwnedFd, table: &Section, addresses: &[u64]) -> Vec<Nearest> {
    let mut all = vec![Nearest::default(); addresses.len()];
    let end = table.size.min(SYMBOLS * SYMBOL as u64);
    let mut at = 0;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX);
        let piece = read_at(
            file,
            table.offset.saturating_add(at),
            length.min(SYMBOLS_AT_ONCE * SYMBOL),
        );
        for symbol in piece.chunks_exact(SYMBOL) {
            take(symbol, addresses, &mut all);
        }
        if piece.len() < SYMBOL {
            break;
        }
        at += piece.len() as u64;
    }
    all
}

fn take(symbol: &[u8], addresses: &[u64], all: &mut [Nearest]) -> Option<()> {
    let (name, kind) = (u32_at(symbol, 0)?, symbol.get(4)? & 0xf);
    let (section, begin, size) = (u16_at(symbol, 6)?, u64_at(symbol, 8)?, u64_at(symbol, 16)?);
    // Of another file, or a number.
    if !STT.contains(&kind) || section == 0 || section >= 0xff00 {
        return None;
    }
    for (address, known) in addresses.iter().zip(all) {
        let Some(inside) = address.checked_sub(begin) else {
            continue;
        };
        known.last = known.last.max(begin);
        let place = match size {
            0 => &mut known.open,
            size if inside < size => &mut known.around,
            _ => continue,
        };
        if place.is_none_or(|(other, _)| other < begin) {
            *place = Some((begin, name));
        }
    }
    None
}

/// A table of entries whose number is in the header.
fn table(
    file: &OwnedFd,
    (at, entry): (u64, usize),
    (header, size_at): (&[u8], usize),
    most: usize,
) -> Option<Vec<u8>> {
    let size = usize::from(u16_at(header, size_at)?);
    let count = usize::from(u16_at(header, size_at + 2)?);
    let is_usual = size == entry && count <= most;
    is_usual.then(|| read_at(file, at, count * entry))
}

/// A section, and where its name is.
fn section(bytes: &[u8]) -> Option<(u32, Section)> {
    let section = Section {
        name: Vec::new(),
        kind: u32_at(bytes, 4)?,
        address: u64_at(bytes, 16)?,
        offset: u64_at(bytes, 24)?,
        size: u64_at(bytes, 32)?,
        link: u32_at(bytes, 40)?,
    };
    Some((u32_at(bytes, 0)?, section))
}

/// Text up to its zero, as far as it is there.
fn text_at(bytes: &[u8], at: usize) -> &[u8] {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, os::fd::OwnedFd};

    use proptest::prelude::{any, prop, proptest};

    use super::{Elf, HEADER, MAGIC, Nearest, take};

    fn file(bytes: &[u8]) -> OwnedFd {
        let file = rustix::fs::memfd_create("elf", rustix::fs::MemfdFlags::CLOEXEC);
        let mut file = File::from(file.expect("a file"));
        file.write_all(bytes).expect("room");
        file.into()
    }

    /// A function of this program, by its own symbols.
    #[inline(never)]
    fn here() -> usize {
        here as *const () as usize
    }

    #[test]
    fn a_function_of_this_program_is_found() {
        let at = here();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let mapping = maps.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (start, end) = words.next()?.split_once('-')?;
            let hex = |word| usize::from_str_radix(word, 16).ok();
            let offset = hex(words.nth(1)?)?;
            (hex(start)?..hex(end)?)
                .contains(&at)
                .then_some((hex(start)?, offset))
        });
        let (start, offset) = mapping.expect("code");
        let file = OwnedFd::from(File::open("/proc/self/exe").expect("this program"));
        let elf = Elf::read(&file).expect("an ELF file");
        let base = elf.base(start as u64, offset as u64).expect("its code");
        let names = elf.functions(&file, &[at as u64 - base, 0]);
        let name = names[0].clone().expect("a symbol");
        let name = String::from_utf8(name).expect("UTF-8");
        assert!(name.ends_with("elf::tests::here"), "{name}");
        assert_eq!(names[1], None);
        assert!(elf.section(b".eh_frame").is_some());
    }

    #[test]
    fn symbols_without_a_length_end_where_another_begins() {
        let symbol = |name: u32, begin: u64, size: u64| {
            let rest = [2, 0, 1, 0];
            [
                &name.to_le_bytes()[..],
                &rest,
                &begin.to_le_bytes(),
                &size.to_le_bytes(),
            ]
            .concat()
        };
        let addresses = [10, 25, 35, 45];
        let mut all = [Nearest::default(); 4];
        for symbol in [
            symbol(1, 0, 0),
            symbol(2, 20, 10),
            symbol(3, 40, 0),
            symbol(4, 24, 2),
        ] {
            take(&symbol, &addresses, &mut all);
        }
        let found = all.map(Nearest::symbol);
        // 35 is behind the end of the second, and in none.
        assert_eq!(found, [Some(1), Some(4), None, Some(3)]);
    }

    proptest! {
        #[test]
        fn any_file_is_a_program_or_none(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let program = [MAGIC, &bytes].concat();
            let program = file(&program);
            if let Some(elf) = Elf::read(&program) {
                elf.base(0x1000, 0);
                elf.functions(&program, &[1, u64::MAX]);
            }
        }

        #[test]
        fn any_sections_are_read(bytes in prop::collection::vec(any::<u8>(), 64 * 5..64 * 6)) {
            // A header that leads to five sections of anything.
            let mut program = MAGIC.to_vec();
            program.resize(HEADER, 0);
            program[40] = 64;
            program[54..56].copy_from_slice(&56_u16.to_le_bytes());
            program[58..64].copy_from_slice(&[64, 0, 5, 0, 1, 0]);
            program.extend(bytes);
            program[64 + 4] = 2;
            let program = file(&program);
            let elf = Elf::read(&program).expect("headers");
            elf.functions(&program, &[1, u64::MAX]);
        }
    }
}
