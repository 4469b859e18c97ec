//! Where a run runs: the machine, its kernel, and whose versions took part.

use std::{fs, path::Path, process::Command, ptr};

use anyhow::{Context as _, Result};

use super::document::Machine;
use crate::tracer;

/// Packages whose version matters to a figure.
const PACKAGES: [&str; 5] = ["libbpf-tools", "bpftrace", "procps", "sysstat", "stress-ng"];
const TRACEFS: &std::ffi::CStr = c"/sys/kernel/tracing";

/// Asks /proc.
pub(super) fn look() -> Result<Machine> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let cpus = read("/proc/cpuinfo")?;
    let memory = read("/proc/meminfo")?;
    let kib: u64 = value(&memory, "MemTotal")
        .and_then(|text| text.strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0);
    Ok(Machine {
        cpu: value(&cpus, "model name").unwrap_or("unknown").to_owned(),
        cpus: std::thread::available_parallelism()?.get(),
        memory_bytes: kib * 1024,
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
    })
}

/// The value of the first line `key : value`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then_some(value.trim())
    })
}

/// tracer's own version, and those of the packages as dpkg knows them; a machine
/// without dpkg has none.
pub(super) fn versions() -> Vec<(String, String)> {
    let said = |command: &mut Command| {
        let output = command.output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let mut versions = Vec::new();
    if let Some(text) = said(tracer::command().arg("--version")) {
        let version = text.strip_prefix("tracer ").unwrap_or(&text);
        versions.push(("tracer".to_owned(), version.to_owned()));
    }
    let listed = said(
        Command::new("dpkg-query")
            .args(["-W", "-f", "${Package} ${Version}\n"])
            .args(PACKAGES),
    );
    for line in listed.unwrap_or_default().lines() {
        if let Some((package, version)) = line.split_once(' ') {
            versions.push((package.to_owned(), version.to_owned()));
        }
    }
    versions
}

/// Mounts tracefs where it is missing, for this process and its children alone:
/// bpftrace and half of libbpf-tools attach through it.
///
/// Where that is not allowed, these peers say so themselves and are skipped.
pub(super) fn show_tracepoints() {
    if Path::new("/sys/kernel/tracing/events").exists() {
        return;
    }
    // SAFETY: the texts end with a zero and outlive the calls.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                ptr::null(),
                c"/".as_ptr(),
                ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                ptr::null(),
            ) == 0
            && libc::mount(
                c"nodev".as_ptr(),
                TRACEFS.as_ptr(),
                c"tracefs".as_ptr(),
                0,
                ptr::null(),
            ) == 0
    };
    if !done {
        let error = std::io::Error::last_os_error();
        eprintln!("tracefs is not mounted here and cannot be ({error})");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_whole_key() {
        let text = "model\t\t: 85\nmodel name\t: A CPU\nMemTotal:  12 kB\n";
        assert_eq!(value(text, "model name"), Some("A CPU"));
        assert_eq!(value(text, "MemTotal"), Some("12 kB"));
        assert_eq!(value(text, "name"), None);
    }
}
