//! What is the matter with a listener, by what was seen of it in the last seconds.
//!
//! The kernel drops a SYN, or answers it with a cookie, once `qlen` has reached
//! `sk_max_ack_backlog` (`tcp_conn_request`, net/ipv4/tcp_input.c), and refuses the
//! third ACK while the accept queue is over it (`tcp_v4_syn_recv_sock`). A request is
//! young until its SYN-ACK is sent again, after a second.

use crate::snapshot::{Cookies, SynSettings, SynVerdict};

/// With fewer cookies than this their part that came back says nothing.
const FEW_COOKIES: u64 = 20;

/// A flood has at least this number of handshakes without an answer in the last seconds:
/// two peers whose ACK was lost are no flood.
const FEW_UNANSWERED: u64 = 20;

/// At least a quarter of the cookies is without an answer in a flood, which is this part.
const UNANSWERED_PART: u64 = 4;

/// Fewer connections than this, turned away in the last seconds by a queue that is not
/// full now, are no trouble worth a name: one cookie is sent on any busy host.
const FEW_TURNED_AWAY: u64 = 5;

/// What was seen of a listener.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// `qlen`, `young`, `sk_ack_backlog` and `sk_max_ack_backlog` now.
    pub(super) syn_queue: u32,
    pub(super) young: u32,
    pub(super) accept_queue: u32,
    pub(super) backlog: u32,
    /// Those of its namespace.
    pub(super) settings: SynSettings,
    /// Cookies that were sent until a second ago, and the most of them that can have come
    /// back; `None` where they can be another listener's.
    pub(super) cookies: Option<Cookies>,
    /// Cookies sent in the last seconds, the latest ones too, and SYNs dropped for want
    /// of room in the SYN queue.
    pub(super) turned_away: u64,
    /// What the listener itself dropped in the last seconds, for whatever reason (a filter
    /// among them): `sk_drops`. Without cookies SYNs of peers that are not known are dropped
    /// before the queue is full, once it has three quarters of `tcp_max_syn_backlog`, and
    /// only this counts them.
    pub(super) dropped: u64,
    /// Handshakes of the last seconds that the full accept queue refused, in the
    /// namespace.
    pub(super) refused: u64,
    /// Those that were its own, at least: its queue can have been full, and empty again,
    /// between two looks.
    pub(super) overflowed: u64,
}

/// The verdict, and why.
pub(super) fn judge(seen: &Seen) -> (SynVerdict, String) {
    let Seen {
        syn_queue,
        young,
        accept_queue,
        backlog,
        turned_away,
        refused,
        overflowed,
        ..
    } = *seen;
    // A full accept queue fills the SYN queue too: it comes first.
    if accept_queue > backlog || (refused > 0 && accept_queue >= backlog && backlog > 0) {
        let why = format!(
            "{accept_queue} connections wait for accept, of {backlog} that may: the process does \
             not take them; {refused} handshakes refused in the last seconds"
        );
        return (SynVerdict::SlowAccept, why);
    }
    let turned_away = turned_away.max(seen.dropped_for_room());
    let is_full = syn_queue >= backlog.max(1) || seen.dropped_for_room() > 0;
    let unanswered = seen.unanswered(is_full, turned_away);
    let queue = format!("{syn_queue} of {backlog} in the SYN queue, {young} of them young");
    if turned_away > 0 && unanswered >= FEW_UNANSWERED {
        let why = match seen.enough_cookies() {
            Some(Cookies { sent, valid, .. }) => {
                format!("{queue}; of {sent} cookies {valid} came back")
            }
            None => format!("{queue}: the others do not answer"),
        };
        return (SynVerdict::Flood, why);
    }
    if overflowed >= FEW_TURNED_AWAY {
        let why = format!(
            "{overflowed} handshakes refused in the last seconds: more came at once than the \
             accept queue holds, which is {backlog}; {accept_queue} wait now"
        );
        return (SynVerdict::Burst, why);
    }
    let is_trouble = turned_away >= FEW_TURNED_AWAY || (turned_away > 0 && is_full);
    if !is_trouble || seen.only_always_sends(is_full) {
        return (
            SynVerdict::Healthy,
            left_over(seen, turned_away + overflowed),
        );
    }
    let why = match seen.enough_cookies() {
        Some(Cookies { sent, valid, .. }) => {
            format!("{queue}; {valid} cookies came back for {sent} sent: the peers are real")
        }
        None => format!("{queue}; {turned_away} turned away in the last seconds"),
    };
    (SynVerdict::Burst, why)
}

impl Seen {
    /// SYNs that were dropped although the queue was not full: without cookies, and only
    /// with much of `tcp_max_syn_backlog` in it, of which some may have just gone. What a
    /// full accept queue refuses is dropped too.
    fn dropped_for_room(&self) -> u64 {
        let SynSettings {
            syncookies,
            max_syn_backlog,
            ..
        } = self.settings;
        let has_cookies = syncookies.is_some_and(|setting| setting > 0);
        let is_near = max_syn_backlog.is_none_or(|most| self.syn_queue >= most / 2);
        if has_cookies || !is_near {
            return 0;
        }
        self.dropped.saturating_sub(self.refused)
    }

    /// Its cookies, if there are enough to judge by.
    fn enough_cookies(&self) -> Option<Cookies> {
        self.cookies.filter(|cookies| cookies.sent >= FEW_COOKIES)
    }

    /// Handshakes that the peers have not answered; 0 where most of them do.
    fn unanswered(&self, is_full: bool, turned_away: u64) -> u64 {
        match self.enough_cookies() {
            Some(Cookies { sent, valid, .. }) => {
                let unanswered = sent.saturating_sub(valid);
                if unanswered >= sent / UNANSWERED_PART {
                    unanswered
                } else {
                    0
                }
            }
            // Without cookies to go by: who answers is not queued for a second.
            None if is_full && self.young < self.syn_queue / 2 => {
                u64::from(self.syn_queue - self.young) + turned_away
            }
            None => 0,
        }
    }

    /// Cookies that are sent for each SYN, full or not (`tcp_syncookies` is 2), are no
    /// trouble as long as they come back.
    fn only_always_sends(&self, is_full: bool) -> bool {
        self.settings.always_sends() && !is_full
    }
}

/// What a healthy listener still has of its trouble, or has too little of to be called so.
fn left_over(seen: &Seen, turned_away: u64) -> String {
    if seen.backlog > 0 && seen.syn_queue >= seen.backlog {
        let count = seen.syn_queue;
        return format!("{count} requests without an answer time out");
    }
    if turned_away == 0 || seen.settings.always_sends() {
        return String::new();
    }
    let handshakes = if turned_away == 1 {
        "handshake"
    } else {
        "handshakes"
    };
    format!("{turned_away} {handshakes} turned away in the last seconds, too few to judge by")
}

#[cfg(test)]
mod tests {
    use super::{Seen, judge};
    use crate::snapshot::{Cookies, SynSettings, SynVerdict};

    /// A listener with room, whose namespace sends cookies when it is full.
    fn seen(backlog: u32) -> Seen {
        Seen {
            backlog,
            settings: SynSettings {
                syncookies: Some(1),
                max_syn_backlog: Some(512),
                somaxconn: Some(4_096),
            },
            ..Seen::default()
        }
    }

    fn with_cookies(sent: u64, valid: u64, seen: Seen) -> Seen {
        Seen {
            cookies: Some(Cookies {
                sent,
                valid,
                failed: 0,
            }),
            turned_away: sent,
            ..seen
        }
    }

    fn verdict(seen: Seen) -> SynVerdict {
        judge(&seen).0
    }

    /// netdata#6998: alerts on a single cookie had to be turned off.
    #[test]
    fn one_cookie_of_a_large_backlog_is_no_trouble() {
        let (of_one, why) = judge(&with_cookies(1, 1, seen(2_048)));
        assert_eq!(of_one, SynVerdict::Healthy);
        assert_eq!(
            why,
            "1 handshake turned away in the last seconds, too few to judge by"
        );
        assert_eq!(verdict(with_cookies(5, 5, seen(2_048))), SynVerdict::Burst);
    }

    /// netopeer2#1467: `listen(fd, 1)`, and the ACKs of two clients were lost.
    #[test]
    fn three_handshakes_at_a_backlog_of_one_are_no_flood() {
        for (syncookies, valid) in [(1, 0), (1, 1), (0, 0)] {
            let mut seen = with_cookies(
                1,
                valid,
                Seen {
                    syn_queue: 2,
                    ..seen(1)
                },
            );
            seen.settings.syncookies = Some(syncookies);
            assert_eq!(verdict(seen), SynVerdict::Burst, "{syncookies} {valid}");
        }
    }

    /// Of a hundred handshakes without an answer the queue holds only the backlog.
    #[test]
    fn a_flood_fills_a_small_backlog_too() {
        for backlog in [1, 5, 128] {
            let seen = Seen {
                syn_queue: backlog + 1,
                turned_away: 100,
                ..seen(backlog)
            };
            assert_eq!(verdict(seen), SynVerdict::Flood, "{backlog}");
        }
    }

    #[test]
    fn a_flood_is_one_with_as_many_real_clients() {
        let full = Seen {
            syn_queue: 128,
            young: 60,
            ..seen(128)
        };
        for (valid, expected) in [
            (0, SynVerdict::Flood),
            (300, SynVerdict::Flood),
            (500, SynVerdict::Flood),
            (950, SynVerdict::Burst),
            (1_000, SynVerdict::Burst),
        ] {
            assert_eq!(
                verdict(with_cookies(1_000, valid, full)),
                expected,
                "{valid}"
            );
        }
    }

    /// An event loop takes bursts of 60 late, with a backlog of 16: nothing waits at any
    /// look, and the listener's own counter rises.
    #[test]
    fn bursts_between_two_looks_are_found_by_the_listener_s_counter() {
        let overflowed = Seen {
            dropped: 240,
            refused: 240,
            overflowed: 240,
            ..seen(16)
        };
        let (verdict, why) = judge(&overflowed);
        assert_eq!(verdict, SynVerdict::Burst);
        assert!(why.starts_with("240 handshakes refused"), "{why}");
        let one = Seen {
            dropped: 1,
            refused: 1,
            overflowed: 1,
            ..seen(16)
        };
        assert_eq!(judge(&one).0, SynVerdict::Healthy);
    }

    /// Its queue reached the limit, and no handshake was turned away.
    #[test]
    fn a_queue_that_is_just_full_is_no_trouble() {
        let full = Seen {
            syn_queue: 5,
            young: 5,
            ..seen(5)
        };
        assert_eq!(verdict(full), SynVerdict::Healthy);
    }
}
