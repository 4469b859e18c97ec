//! The reader: unwinds a stack and names its functions, with no more than what it is sent.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    rc::Rc,
};

use rustix::net::{RecvFlags, SendFlags};

use super::{
    cache::{Cache, Program},
    channel, demangle, perf_map,
    protocol::{Answer, FileKey, Mapping, Work},
    sandbox, unwind,
};

/// Serves until the opener closes its end.
///
/// # Errors
/// A channel is broken.
pub(super) fn serve() -> io::Result<()> {
    let (opener, tracer) = (io::stdin(), io::stdout());
    let limit_us = sandbox::cpu_limit_us();
    channel::send(&tracer, b"ready", &[], SendFlags::empty())?;
    let mut cache = Cache::default();
    while let Some((bytes, files)) = channel::receive(opener.as_fd(), RecvFlags::empty())? {
        let work = Work::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        sandbox::arm_timer(limit_us)?;
        cache.make_room();
        let answer = answer(&mut cache, &work, &files);
        // Before the answer: to close a file can hang, and that is part of this reading.
        drop(files);
        sandbox::arm_timer(0)?;
        channel::send(&tracer, &answer.encode(), &[], SendFlags::empty())?;
    }
    Ok(())
}

/// A file that was opened, and what it is of a program.
struct Opened<'a> {
    key: FileKey,
    file: &'a OwnedFd,
    program: Option<Rc<Program>>,
}

fn answer(cache: &mut Cache, work: &Work, files: &[OwnedFd]) -> Answer {
    let mut answer = Answer {
        sequence: work.sequence,
        is_gone: work.is_gone,
        is_partial: work.is_partial,
        names: Vec::new(),
        words: None,
    };
    let perf_map = match work.has_perf_map {
        true => files.get(work.files.len()),
        false => None,
    };
    let opened: Vec<Opened<'_>> = work
        .files
        .iter()
        .zip(files)
        .map(|(key, file)| Opened {
            key: *key,
            file,
            program: cache.program(*key, file),
        })
        .collect();
    let programs = opened.iter().filter_map(|opened| opened.program.as_ref());
    answer.is_partial |= programs.into_iter().any(|program| program.is_partial);
    let mut modules = Vec::new();
    for mapping in &work.mappings {
        if let Some((file, program)) = program_of(mapping, &opened) {
            modules.extend(cache.module(file.key, program, mapping));
        }
    }
    let (addresses, words) = unwind::addresses(modules, &work.stack);
    answer.words = words;
    answer.names = names(cache, work, (&opened, perf_map), &addresses);
    let own = answer.names.iter().position(|name| !is_wrapper(name));
    answer.names.drain(..own.unwrap_or(0));
    answer
}

/// The program that a mapping is of.
fn program_of<'a>(
    mapping: &Mapping,
    opened: &'a [Opened<'a>],
) -> Option<(&'a Opened<'a>, &'a Rc<Program>)> {
    let file = opened.get(usize::from(mapping.file?))?;
    Some((file, file.program.as_ref()?))
}

/// Names of addresses in a process. One without a symbol is told by its file and the
/// address in it.
fn names(
    cache: &mut Cache,
    work: &Work,
    (opened, perf_map): (&[Opened<'_>], Option<&OwnedFd>),
    addresses: &[u64],
) -> Vec<Vec<u8>> {
    let mapping_of = |address: u64| {
        let mut mappings = work.mappings.iter();
        mappings.find(|mapping| mapping.range.contains(&address))
    };
    let mut names: Vec<Option<Vec<u8>>> = vec![None; addresses.len()];
    for (i, file) in opened.iter().enumerate() {
        let Some(program) = &file.program else {
            continue;
        };
        // All of a file at once: its symbols are read from begin to end.
        let its: Vec<(usize, u64)> = (0..)
            .zip(addresses)
            .filter_map(|(at, address)| {
                let mapping = mapping_of(*address)?;
                let is_its = mapping.file.is_some_and(|file| usize::from(file) == i);
                let base = program.elf.base(mapping.range.start, mapping.offset);
                is_its.then_some((at, address.wrapping_sub(base?)))
            })
            .collect();
        let inside: Vec<u64> = its.iter().map(|(_, address)| *address).collect();
        let found = cache.names(file.key, (program, file.file), &inside);
        for ((at, _), found) in its.iter().zip(found) {
            if let Some(name) = names.get_mut(*at) {
                *name = found;
            }
        }
    }
    let is_program = |address: &u64| {
        mapping_of(*address).is_some_and(|mapping| program_of(mapping, opened).is_some())
    };
    let made = perf_map.filter(|_| !addresses.iter().all(is_program));
    let made = made.map(|map| perf_map::names(map, addresses));
    let mut made = made.unwrap_or_default().into_iter();
    let all = addresses.iter().zip(names);
    all.map(|(address, name)| {
        let made = made.next().flatten().filter(|_| !is_program(address));
        name.or(made).unwrap_or_else(|| {
            mapping_of(*address).map_or_else(
                || b"?".to_vec(),
                |mapping| place(mapping, program_of(mapping, opened), *address),
            )
        })
    })
    .collect()
}

/// A file, and an address in it as its own symbols would have it.
fn place(mapping: &Mapping, program: Option<(&Opened<'_>, &Rc<Program>)>, address: u64) -> Vec<u8> {
    if mapping.name.is_empty() {
        return b"?".to_vec();
    }
    let (start, offset) = (mapping.range.start, mapping.offset);
    let base = program.and_then(|(_, program)| program.elf.base(start, offset));
    let base = base.unwrap_or(start.wrapping_sub(offset));
    let at = format!("+{:#x}", address.wrapping_sub(base));
    demangle::cut([&mapping.name[..], at.as_bytes()].concat())
}

/// Functions of C libraries around a system call.
fn is_wrapper(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else {
        return false;
    };
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
    use std::{fs::File, os::fd::OwnedFd};

    use super::{
        super::protocol::{FileKey, Mapping},
        Answer, Cache, Work, answer, is_wrapper,
    };

    #[test]
    fn wrappers_of_system_calls_are_known() {
        for name in [
            "accept4",
            "__libc_accept",
            "__connect",
            "internal/runtime/syscall.Syscall6",
            "libc.so.6+0x109a",
        ] {
            assert!(is_wrapper(name.as_bytes()), "{name}");
        }
        for name in [
            "handle_client",
            "std::net::tcp::TcpListener::accept",
            "PyEval_EvalCode",
        ] {
            assert!(!is_wrapper(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_process_that_has_gone_has_no_names() {
        let work = Work {
            sequence: 7,
            is_gone: true,
            ..Work::default()
        };
        let expected = Answer {
            sequence: 7,
            is_gone: true,
            ..Answer::default()
        };
        assert_eq!(
            answer(&mut Cache::default(), &work, &[]).is_gone,
            expected.is_gone
        );
    }

    /// What is no program has a place, and no name.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_is_no_program_is_told_by_file_and_address() {
        let mut work = Work::default();
        work.stack.pc = 0x5010;
        work.files = vec![FileKey::default()];
        work.mappings = vec![Mapping {
            range: 0x5000..0x6000,
            offset: 0x2000,
            file: Some(0),
            name: b"data.bin".to_vec(),
        }];
        let file = OwnedFd::from(File::open("/proc/self/status").expect("a file"));
        let answer = answer(&mut Cache::default(), &work, &[file]);
        assert_eq!(answer.names, [b"data.bin+0x2010".to_vec()]);
    }
}
