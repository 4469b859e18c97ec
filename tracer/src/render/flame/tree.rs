//! Stacks put together where they begin alike: everything, processes, causes,
//! then functions from the outermost to the innermost.

use std::{borrow::Cow, cmp::Reverse, collections::HashMap};

use crate::snapshot::BlockedStack;

/// What the root stands for.
const ROOT: &str = "all blocked time";

/// One rectangle of the picture.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// What it shows: a process, a cause with its detail, a function.
    pub(super) name: Cow<'a, str>,
    /// The cause it belongs to; none for the root and the processes.
    pub(super) cause: Option<&'static str>,
    /// Blocked time, that of its children included, in ns. A sum of many, so
    /// wider than one.
    pub(super) blocked_ns: u128,
    /// The longest first.
    pub(super) children: Vec<usize>,
}

/// Nodes by index. The root, the first one, is always there.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    nodes: Vec<Node<'a>>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(stacks: &'a [BlockedStack]) -> Self {
        let mut tree = Self {
            nodes: vec![Node::new(ROOT.into(), None)],
        };
        let mut known = HashMap::new();
        for stack in stacks.iter().filter(|stack| stack.blocked_ns > 0) {
            tree.nodes[0].blocked_ns += u128::from(stack.blocked_ns);
            let mut at = 0;
            for (name, cause) in path(stack) {
                at = *known
                    .entry((at, name.clone(), cause))
                    .or_insert_with(|| tree.add(at, name, cause));
                tree.nodes[at].blocked_ns += u128::from(stack.blocked_ns);
            }
        }
        tree.sort();
        tree
    }

    pub(super) fn root(&self) -> &Node<'a> {
        &self.nodes[0]
    }

    /// Children of a node, the longest first.
    pub(super) fn children<'t>(
        &'t self,
        node: &'t Node<'a>,
    ) -> impl DoubleEndedIterator<Item = &'t Node<'a>> {
        node.children.iter().map(|&child| &self.nodes[child])
    }

    fn add(&mut self, parent: usize, name: Cow<'a, str>, cause: Option<&'static str>) -> usize {
        let child = self.nodes.len();
        self.nodes.push(Node::new(name, cause));
        self.nodes[parent].children.push(child);
        child
    }

    /// The order of the input leaves no trace.
    fn sort(&mut self) {
        for at in 0..self.nodes.len() {
            let mut children = std::mem::take(&mut self.nodes[at].children);
            children.sort_by_key(|&child| {
                let node = &self.nodes[child];
                (Reverse(node.blocked_ns), &node.name, node.cause)
            });
            self.nodes[at].children = children;
        }
    }
}

impl<'a> Node<'a> {
    fn new(name: Cow<'a, str>, cause: Option<&'static str>) -> Self {
        Self {
            name,
            cause,
            blocked_ns: 0,
            children: Vec::new(),
        }
    }
}

/// A stack's way from the root: names, and the cause they belong to.
fn path(stack: &BlockedStack) -> impl Iterator<Item = (Cow<'_, str>, Option<&'static str>)> {
    let cause = match &stack.detail {
        Some(detail) => Cow::from(format!("{} [{detail}]", stack.cause)),
        None => Cow::from(stack.cause),
    };
    let outermost_first = stack.frames.iter().rev();
    let functions = outermost_first.map(|frame| Cow::from(frame.as_str()));
    let below = std::iter::once(cause).chain(functions);
    std::iter::once((Cow::from(stack.comm.as_str()), None))
        .chain(below.map(|name| (name, Some(stack.cause))))
}
