//! The few numbers a series of rounds is boiled down to.

/// The middle of a series, the mean of the middle two where there are two;
/// `None` for an empty one.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*sorted.get(middle - 1)?, upper))
}

/// The least and the most of a series; `None` for an empty one.
pub fn range(values: &[f64]) -> Option<(f64, f64)> {
    let least = values.iter().copied().reduce(f64::min)?;
    let most = values.iter().copied().reduce(f64::max)?;
    Some((least, most))
}

/// How many times `of` is `to`, where `to` counts as `at_least` when it is less:
/// a cost that drowns in the noise makes no ratio of its own.
pub fn ratio(of: f64, to: f64, at_least: f64) -> Option<f64> {
    let ratio = of / to.max(at_least);
    ratio.is_finite().then_some(ratio)
}

/// Five digits of a number: no figure here is known better, and more only make
/// a document longer.
pub fn five_digits(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 4 - value.abs().log10().floor() as i32;
    if digits > 0 {
        let scale = 10_f64.powi(digits);
        (value * scale).round() / scale
    } else {
        value.round()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_middle_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn the_range_is_least_and_most() {
        assert_eq!(range(&[]), None);
        assert_eq!(range(&[3.0, -1.0, 2.0]), Some((-1.0, 3.0)));
    }

    #[test]
    fn a_ratio_to_noise_is_a_ratio_to_the_least_that_counts() {
        assert_eq!(ratio(500.0, 4.0, 1.0), Some(125.0));
        assert_eq!(ratio(500.0, 0.3, 1.0), Some(500.0));
        assert_eq!(ratio(500.0, -3.0, 1.0), Some(500.0));
        assert_eq!(ratio(500.0, 0.0, 0.0), None);
    }

    #[test]
    fn five_digits_are_kept() {
        let kept = [123_456.7, 12.345_678, -0.012_345_67, 0.0].map(five_digits);
        assert_eq!(kept, [123_457.0, 12.346, -0.012_346, 0.0]);
    }
}
