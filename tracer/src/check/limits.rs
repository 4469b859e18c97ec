//! The one table of limits: from where on a figure is worth a warning, and why. A TOML
//! file changes them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use serde::Deserialize;

use super::finding::Verdict;
use crate::{
    render::quantity::bytes,
    text::{Text, lines},
};

/// The largest file of limits that is read. That of all limits has 9 KiB.
const MOST_BYTES: u64 = 1 << 20;

/// From where on a figure is bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// The figure, with its unit; the table of the TOML file.
    pub name: &'static str,
    /// Where a warning begins.
    pub warning: f64,
    /// Where it is critical.
    pub critical: f64,
    /// Why there.
    pub reason: &'static str,
}

const NEVER: f64 = f64::INFINITY;

macro_rules! limits {
    ($($constant:ident: $name:literal, $warning:expr, $critical:expr, $reason:literal;)*) => {
        $(#[doc = $reason] pub const $constant: Limit = Limit {
            name: $name, warning: $warning, critical: $critical, reason: $reason,
        };)*
        /// Every limit.
        pub const LIMITS: &[Limit] = &[$($constant),*];
    };
}

// Where `critical` is below `warning`, less is worse. NEVER is no limit.
limits! {
    LOAD_PER_CPU: "load1_per_cpu", 2.0, 8.0,
        "more than two tasks for each CPU wait for half of their time or longer";
    LOAD_BLOCKED: "blocked_tasks_mean", 1.0, NEVER,
        "as much as a task that is blocked all the time, in waits of 1 ms or more";
    CPU_BUSY: "cpu_busy_ratio", 0.90, 0.98,
        "with less than a tenth left, waiting for a CPU grows faster than the work";
    CPU_STEAL: "cpu_steal_ratio", 0.05, 0.20,
        "the host of this virtual machine gives the time to others";
    CPU_IMBALANCE: "cpu_imbalance_ratio", 0.80, NEVER,
        "one CPU is busy while another is idle: work that cannot spread";
    CGROUP_THROTTLED: "cgroup_throttled_ratio", 0.10, 0.50,
        "a cgroup that is held by its CPU limit in so many of its periods answers late";
    MEMORY_AVAILABLE: "memory_available_ratio", 0.10, 0.04,
        "below it the kernel reclaims all the time, and a burst ends in a kill";
    MEMORY_LEFT: "memory_available_bytes", 8_589_934_592.0, 2_147_483_648.0,
        "of much memory a small part is enough: it counts only where this little is left as well";
    MEMORY_PRESSURE: "memory_pressure_full_ratio", 0.10, 0.40,
        "for so much of the time no task got on, as all waited for memory";
    SWAP_IN: "swap_in_pages_per_s", 100.0, 2000.0,
        "memory that is needed is read back from disk";
    CGROUP_MEMORY: "cgroup_memory_ratio", 0.90, 0.98,
        "a cgroup at its limit reclaims its own pages, then its processes are killed";
    CGROUP_REFAULTS: "cgroup_refault_pages_per_s", 2_000.0, NEVER,
        "its limit leaves too little for the page cache: what it reads is given up before it is read again";
    SLAB: "slab_unreclaimable_ratio", 0.15, 0.30,
        "memory that the kernel itself holds and cannot give back";
    OOM_RECENT: "oom_kill_age_s", 3_600.0, 600.0,
        "what was killed for memory in the last hour is still being paid for; an older kill is worth a note";
    DISK_SPACE: "disk_used_ratio", 0.90, 0.97,
        "file systems fragment and programs fail when little is left";
    DISK_LEFT: "disk_left_bytes", 10_737_418_240.0, 1_073_741_824.0,
        "on a large file system a small part is enough: it counts only where this little is left as well";
    INODES: "inodes_used_ratio", 0.90, 0.98,
        "without inodes no file can be made, however much space is left";
    DEVICE_BUSY: "device_busy_ratio", 0.80, NEVER,
        "a device that is busy most of the time makes its requests wait; one that serves many at once may be busy and quick";
    DEVICE_WAIT: "device_wait_ms", 50.0, 500.0,
        "a request that takes so long is felt by whoever waits for it";
    DELETED_BYTES: "deleted_open_bytes", 104_857_600.0, 10_737_418_240.0,
        "space that df counts and du does not find: it comes back when the holder closes";
    FILE_TABLE: "file_nr_ratio", 0.80, 0.95,
        "at fs.file-max nobody can open a file or a socket";
    DESCRIPTORS: "descriptors_used_ratio", 0.80, 0.95,
        "at RLIMIT_NOFILE a process can neither open nor accept";
    INOTIFY: "inotify_used_ratio", 0.80, 0.95,
        "at fs.inotify's limits the next watch fails, and programs miss changes";
    ZOMBIES: "zombies", 10.0, 1000.0,
        "a parent that does not wait for its children fills the table of processes";
    BLOCKED_AGE: "blocked_age_s", 10.0, 120.0,
        "no disk takes so long: a lock, a server or a device does not answer";
    PIDS: "pids_used_ratio", 0.80, 0.95,
        "at kernel.pid_max or kernel.threads-max no process can be made";
    CGROUP_PIDS: "cgroup_pids_ratio", 0.90, 0.98,
        "at its pids.max a cgroup is refused every fork and thread (EAGAIN)";
    CLOSE_WAIT_AGE: "close_wait_age_s", 60.0, NEVER,
        "the peer closed, and the process here has not: it forgets its sockets";
    CLOSE_WAIT_OLD: "close_wait_old_sockets", 10.0, 1000.0,
        "so many old ones are no accident, and end at the limit of descriptors";
    PORTS: "local_ports_used_ratio", 0.70, 0.90,
        "when ip_local_port_range is used up, connect fails with EADDRNOTAVAIL";
    LISTEN_QUEUE: "listen_queue_ratio", 0.80, 1.0,
        "the process does not accept as fast as connections come; full, they are refused";
    LISTEN_DROPS: "listen_drops_per_s", 0.1, 10.0,
        "connections are lost at a listener at this moment";
    ORPHANS: "tcp_orphans_ratio", 0.50, 0.90,
        "at tcp_max_orphans the kernel resets connections that wait to end";
    TCP_MEMORY: "tcp_memory_ratio", 0.75, 1.0,
        "above the second number of tcp_mem buffers shrink, at the third packets are dropped";
    CONNTRACK: "conntrack_used_ratio", 0.80, 0.95,
        "at nf_conntrack_max new connections are dropped, of every protocol";
    RETRANSMITS: "tcp_retransmits_ratio", 0.02, 0.10,
        "segments that are sent again: loss on the way, or a peer that is overloaded";
    INTERFACE_ERRORS: "interface_errors_ratio", 0.0001, 0.01,
        "packets that the interface itself finds broken: cable, optics, driver";
    INTERFACE_DROPS: "interface_drops_ratio", 0.001, 0.05,
        "packets that came and found no room";
    UDP_DROPS: "udp_receive_drops_per_s", 0.1, NEVER,
        "the process does not read as fast as datagrams come, and nobody sends them again";
    KERNEL_MESSAGE: "kernel_message_age_s", 3_600.0, -NEVER,
        "what the kernel complained of in the last hour may go on";
    MEMORY_UNCORRECTED: "memory_uncorrected_errors", 1.0, 1.0,
        "memory that gave wrong data, which nobody could correct, is to be replaced";
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    warning: Option<f64>,
    critical: Option<f64>,
}

/// The limits in force.
#[derive(Clone, Debug, Default)]
pub struct Limits(BTreeMap<String, Changed>);

impl Limits {
    /// Those of the table, changed by a file.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or has a limit that there is not.
    pub fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("limits of {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        // The error quotes the file.
        let parsed = toml::from_str(text).map_err(|error| anyhow!(lines(&error.to_string())));
        let limits = Self(parsed?);
        for name in limits.0.keys() {
            let Some(limit) = LIMITS.iter().find(|limit| limit.name == name) else {
                let name = Text::from(name.as_str());
                bail!("there is no limit {name:?}; `tracer check --print-config` has them all");
            };
            let (new, old) = (limits.of(limit), limit);
            let is_same_way = (new.critical < new.warning) == (old.critical < old.warning);
            ensure!(
                is_same_way && !new.warning.is_nan() && !new.critical.is_nan(),
                "{name}: critical {} must be on the other side of warning {}; \
                 `inf` is no limit",
                new.critical,
                new.warning
            );
        }
        Ok(limits)
    }

    fn of(&self, limit: &Limit) -> Limit {
        let changed = self.0.get(limit.name);
        Limit {
            warning: changed.and_then(|c| c.warning).unwrap_or(limit.warning),
            critical: changed.and_then(|c| c.critical).unwrap_or(limit.critical),
            ..*limit
        }
    }

    /// How bad a figure is.
    pub fn judge(&self, limit: &Limit, value: f64) -> Verdict {
        let limit = self.of(limit);
        let is_past = |at: f64| {
            if limit.critical < limit.warning {
                value <= at
            } else {
                value >= at
            }
        };
        match () {
            () if is_past(limit.critical) => Verdict::Critical,
            () if is_past(limit.warning) => Verdict::Warning,
            () => Verdict::Ok,
        }
    }

    /// The limit and its reason, in a line.
    pub fn why(&self, limit: &Limit) -> String {
        let Limit {
            name,
            warning,
            critical,
            reason,
        } = self.of(limit);
        let side = if critical < warning {
            "at most"
        } else {
            "from"
        };
        let number = |number: f64| {
            if name.ends_with("_bytes") && number.is_finite() {
                bytes(number.max(0.0) as u64)
            } else {
                number.to_string()
            }
        };
        let critical = if critical.is_finite() {
            format!(", critical {side} {}", number(critical))
        } else {
            String::new()
        };
        let warning = number(warning);
        format!("{reason} ({name}: warning {side} {warning}{critical})")
    }

    /// All of them as a file that can be read again.
    pub fn print(&self) -> String {
        let mut text = String::from(
            "# Limits of `tracer check`; give the file with --config. `inf` is no limit.\n\
             # Where critical is below warning, less is worse.\n",
        );
        for limit in LIMITS {
            let Limit {
                name,
                warning,
                critical,
                reason,
            } = self.of(limit);
            text += &format!(
                "\n# {reason}\n[{name}]\nwarning = {warning:?}\ncritical = {critical:?}\n"
            );
        }
        text
    }
}

/// The text of a file of limits.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MOST_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{DISK_SPACE, LIMITS, Limits, MEMORY_AVAILABLE};
    use crate::check::finding::Verdict;

    #[test]
    fn what_is_printed_can_be_read_and_says_the_same() {
        let printed = Limits::default().print();
        let again = Limits::parse(&printed).unwrap();
        assert_eq!(again.print(), printed);
        assert_eq!(printed.matches("\nwarning").count(), LIMITS.len());
    }

    #[test]
    fn figures_are_held_against_the_limit_that_is_in_force() {
        let limits = Limits::parse("[disk_used_ratio]\nwarning = 0.5\n").unwrap();
        for (ratio, verdict) in [
            (0.49, Verdict::Ok),
            (0.5, Verdict::Warning),
            (0.97, Verdict::Critical),
        ] {
            assert_eq!(limits.judge(&DISK_SPACE, ratio), verdict);
        }
        for (ratio, verdict) in [
            (0.2, Verdict::Ok),
            (0.1, Verdict::Warning),
            (0.04, Verdict::Critical),
        ] {
            assert_eq!(limits.judge(&MEMORY_AVAILABLE, ratio), verdict);
        }
        assert!(
            limits
                .why(&DISK_SPACE)
                .contains("warning from 0.5, critical from 0.97")
        );
    }

    #[test]
    fn what_an_error_quotes_is_made_safe() {
        for text in [
            "[disk_used_ratio]\nwarning = \u{1b}[31m\u{202e}1\n",
            "[disk_used_ratio]\n\"\\u001b[31m\" = 1\n",
            "[\"\\u001b]0;title\\u0007\"]\nwarning = 1\n",
            "[disk_used_ratio]\nwarning = \"\\u009b31m\"\n",
        ] {
            let error = format!("{:#}", Limits::parse(text).unwrap_err());
            let is_hostile = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
            assert!(!error.contains(is_hostile), "{error:?}");
        }
    }

    #[test]
    fn bad_files_are_refused() {
        for (text, word) in [
            ("[disk_used]\nwarning = 0.5\n", "there is no limit"),
            ("[disk_used_ratio]\nwarn = 0.5\n", "warn"),
            ("[disk_used_ratio]\nwarning = 0.99\n", "other side"),
            ("[disk_used_ratio]\nwarning = nan\n", "other side"),
            ("[disk_used_ratio\n", "TOML"),
        ] {
            let error = format!("{:#}", Limits::parse(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
