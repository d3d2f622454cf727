//! Latencies of one measurement: every single one is kept, four bytes each, and quantiles are exact.

use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// In units of 100 ns; the longest that fits is seven minutes.
    ticks: Vec<u32>,
}

const TICK_NS: u128 = 100;

impl Latencies {
    pub fn with_capacity(count: usize) -> Latencies {
        Latencies { ticks: Vec::with_capacity(count) }
    }

    pub fn record(&mut self, latency: Duration) {
        self.ticks.push(u32::try_from(latency.as_nanos() / TICK_NS).unwrap_or(u32::MAX));
    }

    pub fn merge(&mut self, other: &Latencies) {
        self.ticks.extend_from_slice(&other.ticks);
    }

    pub fn count(&self) -> usize {
        self.ticks.len()
    }

    /// The smallest latency that at least this share of all did not exceed. Zero when nothing was measured.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.ticks.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        let ticks = sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0);
        Duration::from_nanos(u64::from(ticks) * TICK_NS as u64)
    }
}

/// The middle one; the mean of the middle two of an even number.
pub fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_ranks() {
        let mut latencies = Latencies::default();
        for ms in (1..=100).rev() {
            latencies.record(Duration::from_millis(ms));
        }
        assert_eq!(latencies.quantile(0.5), Duration::from_millis(50));
        assert_eq!(latencies.quantile(0.99), Duration::from_millis(99));
        assert_eq!(latencies.quantile(1.0), Duration::from_millis(100));
        assert_eq!(Latencies::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
