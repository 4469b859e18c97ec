//! Watches where processes open connections, while they are suspected of a leak.

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
    is_there: bool,
}

impl OpeningReader {
    pub(super) fn new(ebpf: &mut Ebpf, hooks: &[HookState]) -> Result<Self, KernelError> {
        let is_it = |hook: &&HookState| hook.name == probes::OPENINGS && hook.why.is_none();
        Ok(Self {
            ring: take(ebpf, "OPENINGS")?,
            suspects: take(ebpf, "SUSPECTS")?,
            link: None,
            is_there: hooks.iter().any(|hook| is_it(&hook)),
        })
    }

    /// `OpeningRecord`s.
    pub(super) fn read(&mut self) -> Bytes {
        drain(&mut self.ring)
    }

    /// Watches these processes, and no others; without any the hook is taken off.
    pub(super) fn watch(&mut self, ebpf: &mut Ebpf, pids: &[u32]) -> Result<(), KernelError> {
        if !self.is_there || (pids.is_empty() && self.link.is_none()) {
            return Ok(());
        }
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
        if pids.is_empty() == self.link.is_some() {
            self.switch(ebpf)
                .map_err(|e| KernelError::bpf("attaching", probes::OPENINGS, &e))?;
        }
        Ok(())
    }

    fn switch(&mut self, ebpf: &mut Ebpf) -> Result<(), ProgramError> {
        let Some(program) = ebpf.program_mut(probes::OPENINGS) else {
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
