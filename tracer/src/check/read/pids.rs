//! How many tasks there are and can be: /proc/loadavg and /proc/sys/kernel.

use procfs::{Current as _, LoadAverage, sys::kernel};

/// All tasks of the kernel (`nr_threads`): what its two limits are held against. Those of
/// other PID namespaces count, so this can be more than /proc shows.
pub(in crate::check) fn threads() -> Option<u64> {
    Some(LoadAverage::current().ok()?.max.into())
}

/// `kernel.pid_max` and `kernel.threads-max`.
pub(in crate::check) fn limits() -> (Option<u64>, Option<u64>) {
    let pid_max = kernel::pid_max()
        .ok()
        .and_then(|max| u64::try_from(max).ok());
    (pid_max, kernel::threads_max().ok().map(u64::from))
}
