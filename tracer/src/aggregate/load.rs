//! Each group's part of the averages: what it gave to each sample, put through
//! the kernel's own exponentials.

use super::{groups::Groups, samples::Sample};

/// 1.0 in the kernel's fixed point (`FIXED_1`, include/linux/sched/loadavg.h).
const FIXED_1: u64 = 2048;
/// `EXP_1`, `EXP_5`, `EXP_15`.
const EXP: [u64; 3] = [1884, 2014, 2037];
/// The same number missing from this many samples in a row is a leak.
const LEAK_SAMPLES: u32 = 6;

/// The averages, and the parts of them that are no group's.
#[derive(Debug)]
pub struct Averages {
    fixed: [u64; 3],
    /// What they held when tracer began.
    pub before_start: [f64; 3],
    /// Counted, but not named.
    pub unexplained: [f64; 3],
    /// Asleep, but still queued.
    pub delayed: [f64; 3],
    has_samples: bool,
    missing: i64,
    missing_samples: u32,
}

impl Averages {
    /// Begins with what the kernel has.
    pub fn new(fixed: [u64; 3]) -> Self {
        Self {
            fixed,
            before_start: fixed.map(to_float),
            unexplained: [0.0; 3],
            delayed: [0.0; 3],
            has_samples: false,
            missing: 0,
            missing_samples: 0,
        }
    }

    /// Between two samples the averages stand still. When they do not, one was
    /// under way as tracer began, or one was missed.
    pub fn hold_against(&mut self, fixed: [u64; 3]) {
        let rest = if self.has_samples {
            &mut self.unexplained
        } else {
            &mut self.before_start
        };
        for ((rest, old), new) in rest.iter_mut().zip(self.fixed).zip(fixed) {
            *rest += to_float(new) - to_float(old);
        }
        self.fixed = fixed;
    }

    /// Whether no sample can have been taken since: the averages did not move, and
    /// no number of tasks leaves them as they are.
    pub fn stand_still(&self, fixed: [u64; 3]) -> bool {
        self.fixed == fixed && recover(self.fixed, fixed).is_none()
    }

    /// The averages that all parts add up to.
    pub fn current(&self) -> [f64; 3] {
        self.fixed.map(to_float)
    }

    /// Takes a sample into every part.
    ///
    /// `new` are the averages after it, when they were read; `is_only` says that
    /// no other sample lies between the two. Then the number that the kernel
    /// counted can be recovered, and is given back. Else the names are all there
    /// is, and what they do not explain shows up as such once averages are read.
    pub fn fold(
        &mut self,
        new: Option<[u64; 3]>,
        is_only: bool,
        sample: &Sample,
        groups: &mut Groups,
    ) -> Option<i64> {
        self.has_samples = true;
        let active = new
            .filter(|_| is_only)
            .and_then(|new| recover(self.fixed, new));
        let weights = EXP.map(|e| (FIXED_1 - e) as f64 / FIXED_1 as f64);
        let part = |tasks: f64| weights.map(|weight| tasks * weight);
        let keep = EXP.map(|e| e as f64 / FIXED_1 as f64);
        groups.scale_load(keep);
        for own in [
            &mut self.before_start,
            &mut self.unexplained,
            &mut self.delayed,
        ] {
            multiply(own, keep);
        }
        for (key, (tasks, identity)) in sample.by_group() {
            groups.add_load(key, Some(identity), part(f64::from(tasks)));
        }
        add(&mut self.delayed, part(sample.delayed() as f64));
        if let Some(active) = active {
            add(
                &mut self.unexplained,
                part((active - sample.named()) as f64),
            );
        }
        if let Some(new) = new {
            self.fixed = new;
            self.settle(active.is_some(), groups);
        }
        active
    }

    /// The kernel rounds, by 1/2048 at most, and its sums are the truth. When the
    /// sample is known nothing but that is left over, and every part takes a share
    /// by its size; else what is left over is unexplained. A factor on all parts
    /// will not do: *unexplained* can be below zero, and where the parts nearly
    /// cancel the factor would be far from 1 and bend them all.
    fn settle(&mut self, is_rounding: bool, groups: &mut Groups) {
        let kernel = self.current();
        let (mut sum, mut size) = groups.sum_load();
        for own in [self.before_start, self.unexplained, self.delayed] {
            add(&mut sum, own);
            add(&mut size, own.map(f64::abs));
        }
        let mut shares = [0.0; 3];
        for i in 0..3 {
            let left = kernel[i] - sum[i];
            if is_rounding && size[i] > 0.0 {
                shares[i] = left / size[i];
            } else {
                self.unexplained[i] += left;
            }
        }
        groups.stretch_load(shares);
        for own in [
            &mut self.before_start,
            &mut self.unexplained,
            &mut self.delayed,
        ] {
            stretch(own, shares);
        }
    }

    /// Notes by how much a sample was short.
    pub fn watch_for_leak(&mut self, missing: i64) {
        let is_same = missing == self.missing && missing != 0;
        self.missing_samples = if is_same { self.missing_samples + 1 } else { 1 };
        self.missing = missing;
    }

    /// The number that is missing from sample after sample.
    pub fn leaked(&self) -> Option<i64> {
        (self.missing != 0 && self.missing_samples >= LEAK_SAMPLES).then_some(self.missing)
    }
}

/// The number of tasks that took the averages from `old` to `new`; `None` when
/// no number does, because more than one sample lies between.
pub fn recover(old: [u64; 3], new: [u64; 3]) -> Option<i64> {
    // From the 1-minute average it comes out to 0.01; all three must agree.
    let weight = (FIXED_1 - EXP[0]) as f64;
    let moved = new[0] as f64 * FIXED_1 as f64 - old[0] as f64 * EXP[0] as f64;
    let estimate = (moved / (weight * FIXED_1 as f64)).round() as i64;
    [estimate, estimate - 1, estimate + 1]
        .into_iter()
        .find(|&active| advance(old, active) == new)
}

/// One step of the averages, as the kernel takes it (`calc_load`).
pub fn advance(old: [u64; 3], active: i64) -> [u64; 3] {
    let active = u64::try_from(active).unwrap_or(0) * FIXED_1;
    let mut new = old;
    for (load, e) in new.iter_mut().zip(EXP) {
        let rises = active >= *load;
        *load =
            (*load * e + active * (FIXED_1 - e) + if rises { FIXED_1 - 1 } else { 0 }) / FIXED_1;
    }
    new
}

fn to_float(fixed: u64) -> f64 {
    fixed as f64 / FIXED_1 as f64
}

fn add(sum: &mut [f64; 3], more: [f64; 3]) {
    sum.iter_mut()
        .zip(more)
        .for_each(|(sum, more)| *sum += more);
}

/// Moves each part up by a share of its size.
pub(super) fn stretch(parts: &mut [f64; 3], shares: [f64; 3]) {
    parts
        .iter_mut()
        .zip(shares)
        .for_each(|(part, share)| *part += part.abs() * share);
}

fn multiply(parts: &mut [f64; 3], factors: [f64; 3]) {
    parts
        .iter_mut()
        .zip(factors)
        .for_each(|(part, factor)| *part *= factor);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::{EXP, FIXED_1, advance, recover};

    /// `1/exp(5sec/1min)` and so on, as fixed point: include/linux/sched/loadavg.h.
    #[test]
    fn the_exponentials_are_those_of_1_5_and_15_minutes() {
        let of = |minutes: f64| FIXED_1 as f64 * (-5.0 / (60.0 * minutes)).exp();
        assert_eq!(
            EXP,
            [1.0, 5.0, 15.0].map(|minutes| of(minutes).round() as u64)
        );
    }

    #[test]
    fn a_steady_load_is_recovered_although_nothing_changes() {
        let steady = (0..10_000).fold([0; 3], |load, _| advance(load, 3));
        assert_eq!(advance(steady, 3), steady);
        assert_eq!(recover(steady, steady), Some(3));
        assert_eq!(recover([0; 3], [0; 3]), Some(0));
    }

    proptest! {
        #[test]
        fn one_sample_is_recovered(
            one in 0_u64..20_480_000, five in 0_u64..20_480_000, fifteen in 0_u64..20_480_000,
            active in 0_i64..20_000,
        ) {
            let old = [one, five, fifteen];
            assert_eq!(recover(old, advance(old, active)), Some(active));
        }

        #[test]
        fn two_different_samples_are_not_taken_for_one(
            start in 0_u64..200_000, first in 0_i64..100, second in 0_i64..100,
        ) {
            let old = [start; 3];
            if first != second {
                // Either no number fits, or the averages hardly moved.
                let new = advance(advance(old, first), second);
                if let Some(one) = recover(old, new) {
                    assert_eq!(advance(old, one), new);
                }
            }
        }
    }
}
