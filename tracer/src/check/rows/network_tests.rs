//! The network, judged.

use super::{Counters, Interface, Namespace, Reading, judge};
use crate::{
    check::{
        finding::{RowReport, Verdict},
        limits::Limits,
    },
    clock::MonotonicNs,
};

fn interface(packets: u64, errors: u64, drops: u64) -> Interface {
    Interface {
        packets,
        errors,
        drops,
        is_running: true,
    }
}

/// What was added in 2 s.
fn look(interface: Interface, added: Counters) -> RowReport {
    let before = Counters {
        interfaces: [("eth0".into(), Interface::default())].into(),
        ..Counters::default()
    };
    let now = Counters {
        at: MonotonicNs(2_000_000_000),
        interfaces: [("eth0".into(), interface)].into(),
        ..added
    };
    let namespace = Namespace {
        name: Some("shop".into()),
        before,
        now,
    };
    let reading = Reading {
        namespaces: vec![namespace],
        unseen: Vec::new(),
    };
    judge(&reading, &Limits::default())
}

fn segments(out_segments: u64, retransmitted: u64) -> Counters {
    Counters {
        out_segments,
        retransmitted,
        ..Counters::default()
    }
}

#[test]
fn few_are_noise_and_many_are_held_against_the_packets() {
    for (one, verdict) in [
        (interface(1_000, 9, 9), Verdict::Ok),
        (interface(1_000_000, 99, 999), Verdict::Ok),
        (interface(1_000_000, 100, 0), Verdict::Warning),
        (interface(1_000, 10, 0), Verdict::Critical),
        (interface(1_000_000, 0, 1_000), Verdict::Warning),
        (interface(100, 0, 10), Verdict::Critical),
        (interface(0, 0, 10), Verdict::Critical),
    ] {
        let report = look(one, Counters::default());
        assert_eq!(report.verdict(), verdict, "{one:?}: {report:?}");
    }
    let report = look(interface(1_000, 0, 10), Counters::default());
    let finding = &report.findings[0];
    assert_eq!(
        finding.what,
        "eth0 in network namespace shop: 10 drops for 1,000 packets (1.00 %), 5.0/s"
    );
    assert_eq!(finding.next, "sudo ip netns exec shop ethtool -S eth0");
    let of = |name| report.figures.iter().find(|f| f.name == name).unwrap();
    let ratio = of("interface_drops_ratio");
    assert_eq!((ratio.of.as_str(), ratio.value), ("eth0@shop", 0.01));
    assert!((of("interface_drops_per_s").value - 5.0).abs() < 1e-9);
}

#[test]
fn names_that_mean_something_to_a_shell_are_not_in_commands() {
    for (name, is_so) in [
        ("eth0.7", true),
        ("$(halt)", false),
        ("-x", false),
        ("net:[1]", false),
    ] {
        assert_eq!(super::is_plain(&name.into()), is_so);
    }
}

#[test]
fn an_interface_without_its_carrier_is_not_judged() {
    let down = Interface {
        is_running: false,
        ..interface(0, 500, 500)
    };
    let report = look(down, Counters::default());
    assert_eq!(report.verdict(), Verdict::Ok);
    assert!(report.summary.contains("(1 down)"), "{}", report.summary);
}

#[test]
fn segments_that_are_sent_again_are_put_on_their_namespace() {
    for (out, again, verdict) in [
        (20, 9, Verdict::Ok),
        (10_000, 199, Verdict::Ok),
        (10_000, 200, Verdict::Warning),
        (100, 10, Verdict::Critical),
    ] {
        let report = look(interface(out, 0, 0), segments(out, again));
        assert_eq!(report.verdict(), verdict, "{out} {again}");
    }
    let report = look(interface(0, 0, 0), segments(1_000, 50));
    let finding = &report.findings[0];
    assert_eq!(
        finding.what,
        "50 TCP segments were sent again beside 1,000 new ones (5.0 %), 25/s"
    );
    assert_eq!(finding.who, ["network namespace shop"]);
}

#[test]
fn a_datagram_that_found_no_room_is_found() {
    let added = Counters {
        udp_drops: 1,
        ..Counters::default()
    };
    let report = look(interface(10, 0, 0), added);
    assert_eq!(report.verdict(), Verdict::Warning);
    assert!(report.findings[0].what.starts_with("1 UDP datagram found"));
}
