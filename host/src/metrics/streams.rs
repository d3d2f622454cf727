//! Readers that follow the log over open connections.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Held;
use super::labels::{Labelled, label_values};

label_values! {
    /// How a stream is sent.
    pub enum StreamKind {
        /// Server-Sent Events
        Sse = "sse",
        /// WebSocket
        WebSocket = "websocket",
    }
}

label_values! {
    /// Why a stream ended.
    pub enum StreamEnd {
        /// The client left
        Left = "left",
        /// The service stopped
        Stopping = "stopping",
        /// Nothing was taken for too long
        Slow = "slow",
        /// Retention was faster than the reader
        Dropped = "dropped",
        /// A WebSocket's client answered no ping
        Silent = "silent",
        /// A WebSocket's client sent what it may not
        Refused = "refused",
        /// The store failed
        Failed = "failed",
    }
}

/// Counters of live streams.
#[derive(Debug)]
pub struct StreamMetrics {
    open: Labelled<StreamKind, Gauge>,
    events: Labelled<StreamKind, Counter>,
    ended: Labelled<StreamEnd, Counter>,
}

impl StreamMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            open: Labelled::new("kind", Gauge::default),
            events: Labelled::new("kind", Counter::default),
            ended: Labelled::new("reason", Counter::default),
        };
        registry.register("streams_open", "Open streams", metrics.open.clone());
        registry.register("streams_events", "Events given to streams, summed over readers", metrics.events.clone());
        registry.register("streams_ended", "Streams that ended, by why", metrics.ended.clone());
        metrics
    }

    /// Counts a stream as open for as long as what it answers with is kept.
    pub fn open(&self, kind: StreamKind) -> Held {
        Held::new(&self.open[kind])
    }

    /// Counts events given to a stream.
    pub fn sent(&self, kind: StreamKind, events: u64) {
        self.events[kind].inc_by(events);
    }

    /// Counts a stream that ended.
    pub fn ended(&self, why: StreamEnd) {
        self.ended[why].inc();
    }
}
