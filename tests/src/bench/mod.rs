//! The bench: what tracer costs, beside its peers and beside nothing.
//!
//! A run measures every contender (`contenders`) under every workload, several
//! rounds in an order that changes, and notes each figure in a `Document`. A
//! report (`markdown`, `chart`) is made from that document alone. All of it runs
//! as root on a host that does nothing else.
//!
//! Figures are never compared across runs: the machine differs more from hour to
//! hour than tracer from nothing.

pub mod budgets;
pub mod chart;
pub mod contenders;
mod crowds;
pub mod document;
mod events;
mod held;
pub mod iterate;
mod machine;
pub mod markdown;
pub mod measure;
mod process;
mod running;
mod scripts;
mod slowdown;
mod starts;
pub mod statistics;
pub mod walker;
