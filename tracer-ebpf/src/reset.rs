//! Why the kernel sends resets.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tracer_common::tcp::RESET_REASONS;

use crate::{atomic::add_one, maps::RESETS};

/// `tcp_send_reset(sk, skb, reason)`; the reason from 6.10.
#[btf_tracepoint(function = "tcp_send_reset")]
pub(crate) fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    let reason: u64 = ctx.arg(2);
    let index = (reason as u32).min(RESET_REASONS - 1);
    if let Some(count) = RESETS.get_ptr_mut(index) {
        // SAFETY: the slot of this CPU. A softirq may come in between.
        unsafe { add_one(count) };
    }
    0
}
