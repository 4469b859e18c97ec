//! Tables of counters that the kernel side fills: arrays mapped into this process's
//! memory, which are read without a system call each (`array_map_mmap`,
//! kernel/bpf/arraymap.c; from 5.5).

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};

use crate::error::KernelError;

/// A table whose slots have so many words after their key.
pub(super) struct Table<const WORDS: usize> {
    words: *mut AtomicU64,
    slots: usize,
    /// Keeps the map.
    _map: MapData,
}

// SAFETY: the memory is the process's own until it is unmapped, and is only accessed by
// atomic operations.
unsafe impl<const WORDS: usize> Send for Table<WORDS> {}

impl<const WORDS: usize> Table<WORDS> {
    /// A slot: its key, then its words.
    const SLOT: usize = 1 + WORDS;

    /// Maps the array of this name, which has so many slots.
    pub(super) fn map(
        ebpf: &mut Ebpf,
        name: &'static str,
        slots: u32,
    ) -> Result<Self, KernelError> {
        let Some(Map::Array(map)) = ebpf.take_map(name) else {
            return Err(KernelError::NoObject);
        };
        let slots = slots as usize;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Self::bytes(slots),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            return Err(KernelError::bpf("mapping", name, &error));
        }
        Ok(Self {
            words: address.cast(),
            slots,
            _map: map,
        })
    }

    fn bytes(slots: usize) -> usize {
        slots * Self::SLOT * size_of::<u64>()
    }

    fn slot(&self, index: usize) -> &[AtomicU64] {
        // SAFETY: the mapping has all slots; words in it are aligned, and are never
        // accessed but atomically.
        unsafe { std::slice::from_raw_parts(self.words.add(index * Self::SLOT), Self::SLOT) }
    }

    /// What is there now: keys, each with its words.
    pub(super) fn read(&self) -> Vec<(u64, [u64; WORDS])> {
        let mut all = Vec::new();
        for index in 0..self.slots {
            if let [key, words @ ..] = self.slot(index)
                && let key @ 1.. = key.load(Ordering::Acquire)
            {
                let mut copy = [0; WORDS];
                for (copy, word) in copy.iter_mut().zip(words) {
                    *copy = word.load(Ordering::Relaxed);
                }
                all.push((key, copy));
            }
        }
        all
    }

    /// Frees the slot of a key. One that is not there is as good.
    pub(super) fn free(&mut self, gone: u64) {
        for index in 0..self.slots {
            if let [key, words @ ..] = self.slot(index)
                && key.load(Ordering::Relaxed) == gone
            {
                for word in words {
                    word.store(0, Ordering::Relaxed);
                }
                // From here on the kernel side may take it.
                key.store(0, Ordering::Release);
            }
        }
    }
}

impl<const WORDS: usize> Drop for Table<WORDS> {
    fn drop(&mut self) {
        // SAFETY: the mapping is as long as it was made, and nothing refers to it.
        unsafe { libc::munmap(self.words.cast(), Self::bytes(self.slots)) };
    }
}
