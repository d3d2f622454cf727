//! The edge worker for JavaScript runtimes, in WASM builds only: what `lib/cdc.js` calls. People call that.
//!
//! Everything is synchronous: a runtime runs one call after the other, and a Durable Object's storage answers at once.
//! So nobody can come between a head that was read and its swap, as long as one runtime owns its storage, which is what
//! a Durable Object is; whoever shares a storage otherwise has `swap` say that the head has changed.

#![cfg(target_family = "wasm")]

use std::cell::RefCell;

use cdc_edge::kv::{KeyValue, KeyValueError, KeyValueOptions, KeyValueStore, PageId};
use cdc_edge::worker::{self, Exchange, Worker, WorkerOptions};
use wasm_bindgen::prelude::*;

/// The key whose swap is the commit.
const HEAD: &str = "head";

#[wasm_bindgen]
extern "C" {
    /// What `lib/cdc.d.ts` calls a `Storage`.
    pub type Storage;

    #[wasm_bindgen(method, catch)]
    fn get(this: &Storage, key: &str) -> Result<Option<Vec<u8>>, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn put(this: &Storage, key: &str, value: &[u8]) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn delete(this: &Storage, key: &str) -> Result<(), JsValue>;

    #[wasm_bindgen(js_namespace = crypto, js_name = getRandomValues)]
    fn fill_randomly(bytes: &mut [u8]);
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn log(message: &str, error: &JsValue);
}

/// The engine over one storage.
#[wasm_bindgen]
pub struct Engine {
    worker: Worker,
    store: KeyValueStore<Provider>,
}

/// An answer to a request. Whoever has read it frees it: JavaScript collects late what it does not see the size of.
#[wasm_bindgen]
pub struct Answer(worker::Answer);

#[wasm_bindgen]
impl Answer {
    /// The status.
    #[wasm_bindgen(getter)]
    pub fn status(&self) -> u16 {
        self.0.status
    }

    /// Names and values of the headers in turn.
    #[wasm_bindgen(getter)]
    pub fn headers(&self) -> Vec<String> {
        self.0.headers.iter().flat_map(|(name, value)| [name.clone(), value.clone()]).collect()
    }

    /// The body, once.
    #[wasm_bindgen(js_name = takeBody)]
    pub fn take_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0.body)
    }
}

/// Events that a subscription has not acknowledged. To be freed, as an answer is.
#[wasm_bindgen]
pub struct Delivery(worker::Delivery);

#[wasm_bindgen]
impl Delivery {
    /// A JSON array of events.
    #[wasm_bindgen(getter)]
    pub fn events(&self) -> String {
        String::from_utf8_lossy(&self.0.events).into_owned()
    }

    /// To acknowledge when all of them are done.
    #[wasm_bindgen(getter, js_name = acknowledgeUpTo)]
    pub fn acknowledge_up_to(&self) -> f64 {
        self.0.acknowledge_up_to as f64
    }
}

#[wasm_bindgen]
impl Engine {
    /// The engine over what the storage holds. The log keeps this many of the newest events.
    #[wasm_bindgen(constructor)]
    pub fn new(storage: Storage, max_events: f64) -> Engine {
        let options = WorkerOptions::default();
        let settings = options.settings();
        let provider = Provider { storage, expected: RefCell::new(None) };
        // Numbers of JavaScript that are no counts become the nearest one.
        let store = KeyValueStore::new(provider, KeyValueOptions { settings, max_events: max_events as u64 });
        Engine { worker: Worker::new(options), store }
    }

    /// Answers a request whose body is there; headers are names and values in turn.
    pub fn answer(
        &mut self,
        method: String,
        target: String,
        headers: Vec<String>,
        body: Vec<u8>,
        now_ms: f64,
    ) -> Answer {
        let exchange = exchange(method, target, headers, body);
        Answer(self.worker.answer(&self.store, &exchange, now_ms as u64))
    }

    /// How many bytes of a request's body to read; the answer when its head is refused already.
    #[wasm_bindgen(js_name = bodyLimit)]
    pub fn body_limit(&self, method: String, target: String, headers: Vec<String>) -> Result<f64, Answer> {
        let limit = self.worker.body_limit(&exchange(method, target, headers, Vec::new()));
        limit.map(|bytes| bytes as f64).map_err(Answer)
    }

    /// The answer when a body is longer than that.
    #[wasm_bindgen(js_name = tooLarge)]
    pub fn too_large(&self, method: String, target: String, headers: Vec<String>) -> Answer {
        Answer(self.worker.too_large(&exchange(method, target, headers, Vec::new())))
    }

    /// The answer when a body broke off.
    #[wasm_bindgen(js_name = brokenBody)]
    pub fn broken_body(&self, method: String, target: String, headers: Vec<String>, why: &str) -> Answer {
        Answer(self.worker.broken_body(&exchange(method, target, headers, Vec::new()), why))
    }

    /// The next events of a subscription. What goes wrong is thrown as the text of a problem document.
    pub fn poll(
        &self,
        subscription: &str,
        tables: Vec<String>,
        operations: Vec<String>,
        max_events: u32,
    ) -> Result<Delivery, String> {
        worker::poll(&self.store, subscription, tables, &operations, max_events).map(Delivery).map_err(document)
    }

    /// Moves a subscription's cursor.
    pub fn acknowledge(&mut self, subscription: &str, up_to: f64) -> Result<(), String> {
        self.worker.acknowledge(&self.store, subscription, up_to as u64).map_err(document)
    }
}

fn document(problem: worker::Problem) -> String {
    let mut out = Vec::new();
    problem.write(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn exchange(method: String, target: String, headers: Vec<String>, body: Vec<u8>) -> Exchange {
    let mut words = headers.into_iter();
    let mut headers = Vec::new();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        headers.push((name, value));
    }
    Exchange { method, target, headers, body }
}

/// The runtime's storage.
struct Provider {
    storage: Storage,
    /// The head as the write at hand has read it.
    expected: RefCell<Option<Vec<u8>>>,
}

fn failed(error: JsValue) -> KeyValueError {
    // For whoever runs it; a client gets to see nothing of it.
    log("cdc: the storage failed:", &error);
    KeyValueError::Failed(error.as_string().unwrap_or_else(|| "the storage failed".to_owned()))
}

fn page_key(id: PageId) -> String {
    format!("page/{id:032x}")
}

impl KeyValue for Provider {
    fn head(&self) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.storage.get(HEAD).map_err(failed)
    }

    fn begin_swap(&self) -> Result<Option<Vec<u8>>, KeyValueError> {
        let head = self.head()?;
        self.expected.borrow_mut().clone_from(&head);
        Ok(head)
    }

    fn swap_head(&self, head: &[u8]) -> Result<(), KeyValueError> {
        if self.head()? != *self.expected.borrow() {
            return Err(KeyValueError::Conflict);
        }
        self.storage.put(HEAD, head).map_err(failed)
    }

    fn page(&self, id: PageId) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.storage.get(&page_key(id)).map_err(failed)
    }

    fn write_pages(&self, pages: Vec<(PageId, Vec<u8>)>) -> Result<(), KeyValueError> {
        pages.iter().try_for_each(|(id, page)| self.storage.put(&page_key(*id), page)).map_err(failed)
    }

    fn delete_pages(&self, pages: &[PageId]) -> Result<(), KeyValueError> {
        pages.iter().try_for_each(|id| self.storage.delete(&page_key(*id))).map_err(failed)
    }

    fn new_page_id(&self) -> PageId {
        let mut bytes = [0; 16];
        fill_randomly(&mut bytes);
        PageId::from_le_bytes(bytes)
    }
}
