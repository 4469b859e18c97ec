//! Listeners of a host in trouble.

use super::example_tcp::own;
use crate::{
    clock::WallNs,
    snapshot::{
        ByCookie, Cookies, Listener, NamespaceSyn, Netns, Prefix, SourcesOf, SynBreakdown,
        SynEvent, SynSettings, SynSources, SynVerdict,
    },
    text::Text,
};

const S: u64 = 1_000_000_000;

fn shop() -> Netns {
    Netns {
        inode: 4_026_532_841,
        name: Some("shop".into()),
        is_own: false,
    }
}

fn listener(port: u16, pid: u32, comm: Text) -> Listener {
    Listener {
        process: Some((pid, comm)),
        local: ([0, 0, 0, 0], port).into(),
        netns: own(),
        syn_queue: 0,
        young: 0,
        accept_queue: 0,
        backlog: 4096,
        cookies: Some(Cookies::default()),
        by_cookie: Some(ByCookie::default()),
        sources: None,
        drops: 0,
        verdict: SynVerdict::Healthy,
        why: String::new(),
    }
}

fn flooded() -> Listener {
    Listener {
        local: ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 443).into(),
        syn_queue: 512,
        young: 3,
        backlog: 511,
        cookies: Some(Cookies {
            sent: 81_204,
            valid: 17,
            failed: 2,
        }),
        by_cookie: Some(ByCookie {
            established: Some(15),
            refused: Some(2),
            without_timestamps: 11,
            without_window_scaling: Some(11),
            without_sack: Some(12),
            without_ecn: Some(15),
            mss: vec![(1220, 4), (1440, 11)],
        }),
        sources: Some(SynSources {
            addresses: 41_200,
            of: SourcesOf::Cookies,
            sampled: 512,
            prefixes: vec![
                Prefix {
                    address: [0x2001, 0xdb8, 7, 0, 0, 0, 0, 0].into(),
                    length: 48,
                    sampled: 200,
                },
                Prefix {
                    address: [0x2001, 0xdb8, 9, 0, 0, 0, 0, 0].into(),
                    length: 48,
                    sampled: 61,
                },
            ],
        }),
        drops: 81_204,
        verdict: SynVerdict::Flood,
        why: "512 of 511 in the SYN queue, 3 of them young; of 240000 cookies 51 came back".into(),
        ..listener(443, 812, "nginx".into())
    }
}

fn slow() -> Listener {
    Listener {
        netns: shop(),
        process: None,
        accept_queue: 129,
        backlog: 128,
        cookies: None,
        by_cookie: None,
        verdict: SynVerdict::SlowAccept,
        why: "129 connections wait for accept, of 128 that may: the process does not take them; 7 \
              handshakes refused in the last seconds"
            .into(),
        ..listener(8080, 0, Text::default())
    }
}

pub(crate) fn syn() -> SynBreakdown {
    SynBreakdown {
        listeners: vec![
            flooded(),
            slow(),
            Listener {
                syn_queue: 64,
                young: 60,
                backlog: 64,
                by_cookie: Some(ByCookie {
                    without_timestamps: 31,
                    ..ByCookie::default()
                }),
                sources: Some(SynSources {
                    addresses: 64,
                    of: SourcesOf::Queue,
                    sampled: 64,
                    prefixes: Vec::new(),
                }),
                verdict: SynVerdict::Burst,
                why: "64 of 64 in the SYN queue, 60 of them young; 31 turned away in the last \
                      seconds"
                    .into(),
                ..listener(5432, 991, Text::from_bytes(b"\x1b[2Jcart\n"))
            },
            listener(22, 640, "sshd".into()),
        ],
        listeners_total: 19,
        namespaces: vec![
            NamespaceSyn {
                netns: own(),
                settings: SynSettings {
                    syncookies: Some(1),
                    max_syn_backlog: Some(1024),
                    somaxconn: Some(4096),
                },
                cookies: Cookies {
                    sent: 81_204,
                    valid: 17,
                    failed: 2,
                },
                syn_queue_full_drops: 0,
                accept_queue_full: 0,
                drops: 81_204,
            },
            NamespaceSyn {
                netns: shop(),
                accept_queue_full: 7,
                drops: 9,
                ..NamespaceSyn::default()
            },
        ],
    }
}

/// One that begins, one that is over.
pub(crate) fn events() -> [SynEvent; 2] {
    let time = WallNs(1_795_521_600 * S);
    [
        SynEvent {
            time,
            verdict: SynVerdict::Flood,
            lasted_ns: None,
            listener: flooded(),
        },
        SynEvent {
            time,
            verdict: SynVerdict::SlowAccept,
            lasted_ns: Some(72 * S),
            listener: slow(),
        },
    ]
}
