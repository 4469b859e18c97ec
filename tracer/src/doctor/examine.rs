//! The checks: rights, kernel, type information, then every probe for real.

use std::path::Path;

use super::{Check, Examination, State};
use crate::{
    error::KernelError,
    host::{
        capabilities,
        cgroups::Cgroups,
        facts,
        kmsg::KernelLog,
        memory::{self, MemoryCgroups},
        own,
    },
    kernel::{
        btf::{self, Btf},
        fields::{self, FIELDS},
        loader::{self, LoadOptions},
        probes::{PROBES, Probe},
        reader::Reader,
        symbols::Symbols,
    },
    rights::{
        self, DOCTOR, Rights,
        landlock::{self, Landlock},
    },
    session::{LEAST_KERNEL, LEAST_ROOM_BYTES},
    snapshot::HookState,
    text,
};

/// Every check, in an order in which the first failure explains the later ones.
pub(super) fn all(btf: Option<&Path>) -> Examination {
    let kept = DOCTOR.give_up();
    let mut checks = vec![rights(), given_up(&kept)];
    checks.extend(rights::TABLE.map(of_rights));
    checks.extend([
        landlock(),
        kernel(),
        jit(),
        pid_namespace(),
        cgroups(),
        timers(),
        symbols(),
        statistics(),
        kernel_log(),
        memory_cgroups(),
        memory_room(),
        locked_memory(),
    ]);
    checks.extend(type_information(btf));
    if checks.iter().any(|check| check.state == State::Failed) {
        let finding = "not tried: what failed above is needed first";
        checks.push(check("probes", State::Failed, finding, ""));
        return Examination {
            checks,
            hooks: Vec::new(),
        };
    }
    let hooks = match attach(btf) {
        Ok(hooks) => hooks,
        Err(error) => {
            checks.push(check("probes", State::Failed, error.to_string(), ""));
            Vec::new()
        }
    };
    checks.extend(
        hooks
            .iter()
            .zip(PROBES)
            .map(|(hook, probe)| of_probe(hook, probe)),
    );
    Examination { checks, hooks }
}

fn check(
    name: impl Into<String>,
    state: State,
    finding: impl Into<String>,
    advice: impl Into<String>,
) -> Check {
    Check {
        name: name.into(),
        state,
        finding: finding.into(),
        advice: advice.into(),
    }
}

/// Whether tracer's own memory cgroup has room for it.
fn memory_room() -> Check {
    let needed_mib = LEAST_ROOM_BYTES >> 20;
    match memory::room() {
        Some(room) if room.left_bytes < LEAST_ROOM_BYTES => check(
            "own memory limit",
            State::Failed,
            format!(
                "memory cgroup {} leaves {} MiB of {} MiB; a start takes {needed_mib} MiB",
                room.cgroup,
                room.left_bytes >> 20,
                room.limit_bytes >> 20
            ),
            "raise the cgroup's limit, or start tracer in another one",
        ),
        Some(_) | None => check(
            "own memory limit",
            State::Ok,
            format!("no cgroup leaves less than the {needed_mib} MiB that a start takes"),
            "",
        ),
    }
}

fn rights() -> Check {
    let missing = capabilities::missing();
    if missing.is_empty() {
        return check("rights", State::Ok, "CAP_BPF and CAP_PERFMON are there", "");
    }
    let finding = format!("{} missing", missing.join(" and "));
    check(
        "rights",
        State::Failed,
        finding,
        "run it as root: sudo tracer doctor",
    )
}

/// What this process could give up of its rights: the others can do as much.
fn given_up(kept: &[String]) -> Check {
    if kept.is_empty() {
        let finding = "what is not needed is given up for good: see the next lines";
        return check("rights kept", State::Ok, finding, "");
    }
    check(
        "rights kept",
        State::Limited,
        format!("more than is needed: {}", kept.join("; ")),
        "run it as root, on a kernel with CONFIG_SECCOMP_FILTER",
    )
}

/// A row of the table.
fn of_rights(rights: &Rights) -> Check {
    let finding = format!("{}; {}", rights.names(), rights.may);
    check(format!("rights of {}", rights.of), State::Ok, finding, "")
}

/// Without it system calls are filtered all the same.
fn landlock() -> Check {
    let of: Vec<&str> = rights::TABLE
        .into_iter()
        .filter(|rights| rights.landlock != Landlock::No)
        .map(|rights| rights.of)
        .collect();
    let of = of.join(", ");
    let finding = match landlock::abi() {
        0 => format!("not in force in this kernel; it would be a second line of defence of {of}"),
        abi => format!("version {abi}: a second line of defence of {of}"),
    };
    check("Landlock", State::Ok, finding, "")
}

fn kernel() -> Check {
    let release = facts::host().kernel;
    let (major, minor) = LEAST_KERNEL;
    match facts::version(release.as_str()) {
        Some(version) if version >= LEAST_KERNEL => {
            check("kernel", State::Ok, format!("Linux {release}"), "")
        }
        Some(_) => check(
            "kernel",
            State::Failed,
            format!("Linux {release} is older than {major}.{minor}"),
            "tracer needs task storage for tracing programs: a newer kernel",
        ),
        None => check(
            "kernel",
            State::Limited,
            format!("Linux {release}: a version that is not understood"),
            "",
        ),
    }
}

fn jit() -> Check {
    let setting = text::read("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    match setting.trim() {
        "0" => check(
            "jit",
            State::Limited,
            "BPF programs are interpreted: every hook costs several times more",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        "" => check(
            "jit",
            State::Limited,
            "whether BPF is compiled cannot be read",
            "",
        ),
        _ => check("jit", State::Ok, "BPF programs are compiled", ""),
    }
}

fn pid_namespace() -> Check {
    if facts::in_initial_pid_namespace() {
        return check(
            "pid namespace",
            State::Ok,
            "the host's own: every process is seen",
            "",
        );
    }
    check(
        "pid namespace",
        State::Limited,
        "not the host's own: processes outside of it are not seen, and are unexplained load",
        "run it on the host, or the container with --pid=host",
    )
}

fn cgroups() -> Check {
    let finding = match Cgroups::new().version() {
        fields::CgroupVersion::V2 => "named by the unified hierarchy (v2)",
        fields::CgroupVersion::V1 => "named by the cpu controller's hierarchy (v1)",
    };
    check("cgroups", State::Ok, finding, "")
}

/// Without high-resolution timers the tick is no hrtimer, and the hook that names
/// a kernel sample's tasks never sees one, although it is attached.
fn timers() -> Check {
    if facts::has_high_resolution_timers() {
        return check(
            "timers",
            State::Ok,
            "the tick is a high-resolution timer",
            "",
        );
    }
    check(
        "timers",
        State::Limited,
        "high-resolution timers are off: a kernel sample is named from the next snapshot only",
        "a kernel without `highres=off`, on a machine with a clock that allows them",
    )
}

/// Without them nobody knows what a kernel stack says.
fn symbols() -> Check {
    match Symbols::check() {
        Ok(()) => check(
            "symbols",
            State::Ok,
            "kernel functions have names: blocked tasks have a cause",
            "",
        ),
        Err(error) => check(
            "symbols",
            State::Limited,
            "kernel functions have no names: why tasks are blocked stays unknown",
            error.to_string(),
        ),
    }
}

fn statistics() -> Check {
    match Reader::statistics() {
        Ok(_) => check(
            "statistics",
            State::Ok,
            "time in BPF programs can be measured",
            "",
        ),
        Err(error) => check(
            "statistics",
            State::Limited,
            format!("{error}; without them tracer cannot tell its own time in the kernel"),
            "give it CAP_SYS_ADMIN, or set kernel.bpf_stats_enabled=1",
        ),
    }
}

/// What a kill was for is in the kernel's log alone.
fn kernel_log() -> Check {
    match KernelLog::open() {
        Ok(_) => check(
            "kernel log",
            State::Ok,
            "/dev/kmsg: whose limit was reached at a kill, and kills from before the start",
            "",
        ),
        Err(error) => check(
            "kernel log",
            State::Limited,
            format!("/dev/kmsg: {error}; of a kill it is not known whose limit was reached"),
            "give it CAP_SYSLOG, or set kernel.dmesg_restrict=0",
        ),
    }
}

fn memory_cgroups() -> Check {
    let finding = match MemoryCgroups::new().version() {
        Some(fields::CgroupVersion::V2) => "limits are read in the unified hierarchy (v2)",
        Some(fields::CgroupVersion::V1) => "limits are read in the controller's hierarchy (v1)",
        None => {
            return check(
                "memory cgroups",
                State::Limited,
                "the controller is off or not mounted: limits of cgroups are not known",
                "a kernel without `cgroup_disable=memory`",
            );
        }
    };
    check("memory cgroups", State::Ok, finding, "")
}

/// A run locks its memory; this one ends anyway.
fn locked_memory() -> Check {
    match own::lock_memory() {
        Ok(()) => check(
            "locked memory",
            State::Ok,
            "tracer goes on when the host is out of memory",
            "",
        ),
        Err(error) => check(
            "locked memory",
            State::Limited,
            format!("mlockall: {error}; when the host is out of memory a kill can be told late"),
            "give it CAP_IPC_LOCK",
        ),
    }
}

fn type_information(path: Option<&Path>) -> Vec<Check> {
    let path = path.unwrap_or(Path::new(btf::VMLINUX));
    let btf = match Btf::from_file(path, fields::STRUCTS) {
        Ok(btf) => btf,
        Err(error) => {
            return vec![check(
                "BTF",
                State::Failed,
                KernelError::Btf { source: error }.to_string(),
                "",
            )];
        }
    };
    let mut checks = vec![check("BTF", State::Ok, path.display().to_string(), "")];
    for field in FIELDS {
        let is_there = field
            .paths
            .iter()
            .any(|(root, path)| btf.offset(root, path).is_some());
        if is_there {
            continue;
        }
        let (state, meaning) = match field.without {
            Some(without) if without.starts_with("nothing") => (State::Ok, without),
            Some(without) => (State::Limited, without),
            None => (State::Failed, "tracer must read it"),
        };
        let finding = format!("not in this kernel; without it: {meaning}");
        checks.push(check(format!("field {}", field.name), state, finding, ""));
    }
    checks
}

/// Loads and attaches everything once, as a run does.
fn attach(btf: Option<&Path>) -> Result<Vec<HookState>, KernelError> {
    let loaded = loader::load(&LoadOptions {
        btf: btf.map(Into::into),
        cgroups: Cgroups::new().version(),
        min_block_ns: u64::MAX,
        // Nothing is counted.
        own_netns: 0,
        functions: loader::FunctionHooks::Any,
        verbose: false,
    })?;
    Ok(loaded.hooks)
}

fn of_probe(hook: &HookState, probe: &Probe) -> Check {
    let (state, finding) = match &hook.why {
        None => (State::Ok, format!("{}: {}", hook.via, probe.purpose)),
        Some(why) => (
            State::Limited,
            format!(
                "{why}; without it: {}; instead: {}",
                probe.without, probe.fallback
            ),
        ),
    };
    check(format!("probe {}", hook.name), state, finding, "")
}
