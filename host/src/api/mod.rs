//! The REST API: requests in, the engine's and the store's answers out.
//!
//! What a request means and what an answer looks like is `cdc-rest`'s to say; here bodies are read, calls are made, and
//! time and memory are kept within limits. The engine decides; nothing here does.

mod body;
mod bulk;
mod pages;
mod problems;
mod queries;
mod rows;
mod tables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cdc_rest::{BodyKind, Cors, InsertFormat, Limits, Problem, Request, RequestHead, route};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;

use crate::ingest::Ingest;
use crate::metrics::{self, Metrics, Route};
use crate::readers::Readers;
pub use body::AnswerBody;

/// An answer.
pub(crate) type Answer = Response<AnswerBody>;
/// An answer, or the problem that stands in its place.
type Outcome = Result<Answer, Problem>;

/// What the API is set up with.
#[derive(Debug)]
pub struct ApiOptions {
    /// Limits of requests.
    pub limits: Limits,
    /// Who may call from a browser.
    pub cors: Cors,
    /// How long a body may take to arrive; for streams, its next piece.
    pub request_timeout: Duration,
    /// How long a snapshot may take to be read by its client.
    pub snapshot_timeout: Duration,
    /// The most changes that a bulk load submits at once.
    pub max_batch: usize,
}

/// The API over one engine and its store.
#[derive(Debug)]
pub struct Api {
    options: ApiOptions,
    ingest: Ingest,
    readers: Arc<Readers>,
    metrics: Arc<Metrics>,
    pages: pages::Pages,
    /// Set when the service stops: whoever balances load sends no more.
    draining: AtomicBool,
}

impl Api {
    /// The API over this engine.
    #[must_use]
    pub fn new(options: ApiOptions, ingest: Ingest, readers: Arc<Readers>, metrics: Arc<Metrics>) -> Self {
        let (pages, draining) = (pages::Pages::default(), AtomicBool::new(false));
        Self { options, ingest, readers, metrics, pages, draining }
    }

    /// From now on `/readyz` says no.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Answers a request. Never fails: what goes wrong is an answer too.
    pub async fn answer(self: &Arc<Self>, request: http::Request<Incoming>) -> Answer {
        let start = Instant::now();
        let _held = self.metrics.http.request();
        let (head, body) = request.into_parts();
        let origin = head.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned);
        let routed = self.route(&head);
        let label = routed.as_ref().map_or(Route::Unknown, route_label);
        let preflight = matches!(routed, Ok(Request::Options { .. }));
        let outcome = match routed {
            Ok(request) => self.perform(request, body).await,
            // The body of a request that is refused for its head is not read, so the connection cannot go on.
            Err(problem) => Err(problem),
        };
        let mut answer = outcome.unwrap_or_else(|problem| problems::answer(&problem));
        let headers = answer.headers_mut();
        if preflight {
            extend(headers, self.options.cors.preflight_headers(origin.as_deref()));
        } else {
            extend(headers, self.options.cors.headers(origin.as_deref()));
        }
        self.metrics.http.answered(method_label(&head.method), label, answer.status().as_u16(), start.elapsed());
        answer
    }

    fn route(&self, head: &http::request::Parts) -> Result<Request, Problem> {
        let text = |name: HeaderName| match head.headers.get(name) {
            // A header that is no text is none that is known.
            Some(value) => Some(value.to_str().unwrap_or("?")),
            None => None,
        };
        route(
            &RequestHead {
                method: head.method.as_str(),
                path: head.uri.path(),
                query: head.uri.query(),
                content_type: text(CONTENT_TYPE),
                content_encoding: text(http::header::CONTENT_ENCODING),
            },
            &self.options.limits,
        )
    }

    async fn perform(self: &Arc<Self>, request: Request, body: Incoming) -> Outcome {
        match request {
            Request::Index => Ok(json(|out| cdc_rest::write_index(out, env!("CARGO_PKG_VERSION"), &[]))),
            Request::Insert { table, upsert, format: InsertFormat::Json } => {
                let read = self.read(body, BodyKind::RowOrRows).await?;
                self.insert(table, upsert, read).await
            }
            Request::Insert { table, upsert, format: InsertFormat::Lines } => {
                self.insert_lines(table, upsert, body).await
            }
            Request::Update { table, key, upsert } => {
                let read = self.read(body, BodyKind::Row).await?;
                self.update(table, key, upsert, read).await
            }
            Request::Delete { table, key } => self.delete(table, key).await,
            Request::ReadRow { table, key } => self.read_row(table, key).await,
            Request::Events(query) => self.events(query).await,
            Request::Statistics => self.statistics().await,
            Request::Snapshot { table, at } => self.snapshot(table, at).await,
            Request::Replica { table } => self.replica(table).await,
            Request::Schemas => self.schemas().await,
            Request::Schema { table, version } => self.schema(table, version).await,
            Request::SchemaHistory { table } => self.schema_history(table).await,
            Request::DeclareSchema { table } => {
                let read = self.read(body, BodyKind::Declaration).await?;
                self.declare(table, &read).await
            }
            Request::Replay => {
                let read = self.read(body, BodyKind::Replay).await?;
                self.replay(&read).await
            }
            Request::Health => Ok(json(cdc_rest::write_health)),
            Request::Readiness if self.draining.load(Ordering::Relaxed) => Err(Problem::shutting_down(1)),
            Request::Readiness => Ok(json(cdc_rest::write_health)),
            Request::Metrics => {
                self.metrics.ingest.queued.set(i64::try_from(self.ingest.waiting()).unwrap_or(i64::MAX));
                Ok(full(metrics::CONTENT_TYPE, self.metrics.encode().into_bytes()))
            }
            Request::Options { allow } => Ok(allowed(&allow)),
        }
    }

    async fn read(&self, body: Incoming, kind: BodyKind) -> Result<Vec<u8>, Problem> {
        body::read(body, kind, &self.options.limits, self.options.request_timeout).await
    }
}

/// An answer with a whole body.
fn full(content_type: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(AnswerBody::from(bytes.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// An answer in JSON, as `write` writes it.
fn json(write: impl FnOnce(&mut Vec<u8>)) -> Answer {
    let mut out = Vec::with_capacity(512);
    write(&mut out);
    full(cdc_rest::JSON, out)
}

fn allowed(allow: &str) -> Answer {
    let mut answer = Response::new(AnswerBody::from(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    extend(answer.headers_mut(), [("allow", allow)].into_iter());
    answer
}

/// Adds headers whose names and values are ours, so that none can be malformed.
fn extend<'a>(headers: &mut HeaderMap, more: impl Iterator<Item = (&'static str, &'a str)>) {
    for (name, value) in more {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
}

fn route_label(request: &Request) -> Route {
    match request {
        Request::Index => Route::Index,
        Request::Insert { .. } => Route::Rows,
        Request::Update { .. } | Request::Delete { .. } | Request::ReadRow { .. } => Route::Row,
        Request::Events(_) => Route::Events,
        Request::Statistics => Route::Statistics,
        Request::Snapshot { .. } => Route::Snapshot,
        Request::Replica { .. } => Route::Replica,
        Request::Schemas => Route::Schemas,
        Request::Schema { .. } | Request::DeclareSchema { .. } => Route::Schema,
        Request::SchemaHistory { .. } => Route::SchemaHistory,
        Request::Replay => Route::Replay,
        Request::Health => Route::Health,
        Request::Readiness => Route::Readiness,
        Request::Metrics => Route::Metrics,
        Request::Options { .. } => Route::Unknown,
    }
}

fn method_label(method: &Method) -> metrics::Method {
    match *method {
        Method::GET => metrics::Method::Get,
        Method::HEAD => metrics::Method::Head,
        Method::POST => metrics::Method::Post,
        Method::PUT => metrics::Method::Put,
        Method::DELETE => metrics::Method::Delete,
        Method::OPTIONS => metrics::Method::Options,
        _ => metrics::Method::Other,
    }
}
