//! tracer's kernel programs.
//!
//! `sched.rs` has the hot hooks (a context switch, a waking), `fold.rs` the
//! look at the run queue when the kernel takes its load sample, `task.rs` the
//! iterator, `block.rs` and `file.rs` what a blocked task waits for, `tcp.rs` and
//! `socket.rs` what sockets do, `opening.rs` where suspected processes open them,
//! `reset.rs` why the kernel sends resets, `syn.rs` what waits at listeners, `cookie.rs`
//! SYN cookies, `oom.rs` who is killed and how much memory processes have. Hot paths of
//! the scheduler neither allocate nor look anything up in a hash.
#![no_std]
#![no_main]
// An atomic addition has no other name on this target.
#![feature(asm_experimental_arch)]

mod atomic;
mod block;
mod cookie;
mod field;
mod file;
mod floor;
mod fold;
mod maps;
mod oom;
mod opening;
mod reset;
mod sched;
mod socket;
mod syn;
mod table;
mod task;
mod tcp;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses any program in which this can be reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
