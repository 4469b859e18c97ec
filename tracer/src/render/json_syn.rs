//! Listeners, as JSON.

use serde::Serialize;

use super::{json_tcp::Netns, time::rfc3339, words};
use crate::{snapshot, text::Text};

#[derive(Serialize)]
pub(super) struct Syn<'a> {
    listeners: Vec<Listener<'a>>,
    listeners_total: u64,
    namespaces: Vec<Namespace<'a>>,
}

impl<'a> From<&'a snapshot::SynBreakdown> for Syn<'a> {
    fn from(syn: &'a snapshot::SynBreakdown) -> Self {
        Self {
            listeners: syn.listeners.iter().map(Listener::from).collect(),
            listeners_total: syn.listeners_total,
            namespaces: syn.namespaces.iter().map(Namespace::from).collect(),
        }
    }
}

#[derive(Serialize)]
struct Listener<'a> {
    pid: Option<u32>,
    comm: Option<&'a str>,
    local: String,
    netns: Netns<'a>,
    syn_queue: u32,
    young: u32,
    accept_queue: u32,
    backlog: u32,
    cookies_sent: Option<u64>,
    cookies_valid: Option<u64>,
    cookies_failed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by_cookie: Option<ByCookie>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<Sources<'a>>,
    drops: u64,
    verdict: &'a str,
    why: &'a str,
    advice: Option<&'a str>,
}

impl<'a> From<&'a snapshot::Listener> for Listener<'a> {
    fn from(listener: &'a snapshot::Listener) -> Self {
        let cookies = listener.cookies;
        let process = listener.process.as_ref();
        Self {
            pid: process.map(|(pid, _)| *pid),
            comm: process.map(|(_, comm)| Text::as_str(comm)),
            local: words::address(listener.local),
            netns: (&listener.netns).into(),
            syn_queue: listener.syn_queue,
            young: listener.young,
            accept_queue: listener.accept_queue,
            backlog: listener.backlog,
            cookies_sent: cookies.map(|cookies| cookies.sent),
            cookies_valid: cookies.map(|cookies| cookies.valid),
            cookies_failed: cookies.map(|cookies| cookies.failed),
            by_cookie: listener.by_cookie.as_ref().map(ByCookie::from),
            sources: listener.sources.as_ref().map(Sources::from),
            drops: listener.drops,
            verdict: words::syn(listener.verdict),
            why: &listener.why,
            advice: words::syn_advice(listener.verdict),
        }
    }
}

#[derive(Serialize)]
struct ByCookie {
    established: Option<u64>,
    refused: Option<u64>,
    without_timestamps: u64,
    without_window_scaling: Option<u64>,
    without_sack: Option<u64>,
    without_ecn: Option<u64>,
    mss: Vec<Mss>,
}

#[derive(Serialize)]
struct Mss {
    mss: u16,
    connections: u64,
}

impl From<&snapshot::ByCookie> for ByCookie {
    fn from(by: &snapshot::ByCookie) -> Self {
        let mss = by.mss.iter().copied();
        Self {
            established: by.established,
            refused: by.refused,
            without_timestamps: by.without_timestamps,
            without_window_scaling: by.without_window_scaling,
            without_sack: by.without_sack,
            without_ecn: by.without_ecn,
            mss: mss
                .map(|(mss, connections)| Mss { mss, connections })
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct Sources<'a> {
    addresses: u64,
    of: &'a str,
    sampled: u64,
    prefixes: Vec<Prefix>,
}

#[derive(Serialize)]
struct Prefix {
    prefix: String,
    sampled: u64,
}

impl From<&snapshot::SynSources> for Sources<'_> {
    fn from(sources: &snapshot::SynSources) -> Self {
        let prefix = |prefix: &snapshot::Prefix| Prefix {
            prefix: words::prefix(prefix),
            sampled: prefix.sampled,
        };
        Self {
            addresses: sources.addresses,
            of: words::sources_of(sources.of),
            sampled: sources.sampled,
            prefixes: sources.prefixes.iter().map(prefix).collect(),
        }
    }
}

#[derive(Serialize)]
struct Namespace<'a> {
    netns: Netns<'a>,
    syncookies: Option<u32>,
    max_syn_backlog: Option<u32>,
    somaxconn: Option<u32>,
    cookies_sent: u64,
    cookies_valid: u64,
    cookies_failed: u64,
    syn_queue_full_drops: u64,
    accept_queue_full: u64,
    drops: u64,
}

impl<'a> From<&'a snapshot::NamespaceSyn> for Namespace<'a> {
    fn from(namespace: &'a snapshot::NamespaceSyn) -> Self {
        Self {
            netns: (&namespace.netns).into(),
            syncookies: namespace.settings.syncookies,
            max_syn_backlog: namespace.settings.max_syn_backlog,
            somaxconn: namespace.settings.somaxconn,
            cookies_sent: namespace.cookies.sent,
            cookies_valid: namespace.cookies.valid,
            cookies_failed: namespace.cookies.failed,
            syn_queue_full_drops: namespace.syn_queue_full_drops,
            accept_queue_full: namespace.accept_queue_full,
            drops: namespace.drops,
        }
    }
}

/// A listener gets into trouble, or out of it.
#[derive(Serialize)]
pub(super) struct SynEvent<'a> {
    time: String,
    event: &'a str,
    state: &'a str,
    lasted_ns: Option<u64>,
    listener: Listener<'a>,
}

impl<'a> From<&'a snapshot::SynEvent> for SynEvent<'a> {
    fn from(event: &'a snapshot::SynEvent) -> Self {
        Self {
            time: rfc3339(event.time),
            event: words::syn(event.verdict),
            state: words::begins(event.lasted_ns),
            lasted_ns: event.lasted_ns,
            listener: (&event.listener).into(),
        }
    }
}
