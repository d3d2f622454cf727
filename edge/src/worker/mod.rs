//! The routes of the service, answered by the engine core: pure, and generic over its store.
//!
//! One [`Worker`] belongs to one store: it keeps the engine's caches between requests, which the store's head voids
//! when others have written. Where every request has an instance of its own, so has it a worker.

mod bulk;
pub mod convert;
mod explain;
mod queries;
mod recording;
mod rows;
mod subscribe;
mod tables;

pub use cdc_rest::Problem;
pub use subscribe::{Delivery, poll};

use cdc_engine::capture::Capture;
use cdc_engine::store::{Settings, Store, StoreError};
use cdc_rest::{BodyKind, Capability, Code, Cors, InsertFormat, Limits, Request, RequestHead, route};

/// A request, read whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// The method, in the case in which it came.
    pub method: String,
    /// The path, and after a `?` the query; neither decoded.
    pub target: String,
    /// The headers. Names may be in any case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Exchange {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// An answer, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body. Empty for `HEAD`.
    pub body: Vec<u8>,
}

/// What a worker is set up with.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Limits of requests. A body is held in memory whole.
    pub limits: Limits,
    /// Who may call from a browser.
    pub cors: Cors,
    /// The most rows of a load that are committed at once.
    pub max_batch: usize,
    /// How often a write is decided anew because others were first, before it is given up.
    pub max_attempts: u32,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        // The native service's, but for NDJSON, which is not captured while it arrives.
        let limits = Limits {
            max_name_bytes: 128,
            max_key_bytes: 512,
            max_body_bytes: 1 << 20,
            max_stream_bytes: 16 << 20,
            ..Limits::default()
        };
        Self { limits, cors: Cors::NONE, max_batch: 1_000, max_attempts: 64 }
    }
}

impl WorkerOptions {
    /// The engine's settings that go with the limits: what both know is the same figure.
    pub fn settings(&self) -> Settings {
        Settings {
            max_row_bytes: self.limits.max_row_bytes,
            max_key_bytes: self.limits.max_key_bytes,
            max_name_bytes: self.limits.max_name_bytes,
            ..Settings::default()
        }
    }
}

/// How often a reader begins anew.
const MAX_READ_ATTEMPTS: u32 = 8;

/// What is offered at the edge of what not every embedder offers: nothing.
const OFFERED: &[Capability] = &[];

/// The service's routes over the engine core.
#[derive(Debug, Default)]
pub struct Worker {
    options: WorkerOptions,
    capture: Capture,
}

/// An answer that succeeds: its body, which is JSON.
type Outcome = Result<Vec<u8>, Problem>;

impl Worker {
    /// A worker without anything cached.
    pub fn new(options: WorkerOptions) -> Self {
        Self { options, capture: Capture::default() }
    }

    /// The most bytes to read of a request's body, or the answer when its head is refused already. The body of the
    /// exchange is not looked at.
    pub fn body_limit(&self, exchange: &Exchange) -> Result<u64, Answer> {
        match self.route(exchange) {
            Ok(request) => Ok(request.body().max_bytes(&self.options.limits)),
            Err(problem) => Err(self.finish(exchange, Err(problem), None)),
        }
    }

    /// The answer when a body is longer than [`body_limit`](Self::body_limit) allows.
    pub fn too_large(&self, exchange: &Exchange) -> Answer {
        let refused = self.route(exchange).map(|request| request.body().too_large(&self.options.limits));
        let problem = match refused {
            Ok(problem) | Err(problem) => problem,
        };
        self.finish(exchange, Err(problem), None)
    }

    /// The answer when a body broke off.
    pub fn broken_body(&self, exchange: &Exchange, why: &str) -> Answer {
        let detail = format!("the body could not be read: {why}");
        self.finish(exchange, Err(Problem::new(Code::MalformedRequest, detail)), None)
    }

    /// The answer when there is no store to ask.
    pub fn no_store(&self, exchange: &Exchange) -> Answer {
        self.finish(exchange, Err(Problem::store_failed()), None)
    }

    /// Answers a request at the time `now_ms`. Never fails: what goes wrong is an answer too.
    pub fn answer<S: Store>(&mut self, store: &S, exchange: &Exchange, now_ms: u64) -> Answer {
        match self.route(exchange) {
            Ok(Request::Options { allow }) => self.finish(exchange, Ok(Vec::new()), Some(&allow)),
            Ok(request) => {
                let mut outcome = self.perform(store, request.clone(), exchange, now_ms);
                // A reader that was overtaken by many commits has captured nothing and begins anew.
                let reads = matches!(exchange.method.as_str(), "GET" | "HEAD") || request == Request::Replay;
                for _ in 1..MAX_READ_ATTEMPTS {
                    let overtaken = matches!(&outcome, Err(problem) if problem.code() == Code::WriteConflict);
                    if !(reads && overtaken) {
                        break;
                    }
                    outcome = self.perform(store, request.clone(), exchange, now_ms);
                }
                self.finish(exchange, outcome, None)
            }
            Err(problem) => self.finish(exchange, Err(problem), None),
        }
    }

    fn route(&self, exchange: &Exchange) -> Result<Request, Problem> {
        let (path, query) = match exchange.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (exchange.target.as_str(), None),
        };
        let head = RequestHead {
            method: &exchange.method,
            path,
            query,
            content_type: exchange.header("content-type"),
            content_encoding: exchange.header("content-encoding"),
            last_event_id: exchange.header("last-event-id"),
        };
        let request = route(&head, &self.options.limits)?;
        match Capability::of(&request).filter(|needed| !OFFERED.contains(needed)) {
            Some(missing) => Err(Problem::not_offered(missing)),
            None => Ok(request),
        }
    }

    fn perform<S: Store>(&mut self, store: &S, request: Request, exchange: &Exchange, now_ms: u64) -> Outcome {
        let kind = request.body();
        if kind != BodyKind::None && exchange.body.len() as u64 > kind.max_bytes(&self.options.limits) {
            return Err(kind.too_large(&self.options.limits));
        }
        let body = exchange.body.as_slice();
        match request {
            Request::Index => Ok(json(|out| cdc_rest::write_index(out, env!("CARGO_PKG_VERSION"), OFFERED, &[]))),
            Request::Insert { table, upsert, format: InsertFormat::Json } => {
                self.insert(store, now_ms, &table, upsert, body)
            }
            Request::Insert { table, upsert, format: InsertFormat::Lines } => {
                self.insert_lines(store, now_ms, &table, upsert, body)
            }
            Request::Update { table, key, upsert } => self.update(store, now_ms, &table, &key, upsert, body),
            Request::Delete { table, key } => self.delete(store, now_ms, &table, &key),
            Request::ReadRow { table, key } => queries::row(&view(store)?, &table, &key),
            Request::Events(query) => queries::events(&view(store)?, query),
            Request::Statistics => queries::statistics(&view(store)?, now_ms),
            Request::Schemas => queries::schemas(&view(store)?),
            Request::Schema { table, version } => queries::schema(&view(store)?, &table, version),
            Request::SchemaHistory { table } => queries::schema_history(&view(store)?, &table),
            Request::DeclareSchema { table } => self.declare(store, now_ms, table, body),
            Request::Snapshot { table, at } => tables::snapshot(view(store)?, &table, at, &store.settings()),
            Request::Replay => {
                let request = cdc_rest::ReplayRequest::parse(body, &self.options.limits)?;
                tables::replay(&view(store)?, request, &store.settings())
            }
            Request::Health | Request::Readiness => Ok(json(cdc_rest::write_health)),
            // `route` has sorted out everything else; this keeps a new request of the contract from being forgotten.
            other => Err(Capability::of(&other).map_or_else(Problem::engine_failed, Problem::not_offered)),
        }
    }

    /// Decides a write, and anew as long as others commit first.
    fn until_first<T>(&mut self, decide: impl FnMut(&mut Capture) -> Result<T, StoreError>) -> Result<T, Problem> {
        self.until_first_or(decide, is_conflict).map_err(explain::store)
    }

    fn until_first_or<T, E>(
        &mut self,
        mut decide: impl FnMut(&mut Capture) -> Result<T, E>,
        was_overtaken: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let mut attempt = 1;
        loop {
            match decide(&mut self.capture) {
                Err(error) if was_overtaken(&error) && attempt < self.options.max_attempts => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// The answer with its headers.
    fn finish(&self, exchange: &Exchange, outcome: Outcome, allow: Option<&str>) -> Answer {
        let origin = exchange.header("origin");
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let (status, mut headers, mut body) = match outcome {
            Ok(_) if allow.is_some() => (204, Vec::new(), Vec::new()),
            Ok(body) => (200, vec![owned(("content-type", cdc_rest::JSON))], body),
            Err(problem) => (problem.status(), problem.headers().map(owned).collect(), json(|out| problem.write(out))),
        };
        match allow {
            Some(allow) => {
                headers.push(owned(("allow", allow)));
                headers.extend(self.options.cors.preflight_headers(origin).map(owned));
            }
            None => headers.extend(self.options.cors.headers(origin).map(owned)),
        }
        if exchange.method == "HEAD" {
            body.clear();
        }
        Answer { status, headers, body }
    }
}

/// Bytes as `write` writes them.
fn json(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write(&mut out);
    out
}

fn view<S: Store>(store: &S) -> Result<S::View, Problem> {
    store.view().map_err(explain::store)
}

/// Whether a write failed only because another writer was first.
fn is_conflict(error: &StoreError) -> bool {
    *error == StoreError::Conflict
}
