//! Readings from outside BPF: the averages, the host's facts, names of cgroups,
//! users and block devices, memory and the cgroups that limit it, the kernel's log, the mounts, network namespaces with their TCP sockets,
//! counters and settings, user stacks, tracer's own cost.

pub mod capabilities;
pub mod cgroups;
pub mod devices;
pub mod facts;
pub mod kmsg;
pub mod living;
pub mod load;
pub mod memory;
pub(crate) mod mountinfo;
pub mod mounts;
pub mod namespaces;
pub mod netstat;
pub mod own;
pub mod sock_diag;
#[cfg(test)]
mod stranger;
pub mod sysctls;
pub mod user_stacks;
pub mod users;
pub mod wchan;
