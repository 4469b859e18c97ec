//! Every output, as it looks, and that every figure has its place.

use std::{collections::BTreeSet, fmt::Write};

use serde_json::Value;

use super::{
    Render, TextOptions, docs, events::EventsRenderer, example, example_events::events,
    example_tcp, json::JsonRenderer, oom_page, syn, table, tcp_page, text::TextRenderer,
    turned as turned_table,
};
use crate::{
    figures::FIGURES,
    snapshot::{BlockedTask, Event, Group, GroupBy, LoadBreakdown, Rows, Snapshot, Start, Summary},
    text::Text,
};

fn run(
    renderer: &mut impl Render,
    start: &Start,
    snapshot: &Snapshot,
    summary: &Summary,
) -> String {
    let bytes = [
        renderer.start(start),
        renderer.snapshot(snapshot),
        renderer.end(summary),
    ];
    String::from_utf8(bytes.concat()).unwrap()
}

fn trouble(options: TextOptions) -> String {
    let mut renderer = TextRenderer::new(options);
    visible(&run(
        &mut renderer,
        &example::start(),
        &example::snapshot(),
        &example::summary(),
    ))
}

fn visible(text: &str) -> String {
    text.replace('\x1b', "␛")
}

fn plain(width: u16) -> TextOptions {
    TextOptions {
        width,
        ..TextOptions::default()
    }
}

#[test]
fn text_wide() {
    insta::assert_snapshot!(trouble(plain(120)));
}

#[test]
fn text_80() {
    insta::assert_snapshot!(trouble(plain(80)));
}

#[test]
fn text_60() {
    insta::assert_snapshot!(trouble(plain(60)));
}

#[test]
fn text_in_color() {
    insta::assert_snapshot!(trouble(TextOptions {
        color: true,
        ..plain(120)
    }));
}

#[test]
fn page_of_24_rows() {
    insta::assert_snapshot!(trouble(TextOptions {
        height: 24,
        page: true,
        ..plain(100)
    }));
}

#[test]
fn page_of_19_rows() {
    let mut renderer = TextRenderer::new(TextOptions {
        page: true,
        ..plain(120)
    });
    renderer.resize(120, 19);
    renderer.start(&example::start());
    let page = renderer.snapshot(&example::snapshot());
    insta::assert_snapshot!(visible(&String::from_utf8(page).unwrap()));
}

#[test]
fn text_of_an_idle_host() {
    let mut renderer = TextRenderer::new(plain(100));
    let start = Start {
        hooks: Vec::new(),
        notes: Vec::new(),
        ..example::start()
    };
    let text = run(
        &mut renderer,
        &start,
        &Snapshot::default(),
        &Summary::default(),
    );
    insta::assert_snapshot!(text);
}

#[test]
fn text_with_hostile_and_wide_names() {
    let group = |comm: &[u8], cgroup: &str| Group {
        pid: Some(4_194_304),
        comm: Some(Text::from_bytes(comm)),
        cgroup: Some(cgroup.into()),
        threads: 1_000_000,
        load: [10_000.0, f64::NAN, -0.5],
        ..Group::default()
    };
    let snapshot = Snapshot {
        load: LoadBreakdown {
            groups: vec![
                group(
                    b"\x1b[2J\x1b[31mred\n",
                    "/kubepods.slice/pod\u{202e}0123456789abcdef/0123456789abcdef",
                ),
                group(
                    "データベース漢字".as_bytes(),
                    "/漢字/データベース/漢字漢字漢字漢字",
                ),
                group(b"", ""),
            ],
            ..LoadBreakdown::default()
        },
        blocked: vec![BlockedTask {
            comm: "データベース漢字".into(),
            age_ns: u64::MAX,
            ..BlockedTask::default()
        }],
        ..Snapshot::default()
    };
    let mut text = String::new();
    for width in [110, 70] {
        let mut renderer = TextRenderer::new(plain(width));
        renderer.start(&example::start());
        text.push_str(&String::from_utf8(renderer.snapshot(&snapshot)).unwrap());
    }
    insta::assert_snapshot!(text);
}

#[test]
fn text_by_other_groups() {
    let mut text = String::new();
    for by in [GroupBy::Comm, GroupBy::Cgroup, GroupBy::User] {
        let load = LoadBreakdown {
            groups: example::groups(),
            ..LoadBreakdown::default()
        };
        let table = table::of_tick(&load, by, 70);
        for line in [&table.head, &table.groups[0].row, &table.groups[2].row] {
            line.write(&mut text, 70, false);
            text.push('\n');
        }
    }
    insta::assert_snapshot!(text);
}

/// A tick of the table turned round.
fn turned(rows: Rows, options: TextOptions) -> String {
    let mut renderer = TextRenderer::new(options);
    renderer.start(&Start {
        rows,
        ..example::start()
    });
    let text = String::from_utf8(renderer.snapshot(&example::snapshot())).unwrap();
    visible(&text)
}

#[test]
fn text_by_cause_and_by_device() {
    let mut text = String::new();
    for (rows, width) in [
        (Rows::Causes, 140),
        (Rows::Causes, 60),
        (Rows::Devices, 100),
    ] {
        let whole = turned(rows, plain(width));
        // The table alone: from its headings on.
        let table = whole.split("\n\n").find(|part| part.contains("BLOCK  "));
        writeln!(text, "{}\n", table.unwrap()).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn page_by_cause_of_22_rows() {
    insta::assert_snapshot!(turned(
        Rows::Causes,
        TextOptions {
            height: 22,
            page: true,
            color: true,
            ..plain(100)
        }
    ));
}

#[test]
fn text_with_stacks() {
    let options = TextOptions {
        stacks: true,
        ..plain(80)
    };
    let whole = turned(Rows::Groups, options);
    let blocked = whole
        .split("\n\n")
        .find(|part| part.contains("BLOCKED NOW"));
    insta::assert_snapshot!(blocked.unwrap());
}

#[test]
fn a_page_has_as_many_frames_as_it_has_room_for() {
    let page = |height| {
        let options = TextOptions {
            stacks: true,
            page: true,
            height,
            ..plain(100)
        };
        let text = turned(Rows::Groups, options);
        assert!(text.lines().count() <= height.into());
        let (_, blocked) = text.split_once("BLOCKED NOW").unwrap();
        let is_frame = |line: &&str| line.starts_with("        ");
        blocked.lines().filter(is_frame).count()
    };
    // All of them: 6 + 3 + 3 + 1 + 3.
    assert_eq!(page(80), 16);
    let fewer = page(52);
    assert!((1..16).contains(&fewer), "{fewer}");
}

fn json_lines() -> Vec<Value> {
    let mut renderer = JsonRenderer::new();
    let mut lines = run(
        &mut renderer,
        &example::start(),
        &example::snapshot(),
        &example::summary(),
    );
    for event in events() {
        lines += &String::from_utf8(renderer.event(&event)).unwrap();
    }
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn events_in_text() {
    let mut text = String::new();
    for stacks in [false, true] {
        let mut renderer = EventsRenderer::new(TextOptions {
            stacks,
            ..TextOptions::default()
        });
        for event in events() {
            text += &String::from_utf8(renderer.event(&event)).unwrap();
        }
        text += "\n";
    }
    let mut renderer = EventsRenderer::new(TextOptions::default());
    text += &String::from_utf8(renderer.end(&example::summary())).unwrap();
    insta::assert_snapshot!(text);
}

/// A process that leaks many a second is a line a reading.
#[test]
fn sockets_that_leak_together_are_one_line() {
    let leaks = example_tcp::leaks();
    let first = leaks.first().unwrap();
    let mut other = first.clone();
    other.pid = Some(1);
    let events = [first, first, first, &other].map(|leak| Event::Leak(leak.clone()));
    let mut renderer = EventsRenderer::new(TextOptions::default());
    let text = String::from_utf8(renderer.events(&events)).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains("   3 sockets, e.g. "), "{text}");
    assert!(!lines[1].contains("e.g."), "{text}");
    assert_eq!(lines.len(), 2);
    let json = JsonRenderer::new().events(&events);
    assert_eq!(String::from_utf8(json).unwrap().lines().count(), 4);
}

#[test]
fn json() {
    let mut pretty = String::new();
    for line in json_lines() {
        writeln!(pretty, "{line:#}").unwrap();
    }
    insta::assert_snapshot!(pretty);
}

#[test]
fn a_json_number_is_finite_and_short() {
    let mut renderer = JsonRenderer::new();
    let snapshot = Snapshot {
        load: LoadBreakdown {
            averages: [f64::NAN, -0.000_000_1, 0.123_456_789],
            before_start: [f64::INFINITY, 1.0, f64::NEG_INFINITY],
            ..LoadBreakdown::default()
        },
        ..Snapshot::default()
    };
    let line = String::from_utf8(renderer.snapshot(&snapshot)).unwrap();
    assert!(line.contains(r#""averages":[null,0.0,0.123457]"#), "{line}");
    assert!(
        line.contains(r#""before_start":{"load1":null,"load5":1.0,"load15":null}"#),
        "{line}"
    );
}

/// The paths of all leaves, with list indices and map keys taken out.
pub(crate) fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = match path.rsplit('.').next() {
                    Some("lost") => "{reason}",
                    Some("states") => "{state}",
                    _ => name,
                };
                paths(field, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                paths(element, &format!("{path}[]"), found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn every_path_is_a_figure_and_every_figure_a_path() {
    let mut found = BTreeSet::new();
    for line in json_lines() {
        paths(&line, line["type"].as_str().unwrap(), &mut found);
    }
    let table: BTreeSet<_> = FIGURES
        .iter()
        .map(|figure| figure.path.to_owned())
        .collect();
    let no_figure: Vec<_> = found.difference(&table).collect();
    let not_written: Vec<_> = table.difference(&found).collect();
    assert!(
        no_figure.is_empty() && not_written.is_empty(),
        "{no_figure:?} {not_written:?}"
    );
    assert_eq!(table.len(), FIGURES.len(), "a path twice");
}

#[test]
fn every_column_is_a_figure() {
    let headings = table::headings().chain(turned_table::headings());
    for (heading, path) in headings
        .chain(tcp_page::headings())
        .chain(oom_page::headings())
        .chain(syn::headings())
    {
        assert!(
            FIGURES.iter().any(|figure| figure.path == path),
            "{heading}: {path}"
        );
    }
}

#[test]
fn pages_are_whole_tables() {
    for page in [docs::figures_page(), docs::hooks_page(), docs::check_page()] {
        let mut columns = None;
        for line in page.lines() {
            let cells = line.replace("\\|", "").matches('|').count();
            assert!(
                cells == 0 || *columns.get_or_insert(cells) == cells,
                "{line}"
            );
            columns = columns.filter(|_| cells > 0);
        }
    }
}
