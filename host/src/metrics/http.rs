//! Requests and connections.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::Histogram;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

use super::Held;
use super::labels::{LabelValues, Labelled, label_values};

label_values! {
    /// A request's method; methods that no route knows share one label.
    pub enum Method {
        /// GET
        Get = "GET",
        /// HEAD
        Head = "HEAD",
        /// POST
        Post = "POST",
        /// PUT
        Put = "PUT",
        /// DELETE
        Delete = "DELETE",
        /// OPTIONS
        Options = "OPTIONS",
        /// Any other
        Other = "other",
    }
}

impl From<&http::Method> for Method {
    fn from(method: &http::Method) -> Self {
        match *method {
            http::Method::GET => Self::Get,
            http::Method::HEAD => Self::Head,
            http::Method::POST => Self::Post,
            http::Method::PUT => Self::Put,
            http::Method::DELETE => Self::Delete,
            http::Method::OPTIONS => Self::Options,
            _ => Self::Other,
        }
    }
}

label_values! {
    /// The route that answered, never the path itself: a client's names are no labels.
    pub enum Route {
        /// What there is
        Index = "/",
        /// Writes to a table
        Rows = "/data/{table}",
        /// One row
        Row = "/data/{table}/{id}",
        /// The log
        Events = "/events",
        /// The log as it grows, as Server-Sent Events
        EventStream = "/events/stream",
        /// The log as it grows, over a WebSocket
        EventSocket = "/events/ws",
        /// Statistics
        Statistics = "/stats",
        /// A table's rows
        Snapshot = "/snapshot/{table}",
        /// A replica's rows
        Replica = "/replica/{table}",
        /// Subscriptions and what is asked of them
        Subscriptions = "/subscriptions",
        /// Sources and what is asked of them
        Sources = "/sources",
        /// Components and their versions
        Components = "/components",
        /// What became of a row's events
        Trace = "/trace/{table}/{key}",
        /// All schemas
        Schemas = "/schemas",
        /// One schema
        Schema = "/schema/{table}",
        /// The versions of a schema
        SchemaHistory = "/schema/{table}/history",
        /// Rebuilding from the log
        Replay = "/replay",
        /// Liveness
        Health = "/healthz",
        /// Readiness
        Readiness = "/readyz",
        /// These metrics
        Metrics = "/metrics",
        /// No route
        Unknown = "unknown",
    }
}

/// The statuses that have a label of their own; any other one is `other`.
pub(super) const STATUSES: [u16; 27] = [
    101, 200, 201, 202, 204, 206, 301, 304, 400, 403, 404, 405, 406, 408, 409, 410, 413, 414, 415, 422, 426, 429, 431,
    500, 501, 503, 504,
];

/// Counters of the HTTP door.
#[derive(Debug)]
pub struct HttpMetrics {
    requests: Requests,
    durations: Labelled<Route, Histogram>,
    connections: Gauge,
    in_flight: Gauge,
}

impl HttpMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        const BUCKETS: &[f64] =
            &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];
        let metrics = Self {
            requests: Requests::default(),
            durations: Labelled::new("route", || Histogram::new(BUCKETS)).hiding(Histogram::is_empty),
            connections: Gauge::default(),
            in_flight: Gauge::default(),
        };
        let durations = metrics.durations.clone();
        registry.register("http_requests", "Answered requests", metrics.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from a request's head to the head of its answer",
            Unit::Seconds,
            durations,
        );
        registry.register("http_connections", "Open connections", metrics.connections.clone());
        registry.register("http_in_flight", "Requests being answered", metrics.in_flight.clone());
        metrics
    }

    /// Counts an answered request.
    pub fn answered(&self, method: Method, route: Route, status: u16, elapsed: Duration) {
        self.requests.count(method, route, status);
        self.durations[route].observe(elapsed.as_secs_f64());
    }

    /// Counts a connection for as long as what it answers with is kept.
    pub fn connection(&self) -> Held {
        Held::new(&self.connections)
    }

    /// Counts a request as running for as long as what it answers with is kept.
    pub fn request(&self) -> Held {
        Held::new(&self.in_flight)
    }
}

/// One counter for each method, route and status; about 25 kB, most of which is never touched.
#[derive(Clone)]
struct Requests(Arc<[AtomicU64]>);

const STATUS_LABELS: usize = STATUSES.len() + 1;

impl Default for Requests {
    fn default() -> Self {
        let size = Method::ALL.len() * Route::ALL.len() * STATUS_LABELS;
        Self(std::iter::repeat_with(AtomicU64::default).take(size).collect())
    }
}

impl Requests {
    fn count(&self, method: Method, route: Route, status: u16) {
        let status = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len());
        let counter = (route.index() * Method::ALL.len() + method.index()) * STATUS_LABELS + status;
        self.0[counter].fetch_add(1, Ordering::Relaxed);
    }
}

impl Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

impl TypedMetric for Requests {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Requests {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let of_methods = self.0.chunks_exact(STATUS_LABELS);
        let labels = Route::ALL.iter().flat_map(|route| Method::ALL.iter().map(move |method| (route, method)));
        for ((route, method), statuses) in labels.zip(of_methods) {
            for (index, count) in statuses.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                if count == 0 {
                    continue;
                }
                let status = STATUSES.get(index).map_or_else(|| "other".to_owned(), u16::to_string);
                let labels = [("method", method.text()), ("route", route.text()), ("status", &status)];
                ConstCounter::new(count).encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
