//! Records and map values that the kernel programs write and user space reads.
//!
//! Layout only: every type is `#[repr(C)]`, holds plain integers and has no
//! padding, so that its bytes can be decoded without knowing the compiler.
//! There is no logic here; what a value means is said at its field, with the
//! kernel's own name for it.
#![no_std]

pub mod block;
pub mod cookie;
pub mod fold;
pub mod lost;
pub mod oom;
pub mod sched;
pub mod syn;
pub mod task;
pub mod tcp;

/// Length of `task_struct::comm`, the terminating zero included
/// (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_BYTES: usize = 16;

/// The value of a field offset that the running kernel does not have.
///
/// Offsets are frozen read-only data, so a branch on this is pruned by the
/// verifier and costs nothing at run time.
pub const NO_FIELD: u32 = u32::MAX;
