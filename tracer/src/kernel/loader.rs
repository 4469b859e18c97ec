//! Brings the kernel side up: offsets into frozen data, maps, programs, hooks.
//!
//! Nothing is pinned, so the kernel takes everything back when the process
//! ends, however it ends.

use std::{collections::HashMap, path::PathBuf};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader, Endianness, VerifierLogLevel,
    programs::{BtfTracePoint, FEntry, FExit, Iter, KProbe, ProgramError},
    util::nr_cpus,
};
use tracer_common::fold::FoldRecord;

use super::{
    btf::{self, Btf},
    fields::{self, CgroupVersion},
    probes::{FENTRY, FEXIT, Hook, KPROBE, KRETPROBE, PROBES, Probe},
};
use crate::{error::KernelError, snapshot::HookState, text::Text};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer.bpf.o"));

/// Room for this many folds of every CPU until user space reads them.
const FOLDS_KEPT: u64 = 8;

/// Numbers of the system calls that open connections (asm/unistd.h).
const OPENING_CALLS: [(&str, u32); 3] = [
    ("SYSCALL_ACCEPT", libc::SYS_accept as u32),
    ("SYSCALL_ACCEPT4", libc::SYS_accept4 as u32),
    ("SYSCALL_CONNECT", libc::SYS_connect as u32),
];

/// What the kernel side is brought up with.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Type information; the running kernel's own when `None`.
    pub btf: Option<PathBuf>,
    /// Which cgroup hierarchy names a task's cgroup.
    pub cgroups: CgroupVersion,
    /// Blocked episodes from this length on are looked at, in ns.
    pub min_block_ns: u64,
    /// Inode number of tracer's own network namespace.
    pub own_netns: u32,
    /// How kernel functions may be hooked.
    pub functions: FunctionHooks,
    /// Whether the kernel side writes debug lines.
    pub verbose: bool,
}

/// How kernel functions may be hooked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FunctionHooks {
    /// By a trampoline, else by a breakpoint.
    #[default]
    Any,
    /// By a trampoline only.
    Fentry,
    /// By a breakpoint only.
    Kprobe,
    /// Not at all.
    Off,
}

/// The loaded object and what became of each probe.
#[derive(Debug)]
pub struct Loaded {
    /// Programs and maps; dropping it detaches and frees all of them.
    pub ebpf: Ebpf,
    /// One for each of [`PROBES`], in its order.
    pub hooks: Vec<HookState>,
    /// As it was given.
    pub own_netns: u32,
    /// What the kernel calls the reasons of resets, by number.
    pub reset_reasons: HashMap<u32, Text>,
}

/// Loads and attaches every probe of the table.
///
/// # Errors
/// No type information, a needed field or a required probe that the kernel
/// refuses. An optional probe that fails is told in `hooks`.
pub fn load(options: &LoadOptions) -> Result<Loaded, KernelError> {
    if OBJECT.is_empty() {
        return Err(KernelError::NoObject);
    }
    let path = options.btf.clone().unwrap_or_else(|| btf::VMLINUX.into());
    let (offsets, reset_reasons) = {
        let btf =
            Btf::from_file(&path, fields::STRUCTS).map_err(|source| KernelError::Btf { source })?;
        (fields::resolve(&btf, options.cgroups)?, reset_reasons(&btf))
    };
    let types = AyaBtf::parse_file(&path, Endianness::default())
        .map_err(|e| KernelError::bpf("parsing", path.display().to_string(), &e))?;
    let mut ebpf = create(options, &offsets, &types)?;
    let mut hooks = Vec::with_capacity(PROBES.len());
    for probe in PROBES {
        let (kind, why) = match attach(&mut ebpf, probe, &types, options.functions) {
            Ok(kind) => (kind, None),
            Err(error) if probe.required => return Err(error),
            Err(error) => (probe.hook.kind(), Some(error.to_string())),
        };
        let via = format!("{kind} {}", probe.hook.target());
        hooks.push(HookState {
            name: probe.name,
            via,
            why,
            without: probe.without,
        });
    }
    Ok(Loaded {
        ebpf,
        hooks,
        own_netns: options.own_netns,
        reset_reasons,
    })
}

/// `enum sk_rst_reason`, include/net/rstreason.h; before 6.10 there is none.
fn reset_reasons(btf: &Btf) -> HashMap<u32, Text> {
    let values = btf.enum_values("sk_rst_reason").into_iter().flatten();
    let named = values.map(|(name, number)| {
        let name = name.strip_prefix(b"SK_RST_REASON_").unwrap_or(name);
        (number, Text::from_bytes(name))
    });
    named.collect()
}

/// Creates the maps, with the offsets frozen into read-only data.
fn create(
    options: &LoadOptions,
    offsets: &[(&'static str, u32)],
    types: &AyaBtf,
) -> Result<Ebpf, KernelError> {
    let log_level = if options.verbose {
        log::Level::Debug as u8
    } else {
        0
    };
    let mut loader = EbpfLoader::new();
    loader.btf(Some(types));
    // Task storage is only used by the kernel side; aya has no type for it.
    loader.allow_unsupported_maps();
    loader.verifier_log_level(VerifierLogLevel::DEBUG);
    let cpus = possible_cpus()?;
    loader.map_max_entries("FOLDS", fold_ring_bytes(cpus));
    loader.map_max_entries("FOLD_TIME", cpus + 1);
    loader.override_global(aya_log::LEVEL, &log_level, true);
    loader.override_global("MIN_BLOCK_NS", &options.min_block_ns, true);
    loader.override_global("OWN_NETNS", &options.own_netns, true);
    for (name, number) in &OPENING_CALLS {
        loader.override_global(name, number, true);
    }
    for (name, offset) in offsets {
        loader.override_global(name, offset, true);
    }
    loader
        .load(OBJECT)
        .map_err(|e| KernelError::bpf("creating", "the maps", &e))
}

fn possible_cpus() -> Result<u32, KernelError> {
    let cpus = nr_cpus().map_err(|(path, source)| KernelError::Read {
        path: path.into(),
        source,
    })?;
    Ok(u32::try_from(cpus).unwrap_or(u32::MAX))
}

fn fold_ring_bytes(cpus: u32) -> u32 {
    let wanted = u64::from(cpus) * FOLDS_KEPT * size_of::<FoldRecord>() as u64;
    u32::try_from(wanted.next_power_of_two()).unwrap_or(1 << 31)
}

/// Attaches a probe, and says how.
fn attach(
    ebpf: &mut Ebpf,
    probe: &Probe,
    types: &AyaBtf,
    functions: FunctionHooks,
) -> Result<&'static str, KernelError> {
    let failed = |operation, error: &ProgramError| {
        KernelError::bpf(
            operation,
            format!("{} ({})", probe.name, probe.hook.target()),
            error,
        )
    };
    if let Hook::Function(name) | Hook::FunctionEnd(name) = probe.hook {
        return on_function(ebpf, probe, name, types, functions);
    }
    let program = ebpf.program_mut(probe.name).ok_or(KernelError::NoObject)?;
    match probe.hook {
        Hook::Function(_) | Hook::FunctionEnd(_) => {}
        Hook::Tracepoint(name) => {
            let program: &mut BtfTracePoint =
                program.try_into().map_err(|e| failed("loading", &e))?;
            load_again(|| program.load(name, types)).map_err(|e| failed("loading", &e))?;
            program.attach().map_err(|e| failed("attaching", &e))?;
        }
        Hook::OnDemand(name) => {
            let program: &mut BtfTracePoint =
                program.try_into().map_err(|e| failed("loading", &e))?;
            load_again(|| program.load(name, types)).map_err(|e| failed("loading", &e))?;
            // Whether it can be is to be known now.
            let link = program.attach().map_err(|e| failed("attaching", &e))?;
            program.detach(link).map_err(|e| failed("detaching", &e))?;
        }
        Hook::Iterator(name) => {
            let program: &mut Iter = program.try_into().map_err(|e| failed("loading", &e))?;
            load_again(|| program.load(name, types)).map_err(|e| failed("loading", &e))?;
        }
    }
    Ok(probe.hook.kind())
}

/// The ladder of hooks on a function: what each rung failed for is said when all did.
fn on_function(
    ebpf: &mut Ebpf,
    probe: &Probe,
    function: &'static str,
    types: &AyaBtf,
    functions: FunctionHooks,
) -> Result<&'static str, KernelError> {
    let is_end = matches!(probe.hook, Hook::FunctionEnd(_));
    let (by_trampoline, by_breakpoint) = match is_end {
        false => (FENTRY, KPROBE),
        true => (FEXIT, KRETPROBE),
    };
    let failed = |kind: &'static str, error: &ProgramError| {
        format!("{kind}: {}", KernelError::reason(kind, error))
    };
    let mut whys = Vec::new();
    if matches!(functions, FunctionHooks::Any | FunctionHooks::Fentry) {
        match trampoline(ebpf, probe.name, function, types, is_end) {
            Ok(()) => return Ok(by_trampoline),
            Err(error) => whys.push(failed(by_trampoline, &error)),
        }
    }
    if matches!(functions, FunctionHooks::Any | FunctionHooks::Kprobe) {
        match breakpoints(ebpf, probe.name, function, is_end) {
            Ok(()) => return Ok(by_breakpoint),
            Err(error) => whys.push(failed(by_breakpoint, &error)),
        }
    }
    if whys.is_empty() {
        whys.push("--function-hooks off".to_owned());
    }
    Err(KernelError::Function {
        function,
        whys: whys.join("; "),
    })
}

fn trampoline(
    ebpf: &mut Ebpf,
    program: &str,
    function: &str,
    types: &AyaBtf,
    is_end: bool,
) -> Result<(), ProgramError> {
    let program = named(ebpf, program)?;
    if is_end {
        let program: &mut FExit = program.try_into()?;
        load_again(|| program.load(function, types))?;
        return program.attach().map(drop);
    }
    let program: &mut FEntry = program.try_into()?;
    load_again(|| program.load(function, types))?;
    program.attach().map(drop)
}

/// The begin first: an end without it would take the begin of another call for its own.
fn breakpoints(
    ebpf: &mut Ebpf,
    program: &str,
    function: &str,
    is_end: bool,
) -> Result<(), ProgramError> {
    let kinds: &[&str] = if is_end {
        &[KPROBE, KRETPROBE]
    } else {
        &[KPROBE]
    };
    for kind in kinds {
        let program: &mut KProbe = named(ebpf, &format!("{program}_{kind}"))?.try_into()?;
        load_again(|| program.load())?;
        program.attach(function, 0)?;
    }
    Ok(())
}

/// The verifier gives up with EAGAIN when a signal is pending (`do_check`,
/// kernel/bpf/verifier.c), also one that stops the process and lets it go on. libbpf tries
/// five times; a large program that is stopped each ms needs more.
const LOAD_TRIES: u32 = 5_000;

/// Loads a program, again while signals come in between.
fn load_again(load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    let is_pending = |error: &ProgramError| match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error() == Some(libc::EAGAIN),
        _ => false,
    };
    again(load, is_pending)
}

/// Does it again while it fails so, and no more often than [`LOAD_TRIES`].
fn again<E>(
    mut load: impl FnMut() -> Result<(), E>,
    is_pending: impl Fn(&E) -> bool,
) -> Result<(), E> {
    for _ in 1..LOAD_TRIES {
        match load() {
            Err(error) if is_pending(&error) => {}
            done => return done,
        }
    }
    load()
}

fn named<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut aya::programs::Program, ProgramError> {
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)
}

#[cfg(test)]
mod tests {
    use super::{LOAD_TRIES, again};

    fn tries(until: u32, errno: i32) -> (u32, bool) {
        let mut tries = 0;
        let load = || {
            tries += 1;
            if tries > until { Ok(()) } else { Err(errno) }
        };
        let loaded = again(load, |errno| *errno == libc::EAGAIN).is_ok();
        (tries, loaded)
    }

    #[test]
    fn a_signal_does_not_end_a_load() {
        assert_eq!(tries(0, libc::EAGAIN), (1, true));
        assert_eq!(tries(7, libc::EAGAIN), (8, true));
        assert_eq!(tries(u32::MAX, libc::EAGAIN), (LOAD_TRIES, false));
        assert_eq!(tries(u32::MAX, libc::EINVAL), (1, false));
    }
}
