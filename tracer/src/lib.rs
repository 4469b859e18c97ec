//! What the load average is made of, live, from the kernel's own events.
//!
//! Data flows one way: [`kernel`] and [`host`] read, [`decode`] makes typed
//! readings of bytes, [`aggregate`] computes, [`snapshot`] is the model of one
//! tick, [`render`] shows it. [`session`] drives it. ARCHITECTURE.md has the map.

pub mod aggregate;
pub mod check;
pub mod cli;
pub mod clock;
pub mod decode;
pub mod doctor;
pub mod error;
pub mod figures;
pub mod host;
pub mod kernel;
pub mod render;
pub mod rights;
pub mod session;
pub mod snapshot;
pub mod text;
