//! Kernel symbols: which function an address lies in, modules' and BPF programs'
//! too.
//!
//! Source is /proc/kallsyms (kernel/kallsyms.c), read once: what is loaded later
//! is not in it. It holds 50,000 to 200,000 functions, so they are kept
//! small: 10 bytes each, and their names one after the other. Of variables only those
//! are kept that are locks by their name; a kernel without CONFIG_KALLSYMS_ALL lists none.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    mem::size_of,
};

use thiserror::Error;

/// No function is longer than this, in bytes. What lies further behind the last
/// one before it, such as code without a symbol, is in none.
const LONGEST_FUNCTION: u64 = 1 << 20;

const KALLSYMS: &str = "/proc/kallsyms";

/// Why there are no symbols.
#[derive(Debug, Error)]
pub enum SymbolsError {
    /// The list cannot be read.
    #[error("cannot read /proc/kallsyms: {source}; a kernel built with CONFIG_KALLSYMS=y has it")]
    Read {
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel gives every address as 0 (`kallsyms_show_value`,
    /// kernel/ksyms_common.c).
    #[error(
        "the kernel hides its addresses, all of /proc/kallsyms are 0; run tracer as root or with \
         CAP_SYSLOG and `sysctl kernel.kptr_restrict=1` (2 hides them from root too), or without \
         CAP_SYSLOG set kernel.kptr_restrict=0 and kernel.perf_event_paranoid=1"
    )]
    Hidden,
    /// The list has no function.
    #[error("/proc/kallsyms names no function; is CONFIG_KALLSYMS=y in the kernel's config?")]
    Empty,
}

/// The kernel's functions by address, as they were when read.
#[derive(Debug)]
pub struct Symbols {
    /// Lower halves of the addresses, ascending within a region.
    low: Vec<u32>,
    /// Where in `names` the name of each begins.
    name: Vec<u32>,
    /// The module of each: 0 for none, else one more than the index in `modules`.
    module: Vec<u16>,
    /// Runs of addresses with the same upper half, ascending. One on x86-64; on
    /// arm64 modules and BPF programs can be far from the kernel.
    regions: Vec<Region>,
    /// Names, each ended by a zero.
    names: String,
    modules: Vec<Box<str>>,
    /// Variables that are locks, ascending: where each is, and where in `names` its name
    /// begins.
    locks: Vec<(u64, u32)>,
}

#[derive(Debug)]
struct Region {
    high: u32,
    /// Index of its first function.
    first: usize,
}

/// A function. The names are printable ASCII without spaces and semicolons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its name; a BPF program's is `bpf_prog_TAG_NAME`.
    pub name: &'a str,
    /// Its module, `bpf` for a BPF program, `__builtin__ftrace` and its like for
    /// code that the kernel makes; `None` for the kernel itself.
    pub module: Option<&'a str>,
}

impl Symbols {
    /// Reads /proc/kallsyms, in less than 1 us a line.
    pub fn read() -> Result<Self, SymbolsError> {
        let file = File::open(KALLSYMS).map_err(|source| SymbolsError::Read { source })?;
        Self::from_reader(BufReader::with_capacity(1 << 16, file))
    }

    /// Whether they can be read, told by the first function with an address.
    ///
    /// # Errors
    /// As [`Symbols::read`].
    pub fn check() -> Result<(), SymbolsError> {
        let file = File::open(KALLSYMS).map_err(|source| SymbolsError::Read { source })?;
        let mut has_function = false;
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(|source| SymbolsError::Read { source })?;
            let Some(line) = Line::parse(&line).filter(Line::is_function) else {
                continue;
            };
            if line.address != 0 {
                return Ok(());
            }
            has_function = true;
        }
        Err(if has_function {
            SymbolsError::Hidden
        } else {
            SymbolsError::Empty
        })
    }

    /// Reads a list in the form of /proc/kallsyms. Lines that are not of that form
    /// are passed over.
    pub fn from_reader(mut reader: impl BufRead) -> Result<Self, SymbolsError> {
        let mut list = List::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => list.take(&line),
                Err(source) => return Err(SymbolsError::Read { source }),
            }
        }
        list.finish()
    }

    /// The function that the address lies in. A return address can lie behind a
    /// function that ends with its call: ask for the byte before it.
    pub fn function(&self, address: u64) -> Option<Symbol<'_>> {
        let (high, low) = halves(address);
        let after = self.regions.partition_point(|r| r.high <= high);
        let region = self.regions.get(after.checked_sub(1)?)?;
        let end = self.regions.get(after).map_or(self.low.len(), |r| r.first);
        let index = if region.high == high {
            let inside = self.low.get(region.first..end)?;
            region.first + inside.partition_point(|&l| l <= low)
        } else {
            end
        }
        .checked_sub(1)?;
        if address - self.address(index)? >= LONGEST_FUNCTION {
            return None;
        }
        let module = usize::from(*self.module.get(index)?);
        Some(Symbol {
            name: self.name(index)?,
            module: module
                .checked_sub(1)
                .and_then(|m| self.modules.get(m).map(AsRef::as_ref)),
        })
    }

    /// The name of a lock that is a variable of the kernel, such as `rtnl_mutex`, by its
    /// address.
    pub fn lock(&self, address: u64) -> Option<&str> {
        let at = self.locks.binary_search_by_key(&address, |(at, _)| *at);
        let (_, name) = self.locks.get(at.ok()?)?;
        self.name_at(*name)
    }

    /// How many functions there are.
    pub fn len(&self) -> usize {
        self.low.len()
    }

    /// Whether there is none: never, once read.
    pub fn is_empty(&self) -> bool {
        self.low.is_empty()
    }

    /// Memory that is held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let modules: usize = self.modules.iter().map(|m| m.len()).sum();
        size_of::<Self>()
            + self.low.capacity() * size_of::<u32>()
            + self.name.capacity() * size_of::<u32>()
            + self.module.capacity() * size_of::<u16>()
            + self.regions.capacity() * size_of::<Region>()
            + self.names.capacity()
            + self.locks.capacity() * size_of::<(u64, u32)>()
            + self.modules.capacity() * size_of::<Box<str>>()
            + modules
    }

    fn address(&self, index: usize) -> Option<u64> {
        let after = self.regions.partition_point(|r| r.first <= index);
        let region = self.regions.get(after.checked_sub(1)?)?;
        Some(u64::from(region.high) << 32 | u64::from(*self.low.get(index)?))
    }

    fn name(&self, index: usize) -> Option<&str> {
        self.name_at(*self.name.get(index)?)
    }

    fn name_at(&self, begin: u32) -> Option<&str> {
        let begin = usize::try_from(begin).ok()?;
        self.names.get(begin..)?.split('\0').next()
    }
}

/// Upper and lower half.
fn halves(address: u64) -> (u32, u32) {
    ((address >> 32) as u32, address as u32)
}

/// What has been read so far, in the order of the file: only the kernel's own
/// part of it is sorted.
#[derive(Default)]
struct List {
    functions: Vec<Function>,
    locks: Vec<(u64, u32)>,
    names: String,
    modules: Vec<Box<str>>,
    hidden: bool,
}

/// Ordered by address; of those at the same one the best comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    address: u64,
    rank: u8,
    name: u32,
    module: u16,
}

impl List {
    fn take(&mut self, line: &[u8]) {
        let Some(line) = Line::parse(line) else {
            return;
        };
        if line.is_lock() {
            if line.address != 0
                && let Some(name) = self.keep(line.name)
            {
                self.locks.push((line.address, name));
            }
            return;
        }
        if !line.is_function() {
            return;
        }
        if line.address == 0 {
            self.hidden = true;
            return;
        }
        let Some(name) = self.keep(line.name) else {
            return;
        };
        let module = line.module.map_or(0, |module| self.module(module));
        self.functions.push(Function {
            address: line.address,
            rank: line.rank(),
            name,
            module,
        });
    }

    /// Where in `names` the name begins now.
    fn keep(&mut self, name: &[u8]) -> Option<u32> {
        let begin = u32::try_from(self.names.len()).ok()?;
        self.names.extend(name.iter().map(|&b| printable(b)));
        self.names.push('\0');
        Some(begin)
    }

    /// The number of a module, from 1. Its functions stand together in the list,
    /// so it is mostly the last one.
    fn module(&mut self, name: &[u8]) -> u16 {
        let name: String = name.iter().map(|&b| printable(b)).collect();
        let known = self.modules.iter().rposition(|m| **m == *name);
        let index = known.unwrap_or(self.modules.len());
        let Ok(number) = u16::try_from(index + 1) else {
            return 0;
        };
        if known.is_none() {
            self.modules.push(name.into());
        }
        number
    }

    fn finish(mut self) -> Result<Symbols, SymbolsError> {
        if self.functions.is_empty() {
            return Err(if self.hidden {
                SymbolsError::Hidden
            } else {
                SymbolsError::Empty
            });
        }
        self.functions.sort_unstable();
        self.functions.dedup_by_key(|f| f.address);
        let mut regions: Vec<Region> = Vec::new();
        for (first, function) in self.functions.iter().enumerate() {
            let (high, _) = halves(function.address);
            if regions.last().is_none_or(|r| r.high != high) {
                regions.push(Region { high, first });
            }
        }
        self.locks.sort_unstable();
        self.locks.dedup_by_key(|(address, _)| *address);
        self.locks.shrink_to_fit();
        self.names.shrink_to_fit();
        Ok(Symbols {
            low: self.functions.iter().map(|f| halves(f.address).1).collect(),
            name: self.functions.iter().map(|f| f.name).collect(),
            module: self.functions.iter().map(|f| f.module).collect(),
            regions,
            names: self.names,
            modules: self.modules,
            locks: self.locks,
        })
    }
}

/// One line: address, type as of nm(1), name, and the module in brackets behind a
/// tab (`s_show`, kernel/kallsyms.c).
struct Line<'a> {
    address: u64,
    kind: u8,
    name: &'a [u8],
    module: Option<&'a [u8]>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = line.trim_ascii_end().splitn(3, |&b| b == b' ');
        let address = std::str::from_utf8(words.next()?).ok()?;
        let &[kind] = words.next()? else {
            return None;
        };
        let mut rest = words.next()?.splitn(2, |&b| b == b'\t');
        Some(Self {
            address: u64::from_str_radix(address, 16).ok()?,
            kind,
            name: rest.next().filter(|name| !name.is_empty())?,
            module: rest
                .next()
                .and_then(|m| m.strip_prefix(b"[")?.strip_suffix(b"]")),
        })
    }

    /// Text, strong or weak, but neither the padding in front of a function
    /// (`__pfx_`) nor arm64's marks of code and data (`$x`, `$d`).
    fn is_function(&self) -> bool {
        matches!(self.kind, b'T' | b't' | b'W' | b'w')
            && !self.name.starts_with(b"__pfx_")
            && !self.name.starts_with(b"$")
    }

    /// A variable whose name says that it is a lock: data or bss.
    fn is_lock(&self) -> bool {
        let contains = |word: &[u8]| self.name.windows(word.len()).any(|part| part == word);
        matches!(self.kind, b'b' | b'B' | b'd' | b'D')
            && [&b"mutex"[..], b"sem", b"lock"].into_iter().any(contains)
    }

    /// The least is the best of names for the same address: global before weak
    /// before local, then the one with fewer underscores in front.
    fn rank(&self) -> u8 {
        let binding = match self.kind {
            b'T' => 0,
            b'W' => 1,
            _ => 2,
        };
        let underscores = self.name.iter().take_while(|&&b| b == b'_').take(15);
        binding << 4 | underscores.count() as u8
    }
}

/// Semicolons and spaces separate the frames and counts of folded stacks.
fn printable(byte: u8) -> char {
    match byte {
        b';' => '?',
        b'!'..=b'~' => char::from(byte),
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::{any, prop, proptest};

    use super::{LONGEST_FUNCTION, Symbols, SymbolsError};

    const LIST: &str = "\
        0000000000000000 A fixed_percpu_data\n\
        0000000000000000 A __per_cpu_start\n\
        000000000002c2c0 A pcpu_hot\n\
        ffffffff81000000 T _stext\n\
        ffffffff81000000 T startup_64\n\
        ffffffff81001000 t __pfx_do_one\n\
        ffffffff81001010 t do_one\n\
        ffffffff81002000 t __do_sys_getpid\n\
        ffffffff81002000 W weak_getpid\n\
        ffffffff81002000 T __x64_sys_getpid\n\
        ffffffff82000000 R __per_cpu_offset\n\
        ffffffff82000010 D jiffies\n\
        rubbish\n\
        \n\
        ffffffff83000000 T\n\
        zz T zz\n\
        ffffffffc0200000 t ext4_read\t[ext4]\n\
        ffffffffc0100000 t nf_hook\t[nf_tables]\n\
        ffffffffc0100100 d nf_data\t[nf_tables]\n\
        ffffffffc0100200 t $x\t[nf_tables]\n\
        ffffffffc0100200 t nf_\x1b;a \u{e9}\t[nf_tables]\n\
        ffffffffc0100300 t pcpu_hot\t[nf_tables]\n\
        ffffffffc0300000 t bpf_prog_6deef7357e7b4530_sd_fw_egress\t[bpf]\n";

    fn symbols(list: &str) -> Symbols {
        Symbols::from_reader(list.as_bytes()).unwrap()
    }

    fn name(symbols: &Symbols, address: u64) -> Option<&str> {
        symbols.function(address).map(|s| s.name)
    }

    #[test]
    fn an_address_lies_in_the_last_function_before_it() {
        let symbols = symbols(LIST);
        for (address, expected) in [
            (0xffff_ffff_80ff_ffff, None),
            (0xffff_ffff_8100_0000, Some("startup_64")),
            (0xffff_ffff_8100_1008, Some("startup_64")),
            (0xffff_ffff_8100_1010, Some("do_one")),
            (0xffff_ffff_8100_1fff, Some("do_one")),
            (0xffff_ffff_8100_2000, Some("__x64_sys_getpid")),
            (0xffff_ffff_8110_1fff, Some("__x64_sys_getpid")),
            (0xffff_ffff_8110_2000, None),
            (0xffff_ffff_8200_0010, None),
            (0xffff_ffff_c010_0042, Some("nf_hook")),
            (0xffff_ffff_c010_0200, Some("nf_??a???")),
            (0xffff_ffff_c020_0000, Some("ext4_read")),
            (u64::MAX, None),
            (0, None),
        ] {
            assert_eq!(name(&symbols, address), expected, "{address:x}");
        }
    }

    #[test]
    fn a_lock_is_a_variable_of_that_name() {
        let symbols = symbols(
            "ffffffff81000000 T lock_task\n\
             ffffffff832ae5c0 d rtnl_mutex\n\
             ffffffff832ae5e0 d jiffies\n\
             ffffffff832a0000 B pernet_ops_rwsem\n\
             ffffffffc0300000 b z_lock\t[m]\n",
        );
        for (address, expected) in [
            (0xffff_ffff_832a_e5c0, Some("rtnl_mutex")),
            (0xffff_ffff_832a_e5c8, None),
            (0xffff_ffff_832a_e5e0, None),
            (0xffff_ffff_832a_0000, Some("pernet_ops_rwsem")),
            (0xffff_ffff_c030_0000, Some("z_lock")),
            (0xffff_ffff_8100_0000, None),
        ] {
            assert_eq!(symbols.lock(address), expected, "{address:x}");
        }
    }

    #[test]
    fn modules_and_bpf_programs_say_so() {
        let symbols = symbols(LIST);
        let module = |address| symbols.function(address).unwrap().module;
        assert_eq!(module(0xffff_ffff_8100_1010), None);
        assert_eq!(module(0xffff_ffff_c010_0000), Some("nf_tables"));
        assert_eq!(module(0xffff_ffff_c020_0000), Some("ext4"));
        assert_eq!(module(0xffff_ffff_c030_0000), Some("bpf"));
    }

    #[test]
    fn far_modules_are_found_and_regions_do_not_leak() {
        let symbols = symbols(
            "ffff8000fffffff0 T last_of_region\n\
             ffff800100100000 T kernel\n\
             ffff000012345678 t module\t[m]\n",
        );
        assert_eq!(name(&symbols, 0xffff_0000_1234_5679), Some("module"));
        assert_eq!(name(&symbols, 0xffff_7fff_ffff_ffff), None);
        assert_eq!(
            name(&symbols, 0xffff_8001_0000_0004),
            Some("last_of_region")
        );
        assert_eq!(name(&symbols, 0xffff_8001_0010_0000), Some("kernel"));
        assert_eq!(name(&symbols, 0xffff_8002_0000_0000), None);
    }

    #[test]
    fn hidden_is_told_from_empty() {
        let read = |list: &str| Symbols::from_reader(list.as_bytes()).unwrap_err();
        let hidden = "0000000000000000 T _text\n0000000000000000 t x\t[m]\n";
        assert!(matches!(read(hidden), SymbolsError::Hidden));
        assert!(read(hidden).to_string().contains("kernel.kptr_restrict"));
        assert!(matches!(read(""), SymbolsError::Empty));
        // A per-CPU offset of 0 hides nothing.
        let data = "0000000000000000 A __preempt_count\n";
        assert!(matches!(read(data), SymbolsError::Empty));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Symbols::from_reader(&bytes[..]);
        }

        #[test]
        fn any_line_can_be_read(line in "[0-9a-f]{1,17} [TtWwAD] [ -~\t\\[\\]]{0,12}\n") {
            if let Ok(symbols) = Symbols::from_reader(line.as_bytes()) {
                let address = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
                let name = name(&symbols, address).unwrap();
                assert!(name.bytes().all(|b| b.is_ascii_graphic() && b != b';'));
            }
        }

        #[test]
        fn the_search_is_the_same_as_looking_at_all(
            known in prop::collection::vec((0u64..4, 0u64..0x40_0000), 1..20),
            asked in prop::collection::vec((0u64..5, 0u64..0x50_0000), 1..20),
        ) {
            // Around the borders of the upper half, where regions meet.
            let address = |(high, low): (u64, u64)| (high << 32 | 0xffe0_0000) + low;
            let mut list = String::new();
            for (i, place) in known.iter().enumerate() {
                writeln!(list, "{:x} t f{i}", address(*place)).unwrap();
            }
            let symbols = symbols(&list);
            for asked in asked.into_iter().map(address) {
                let best = known
                    .iter()
                    .enumerate()
                    .filter(|(_, place)| address(**place) <= asked)
                    .max_by_key(|(i, place)| (address(**place), usize::MAX - i))
                    .filter(|(_, place)| asked - address(**place) < LONGEST_FUNCTION)
                    .map(|(i, _)| format!("f{i}"));
                assert_eq!(name(&symbols, asked), best.as_deref());
            }
        }
    }
}
