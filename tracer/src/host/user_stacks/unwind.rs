//! From registers and a stack to addresses in functions.

use super::{FRAMES, cache::Unwinding};
use crate::decode::opening::UserStack;

/// Addresses in the functions of a stack, innermost first. What cannot be unwound any
/// further is left out.
#[cfg(target_arch = "x86_64")]
pub(super) fn addresses(modules: Vec<Unwinding>, stack: &UserStack) -> Vec<u64> {
    use bytes::Bytes;
    use framehop::{
        CacheNative, MustNotAllocateDuringUnwind, UnwindRegsNative, Unwinder as _, UnwinderNative,
    };

    // What a table asks for is held in room of a fixed size.
    type OnStack = MustNotAllocateDuringUnwind;
    let mut unwinder = UnwinderNative::<Bytes, OnStack>::new();
    for module in modules {
        unwinder.add_module(module);
    }
    let mut read = |address: u64| -> Result<u64, ()> {
        let at = address.checked_sub(stack.sp).ok_or(())?;
        let at = usize::try_from(at).map_err(drop)?;
        let word = stack.bytes.get(at..).and_then(|bytes| bytes.first_chunk());
        word.copied().map(u64::from_ne_bytes).ok_or(())
    };
    let registers = UnwindRegsNative::new(stack.pc, stack.sp, stack.fp);
    let mut cache = CacheNative::<OnStack>::new_in();
    let mut frames = unwinder.iter_frames(stack.pc, registers, &mut cache, &mut read);
    let mut addresses = Vec::new();
    while addresses.len() < FRAMES
        && let Ok(Some(frame)) = frames.next()
    {
        addresses.push(frame.address_for_lookup());
    }
    addresses
}

/// The kernel side does not bring registers back.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn addresses(_: Vec<Unwinding>, _: &UserStack) -> Vec<u64> {
    Vec::new()
}
