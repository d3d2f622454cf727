//! The REST API: requests in, the engine's and the store's answers out.
//!
//! What a request means and what an answer looks like is `cdc-rest`'s to say; here bodies are read, calls are made, and
//! time and memory are kept within limits. The engine decides; nothing here does.

mod body;
mod bulk;
mod components;
mod connection;
mod pages;
mod problems;
mod progress;
mod queries;
mod rows;
mod socket;
mod sources;
mod stream;
mod subscriptions;
mod tables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cdc_rest::{AuditRequest, BodyKind, Capability, Cors, InsertFormat, Limits, Problem, Request, RequestHead, route};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;

use crate::components::Components;
use crate::delivery::Subscriptions;
use crate::gate::Gate;
use crate::ingest::Ingest;
use crate::live::Streams;
use crate::metrics::{self, Metrics, Route};
use crate::readers::Readers;
use crate::schemas::Schemas;
use crate::source::Sources;
pub use body::AnswerBody;
pub use connection::Connection;
pub use stream::EventStream;

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
    /// What every request must have.
    pub gate: Gate,
    /// How long a body may take to arrive; for streams, its next piece.
    pub request_timeout: Duration,
    /// How long a snapshot may take to be read by its client.
    pub snapshot_timeout: Duration,
    /// The most changes that a bulk load submits at once.
    pub max_batch: usize,
}

/// What the API answers with.
#[derive(Debug)]
pub struct Services {
    /// Changes in.
    pub ingest: Ingest,
    /// Queries.
    pub readers: Arc<Readers>,
    /// What events were captured under.
    pub schemas: Arc<Schemas>,
    /// Events as they come.
    pub streams: Arc<Streams>,
    /// Components that were uploaded.
    pub components: Arc<Components>,
    /// Subscriptions.
    pub subscriptions: Arc<Subscriptions>,
    /// Sources.
    pub sources: Arc<Sources>,
}

/// The API over one engine and its store.
#[derive(Debug)]
pub struct Api {
    options: ApiOptions,
    ingest: Ingest,
    readers: Arc<Readers>,
    schemas: Arc<Schemas>,
    streams: Arc<Streams>,
    components: Arc<Components>,
    subscriptions: Arc<Subscriptions>,
    sources: Arc<Sources>,
    metrics: Arc<Metrics>,
    pages: pages::Pages,
    /// Set when the service stops: whoever balances load sends no more.
    draining: AtomicBool,
}

impl Api {
    /// The API over this engine.
    #[must_use]
    pub fn new(options: ApiOptions, services: Services, metrics: Arc<Metrics>) -> Self {
        let (pages, draining) = (pages::Pages::default(), AtomicBool::new(false));
        let Services { ingest, readers, schemas, streams, components, subscriptions, sources } = services;
        Self {
            options,
            ingest,
            readers,
            schemas,
            streams,
            components,
            subscriptions,
            sources,
            metrics,
            pages,
            draining,
        }
    }

    /// From now on `/readyz` says no, and streams end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.streams.stop();
    }

    /// The live streams. They outlive requests, and some their connections' HTTP.
    pub fn streams(&self) -> &Arc<Streams> {
        &self.streams
    }

    /// Answers a request. Never fails: what goes wrong is an answer too.
    pub async fn answer(self: &Arc<Self>, request: http::Request<Incoming>, connection: &Arc<Connection>) -> Answer {
        let start = Instant::now();
        let _held = self.metrics.http.request();
        let (mut head, body) = request.into_parts();
        let origin = head.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned);
        let routed = self.options.gate.admit(&head).and_then(|()| self.route(&head));
        let label = routed.as_ref().map_or(Route::Unknown, route_label);
        let preflight = matches!(routed, Ok(Request::Options { .. }));
        let outcome = match routed {
            Ok(request) => self.perform(request, &mut head, body, connection).await,
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
                last_event_id: text(stream::LAST_EVENT_ID),
            },
            &self.options.limits,
        )
    }

    async fn perform(
        self: &Arc<Self>,
        request: Request,
        head: &mut http::request::Parts,
        body: Incoming,
        connection: &Arc<Connection>,
    ) -> Outcome {
        match request {
            Request::Index => {
                Ok(json(|out| cdc_rest::write_index(out, env!("CARGO_PKG_VERSION"), Capability::ALL, &[])))
            }
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
            Request::EventStream(query) => self.event_stream(query, head, connection),
            Request::EventSocket(query) => self.event_socket(query, head, connection),
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
            Request::Subscriptions => self.list_subscriptions().await,
            Request::Subscription(id) => self.show_subscription(id).await,
            Request::DefineSubscription(id) => {
                let read = self.read(body, BodyKind::Subscription).await?;
                self.define_subscription(id, read).await
            }
            Request::DeleteSubscription(id) => self.delete_subscription(id).await,
            Request::PauseSubscription(id) => self.pause_subscription(id, true).await,
            Request::ResumeSubscription(id) => self.pause_subscription(id, false).await,
            Request::RewindSubscription(id) => {
                let read = self.read(body, BodyKind::Rewind).await?;
                self.rewind_subscription(id, read).await
            }
            Request::TestSubscription(id) => {
                let read = self.read(body, BodyKind::DryRun).await?;
                self.test_subscription(id, read).await
            }
            Request::SubscriptionAudit(id) => self.show_subscription_audit(&id),
            Request::AuditSubscription(id) => {
                let read = self.read(body, BodyKind::Audit).await?;
                self.audit_subscription(id, AuditRequest::parse_of_subscription(&read)?).await
            }
            Request::DeadLetters { subscription, query } => self.dead_letters(subscription, query).await,
            Request::RetryDeadLetters(id) => {
                let read = self.read(body, BodyKind::DeadLetters).await?;
                self.retry_dead_letters(id, read).await
            }
            Request::DiscardDeadLetters(id) => {
                let read = self.read(body, BodyKind::DeadLetters).await?;
                self.discard_dead_letters(id, read).await
            }
            Request::Components => self.list_components().await,
            Request::Component(name) => self.show_component(name).await,
            Request::UploadComponent(name) => {
                let read = self.read(body, BodyKind::Component).await?;
                self.upload_component(name, read).await
            }
            Request::DeleteComponent(name) => self.delete_component(name).await,
            Request::ComponentVersion { component, version } => self.show_component_version(component, version).await,
            Request::RollbackComponent(name) => {
                let read = self.read(body, BodyKind::Rollback).await?;
                self.roll_back_component(name, read).await
            }
            Request::Sources => Ok(self.list_sources()),
            Request::Source(name) => self.show_source(&name),
            Request::PauseSource(name) => self.pause_source(&name).await,
            Request::ResumeSource(name) => self.resume_source(&name).await,
            Request::RepairSource(name) => self.repair_source(&name).await,
            Request::SourceAudit(name) => self.show_source_audit(&name),
            Request::AuditSource(name) => {
                let read = self.read(body, BodyKind::Audit).await?;
                self.audit_source(&name, AuditRequest::parse(&read)?).await
            }
            Request::AuditSourceTable { source, table } => {
                let read = self.read(body, BodyKind::Audit).await?;
                self.audit_source(&source, AuditRequest::parse_of_table(&read, table)?).await
            }
            Request::SourceSelection(name) => self.show_source_selection(&name),
            Request::SelectSourceTables(name) => {
                let read = self.read(body, BodyKind::TableChoice).await?;
                self.select_source_tables(&name, &read).await
            }
            Request::ResetSourceSelection(name) => self.reset_source_selection(&name).await,
            Request::SourceTable { source, table } => self.show_source_table(&source, &table),
            Request::SteerSourceTable { source, table, action } => {
                self.steer_source_table(&source, &table, action).await
            }
            Request::Trace { table, key } => self.trace(table, key).await,
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
        Request::EventStream(_) => Route::EventStream,
        Request::EventSocket(_) => Route::EventSocket,
        Request::Statistics => Route::Statistics,
        Request::Snapshot { .. } => Route::Snapshot,
        Request::Replica { .. } => Route::Replica,
        Request::Schemas => Route::Schemas,
        Request::Schema { .. } | Request::DeclareSchema { .. } => Route::Schema,
        Request::SchemaHistory { .. } => Route::SchemaHistory,
        Request::Replay => Route::Replay,
        Request::Subscriptions
        | Request::Subscription(_)
        | Request::DefineSubscription(_)
        | Request::DeleteSubscription(_)
        | Request::PauseSubscription(_)
        | Request::ResumeSubscription(_)
        | Request::RewindSubscription(_)
        | Request::TestSubscription(_)
        | Request::SubscriptionAudit(_)
        | Request::AuditSubscription(_)
        | Request::DeadLetters { .. }
        | Request::RetryDeadLetters(_)
        | Request::DiscardDeadLetters(_) => Route::Subscriptions,
        Request::Components
        | Request::Component(_)
        | Request::UploadComponent(_)
        | Request::DeleteComponent(_)
        | Request::ComponentVersion { .. }
        | Request::RollbackComponent(_) => Route::Components,
        Request::Sources
        | Request::Source(_)
        | Request::PauseSource(_)
        | Request::ResumeSource(_)
        | Request::RepairSource(_)
        | Request::SourceAudit(_)
        | Request::AuditSource(_)
        | Request::AuditSourceTable { .. }
        | Request::SourceSelection(_)
        | Request::SelectSourceTables(_)
        | Request::ResetSourceSelection(_)
        | Request::SourceTable { .. }
        | Request::SteerSourceTable { .. } => Route::Sources,
        Request::Trace { .. } => Route::Trace,
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
