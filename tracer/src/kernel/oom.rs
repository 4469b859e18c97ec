//! Brings back who was killed, and the memory of every process. Nothing is
//! interpreted here.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use bytes::Bytes;

use super::{
    iterator::Iterators,
    probes::MEMORY_ITERATOR,
    reader::{drain, take},
};
use crate::{error::KernelError, snapshot::HookState};

/// The ring of kills, and the iterator over memory.
pub(super) struct KillReader {
    ring: RingBuf<MapData>,
    sees_memory: bool,
}

impl KillReader {
    pub(super) fn new(ebpf: &mut Ebpf, hooks: &[HookState]) -> Result<Self, KernelError> {
        let is_it = |hook: &&HookState| hook.name == MEMORY_ITERATOR && hook.why.is_none();
        let sees_memory = hooks.iter().any(|hook| is_it(&hook));
        Ok(Self {
            ring: take(ebpf, "KILLS")?,
            sees_memory,
        })
    }

    /// A descriptor that is readable once somebody was killed.
    pub(super) fn wakes(&self) -> std::io::Result<OwnedFd> {
        // SAFETY: the ring is open for as long as this borrow.
        let ring = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        ring.try_clone_to_owned()
    }

    /// `KillRecord`s since the last time.
    pub(super) fn kills(&mut self) -> Bytes {
        drain(&mut self.ring)
    }

    /// A `MemoryRecord` for each process; `None` without the iterator.
    pub(super) fn memory(
        &self,
        ebpf: &mut Ebpf,
        iterators: &mut Iterators,
    ) -> Result<Option<Bytes>, KernelError> {
        if !self.sees_memory {
            return Ok(None);
        }
        iterators.read(ebpf, MEMORY_ITERATOR, None).map(Some)
    }
}
