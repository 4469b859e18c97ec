//! SYN cookies by listener, with what a connection by cookie has lost, and whom they are
//! sent to.
//!
//! `tcp_conn_request` knows the listener and runs for every SYN: it notes which, no more.
//! The rest runs for cookies only.

use aya_ebpf::{
    Global,
    helpers::generated::bpf_ktime_get_ns,
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use tracer_common::{
    cookie::{
        CookieKind, CookieTotals, HAS_ECN, HAS_SACK, HAS_TIMESTAMPS, HAS_WINDOW_SCALING, REGISTERS,
        SAMPLES, Source, VALID_NS,
    },
    lost,
};

use crate::{
    atomic::add_one,
    field::{SKB_HEAD, SKB_NETWORK, SKB_TRANSPORT, TCP_ECN, TCP_MSS, TCP_OPTIONS, has, read},
    maps::{ANSWERING, COOKIE_KINDS, COOKIES, SOURCES, count},
};

/// Where the source is in a header of IPv4 and of IPv6.
const V4_SOURCE: u64 = 12;
const V6_SOURCE: u64 = 8;
/// What IPv4 begins with as an address of IPv6.
const V4_MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
/// The flags in a header of TCP.
const FLAGS: u64 = 13;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// Bits of `struct tcp_options_received` (include/linux/tcp.h), the same since 4.11.
const TSTAMP_OK: u16 = 1 << 1;
const WSCALE_OK: u16 = 1 << 3;
const SACK_OK: u16 = 7 << 4;
/// `TCP_ECN_OK`, include/net/tcp.h.
const ECN_OK: u8 = 1;

/// `tcp_conn_request(rsk_ops, af_ops, sk, skb)`.
#[fentry(function = "tcp_conn_request")]
pub(crate) fn tcp_conn_request(ctx: FEntryContext) -> i32 {
    syn_for(ctx.arg(2));
    0
}

/// The same where there are no trampolines, as with all that follow.
#[kprobe]
pub(crate) fn tcp_conn_request_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(listener) = ctx.arg(2) {
        syn_for(listener);
    }
    0
}

#[inline(always)]
fn syn_for(listener: u64) {
    if let Some(answering) = ANSWERING.get_ptr_mut(0) {
        // SAFETY: a per-CPU slot, and a SYN is answered on one CPU.
        unsafe { (*answering).syn = listener };
    }
}

/// `cookie_v4_init_sequence(skb, mss)`, within `tcp_conn_request`.
#[fentry(function = "cookie_v4_init_sequence")]
pub(crate) fn cookie_v4_init_sequence(ctx: FEntryContext) -> i32 {
    sent(v4_source(ctx.arg(0)));
    0
}

#[kprobe]
pub(crate) fn cookie_v4_init_sequence_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0) {
        sent(v4_source(skb));
    }
    0
}

/// `cookie_v6_init_sequence(skb, mss)`.
#[fentry(function = "cookie_v6_init_sequence")]
pub(crate) fn cookie_v6_init_sequence(ctx: FEntryContext) -> i32 {
    sent(v6_source(ctx.arg(0)));
    0
}

#[kprobe]
pub(crate) fn cookie_v6_init_sequence_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0) {
        sent(v6_source(skb));
    }
    0
}

/// `cookie_v4_check(sk, skb)`: the same sk where it is no cookie or a bad one, NULL where
/// no connection comes of a good one, else the connection.
#[fexit(function = "cookie_v4_check")]
pub(crate) fn cookie_v4_check(ctx: FExitContext) -> i32 {
    checked(ctx.arg(0), is_answer(ctx.arg(1)), ctx.arg(2));
    0
}

#[kprobe]
pub(crate) fn cookie_v4_check_kprobe(ctx: ProbeContext) -> u32 {
    check_begins(&ctx)
}

#[kretprobe]
pub(crate) fn cookie_v4_check_kretprobe(ctx: RetProbeContext) -> u32 {
    check_ends(&ctx)
}

/// `cookie_v6_check(sk, skb)`, likewise.
#[fexit(function = "cookie_v6_check")]
pub(crate) fn cookie_v6_check(ctx: FExitContext) -> i32 {
    checked(ctx.arg(0), is_answer(ctx.arg(1)), ctx.arg(2));
    0
}

#[kprobe]
pub(crate) fn cookie_v6_check_kprobe(ctx: ProbeContext) -> u32 {
    check_begins(&ctx)
}

#[kretprobe]
pub(crate) fn cookie_v6_check_kretprobe(ctx: RetProbeContext) -> u32 {
    check_ends(&ctx)
}

#[inline(always)]
fn check_begins(ctx: &ProbeContext) -> u32 {
    if let (Some(listener), Some(skb), Some(answering)) =
        (ctx.arg(0), ctx.arg(1), ANSWERING.get_ptr_mut(0))
    {
        // SAFETY: a per-CPU slot, and an ACK is answered on one CPU.
        unsafe {
            (*answering).ack = listener;
            (*answering).is_answer = is_answer(skb).into();
        }
    }
    0
}

#[inline(always)]
fn check_ends(ctx: &RetProbeContext) -> u32 {
    if let Some(answering) = ANSWERING.get_ptr_mut(0) {
        // SAFETY: as where it begins.
        let (listener, is_answer) = unsafe { ((*answering).ack, (*answering).is_answer) };
        checked(listener, is_answer != 0, ctx.ret());
    }
    0
}

#[inline(always)]
fn at(object: u64, offset: &Global<u32>) -> u64 {
    object + u64::from(offset.load())
}

/// Where a header begins.
#[inline(always)]
fn header(skb: u64, which: &Global<u32>) -> u64 {
    let head: u64 = read(at(skb, &SKB_HEAD));
    head + u64::from(read::<u16>(at(skb, which)))
}

#[inline(always)]
fn v4_source(skb: u64) -> [u8; 16] {
    let mut source = V4_MAPPED;
    let address: [u8; 4] = read(header(skb, &SKB_NETWORK) + V4_SOURCE);
    source[12..].copy_from_slice(&address);
    source
}

#[inline(always)]
fn v6_source(skb: u64) -> [u8; 16] {
    read(header(skb, &SKB_NETWORK) + V6_SOURCE)
}

/// Whether the kernel looks for a cookie in it (`cookie_v4_check`).
#[inline(always)]
fn is_answer(skb: u64) -> bool {
    let flags: u8 = read(header(skb, &SKB_TRANSPORT) + FLAGS);
    flags & (ACK | RST) == ACK
}

/// The totals of a listener, made on demand.
#[inline(always)]
fn totals(listener: u64) -> Option<*mut CookieTotals> {
    if let Some(totals) = COOKIES.get_ptr_mut(listener) {
        return Some(totals);
    }
    // Another CPU can have made them meanwhile (BPF_NOEXIST).
    let _ = COOKIES.insert(listener, CookieTotals::default(), 1);
    let totals = COOKIES.get_ptr_mut(listener);
    if totals.is_none() {
        count(lost::COOKIES);
    }
    totals
}

/// A cookie is sent.
#[inline(always)]
fn sent(address: [u8; 16]) {
    let Some(answering) = ANSWERING.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a per-CPU slot.
    let listener = unsafe { (*answering).syn };
    let Some(totals) = totals(listener) else {
        return;
    };
    // SAFETY: a map value. Registers that two CPUs raise at once keep one of the two.
    unsafe {
        let now = bpf_ktime_get_ns();
        // Another CPU may have sent one a moment later.
        if now.saturating_sub((*totals).last_sent_ns) > VALID_NS {
            // Another flood, with other sources.
            (*totals).registers = [0; REGISTERS / 8];
        }
        (*totals).last_sent_ns = now;
        add_one(&raw mut (*totals).sent);
        let hash = hash(address);
        let register: *mut u8 = (&raw mut (*totals).registers).cast();
        let register = register.add(hash as usize & (REGISTERS - 1));
        // Its low bits say which register.
        let zeros = (hash | 0xff).leading_zeros() as u8 + 1;
        if *register < zeros {
            *register = zeros;
        }
        if let Some(sources) = SOURCES.get_ptr_mut(0) {
            let latest: *mut Source = (&raw mut (*sources).latest).cast();
            let slot = latest.add((*sources).count as usize & (SAMPLES - 1));
            *slot = Source { listener, address };
            (*sources).count += 1;
        }
    }
}

/// Each bit of it by all bits of the address: the finaliser of SplitMix64 (Steele, Lea,
/// Flood: Fast splittable pseudorandom number generators, 2014).
#[inline(always)]
fn hash(address: [u8; 16]) -> u64 {
    let both = u128::from_ne_bytes(address);
    let (high, low) = ((both >> 64) as u64, both as u64);
    let mut z = high.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ low;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An ACK for which the listener has no request was looked at.
#[inline(always)]
fn checked(listener: u64, is_answer: bool, child: u64) {
    if child == listener {
        let Some(totals) = COOKIES.get_ptr_mut(listener) else {
            return;
        };
        // SAFETY: a map value.
        unsafe {
            let since_ns = bpf_ktime_get_ns().saturating_sub((*totals).last_sent_ns);
            if is_answer && since_ns < VALID_NS {
                add_one(&raw mut (*totals).failed);
            }
        }
        return;
    }
    let Some(totals) = totals(listener) else {
        return;
    };
    // SAFETY: a map value.
    unsafe { add_one(&raw mut (*totals).valid) };
    if child == 0 {
        return;
    }
    // SAFETY: as before.
    unsafe { add_one(&raw mut (*totals).established) };
    let kind = CookieKind {
        listener,
        mss: read::<u16>(at(child, &TCP_MSS)).into(),
        has: options(child),
    };
    if COOKIE_KINDS.get_ptr_mut(kind).is_none() {
        let _ = COOKIE_KINDS.insert(kind, 0, 1);
    }
    match COOKIE_KINDS.get_ptr_mut(kind) {
        // SAFETY: a map value.
        Some(connections) => unsafe { add_one(connections) },
        None => count(lost::COOKIES),
    }
}

#[inline(always)]
fn options(connection: u64) -> u32 {
    let options: u16 = read(at(connection, &TCP_OPTIONS));
    let mut found = 0;
    if options & TSTAMP_OK != 0 {
        found |= HAS_TIMESTAMPS;
    }
    if options & WSCALE_OK != 0 {
        found |= HAS_WINDOW_SCALING;
    }
    if options & SACK_OK != 0 {
        found |= HAS_SACK;
    }
    if has(&TCP_ECN) && read::<u8>(at(connection, &TCP_ECN)) & ECN_OK != 0 {
        found |= HAS_ECN;
    }
    found
}
