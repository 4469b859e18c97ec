//! What a text says of TCP sockets, as it looks.

use super::{Render, TextOptions, example, text::TextRenderer};
use crate::snapshot::{Snapshot, Start, Subject, Summary, TcpBreakdown};

fn start(subject: Subject) -> Start {
    Start {
        subject,
        hooks: Vec::new(),
        notes: Vec::new(),
        ..example::start()
    }
}

fn tick(options: TextOptions, start: &Start, snapshot: &Snapshot) -> String {
    let mut renderer = TextRenderer::new(options);
    renderer.start(start);
    let text = String::from_utf8(renderer.snapshot(snapshot)).unwrap();
    text.replace('\x1b', "␛")
}

fn end(options: TextOptions, start: &Start, summary: &Summary) -> String {
    let mut renderer = TextRenderer::new(options);
    renderer.start(start);
    String::from_utf8(renderer.end(summary)).unwrap()
}

fn plain(width: u16) -> TextOptions {
    TextOptions {
        width,
        ..TextOptions::default()
    }
}

#[test]
fn tcp_in_text() {
    let start = start(Subject::Tcp);
    let text = [160, 100, 60].map(|width| tick(plain(width), &start, &example::snapshot()));
    insta::assert_snapshot!(text.join("\n----\n"));
}

#[test]
fn tcp_page_of_40_and_of_24_rows() {
    let start = start(Subject::Tcp);
    let page = |height| TextOptions {
        height,
        page: true,
        ..plain(110)
    };
    let text = [40, 24].map(|height| tick(page(height), &start, &example::snapshot()));
    insta::assert_snapshot!(text.join("\n----\n"));
}

#[test]
fn tcp_in_color() {
    let options = TextOptions {
        color: true,
        ..plain(120)
    };
    insta::assert_snapshot!(tick(options, &start(Subject::Tcp), &example::snapshot()));
}

#[test]
fn tcp_transitions_as_a_grid() {
    let start = Start {
        matrix: true,
        ..start(Subject::Tcp)
    };
    let grid = |width| {
        let text = tick(plain(width), &start, &example::snapshot());
        let grid = text.split("\n\n").find(|part| part.starts_with("TRANS"));
        grid.unwrap().to_owned()
    };
    insta::assert_snapshot!([100, 60].map(grid).join("\n----\n"));
}

#[test]
fn tcp_of_an_idle_host() {
    let start = start(Subject::Tcp);
    let text = tick(plain(100), &start, &Snapshot::default());
    let end = end(plain(100), &start, &Summary::default());
    insta::assert_snapshot!(text + &end);
}

#[test]
fn tcp_of_a_run() {
    insta::assert_snapshot!(end(plain(120), &start(Subject::Tcp), &example::summary()));
}

#[test]
fn the_load_alone_says_nothing_of_tcp() {
    for subject in [Subject::Load, Subject::All] {
        let start = start(subject);
        let text = tick(plain(120), &start, &example::snapshot());
        let end = end(plain(120), &start, &example::summary());
        for text in [text, end] {
            assert_eq!(text.contains("CLOSE_WAIT"), subject == Subject::All);
            assert!(text.contains("php-fpm"));
        }
    }
}

#[test]
fn leaks_outlive_the_rest_on_a_low_page() {
    let options = TextOptions {
        height: 24,
        page: true,
        ..plain(160)
    };
    let text = tick(options, &start(Subject::All), &example::snapshot());
    assert!(text.contains("leak  api[991]"), "{text}");
    assert!(text.contains("tracer tcp has all"), "{text}");
    let quiet = Snapshot {
        tcp: TcpBreakdown::default(),
        ..example::snapshot()
    };
    let text = tick(options, &start(Subject::All), &quiet);
    assert!(text.contains("no sockets"), "{text}");
}
