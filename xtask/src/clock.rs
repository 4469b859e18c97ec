//! The one place of xtask that asks what time it is.
//!
//! The workspace forbids `Instant::now` elsewhere (clippy.toml): in tracer,
//! time is an argument. Here it only tells a person how long a step takes.

use std::time::Instant;

/// The monotonic time, for measuring how long a step takes.
#[expect(
    clippy::disallowed_methods,
    reason = "xtask's own clock: progress and step times, nothing that is tested"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
