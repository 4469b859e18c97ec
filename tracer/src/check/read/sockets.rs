//! TCP sockets of every network namespace over sock_diag, with the kernel's counters and
//! settings there.

use std::collections::HashMap;

use crate::{
    check::{
        context::Context,
        finding::Verdict,
        limits::{Limits, PORTS},
        read::{
            owners,
            ports::{Ports, Use},
            within,
        },
        rows::{
            ports::{At, Route},
            sockets::{Listener, Namespace, Table},
        },
    },
    host::{
        namespaces::{self, Namespaces},
        netstat::{self, NetCounters},
        sock_diag::{SockDiag, SocketEntry, States},
        sysctls,
    },
    snapshot::{Closer, Side, TcpState},
    text::{self, Text},
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
    name: Option<Text>,
    is_own: bool,
    counters: NetCounters,
    settings: sysctls::TcpSysctls,
    conntrack: Option<Table>,
    states: HashMap<u8, u64>,
    listeners: Vec<SocketEntry>,
    /// Local ports that connections from here take.
    ports: Ports,
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
    namespaces::within(namespace, || -> anyhow::Result<()> {
        sockets.conntrack = conntrack();
        SockDiag::open()?.dump(States::ALL_AND_BOUND, |entry| {
            sockets.ports.add(&entry, &sockets.settings);
            let state = if entry.is_request {
                TcpState::SYN_RECV
            } else {
                TcpState(entry.state)
            };
            // Those that are not connected are no sockets of TCP's tables.
            if state != TcpState::CLOSE {
                *sockets.states.entry(state.0).or_default() += 1;
            }
            if state == TcpState::LISTEN {
                sockets.listeners.push(entry);
            }
        })?;
        Ok(())
    })??;
    Ok(sockets)
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
    let limits = &context.limits;
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
            Listener {
                local: entry.local,
                inode: entry.inode,
                owners: Vec::new(),
                queue,
                backlog: entry.send_queue,
            }
        });
        let most = sockets.settings.ports();
        let fullest = sockets.ports.fullest(&sockets.settings);
        let table = |used: &Use| Table {
            used: used.ports,
            most,
        };
        let uses = [fullest, sockets.ports.bound(most)];
        let [fullest, bound] = uses.map(|used| used.filter(|_| most > 0));
        let route = |used: Use| {
            let ports = table(&used);
            let is_full = limits.judge(&PORTS, ports.ratio()) > Verdict::Ok;
            let held = if is_full {
                held(&used)
            } else {
                Held::default()
            };
            Route {
                at: used.at,
                ports,
                held: held.by,
                unknown: held.unknown,
                time_wait: used.time_wait,
                closers: closers(&used, *inode, now, context),
            }
        };
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
            fullest: fullest.map(route),
            bound: bound.map(route),
            tw_reuse: sockets.settings.tw_reuse,
            conntrack: sockets.conntrack,
            listen_drops: drops,
            listen_overflows: overflows,
            listen_drops_per_s: drops.saturating_sub(drops_before) as f64 / seconds.max(0.001),
        });
    }
    all.sort_by_key(|namespace| (!namespace.is_own, namespace.inode));
    name_owners(&mut all, limits);
    all
}

/// Names the processes of those listeners that something is wrong with.
fn name_owners(namespaces: &mut [Namespace], limits: &Limits) {
    let listeners = namespaces.iter_mut().flat_map(|n| &mut n.listeners);
    let mut listeners: Vec<&mut Listener> = listeners
        .filter(|listener| listener.fullness(limits) > Verdict::Ok)
        .collect();
    let inodes = listeners.iter().map(|listener| listener.inode).collect();
    let owners = owners::of(&inodes);
    for listener in &mut listeners {
        listener.owners = owners.get(&listener.inode).cloned().unwrap_or_default();
    }
}

/// Who has the sockets of used ports.
#[derive(Default)]
struct Held {
    by: Vec<(u32, Text, u64)>,
    unknown: u64,
}

/// Each socket is the first process's that has it.
fn held(used: &Use) -> Held {
    let owners = owners::of(&used.inodes.iter().copied().collect());
    let mut by: HashMap<u32, (Text, u64)> = HashMap::new();
    let mut unknown = 0;
    for inode in &used.inodes {
        match owners.get(inode).and_then(|owners| owners.first()) {
            Some(owner) => {
                let entry = by
                    .entry(owner.pid)
                    .or_insert_with(|| (owner.comm.clone(), 0));
                entry.1 += 1;
            }
            None => unknown += 1,
        }
    }
    let by = by
        .into_iter()
        .map(|(pid, (comm, count))| (pid, comm, count));
    let mut by: Vec<_> = by.collect();
    by.sort_by_key(|(pid, _, count)| (std::cmp::Reverse(*count), *pid));
    Held { by, unknown }
}

/// Who closed connections to this destination's port first, of those processes that are in
/// this namespace. One that has ended is in none that can be asked: it is named where no
/// other destination of that port has sockets in TIME_WAIT.
fn closers(used: &Use, inode: u32, now: &Look, context: &Context) -> Vec<Closer> {
    let At::Towards(remote) = used.at else {
        return Vec::new();
    };
    let Some(watched) = context.watched().ok().filter(|_| used.time_wait > 0) else {
        return Vec::new();
    };
    let all = now.namespaces.values();
    let at_port: u64 = all
        .map(|sockets| sockets.ports.time_wait(remote.port()))
        .sum();
    let is_only = at_port <= used.time_wait;
    let is_one = |closer: &&Closer| {
        let connects = closer.side == Side::Connected && closer.port == remote.port();
        let place = namespaces::of_process(closer.pid);
        connects && place.map_or(is_only, |place| place == inode)
    };
    let closers = watched.snapshot.tcp.time_wait.closers.iter();
    closers.filter(is_one).cloned().collect()
}

/// Orphans and pages of buffers of the host.
pub(in crate::check) fn host(now: &Look) -> (u64, u64) {
    let any = now.namespaces.values().next();
    any.map_or((0, 0), |s| {
        (s.counters.host_orphans, s.counters.host_memory_pages)
    })
}
