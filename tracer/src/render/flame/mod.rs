//! A flame graph of blocked time: one SVG file that needs nothing else. The root
//! at the bottom is all blocked time, then come processes, causes, and kernel
//! functions from the outermost to the innermost. Width is time.
//!
//! The picture is whole without its script, which adds zoom and search. It
//! brings its own ground, light or dark as the reader likes it.
//!
//! Lengths are in px. Letters are taken for 0.6 em wide, as monospace fonts have it.

mod color;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::{
    color::Hues,
    tree::{Node, Tree},
};
use super::{
    line::{cut_end, width},
    quantity::{age, counted},
};
use crate::snapshot::BlockedStack;

const STYLE: &str = include_str!("flame.css");
const SCRIPT: &str = include_str!("flame.js");

const WIDTH: f64 = 1200.0;
const SIDE: f64 = 10.0;
/// Width of the root.
const SPAN: f64 = WIDTH - 2.0 * SIDE;
/// Height of a frame, and of a line of the legend.
const ROW: f64 = 18.0;
/// From the top of a row to the foot of its letters.
const BASELINE: f64 = 13.0;
/// Between a frame's edges and its letters.
const PAD: f64 = 3.0;
/// One column of letters of 12 px.
const COLUMN: f64 = 7.2;
/// One column of the title's letters.
const TITLE_COLUMN: f64 = 16.0 * 0.6;
/// What the search box takes of the title's line.
const SEARCH: f64 = 250.0;
/// Where the legend begins.
const TOP: f64 = 54.0;
/// Below the root: a line for what the script says.
const BOTTOM: f64 = 44.0;
/// Frames of a smaller part of the whole are left out.
const LEAST_PART: f64 = 0.001;
/// A shorter text says nothing.
const LEAST_COLUMNS: usize = 3;

/// Draws the stacks.
pub fn flame(title: &str, stacks: &[BlockedStack]) -> Vec<u8> {
    let tree = Tree::new(stacks);
    if tree.root().blocked_ns == 0 {
        let mut svg = head(title, "Nothing was blocked.", TOP);
        svg.push_str("</svg>\n");
        return svg.into_bytes();
    }
    let causes = by_cause(stacks);
    let hues = Hues::new(causes.iter().map(|&(cause, _)| cause));
    let (legend, legend_rows) = legend(&causes, &hues, tree.root().blocked_ns);
    let placed = place(&tree);
    let deepest = placed.iter().map(|frame| frame.depth).max().unwrap_or(0);
    let top = TOP + (legend_rows as f64 + 0.5) * ROW;
    let root_y = top + deepest as f64 * ROW;

    let mut svg = head(title, &subtitle(stacks, &tree), root_y + BOTTOM);
    svg.push_str(&legend);
    for frame in &placed {
        let shown = Shown {
            y: root_y - frame.depth as f64 * ROW,
            part: percent(frame.node.blocked_ns, tree.root().blocked_ns),
            // A cause itself looks as in the legend.
            fill: match frame.depth {
                2 => hues.cause(frame.node.cause),
                _ => hues.shade(frame.node.cause, &frame.node.name),
            },
        };
        svg.push_str(&draw(frame, &shown));
    }
    // The script is our own text and has no end of a CDATA section.
    svg += &format!("<script><![CDATA[\n{SCRIPT}]]></script>\n</svg>\n");
    svg.into_bytes()
}

/// A frame of the picture.
struct Placed<'t> {
    node: &'t Node<'t>,
    /// 0 is the root.
    depth: usize,
    x: f64,
    width: f64,
}

/// How a frame looks.
struct Shown {
    y: f64,
    part: String,
    fill: String,
}

/// Every frame wide enough to be seen, each before those that stand on it.
fn place<'t>(tree: &'t Tree<'t>) -> Vec<Placed<'t>> {
    let total = tree.root().blocked_ns as f64;
    let mut placed = Vec::new();
    let mut next = vec![Placed {
        node: tree.root(),
        depth: 0,
        x: SIDE,
        width: SPAN,
    }];
    while let Some(frame) = next.pop() {
        let mut x = frame.x;
        let mut children = Vec::new();
        for node in tree.children(frame.node) {
            let part = node.blocked_ns as f64 / total;
            if part < LEAST_PART {
                // Longest first: so are all that follow.
                break;
            }
            let width = part * SPAN;
            children.push(Placed {
                node,
                depth: frame.depth + 1,
                x,
                width,
            });
            x += width;
        }
        next.extend(children.into_iter().rev());
        placed.push(frame);
    }
    placed
}

/// One frame, with its tooltip.
fn draw(frame: &Placed<'_>, shown: &Shown) -> String {
    let name = &frame.node.name;
    let (x, y, w) = (frame.x, shown.y, frame.width);
    let tip = format!("{name}, {}, {}", length(frame.node.blocked_ns), shown.part);
    let columns = ((w - 2.0 * PAD) / COLUMN).max(0.0) as usize;
    let text = if columns < LEAST_COLUMNS {
        String::new()
    } else {
        text("", x + PAD, y + BASELINE, &cut_end(name, columns))
    };
    format!(
        "<g class=\"frame\"><title>{}</title>\
         <rect x=\"{x:.2}\" y=\"{y:.0}\" width=\"{w:.2}\" height=\"{ROW}\" fill=\"{}\"/>{text}</g>\n",
        escape(&tip),
        shown.fill,
    )
}

/// The begin of the file: ground, title and subtitle.
fn head(title: &str, subtitle: &str, height: f64) -> String {
    let shown = cut_end(title, ((SPAN - SEARCH) / TITLE_COLUMN) as usize);
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"flame\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"monospace\" font-size=\"12\">\n\
         <title>{title}</title>\n\
         <style>\n{STYLE}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text class=\"ink\" x=\"{SIDE}\" y=\"24\" font-size=\"16\" font-weight=\"bold\">{}</text>\n{}\n",
        escape(&shown),
        text("faint", SIDE, 44.0, subtitle),
    )
}

fn subtitle(stacks: &[BlockedStack], tree: &Tree<'_>) -> String {
    format!(
        "blocked time by process, cause and kernel stack; width is time; {} in {}",
        length(tree.root().blocked_ns),
        counted(stacks.len() as u64, "stack"),
    )
}

/// Blocked time of each cause in ns, the longest first.
fn by_cause(stacks: &[BlockedStack]) -> Vec<(&'static str, u128)> {
    let mut causes = BTreeMap::<_, u128>::new();
    for stack in stacks.iter().filter(|stack| stack.blocked_ns > 0) {
        *causes.entry(stack.cause).or_default() += u128::from(stack.blocked_ns);
    }
    let mut causes: Vec<_> = causes.into_iter().collect();
    causes.sort_by_key(|&(_, ns)| std::cmp::Reverse(ns));
    causes
}

/// The causes' hues and parts, and how many lines that takes.
fn legend(causes: &[(&str, u128)], hues: &Hues, total_ns: u128) -> (String, usize) {
    let (mut svg, mut x, mut row) = (String::new(), SIDE, 0);
    for &(cause, ns) in causes {
        let label = format!("{cause} {}", percent(ns, total_ns));
        let takes = 16.0 + (width(&label) + 2) as f64 * COLUMN;
        if x > SIDE && x + takes > WIDTH - SIDE {
            (x, row) = (SIDE, row + 1);
        }
        let y = TOP + row as f64 * ROW;
        svg += &format!(
            "<rect x=\"{x:.2}\" y=\"{:.0}\" width=\"12\" height=\"12\" fill=\"{}\"/>{}\n",
            y + 3.0,
            hues.cause(Some(cause)),
            text("ink", x + 16.0, y + BASELINE, &label),
        );
        x += takes;
    }
    (svg, row + 1)
}

fn text(class: &str, x: f64, y: f64, text: &str) -> String {
    let class = match class {
        "" => String::new(),
        class => format!(" class=\"{class}\""),
    };
    format!(
        "<text{class} x=\"{x:.2}\" y=\"{y:.0}\">{}</text>",
        escape(text)
    )
}

fn length(ns: u128) -> String {
    age(u64::try_from(ns).unwrap_or(u64::MAX))
}

fn percent(ns: u128, total_ns: u128) -> String {
    let percent = ns as f64 / total_ns as f64 * 100.0;
    if percent < 0.05 {
        // It is there, so it is not 0.0.
        return "<0.1 %".to_owned();
    }
    format!("{percent:.1} %")
}

/// Text for a place between tags or within quotes. What XML has no way to say
/// becomes U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            c => out.push(c),
        }
    }
    out
}
