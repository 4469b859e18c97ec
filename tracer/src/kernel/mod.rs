//! The only place that knows maps, programs and BTF.
//!
//! `probes.rs` is the table of hooks, `fields.rs` the table of kernel fields;
//! `loader.rs` brings both into the kernel and `reader.rs` brings bytes back.

pub mod btf;
pub mod cookies;
pub mod features;
pub mod fields;
mod iterator;
pub mod loader;
mod oom;
mod openings;
pub mod probes;
pub mod reader;
pub mod sockets;
pub mod symbols;
pub mod syscalls;
mod table;
