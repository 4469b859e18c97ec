//! TCP sockets of every network namespace over sock_diag, with the kernel's counters and
//! settings there.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use crate::{
    check::{
        context::Context,
        read::within,
        rows::sockets::{Listener, Namespace, Route, Table},
    },
    host::{
        namespaces::{self, Namespaces},
        netstat::{self, NetCounters},
        sock_diag::{SockDiag, SocketEntry, States},
        sysctls,
    },
    snapshot::TcpState,
    text,
};

/// Listing the sockets of a namespace takes no longer than this.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Counters and sockets at one moment.
pub(in crate::check) struct Look {
    /// By the number of the namespace.
    pub(in crate::check) namespaces: HashMap<u32, Sockets>,
    /// Namespaces that could not be read.
    pub(in crate::check) failed: Vec<String>,
}

/// The sockets of a namespace.
#[derive(Default)]
pub(in crate::check) struct Sockets {
    name: Option<crate::text::Text>,
    is_own: bool,
    counters: NetCounters,
    settings: sysctls::TcpSysctls,
    conntrack: Option<Table>,
    states: HashMap<u8, u64>,
    listeners: Vec<SocketEntry>,
    /// Local ports that connections from here take, by where they go.
    routes: HashMap<(IpAddr, SocketAddr), u64>,
}

/// Looks at every namespace now.
pub(in crate::check) fn look() -> Look {
    let mut look = Look {
        namespaces: HashMap::new(),
        failed: Vec::new(),
    };
    // A list hangs where the kernel's own locks do; nobody waits for it for long.
    match within(PATIENCE, all) {
        Ok(Ok(all)) => {
            for (inode, sockets) in all {
                match sockets {
                    Ok(sockets) => drop(look.namespaces.insert(inode, sockets)),
                    Err(error) => look
                        .failed
                        .push(format!("network namespace {inode}: {error:#}")),
                }
            }
        }
        Ok(Err(error)) => look.failed.push(format!("{error:#}")),
        Err(_) => look
            .failed
            .push("the list of sockets did not come within 10 s".to_owned()),
    }
    look
}

type Read = Vec<(u32, anyhow::Result<Sockets>)>;

fn all() -> anyhow::Result<Read> {
    let all = Namespaces::find()?;
    let one = |namespace: &namespaces::Namespace| (namespace.inode, of(namespace));
    Ok(all.all().iter().map(one).collect())
}

fn of(namespace: &namespaces::Namespace) -> anyhow::Result<Sockets> {
    let mut sockets = Sockets {
        name: namespace.name.clone(),
        is_own: namespace.is_own,
        counters: netstat::read(namespace)?,
        settings: sysctls::read(namespace)?,
        ..Sockets::default()
    };
    let ports = sockets.settings.local_ports.clone();
    let reuse = sockets.settings.tw_reuse;
    namespaces::within(namespace, || -> anyhow::Result<()> {
        sockets.conntrack = conntrack();
        SockDiag::open()?.dump(States::ALL, |entry| {
            let state = if entry.is_request {
                TcpState::SYN_RECV.0
            } else {
                entry.state
            };
            *sockets.states.entry(state).or_default() += 1;
            if state == TcpState::LISTEN.0 {
                sockets.listeners.push(entry);
            } else if ports
                .as_ref()
                .is_some_and(|p| p.contains(&entry.local.port()))
                && !(state == TcpState::TIME_WAIT.0 && is_free_again(reuse, entry.remote))
            {
                let route = (entry.local.ip(), entry.remote);
                *sockets.routes.entry(route).or_default() += 1;
            }
        })?;
        Ok(())
    })??;
    Ok(sockets)
}

/// Whether a connection to there takes ports in TIME_WAIT: `tcp_tw_reuse` is 1 everywhere,
/// 2 on loopback (`tcp_twsk_unique`, net/ipv4/tcp_ipv4.c; needs timestamps, as is usual).
fn is_free_again(reuse: Option<u32>, remote: SocketAddr) -> bool {
    match reuse {
        Some(1) => true,
        Some(2) => remote.ip().to_canonical().is_loopback(),
        _ => false,
    }
}

fn number(path: &str) -> Option<u64> {
    text::read(path).ok()?.trim().parse().ok()
}

/// Connections that netfilter tracks; `None` where it does not.
fn conntrack() -> Option<Table> {
    Some(Table {
        used: number("/proc/sys/net/netfilter/nf_conntrack_count")?,
        most: number("/proc/sys/net/netfilter/nf_conntrack_max")?,
    })
}

/// `tcp_max_orphans`, and the numbers of `tcp_mem` in pages.
pub(in crate::check) fn host_limits() -> (Option<u64>, Option<[u64; 3]>) {
    let orphans = number("/proc/sys/net/ipv4/tcp_max_orphans");
    let memory = text::read("/proc/sys/net/ipv4/tcp_mem").unwrap_or_default();
    let mut words = memory
        .split_ascii_whitespace()
        .map(|word| word.parse().ok());
    let mut next = || words.next().flatten();
    let memory = next().zip(next()).zip(next());
    (
        orphans,
        memory.map(|((low, pressure), high)| [low, pressure, high]),
    )
}

/// The namespaces as the judge wants them.
pub(in crate::check) fn namespaces(
    before: &Look,
    now: &Look,
    context: &Context,
    seconds: f64,
) -> Vec<Namespace> {
    let holders = &context.descriptors().sockets;
    let counts = &context.descriptors().counts;
    let mut all: Vec<Namespace> = Vec::new();
    for (inode, sockets) in &now.namespaces {
        let earlier = before.namespaces.get(inode);
        let (drops, overflows) = (
            sockets.counters.listen_drops,
            sockets.counters.listen_overflows,
        );
        let drops_before = earlier.map_or(drops, |sockets| sockets.counters.listen_drops);
        let listeners = sockets.listeners.iter().map(|entry| {
            // A queue that is full at both ends of the sample is no burst.
            let was = earlier.and_then(|earlier| {
                earlier
                    .listeners
                    .iter()
                    .find(|was| was.cookie == entry.cookie)
            });
            let queue = was
                .map_or(0, |was| was.receive_queue)
                .min(entry.receive_queue);
            let holder = holders.get(&u64::from(entry.inode));
            Listener {
                local: entry.local,
                process: holder.and_then(|(pid, _)| Some((*pid, counts.get(pid)?.comm.clone()))),
                queue,
                backlog: entry.send_queue,
            }
        });
        let ports = sockets.settings.local_ports.as_ref();
        let most = ports.map_or(0, |p| u64::from(p.end().saturating_sub(*p.start())) + 1);
        let fullest = sockets.routes.iter().max_by_key(|(_, used)| **used);
        all.push(Namespace {
            inode: *inode,
            name: sockets.name.clone(),
            is_own: sockets.is_own,
            states: sockets
                .states
                .iter()
                .map(|(state, n)| (TcpState(*state), *n))
                .collect(),
            listeners: listeners.collect(),
            fullest: fullest
                .filter(|_| most > 0)
                .map(|((_, remote), used)| Route {
                    remote: *remote,
                    ports: Table { used: *used, most },
                }),
            tw_reuse: sockets.settings.tw_reuse,
            conntrack: sockets.conntrack,
            listen_drops: drops,
            listen_overflows: overflows,
            listen_drops_per_s: drops.saturating_sub(drops_before) as f64 / seconds.max(0.001),
        });
    }
    all.sort_by_key(|namespace| (!namespace.is_own, namespace.inode));
    all
}

/// Orphans and pages of buffers of the host.
pub(in crate::check) fn host(now: &Look) -> (u64, u64) {
    let any = now.namespaces.values().next();
    any.map_or((0, 0), |s| {
        (s.counters.host_orphans, s.counters.host_memory_pages)
    })
}
