//! JSON Lines: one `start`, a `snapshot` a tick, one `end`. The only place that
//! knows the names on the wire; [`crate::figures`] has the meaning of each.
//!
//! Additions are allowed, a change raises [`SCHEMA`].

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{
    Render,
    json_blocked::{Blocked, BlockedEvent, CauseRow, DeviceRow, Lengths, Queue},
    json_load::{Group, Load, TaskMean},
    json_oom::{Kill, Oom},
    json_syn::{Syn, SynEvent},
    json_tcp::Tcp,
    json_tcp_events::{DeadPeer, LeakEvent, ResetStorm},
    time::rfc3339,
    words,
};
use crate::{
    snapshot::{self, Lost},
    text::Text,
};

/// Version of the names and meanings on the wire.
pub const SCHEMA: u32 = 1;

/// JSON Lines.
#[derive(Debug, Default)]
pub struct JsonRenderer {}

impl JsonRenderer {
    /// A renderer.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Render for JsonRenderer {
    fn start(&mut self, start: &snapshot::Start) -> Vec<u8> {
        line(&Line::Start(start.into()))
    }

    fn snapshot(&mut self, snapshot: &snapshot::Snapshot) -> Vec<u8> {
        line(&Line::Snapshot(snapshot.into()))
    }

    fn event(&mut self, event: &snapshot::Event) -> Vec<u8> {
        line(&Line::Event(Box::new(event.into())))
    }

    fn end(&mut self, summary: &snapshot::Summary) -> Vec<u8> {
        line(&Line::End(Box::new(summary.into())))
    }
}

fn line(line: &Line<'_>) -> Vec<u8> {
    // Maps have text for keys and no value refuses: this cannot fail.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Start(Start<'a>),
    Snapshot(Box<Snapshot<'a>>),
    Event(Box<Event<'a>>),
    End(Box<End<'a>>),
}

/// What is notable, by its subject; `event` says what it is.
#[derive(Serialize)]
#[serde(untagged)]
enum Event<'a> {
    Blocked(BlockedEvent<'a>),
    Leak(LeakEvent<'a>),
    ResetStorm(ResetStorm<'a>),
    DeadPeer(DeadPeer<'a>),
    Kill(Kill<'a>),
    Syn(SynEvent<'a>),
}

impl<'a> From<&'a snapshot::Event> for Event<'a> {
    fn from(event: &'a snapshot::Event) -> Self {
        match event {
            snapshot::Event::Blocked(event) => Self::Blocked(event.into()),
            snapshot::Event::Leak(event) => Self::Leak(event.into()),
            snapshot::Event::ResetStorm(event) => Self::ResetStorm(event.into()),
            snapshot::Event::DeadPeer(event) => Self::DeadPeer(event.into()),
            snapshot::Event::Syn(event) => Self::Syn((&**event).into()),
            snapshot::Event::Kill(kill) => Self::Kill((&**kill).into()),
        }
    }
}

/// A number with six decimals at most. What is no number is null: a zero would
/// claim that something was measured.
#[derive(Clone, Copy)]
pub(super) struct Number(pub(super) f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rounded = (self.0 * 1e6).round() / 1e6;
        match rounded.is_finite() {
            // Adding zero makes a negative zero positive.
            true => serializer.serialize_f64(rounded + 0.0),
            false => serializer.serialize_none(),
        }
    }
}

/// A name that is not always known.
pub(super) fn text(text: &Option<Text>) -> Option<&str> {
    text.as_ref().map(Text::as_str)
}

#[derive(Serialize)]
struct Start<'a> {
    schema: u32,
    version: &'a str,
    interval_ns: u64,
    by: &'a str,
    host: Host<'a>,
    hooks: Vec<Hook<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Host<'a> {
    cpus: u32,
    kernel: &'a str,
    hostname: &'a str,
}

/// A probe, and what became of it.
#[derive(Serialize)]
pub(crate) struct Hook<'a> {
    name: &'a str,
    via: &'a str,
    state: &'a str,
    why: Option<&'a str>,
    without: &'a str,
}

impl<'a> From<&'a snapshot::HookState> for Hook<'a> {
    fn from(hook: &'a snapshot::HookState) -> Self {
        Self {
            name: hook.name,
            via: &hook.via,
            state: if hook.why.is_none() { "ok" } else { "missing" },
            why: hook.why.as_deref(),
            without: hook.without,
        }
    }
}

impl<'a> From<&'a snapshot::Start> for Start<'a> {
    fn from(start: &'a snapshot::Start) -> Self {
        Self {
            schema: SCHEMA,
            version: start.version,
            interval_ns: start.interval_ns,
            by: words::by(start),
            host: Host {
                cpus: start.host.cpus,
                kernel: start.host.kernel.as_str(),
                hostname: start.host.hostname.as_str(),
            },
            hooks: start.hooks.iter().map(Hook::from).collect(),
            notes: &start.notes,
        }
    }
}

#[derive(Serialize)]
struct Snapshot<'a> {
    time: String,
    interval_ns: u64,
    host: HostNow,
    load: Load<'a>,
    blocked: Vec<Blocked<'a>>,
    blocked_total: u64,
    queues: Vec<Queue<'a>>,
    causes: Vec<CauseRow<'a>>,
    devices: Vec<DeviceRow<'a>>,
    lengths: Vec<Lengths<'a>>,
    tcp: Tcp<'a>,
    syn: Syn<'a>,
    oom: Oom<'a>,
    lost: BTreeMap<&'a str, u64>,
    #[serde(rename = "self")]
    own: OwnCost,
}

#[derive(Serialize)]
struct HostNow {
    cpus: u32,
    uptime_s: u64,
}

#[derive(Serialize)]
struct OwnCost {
    cpu_ratio: Number,
    bpf_ns: Option<u64>,
    rss_bytes: u64,
    map_bytes: u64,
}

impl<'a> From<&'a snapshot::Snapshot> for Box<Snapshot<'a>> {
    fn from(snapshot: &'a snapshot::Snapshot) -> Self {
        Box::new(Snapshot {
            time: rfc3339(snapshot.time),
            interval_ns: snapshot.interval_ns,
            host: HostNow {
                cpus: snapshot.cpus,
                uptime_s: snapshot.uptime_s,
            },
            load: (&snapshot.load).into(),
            blocked: snapshot.blocked.iter().map(Blocked::from).collect(),
            blocked_total: snapshot.blocked_total,
            queues: snapshot.queues.iter().map(Queue::from).collect(),
            causes: snapshot.causes.iter().map(CauseRow::from).collect(),
            devices: snapshot.devices.iter().map(DeviceRow::from).collect(),
            lengths: snapshot.lengths.iter().map(Lengths::from).collect(),
            tcp: (&snapshot.tcp).into(),
            syn: (&snapshot.syn).into(),
            oom: (&snapshot.oom).into(),
            lost: by_reason(&snapshot.lost),
            own: snapshot.own.into(),
        })
    }
}

impl From<snapshot::OwnCost> for OwnCost {
    fn from(own: snapshot::OwnCost) -> Self {
        Self {
            cpu_ratio: Number(own.cpu_ratio),
            bpf_ns: own.bpf_ns,
            rss_bytes: own.rss_bytes,
            map_bytes: own.map_bytes,
        }
    }
}

fn by_reason(lost: &[Lost]) -> BTreeMap<&str, u64> {
    lost.iter().map(|lost| (lost.reason, lost.count)).collect()
}

#[derive(Serialize)]
struct End<'a> {
    totals: Totals<'a>,
    lost: BTreeMap<&'a str, u64>,
}

#[derive(Serialize)]
struct Totals<'a> {
    duration_ns: u64,
    snapshots: u64,
    mean: TaskMean,
    averages: [Number; 3],
    groups: Vec<Group<'a>>,
    episodes: Vec<Episode<'a>>,
    causes: Vec<CauseRow<'a>>,
    devices: Vec<DeviceRow<'a>>,
    lengths: Vec<Lengths<'a>>,
    tcp: Tcp<'a>,
    syn: Syn<'a>,
    oom: Oom<'a>,
    kernel_samples: u64,
    kernel_samples_named: u64,
    kernel_sample_error: Number,
    exited: u64,
    #[serde(rename = "self")]
    own: OwnCost,
}

#[derive(Serialize)]
struct Episode<'a> {
    pid: u32,
    tid: u32,
    comm: &'a str,
    length_ns: u64,
    began_ago_ns: u64,
    open: bool,
}

impl<'a> From<&'a snapshot::Summary> for End<'a> {
    fn from(summary: &'a snapshot::Summary) -> Self {
        let episode = |episode: &'a snapshot::LongEpisode| Episode {
            pid: episode.pid,
            tid: episode.tid,
            comm: episode.comm.as_str(),
            length_ns: episode.length_ns,
            began_ago_ns: episode.began_ago_ns,
            open: episode.is_open,
        };
        Self {
            totals: Totals {
                duration_ns: summary.duration_ns,
                snapshots: summary.snapshots,
                mean: summary.mean.into(),
                averages: summary.averages.map(Number),
                groups: summary.groups.iter().map(Group::from).collect(),
                episodes: summary.episodes.iter().map(episode).collect(),
                causes: summary.causes.iter().map(CauseRow::from).collect(),
                devices: summary.devices.iter().map(DeviceRow::from).collect(),
                lengths: summary.lengths.iter().map(Lengths::from).collect(),
                tcp: (&summary.tcp).into(),
                syn: (&summary.syn).into(),
                oom: (&summary.oom).into(),
                kernel_samples: summary.samples,
                kernel_samples_named: summary.samples_named,
                kernel_sample_error: Number(summary.sample_error),
                exited: summary.exited,
                own: summary.own.into(),
            },
            lost: by_reason(&summary.lost),
        }
    }
}
