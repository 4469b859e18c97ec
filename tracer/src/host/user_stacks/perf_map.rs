//! /tmp/perf-PID.map: functions that a program has made at run time. A line each: begin
//! and size in hex, and a name (tools/perf/Documentation/jit-interface.txt).

use std::os::fd::OwnedFd;

use super::{demangle, elf::read_at};

/// So much of one is read, in bytes.
pub(super) const BYTES: u64 = 8 << 20;
/// Read at once.
const PIECE: usize = 64 << 10;
/// Of a line so much is looked at: two numbers, and more of a name than is kept.
const LINE: usize = 512;

/// Names of addresses, as far as they are in a map; the last line of an address holds.
pub(super) fn names(map: &OwnedFd, addresses: &[u64]) -> Vec<Option<Vec<u8>>> {
    let mut found = vec![None; addresses.len()];
    let (mut at, mut line) = (0, Vec::new());
    while at < BYTES {
        let piece = read_at(map, at, PIECE);
        at += piece.len() as u64;
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE.saturating_sub(line.len());
            line.extend(part.iter().take(room));
            if part.ends_with(b"\n") {
                take(&line, addresses, &mut found);
                line.clear();
            }
        }
        if piece.is_empty() {
            break;
        }
    }
    take(&line, addresses, &mut found);
    found
}

fn take(line: &[u8], addresses: &[u64], found: &mut [Option<Vec<u8>>]) {
    let mut words = line.trim_ascii_end().splitn(3, |byte| *byte == b' ');
    let mut hex = || {
        let word = std::str::from_utf8(words.next()?).ok()?;
        u64::from_str_radix(word.trim_start_matches("0x"), 16).ok()
    };
    let (Some(begin), Some(size)) = (hex(), hex()) else {
        return;
    };
    let Some(name) = words.next() else {
        return;
    };
    for (address, known) in addresses.iter().zip(found) {
        if address.checked_sub(begin).is_some_and(|at| at < size) {
            *known = Some(demangle::cut(name.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, os::fd::OwnedFd};

    use super::names;

    fn map(name: &str, text: &[u8]) -> OwnedFd {
        let path = std::env::temp_dir().join(format!("tracer-test-{name}-{}", std::process::id()));
        let mut file = File::create_new(&path).expect("a file");
        file.write_all(text).expect("room");
        let file = File::open(&path).expect("it is there");
        std::fs::remove_file(path).expect("it is there");
        file.into()
    }

    #[test]
    fn addresses_are_found_and_the_last_line_holds() {
        let text = b"1000 10 old\n2000 20 a name\nxyz\n\n1000 8 new";
        let found = names(&map("holds", text), &[0x1004, 0x1009, 0x201f, 0x2020]);
        let expected = [Some("new"), Some("old"), Some("a name"), None];
        assert_eq!(
            found,
            expected.map(|name| name.map(|name| name.as_bytes().to_vec()))
        );
    }

    #[test]
    fn a_name_of_megabytes_is_cut() {
        let mut text = b"1000 10 ".to_vec();
        text.resize(9 << 20, b'A');
        let found = names(&map("long", &text), &[0x1000]);
        assert_eq!(found[0].as_ref().map(Vec::len), Some(256));
    }
}
