//! Every kind of hook at one place in the kernel, and how often each was called.

use std::os::fd::OwnedFd;

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint, TracePoint,
    },
    sys::{Stats, enable_stats},
};

use crate::bpf;

/// A kind of hook, by its program in tracer-ebpf/src/floor.rs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `tp_btf`: a tracepoint with typed arguments.
    BtfTracepoint,
    /// A raw tracepoint.
    RawTracepoint,
    /// A tracepoint as tracefs describes it.
    Tracepoint,
    /// The beginning of a function, by a trampoline.
    Fentry,
    /// The end of a function, by a trampoline.
    Fexit,
    /// The beginning of a function, by a breakpoint.
    Kprobe,
}

/// Kinds that are put on a tracepoint.
pub const ON_TRACEPOINTS: [Kind; 3] = [Kind::BtfTracepoint, Kind::RawTracepoint, Kind::Tracepoint];

/// Kinds that are put on a function.
pub const ON_FUNCTIONS: [Kind; 3] = [Kind::Fentry, Kind::Fexit, Kind::Kprobe];

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::BtfTracepoint => "floor",
            Self::RawTracepoint => "floor_raw",
            Self::Tracepoint => "floor_classic",
            Self::Fentry => "floor_fentry",
            Self::Fexit => "floor_fexit",
            Self::Kprobe => "floor_kprobe",
        }
    }
}

/// Programs that do nothing, with the kernel counting their calls.
pub struct Hooks {
    ebpf: Ebpf,
    types: Btf,
    _stats: OwnedFd,
}

impl Hooks {
    /// Opens `TRACER_BPF_OBJECT`, as xtask sets it, and turns statistics on.
    pub fn new() -> Self {
        Self {
            ebpf: bpf::object(),
            types: Btf::from_sys_fs().expect("BTF"),
            _stats: enable_stats(Stats::RunTime).expect("statistics"),
        }
    }

    /// Puts a kind of hook on a tracepoint of `group`, or on a function.
    ///
    /// # Errors
    /// What the kernel says to it.
    pub fn attach(&mut self, kind: Kind, group: &str, place: &str) -> Result<(), ProgramError> {
        let types = &self.types;
        match self.ebpf.program_mut(kind.program()).expect("it is there") {
            Program::BtfTracePoint(program) => {
                program.load(place, types)?;
                BtfTracePoint::attach(program).map(drop)
            }
            Program::RawTracePoint(program) => {
                program.load()?;
                RawTracePoint::attach(program, place).map(drop)
            }
            Program::TracePoint(program) => {
                program.load()?;
                TracePoint::attach(program, group, place).map(drop)
            }
            Program::FEntry(program) => {
                program.load(place, types)?;
                FEntry::attach(program).map(drop)
            }
            Program::FExit(program) => {
                program.load(place, types)?;
                FExit::attach(program).map(drop)
            }
            Program::KProbe(program) => {
                program.load()?;
                KProbe::attach(program, place, 0).map(drop)
            }
            other => panic!("no kind of hook: {other:?}"),
        }
    }

    /// Calls of a kind of hook so far.
    pub fn calls(&self, kind: Kind) -> u64 {
        let program = self.ebpf.program(kind.program()).expect("it is there");
        program.info().expect("it is loaded").run_count()
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self::new()
    }
}
