//! A reader of the kernel's type information (BTF) that looks up a few fields
//! and nothing else: one pass over the types, no allocation per type.
//!
//! Format: Documentation/bpf/btf.rst. Offsets come out in bytes.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Where a kernel shows its own types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// A chain of typedefs and qualifiers longer than this is a damaged file.
const MAX_CHAIN: usize = 32;
/// Structs within structs deeper than this, likewise: no kernel's are within ten.
const MAX_NESTING: usize = 64;
/// The longest name that is looked at, as no kernel's is (`KSYM_NAME_LEN`).
const MAX_NAME_BYTES: usize = 512;
/// The largest file that is read. A kernel's has 4 to 30 MiB.
const MAX_FILE_BYTES: u64 = 128 << 20;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why type information cannot be used.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("cannot read the kernel's type information (BTF) at {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bytes are no BTF.
    #[error("{path} is not BTF: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: &'static str,
    },
}

/// Type information of one kernel.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    /// Where each type begins; type ids begin at 1.
    types: Vec<u32>,
    strings: std::ops::Range<usize>,
    structs: HashMap<Box<[u8]>, u32>,
}

impl Btf {
    /// Reads a file such as [`VMLINUX`]; `wanted` names the structs that
    /// [`Btf::offset`] will be asked for.
    ///
    /// # Errors
    /// The file cannot be read, or is no BTF of this machine's byte order.
    pub fn from_file(path: &Path, wanted: &[&str]) -> Result<Self, BtfError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|source| BtfError::Read {
                path: path.into(),
                source,
            })?;
        let parsed = match bytes.len() as u64 > MAX_FILE_BYTES {
            true => Err("it is larger than 128 MiB"),
            false => Self::parse(bytes, wanted),
        };
        parsed.map_err(|what| BtfError::Malformed {
            path: path.into(),
            what,
        })
    }

    /// Indexes BTF that is already in memory.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(bytes: Vec<u8>, wanted: &[&str]) -> Result<Self, &'static str> {
        let word = |at| u32_at(&bytes, at).ok_or("it ends within its header");
        let magic = bytes
            .get(..2)
            .and_then(|b| b.try_into().ok())
            .map(u16::from_ne_bytes);
        if magic != Some(MAGIC) {
            return Err("its magic number is not that of BTF in this machine's byte order");
        }
        let header = word(4)? as usize;
        let section = |offset, length| -> Result<std::ops::Range<usize>, &'static str> {
            let begin = header
                .checked_add(word(offset)? as usize)
                .ok_or("a section overflows")?;
            let end = begin
                .checked_add(word(length)? as usize)
                .ok_or("a section overflows")?;
            if end > bytes.len() {
                Err("a section ends behind the file")
            } else {
                Ok(begin..end)
            }
        };
        let (type_bytes, strings) = (section(8, 12)?, section(16, 20)?);
        let mut btf = Self {
            bytes,
            types: Vec::new(),
            strings,
            structs: HashMap::new(),
        };
        let mut at = type_bytes.start;
        while at < type_bytes.end {
            let (name, info) = match (btf.word(at), btf.word(at + 4)) {
                (Some(name), Some(info)) => (name, info),
                _ => return Err("it ends within a type"),
            };
            btf.types
                .push(u32::try_from(at).map_err(|_| "it is larger than 4 GiB")?);
            if kind_of(info) == kind::STRUCT {
                let name = btf.string(name).unwrap_or_default();
                // The first of a name is the kernel's own; modules come later.
                if wanted.iter().any(|w| w.as_bytes() == name) && !btf.structs.contains_key(name) {
                    let (name, id) = (name.into(), btf.types.len() as u32);
                    btf.structs.insert(name, id);
                }
            }
            at += 12 + extra_bytes(info).ok_or("it has a type of an unknown kind")?;
        }
        if at != type_bytes.end {
            return Err("its last type is cut off");
        }
        let mut checked = HashSet::new();
        for id in btf.structs.values() {
            btf.check_nesting(*id, MAX_NESTING, &mut checked)?;
        }
        Ok(btf)
    }

    /// Follows what a struct contains down to its end; `checked` has the types that end.
    fn check_nesting(
        &self,
        id: u32,
        depth: usize,
        checked: &mut HashSet<u32>,
    ) -> Result<(), &'static str> {
        if checked.contains(&id) {
            return Ok(());
        }
        if depth == 0 {
            return Err("it has a struct that contains itself, or structs nested too deep");
        }
        for (_, member, _) in self.members(id).into_iter().flatten() {
            self.check_nesting(member, depth - 1, checked)?;
        }
        checked.insert(id);
        Ok(())
    }

    /// Byte offset of a field, its path given from a struct down through
    /// embedded structs (not through pointers): `("task_struct", ["se", "exec_start"])`.
    /// Unnamed structs and unions are looked through, as C does.
    pub fn offset(&self, root: &str, path: &[&str]) -> Option<u32> {
        let mut id = *self.structs.get(root.as_bytes())?;
        let mut bits: u32 = 0;
        for name in path {
            let (member, at) = self.member(id, name.as_bytes(), &mut HashSet::new())?;
            bits = at.checked_add(bits)?;
            id = member;
        }
        Some(bits / 8)
    }

    /// Size of a struct in bytes.
    pub fn size(&self, root: &str) -> Option<u32> {
        let at = self.resolve(*self.structs.get(root.as_bytes())?)?;
        self.word(at + 8)
    }

    /// Value of a name in an enum of the kernel: `("cgroup_subsys_id", "cpu_cgrp_id")`.
    pub fn enum_value(&self, name: &str, constant: &str) -> Option<u32> {
        let mut values = self.enum_values(name)?;
        let found = values.find(|(of, _)| *of == constant.as_bytes());
        found.map(|(_, value)| value)
    }

    /// All names of an enum of the kernel, with their values.
    pub fn enum_values(&self, name: &str) -> Option<impl Iterator<Item = (&[u8], u32)>> {
        let is_it = |at: usize| {
            let (type_name, info) = (self.word(at)?, self.word(at + 4)?);
            let is_it = kind_of(info) == kind::ENUM && self.string(type_name)? == name.as_bytes();
            is_it.then_some((at, info))
        };
        let (at, info) = self.types.iter().find_map(|&at| is_it(at as usize))?;
        Some((0..length_of(info)).filter_map(move |i| {
            let entry = at + 12 + i * 8;
            Some((self.string(self.word(entry)?)?, self.word(entry + 4)?))
        }))
    }

    /// The types behind a field, as (id, bit offset), of a struct or union. `seen` has the
    /// types without it: each is looked through once, however often it is contained.
    fn member(&self, id: u32, wanted: &[u8], seen: &mut HashSet<u32>) -> Option<(u32, u32)> {
        if !seen.insert(id) {
            return None;
        }
        self.members(id)?.find_map(|(name, member, offset)| {
            if name == wanted {
                Some((member, offset))
            } else if name.is_empty() {
                let (id, inner) = self.member(member, wanted, seen)?;
                Some((id, offset.checked_add(inner)?))
            } else {
                None
            }
        })
    }

    /// Name, type and bit offset of each member of a struct or union; `None` of another type.
    fn members(&self, id: u32) -> Option<impl Iterator<Item = (&[u8], u32, u32)>> {
        let at = self.resolve(id)?;
        let info = self.word(at + 4)?;
        if !matches!(kind_of(info), kind::STRUCT | kind::UNION) {
            return None;
        }
        let has_bitfields = info >> 31 != 0;
        Some((0..length_of(info)).map_while(move |i| {
            let entry = at + 12 + i * 12;
            let (name, offset) = (self.string(self.word(entry)?)?, self.word(entry + 8)?);
            let offset = if has_bitfields {
                offset & 0x00ff_ffff
            } else {
                offset
            };
            Some((name, self.word(entry + 4)?, offset))
        }))
    }

    /// Where the type behind typedefs and qualifiers begins.
    fn resolve(&self, mut id: u32) -> Option<usize> {
        for _ in 0..MAX_CHAIN {
            let at = *self.types.get((id as usize).checked_sub(1)?)? as usize;
            match kind_of(self.word(at + 4)?) {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = self.word(at + 8)?;
                }
                _ => return Some(at),
            }
        }
        None
    }

    fn word(&self, at: usize) -> Option<u32> {
        u32_at(&self.bytes, at)
    }

    fn string(&self, offset: u32) -> Option<&[u8]> {
        let strings = self.bytes.get(self.strings.clone())?;
        let tail = strings.get(offset as usize..)?;
        let tail = tail.get(..MAX_NAME_BYTES).unwrap_or(tail);
        tail.split(|&b| b == 0).next()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn length_of(info: u32) -> usize {
    (info & 0xffff) as usize
}

/// Bytes that follow the 12 every type has.
fn extra_bytes(info: u32) -> Option<usize> {
    let length = length_of(info);
    Some(match kind_of(info) {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => length * 12,
        kind::ENUM | kind::FUNC_PROTO => length * 8,
        0 | 20.. => return None,
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::Btf;

    /// Builds BTF: a string table and raw type words.
    fn btf(strings: &[u8], types: &[u32]) -> Vec<u8> {
        let type_bytes = types.len() * 4;
        let mut bytes = Vec::new();
        bytes.extend(0xeb9f_u16.to_ne_bytes());
        bytes.extend([1, 0]);
        for word in [
            24,
            0,
            type_bytes as u32,
            type_bytes as u32,
            strings.len() as u32,
        ] {
            bytes.extend(word.to_ne_bytes());
        }
        types.iter().for_each(|w| bytes.extend(w.to_ne_bytes()));
        bytes.extend(strings);
        bytes
    }

    const STRINGS: &[u8] = b"\0outer\0inner\0field\0alias\0flag\0";
    const OUTER: u32 = 1;
    const INNER: u32 = 7;
    const FIELD: u32 = 13;
    const ALIAS: u32 = 19;

    fn info(kind: u32, length: u32) -> u32 {
        kind << 24 | length
    }

    #[test]
    fn finds_a_field_through_a_typedef_and_an_unnamed_union() {
        #[rustfmt::skip]
        let bytes = btf(STRINGS, &[
            /* 1 */ 0, info(1, 0), 4, 32,                                   // int
            /* 2 */ 0, info(5, 1), 4, FIELD, 1, 0,                          // union { int field; }
            /* 3 */ INNER, info(4, 1), 8, 0, 2, 32,                         // struct inner { pad; union }
            /* 4 */ ALIAS, info(8, 0), 3,                                   // typedef struct inner alias
            /* 5 */ OUTER, info(4, 1), 16, INNER, 4, 64,                    // struct outer { alias inner }
        ]);
        let btf = Btf::parse(bytes, &["outer", "inner"]).expect("valid");
        assert_eq!(btf.offset("inner", &["field"]), Some(4));
        assert_eq!(btf.offset("outer", &["inner", "field"]), Some(12));
        assert_eq!(btf.offset("outer", &["field"]), None);
        assert_eq!(btf.offset("nothing", &["field"]), None);
    }

    #[test]
    fn a_struct_that_contains_itself_is_refused() {
        let itself = [0, 1, 0].repeat(60);
        let types = [&[OUTER, info(4, 60), 8], &itself[..]].concat();
        let why = Btf::parse(btf(STRINGS, &types), &["outer"]).expect_err("refused");
        assert!(why.contains("contains itself"), "{why}");
        // One that nobody asks for does no harm.
        assert!(Btf::parse(btf(STRINGS, &types), &["inner"]).is_ok());
    }

    /// 60^16 paths lead down to the last one.
    #[test]
    fn a_struct_that_is_contained_often_is_looked_through_once() {
        let level = |below: u32| [&[0, info(5, 60), 8], &[0, below, 0].repeat(60)[..]].concat();
        let mut types = vec![OUTER, info(4, 1), 8, 0, 2, 0];
        types.extend((3..19).flat_map(level));
        types.extend([0, info(5, 1), 4, FIELD, 19, 0]);
        let btf = Btf::parse(btf(STRINGS, &types), &["outer"]).expect("valid");
        assert_eq!(btf.offset("outer", &["inner"]), None);
        assert_eq!(btf.offset("outer", &["field"]), Some(0));
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(Btf::parse(Vec::new(), &[]).is_err());
        assert!(Btf::parse(b"\x7fELF".to_vec(), &[]).is_err());
        let whole = btf(STRINGS, &[0, info(1, 0), 4, 32]);
        let cut = whole[..whole.len() - STRINGS.len() - 2].to_vec();
        assert!(Btf::parse(cut, &[]).is_err());
    }

    proptest! {
        #[test]
        fn any_types_end_without_panic(words in prop::collection::vec(any::<u32>(), 0..64)) {
            if let Ok(btf) = Btf::parse(btf(STRINGS, &words), &["outer", "inner"]) {
                let _ = btf.offset("outer", &["inner", "field"]);
                let _ = btf.enum_value("outer", "flag");
            }
        }

        #[test]
        fn any_bytes_end_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Btf::parse(bytes, &["outer"]);
        }
    }
}
