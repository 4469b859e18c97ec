//! What the kernel holds of BPF, and the program that does nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::loaded_maps,
    programs::{BtfTracePoint, ProgramInfo, loaded_links, loaded_programs},
    sys::{Stats, enable_stats},
};

/// A program, map or link that the kernel holds, by its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// A program.
    Program(u32),
    /// A map.
    Map(u32),
    /// A link.
    Link(u32),
}

/// All that the kernel holds.
pub fn inventory() -> BTreeSet<Held> {
    let programs = loaded_programs()
        .filter_map(Result::ok)
        .map(|p| Held::Program(p.id()));
    let maps = loaded_maps()
        .filter_map(Result::ok)
        .map(|m| Held::Map(m.id()));
    let links = loaded_links()
        .filter_map(Result::ok)
        .map(|l| Held::Link(l.id()));
    programs.chain(maps).chain(links).collect()
}

/// Names of the programs that are linked to their hooks, of those among these; the kernel
/// keeps 15 bytes of a name.
pub fn linked(held: &BTreeSet<Held>) -> Vec<String> {
    let links = loaded_links().filter_map(Result::ok);
    let programs = links
        .filter(|link| held.contains(&Held::Link(link.id())))
        .filter_map(|link| {
            let mut all = loaded_programs().filter_map(Result::ok);
            all.find(|program| program.id() == link.program_id())
        });
    let name = |program: ProgramInfo| program.name_as_str().map(str::to_owned);
    programs.filter_map(name).collect()
}

/// Calls and time of a program, while statistics are on.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Calls so far.
    pub calls: u64,
    /// Time so far, in ns.
    pub ns: u64,
}

impl Cost {
    /// ns a call since an earlier look.
    pub fn ns_a_call_since(&self, earlier: &Self) -> f64 {
        (self.ns - earlier.ns) as f64 / (self.calls - earlier.calls).max(1) as f64
    }
}

/// Calls so far of every program that is loaded, while statistics are on.
pub fn calls() -> BTreeMap<u32, u64> {
    let programs = loaded_programs().filter_map(Result::ok);
    programs.map(|p| (p.id(), p.run_count())).collect()
}

/// Cost of the youngest program of a name.
pub fn cost_of(name: &str) -> Cost {
    let program = youngest(name);
    Cost {
        calls: program.run_count(),
        ns: program.run_time().as_nanos() as u64,
    }
}

/// Instructions that the verifier walked on all ways through the youngest program of a
/// name (`verified_insns`, kernel/bpf/verifier.c): no run takes more.
pub fn length_of(name: &str) -> u32 {
    let length = youngest(name).verified_instruction_count();
    length.expect("a kernel from 5.16 on says it")
}

fn youngest(name: &str) -> ProgramInfo {
    loaded_programs()
        .filter_map(Result::ok)
        .filter(|program| {
            program
                .name_as_str()
                .is_some_and(|n| name.starts_with(n) && !n.is_empty())
        })
        .max_by_key(ProgramInfo::id)
        .unwrap_or_else(|| panic!("no program {name} is loaded"))
}

/// The program that does nothing, on `sched_switch`, with statistics on.
pub struct Floor {
    _program: Ebpf,
    _stats: OwnedFd,
}

/// Attaches it, and turns statistics on.
pub fn floor() -> Floor {
    Floor {
        _program: empty_program("sched_switch"),
        _stats: statistics(),
    }
}

/// The object of all programs, `TRACER_BPF_OBJECT` as xtask sets it; none is loaded yet.
pub fn object() -> Ebpf {
    let object = std::env::var_os("TRACER_BPF_OBJECT").expect("TRACER_BPF_OBJECT names the object");
    let mut loader = EbpfLoader::new();
    loader.allow_unsupported_maps();
    loader.load_file(object).expect("the object loads")
}

/// Attaches the program that does nothing to a tracepoint, until dropped.
pub fn empty_program(tracepoint: &str) -> Ebpf {
    let mut ebpf = object();
    let program: &mut BtfTracePoint = ebpf
        .program_mut("floor")
        .expect("it is there")
        .try_into()
        .expect("a tracepoint");
    let types = Btf::from_sys_fs().expect("BTF");
    program.load(tracepoint, &types).expect("it loads");
    program.attach().expect("it attaches");
    ebpf
}

/// Statistics are on as long as this lives.
pub fn statistics() -> OwnedFd {
    enable_stats(Stats::RunTime).expect("statistics")
}
