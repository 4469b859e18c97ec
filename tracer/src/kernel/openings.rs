//! Watches where processes open connections, while they are suspected of a leak: by hooks
//! on functions that always are attached, else by one at the end of every system call,
//! attached while a process is watched.

use aya::{
    Ebpf,
    maps::{HashMap, MapData, RingBuf},
    programs::{BtfTracePoint, ProgramError, tp_btf::BtfTracePointLinkId},
};
use bytes::Bytes;

use super::{
    probes,
    reader::{drain, take},
};
use crate::{error::KernelError, snapshot::HookState};

/// So many openings of a process are taken until the next reading.
const WANTED: u64 = 16;

/// The hook, and what it brings back.
pub(super) struct OpeningReader {
    ring: RingBuf<MapData>,
    suspects: HashMap<MapData, u32, u64>,
    link: Option<BtfTracePointLinkId>,
    way: Way,
}

/// What sees connections that are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Functions,
    SystemCalls,
    None,
}

impl Way {
    fn of(hooks: &[HookState]) -> Self {
        let is_there = |name: &str| {
            let mut there = hooks.iter().filter(|hook| hook.why.is_none());
            there.any(|hook| hook.name == name)
        };
        if probes::OPENINGS.iter().all(|name| is_there(name)) {
            Self::Functions
        } else if is_there(probes::SYSTEM_CALLS) {
            Self::SystemCalls
        } else {
            Self::None
        }
    }
}

impl OpeningReader {
    pub(super) fn new(ebpf: &mut Ebpf, hooks: &[HookState]) -> Result<Self, KernelError> {
        Ok(Self {
            ring: take(ebpf, "OPENINGS")?,
            suspects: take(ebpf, "SUSPECTS")?,
            link: None,
            way: Way::of(hooks),
        })
    }

    /// `OpeningRecord`s.
    pub(super) fn read(&mut self) -> Bytes {
        drain(&mut self.ring)
    }

    /// Whether it costs all system calls of the host while a process is watched.
    pub(super) fn slows_all(&self) -> bool {
        self.way == Way::SystemCalls
    }

    /// Watches these processes, and no others; without any, what slows all system calls
    /// is taken off.
    pub(super) fn watch(&mut self, ebpf: &mut Ebpf, pids: &[u32]) -> Result<(), KernelError> {
        let watched: Vec<u32> = self.suspects.keys().filter_map(Result::ok).collect();
        for pid in watched.iter().filter(|pid| !pids.contains(pid)) {
            // One that is not there is as good.
            let _ = self.suspects.remove(pid);
        }
        for pid in pids {
            self.suspects
                .insert(pid, WANTED, 0)
                .map_err(|e| KernelError::bpf("writing", "SUSPECTS", &e))?;
        }
        if self.slows_all() && pids.is_empty() == self.link.is_some() {
            self.switch(ebpf)
                .map_err(|e| KernelError::bpf("attaching", probes::SYSTEM_CALLS, &e))?;
        }
        Ok(())
    }

    fn switch(&mut self, ebpf: &mut Ebpf) -> Result<(), ProgramError> {
        let Some(program) = ebpf.program_mut(probes::SYSTEM_CALLS) else {
            return Ok(());
        };
        let program: &mut BtfTracePoint = program.try_into()?;
        match self.link.take() {
            Some(link) => program.detach(link)?,
            None => self.link = Some(program.attach()?),
        }
        Ok(())
    }
}
