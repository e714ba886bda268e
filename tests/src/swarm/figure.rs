//! Numbers as they stand in the document.

use std::time::Duration;

/// With three digits behind the point.
pub fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

pub fn seconds(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64())
}

/// How many there would be in a second; what took no time that can be measured has no such figure.
pub fn per_second(count: usize, took: Duration) -> Option<f64> {
    (took > Duration::ZERO).then(|| rounded(count as f64 / took.as_secs_f64()))
}

/// The middle one; of an even number the lower.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(1.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn what_took_no_time_has_no_rate() {
        assert_eq!(per_second(10, Duration::from_secs(4)), Some(2.5));
        assert_eq!(per_second(10, Duration::ZERO), None);
    }
}
