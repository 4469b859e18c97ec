//! SYN queues and cookies: each listener's verdict, and what the namespaces count.

use crate::{
    check::{
        context::Context,
        finding::{Figure, Finding, Row, RowReport, Verdict, figure_of},
    },
    render::{quantity::counted, words},
    snapshot::{Listener, Netns, SynBreakdown, SynVerdict},
};

/// Looks over the sample.
pub(super) fn look(context: &Context) -> RowReport {
    match context.watched() {
        Ok(watched) => judge(&watched.snapshot.syn),
        Err(why) => RowReport::blind(Row::Syn, format!("the queues of listeners: {why}")),
    }
}

fn at(netns: &Netns) -> String {
    match (&netns.name, netns.is_own) {
        (_, true) => String::new(),
        (Some(name), _) => format!("@{name}"),
        (None, _) => format!("@net:[{}]", netns.inode),
    }
}

fn judge(syn: &SynBreakdown) -> RowReport {
    let sent: u64 = syn.namespaces.iter().map(|one| one.cookies.sent).sum();
    let off = syn
        .namespaces
        .iter()
        .filter(|one| one.settings.syncookies == Some(0));
    let mut summary = format!("{}, ", counted(syn.listeners_total, "listener"));
    summary += &match sent {
        0 => "no cookies sent".to_owned(),
        sent => format!("{} sent", counted(sent, "cookie")),
    };
    let off: Vec<String> = off.map(|one| at(&one.netns)).collect();
    if !off.is_empty() {
        summary += ", tcp_syncookies is 0";
    }
    let mut report = RowReport::new(Row::Syn, summary, figures(syn));
    let mut verdicts = syn.listeners.iter().map(|listener| listener.verdict);
    report.is_partial = verdicts.any(|verdict| verdict == SynVerdict::NotJudged);
    let trouble = syn.listeners.iter().filter_map(finding);
    report.findings.extend(trouble);
    if !off.is_empty() {
        let mut of = off;
        of.retain(|at| !at.is_empty());
        report.findings.push(Finding {
            verdict: Verdict::Note,
            what: "SYN cookies are off: a flood fills the queue, and nobody gets in".to_owned(),
            who: of,
            why: "net.ipv4.tcp_syncookies is 0; the kernel's default is 1".to_owned(),
            next: "sysctl net.ipv4.tcp_syncookies=1".to_owned(),
        });
    }
    report
}

fn finding(listener: &Listener) -> Option<Finding> {
    let verdict = match listener.verdict {
        SynVerdict::Healthy | SynVerdict::NotJudged => return None,
        SynVerdict::Flood => Verdict::Critical,
        SynVerdict::Burst | SynVerdict::SlowAccept => Verdict::Warning,
    };
    let process = match &listener.process {
        Some((pid, comm)) => format!("{comm}[{pid}]"),
        None => "a process that is not known".to_owned(),
    };
    let advice = words::syn_advice(listener.verdict).unwrap_or_default();
    Some(Finding {
        verdict,
        what: format!(
            "{} at {}{}: {}",
            words::syn_plain(listener.verdict),
            words::address(listener.local),
            at(&listener.netns),
            listener.why
        ),
        who: vec![process],
        why: advice.to_owned(),
        next: "sudo tracer syn".to_owned(),
    })
}

fn figures(syn: &SynBreakdown) -> Vec<Figure> {
    let mut figures = Vec::new();
    for one in &syn.namespaces {
        let at = at(&one.netns);
        for (name, count) in [
            ("syn_cookies_sent", one.cookies.sent),
            ("syn_cookies_valid", one.cookies.valid),
            ("syn_cookies_failed", one.cookies.failed),
            ("syn_queue_full_drops", one.syn_queue_full_drops),
            ("accept_queue_full", one.accept_queue_full),
            ("listen_drops_of_sample", one.drops),
        ] {
            figures.push(figure_of(name, &at, count as f64));
        }
        if let Some(setting) = one.settings.syncookies {
            figures.push(figure_of("tcp_syncookies", &at, setting));
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::{
        check::finding::Verdict,
        snapshot::{Cookies, Listener, NamespaceSyn, Netns, SynBreakdown, SynSettings, SynVerdict},
    };

    fn syn(verdict: SynVerdict, syncookies: u32) -> SynBreakdown {
        let netns = Netns {
            is_own: true,
            ..Netns::default()
        };
        SynBreakdown {
            listeners: vec![Listener {
                process: Some((7, "web".into())),
                local: "0.0.0.0:80".parse().unwrap(),
                netns: netns.clone(),
                syn_queue: 129,
                young: 0,
                accept_queue: 0,
                backlog: 128,
                cookies: None,
                by_cookie: None,
                sources: None,
                drops: 0,
                verdict,
                why: "129 of 128 in the SYN queue".into(),
            }],
            listeners_total: 1,
            namespaces: vec![NamespaceSyn {
                netns,
                settings: SynSettings {
                    syncookies: Some(syncookies),
                    ..SynSettings::default()
                },
                cookies: Cookies {
                    sent: 12,
                    ..Cookies::default()
                },
                ..NamespaceSyn::default()
            }],
        }
    }

    #[test]
    fn verdicts_are_those_of_the_listeners() {
        for (of_listener, verdict) in [
            (SynVerdict::Healthy, Verdict::Ok),
            (SynVerdict::NotJudged, Verdict::Unknown),
            (SynVerdict::Burst, Verdict::Warning),
            (SynVerdict::SlowAccept, Verdict::Warning),
            (SynVerdict::Flood, Verdict::Critical),
        ] {
            assert_eq!(judge(&syn(of_listener, 1)).verdict(), verdict);
        }
        let report = judge(&syn(SynVerdict::Healthy, 0));
        assert_eq!(report.verdict(), Verdict::Note);
        assert!(report.summary.starts_with("1 listener, 12 cookies sent"));
    }
}
