//! Names the functions in which suspected processes open connections, in a thread of
//! its own: the files that it reads are the processes', and can be slow or on a file
//! system that does not answer.

use std::{
    sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel},
    thread,
};

use crate::{
    aggregate::tcp::OpeningReading, decode::opening::RawOpening, host::functions::Functions,
};

/// Readings that may wait for the thread.
const WAITING: usize = 4;

/// The thread, once there is work for it.
#[derive(Default)]
pub(super) struct Openings {
    worker: Option<Worker>,
    /// Openings that the thread was too busy for, or whose process had gone.
    pub(super) unnamed: u64,
}

struct Worker {
    to: SyncSender<Vec<RawOpening>>,
    from: Receiver<OpeningReading>,
}

impl Openings {
    /// Takes new openings, and gives those that have got their names meanwhile.
    pub(super) fn name(&mut self, openings: Vec<RawOpening>) -> Vec<OpeningReading> {
        if !openings.is_empty() {
            let count = openings.len() as u64;
            let worker = self.worker.get_or_insert_with(Worker::start);
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                worker.to.try_send(openings)
            {
                self.unnamed += count;
            }
        }
        let named = self.worker.iter().flat_map(|worker| worker.from.try_iter());
        let (named, unnamed): (Vec<_>, Vec<_>) =
            named.partition(|opening| !opening.stack.is_empty());
        self.unnamed += unnamed.len() as u64;
        named
    }
}

impl Worker {
    fn start() -> Self {
        let (to, openings) = sync_channel::<Vec<RawOpening>>(WAITING);
        let (named, from) = channel();
        thread::spawn(move || {
            let mut functions = Functions::default();
            for raw in openings.into_iter().flatten() {
                let reading = OpeningReading {
                    stack: functions.of(raw.opening.pid, &raw.stack),
                    opening: raw.opening,
                };
                if named.send(reading).is_err() {
                    return;
                }
            }
        });
        Self { to, from }
    }
}
