//! Processes that leak sockets, and whose files do harm to a program that reads them to
//! name the functions of a stack.
//!
//! A connection is accepted by a few bytes of code in a mapping of its own. What that is
//! mapped from, or what is beside it, depends on the kind.

use std::{
    ffi::{CString, c_void},
    fs::{self, File, OpenOptions},
    hint::black_box,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::{FileExt as _, symlink},
    },
    process, ptr, thread,
    time::Duration,
};

use super::{
    checked, elf,
    helper::Helper,
    leak::pace,
    must, name,
    socket::{self, Family},
};
use crate::{blocking::StoppedFuse, pace::paced, time::monotonic_ns};

/// The name of these processes.
pub const HOSTILE: &str = "hostile";
/// What accepts where the kind does not say otherwise.
pub const FUNCTION: &str = "hostile_accept";
/// What a perf map says of it.
pub const JIT: &str = "jit_accept";

/// Nothing is owned by it.
const NOBODY: u32 = 65534;
/// Addresses on the stack beside those that were returned to.
const ADDRESSES: usize = 256;
/// `mov eax, SYS_accept; xor esi, esi; xor edx, edx; syscall; ret`, with the listener in
/// edi.
const CODE: [u8; 12] = [0xb8, 43, 0, 0, 0, 0x31, 0xf6, 0x31, 0xd2, 0x0f, 0x05, 0xc3];
const PAGE: usize = 4096;
const MIB: u64 = 1 << 20;

type Accept = extern "C" fn(i32) -> i32;

/// What accepts, and what stands on the stack beside it.
struct Trap {
    accept: Accept,
    addresses: [u64; ADDRESSES],
    /// What goes on while it accepts.
    _fuse: Option<StoppedFuse>,
}

/// `tcp-hostile KIND COUNT RATE`: leaks so many sockets, so many a second. KIND:
/// - `plain`: its function has a symbol and an honest table.
/// - `cfa-loop`, `cfa-push`: the table has an expression that does not end.
/// - `long-symbol`: the function's name has 300 characters.
/// - `tables`: addresses of twenty sparse files, each with two tables of 15 MiB.
/// - `mappings`: 30,000 mappings of code, and 256 of their addresses.
/// - `map-good`, `map-link:PATH`, `map-fifo`, `map-sparse`, `map-cut`, `map-name`: a perf
///   map that names the function; that is a link to a path, or a FIFO, or has 3 GiB; that
///   is cut and grows all the time; that names it with 7 MiB.
/// - `fuse`: its program is on a file system that answers nothing.
pub fn hostile(kind: &str, count: u64, rate: u64) {
    must("descriptors", socket::allow_descriptors(count + 1000));
    name(HOSTILE);
    let listener = must("a listener", socket::listen(Family::V4));
    let port = must("its address", listener.local_addr()).port();
    let peer = Helper::start("hostile-peer", move |mut pipe| {
        pipe.read_exact(&mut [0])?;
        let begin = monotonic_ns();
        for i in 0..count {
            pace(begin, i, rate);
            drop(TcpStream::connect(("127.0.0.1", port))?);
        }
        Ok(())
    });
    // A mount is root's; all else anybody can do.
    if kind != "fuse" {
        // SAFETY: touches no memory.
        must(
            "nobody",
            checked(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }),
        );
    }
    let trap = must("a trap", trap(kind));
    let mut held = Vec::new();
    paced(|| {
        must("the peer listens", (&peer.pipe).write_all(b"g"));
        for _ in 0..count {
            held.push(must("a socket", accept(&trap, listener.as_raw_fd())));
        }
    });
    let _ = fs::remove_file(perf_map());
}

/// Accepts with the addresses on the stack. The name is what the next frame shows.
#[inline(never)]
fn accept(trap: &Trap, listener: i32) -> io::Result<OwnedFd> {
    let addresses = black_box(trap.addresses);
    let socket = checked((trap.accept)(listener))?;
    black_box(&addresses);
    // SAFETY: accept(2) has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn trap(kind: &str) -> io::Result<Trap> {
    let mut addresses = [0; ADDRESSES];
    let mut fuse = None;
    let accept = match kind {
        "plain" => program(&elf::expression(&[]), FUNCTION)?,
        // DW_OP_skip -3, and DW_OP_lit0, DW_OP_skip -4.
        "cfa-loop" => program(&elf::expression(&[0x2f, 0xfd, 0xff]), FUNCTION)?,
        "cfa-push" => program(&elf::expression(&[0x30, 0x2f, 0xfc, 0xff]), FUNCTION)?,
        "long-symbol" => program(&elf::expression(&[]), &"A".repeat(300))?,
        "tables" => {
            for address in addresses.iter_mut().take(20) {
                let file = unlinked(&elf::sparse(&CODE, 15 * MIB))?;
                *address = map(Some(&file), PAGE as i64)? as u64;
            }
            program(&elf::expression(&[]), FUNCTION)?
        }
        "mappings" => {
            let file = unlinked(&elf::program(&CODE, &elf::expression(&[]), FUNCTION))?;
            for i in 0..30_000 {
                // All of the same page: the kernel does not join them.
                let at = map(Some(&file), PAGE as i64)? as u64;
                if let Some(address) = addresses.get_mut(i) {
                    *address = at;
                }
            }
            program(&elf::expression(&[]), FUNCTION)?
        }
        "fuse" => {
            let (stopped, code) = StoppedFuse::with_code(&CODE)?;
            fuse = Some(stopped);
            as_function(code)
        }
        kind => made_at_run_time(kind)?,
    };
    Ok(Trap {
        accept,
        addresses,
        _fuse: fuse,
    })
}

/// The code as a program's, mapped from its file.
fn program(eh_frame: &[u8], function: &str) -> io::Result<Accept> {
    let file = unlinked(&elf::program(&CODE, eh_frame, function))?;
    Ok(as_function(map(Some(&file), PAGE as i64)?))
}

/// The code in memory of no file, and a perf map.
fn made_at_run_time(kind: &str) -> io::Result<Accept> {
    let code = map(None, 0)?;
    // SAFETY: the mapping is ours, can be written to and is larger than the code.
    unsafe { ptr::copy_nonoverlapping(CODE.as_ptr(), code.cast(), CODE.len()) };
    let path = perf_map();
    let line = |name: &str| format!("{:x} 1000 {name}\n", code as u64);
    let create = || {
        OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&path)
    };
    match kind {
        "map-good" => fs::write(&path, line(JIT))?,
        "map-name" => fs::write(&path, line(&"A".repeat(7 << 20)))?,
        "map-sparse" => create()?.set_len(3 << 30)?,
        "map-fifo" => {
            let path = CString::new(path.as_str())?;
            // SAFETY: it ends with a zero.
            checked(unsafe { libc::mkfifo(path.as_ptr(), 0o666) })?;
        }
        "map-cut" => {
            let file = create()?;
            thread::spawn(move || {
                loop {
                    let _ = file.set_len(7 << 20);
                    thread::sleep(Duration::from_millis(1));
                    let _ = file.set_len(0);
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        kind => {
            let to = kind.strip_prefix("map-link:");
            symlink(to.ok_or(io::ErrorKind::InvalidInput)?, &path)?;
        }
    }
    Ok(as_function(code))
}

/// The perf map of this process.
fn perf_map() -> String {
    format!("/tmp/perf-{}.map", process::id())
}

/// A file without a name, with these pieces at their places.
fn unlinked(pieces: &elf::Pieces) -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("hostile-{}", process::id()));
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)?;
    fs::remove_file(path)?;
    for (at, piece) in pieces {
        file.write_all_at(piece, *at)?;
    }
    Ok(file)
}

/// A page of code, of a file or of none.
fn map(file: Option<&File>, offset: i64) -> io::Result<*mut c_void> {
    let (flags, protection) = match file {
        Some(_) => (libc::MAP_PRIVATE, libc::PROT_READ | libc::PROT_EXEC),
        None => (
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
        ),
    };
    let descriptor = file.map_or(-1, |file| file.as_raw_fd());
    // SAFETY: a new mapping, where nothing is.
    let at = unsafe { libc::mmap(ptr::null_mut(), PAGE, protection, flags, descriptor, offset) };
    match at == libc::MAP_FAILED {
        true => Err(io::Error::last_os_error()),
        false => Ok(at),
    }
}

fn as_function(code: *mut c_void) -> Accept {
    // SAFETY: `CODE` is at its begin, takes a number and gives one.
    unsafe { std::mem::transmute(code) }
}
