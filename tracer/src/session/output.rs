//! Standard output: which renderer writes there, and what happens when nobody
//! reads any more.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;

use super::{
    screen::{allows_color, columns, encode, terminal_size},
    writer::Writer,
};
use crate::{
    cli::{Format, PlainFormat},
    render::{Render, TextOptions, events::EventsRenderer, json::JsonRenderer, text::TextRenderer},
    snapshot::{Event, Snapshot, Start, Summary},
};

/// DECTCEM: show the cursor; then a line of its own for what follows.
const SHOW_CURSOR: &[u8] = b"\x1b[?25h\n";
const CANNOT_WRITE: &str = "cannot write to standard output";

pub(super) struct Output {
    kind: Kind,
    /// From the first write on.
    writer: Option<Writer>,
    /// A page was begun and not ended: the cursor is hidden.
    is_page_open: bool,
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_page_open {
            // An error ends the run: its message should find a usable terminal.
            let _ = self.write(SHOW_CURSOR.to_vec());
            let _ = self.finish();
        }
    }
}

enum Kind {
    Text {
        renderer: TextRenderer,
        follows_terminal: bool,
    },
    Events(EventsRenderer),
    Json(JsonRenderer),
}

impl Output {
    pub(super) fn new(format: Format, stacks: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let page = match format {
            Format::Auto => is_terminal,
            Format::Tui => true,
            Format::Text => false,
            Format::Json => return Self::of(Kind::Json(JsonRenderer::new())),
        };
        let height = if is_terminal && page {
            terminal_size().1
        } else {
            0
        };
        let renderer = TextRenderer::new(TextOptions {
            color: is_terminal && allows_color(),
            width: columns(),
            height,
            page,
            stacks,
        });
        Self::of(Kind::Text {
            renderer,
            follows_terminal: is_terminal && page,
        })
    }

    /// The output of `tracer events`.
    pub(super) fn of_events(format: PlainFormat, stacks: bool) -> Self {
        if format == PlainFormat::Json {
            return Self::of(Kind::Json(JsonRenderer::new()));
        }
        let is_terminal = io::stdout().is_terminal();
        // A line that is cut would lose its end for good: it wraps instead.
        Self::of(Kind::Events(EventsRenderer::new(TextOptions {
            color: is_terminal && allows_color(),
            stacks,
            ..TextOptions::default()
        })))
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            writer: None,
            is_page_open: false,
        }
    }

    /// Hands bytes over; false when the reader has gone.
    fn write(&mut self, bytes: Vec<u8>) -> anyhow::Result<bool> {
        let bytes = match self.kind {
            Kind::Json(_) => bytes,
            Kind::Text { .. } | Kind::Events(_) => encode(bytes),
        };
        let writer = match &mut self.writer {
            Some(writer) => writer,
            writer => {
                let started =
                    Writer::to_stdout().context("cannot start a thread for the output")?;
                writer.insert(started)
            }
        };
        writer.write(bytes).context(CANNOT_WRITE)
    }

    /// Waits a bounded time until all is written.
    ///
    /// # Errors
    /// It could not be written.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(writer) = &self.writer {
            writer.finish().context(CANNOT_WRITE)?;
        }
        Ok(())
    }

    /// Whether something waits to be written.
    pub(super) fn is_busy(&self) -> bool {
        self.writer.as_ref().is_some_and(Writer::is_busy)
    }

    /// Snapshots, events and other pieces that were dropped, as nothing read the output.
    pub(super) fn dropped(&self) -> u64 {
        self.writer.as_ref().map_or(0, Writer::dropped)
    }

    /// Writes the beginning; false when nobody reads any more.
    pub(super) fn start(&mut self, start: &Start) -> anyhow::Result<bool> {
        let bytes = self.renderer().start(start);
        self.is_page_open = matches!(
            self.kind,
            Kind::Text {
                follows_terminal: true,
                ..
            }
        );
        self.write(bytes)
    }

    /// Writes a snapshot; false when nobody reads any more.
    pub(super) fn snapshot(&mut self, snapshot: &Snapshot) -> anyhow::Result<bool> {
        if let Kind::Text {
            renderer,
            follows_terminal: true,
        } = &mut self.kind
        {
            let (width, height) = terminal_size();
            renderer.resize(width, height);
        }
        let bytes = self.renderer().snapshot(snapshot);
        self.write(bytes)
    }

    /// Writes events; false when nobody reads any more.
    pub(super) fn events(&mut self, events: &[Event]) -> anyhow::Result<bool> {
        let bytes = self.renderer().events(events);
        self.write(bytes)
    }

    /// Writes the summary.
    pub(super) fn end(&mut self, summary: &Summary) -> anyhow::Result<bool> {
        let bytes = self.renderer().end(summary);
        self.is_page_open = false;
        self.write(bytes)
    }

    fn renderer(&mut self) -> &mut dyn Render {
        match &mut self.kind {
            Kind::Text { renderer, .. } => renderer,
            Kind::Events(renderer) => renderer,
            Kind::Json(renderer) => renderer,
        }
    }
}
