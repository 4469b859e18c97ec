//! A read of a page that a userfaultfd has yet to fill: `handle_userfault`.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use crate::pace::{paced, say_numbers};

use super::{checked, must, sleep_ms, victim::Victim};

const PAGE: usize = 4096;
const API: u64 = 0xaa;
const REGISTER_MODE_MISSING: u64 = 1;
// _IOWR(0xaa, number, size), of the kernel's include/uapi/linux/userfaultfd.h.
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_ZEROPAGE: u64 = 0xc020_aa04;

/// Reads a page of this process, which is filled after so many ms.
///
/// By `process_vm_readv`: who touches such a page himself sleeps interruptibly.
pub fn userfault(ms: u64) {
    let page = must("a page", page());
    let from = std::process::id();
    let mut victim = Victim::fork(|| drop(read(from, page)));
    let faults = must("userfaultfd", register(page));
    paced(|| {
        victim.block();
        say_numbers([&[0], &victim.begun()[..]].concat());
        sleep_ms(ms);
        must("the page", fill(&faults, page));
        say_numbers([victim.took_ns()]);
    });
}

/// The address of a page that was never touched.
fn page() -> io::Result<u64> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, wherever there is room for it.
    let page = unsafe { libc::mmap(ptr::null_mut(), PAGE, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(page as u64)
}

fn register(page: u64) -> io::Result<OwnedFd> {
    // SAFETY: touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    let fd = checked(i32::try_from(fd).unwrap_or(-1))?;
    // SAFETY: the descriptor is new, and nobody else's.
    let faults = unsafe { OwnedFd::from_raw_fd(fd) };
    ask(&faults, UFFDIO_API, &mut [API, 0, 0])?;
    let register = &mut [page, PAGE as u64, REGISTER_MODE_MISSING, 0];
    ask(&faults, UFFDIO_REGISTER, register)?;
    Ok(faults)
}

fn fill(faults: &OwnedFd, page: u64) -> io::Result<()> {
    ask(faults, UFFDIO_ZEROPAGE, &mut [page, PAGE as u64, 0, 0])
}

fn ask<const N: usize>(faults: &OwnedFd, what: u64, record: &mut [u64; N]) -> io::Result<()> {
    // SAFETY: the record has the size that is part of `what`.
    checked(unsafe { libc::ioctl(faults.as_raw_fd(), what as _, record.as_mut_ptr()) })?;
    Ok(())
}

fn read(from: u32, page: u64) -> io::Result<()> {
    let mut bytes = [0_u8; 64];
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: page as *mut _,
        iov_len: bytes.len(),
    };
    // SAFETY: writes to `bytes` alone; the other address is the other process's.
    let read = unsafe { libc::process_vm_readv(from as i32, &local, 1, &remote, 1, 0) };
    checked(read as i32)?;
    Ok(())
}
