//! Figures of subscriptions, read when somebody scrapes. There is a limit on subscriptions, and so on time series.

use std::fmt::{self, Debug};
use std::sync::OnceLock;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::histogram::Histogram;

/// Reads the figures of every subscription.
pub type ReadSubscriptions = Box<dyn Fn() -> Vec<SubscriptionFigures> + Send + Sync>;

/// What a subscription has done since the start, and how it does now.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionFigures {
    /// Its name.
    pub id: String,
    /// 0 running, 1 paused, 2 retrying, 3 stopped, 4 lost.
    pub state: u8,
    /// Events in the log that it has not acknowledged.
    pub lag_events: u64,
    /// The age of the oldest of them, in ms.
    pub lag_ms: u64,
    /// Linear memory of its instances.
    pub memory_bytes: u64,
    /// Events acknowledged.
    pub delivered: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Attempts after a failure.
    pub retries: u64,
    /// Calls that crashed, by kind.
    pub crashes: [(&'static str, u64); 4],
    /// Events given up.
    pub dead_letters: u64,
    /// Events passed over, by what.
    pub filtered: [(&'static str, u64); 4],
    /// Time in guests, in µs.
    pub guest_us: u64,
    /// Log lines dropped.
    pub dropped_lines: u64,
    /// Rows that were compared with a replica's.
    pub audited_rows: u64,
    /// Those that differ.
    pub audit_differences: u64,
    /// From a commit until the subscriber was entered, in seconds: of each batch's first event.
    pub(crate) delay: DeliveryDelay,
}

/// How long events wait between their commit and the subscriber.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryDelay(pub(crate) Histogram);

impl Default for DeliveryDelay {
    fn default() -> Self {
        const BUCKETS: &[f64] = &[
            0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0, 60.0,
            600.0,
        ];
        Self(Histogram::new(BUCKETS))
    }
}

/// Whoever reads them comes when the subscriptions do.
pub(super) struct SubscriptionCollector(pub(super) std::sync::Arc<OnceLock<ReadSubscriptions>>);

impl Debug for SubscriptionCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionCollector").finish_non_exhaustive()
    }
}

impl Collector for SubscriptionCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(read) = self.0.get() else { return Ok(()) };
        let all = read();
        if all.is_empty() {
            return Ok(());
        }
        let mut counter = |name: &str, help: &str, value: fn(&SubscriptionFigures) -> u64| {
            family(&mut encoder, name, help, MetricType::Counter, &all, |figures, metric| {
                ConstCounter::new(value(figures)).encode(metric)
            })
        };
        counter("subscription_delivered_events", "Events that the subscriber has acknowledged", |all| all.delivered)?;
        counter("subscription_batches", "Batches that the subscriber has acknowledged", |all| all.batches)?;
        counter("subscription_retries", "Attempts after a failure", |all| all.retries)?;
        counter("subscription_dead_letters", "Events that were given up", |all| all.dead_letters)?;
        counter("subscription_audit_rows", "Rows that were compared with a replica's", |all| all.audited_rows)?;
        counter("subscription_audit_differences", "Those that differ", |all| all.audit_differences)?;
        counter("subscription_dropped_log_lines", "Log lines of the component that were too many", |all| {
            all.dropped_lines
        })?;
        family(
            &mut encoder,
            "subscription_guest_seconds",
            "Time in the component",
            MetricType::Counter,
            &all,
            |all, metric| ConstCounter::new(all.guest_us as f64 / 1e6).encode(metric),
        )?;
        let mut gauge = |name: &str, help: &str, value: fn(&SubscriptionFigures) -> u64| {
            family(&mut encoder, name, help, MetricType::Gauge, &all, |figures, metric| {
                ConstGauge::new(value(figures)).encode(metric)
            })
        };
        gauge("subscription_lag_events", "Events in the log that are not acknowledged", |all| all.lag_events)?;
        gauge("subscription_memory_bytes", "Linear memory of the component's instances", |all| all.memory_bytes)?;
        gauge("subscription_state", "0 running, 1 paused, 2 retrying, 3 stopped, 4 lost", |all| u64::from(all.state))?;
        let lag = "Age of the oldest event that is not acknowledged";
        family(&mut encoder, "subscription_lag_seconds", lag, MetricType::Gauge, &all, |all, metric| {
            ConstGauge::new(all.lag_ms as f64 / 1e3).encode(metric)
        })?;
        let delay = "From a commit until the subscriber was entered, of each batch's first event";
        family(&mut encoder, "subscription_delivery_seconds", delay, MetricType::Histogram, &all, |all, metric| {
            all.delay.0.encode(metric)
        })?;
        split(&mut encoder, "subscription_crashes", "Calls that did not end well", "kind", &all, |all| &all.crashes)?;
        split(&mut encoder, "subscription_filtered_events", "Events passed over", "by", &all, |all| &all.filtered)
    }
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    all: &[SubscriptionFigures],
    write: impl Fn(&SubscriptionFigures, MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, &format!("{help}."), None, kind)?;
    all.iter().try_for_each(|figures| write(figures, metric.encode_family(&[("subscription", figures.id.as_str())])?))
}

fn split(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    all: &[SubscriptionFigures],
    values: impl Fn(&SubscriptionFigures) -> &[(&'static str, u64)],
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, &format!("{help}."), None, MetricType::Counter)?;
    for figures in all {
        for (kind, value) in values(figures) {
            let labels = [("subscription", figures.id.as_str()), (label, *kind)];
            ConstCounter::new(*value).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
