use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof, proptest},
};
use roxmltree::{Document, Node};

use super::{COLUMN, LEAST_PART, PAD, ROW, SIDE, SPAN, flame, tree::Tree};
use crate::{
    render::{
        example::{blocked_stack, blocked_stacks},
        line,
    },
    snapshot::BlockedStack,
};

/// A frame as it is in the file.
#[derive(Debug)]
struct Frame {
    tip: String,
    x: f64,
    y: f64,
    width: f64,
    fill: String,
    text: String,
}

fn svg(title: &str, stacks: &[BlockedStack]) -> String {
    String::from_utf8(flame(title, stacks)).unwrap()
}

fn child<'d>(node: Node<'d, 'd>, tag: &str) -> Option<Node<'d, 'd>> {
    node.children().find(|child| child.has_tag_name(tag))
}

fn frames(svg: &str) -> Vec<Frame> {
    let document = Document::parse(svg).unwrap();
    let frames = document
        .descendants()
        .filter(|node| node.attribute("class") == Some("frame"));
    let frame = |g| {
        let rect: Node<'_, '_> = child(g, "rect").unwrap();
        let number = |key| rect.attribute(key).unwrap().parse().unwrap();
        let text = |tag| {
            child(g, tag)
                .and_then(|node| node.text())
                .unwrap_or_default()
        };
        Frame {
            tip: text("title").to_owned(),
            x: number("x"),
            y: number("y"),
            width: number("width"),
            fill: rect.attribute("fill").unwrap().to_owned(),
            text: text("text").to_owned(),
        }
    };
    frames.map(frame).collect()
}

#[test]
fn an_example() {
    let svg = svg("Blocked time on web-1", &blocked_stacks());
    // The style and the script have files of their own.
    let svg = svg
        .replace(super::STYLE, "…\n")
        .replace(super::SCRIPT, "…\n");
    insta::assert_snapshot!(svg);
}

#[test]
fn without_blocked_time_it_says_so() {
    let svg = svg("quiet", &[blocked_stack("dd", "disk", None, &["f"], 0)]);
    assert!(Document::parse(&svg).is_ok());
    assert!(svg.contains("Nothing was blocked."), "{svg}");
    assert!(!svg.contains("<script"));
    assert_eq!(svg.as_bytes(), flame("quiet", &[]));
}

#[test]
fn the_order_of_the_stacks_leaves_no_trace() {
    let mut stacks = blocked_stacks();
    let svg = flame("t", &stacks);
    stacks.reverse();
    assert_eq!(flame("t", &stacks), svg);
}

#[test]
fn foreign_text_stays_text() {
    let hostile = "</title><a&b\"'>";
    let svg = svg(
        &format!("{hostile}]]>\u{1b}\u{ffff}"),
        &[blocked_stack(
            hostile,
            "disk",
            Some(hostile),
            &[hostile],
            1_500_000_000,
        )],
    );
    let document = Document::parse(&svg).unwrap();
    assert_eq!(
        child(document.root_element(), "title").unwrap().text(),
        Some("</title><a&b\"'>]]>\u{fffd}\u{fffd}")
    );
    let tips: Vec<_> = frames(&svg).into_iter().map(|frame| frame.tip).collect();
    assert_eq!(
        tips,
        [
            "all blocked time, 1.5 s, 100.0 %".to_owned(),
            format!("{hostile}, 1.5 s, 100.0 %"),
            format!("disk [{hostile}], 1.5 s, 100.0 %"),
            format!("{hostile}, 1.5 s, 100.0 %"),
        ]
    );
}

#[test]
fn it_loads_nothing_from_elsewhere() {
    let svg = svg("t", &blocked_stacks());
    for foreign in ["href", "url(", "@import", "src=", "<!ENTITY", "<image"] {
        assert!(!svg.contains(foreign), "{foreign}");
    }
    let without_names = svg
        .replace("http://www.w3.org/2000/svg", "")
        .replace("http://www.w3.org/1999/xhtml", "");
    assert!(!without_names.contains("//www") && !without_names.contains("http"));
}

#[test]
fn what_is_narrower_than_a_thousandth_is_left_out() {
    let stacks = [
        blocked_stack("wide", "disk", None, &[], 9_985),
        blocked_stack("narrow", "disk", None, &[], 10),
        blocked_stack("too_narrow", "disk", None, &["f"], 5),
    ];
    let svg = svg("t", &stacks);
    assert!(svg.contains("<title>narrow, ") && !svg.contains("too_narrow"));
}

#[test]
fn frames_of_a_cause_share_a_hue_and_processes_have_none() {
    let svg = svg(
        "t",
        &[
            blocked_stack("dd", "disk", None, &["submit", "vfs"], 3),
            blocked_stack("mv", "lock", None, &["submit", "vfs"], 2),
            blocked_stack("dd", "disk", Some("vda"), &["vfs"], 1),
        ],
    );
    let fills = |name: &str| -> Vec<_> {
        let frames = frames(&svg).into_iter();
        frames
            .filter(|frame| frame.tip.starts_with(name))
            .map(|frame| frame.fill)
            .collect()
    };
    // Same name and cause: the same colour. Another cause: another one.
    let vfs = fills("vfs,");
    assert_eq!(vfs.len(), 3);
    assert_eq!(vfs[0], vfs[1]);
    assert_ne!(vfs[0], vfs[2]);
    let is_grey = |fill: &str| {
        let part = |at| u8::from_str_radix(&fill[at..at + 2], 16).unwrap();
        part(1).abs_diff(part(5)) < 16
    };
    assert!(is_grey(&fills("dd,")[0]) && !is_grey(&vfs[0]));
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]", ".{0,20}", "[<>&\"' ;\\]]{0,8}", "[漢字]{0,15}"]
}

fn stack() -> impl Strategy<Value = BlockedStack> {
    let cause = prop_oneof![Just("disk"), Just("lock"), Just("a <&> cause")];
    let ns = prop_oneof![Just(0), 1..100_000_u64, any::<u64>()];
    (
        name(),
        cause,
        proptest::option::of(name()),
        vec(name(), 0..5),
        ns,
    )
        .prop_map(|(comm, cause, detail, frames, ns)| {
            let frames: Vec<_> = frames.iter().map(String::as_str).collect();
            blocked_stack(&comm, cause, detail.as_deref(), &frames, ns)
        })
}

proptest! {
    #[test]
    fn a_parent_is_as_long_as_its_children_and_what_ended_in_it(stacks in vec(stack(), 0..20)) {
        let tree = Tree::new(&stacks);
        let total: u128 = stacks.iter().map(|stack| u128::from(stack.blocked_ns)).sum();
        assert_eq!(tree.root().blocked_ns, total);
        let mut ended = 0;
        let mut next = vec![tree.root()];
        while let Some(node) = next.pop() {
            let children: u128 = tree.children(node).map(|child| child.blocked_ns).sum();
            ended += node.blocked_ns.checked_sub(children).unwrap();
            next.extend(tree.children(node));
        }
        // Each stack's time ends in one node, so nothing is there twice.
        assert_eq!(ended, total);
    }

    #[test]
    fn any_text_gives_a_sound_picture(title: String, stacks in vec(stack(), 0..20)) {
        let svg = svg(&title, &stacks);
        let frames = frames(&svg);
        for (at, frame) in frames.iter().enumerate() {
            assert!(frame.width >= LEAST_PART * SPAN - 0.01, "{frame:?}");
            assert!(frame.x >= SIDE && frame.x + frame.width <= SIDE + SPAN + 0.02);
            let letters = line::width(&frame.text) as f64 * COLUMN;
            assert!(frame.text.is_empty() || letters <= frame.width - 2.0 * PAD + 0.01);
            // Parents come first: the last one a row below is what it stands on.
            let parent = frames[..at].iter().rfind(|below| below.y == frame.y + ROW);
            if at > 0 {
                let parent = parent.unwrap();
                assert!(frame.x >= parent.x - 0.02);
                assert!(frame.x + frame.width <= parent.x + parent.width + 0.02);
            }
        }
    }
}
