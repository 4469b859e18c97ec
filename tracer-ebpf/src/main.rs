//! tracer's kernel programs.
//!
//! `sched.rs` has the hot hooks (a context switch, a waking), `fold.rs` the
//! look at the run queue when the kernel takes its load sample, `task.rs` the
//! iterator. Hot paths neither allocate nor look anything up in a hash.
#![no_std]
#![no_main]

mod field;
mod floor;
mod fold;
mod maps;
mod sched;
mod task;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses any program in which this can be reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
