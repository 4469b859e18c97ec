//! From registers and a stack to addresses in functions.

use super::{FRAMES, cache::Unwinding, protocol::WORDS};
use crate::decode::opening::UserStack;

/// Addresses in the functions of a stack, innermost first, and the places of the return
/// addresses among its words; `None` where too many were asked for. What cannot be unwound
/// any further is left out.
#[cfg(target_arch = "x86_64")]
pub(super) fn addresses(
    modules: Vec<Unwinding>,
    stack: &UserStack,
) -> (Vec<u64>, Option<Vec<u16>>) {
    use std::collections::BTreeMap;

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
    let mut words = BTreeMap::new();
    let mut read = |address: u64| -> Result<u64, ()> {
        let at = u16::try_from(address.checked_sub(stack.sp).ok_or(())?).map_err(drop)?;
        let word = u64::from_ne_bytes(word(stack, at).ok_or(())?);
        if words.len() <= WORDS {
            words.insert(at, word);
        }
        Ok(word)
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
    // A call is looked up by the byte before the address that it returns to.
    let is_return = |word: &u64| {
        word.checked_sub(1)
            .is_some_and(|it| addresses.contains(&it))
    };
    let is_whole = words.len() <= WORDS;
    let returns = words.into_iter().filter(|(_, word)| is_return(word));
    let returns: Vec<u16> = returns.map(|(at, _)| at).collect();
    (addresses, is_whole.then_some(returns))
}

/// A word of a stack.
pub(super) fn word(stack: &UserStack, at: u16) -> Option<[u8; 8]> {
    let bytes = stack.bytes.get(usize::from(at)..)?;
    bytes.first_chunk().copied()
}

/// The kernel side does not bring registers back.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn addresses(_: Vec<Unwinding>, _: &UserStack) -> (Vec<u64>, Option<Vec<u16>>) {
    (Vec::new(), None)
}
