//! What a text says of memory, as it looks.

use super::{
    Render as _, TextOptions, events::EventsRenderer, example, example_oom, text::TextRenderer,
};
use crate::snapshot::{Event, Snapshot, Start, Subject, Summary};

fn start(next: bool) -> Start {
    Start {
        subject: Subject::Oom,
        next,
        hooks: Vec::new(),
        notes: Vec::new(),
        ..example::start()
    }
}

fn whole(options: TextOptions, start: &Start, snapshot: &Snapshot, summary: &Summary) -> String {
    let mut renderer = TextRenderer::new(options);
    renderer.start(start);
    let parts = [renderer.snapshot(snapshot), renderer.end(summary)];
    String::from_utf8(parts.concat())
        .unwrap()
        .replace('\x1b', "␛")
}

fn plain(width: u16) -> TextOptions {
    TextOptions {
        width,
        ..TextOptions::default()
    }
}

#[test]
fn oom_in_text() {
    let (snapshot, summary) = (example::snapshot(), example::summary());
    let text = [150, 80].map(|width| whole(plain(width), &start(false), &snapshot, &summary));
    insta::assert_snapshot!(text.join("\n----\n"));
}

#[test]
fn oom_page_of_24_rows() {
    let options = TextOptions {
        height: 24,
        page: true,
        color: true,
        ..plain(110)
    };
    let mut renderer = TextRenderer::new(options);
    renderer.start(&start(false));
    let page = String::from_utf8(renderer.snapshot(&example::snapshot())).unwrap();
    insta::assert_snapshot!(page.replace('\x1b', "␛"));
}

#[test]
fn oom_next_alone() {
    let text = whole(
        plain(120),
        &start(true),
        &example::snapshot(),
        &example::summary(),
    );
    assert!(!text.contains("since the start"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn oom_of_an_idle_host() {
    let text = whole(
        plain(100),
        &start(false),
        &Snapshot::default(),
        &Summary::default(),
    );
    insta::assert_snapshot!(text);
}

#[test]
fn kills_as_events() {
    let mut renderer = EventsRenderer::new(TextOptions {
        stacks: true,
        ..plain(0)
    });
    let kills = example_oom::others()
        .into_iter()
        .chain([example_oom::of_cgroup()]);
    let lines: Vec<u8> = kills
        .flat_map(|kill| renderer.event(&Event::Kill(Box::new(kill))))
        .collect();
    insta::assert_snapshot!(String::from_utf8(lines).unwrap());
}
