//! Facts of the host that do not change while tracer runs.

use std::{fs, path::Path};

use crate::{snapshot::Host, text::Text};

/// inode of the initial pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Kernel, host name and CPUs.
pub fn host() -> Host {
    let read = |name| {
        let bytes = fs::read(Path::new("/proc/sys/kernel").join(name)).unwrap_or_default();
        Text::from_bytes(bytes.trim_ascii())
    };
    Host {
        cpus: online_cpus(),
        kernel: read("osrelease"),
        hostname: read("hostname"),
    }
}

/// CPUs online now.
pub fn online_cpus() -> u32 {
    // SAFETY: no preconditions.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u32::try_from(online).unwrap_or(1).max(1)
}

/// Major and minor number of a release such as `6.12.117-amd64`.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether tracer sees every process: an iterator shows the reader's pid
/// namespace only.
pub fn in_initial_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == INITIAL_PID_NAMESPACE)
}

/// Whether high-resolution timers are in force: then the clock's resolution is a
/// nanosecond, else a tick (`hrtimer_resolution`, kernel/time/hrtimer.c).
pub fn has_high_resolution_timers() -> bool {
    let mut resolution = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills in the timespec, which is ours.
    let status = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC, &raw mut resolution) };
    status == 0 && resolution.tv_sec == 0 && resolution.tv_nsec == 1
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(version("7.2-rc1"), Some((7, 2)));
        assert_eq!(version("unknown"), None);
    }
}
