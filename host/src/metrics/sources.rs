//! Figures of sources, read when somebody scrapes. Sources stand in the configuration, so their number is known.

use std::fmt::{self, Debug};
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::histogram::Histogram;

/// Reads the figures of every source.
pub type ReadSources = Box<dyn Fn() -> Vec<SourceFigures> + Send + Sync>;

/// How many states a table has.
pub(super) const TABLE_STATES: usize = 7;

/// What a source has done since the start, and how it does now.
#[derive(Clone, Debug, Default)]
pub struct SourceFigures {
    /// Its name.
    pub name: String,
    /// 0 starting, 1 reading, 2 following, 3 reconnecting, 4 stopped, 5 paused, 6 repairing.
    pub state: u8,
    /// Bytes of the database's log ahead of it, if that is known.
    pub lag_bytes: Option<u64>,
    /// Bytes of log that the database keeps because of it, if that is known.
    pub retained_bytes: Option<u64>,
    /// How many that may be, if there is a budget.
    pub retained_budget: Option<u64>,
    /// Events captured.
    pub events: u64,
    /// Transactions captured.
    pub transactions: u64,
    /// Portions captured.
    pub portions: u64,
    /// Connections that were lost.
    pub reconnects: u64,
    /// Rows of tables read.
    pub rows_read: u64,
    /// How many tables are in each state.
    pub tables: [(&'static str, u64); TABLE_STATES],
    /// Tables that stopped.
    pub table_stops: u64,
    /// Tables that began to be read anew.
    pub table_rereads: u64,
    /// Rows that were compared with the database's.
    pub audit_rows: u64,
    /// Rows that differed.
    pub audit_differences: u64,
    /// Rows of those that were mended.
    pub audit_mended: u64,
    /// When the last audit ended, in ms since 1970, and whether every row was the database's.
    pub last_audit: Option<(u64, bool)>,
    /// From a commit in the database until it is durable here, of each portion's first transaction.
    pub(crate) delay: SourceDelay,
}

/// How long changes take from their commit in the database until they are durable here.
#[derive(Clone, Debug)]
pub(crate) struct SourceDelay(Histogram);

impl Default for SourceDelay {
    fn default() -> Self {
        const BUCKETS: &[f64] =
            &[0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0, 60.0, 600.0, 3_600.0];
        Self(Histogram::new(BUCKETS))
    }
}

impl SourceDelay {
    /// Both clocks have to agree for it to mean much.
    pub(crate) fn observe_ms(&self, delay_ms: u64) {
        self.0.observe(delay_ms as f64 / 1e3);
    }
}

/// Whoever reads them comes when the sources do.
pub(super) struct SourceCollector(pub(super) Arc<OnceLock<ReadSources>>);

impl Debug for SourceCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceCollector").finish_non_exhaustive()
    }
}

impl Collector for SourceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.0.get().map_or_else(Vec::new, |read| read());
        if all.is_empty() {
            return Ok(());
        }
        let mut counter = |name: &str, help: &str, value: fn(&SourceFigures) -> u64| {
            family(&mut encoder, name, help, MetricType::Counter, &all, |figures, metric| {
                ConstCounter::new(value(figures)).encode(metric)
            })
        };
        counter("source_events", "Events captured", |all| all.events)?;
        counter("source_transactions", "Transactions of the database captured", |all| all.transactions)?;
        counter("source_portions", "Atomic commits", |all| all.portions)?;
        counter("source_reconnects", "Connections to the database that were lost", |all| all.reconnects)?;
        counter("source_snapshot_rows", "Rows of tables that were read beside the log", |all| all.rows_read)?;
        counter("source_table_stops", "Tables that stopped", |all| all.table_stops)?;
        counter("source_table_rereads", "Tables that began to be read anew", |all| all.table_rereads)?;
        counter("source_audit_rows", "Rows that were compared with the database's", |all| all.audit_rows)?;
        counter("source_audit_differences", "Rows that differed from the database's", |all| all.audit_differences)?;
        counter("source_audit_mended", "Rows that differed and were mended", |all| all.audit_mended)?;
        let mut tables =
            encoder.encode_descriptor("source_tables", "Tables in each state.", None, MetricType::Gauge)?;
        for figures in &all {
            for (state, count) in figures.tables {
                let labels = [("source", figures.name.as_str()), ("state", state)];
                ConstGauge::new(count).encode(tables.encode_family(&labels)?)?;
            }
        }
        let state = "0 starting, 1 reading, 2 following, 3 reconnecting, 4 stopped, 5 paused, 6 repairing";
        family(&mut encoder, "source_state", state, MetricType::Gauge, &all, |figures, metric| {
            ConstGauge::new(u64::from(figures.state)).encode(metric)
        })?;
        // What is not known is left out, and not 0.
        let mut known = |name: &str, help: &str, value: fn(&SourceFigures) -> Option<u64>| {
            let known: Vec<_> = all.iter().filter(|figures| value(figures).is_some()).cloned().collect();
            if known.is_empty() {
                return Ok(());
            }
            family(&mut encoder, name, help, MetricType::Gauge, &known, |figures, metric| {
                ConstGauge::new(value(figures).unwrap_or_default()).encode(metric)
            })
        };
        known("source_lag_bytes", "Bytes of the database's log that are not durable here yet", |all| all.lag_bytes)?;
        let retained = "Bytes of log that the database keeps because of the source";
        known("source_retained_bytes", retained, |all| all.retained_bytes)?;
        known("source_retained_budget_bytes", "How many of them there may be", |all| all.retained_budget)?;
        let ended = "When the last audit ended, in seconds since 1970";
        known("source_audit_ended_seconds", ended, |all| all.last_audit.map(|(ended_at_ms, _)| ended_at_ms / 1_000))?;
        let equal = "Whether the last audit found every row to be the database's";
        known("source_audit_equal", equal, |all| all.last_audit.map(|(_, is_equal)| u64::from(is_equal)))?;
        let delay = "From a commit in the database until it is durable, of each portion's first transaction";
        family(&mut encoder, "source_delay_seconds", delay, MetricType::Histogram, &all, |all, metric| {
            all.delay.0.encode(metric)
        })
    }
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    all: &[SourceFigures],
    write: impl Fn(&SourceFigures, MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, &format!("{help}."), None, kind)?;
    all.iter().try_for_each(|figures| write(figures, metric.encode_family(&[("source", figures.name.as_str())])?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, StoreFigures};

    #[test]
    fn the_figures_of_sources_read_as_published() {
        let metrics = Metrics::new("1.2.3", Box::new(StoreFigures::default));
        assert!(!metrics.encode().contains("cdc_source_"), "without a source there is nothing to say");
        let delay = SourceDelay::default();
        delay.observe_ms(4);
        let shop = SourceFigures {
            name: "shop".to_owned(),
            state: 2,
            lag_bytes: Some(696),
            retained_bytes: Some(2_048),
            retained_budget: Some(1 << 30),
            events: 20,
            transactions: 3,
            portions: 2,
            reconnects: 1,
            rows_read: 7,
            tables: [
                ("waiting", 0),
                ("reading", 1),
                ("rereading", 0),
                ("following", 5),
                ("paused", 0),
                ("stopped", 1),
                ("dropped", 0),
            ],
            table_stops: 1,
            table_rereads: 2,
            audit_rows: 100,
            audit_differences: 3,
            audit_mended: 1,
            last_audit: Some((1_764_000_000_500, false)),
            delay,
        };
        let unknown =
            SourceFigures { name: "mail".to_owned(), state: 3, tables: shop.tables, ..SourceFigures::default() };
        metrics.read_sources(Box::new(move || vec![shop.clone(), unknown.clone()]));
        let text = metrics.encode();
        let ours = text.lines().filter(|line| line.contains("cdc_source_"));
        assert_eq!(ours.map(|line| format!("{line}\n")).collect::<String>(), include_str!("golden-sources.txt"));
    }
}
