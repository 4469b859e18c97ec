//! The opener: finds which files a stack needs, opens them and hands them to the reader.
//!
//! It follows no link that the process could have made. A mapped file is opened through
//! /proc/PID/map_files, which is the file itself, whatever has become of its path; so its
//! device and inode are not compared, which would fail on overlayfs and btrfs (their maps
//! show other numbers than stat(2)). Only a perf map is opened by its path, below the
//! process's own root.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    os::unix::fs::MetadataExt as _,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, open, openat, openat2},
    net::{RecvFlags, SendFlags},
};

use super::{
    channel,
    maps::{self, Code},
    perf_map,
    protocol::{FILE_NAME, FILES, FileKey, MAPPINGS, Mapping, Request, Work},
    sandbox,
};

use crate::{host::living, text};

/// A perf map that is larger is not read, in bytes.
const PERF_MAP: u64 = perf_map::BYTES;

/// Serves until tracer closes its end.
///
/// # Errors
/// A channel is broken.
pub(super) fn serve() -> io::Result<()> {
    let (tracer, reader) = (io::stdin(), io::stdout());
    let limit_us = sandbox::cpu_limit_us();
    channel::send(&tracer, b"ready", &[], SendFlags::empty())?;
    while let Some((bytes, _)) = channel::receive(&tracer, RecvFlags::empty())? {
        let request = Request::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        sandbox::arm_timer(limit_us)?;
        {
            let (work, files) = open_all(&request);
            let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            channel::send(&reader, &work.encode(), &descriptors, SendFlags::empty())?;
        }
        sandbox::arm_timer(0)?;
        // The files are closed, which can hang too.
        channel::send(
            &tracer,
            &request.sequence.to_le_bytes(),
            &[],
            SendFlags::empty(),
        )?;
    }
    Ok(())
}

/// What the reader needs for a stack, and the descriptors.
fn open_all(request: &Request) -> (Work, Vec<OwnedFd>) {
    let mut work = Work {
        sequence: request.sequence,
        stack: request.stack.clone(),
        ..Work::default()
    };
    let mut descriptors = Vec::new();
    let pid = request.pid;
    let addresses = addresses(request);
    let read = File::open(living::path(pid, "maps"));
    let Ok((mut codes, is_whole)) = read.and_then(|maps| maps::codes(maps, &addresses)) else {
        work.is_gone = true;
        return (work, descriptors);
    };
    codes.sort_by_key(|code| code.first);
    work.is_partial = !is_whole || codes.len() > MAPPINGS;
    codes.truncate(MAPPINGS);
    // By device and inode as maps has them: one file is opened once.
    let mut opened: Vec<((u64, u64), Option<u8>)> = Vec::new();
    for code in &codes {
        let mut file = None;
        if code.has_file() {
            let known = opened.iter().find(|(known, _)| *known == code.file);
            file = match known {
                Some((_, known)) => *known,
                None => {
                    let new = mapped(pid, code, descriptors.len());
                    let index = new.map(|(key, descriptor)| {
                        work.files.push(key);
                        descriptors.push(descriptor);
                        (descriptors.len() - 1) as u8
                    });
                    work.is_partial |= index.is_none();
                    opened.push((code.file, index));
                    index
                }
            };
        }
        work.mappings.push(Mapping {
            range: code.range.clone(),
            offset: code.offset,
            file,
            name: code.name().iter().copied().take(FILE_NAME).collect(),
        });
    }
    if codes.iter().any(Code::may_be_jit) {
        match perf_map(pid) {
            Ok(map) => {
                work.has_perf_map = map.is_some();
                descriptors.extend(map);
            }
            Err(_) => work.is_partial = true,
        }
    }
    (work, descriptors)
}

/// What may be an address in a function: the program counter, then each word of the stack.
fn addresses(request: &Request) -> Vec<u64> {
    let (words, _) = request.stack.bytes.as_chunks();
    let words = words.iter().copied().map(u64::from_ne_bytes);
    std::iter::once(request.stack.pc).chain(words).collect()
}

/// The file of a mapping.
fn mapped(pid: u32, code: &Code, opened: usize) -> Option<(FileKey, OwnedFd)> {
    if opened >= FILES {
        return None;
    }
    let (start, end) = (code.range.start, code.range.end);
    let link = living::path(pid, &format!("map_files/{start:x}-{end:x}"));
    let path = open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    readable(path).ok()
}

/// The list of the functions that a process has made at run time, where there is one.
///
/// # Errors
/// There is something else of its name: no regular file, not the process's user's, or too
/// large.
fn perf_map(pid: u32) -> io::Result<Option<OwnedFd>> {
    let status = text::read(format!("/proc/{pid}/status"))?;
    let last_of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next_back()?.parse::<u32>().ok()
    };
    // Its number in its own pid namespace, and its user as files have it.
    let (Some(its_pid), Some(user)) = (last_of("NSpid:"), last_of("Uid:")) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(living::path(pid, "root"), flags, Mode::empty())?;
    let path = format!("tmp/perf-{its_pid}.map");
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(root, path, flags | OFlags::NOFOLLOW, Mode::empty(), inside);
    let path = match found {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        found => found?,
    };
    let (_, file) = readable(path)?;
    let file = File::from(file);
    let known = file.metadata()?;
    if known.uid() != user || known.size() > PERF_MAP {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(Some(file.into()))
}

/// Opens for reading what a path descriptor stands for, if it is a regular file: only
/// then, as to open a FIFO waits, and to open a device can do anything.
fn readable(path: OwnedFd) -> io::Result<(FileKey, OwnedFd)> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&path)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let link = format!("/proc/self/fd/{}", path.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, link, flags, Mode::empty())?);
    let known = file.metadata()?;
    let key = FileKey {
        device: known.dev(),
        inode: known.ino(),
        size: known.size(),
        changed: (known.ctime() as u64, known.ctime_nsec() as u64),
    };
    Ok((key, file.into()))
}
