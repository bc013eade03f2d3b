//! Arithmetic on samples: medians and percentiles.

use std::time::Duration;

/// Of one kind of wait, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latencies {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

pub(crate) fn percentiles(mut took: Vec<Duration>) -> Latencies {
    took.sort_unstable();
    let at = |share: f64| {
        took.get(((took.len() as f64 - 1.0).max(0.0) * share) as usize).map_or(f64::NAN, Duration::as_secs_f64)
    };
    Latencies { p50: at(0.5), p99: at(0.99) }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}
