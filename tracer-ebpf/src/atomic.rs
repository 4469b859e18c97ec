//! Additions that other CPUs and interrupts may come in between. The target has no
//! atomics in Rust, but the instruction is as old as BPF.

use core::arch::asm;

/// Adds one.
///
/// # Safety
///
/// The verifier must know the address as that of a map value.
#[inline(always)]
pub(crate) unsafe fn add_one(n: *mut u64) {
    // SAFETY: the caller's word.
    unsafe { add(n, 1) };
}

/// Takes one away, wrapping.
///
/// # Safety
///
/// As of [`add_one`].
#[inline(always)]
pub(crate) unsafe fn subtract_one(n: *mut u64) {
    // SAFETY: the caller's word.
    unsafe { add(n, u64::MAX) };
}

#[inline(always)]
unsafe fn add(n: *mut u64, addend: u64) {
    // SAFETY: the caller's word.
    unsafe { asm!("lock *(u64 *)({n} + 0) += {addend}", n = in(reg) n, addend = in(reg) addend) };
}
