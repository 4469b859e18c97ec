//! What is the matter with a listener, by what was seen of it in the last seconds.
//!
//! The kernel drops a SYN, or answers it with a cookie, once `qlen` has reached
//! `sk_max_ack_backlog` (`tcp_conn_request`, net/ipv4/tcp_input.c), and refuses the
//! third ACK while the accept queue is over it (`tcp_v4_syn_recv_sock`). A request is
//! young until its SYN-ACK is sent again, after a second.

use crate::snapshot::{Cookies, SynSettings, SynVerdict};

/// With fewer cookies than this their part that came back says nothing.
const FEW_COOKIES: u64 = 20;

/// Of real peers at least this part of the cookies comes back.
const ANSWERED_PART: u64 = 4;

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
    /// Cookies of the last seconds, of those that are old enough to have come back what
    /// was sent; `None` where they can be another listener's.
    pub(super) cookies: Option<Cookies>,
    /// Cookies sent in the last seconds, the latest ones too, and SYNs dropped for want
    /// of room in the SYN queue.
    pub(super) turned_away: u64,
    /// What the listener itself dropped in the last seconds, for whatever reason (a filter
    /// among them). Without cookies SYNs of peers that are not known are dropped before the
    /// queue is full, once it has three quarters of `tcp_max_syn_backlog`, and only this
    /// counts them.
    pub(super) dropped: u64,
    /// Handshakes of the last seconds that the full accept queue refused, in the
    /// namespace.
    pub(super) refused: u64,
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
    let dropped = seen.dropped_for_room();
    let turned_away = turned_away.max(dropped);
    let is_full = syn_queue >= backlog.max(1) || dropped > 0;
    if seen.only_always_sends(is_full) {
        return (SynVerdict::Healthy, String::new());
    }
    if turned_away == 0 && !(is_full && young > 0) {
        return (SynVerdict::Healthy, left_over(seen));
    }
    let queue = format!("{syn_queue} of {backlog} in the SYN queue, {young} of them young");
    match seen.cookies.filter(|cookies| cookies.sent >= FEW_COOKIES) {
        Some(Cookies { sent, valid, .. }) if valid < sent / ANSWERED_PART => (
            SynVerdict::Flood,
            format!("{queue}; of {sent} cookies {valid} came back"),
        ),
        Some(Cookies { sent, valid, .. }) => (
            SynVerdict::Burst,
            format!("{queue}; {valid} cookies came back for {sent} sent: the peers are real"),
        ),
        // Without cookies to go by: who answers is not queued for a second.
        None if is_full && young < syn_queue / 2 => (
            SynVerdict::Flood,
            format!("{queue}: the others do not answer"),
        ),
        None => (
            SynVerdict::Burst,
            format!("{queue}; {turned_away} turned away in the last seconds"),
        ),
    }
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

    /// Cookies that are sent for each SYN, full or not (`tcp_syncookies` is 2), are no
    /// trouble as long as they come back.
    fn only_always_sends(&self, is_full: bool) -> bool {
        let is_answered = |cookies: &Cookies| {
            cookies.sent < FEW_COOKIES || cookies.valid >= cookies.sent / ANSWERED_PART
        };
        self.settings.always_sends() && !is_full && self.cookies.as_ref().is_none_or(is_answered)
    }
}

/// What a healthy listener still has of its trouble.
fn left_over(seen: &Seen) -> String {
    if seen.backlog > 0 && seen.syn_queue >= seen.backlog {
        let count = seen.syn_queue;
        return format!("{count} requests that nobody answered time out");
    }
    String::new()
}
