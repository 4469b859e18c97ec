//! What a text says of listeners, as it looks.

use super::{
    Render as _, TextOptions, events::EventsRenderer, example, example_syn, text::TextRenderer,
};
use crate::snapshot::{Event, HookState, Snapshot, Start, Subject, Summary};

fn whole(options: TextOptions, snapshot: &Snapshot, summary: &Summary) -> String {
    let start = Start {
        subject: Subject::Syn,
        hooks: Vec::new(),
        notes: Vec::new(),
        ..example::start()
    };
    let mut renderer = TextRenderer::new(options);
    renderer.start(&start);
    let parts = [renderer.snapshot(snapshot), renderer.end(summary)];
    String::from_utf8(parts.concat()).unwrap()
}

fn plain(width: u16) -> TextOptions {
    TextOptions {
        width,
        ..TextOptions::default()
    }
}

#[test]
fn syn_in_text() {
    let (snapshot, summary) = (example::snapshot(), example::summary());
    let text = [150, 80].map(|width| whole(plain(width), &snapshot, &summary));
    insta::assert_snapshot!(text.join("\n----\n"));
}

#[test]
fn syn_of_an_idle_host() {
    let text = whole(plain(100), &Snapshot::default(), &Summary::default());
    insta::assert_snapshot!(text);
}

#[test]
fn listeners_as_events() {
    let mut renderer = EventsRenderer::new(plain(0));
    let lines: Vec<u8> = example_syn::events()
        .into_iter()
        .flat_map(|event| renderer.event(&Event::Syn(Box::new(event))))
        .collect();
    insta::assert_snapshot!(String::from_utf8(lines).unwrap());
}

#[test]
fn hooks_that_are_missing_together() {
    let hook = |name, without| HookState {
        name,
        via: format!("fentry {name}"),
        why: Some(format!("cannot hook {name}: not permitted")),
        without,
    };
    let start = Start {
        hooks: vec![
            hook("oom_kill_process", "whose limit was reached"),
            hook("cookie_v4_check", "whose cookies came back"),
            hook("cookie_v6_check", "whose cookies came back"),
        ],
        notes: Vec::new(),
        ..example::start()
    };
    let lines = TextRenderer::new(plain(100)).start(&start);
    insta::assert_snapshot!(String::from_utf8(lines).unwrap());
}
