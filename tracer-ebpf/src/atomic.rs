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
    unsafe { asm!("lock *(u64 *)({n} + 0) += {one}", n = in(reg) n, one = in(reg) 1_u64) };
}

/// Adds one, wrapping, to a word of half the size.
///
/// # Safety
///
/// As of [`add_one`].
#[inline(always)]
pub(crate) unsafe fn add_one_short(n: *mut u32) {
    // SAFETY: the caller's word.
    unsafe { asm!("lock *(u32 *)({n} + 0) += {one}", n = in(reg) n, one = in(reg) 1_u64) };
}

/// Puts a word where there is a zero; what was there. From 5.12.
///
/// # Safety
///
/// As of [`add_one`].
#[inline(always)]
pub(crate) unsafe fn exchange_zero(n: *mut u64, new: u64) -> u64 {
    let before;
    // SAFETY: the caller's word.
    unsafe {
        asm!("r0 = cmpxchg_64({n} + 0, r0, {new})", n = in(reg) n, new = in(reg) new,
             inout("r0") 0_u64 => before);
    }
    before
}
