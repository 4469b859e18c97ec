//! Stories of sockets, without a kernel.
