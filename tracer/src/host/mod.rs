//! Readings from outside BPF: the averages, the host's facts, names of cgroups
//! and users, tracer's own cost.

pub mod capabilities;
pub mod cgroups;
pub mod facts;
pub mod load;
pub mod own;
pub mod users;
