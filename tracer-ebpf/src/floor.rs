//! Programs that do nothing, one for each kind of hook.
//!
//! On the hottest hook there is, one shows what the kernel's own measurement of
//! a program costs: the cost tests hold the others against it. In guests all of
//! them show which kinds a kernel has. tracer itself never loads them, and where
//! each is put is for the loader to say.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit, kprobe, raw_tracepoint, tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
        TracePointContext,
    },
};

use crate::task::IterTask;

/// A raw tracepoint with typed arguments.
#[btf_tracepoint(function = "sched_switch")]
pub(crate) fn floor(_ctx: BtfTracePointContext) -> i32 {
    0
}

/// A raw tracepoint.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub(crate) fn floor_raw(_ctx: RawTracePointContext) -> i32 {
    0
}

/// A tracepoint as tracefs describes it.
#[tracepoint]
pub(crate) fn floor_classic(_ctx: TracePointContext) -> u32 {
    0
}

/// The beginning of a function, by a trampoline.
#[fentry(function = "begin_new_exec")]
pub(crate) fn floor_fentry(_ctx: FEntryContext) -> i32 {
    0
}

/// The end of a function, by a trampoline.
#[fexit(function = "begin_new_exec")]
pub(crate) fn floor_fexit(_ctx: FExitContext) -> i32 {
    0
}

/// The beginning of a function, by a breakpoint.
#[kprobe]
pub(crate) fn floor_kprobe(_ctx: ProbeContext) -> u32 {
    0
}

/// Visits one task: what the kernel's own walk over all of them costs.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn floor_task(_ctx: *mut IterTask) -> i32 {
    0
}
