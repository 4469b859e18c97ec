//! Which tests run, in which order, and which of them may begin beside those that run.

use super::{GUEST_CPUS, Lane, Test, options::Options};

/// The tests that are wanted here, lane by lane.
pub(super) fn of<'a>(tests: &'a [&'a Test], options: &Options, in_guest: bool) -> Vec<&'a Test> {
    let is_wanted = |test: &Test| {
        let elsewhere = if in_guest {
            test.host_only
        } else {
            test.guest_only
        };
        let is_named = |word: &String| {
            if options.is_exact {
                test.is_called(word)
            } else {
                test.name.contains(word.as_str())
            }
        };
        elsewhere.is_empty()
            && (options.is_serial || test.all_only.is_empty() || options.is_exact)
            && (!options.is_contract || test.in_contract)
            && (options.words.is_empty() || options.words.iter().any(is_named))
            && !options.skip.iter().any(|skip| test.name.contains(skip))
    };
    let wanted = tests.iter().copied().filter(|test| is_wanted(test));
    let mut wanted: Vec<&Test> = wanted
        .flat_map(|test| std::iter::repeat_n(test, options.times))
        .collect();
    // Stable: within a lane they stay as their tables have them, but for those that read
    // further tracers: these end with the last of them.
    wanted.sort_by_key(|test| (lane(test, options), test.streams.is_empty()));
    wanted
}

/// When a test runs. One that judges the stream makes its own load where everything is
/// serial, and where it was asked for by name: there is no whole lane to judge then.
pub(super) fn lane(test: &Test, options: &Options) -> Lane {
    match test.lane {
        Lane::Parallel | Lane::Stream if options.is_serial => Lane::Serial,
        Lane::Stream if !options.words.is_empty() => Lane::Serial,
        lane => lane,
    }
}

/// The first test that can begin beside these.
pub(super) fn next(waiting: &[&Test], running: &[&Test], in_guest: bool) -> Option<usize> {
    let counts = |thing: &str| in_guest || thing != GUEST_CPUS;
    let is_free =
        |thing: &&str| !counts(thing) || !running.iter().any(|other| other.needs.contains(thing));
    waiting
        .iter()
        .position(|test| test.needs.iter().all(is_free))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::{VDA, VDB};

    const A: Test = Test::new("a::disk", || {}).needs(&[VDA]);
    const B: Test = Test::new("b::disks", || {}).needs(&[VDA, VDB]);
    const C: Test = Test::new("c::alone", || {}).serial("it is of the whole host");
    const D: Test = Test::new("d::guest", || {}).guest("its disk").contract();
    const E: Test = Test::new("e::fresh", || {}).first("a fresh host");
    const ALL: [&Test; 5] = [&C, &A, &B, &D, &E];

    fn names(line: &str, in_guest: bool) -> Vec<&'static str> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let options = Options::of(&args, 2).unwrap();
        of(&ALL, &options, in_guest)
            .iter()
            .map(|test| test.name)
            .collect()
    }

    #[test]
    fn lanes_come_one_after_the_other() {
        assert_eq!(
            names("", true),
            ["e::fresh", "a::disk", "b::disks", "d::guest", "c::alone"]
        );
        assert_eq!(
            names("", false),
            ["e::fresh", "a::disk", "b::disks", "c::alone"]
        );
    }

    #[test]
    fn words_suites_and_skips_choose() {
        assert_eq!(names("--suite contract", true), ["d::guest"]);
        assert_eq!(names("disk --skip disks", true), ["a::disk"]);
        assert_eq!(names("--exact disk", true), ["a::disk"]);
        assert_eq!(
            names("--exact c::alone --times 2", true),
            ["c::alone", "c::alone"]
        );
        assert!(names("--exact dis", true).is_empty());
    }

    #[test]
    fn two_that_need_the_same_thing_are_never_side_by_side() {
        assert_eq!(next(&[&B, &D], &[&A], true), Some(1));
        assert_eq!(next(&[&B], &[&A], true), None);
        assert_eq!(next(&[&B], &[&D], true), Some(0));
    }

    #[test]
    fn the_cpus_of_a_host_are_enough_for_several() {
        const HOG: Test = Test::new("f::hog", || {}).needs(&[GUEST_CPUS]);
        assert_eq!(next(&[&HOG], &[&HOG], true), None);
        assert_eq!(next(&[&HOG], &[&HOG], false), Some(0));
    }
}
