//! The functions of a process's user stack: unwound by the tables in the process's own
//! files (`.eh_frame`), so that it needs no frame pointers, and named by their symbols.
//!
//! All of this reads files that any user can have made. Of those that are read here no
//! more is read than the headers and the tables; the symbols are read by blazesym, which
//! maps a file: one that is cut short just then ends tracer with SIGBUS.

use std::{collections::HashMap, fs, fs::File, ops::Range, path::PathBuf};

use blazesym::symbolize::{
    Input, Symbolized, Symbolizer,
    source::{Process, Source},
};
use framehop::{
    CacheNative, ExplicitModuleSectionInfo, MayAllocateDuringUnwind, Module, Unwinder as _,
    UnwinderNative,
};
use object::{
    Object as _, ObjectSection as _, ObjectSegment as _, ReadCache, SegmentFlags, elf::PF_X,
};

use crate::{decode::opening::UserStack, text::Text};

/// Frames of a stack.
const FRAMES: usize = 32;
/// Tables that are larger are not read, in bytes.
const LARGEST_TABLE: u64 = 64 << 20;
/// The smallest page.
const PAGE: u64 = 4096;
/// So many names of a process are kept.
const NAMES: usize = 4096;
/// Of so many processes the tables are kept.
const PROCESSES: usize = 16;

/// Finds functions.
pub struct Functions {
    symbolizer: Symbolizer,
    processes: HashMap<u32, Image>,
}

/// The code of a process.
struct Image {
    mappings: Vec<Mapping>,
    /// By begin of a mapping: what is between addresses in the file and in the process.
    bases: HashMap<u64, u64>,
    /// Functions by address.
    names: HashMap<u64, Text>,
    unwinder: UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
}

/// A mapping of code, as a line of /proc/PID/maps has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    range: Range<u64>,
    offset: u64,
    inode: u64,
    path: String,
}

impl Default for Functions {
    fn default() -> Self {
        Self {
            symbolizer: Symbolizer::builder()
                .enable_code_info(false)
                .enable_inlined_fns(false)
                .build(),
            processes: HashMap::new(),
        }
    }
}

impl Functions {
    /// The functions of a stack of a process, innermost first, without those that are
    /// there for every system call. One without a symbol is told by its file and the
    /// address in it. Empty when the process has gone.
    pub fn of(&mut self, pid: u32, stack: &UserStack) -> Vec<Text> {
        let Ok(maps) = fs::read(format!("/proc/{pid}/maps")) else {
            return Vec::new();
        };
        let maps = String::from_utf8_lossy(&maps);
        let mappings: Vec<Mapping> = maps.lines().filter_map(mapping).collect();
        let is_new = self
            .processes
            .get(&pid)
            .is_none_or(|image| image.mappings != mappings);
        if is_new {
            if self.processes.len() >= PROCESSES {
                self.processes.clear();
            }
            self.processes.insert(pid, Image::new(pid, mappings));
        }
        let Some(image) = self.processes.get_mut(&pid) else {
            return Vec::new();
        };
        let addresses = image.unwind(stack);
        image.name(&self.symbolizer, pid, &addresses);
        let names = addresses
            .iter()
            .filter_map(|address| image.names.get(address));
        let frames: Vec<Text> = names.cloned().collect();
        let own = frames.iter().position(|name| !is_wrapper(name.as_str()));
        frames.into_iter().skip(own.unwrap_or(0)).collect()
    }
}

impl Image {
    fn new(pid: u32, mappings: Vec<Mapping>) -> Self {
        let mut unwinder = UnwinderNative::new();
        let mut bases = HashMap::new();
        for mapping in &mappings {
            if let Some(module) = module(pid, mapping) {
                bases.insert(mapping.range.start, module.base_avma());
                unwinder.add_module(module);
            }
        }
        Self {
            mappings,
            bases,
            names: HashMap::new(),
            unwinder,
            cache: CacheNative::new(),
        }
    }

    /// Addresses in the functions of a stack, innermost first.
    fn unwind(&mut self, stack: &UserStack) -> Vec<u64> {
        let mut read = |address: u64| -> Result<u64, ()> {
            let at = address.checked_sub(stack.sp).ok_or(())?;
            let at = usize::try_from(at).map_err(drop)?;
            let word = stack.bytes.get(at..).and_then(|bytes| bytes.first_chunk());
            word.copied().map(u64::from_ne_bytes).ok_or(())
        };
        let Some(registers) = registers(stack) else {
            return Vec::new();
        };
        let mut frames = self
            .unwinder
            .iter_frames(stack.pc, registers, &mut self.cache, &mut read);
        let mut addresses = Vec::new();
        // What cannot be unwound any further is left out.
        while addresses.len() < FRAMES
            && let Ok(Some(frame)) = frames.next()
        {
            addresses.push(frame.address_for_lookup());
        }
        addresses
    }

    /// Looks up the names of those addresses that have none yet.
    fn name(&mut self, symbolizer: &Symbolizer, pid: u32, addresses: &[u64]) {
        if self.names.len() > NAMES {
            self.names.clear();
        }
        let new = addresses
            .iter()
            .copied()
            .filter(|address| !self.names.contains_key(address));
        let (known, others): (Vec<u64>, Vec<u64>) =
            new.partition(|address| self.may_be_named(*address));
        let mut process = Process::new(pid.into());
        process.debug_syms = false;
        let found = symbolizer.symbolize(&Source::Process(process), Input::AbsAddr(&known));
        let found = found.unwrap_or_default();
        for (i, address) in known.iter().enumerate() {
            let name = match found.get(i).and_then(Symbolized::as_sym) {
                Some(symbol) => Text::from_bytes(symbol.name.as_bytes()),
                None => self.place(*address),
            };
            self.names.insert(*address, name);
        }
        for address in others {
            self.names.insert(address, self.place(address));
        }
    }

    /// Whether it is in a file that is known to be a program's, or in none (code that
    /// was made at run time). What else is mapped can be a device.
    fn may_be_named(&self, address: u64) -> bool {
        let mapping = self
            .mappings
            .iter()
            .find(|mapping| mapping.range.contains(&address));
        mapping.is_none_or(|mapping| self.bases.contains_key(&mapping.range.start))
    }

    /// A file, and an address in it as its own symbols would have it.
    fn place(&self, address: u64) -> Text {
        let mapping = self
            .mappings
            .iter()
            .find(|mapping| mapping.range.contains(&address));
        let Some(mapping) = mapping else {
            return "?".into();
        };
        let file = mapping.path.rsplit('/').next().unwrap_or_default();
        let base = self.bases.get(&mapping.range.start).copied();
        let base = base.unwrap_or(mapping.range.start.wrapping_sub(mapping.offset));
        let at = address.wrapping_sub(base);
        Text::from_bytes(format!("{file}+{at:#x}").as_bytes())
    }
}

#[cfg(target_arch = "x86_64")]
fn registers(stack: &UserStack) -> Option<framehop::UnwindRegsNative> {
    Some(framehop::UnwindRegsNative::new(
        stack.pc, stack.sp, stack.fp,
    ))
}

/// The kernel side does not bring them back.
#[cfg(not(target_arch = "x86_64"))]
fn registers(_: &UserStack) -> Option<framehop::UnwindRegsNative> {
    None
}

/// `start-end perms offset dev inode path`, of code that comes from a file
/// (`show_map_vma`, fs/proc/task_mmu.c).
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (range, permissions) = (words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let hex = |word: &str| u64::from_str_radix(word, 16).ok();
    let offset = hex(words.next()?)?;
    let inode = words.nth(1)?.parse().ok()?;
    let path = words.next()?.trim_start();
    let is_code = permissions.as_bytes().get(2) == Some(&b'x');
    (is_code && path.starts_with('/')).then(|| {
        Some(Mapping {
            range: hex(start)?..hex(end)?,
            offset,
            inode,
            path: path.to_owned(),
        })
    })?
}

/// What it takes to unwind the code of a mapping.
fn module(pid: u32, mapping: &Mapping) -> Option<Module<Vec<u8>>> {
    let Range { start, end } = mapping.range;
    // The file itself, wherever it is mounted, also when it has been deleted.
    let path = PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
    if !fs::metadata(&path).ok()?.is_file() {
        return None;
    }
    let cache = ReadCache::new(File::open(path).ok()?);
    let file = object::File::parse(&cache).ok()?;
    let base = base(&file, mapping)?;
    let section = |name| file.section_by_name(name);
    let range = |name| {
        let section = section(name)?;
        Some(section.address()..section.address().checked_add(section.size())?)
    };
    let data = |name| {
        let section = section(name).filter(|section| section.size() <= LARGEST_TABLE)?;
        section.data().ok().map(<[u8]>::to_vec)
    };
    let info = ExplicitModuleSectionInfo {
        text_svma: range(".text"),
        got_svma: range(".got"),
        eh_frame_svma: range(".eh_frame"),
        eh_frame: data(".eh_frame"),
        eh_frame_hdr_svma: range(".eh_frame_hdr"),
        eh_frame_hdr: data(".eh_frame_hdr"),
        ..ExplicitModuleSectionInfo::default()
    };
    Some(Module::new(mapping.path.clone(), start..end, base, info))
}

/// What is added to an address in the file to get the one in the process. A mapping
/// begins at a page, and the segment somewhere in it.
fn base<'a>(file: &impl object::Object<'a>, mapping: &Mapping) -> Option<u64> {
    let page = PAGE - 1;
    let code = file.segments().find(|segment| {
        let (offset, size) = segment.file_range();
        let is_code =
            matches!(segment.flags(), SegmentFlags::Elf { p_flags } if p_flags & PF_X != 0);
        is_code && (offset & !page..offset.saturating_add(size)).contains(&mapping.offset)
    })?;
    let begin = mapping.range.start.wrapping_sub(mapping.offset);
    Some(begin.wrapping_sub(code.address().wrapping_sub(code.file_range().0)))
}

/// Functions of C libraries around a system call.
fn is_wrapper(name: &str) -> bool {
    let name = name.trim_start_matches('_');
    let name = name.strip_prefix("libc_").unwrap_or(name);
    matches!(name, "accept" | "accept4" | "connect")
        || name.contains("syscall")
        || name.starts_with("libc.so")
        || name.starts_with("libpthread")
        || name.starts_with("ld-musl")
}

#[cfg(test)]
mod tests {
    use super::{is_wrapper, mapping};

    #[test]
    fn code_of_files_is_found_in_a_line_of_maps() {
        let line = "7f1a2c000000-7f1a2c1a0000 r-xp 00026000 fe:00 1234    /usr/lib/a b (deleted)";
        let found = mapping(line).expect("code");
        assert_eq!(found.range, 0x7f1a_2c00_0000..0x7f1a_2c1a_0000);
        assert_eq!((found.offset, found.inode), (0x26000, 1234));
        assert_eq!(found.path, "/usr/lib/a b (deleted)");
        for other in [
            "7f1a2c000000-7f1a2c1a0000 r--p 00026000 fe:00 1234 /usr/lib/a",
            "7ffd1-7ffd2 r-xp 00000000 00:00 0                          [vdso]",
            "7ffd1-7ffd2 r-xp 00000000 00:00 0 ",
            "",
            "x-y r-xp z fe:00 1 /a",
        ] {
            assert_eq!(mapping(other), None, "{other}");
        }
    }

    #[test]
    fn wrappers_of_system_calls_are_known() {
        for name in [
            "accept4",
            "__libc_accept",
            "__connect",
            "internal/runtime/syscall.Syscall6",
            "libc.so.6+0x109a",
        ] {
            assert!(is_wrapper(name), "{name}");
        }
        for name in [
            "handle_client",
            "std::net::tcp::TcpListener::accept",
            "PyEval_EvalCode",
        ] {
            assert!(!is_wrapper(name), "{name}");
        }
    }
}
