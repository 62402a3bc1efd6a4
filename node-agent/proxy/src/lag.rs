//! How long changes take from their commit in the store to the maps of this node.

use std::time::Duration;

/// Upper bounds in microseconds; the last bucket is open.
const BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 20_000, 50_000, 100_000, 250_000,
    1_000_000, 10_000_000,
];

/// Counts by duration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LagHistogram {
    buckets: [u64; BOUNDS_US.len() + 1],
    count: u64,
    sum_us: u64,
    max_us: u64,
}

impl LagHistogram {
    pub(crate) fn record(&mut self, lag: Duration) {
        let us = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
    }

    /// Changes measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us)
    }

    /// Sum of all, for a mean.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    /// The upper bound of the bucket that holds the given share of the changes, at most the
    /// longest; `None` before the first. `share`: 0.0..=1.0.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let mut seen = 0_u64;
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of changes are far below 2^52"
        )]
        let wanted = share * self.count as f64;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            #[expect(
                clippy::cast_precision_loss,
                reason = "counts of changes are far below 2^52"
            )]
            let reached = seen as f64 >= wanted;
            if reached && seen > 0 {
                let bound = BOUNDS_US.get(bucket).copied().unwrap_or(u64::MAX);
                return Some(Duration::from_micros(bound.min(self.max_us)));
            }
        }
        Some(self.max())
    }

    /// Upper bound in seconds and count of each bucket, not cumulative; the last bound is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = BOUNDS_US
            .iter()
            .map(|us| Duration::from_micros(*us).as_secs_f64())
            .chain([f64::INFINITY]);
        bounds.zip(self.buckets.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_buckets_and_never_above_the_longest() {
        let mut lag = LagHistogram::default();
        assert_eq!(lag.quantile(0.5), None);
        for us in [100, 200, 900, 4_000] {
            lag.record(Duration::from_micros(us));
        }
        assert_eq!(lag.quantile(0.5), Some(Duration::from_micros(250)));
        assert_eq!(lag.quantile(0.75), Some(Duration::from_micros(1_000)));
        assert_eq!(lag.quantile(0.99), Some(Duration::from_micros(4_000)));
        assert_eq!(lag.count(), 4);
    }

    #[test]
    fn the_longest_lag_of_all_has_a_bucket() {
        let mut lag = LagHistogram::default();
        lag.record(Duration::from_secs(3600));
        assert_eq!(lag.buckets().last(), Some((f64::INFINITY, 1)));
    }
}
