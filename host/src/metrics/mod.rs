//! What the service counts, in the OpenMetrics text that Prometheus reads.
//!
//! Counting costs an atomic addition: every combination of labels has its place in an array that an enum indexes, so
//! no label is hashed and nothing is allocated while a request is answered. Label values come from those enums only,
//! hence no client can make the number of time series grow. Figures of the store and of the process are read when
//! somebody scrapes.

mod histogram;
mod http;
mod labels;
mod process;
mod sources;
mod store;
mod streams;
mod subscriptions;

use std::fmt::{self, Debug};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use http::{HttpMetrics, Method, Route};
pub(crate) use sources::SourceDelay;
pub use sources::{ReadSources, SourceFigures};
pub use store::{ReadStore, StoreFigures};
pub use streams::{StreamEnd, StreamKind, StreamMetrics};
pub(crate) use subscriptions::DeliveryDelay;
pub use subscriptions::{ReadSubscriptions, SubscriptionFigures};

pub(crate) use histogram::Histogram;
use labels::{Labelled, label_values};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

label_values! {
    /// What became of a change.
    pub enum Outcome {
        /// It is an event now.
        Captured = "captured",
        /// The engine refused it: a duplicate, an unknown row, a value that does not fit.
        Refused = "refused",
        /// It could not be captured for no fault of its own.
        Failed = "failed",
    }
}

label_values! {
    /// An interface of the engine that was called.
    pub enum Call {
        /// Changes become events.
        Capture = "capture",
        /// Portions of a database's log become events.
        Follow = "follow",
        /// Events, statistics, schemas, one row.
        Query = "query",
        /// Selections.
        Subscribe = "subscribe",
        /// A table's rows, now or in the past.
        Snapshot = "snapshot",
    }
}

label_values! {
    /// What an engine instance is for.
    pub enum Role {
        /// Captures changes; there is one.
        Writer = "writer",
        /// Answers queries.
        Reader = "reader",
    }
}

/// Counters of the single door that changes come in through.
#[derive(Debug)]
pub struct IngestMetrics {
    changes: Labelled<Outcome, Counter>,
    batch: Histogram,
    /// Changes that wait for the batch before them.
    pub queued: Gauge,
}

impl IngestMetrics {
    /// Counts what became of the changes of one batch.
    pub fn batch_done(&self, captured: u64, refused: u64, failed: u64) {
        self.batch.observe((captured + refused + failed) as f64);
        self.changes[Outcome::Captured].inc_by(captured);
        self.changes[Outcome::Refused].inc_by(refused);
        self.changes[Outcome::Failed].inc_by(failed);
    }
}

/// Counters of the engine's instances.
#[derive(Debug)]
pub struct EngineMetrics {
    calls: Labelled<Call, Histogram>,
    /// Calls that trapped; each cost an instance, which was replaced.
    pub traps: Counter,
    /// Pages of events that were answered again without a call.
    pub pages_reused: Counter,
    instances: Labelled<Role, Gauge>,
}

impl EngineMetrics {
    /// Counts a call and the time it took.
    pub fn called(&self, call: Call, elapsed: Duration) {
        self.calls[call].observe(elapsed.as_secs_f64());
    }

    /// Counts an instance for as long as what it answers with is kept.
    pub fn instance(&self, role: Role) -> Held {
        Held::new(&self.instances[role])
    }
}

/// Holds a gauge one higher until it is dropped, also when a task is cancelled or panics.
#[derive(Debug)]
#[must_use = "the gauge falls again when this is dropped"]
pub struct Held(Gauge);

impl Held {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Every metric of the service. Shared by reference; all of it may be used from any thread.
pub struct Metrics {
    /// Requests and connections.
    pub http: HttpMetrics,
    /// Changes on their way in.
    pub ingest: IngestMetrics,
    /// Calls of the engine component.
    pub engine: EngineMetrics,
    /// Readers that follow the log.
    pub streams: StreamMetrics,
    registry: Registry,
    subscriptions: Arc<OnceLock<ReadSubscriptions>>,
    sources: Arc<OnceLock<ReadSources>>,
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics of a service of this version. `read_store` is called once per scrape and must not wait for writes.
    pub fn new(version: &'static str, read_store: ReadStore) -> Self {
        let mut root = Registry::default();
        root.register_collector(Box::new(process::ProcessFigures::starting_now()));
        let registry = root.sub_registry_with_prefix("cdc");
        registry.register("build", "Version of the running binary", Info::new([("version", version)]));
        let http = HttpMetrics::register(registry);
        let ingest = register_ingest(registry);
        let engine = register_engine(registry);
        let streams = StreamMetrics::register(registry);
        registry.register_collector(Box::new(store::StoreCollector(read_store)));
        let subscriptions = Arc::<OnceLock<ReadSubscriptions>>::default();
        registry.register_collector(Box::new(subscriptions::SubscriptionCollector(subscriptions.clone())));
        let sources = Arc::<OnceLock<ReadSources>>::default();
        registry.register_collector(Box::new(sources::SourceCollector(sources.clone())));
        Self { http, ingest, engine, streams, subscriptions, sources, registry: root }
    }

    /// From now on, figures of subscriptions are read in this way, once per scrape.
    pub fn read_subscriptions(&self, read: ReadSubscriptions) {
        // Once: there is one service.
        let _ = self.subscriptions.set(read);
    }

    /// From now on, figures of sources are read in this way, once per scrape.
    pub fn read_sources(&self, read: ReadSources) {
        // Once: there is one service.
        let _ = self.sources.set(read);
    }

    /// Everything as OpenMetrics text, to be served as [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        // Writing to a string cannot fail; a scrape without its `# EOF` is refused by every reader anyway.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

fn register_ingest(registry: &mut Registry) -> IngestMetrics {
    let ingest = IngestMetrics {
        changes: Labelled::new("outcome", Counter::default),
        batch: Histogram::new(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]),
        queued: Gauge::default(),
    };
    registry.register("ingest_changes", "Changes by what became of them", ingest.changes.clone());
    registry.register("ingest_batch_changes", "Changes in a batch, which is one commit", ingest.batch.clone());
    registry.register("ingest_queue_changes", "Changes that wait to be captured", ingest.queued.clone());
    ingest
}

fn register_engine(registry: &mut Registry) -> EngineMetrics {
    const BUCKETS: &[f64] =
        &[0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.1, 1.0];
    let engine = EngineMetrics {
        calls: Labelled::new("call", || Histogram::new(BUCKETS)),
        traps: Counter::default(),
        pages_reused: Counter::default(),
        instances: Labelled::new("role", Gauge::default),
    };
    let calls = engine.calls.clone();
    registry.register_with_unit("engine_call", "Time in the engine component", Unit::Seconds, calls);
    registry.register(
        "engine_pages_reused",
        "Pages of events that were answered again without a call, because the log was still the same",
        engine.pages_reused.clone(),
    );
    registry.register("engine_traps", "Calls that trapped and cost an instance", engine.traps.clone());
    registry.register("engine_instances", "Running engine instances", engine.instances.clone());
    engine
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new("1.2.3", Box::new(|| StoreFigures { fsyncs: 7, newest_sequence: 41, ..StoreFigures::default() }))
    }

    #[test]
    fn names_help_and_labels_read_as_published() {
        let metrics = metrics();
        let ms = Duration::from_millis;
        metrics.http.answered(Method::Post, Route::Rows, 200, ms(3));
        metrics.http.answered(Method::Get, Route::Events, 404, ms(1));
        metrics.http.answered(Method::Other, Route::Unknown, 599, ms(1));
        let _connection = metrics.http.connection();
        metrics.ingest.batch_done(5, 2, 0);
        metrics.ingest.queued.set(9);
        metrics.engine.called(Call::Capture, Duration::from_micros(40));
        metrics.engine.traps.inc();
        metrics.engine.pages_reused.inc();
        let _stream = metrics.streams.open(StreamKind::Sse);
        metrics.streams.sent(StreamKind::Sse, 12);
        metrics.streams.ended(StreamEnd::Slow);
        let (_writer, _reader) = (metrics.engine.instance(Role::Writer), metrics.engine.instance(Role::Reader));
        // The process' own figures differ from run to run: only their names are compared.
        let text = metrics.encode();
        let masked = text.lines().map(|line| match line.strip_prefix("process_") {
            Some(_) => line.split(' ').next().unwrap_or_default(),
            None => line,
        });
        assert_eq!(masked.map(|line| format!("{line}\n")).collect::<String>(), include_str!("golden.txt"));
    }

    #[test]
    fn a_gauge_falls_when_its_holder_is_dropped() {
        let metrics = metrics();
        let (first, second) = (metrics.http.request(), metrics.http.request());
        assert!(metrics.encode().contains("cdc_http_in_flight 2\n"));
        drop((first, second));
        assert!(metrics.encode().contains("cdc_http_in_flight 0\n"));
    }

    #[test]
    fn every_series_is_there_before_its_first_event() {
        let text = metrics().encode();
        for line in
            ["cdc_ingest_changes_total{outcome=\"failed\"} 0", "cdc_engine_call_seconds_count{call=\"query\"} 0"]
        {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("cdc_http_requests_total{"), "combinations that may never happen are left out");
    }

    #[test]
    fn the_number_of_series_is_bounded_whatever_clients_send() {
        let metrics = metrics();
        for status in 0..=u16::MAX {
            metrics.http.answered(Method::Get, Route::Row, status, Duration::ZERO);
        }
        let series = metrics.encode().lines().filter(|line| line.starts_with("cdc_http_requests_total{")).count();
        assert_eq!(series, http::STATUSES.len() + 1);
    }
}
