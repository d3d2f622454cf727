//! A histogram of atomics: the client library's own takes a lock for each observation and cannot say whether it is
//! empty.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Counts observations by upper bound. Clones share what they count.
///
/// A scrape in the middle of an observation may see its bucket and not yet its sum; the next one sees both.
#[derive(Clone)]
pub(crate) struct Histogram(Arc<Counts>);

struct Counts {
    /// Ascending; what is above the last bound falls into one more bucket.
    bounds: &'static [f64],
    buckets: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        let buckets = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self(Arc::new(Counts { bounds, buckets, sum: AtomicU64::default() }))
    }

    pub(crate) fn observe(&self, value: f64) {
        let counts = &*self.0;
        let bucket = counts.bounds.partition_point(|bound| *bound < value);
        counts.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        counts.sum.update(Ordering::Relaxed, Ordering::Relaxed, |sum| (f64::from_bits(sum) + value).to_bits());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.buckets.iter().all(|bucket| bucket.load(Ordering::Relaxed) == 0)
    }
}

impl Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").field("bounds", &self.0.bounds).finish_non_exhaustive()
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        // The encoder adds the buckets up.
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = self.0.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = f64::from_bits(self.0.sum.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        assert!(histogram.is_empty());
        for value in [0.5, 1.0, 1.5, 2.5, 99.0] {
            histogram.observe(value);
        }
        let counts: Vec<_> = histogram.0.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [2, 1, 2]);
        assert_eq!(f64::from_bits(histogram.0.sum.load(Ordering::Relaxed)), 104.5);
        assert!(!histogram.is_empty());
    }

    #[test]
    fn observations_of_many_threads_are_all_counted() {
        let histogram = Histogram::new(&[1.0]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| histogram.observe(1.0)));
            }
        });
        assert_eq!(f64::from_bits(histogram.0.sum.load(Ordering::Relaxed)), 40_000.0);
    }
}
