//! Programs made by hand: what a linker would not make.

/// Bytes, each with its place in the file. Between them is nothing.
pub(super) type Pieces = Vec<(u64, Vec<u8>)>;

const CODE_AT: u64 = 0x1000;
const TABLE_AT: u64 = 0x2000;
const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const NAMES: &[u8] = b"\0.text\0.eh_frame\0.eh_frame_hdr\0.symtab\0.strtab\0.shstrtab\0";

/// A section: name, type, place, size, number of the section that it goes with.
struct Section(&'static str, u32, u64, u64, u32);

/// A program of one function.
pub(super) fn program(code: &[u8], eh_frame: &[u8], function: &str) -> Pieces {
    let strings = [b"\0", function.as_bytes(), b"\0"].concat();
    let (symbols_at, strings_at) = (0x4000, 0x5000);
    let function = [
        &1_u32.to_le_bytes()[..],
        // A function that others see, in the first section.
        &[0x12, 0, 1, 0],
        &CODE_AT.to_le_bytes(),
        &(code.len() as u64).to_le_bytes(),
    ];
    let symbols = [vec![0; 24], function.concat()].concat();
    let sections = [
        Section(".text", SHT_PROGBITS, CODE_AT, code.len() as u64, 0),
        Section(
            ".eh_frame",
            SHT_PROGBITS,
            TABLE_AT,
            eh_frame.len() as u64,
            0,
        ),
        Section(".symtab", SHT_SYMTAB, symbols_at, symbols.len() as u64, 4),
        Section(".strtab", SHT_STRTAB, strings_at, strings.len() as u64, 0),
    ];
    let mut pieces = headers(&sections, 0x8000);
    pieces.extend([
        (CODE_AT, code.to_vec()),
        (TABLE_AT, eh_frame.to_vec()),
        (symbols_at, symbols),
        (strings_at, strings),
    ]);
    pieces
}

/// A program whose tables have so many bytes, all of them 0 and none of them on the disk.
pub(super) fn sparse(code: &[u8], bytes: u64) -> Pieces {
    let sections = [
        Section(".text", SHT_PROGBITS, CODE_AT, code.len() as u64, 0),
        Section(".eh_frame", SHT_PROGBITS, TABLE_AT, bytes, 0),
        Section(".eh_frame_hdr", SHT_PROGBITS, TABLE_AT + bytes, bytes, 0),
    ];
    let mut pieces = headers(&sections, TABLE_AT + 2 * bytes);
    pieces.push((CODE_AT, code.to_vec()));
    pieces
}

/// A table for a function of a page, whose frame is found by an expression; without one,
/// 8 bytes above the stack pointer.
pub(super) fn expression(expression: &[u8]) -> Vec<u8> {
    // Version 1, addresses relative to themselves, code in steps of 1 and data of -8
    // bytes, the return address is register 16: DW_CFA_def_cfa rsp 8, DW_CFA_offset 16 1.
    let common = b"\0\0\0\0\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0";
    let mut table = record(common);
    let at = table.len() as u64;
    let begin = CODE_AT as i64 - (TABLE_AT + at + 8) as i64;
    let mut function = vec![];
    function.extend((at as u32 + 4).to_le_bytes());
    function.extend((begin as i32).to_le_bytes());
    function.extend(0x1000_u32.to_le_bytes());
    function.push(0);
    if !expression.is_empty() {
        // DW_CFA_def_cfa_expression.
        function.extend([0x0f, expression.len() as u8]);
        function.extend(expression);
    }
    table.extend(record(&function));
    table.extend([0; 4]);
    table
}

/// With its length before it, in steps of 4 bytes.
fn record(body: &[u8]) -> Vec<u8> {
    let length = body.len().next_multiple_of(4);
    let mut record = (length as u32).to_le_bytes().to_vec();
    record.extend(body);
    record.resize(4 + length, 0);
    record
}

/// The header of the file, its one segment, and the headers of sections.
fn headers(sections: &[Section], sections_at: u64) -> Pieces {
    let count = sections.len() as u16 + 2;
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    // A shared object for x86-64.
    header.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    for word in [0, 64, sections_at] {
        header.extend(u64::to_le_bytes(word));
    }
    header.extend([0; 4]);
    for word in [64, 56, 1, 64, count, count - 1] {
        header.extend(u16::to_le_bytes(word));
    }
    // All of it can be read and run.
    header.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, 0, 0, 0x10000, 0x10000, 0x1000] {
        header.extend(u64::to_le_bytes(word));
    }
    let names_at = sections_at + 0x1000;
    let names = Section(".shstrtab", SHT_STRTAB, names_at, NAMES.len() as u64, 0);
    let mut table = vec![0; 64];
    for Section(name, kind, at, size, link) in sections.iter().chain([&names]) {
        let wanted = [name.as_bytes(), b"\0"].concat();
        let found = NAMES
            .windows(wanted.len())
            .position(|words| words == wanted);
        table.extend((found.expect("a known name") as u32).to_le_bytes());
        table.extend(kind.to_le_bytes());
        for word in [2, *at, *at, *size] {
            table.extend(u64::to_le_bytes(word));
        }
        table.extend(link.to_le_bytes());
        table.extend([0; 4]);
        let entry = if *kind == SHT_SYMTAB { 24 } else { 0 };
        for word in [8, entry] {
            table.extend(u64::to_le_bytes(word));
        }
    }
    vec![
        (0, header),
        (sections_at, table),
        (names_at, NAMES.to_vec()),
    ]
}
