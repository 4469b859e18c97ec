//! Listeners in words, the page of `tracer syn`, and what other texts say of them.

use super::{
    grid::{Cell, Column, number, plain, text},
    line::{Line, Style},
    oom::indented,
    quantity::{counted, grouped},
    sections::flow,
    tcp::{foreign, netns, owner},
    tcp_page::Section,
    words,
};
use crate::snapshot::{Listener, NamespaceSyn, Prefix, SourcesOf, SynBreakdown, SynVerdict};

/// Blanks before what explains a listener.
const INDENT: usize = 6;

const LISTENER: [Column; 12] = [
    text("VERDICT", "snapshot.syn.listeners[].verdict"),
    text("LISTENER", "snapshot.syn.listeners[].comm"),
    text("LOCAL", "snapshot.syn.listeners[].local"),
    number("SYNQ", "snapshot.syn.listeners[].syn_queue"),
    number("YOUNG", "snapshot.syn.listeners[].young"),
    number("ACCEPTQ", "snapshot.syn.listeners[].accept_queue"),
    number("BACKLOG", "snapshot.syn.listeners[].backlog"),
    number("DROPS", "snapshot.syn.listeners[].drops"),
    number("COOKIES", "snapshot.syn.listeners[].cookies_sent"),
    number("VALID", "snapshot.syn.listeners[].cookies_valid"),
    number("FAILED", "snapshot.syn.listeners[].cookies_failed"),
    text("ELSEWHERE", "snapshot.syn.listeners[].netns.name"),
];

const NAMESPACE: [Column; 10] = [
    text("NETNS", "snapshot.syn.namespaces[].netns.name"),
    number("SYNCOOKIES", "snapshot.syn.namespaces[].syncookies"),
    number("SENT", "snapshot.syn.namespaces[].cookies_sent"),
    number("VALID", "snapshot.syn.namespaces[].cookies_valid"),
    number("FAILED", "snapshot.syn.namespaces[].cookies_failed"),
    number(
        "SYNQ FULL",
        "snapshot.syn.namespaces[].syn_queue_full_drops",
    ),
    number(
        "ACCEPTQ FULL",
        "snapshot.syn.namespaces[].accept_queue_full",
    ),
    number("DROPS", "snapshot.syn.namespaces[].drops"),
    number("MAX BACKLOG", "snapshot.syn.namespaces[].max_syn_backlog"),
    number("SOMAXCONN", "snapshot.syn.namespaces[].somaxconn"),
];

/// Every heading with the path of its figure, for the documentation.
pub(super) fn headings() -> impl Iterator<Item = (&'static str, &'static str)> {
    let columns = LISTENER.into_iter().chain(NAMESPACE);
    columns.map(|column| (column.heading, column.path))
}

/// The page.
pub(super) fn sections(syn: &SynBreakdown, columns: usize) -> Vec<Section> {
    let mut sections = vec![trouble(syn, columns)];
    if !syn.listeners.is_empty() {
        sections.push(listeners(syn, columns));
    }
    if !syn.namespaces.is_empty() {
        sections.push(namespaces(&syn.namespaces, columns));
    }
    sections
}

fn is_in_trouble(listener: &&Listener) -> bool {
    listener.verdict.is_trouble()
}

/// Who listens.
pub(super) fn name(listener: &Listener) -> String {
    match &listener.process {
        Some((pid, comm)) => owner(Some(*pid), comm),
        None => "(unknown)".to_owned(),
    }
}

pub(super) fn style(verdict: SynVerdict) -> Style {
    match verdict {
        SynVerdict::Healthy | SynVerdict::NotJudged => Style::Plain,
        SynVerdict::Burst => Style::Yellow,
        SynVerdict::SlowAccept | SynVerdict::Flood => Style::Red,
    }
}

/// A listener in trouble: what, why, and what to do.
fn explained(listener: &Listener, columns: usize) -> Vec<Line> {
    let mut line = Line::plain("  ");
    line.push(style(listener.verdict), words::syn_plain(listener.verdict));
    line.push(Style::Bold, format!("   {}", name(listener)));
    let local = words::address(listener.local);
    line.push(Style::Plain, format!("   {local}"));
    if let Some(netns) = foreign(&listener.netns) {
        line.push(Style::Plain, format!("   {netns}"));
    }
    let mut lines = vec![line];
    lines.extend(indented(&listener.why, INDENT, columns));
    let more = [sources(listener), lost_by_cookie(listener)];
    lines.extend(
        more.iter()
            .flatten()
            .flat_map(|more| indented(more, INDENT, columns)),
    );
    let advice = words::syn_advice(listener.verdict);
    lines.extend(advice.map_or_else(Vec::new, |advice| indented(advice, INDENT, columns)));
    lines
}

/// Whom its handshakes come from.
fn sources(listener: &Listener) -> Option<String> {
    let sources = listener.sources.as_ref()?;
    let addresses = counted(sources.addresses, "source");
    let mut words = match sources.of {
        SourcesOf::Queue => format!("{addresses} in the SYN queue"),
        SourcesOf::Cookies => format!("cookies sent to about {addresses}"),
    };
    let part = |prefix: &Prefix| {
        let percent = prefix.sampled * 100 / sources.sampled.max(1);
        format!("{} {percent} %", words::prefix(prefix))
    };
    let prefixes: Vec<_> = sources.prefixes.iter().map(part).collect();
    match prefixes.is_empty() {
        true => words.push_str(", no prefix stands out"),
        false => words.push_str(&format!(": {}", prefixes.join(", "))),
    }
    Some(words)
}

/// What connections by cookie go without.
fn lost_by_cookie(listener: &Listener) -> Option<String> {
    let by = listener.by_cookie.as_ref()?;
    let lost = by.without_timestamps;
    let without = "without timestamps, and so without window scaling, SACK and ECN";
    let Some(established) = by.established else {
        return (lost > 0).then(|| format!("{} by cookie {without}", counted(lost, "connection")));
    };
    let mut words = counted(established, "connection");
    words.push_str(" by cookie");
    if by.refused.is_some_and(|refused| refused > 0) {
        let refused = grouped(by.refused.unwrap_or_default());
        words.push_str(&format!(
            " ({refused} more refused: the accept queue was full)"
        ));
    }
    if lost > 0 {
        words.push_str(&format!(", {} of them {without}", grouped(lost)));
    }
    let mss = |(mss, connections): &(u16, u64)| format!("{mss} for {}", grouped(*connections));
    let mss: Vec<_> = by.mss.iter().rev().map(mss).collect();
    if !mss.is_empty() {
        words.push_str(&format!("; MSS {}", mss.join(", ")));
    }
    (established > 0 || by.refused > Some(0)).then_some(words)
}

fn trouble(syn: &SynBreakdown, columns: usize) -> Section {
    let troubled: Vec<_> = syn.listeners.iter().filter(is_in_trouble).collect();
    let head = Line::styled(Style::Bold, "SYN").with(Style::Plain, format!("   {}", state(syn)));
    let rows = troubled.iter().flat_map(|l| explained(l, columns));
    Section::new("SYN", vec![head]).with_rows(rows.collect(), 3)
}

/// How many listeners there are, and how many of them are well.
fn state(syn: &SynBreakdown) -> String {
    let troubled = syn.listeners.iter().filter(is_in_trouble).count() as u64;
    let is_unknown = |l: &&Listener| l.verdict == SynVerdict::NotJudged;
    let unknown = syn.listeners.iter().filter(is_unknown).count() as u64;
    let all = counted(syn.listeners_total, "listener");
    match (syn.listeners_total, troubled, unknown) {
        (0, ..) => "no listeners".to_owned(),
        (_, 0, 0) => format!("{all}, healthy"),
        (_, 0, unknown) => format!("{all}, {} not judged", grouped(unknown)),
        (_, troubled, _) => format!("{all}, {} in trouble", grouped(troubled)),
    }
}

fn listeners(syn: &SynBreakdown, columns: usize) -> Section {
    let row = |listener: &Listener| {
        let cookies = listener.cookies;
        let known = |count: Option<u64>| plain(count.map_or_else(|| "?".to_owned(), dash));
        vec![
            (
                style(listener.verdict),
                words::syn_plain(listener.verdict).to_owned(),
            ),
            plain(name(listener)),
            plain(words::address(listener.local)),
            number_of(listener.syn_queue),
            number_of(listener.young),
            number_of(listener.accept_queue),
            number_of(listener.backlog),
            plain(dash(listener.drops)),
            known(cookies.map(|cookies| cookies.sent)),
            known(cookies.map(|cookies| cookies.valid)),
            known(cookies.map(|cookies| cookies.failed)),
            plain(match listener.netns.is_own {
                true => String::new(),
                false => netns(&listener.netns),
            }),
        ]
    };
    let rows: Vec<_> = syn.listeners.iter().map(row).collect();
    let head = Line::styled(Style::Bold, "LISTENERS");
    Section::new("LISTENERS", vec![head]).with_table(&LISTENER, &rows, columns)
}

fn namespaces(namespaces: &[NamespaceSyn], columns: usize) -> Section {
    let row = |namespace: &NamespaceSyn| {
        let setting = |setting: Option<u32>| {
            plain(setting.map_or_else(|| "?".to_owned(), |one| grouped(one.into())))
        };
        let settings = namespace.settings;
        let cookies = namespace.cookies;
        vec![
            plain(netns(&namespace.netns)),
            setting(settings.syncookies),
            plain(dash(cookies.sent)),
            plain(dash(cookies.valid)),
            plain(dash(cookies.failed)),
            plain(dash(namespace.syn_queue_full_drops)),
            plain(dash(namespace.accept_queue_full)),
            plain(dash(namespace.drops)),
            setting(settings.max_syn_backlog),
            setting(settings.somaxconn),
        ]
    };
    let rows: Vec<_> = namespaces.iter().map(row).collect();
    let name = "COOKIES AND DROPS BY NETWORK NAMESPACE";
    let head = Line::styled(Style::Bold, name);
    Section::new(name, vec![head]).with_table(&NAMESPACE, &rows, columns)
}

/// What a text says of listeners where they are not the subject.
pub(super) fn section(syn: &SynBreakdown, columns: usize) -> Vec<Line> {
    let mut parts = vec![Line::styled(Style::Bold, "SYN"), Line::plain(state(syn))];
    let troubled = syn.listeners.iter().filter(is_in_trouble).take(2);
    parts.extend(troubled.map(|listener| {
        let (verdict, local) = (
            words::syn_plain(listener.verdict),
            words::address(listener.local),
        );
        let mut words = format!("{verdict} {} {local}", name(listener));
        if let Some(netns) = foreign(&listener.netns) {
            words.push_str(&format!(" {netns}"));
        }
        Line::styled(style(listener.verdict), words)
    }));
    flow(parts, columns)
}

fn number_of(count: u32) -> Cell {
    plain(dash(count.into()))
}

fn dash(count: u64) -> String {
    match count {
        0 => "-".to_owned(),
        count => grouped(count),
    }
}
