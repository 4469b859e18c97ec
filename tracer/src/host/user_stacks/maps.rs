//! /proc/PID/maps: code that a stack may have come by.

use std::{io, io::Read, ops::Range};

/// Bytes of maps that are read: room for some 65,530 mappings, as many as a process may
/// have (`vm.max_map_count`).
const MAPS_BYTES: u64 = 16 << 20;
/// The longest line that is looked at: a path has at most 4,095 bytes, each of which may
/// be escaped.
const LINE: usize = 20 << 10;

/// A mapping of code that some address is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) range: Range<u64>,
    pub(super) offset: u64,
    /// Major and minor number as one, and the inode. 0 where there is no file.
    pub(super) file: (u64, u64),
    pub(super) path: Vec<u8>,
    /// Where in the list of addresses the first one stands that is in it.
    pub(super) first: usize,
}

/// Those mappings of code in which one of the addresses is, and whether all of the text
/// was read.
///
/// # Errors
/// The process has gone.
pub(super) fn codes(maps: impl Read, addresses: &[u64]) -> io::Result<(Vec<Code>, bool)> {
    let mut sorted: Vec<(u64, usize)> = addresses.iter().copied().zip(0..).collect();
    sorted.sort_unstable();
    let mut limited = maps.take(MAPS_BYTES);
    let mut found = Vec::new();
    let (mut piece, mut text) = (vec![0; 64 << 10], Vec::new());
    loop {
        let length = limited.read(&mut piece)?;
        text.extend_from_slice(piece.get(..length).unwrap_or_default());
        let mut rest = text.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, more) = rest.split_at(end);
            rest = more.get(1..).unwrap_or_default();
            found.extend(code(line).and_then(|code| with_address(code, &sorted)));
        }
        if length == 0 || rest.len() > LINE {
            return Ok((found, limited.limit() > 0 && rest.is_empty()));
        }
        text = rest.to_vec();
    }
}

fn with_address(code: Code, sorted: &[(u64, usize)]) -> Option<Code> {
    let begin = sorted.partition_point(|(address, _)| *address < code.range.start);
    let inside = sorted.get(begin..)?.iter();
    let inside = inside.take_while(|(address, _)| *address < code.range.end);
    let first = inside.map(|(_, at)| *at).min()?;
    Some(Code { first, ..code })
}

/// `start-end perms offset dev inode path`, of code (`show_map_vma`, fs/proc/task_mmu.c).
fn code(line: &[u8]) -> Option<Code> {
    let mut words = line.splitn(6, |byte| *byte == b' ');
    let mut next = || words.next().and_then(|word| std::str::from_utf8(word).ok());
    let (range, permissions) = (next()?, next()?);
    if permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let hex = |word: &str| u64::from_str_radix(word, 16).ok();
    let (start, end) = range.split_once('-')?;
    let offset = hex(next()?)?;
    let (major, minor) = next()?.split_once(':')?;
    let inode = next()?.parse().ok()?;
    let path = words.next().unwrap_or_default().trim_ascii_start();
    Some(Code {
        range: hex(start)?..hex(end)?,
        offset,
        file: (hex(major)? << 32 | hex(minor)?, inode),
        path: path.to_vec(),
        first: 0,
    })
}

impl Code {
    /// Whether it is of a file.
    pub(super) fn has_file(&self) -> bool {
        self.path.starts_with(b"/")
    }

    /// Whether the process may have made it at run time.
    pub(super) fn may_be_jit(&self) -> bool {
        !self.has_file() && !self.path.starts_with(b"[v") || self.path.starts_with(b"/memfd:")
    }

    /// The name of its file, without folders.
    pub(super) fn name(&self) -> &[u8] {
        let name = self.path.rsplit(|byte| *byte == b'/').next();
        name.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{code, codes};

    const LIBRARY: &str =
        "7f1a2c000000-7f1a2c1a0000 r-xp 00026000 fe:01 1234    /usr/lib/a b (deleted)";

    #[test]
    fn code_is_found_in_a_line_of_maps() {
        let found = code(LIBRARY.as_bytes()).expect("code");
        assert_eq!(found.range, 0x7f1a_2c00_0000..0x7f1a_2c1a_0000);
        assert_eq!(
            (found.offset, found.file),
            (0x26000, (0xfe_0000_0001, 1234))
        );
        assert_eq!(found.path, b"/usr/lib/a b (deleted)");
        assert_eq!(found.name(), b"a b (deleted)");
        assert!(found.has_file() && !found.may_be_jit());
        for other in [
            "7f1a2c000000-7f1a2c1a0000 r--p 00026000 fe:00 1234 /usr/lib/a",
            "",
            "x-y r-xp z fe:00 1 /a",
        ] {
            assert_eq!(code(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn only_code_that_was_made_at_run_time_is_in_a_perf_map() {
        for (path, is_jit) in [("", true), ("[anon:v8]", true), ("[vdso]", false)] {
            let line = format!("7ffd1-7ffd2 r-xp 00000000 00:00 0 {path}");
            let found = code(line.as_bytes()).expect("code");
            assert_eq!(found.may_be_jit(), is_jit, "{path}");
        }
    }

    #[test]
    fn mappings_without_an_address_are_left_out() {
        let line = |i: u64| {
            format!(
                "{:x}-{:x} r-xp 0 00:00 0 \n",
                i * 0x2000,
                i * 0x2000 + 0x1000
            )
        };
        let text: String = (1..10_000).map(line).collect();
        let addresses = [0x6000, 0x5fff, 0x2fff, 0x3000, 0x6001];
        let (found, is_whole) = codes(text.as_bytes(), &addresses).expect("text");
        assert!(is_whole);
        let found: Vec<_> = found
            .iter()
            .map(|code| (code.range.start, code.first))
            .collect();
        assert_eq!(found, [(0x2000, 2), (0x6000, 0)]);
    }

    #[test]
    fn a_line_without_end_is_left() {
        let text = vec![b'x'; 1 << 20];
        let (found, is_whole) = codes(text.as_slice(), &[0]).expect("text");
        assert!(found.is_empty() && !is_whole);
    }
}
