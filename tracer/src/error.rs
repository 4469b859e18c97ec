//! Errors of the kernel side: what failed, why, and what to do about it.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::{kernel::btf::BtfError, text::Text};

/// Why the kernel side cannot be brought up or read.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The binary has no kernel side in it.
    #[error("this binary was built without its kernel programs; build it with `cargo xtask build`")]
    NoObject,
    /// Missing rights.
    #[error(
        "not enough rights: {missing} missing; run it as root (`sudo tracer ..`) \
         or give the binary CAP_BPF and CAP_PERFMON"
    )]
    Rights {
        /// Capabilities that are missing.
        missing: String,
    },
    /// The kernel is too old.
    #[error(
        "Linux {release} is too old: tracer needs 5.15, or the 5.14 of RHEL 9, for task storage \
         in tracing programs\n  -> boot a newer kernel; `tracer doctor` says what this one has"
    )]
    OldKernel {
        /// The running kernel.
        release: String,
    },
    /// The kernel would kill tracer as it starts.
    #[error(
        "its memory cgroup {cgroup} leaves it {left_mib} MiB of its limit of {limit_mib} MiB, \
         and tracer needs {needed_mib} MiB to start\n  -> raise the limit (memory.max; on \
         cgroup v1 memory.limit_in_bytes), or start it in another cgroup"
    )]
    Memory {
        /// Its path.
        cgroup: Text,
        /// Its limit.
        limit_mib: u64,
        /// Left of it.
        left_mib: u64,
        /// What a start takes.
        needed_mib: u64,
    },
    /// Type information cannot be had.
    #[error(
        "{source}; a kernel built with CONFIG_DEBUG_INFO_BTF=y has it at \
         /sys/kernel/btf/vmlinux, and --btf FILE names another place"
    )]
    Btf {
        /// What is wrong with it.
        source: BtfError,
    },
    /// A field that nothing works without.
    #[error(
        "this kernel's BTF has no field {paths}, which tracer must read; \
         please report the kernel's version"
    )]
    Field {
        /// The places that were tried.
        paths: String,
    },
    /// A BPF operation failed.
    #[error("{operation} {object}: {reason}; `tracer doctor` shows what this kernel allows")]
    Bpf {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// The kernel's answer, with its source.
        reason: String,
    },
    /// A kernel function cannot be hooked in any way.
    #[error("cannot hook {function}: {whys}")]
    Function {
        /// Which.
        function: &'static str,
        /// Each way, and why it failed.
        whys: String,
    },
    /// A read of host state failed.
    #[error("cannot read {path}: {source}")]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl KernelError {
    /// A failed BPF operation, with the whole chain of reasons on one line. Of a
    /// verifier's log that is its first and last line; the debug log has it all.
    pub fn bpf(
        operation: &'static str,
        object: impl Into<String>,
        error: &dyn std::error::Error,
    ) -> Self {
        Self::Bpf {
            operation,
            object: object.into(),
            reason: Self::reason(operation, error),
        }
    }

    /// That chain of reasons.
    pub fn reason(operation: &str, error: &dyn std::error::Error) -> String {
        let mut reason = String::new();
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            log::debug!("{operation}: {text}");
            for line in one_line(&text) {
                let line = &without_type_ids(line);
                if !reason.contains(line) {
                    let separator = if reason.is_empty() { "" } else { ": " };
                    reason = format!("{reason}{separator}{line}");
                }
            }
            next = error.source();
        }
        // The kernel may have said nothing.
        let reason = reason.trim_end_matches(". Verifier output:");
        Text::from(reason).to_string()
    }
}

/// The verifier gives a function with the number of its type, which each build changes:
/// `function name#256`.
fn without_type_ids(line: &str) -> String {
    const FUNCTION: &str = "function ";
    let Some((before, after)) = line.split_once(FUNCTION) else {
        return line.to_owned();
    };
    let (name, rest) = after.split_once('#').unwrap_or((after, ""));
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}{FUNCTION}{name}{rest}")
}

/// The first line, and the last that says something: the one before the
/// verifier's statistics.
fn one_line(text: &str) -> impl Iterator<Item = &str> {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("processed "));
    lines.next().into_iter().chain(lines.next_back())
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::KernelError;

    #[test]
    fn a_verifier_log_becomes_one_line() {
        let typed = "for arg#0 function tcp_send_reset#256: invalid";
        let plain = "for arg#0 function tcp_send_reset: invalid";
        assert_eq!(super::without_type_ids(typed), plain);
        assert_eq!(super::without_type_ids(plain), plain);
        let log = "the load failed. Verifier output: 0: R1=ctx()\n1: (95) exit\n\
                   R0 !read_ok\nprocessed 2 insns (limit 1000000)\n";
        let error = KernelError::bpf("loading", "x", &Error::other(log)).to_string();
        assert!(error.starts_with("loading x: the load failed."), "{error}");
        assert!(error.contains(": R0 !read_ok;"), "{error}");
        assert!(!error.contains('\n') && !error.contains("(95)"), "{error}");
    }
}
