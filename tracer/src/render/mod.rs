//! The outputs. Each renderer turns the model into bytes and does nothing else:
//! it formats, aligns and chooses what fits, but never computes a figure, never
//! writes and never asks for the time.

mod cgroup;
pub mod docs;
pub mod events;
pub mod flame;
pub mod folded;
mod grid;
pub mod json;
mod json_blocked;
mod json_load;
mod json_oom;
mod json_syn;
mod json_tcp;
mod json_tcp_events;
pub(crate) mod line;
mod oom;
mod oom_page;
pub(crate) mod quantity;
mod sections;
mod summary;
mod syn;
mod table;
mod tcp;
mod tcp_lists;
mod tcp_page;
mod tcp_transitions;
pub mod text;
pub(crate) mod time;
mod turned;
pub(crate) mod words;

#[cfg(test)]
mod example;
#[cfg(test)]
mod example_events;
#[cfg(test)]
mod example_oom;
#[cfg(test)]
mod example_syn;
#[cfg(test)]
mod example_tcp;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod properties_oom;
#[cfg(test)]
mod properties_tcp;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod tests_oom;
#[cfg(test)]
mod tests_syn;
#[cfg(test)]
mod tests_tcp;

use crate::snapshot::{Event, Snapshot, Start, Summary};

/// An output format. A run is one `start`, any number of `snapshot`s, one `end`.
pub trait Render {
    /// What is known before the first figure.
    fn start(&mut self, start: &Start) -> Vec<u8>;
    /// One tick.
    fn snapshot(&mut self, snapshot: &Snapshot) -> Vec<u8>;
    /// Something notable; nothing where a snapshot says it too.
    fn event(&mut self, _event: &Event) -> Vec<u8> {
        Vec::new()
    }
    /// Notable things of one reading, in their order.
    fn events(&mut self, events: &[Event]) -> Vec<u8> {
        events.iter().flat_map(|event| self.event(event)).collect()
    }
    /// The whole run.
    fn end(&mut self, summary: &Summary) -> Vec<u8>;
}

/// What the text for people depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// Whether to colour; without, no colour code is ever written.
    pub color: bool,
    /// Columns of the screen; 0 is no limit.
    pub width: u16,
    /// Rows of the screen; 0 is no limit. Only a page heeds it.
    pub height: u16,
    /// Whether each snapshot takes the place of the last one on the screen.
    pub page: bool,
    /// Whether the kernel stack of each blocked task is shown.
    pub stacks: bool,
}
