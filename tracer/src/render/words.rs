//! The words of every output, in one place so that all formats say the same.

use std::net::SocketAddr;

use super::quantity::counted;
use crate::snapshot::{
    GroupBy, KillKind, KillScope, Prefix, Rows, Side, SourcesOf, Start, SynVerdict, TcpState,
    TimerKind, Verdict,
};

/// The verdict's fixed word.
pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Idle => "idle",
        Verdict::MostlyRunning => "mostly_running",
        Verdict::MostlyWaiting => "mostly_waiting",
        Verdict::MostlyThrottled => "mostly_throttled",
        Verdict::MostlyBlocked => "mostly_blocked",
    }
}

/// The verdict as a sentence: what dominates, and where to look.
pub(crate) fn advice(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Idle => "idle",
        Verdict::MostlyRunning => "mostly running: the load is work on the CPUs, look at who runs",
        Verdict::MostlyWaiting => {
            "mostly waiting for a CPU: more CPUs, fewer threads or less work would help"
        }
        Verdict::MostlyThrottled => {
            "mostly throttled: cgroups are at their own CPU limits (cpu.max), look there first"
        }
        Verdict::MostlyBlocked => {
            "mostly blocked: look at storage and locks, more CPUs would not help"
        }
    }
}

/// What it means that the same number of tasks is missing from every sample.
pub(crate) fn leaked(tasks: i64) -> String {
    let (count, relation) = (
        counted(tasks.unsigned_abs(), "task"),
        if tasks < 0 { "too few" } else { "too many" },
    );
    format!(
        "The kernel counts {count} {relation}, the same in sample after sample. Either they are out \
         of sight (another pid namespace, real-time tasks that wait), or its count of blocked tasks \
         (nr_uninterruptible) has gone wrong, as is known of 5.14 to 6.16: then the averages stay off \
         by {} until the host is rebooted.",
        tasks.unsigned_abs(),
    )
}

/// The fixed word of what the table is of.
pub(crate) fn by(start: &Start) -> &'static str {
    match start.rows {
        Rows::Causes => return "cause",
        Rows::Devices => return "device",
        Rows::Groups => {}
    }
    match start.by {
        GroupBy::Process => "process",
        GroupBy::Comm => "comm",
        GroupBy::Cgroup => "cgroup",
        GroupBy::User => "user",
    }
}

/// A TCP state, as the kernel and ss(8) call it.
pub(crate) fn state(state: TcpState) -> &'static str {
    match state {
        TcpState::ESTABLISHED => "ESTABLISHED",
        TcpState::SYN_SENT => "SYN_SENT",
        TcpState::SYN_RECV => "SYN_RECV",
        TcpState::FIN_WAIT1 => "FIN_WAIT1",
        TcpState::FIN_WAIT2 => "FIN_WAIT2",
        TcpState::TIME_WAIT => "TIME_WAIT",
        TcpState::CLOSE => "CLOSE",
        TcpState::CLOSE_WAIT => "CLOSE_WAIT",
        TcpState::LAST_ACK => "LAST_ACK",
        TcpState::LISTEN => "LISTEN",
        TcpState::CLOSING => "CLOSING",
        TcpState::NEW_SYN_RECV => "NEW_SYN_RECV",
        TcpState::BOUND_INACTIVE => "BOUND_INACTIVE",
        _ => "UNKNOWN",
    }
}

/// Whether connections were accepted or made.
pub(crate) fn side(side: Side) -> &'static str {
    match side {
        Side::Accepted => "accepted",
        Side::Connected => "connected",
    }
}

/// A socket's timer, as netstat(8) calls it.
pub(crate) fn timer(kind: TimerKind) -> &'static str {
    match kind {
        TimerKind::Off => "off",
        TimerKind::Retransmit => "on",
        TimerKind::Keepalive => "keepalive",
        TimerKind::WindowProbe => "probe",
    }
}

/// An address and a port. A socket of IPv6 that speaks IPv4 shows as what it speaks.
pub(crate) fn address(address: SocketAddr) -> String {
    let mapped = match address {
        SocketAddr::V6(address) => address.ip().to_ipv4_mapped(),
        SocketAddr::V4(_) => None,
    };
    match mapped {
        Some(ip) => format!("{ip}:{}", address.port()),
        None => address.to_string(),
    }
}

/// Addresses that begin alike.
pub(crate) fn prefix(prefix: &Prefix) -> String {
    format!("{}/{}", prefix.address, prefix.length)
}

/// The fixed word of what addresses were counted in.
pub(crate) fn sources_of(of: SourcesOf) -> &'static str {
    match of {
        SourcesOf::Queue => "syn_queue",
        SourcesOf::Cookies => "cookies",
    }
}

/// The fixed word of a kill; its event's name too.
pub(crate) fn kill(kind: KillKind) -> &'static str {
    match kind {
        KillKind::Oom => "oom_kill",
        KillKind::Exiting => "oom_exiting",
        KillKind::Signal => "sigkill",
    }
}

/// The fixed word of what is the matter with a listener; its event's name too.
pub(crate) fn syn(verdict: SynVerdict) -> &'static str {
    match verdict {
        SynVerdict::Healthy => "healthy",
        SynVerdict::NotJudged => "not_judged",
        SynVerdict::Burst => "burst_or_small_backlog",
        SynVerdict::SlowAccept => "slow_accept",
        SynVerdict::Flood => "syn_flood",
    }
}

/// The same as people say it.
pub(crate) fn syn_plain(verdict: SynVerdict) -> &'static str {
    match verdict {
        SynVerdict::Healthy => "healthy",
        SynVerdict::NotJudged => "not judged",
        SynVerdict::Burst => "burst or small backlog",
        SynVerdict::SlowAccept => "slow accept",
        SynVerdict::Flood => "SYN flood",
    }
}

/// What to do about it.
pub(crate) fn syn_advice(verdict: SynVerdict) -> Option<&'static str> {
    match verdict {
        SynVerdict::Healthy | SynVerdict::NotJudged => None,
        SynVerdict::Burst => Some(
            "a larger backlog would hold them: that of listen(2), and net.core.somaxconn, which limits it",
        ),
        SynVerdict::SlowAccept => Some(
            "look at the process: too few threads or workers accept, or it is blocked; a larger backlog only hides it",
        ),
        SynVerdict::Flood => Some(
            "keep net.ipv4.tcp_syncookies at 1, filter the sources upstream; a larger backlog does not help against a flood",
        ),
    }
}

/// Whether an event begins or ends.
pub(crate) fn begins(lasted_ns: Option<u64>) -> &'static str {
    match lasted_ns {
        None => "begins",
        Some(_) => "ends",
    }
}

/// The fixed word of what was out of memory.
pub(crate) fn scope(scope: KillScope) -> &'static str {
    match scope {
        KillScope::Host => "host",
        KillScope::Memcg => "memcg",
        KillScope::Cpuset => "cpuset",
        KillScope::MemoryPolicy => "policy",
        KillScope::Sysrq => "sysrq",
    }
}

#[cfg(test)]
mod tests {
    use super::{address, leaked};

    #[test]
    fn an_address_is_of_what_it_speaks() {
        for (socket, shown) in [
            ("10.0.0.3:5432", "10.0.0.3:5432"),
            ("[::ffff:10.0.0.3]:5432", "10.0.0.3:5432"),
            ("[2001:db8::7]:443", "[2001:db8::7]:443"),
            ("[fe80::1%3]:22", "[fe80::1%3]:22"),
            ("[::]:80", "[::]:80"),
        ] {
            assert_eq!(address(socket.parse().unwrap()), shown);
        }
    }

    #[test]
    fn a_leak_is_explained_in_both_directions() {
        assert!(leaked(1).starts_with("The kernel counts 1 task too many"));
        assert!(leaked(-3).starts_with("The kernel counts 3 tasks too few"));
    }
}
