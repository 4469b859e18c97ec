//! Bytes of the kernel side into typed readings. Total: any bytes give readings
//! or are counted as undecodable, none make it panic.

pub mod block;
mod bytes;
pub mod clock;
pub mod cookie;
pub mod fold;
pub mod oom;
pub mod opening;
pub mod syn;
pub mod task;
pub mod tcp;

use ::bytes::Bytes;

/// The readings in a run of records, and how many bytes were none.
#[derive(Debug, Default)]
pub struct Decoded<T> {
    /// In the order in which the kernel wrote them.
    pub readings: Vec<T>,
    /// Bytes left over: 0 unless the kernel side and this build do not match.
    pub undecodable: usize,
}

/// Splits bytes into records of one length and decodes each.
fn records<T>(bytes: &Bytes, length: usize, decode: impl Fn(Bytes) -> Option<T>) -> Decoded<T> {
    let mut decoded = Decoded {
        readings: Vec::with_capacity(bytes.len() / length),
        undecodable: 0,
    };
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + length);
        match decode(bytes.slice(at..end)) {
            Some(reading) if end - at == length => decoded.readings.push(reading),
            _ => decoded.undecodable += end - at,
        }
        at = end;
    }
    decoded
}
