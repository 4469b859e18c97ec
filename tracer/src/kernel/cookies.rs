//! Brings back what the kernel side knows of SYN cookies.

use aya::{
    Ebpf,
    maps::{HashMap, MapData, PerCpuArray},
};

use super::{probes::COOKIES, reader::take};
use crate::{
    decode::cookie::{KindWords, SourcesWords, TotalsWords},
    error::KernelError,
    snapshot::HookState,
};

/// What listeners did with cookies.
#[derive(Debug, Default)]
pub struct RawCookies {
    /// Elements of COOKIES.
    pub totals: Vec<(u64, TotalsWords)>,
    /// Elements of COOKIE_KINDS.
    pub kinds: Vec<(KindWords, u64)>,
    /// SOURCES of each CPU.
    pub sources: Vec<SourcesWords>,
}

/// The open ends of the kernel side.
pub(super) struct CookieReader {
    totals: HashMap<MapData, u64, TotalsWords>,
    kinds: HashMap<MapData, KindWords, u64>,
    sources: PerCpuArray<MapData, SourcesWords>,
    is_there: bool,
}

impl CookieReader {
    pub(super) fn new(ebpf: &mut Ebpf, hooks: &[HookState]) -> Result<Self, KernelError> {
        let is_in_force = |name: &&str| {
            let mut hooks = hooks.iter();
            hooks.any(|hook| hook.name == *name && hook.why.is_none())
        };
        Ok(Self {
            totals: take(ebpf, "COOKIES")?,
            kinds: take(ebpf, "COOKIE_KINDS")?,
            sources: take(ebpf, "SOURCES")?,
            is_there: COOKIES.iter().all(is_in_force),
        })
    }

    /// All of it; `None` where functions cannot be hooked.
    pub(super) fn read(&self) -> Result<Option<RawCookies>, KernelError> {
        if !self.is_there {
            return Ok(None);
        }
        let totals: Vec<_> = self.totals.iter().filter_map(Result::ok).collect();
        if totals.is_empty() {
            return Ok(Some(RawCookies::default()));
        }
        let sources = self.sources.get(&0, 0);
        let sources = sources.map_err(|e| KernelError::bpf("reading", "SOURCES", &e))?;
        Ok(Some(RawCookies {
            totals,
            kinds: self.kinds.iter().filter_map(Result::ok).collect(),
            sources: sources.iter().copied().collect(),
        }))
    }

    /// Takes what is known of a listener away. What is not there is as good.
    pub(super) fn forget(&mut self, listener: u64) {
        let _ = self.totals.remove(&listener);
        let kinds = self.kinds.keys().filter_map(Result::ok);
        for kind in kinds.filter(|kind| kind[0] == listener).collect::<Vec<_>>() {
            let _ = self.kinds.remove(&kind);
        }
    }
}
