//! The component: the worker behind `wasi:http/incoming-handler`, its store over `wasi:keyvalue`.
//!
//! Only conversions, the clock and names of pages live here. Every request may have an instance of its own: nothing is
//! kept between them.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

use crate::kv::{KeyValue, KeyValueError, KeyValueOptions, KeyValueStore, PageId};
use crate::worker::{Answer, Exchange, Worker, WorkerOptions};

mod bindings {
    #![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
    wit_bindgen::generate!({
        path: ["../wit/edge/keyvalue.wit", "../wit/edge/edge.wit"],
        world: "cdc:edge/edge",
        generate_all,
    });
}

use bindings::wasi::keyvalue::{atomics, batch, store};

struct Edge;

wasip2::http::proxy::export!(Edge);

/// The bucket that everything stands in.
const BUCKET: &str = "default";
/// The key whose swap is the commit.
const HEAD: &str = "cdc/head";
/// The newest events that the log keeps.
const MAX_EVENTS: u64 = 10_000;
/// How much of a body is read at once; of an answer no more may be written at once.
const READ_BYTES: u64 = 64 << 10;
const WRITE_BYTES: usize = 4_096;

impl Guest for Edge {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        respond(answer(&request), response_out);
    }
}

fn answer(request: &IncomingRequest) -> Answer {
    let mut exchange = Exchange {
        method: method(request.method()),
        target: request.path_with_query().unwrap_or_else(|| "/".to_owned()),
        headers: request.headers().entries().into_iter().map(header).collect(),
        body: Vec::new(),
    };
    let options = WorkerOptions::default();
    let settings = options.settings();
    let mut worker = Worker::new(options);
    let limit = match worker.body_limit(&exchange) {
        Ok(limit) => limit,
        Err(refused) => return refused,
    };
    match body(request, limit) {
        Body::Whole(bytes) => exchange.body = bytes,
        Body::TooLarge => return worker.too_large(&exchange),
        Body::Broken(why) => return worker.broken_body(&exchange, &why),
    }
    match Provider::open() {
        Ok(provider) => {
            let store = KeyValueStore::new(provider, KeyValueOptions { settings, max_events: MAX_EVENTS });
            worker.answer(&store, &exchange, now_ms())
        }
        Err(error) => {
            log(&format!("the bucket `{BUCKET}` cannot be opened: {error}"));
            worker.no_store(&exchange)
        }
    }
}

fn now_ms() -> u64 {
    // A clock before 1970 is as good as none: timestamps then stay where the log left off.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// For whoever runs the service; a client gets to see nothing of it.
fn log(message: &str) {
    eprintln!("cdc: {message}");
}

fn method(method: Method) -> String {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(other) => return other,
    }
    .to_owned()
}

fn header((name, value): (String, Vec<u8>)) -> (String, String) {
    // A header that is no text is none that is known.
    (name, String::from_utf8(value).unwrap_or_else(|_| "?".to_owned()))
}

enum Body {
    Whole(Vec<u8>),
    TooLarge,
    Broken(String),
}

fn body(request: &IncomingRequest, limit: u64) -> Body {
    let broken = || Body::Broken("the runtime does not give it".to_owned());
    if limit == 0 {
        // A body that nobody asked for is not looked at.
        return Body::Whole(Vec::new());
    }
    let Ok(incoming) = request.consume() else { return broken() };
    let Ok(stream) = incoming.stream() else { return broken() };
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(READ_BYTES) {
            Ok(piece) if bytes.len() as u64 + piece.len() as u64 > limit => return Body::TooLarge,
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => return Body::Broken(error.to_debug_string()),
        }
    }
    drop(stream);
    drop(IncomingBody::finish(incoming));
    Body::Whole(bytes)
}

fn respond(answer: Answer, response_out: ResponseOutparam) {
    let headers = Fields::new();
    for (name, value) in &answer.headers {
        // Names and values are ours, so that none can be malformed.
        let _ = headers.append(name, value.as_bytes());
    }
    if !answer.body.is_empty() {
        // It is whole, so that nobody has to take pieces of unknown number.
        let _ = headers.append("content-length", answer.body.len().to_string().as_bytes());
    }
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(answer.status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(response_out, Ok(response));
    // A client that is gone needs no end.
    if let Ok(stream) = body.write() {
        for piece in answer.body.chunks(WRITE_BYTES) {
            if stream.blocking_write_and_flush(piece).is_err() {
                return;
            }
        }
    }
    let _ = OutgoingBody::finish(body, None);
}

/// The runtime's key-value store.
struct Provider {
    bucket: store::Bucket,
    /// The head as the write at hand has read it.
    cas: RefCell<Option<atomics::Cas>>,
}

impl Provider {
    fn open() -> Result<Self, String> {
        let bucket = store::open(BUCKET).map_err(text)?;
        Ok(Self { bucket, cas: RefCell::new(None) })
    }
}

fn text(error: store::Error) -> String {
    match error {
        store::Error::NoSuchStore => "there is no such bucket".to_owned(),
        store::Error::AccessDenied => "access is denied".to_owned(),
        store::Error::Other(message) => message,
    }
}

fn failed(error: store::Error) -> KeyValueError {
    let message = text(error);
    log(&format!("the key-value store failed: {message}"));
    KeyValueError::Failed(message)
}

fn page_key(id: PageId) -> String {
    format!("cdc/page/{id:032x}")
}

impl KeyValue for Provider {
    fn head(&self) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.bucket.get(HEAD).map_err(failed)
    }

    fn begin_swap(&self) -> Result<Option<Vec<u8>>, KeyValueError> {
        let no_swap = |error| match self.bucket.get(HEAD) {
            Ok(_) => KeyValueError::NoSwap(text(error)),
            // It can do nothing at all just now, which says nothing of what it can do.
            Err(error) => failed(error),
        };
        let cas = atomics::Cas::new(&self.bucket, HEAD).map_err(no_swap)?;
        let head = cas.current().map_err(no_swap)?;
        *self.cas.borrow_mut() = Some(cas);
        Ok(head)
    }

    fn swap_head(&self, head: &[u8]) -> Result<(), KeyValueError> {
        let Some(cas) = self.cas.borrow_mut().take() else { return Err(KeyValueError::Conflict) };
        match atomics::swap(cas, head) {
            Ok(()) => Ok(()),
            Err(atomics::CasError::CasFailed(_)) => Err(KeyValueError::Conflict),
            Err(atomics::CasError::StoreError(error)) => Err(failed(error)),
        }
    }

    fn page(&self, id: PageId) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.bucket.get(&page_key(id)).map_err(failed)
    }

    fn write_pages(&self, pages: Vec<(PageId, Vec<u8>)>) -> Result<(), KeyValueError> {
        let pages: Vec<_> = pages.into_iter().map(|(id, page)| (page_key(id), page)).collect();
        batch::set_many(&self.bucket, &pages).map_err(failed)
    }

    fn delete_pages(&self, pages: &[PageId]) -> Result<(), KeyValueError> {
        if pages.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = pages.iter().map(|id| page_key(*id)).collect();
        batch::delete_many(&self.bucket, &keys).map_err(failed)
    }

    fn new_page_id(&self) -> PageId {
        // Not std's hasher seed: runtimes may give every instance the same.
        let half = || PageId::from(wasip2::random::random::get_random_u64());
        half() << 64 | half()
    }
}
