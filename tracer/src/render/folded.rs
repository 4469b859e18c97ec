//! Blocked time in the folded format that flame graph tools read: a line a
//! stack, `comm;cause;[detail];outermost;...;innermost COUNT`, COUNT in us.
//!
//! The format has no escapes. So what would end an element or pass for a count
//! is replaced: foreign text adds no line, no element and no number.

use std::collections::BTreeMap;

use crate::snapshot::BlockedStack;

/// What an empty element shows as.
const EMPTY: &str = "-";

/// Folds the stacks: equal ones of several processes added up, those below 1 us
/// left out, in the order of their text.
pub fn folded(stacks: &[BlockedStack]) -> Vec<u8> {
    let mut blocked_ns = BTreeMap::<String, u64>::new();
    for stack in stacks {
        let sum = blocked_ns.entry(path(stack)).or_default();
        *sum = sum.saturating_add(stack.blocked_ns);
    }
    let mut out = String::new();
    for (path, ns) in blocked_ns {
        let us = ns / 1_000;
        if us > 0 {
            out += &format!("{path} {us}\n");
        }
    }
    out.into_bytes()
}

/// Everything of a line before the count.
fn path(stack: &BlockedStack) -> String {
    let mut elements = vec![element(stack.comm.as_str()), element(stack.cause)];
    if let Some(detail) = &stack.detail {
        elements.push(format!("[{}]", element(detail.as_str())));
    }
    let outermost_first = stack.frames.iter().rev();
    elements.extend(outermost_first.map(|frame| element(frame.as_str())));
    elements.join(";")
}

/// Text that stays one element, at the end of a line too.
fn element(text: &str) -> String {
    let plain = |c: char| match c {
        ';' => ':',
        c if c.is_whitespace() || c.is_control() => ' ',
        c => c,
    };
    let mut text: String = text.chars().map(plain).collect();
    let begin = text.len() - text.trim_start().len();
    text.replace_range(..begin, &"_".repeat(begin));
    let end = text.trim_end().len();
    text.replace_range(end.., &"_".repeat(text.len() - end));
    // A number after a blank would be read as a first count of two.
    if let Some(blank) = text.rfind(' ')
        && text[blank + 1..].starts_with(|c: char| c.is_numeric())
    {
        text.replace_range(blank..=blank, "_");
    }
    if text.is_empty() {
        text.push_str(EMPTY);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{element, folded};
    use crate::{
        render::example::{blocked_stack, blocked_stacks},
        snapshot::BlockedStack,
    };

    fn text(stacks: &[BlockedStack]) -> String {
        String::from_utf8(folded(stacks)).unwrap()
    }

    #[test]
    fn an_example() {
        insta::assert_snapshot!(text(&blocked_stacks()));
    }

    #[test]
    fn equal_stacks_are_added_before_they_are_rounded() {
        let stack = |pid, blocked_ns| BlockedStack {
            pid: Some(pid),
            ..blocked_stack("dd", "disk", None, &["inner", "outer"], blocked_ns)
        };
        assert_eq!(
            text(&[stack(7, 1_600), stack(8, 1_600)]),
            "dd;disk;outer;inner 3\n"
        );
        assert_eq!(text(&[stack(7, 999)]), "");
        assert_eq!(
            text(&[stack(7, u64::MAX), stack(8, 1)]),
            format!("dd;disk;outer;inner {}\n", u64::MAX / 1_000)
        );
        assert_eq!(text(&[]), "");
    }

    #[test]
    fn elements() {
        for (foreign, safe) in [
            ("jbd2/vda1-8", "jbd2/vda1-8"),
            ("a;b", "a:b"),
            ("Web Content", "Web Content"),
            (" a  ", "_a__"),
            ("a\nb 7\n", "a b_7_"),
            ("nfs 10.0.0.1", "nfs_10.0.0.1"),
            ("a 1 2", "a 1_2"),
            ("a\u{3000}9", "a_9"),
            ("12", "12"),
            ("  ", "__"),
            ("", "-"),
        ] {
            assert_eq!(element(foreign), safe, "{foreign:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_one_element_and_no_count(comm: String, frame in "[ ;\\n0-9a\u{3000}]{0,8}", us in 1..=u64::MAX / 1_000, detailed in any::<bool>()) {
            let detail = detailed.then_some(comm.as_str());
            let line = text(&[blocked_stack(&comm, "disk", detail, &[&frame], us * 1_000)]);
            assert_eq!(line.lines().count(), 1, "{line:?}");
            let (path, count) = line.strip_suffix('\n').unwrap().rsplit_once(' ').unwrap();
            assert_eq!(count.parse(), Ok(us));
            assert_eq!(path.split(';').count(), 3 + usize::from(detailed));
            assert!(path.split(';').all(|element| !element.is_empty() && element.trim() == element));
            let last = path.rsplit(char::is_whitespace).next().unwrap();
            assert!(!path.contains(' ') || last.parse::<f64>().is_err(), "{path:?}");
        }
    }
}
