//! Counts of a namespace's sockets by state, taken again and again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    diag, must,
    netns::Netns,
    states::{States, kept_alike},
};
use crate::time::wall_ns;

/// From one count to the next.
const EVERY: Duration = Duration::from_millis(10);

/// A thread that counts.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Sample>>,
}

/// A count.
struct Sample {
    /// Wall clock, before and after it was taken.
    from_ns: u64,
    to_ns: u64,
    states: States,
}

/// All counts.
pub struct Samples(Vec<Sample>);

impl Sampler {
    /// Counts in a namespace from now on.
    pub fn start(netns: Netns) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            must("the namespace", netns.enter());
            let mut samples = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let from_ns = wall_ns();
                let sockets = must("sock_diag", diag::sockets());
                samples.push(Sample {
                    from_ns,
                    to_ns: wall_ns(),
                    states: diag::count(&sockets),
                });
                thread::sleep(EVERY);
            }
            samples
        });
        Self { stop, thread }
    }

    /// Ends it.
    pub fn stop(self) -> Samples {
        self.stop.store(true, Ordering::Relaxed);
        Samples(self.thread.join().expect("no panic"))
    }
}

impl Samples {
    /// Whether each state's number is one that was counted within so many ms of a time,
    /// or between two that were, or off by no more than so many sockets.
    pub fn agree(&self, states: &States, at_ns: u64, within_ms: u64, by: u64) -> bool {
        let within_ns = within_ms * 1_000_000;
        let near: Vec<&States> = self
            .0
            .iter()
            .filter(|s| s.from_ns <= at_ns + within_ns && s.to_ns + within_ns >= at_ns)
            .map(|sample| &sample.states)
            .collect();
        let names = near.iter().copied().chain([states]).flat_map(States::keys);
        !near.is_empty()
            && names.into_iter().all(|name| {
                let of = |states: &States| states.get(name).copied().unwrap_or(0);
                let counts = || near.iter().copied().map(of);
                let (least, most) = (counts().min(), counts().max());
                let least = least.unwrap_or(0).saturating_sub(by);
                (least..=most.unwrap_or(0) + by).contains(&of(states))
            })
    }

    /// The same counts: see [`kept_alike`].
    #[must_use]
    pub fn kept_alike(&self) -> Self {
        let sample = |sample: &Sample| Sample {
            states: kept_alike(sample.states.clone()),
            ..*sample
        };
        Self(self.0.iter().map(sample).collect())
    }

    /// What was counted nearest to a time.
    pub fn nearest(&self, at_ns: u64) -> Option<&States> {
        let nearest = self.0.iter().min_by_key(|s| s.to_ns.abs_diff(at_ns));
        nearest.map(|sample| &sample.states)
    }

    /// How many different counts there were.
    pub fn different(&self) -> usize {
        let mut all: Vec<&States> = self.0.iter().map(|sample| &sample.states).collect();
        all.dedup();
        all.len()
    }
}
