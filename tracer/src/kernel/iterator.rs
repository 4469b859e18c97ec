//! Runs an iterator program, and brings back what it wrote.

use std::{
    fs::File,
    io::{self, Read as _},
    mem,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
};

use aya::{Ebpf, programs::Iter};
use bytes::{Bytes, BytesMut};

use crate::error::KernelError;

/// Room for the largest answer of one read.
const READ_BYTES: usize = 64 << 10;

/// `enum bpf_cmd` and `enum bpf_attach_type`, include/uapi/linux/bpf.h.
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
const BPF_TRACE_ITER: u32 = 28;

/// `union bpf_attr` of `BPF_LINK_CREATE` for an iterator.
#[repr(C)]
struct LinkCreate {
    program_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_bytes: u32,
    reserved: u32,
}

/// The iterators of a loaded object.
pub(super) struct Iterators {
    buffer: Vec<u8>,
}

impl Iterators {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; READ_BYTES],
        }
    }

    /// All that one run of an iterator writes. `map` is the map whose elements are
    /// visited, for a program that is put on a map.
    ///
    /// # Errors
    /// The kernel refuses to run it.
    pub(super) fn read(
        &mut self,
        ebpf: &mut Ebpf,
        name: &'static str,
        map: Option<BorrowedFd<'_>>,
    ) -> Result<Bytes, KernelError> {
        let mut file = open(ebpf, name, map)?;
        let mut all = BytesMut::new();
        loop {
            // An iterator stops at a full page: only an empty read is the end.
            match file.read(&mut self.buffer) {
                Ok(0) => return Ok(all.freeze()),
                Ok(n) => all.extend_from_slice(self.buffer.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // It has visited a million objects without a word, and goes on
                // (`MAX_ITER_OBJECTS`, kernel/bpf/bpf_iter.c).
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(KernelError::bpf("reading", name, &e)),
            }
        }
    }
}

/// A new file each time: an iterator's cannot be rewound.
fn open(
    ebpf: &mut Ebpf,
    name: &'static str,
    map: Option<BorrowedFd<'_>>,
) -> Result<File, KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::NoObject)?;
    let failed = |e: &dyn std::error::Error| KernelError::bpf("opening", name, e);
    let program: &mut Iter = program
        .try_into()
        .map_err(|e: aya::programs::ProgramError| failed(&e))?;
    if let Some(map) = map {
        return on_map(program, map).map_err(|e| failed(&*e));
    }
    let link = program.attach().map_err(|e| failed(&e))?;
    let link = program.take_link(link).map_err(|e| failed(&e))?;
    link.into_file().map_err(|e| failed(&e))
}

/// aya attaches iterators without a map only.
fn on_map(program: &Iter, map: BorrowedFd<'_>) -> Result<File, Box<dyn std::error::Error>> {
    let info = map.as_raw_fd() as u32;
    let link = bpf(
        BPF_LINK_CREATE,
        &LinkCreate {
            program_fd: program.fd()?.as_fd().as_raw_fd() as u32,
            target_fd: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            info: (&raw const info) as u64,
            info_bytes: mem::size_of_val(&info) as u32,
            reserved: 0,
        },
    )?;
    let iterator = bpf(BPF_ITER_CREATE, &[link.as_raw_fd() as u32, 0])?;
    Ok(iterator.into())
}

/// A command of bpf(2) that makes a descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are those of the command, and what they point to lives
    // until it is over.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            ptr::from_ref(attributes),
            mem::size_of::<T>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
