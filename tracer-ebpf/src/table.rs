//! Tables of counters by a key that is one word. A hash map of the kernel's takes five
//! times as long to find what is there; this one is an array, which user space has in its
//! memory too, and reads without a call.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, btf_maps::Array};
use tracer_common::tcp::{SLOTS_TRIED, Slot};

use crate::atomic::exchange_zero;

/// `SLOTS` is a power of two.
pub(crate) type Table<T, const SLOTS: usize> = Array<Slot<T>, SLOTS, { BPF_F_MMAPABLE as usize }>;

/// Spreads keys that differ in a few bits: 2^64 divided by the golden ratio.
pub(crate) const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The slot of a key.
#[inline(always)]
pub(crate) fn find<T, const SLOTS: usize>(
    table: &Table<T, SLOTS>,
    key: u64,
) -> Option<*mut Slot<T>> {
    let home = home(key);
    let slot = at(table, home)?;
    // SAFETY: a map value.
    if unsafe { (&raw const (*slot).key).read_volatile() } == key {
        return Some(slot);
    }
    for step in 1..SLOTS_TRIED {
        let slot = at(table, home + step)?;
        // SAFETY: as above.
        if unsafe { (&raw const (*slot).key).read_volatile() } == key {
            return Some(slot);
        }
    }
    None
}

/// Takes a free slot for a key that has none; `None` when there is none near.
#[inline(always)]
pub(crate) fn take<T, const SLOTS: usize>(
    table: &Table<T, SLOTS>,
    key: u64,
) -> Option<*mut Slot<T>> {
    let home = home(key);
    for step in 0..SLOTS_TRIED {
        let slot = at(table, home + step)?;
        // SAFETY: a map value.
        let there = unsafe { exchange_zero(&raw mut (*slot).key, key) };
        // Another CPU can have taken it for the same key.
        if there == 0 || there == key {
            return Some(slot);
        }
    }
    None
}

#[inline(always)]
fn home(key: u64) -> u32 {
    (key.wrapping_mul(SPREAD) >> 32) as u32
}

#[inline(always)]
fn at<T, const SLOTS: usize>(table: &Table<T, SLOTS>, index: u32) -> Option<*mut Slot<T>> {
    table.get_ptr_mut(index & (SLOTS as u32 - 1))
}
