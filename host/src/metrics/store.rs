//! The store's figures, read when somebody scrapes: the store counts for itself and knows no metrics.

use std::fmt::{self, Debug};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads the store's figures.
pub type ReadStore = Box<dyn Fn() -> StoreFigures + Send + Sync>;

/// What the store has done since the start, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFigures {
    /// Successful fsyncs of the log.
    pub fsyncs: u64,
    /// Time spent in them.
    pub fsync_time: Duration,
    /// Bytes written to the log.
    pub written_bytes: u64,
    /// Bytes that the log's segments take.
    pub log_bytes: u64,
    /// Segments of the log.
    pub log_segments: u64,
    /// Oldest event that is kept; 0 when there is none.
    pub oldest_sequence: u64,
    /// Newest event; 0 when there is none.
    pub newest_sequence: u64,
    /// Event up to which the row state is checkpointed.
    pub checkpoint_sequence: u64,
    /// Rows changed since that checkpoint.
    pub overlay_rows: u64,
    /// Checkpoints taken.
    pub checkpoints: u64,
}

pub(super) struct StoreCollector(pub(super) ReadStore);

impl Debug for StoreCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreCollector").finish_non_exhaustive()
    }
}

impl Collector for StoreCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = (self.0)();
        let fsync_seconds = ConstCounter::new(now.fsync_time.as_secs_f64());
        metric(&mut encoder, "store_fsync_seconds", "Time spent in fsyncs of the log", &fsync_seconds)?;
        let mut counter = |name, help, value: u64| metric(&mut encoder, name, help, &ConstCounter::new(value));
        counter("store_fsyncs", "Fsyncs of the log", now.fsyncs)?;
        counter("store_written_bytes", "Bytes written to the log", now.written_bytes)?;
        counter("store_checkpoints", "Checkpoints of the row state", now.checkpoints)?;
        let mut gauge = |name, help, value: u64| metric(&mut encoder, name, help, &ConstGauge::new(value));
        gauge("store_log_bytes", "Bytes that the log takes", now.log_bytes)?;
        gauge("store_log_segments", "Segments of the log", now.log_segments)?;
        gauge("store_oldest_sequence", "Oldest event that is kept, 0 without any", now.oldest_sequence)?;
        gauge("store_newest_sequence", "Newest event, 0 without any", now.newest_sequence)?;
        gauge("store_checkpoint_sequence", "Event up to which rows are checkpointed", now.checkpoint_sequence)?;
        gauge("store_overlay_rows", "Rows changed since the last checkpoint", now.overlay_rows)
    }
}

/// Writes one metric without labels. The full stop is what the registry adds to the help of every other metric.
pub(super) fn metric(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &impl EncodeMetric,
) -> fmt::Result {
    value.encode(encoder.encode_descriptor(name, &format!("{help}."), None, value.metric_type())?)
}
