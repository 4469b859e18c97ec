//! A program that does nothing, on the hottest hook there is: what the kernel's
//! own measurement of a program costs. The cost tests load it beside the others
//! and hold their figures against it; tracer itself never loads it.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

/// `sched_switch`, for nothing.
#[btf_tracepoint(function = "sched_switch")]
pub(crate) fn floor(_ctx: BtfTracePointContext) -> i32 {
    0
}
