//! Events as the tests of all renderers show them.

use super::{
    example_oom, example_syn,
    example_tcp::{alarms, leaks},
};
use crate::{
    clock::WallNs,
    snapshot::{BlockedEvent, BlockedEventKind, Event, Link, Role, Waker},
};

const S: u64 = 1_000_000_000;
const NOW: WallNs = WallNs(1_795_439_121 * S + 123_456_789);

fn before(ns: u64) -> WallNs {
    WallNs(NOW.0 - ns)
}

/// One of each kind.
pub(crate) fn events() -> Vec<Event> {
    let blocked = blocked().into_iter().map(Event::Blocked);
    blocked
        .chain(leaks().into_iter().map(Event::Leak))
        .chain(alarms())
        .chain(example_syn::events().map(|event| Event::Syn(Box::new(event))))
        .chain(kills())
        .collect()
}

fn kills() -> impl Iterator<Item = Event> {
    let kills = example_oom::others().into_iter();
    let kills = kills.chain([example_oom::of_cgroup()]);
    kills.map(|kill| Event::Kill(Box::new(kill)))
}

fn blocked() -> Vec<BlockedEvent> {
    let read = BlockedEvent {
        time: NOW,
        pid: 2211,
        tid: 2290,
        comm: "mysqld".into(),
        began: before(1_420_000_000),
        length_ns: 1_420_000_000,
        cause: "disk",
        detail: Some("vdb ext4 read /var/lib/mysql".into()),
        device: Some("vdb".into()),
        stack: ["folio_wait_bit_common", "filemap_read", "vfs_read"]
            .map(Into::into)
            .to_vec(),
        waker: Some(Waker::Interrupt {
            is_soft: true,
            source: "block device",
        }),
        ..BlockedEvent::default()
    };
    vec![
        read.clone(),
        BlockedEvent {
            tid: 2291,
            length_ns: 3_200_000,
            began: before(3_200_000),
            cause: "mmap_lock",
            detail: Some("mmap held by mysqld[2211]".into()),
            device: None,
            stack: vec!["vm_mmap_pgoff".into()],
            waker: Some(Waker::Task {
                pid: 2211,
                tid: 2290,
                comm: "mysqld".into(),
            }),
            ..read.clone()
        },
        BlockedEvent {
            kind: BlockedEventKind::Still(120 * S),
            tid: 2292,
            began: before(121 * S),
            length_ns: 121 * S,
            cause: "inode lock",
            detail: Some("ext4 write /var/lib/mysql held by backup[77]".into()),
            device: None,
            waker: None,
            waits_for: vec![Link {
                sleeps_in: None,
                pid: 77,
                tid: 77,
                comm: "backup".into(),
                role: Role::Holder,
                cause: Some("disk"),
                detail: Some("vdb ext4 write /var/lib/mysql".into()),
            }],
            ..read
        },
    ]
}
