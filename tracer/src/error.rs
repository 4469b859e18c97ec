//! Errors of the kernel side: what failed, why, and what to do about it.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::kernel::btf::BtfError;

/// Why the kernel side cannot be brought up or read.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The binary has no kernel side in it.
    #[error("this binary was built without its kernel programs; build it with `cargo xtask build`")]
    NoObject,
    /// Missing rights.
    #[error(
        "not enough rights: {missing} missing; run it as root (`sudo tracer ..`) \
         or give the binary CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE"
    )]
    Rights {
        /// Capabilities that are missing.
        missing: String,
    },
    /// The kernel is too old.
    #[error("Linux {release} is too old: tracer needs 5.15 (task storage for tracing programs)")]
    OldKernel {
        /// The running kernel.
        release: String,
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
    /// A failed BPF operation, with the whole chain of reasons on one line.
    pub fn bpf(
        operation: &'static str,
        object: impl Into<String>,
        error: &dyn std::error::Error,
    ) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(next) = source {
            let text = next.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            source = next.source();
        }
        Self::Bpf {
            operation,
            object: object.into(),
            reason,
        }
    }
}
