//! Sockets by state, counted while they change.

use proptest::prelude::{Strategy, any, prop, proptest};
use tracer_common::tcp::{
    CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LISTEN, Population, STATES, SYN_RECV, SYN_SENT,
};

use super::{
    Seeds, TcpAggregate, TcpReading,
    tests::{BEGIN, LEAKS, NETNS, clock, nothing},
};
use crate::{clock::WallNs, decode::tcp::SeedReading, snapshot::TcpState};

/// A socket's life: the states that it goes through, CLOSE first.
fn life() -> impl Strategy<Value = Vec<u32>> {
    prop::sample::select(vec![
        vec![CLOSE, LISTEN, CLOSE],
        vec![LISTEN, SYN_RECV, ESTABLISHED, CLOSE_WAIT, CLOSE],
        vec![CLOSE, SYN_SENT, ESTABLISHED, FIN_WAIT1, CLOSE],
        vec![CLOSE, SYN_SENT, CLOSE],
        vec![LISTEN, SYN_RECV, ESTABLISHED, CLOSE],
    ])
}

/// Where sockets are in the kernel, by their cookies.
const ADDRESSES: u64 = 0xffff_8880_0000_0000;

/// What the kernel side would have counted of steps.
#[derive(Default)]
struct Hook {
    population: [i64; STATES],
    seeds: Vec<SeedReading>,
}

impl Hook {
    fn step(&mut self, cookie: u64, from: u32, to: u32) {
        self.population[to as usize] += 1;
        if from != LISTEN || to != SYN_RECV {
            self.population[from as usize] -= 1;
        }
        let is_child = from == LISTEN && to == SYN_RECV;
        self.seeds.push(SeedReading {
            cookie: if is_child { 0 } else { cookie },
            socket: ADDRESSES + cookie,
            netns: NETNS,
            from,
            to,
        });
    }

    fn population(&self) -> Vec<(u32, Population)> {
        vec![(NETNS, self.population.map(i64::cast_unsigned))]
    }
}

/// Some sockets live; at one moment the hook begins, while it counts each of them is
/// listed at some moment, and the count ends. Later all are counted anew, after some
/// transitions that the hook was not told of.
#[derive(Clone, Debug)]
struct Story {
    lives: Vec<Vec<u32>>,
    /// Which socket makes its next step.
    order: Vec<prop::sample::Index>,
    /// Steps before the hook begins, while it is counted, until the recount, while that
    /// goes on.
    parts: [usize; 4],
    /// Which of the steps in the third part the hook is not told of.
    unseen: Vec<bool>,
    /// At which step of a count each socket is listed; the kernel lists some of them
    /// again at its end.
    listed: Vec<(usize, bool)>,
}

fn story() -> impl Strategy<Value = Story> {
    (
        prop::collection::vec(life(), 1..12),
        prop::collection::vec(any::<prop::sample::Index>(), 60),
        [0..20_usize, 0..15, 0..15, 0..10],
        prop::collection::vec(any::<bool>(), 15),
        prop::collection::vec((0..15_usize, any::<bool>()), 12),
    )
        .prop_map(|(lives, order, parts, unseen, listed)| Story {
            lives,
            order,
            parts,
            unseen,
            listed,
        })
}

/// The sockets as they are.
struct Sockets<'a> {
    lives: &'a [Vec<u32>],
    at: Vec<usize>,
    order: std::slice::Iter<'a, prop::sample::Index>,
}

impl Sockets<'_> {
    /// One makes its next step, if it has any.
    fn step(&mut self) -> Option<(u64, u32, u32)> {
        let which = self.order.next()?.index(self.lives.len());
        let (life, at) = (&self.lives[which], self.at[which]);
        let step = (which as u64, *life.get(at)?, *life.get(at + 1)?);
        self.at[which] += 1;
        Some(step)
    }

    /// As sock_diag lists it.
    fn state(&self, which: usize) -> Option<u32> {
        let (life, at) = (&self.lives[which], self.at[which]);
        // A child that is to come is not there yet; a closed one no longer.
        let is_there = at > 0 && life[at] != CLOSE;
        is_there.then(|| life[at])
    }

    fn count(&mut self, steps: usize, listed: &[(usize, bool)], hook: &mut Hook) -> Seeds {
        let before = hook.population();
        hook.seeds.clear();
        let mut sockets = Vec::new();
        let at_begin = self.at.clone();
        for step in 0..=steps {
            for (which, (at, again)) in listed.iter().enumerate().take(self.lives.len()) {
                if (*at.min(&steps) == step || *again && step == steps)
                    && let Some(state) = self.state(which)
                    // A child is established in the same softirq, before it can be listed.
                    && !(state == SYN_RECV && at_begin[which] == 0)
                {
                    sockets.push((NETNS, which as u64, state));
                }
            }
            if step < steps
                && let Some((cookie, from, to)) = self.step()
            {
                hook.step(cookie, from, to);
            }
        }
        Seeds {
            namespaces: vec![NETNS],
            closing: Vec::new(),
            before,
            uncertain: 0,
            sockets,
            transitions: hook.seeds.clone(),
        }
    }

    fn assert_counted(&self, aggregate: &mut TcpAggregate, hook: &Hook, seeds: Option<Seeds>) {
        let reading = TcpReading {
            populations: hook.population(),
            seeds,
            ..nothing()
        };
        aggregate.observe(&clock(BEGIN), WallNs(0), &reading);
        let counted = aggregate.snapshot(|_, _| None).states;
        for state in 1..STATES as u32 {
            let there = (0..self.lives.len()).filter(|i| self.state(*i) == Some(state));
            let counted = counted.iter().find(|c| c.state == TcpState(state as u8));
            let counted = counted.map_or(0, |c| c.count);
            assert_eq!(counted, there.count() as u64, "state {state}");
        }
    }
}

proptest! {
    #[test]
    fn sockets_by_state_are_exact_though_they_change_while_they_are_counted(story in story()) {
        let mut sockets = Sockets {
            lives: &story.lives,
            at: vec![0; story.lives.len()],
            order: story.order.iter(),
        };
        let [before, first, between, again] = story.parts;
        for _ in 0..before {
            sockets.step();
        }
        let mut hook = Hook::default();
        let mut aggregate = TcpAggregate::new(LEAKS, &clock(BEGIN), &nothing());
        let seeds = sockets.count(first, &story.listed, &mut hook);
        sockets.assert_counted(&mut aggregate, &hook, Some(seeds));
        let mut unseen = 0;
        for is_unseen in &story.unseen[..between] {
            if let Some((cookie, from, to)) = sockets.step() {
                if *is_unseen {
                    unseen += 1;
                } else {
                    hook.step(cookie, from, to);
                }
            }
        }
        let seeds = sockets.count(again, &story.listed, &mut hook);
        sockets.assert_counted(&mut aggregate, &hook, Some(seeds));
        // Of two that changed places nothing is seen.
        proptest::prop_assert!(aggregate.unseen() <= unseen);
        proptest::prop_assert!(unseen != 1 || aggregate.unseen() == 1);
        for _ in 0..5 {
            if let Some((cookie, from, to)) = sockets.step() {
                hook.step(cookie, from, to);
            }
        }
        sockets.assert_counted(&mut aggregate, &hook, None);
    }
}
