//! A file a row: from readings to a report, pure; and beside it how the readings are had.
//! A new row is a variant of [`Row`] and an arm here.

pub(super) mod cpu;
pub(super) mod deleted;
pub(super) mod disks;
mod files;
mod groups;
pub(super) mod kernel;
mod load;
pub(super) mod memory;
pub(super) mod messages;
pub(super) mod network;
mod oom;
pub(super) mod ports;
pub(super) mod processes;
pub(super) mod sockets;
mod syn;

use super::{
    context::Context,
    finding::{Row, RowReport},
};

/// Looks at one row.
pub(super) fn look(row: Row, context: &Context) -> RowReport {
    match row {
        Row::Load => load::look(context),
        Row::Cpu => cpu::look(context),
        Row::Memory => memory::look(context),
        Row::Oom => oom::look(context),
        Row::Disks => disks::look(context),
        Row::Deleted => deleted::look(context),
        Row::Files => files::look(context),
        Row::Processes => processes::look(context),
        Row::Sockets => sockets::look(context),
        Row::Syn => syn::look(context),
        Row::Network => network::look(context),
        Row::Kernel => kernel::look(context),
    }
}
