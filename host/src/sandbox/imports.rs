//! What an instance of the engine may call: the store, and WASI with nothing behind it.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::bindings::cdc::engine::store as wit;
use super::bindings::cdc::event::types::{self, TableSchema};
use super::schemas;
use super::texts::{OriginView, Packer};
use crate::store::{self, Store};

/// Moves a subscription's cursor durably: the one write that a reading instance may ask for.
pub type SaveCursor = Arc<dyn Fn(String, u64) -> Result<(), store::StoreError> + Send + Sync>;

/// The state of one instance.
pub(super) struct InstanceState {
    store: Arc<dyn Store>,
    settings: wit::Settings,
    /// The batch of the call under way: given to the store when the call has succeeded, or not at all.
    pub(super) committed: Option<store::Batch>,
    save_cursor: Option<SaveCursor>,
    resources: ResourceTable,
    wasi: WasiCtx,
    /// Bytes of linear memory that the instance has.
    pub(super) memory_bytes: usize,
}

/// The most linear memory that an instance may have: far above what any call within its limits needs.
const MAX_MEMORY_BYTES: usize = 1 << 30;

impl wasmtime::ResourceLimiter for InstanceState {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired <= MAX_MEMORY_BYTES;
        if allowed {
            self.memory_bytes = desired;
        }
        Ok(allowed)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= 100_000)
    }
}

/// What a `view` resource stands for. The generated bindings export it again, so it has to be this public.
#[expect(unreachable_pub, reason = "see above")]
pub struct StoreView(Arc<dyn store::View>);

impl InstanceState {
    pub(super) fn new(store: Arc<dyn Store>, settings: wit::Settings, save_cursor: Option<SaveCursor>) -> Self {
        // An empty context: no arguments, environment, folders or sockets. The engine writes nothing but a panic's
        // message, which belongs in the service's log.
        let wasi = WasiCtx::builder().inherit_stderr().build();
        Self { store, settings, committed: None, save_cursor, resources: ResourceTable::new(), wasi, memory_bytes: 0 }
    }

    fn view(&self, view: &Resource<StoreView>) -> wasmtime::Result<&dyn store::View> {
        Ok(self.resources.get(view)?.0.as_ref())
    }
}

impl WasiView for InstanceState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}

pub(super) fn add_store_to_linker(linker: &mut Linker<InstanceState>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

type Answer<T> = wasmtime::Result<Result<T, wit::StoreError>>;

/// An answer of the store, with its error as the component sees it.
fn answer<T>(result: Result<T, store::StoreError>) -> Answer<T> {
    Ok(result.map_err(wit_error))
}

fn wit_error(error: store::StoreError) -> wit::StoreError {
    match error {
        store::StoreError::Dropped { oldest } => wit::StoreError::Dropped(oldest),
        store::StoreError::Full(_) => wit::StoreError::Full(error.to_string()),
        _ => wit::StoreError::Failed(error.to_string()),
    }
}

/// Images and keys are UTF-8 because they came out of the component as strings; anything else is damage.
fn text(bytes: &Bytes) -> Result<String, store::StoreError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(store::StoreError::Corrupt(format!("stored text is not UTF-8: {error}").into())),
    }
}

fn optional_text(bytes: Option<&Bytes>) -> Result<Option<String>, store::StoreError> {
    bytes.map(text).transpose()
}

fn schema(version: &store::SchemaVersion) -> Result<TableSchema, store::StoreError> {
    schemas::decode(&version.definition).map_err(|error| {
        let (table, version) = (&version.table, version.version);
        store::StoreError::Corrupt(format!("schema {version} of table {table} cannot be read: {error}").into())
    })
}

fn operation(operation: store::Operation) -> types::Operation {
    match operation {
        store::Operation::Insert => types::Operation::Insert,
        store::Operation::Update => types::Operation::Update,
        store::Operation::Delete => types::Operation::Delete,
        store::Operation::Truncate => types::Operation::Truncate,
    }
}

pub(super) fn stored_operation(operation: types::Operation) -> store::Operation {
    match operation {
        types::Operation::Insert => store::Operation::Insert,
        types::Operation::Update => store::Operation::Update,
        types::Operation::Delete => store::Operation::Delete,
        types::Operation::Truncate => store::Operation::Truncate,
    }
}

/// Events as the component takes them. Their bytes are what was written: whoever needs them to be text looks.
fn slice(slice: &store::EventSlice) -> wit::EventSlice {
    let image = |image: &Option<Bytes>| image.as_ref().map_or(0, Bytes::len);
    let bytes = |event: &store::Event| event.write.key.len() + image(&event.write.before) + image(&event.write.after);
    let mut texts = Packer::with_capacity(slice.events.iter().map(bytes).sum::<usize>() + 256);
    let entries = slice.events.iter().map(|event| {
        let write = &event.write;
        wit::Entry {
            sequence: event.sequence,
            timestamp: event.timestamp_ms,
            table: texts.table(&write.table),
            key: texts.push(&write.key),
            operation: operation(write.operation),
            before: write.before.as_ref().map(|image| texts.push(image)),
            after: write.after.as_ref().map(|image| texts.push(image)),
            schema_version: write.schema_version,
            origin: write.origin.as_deref().map(|origin| texts.origin(&OriginView::of(origin, write.position_text()))),
        }
    });
    let entries = entries.collect();
    wit::EventSlice { entries, texts: texts.into_bytes(), complete: slice.complete }
}

/// Texts that the component gave: UTF-8, so that every text cut out of them on its characters' bounds is.
struct Given(Bytes);

impl Given {
    fn new(texts: Vec<u8>) -> Result<Self, store::StoreError> {
        match std::str::from_utf8(&texts) {
            Ok(_) => Ok(Self(texts.into())),
            Err(_) => Err(wrong_span()),
        }
    }

    fn range(&self, span: wit::Span) -> Result<std::ops::Range<usize>, store::StoreError> {
        let range = span.offset as usize..span.offset as usize + span.length as usize;
        // A byte that goes on with a character (10xxxxxx) is no place to cut.
        let is_bound = |at: usize| at == self.0.len() || self.0.get(at).is_some_and(|&byte| byte & 0xC0 != 0x80);
        if is_bound(range.start) && is_bound(range.end) { Ok(range) } else { Err(wrong_span()) }
    }

    /// A text as shared bytes, without a copy.
    fn bytes(&self, span: wit::Span) -> Result<Bytes, store::StoreError> {
        Ok(self.0.slice(self.range(span)?))
    }

    fn text(&self, span: wit::Span) -> Result<&str, store::StoreError> {
        std::str::from_utf8(&self.0[self.range(span)?]).map_err(|_| wrong_span())
    }
}

/// The component's origins as the store takes them: one for all the events that share it.
#[derive(Default)]
struct Origins {
    last: Option<(wit::OriginSpans, Arc<store::Origin>)>,
}

impl Origins {
    fn get(&mut self, texts: &Given, origin: wit::OriginSpans) -> Result<Arc<store::Origin>, store::StoreError> {
        // The same texts have the same spans, and events of one transaction come together.
        let place = |span: wit::Span| (span.offset, span.length);
        let told = |origin: &wit::OriginSpans| {
            let spans = (place(origin.source), origin.transaction.map(place), origin.unavailable.map(place));
            (spans, origin.snapshot, origin.committed_at)
        };
        if let Some((last, shared)) = &self.last
            && told(last) == told(&origin)
        {
            return Ok(shared.clone());
        }
        let text = |span| texts.text(span).map(str::to_owned);
        let shared = Arc::new(store::Origin {
            source: text(origin.source)?,
            transaction: origin.transaction.map(text).transpose()?,
            committed_at_ms: origin.committed_at,
            snapshot: origin.snapshot,
            unavailable: origin.unavailable.map(text).transpose()?,
        });
        self.last = Some((origin, shared.clone()));
        Ok(shared)
    }
}

fn wrong_span() -> store::StoreError {
    store::StoreError::Failed("the engine gave a span that is none of its texts".into())
}

/// The component's batch as the store takes it: texts become shared bytes without a copy.
fn batch(batch: wit::Batch) -> Result<store::Batch, store::StoreError> {
    let texts = Given::new(batch.texts)?;
    let mut table: Option<(wit::Span, Arc<str>)> = None;
    let mut origins = Origins::default();
    let mut writes = Vec::with_capacity(batch.writes.len());
    for write in batch.writes {
        let name = match &table {
            Some((span, name)) if (span.offset, span.length) == (write.table.offset, write.table.length) => {
                name.clone()
            }
            _ => texts.text(write.table)?.into(),
        };
        table = Some((write.table, name.clone()));
        let position = write.origin.and_then(|origin| origin.position);
        writes.push(store::Write {
            table: name,
            key: texts.bytes(write.key)?,
            operation: stored_operation(write.operation),
            before: write.before.map(|span| texts.bytes(span)).transpose()?,
            after: write.after.map(|span| texts.bytes(span)).transpose()?,
            schema_version: write.schema_version,
            origin: write.origin.map(|origin| origins.get(&texts, origin)).transpose()?,
            position: position.map(|span| texts.bytes(span)).transpose()?,
        });
    }
    let schemas = batch.schemas.into_iter().map(|schema| store::SchemaVersion {
        table: schema.name.as_str().into(),
        version: schema.version,
        definition: schemas::encode(schema).into(),
    });
    Ok(store::Batch {
        timestamp_ms: batch.timestamp,
        schemas: schemas.collect(),
        writes,
        positions: batch.positions.into_iter().map(|position| (position.source, position.position)).collect(),
        cursors: Vec::new(),
        documents: Vec::new(),
        generation: None,
    })
}

impl types::Host for InstanceState {}

impl wit::Host for InstanceState {
    fn get_settings(&mut self) -> wasmtime::Result<wit::Settings> {
        Ok(self.settings)
    }

    fn get_head(&mut self) -> wasmtime::Result<wit::Head> {
        let head = self.store.head();
        Ok(wit::Head {
            sequence: head.sequence,
            timestamp: head.timestamp_ms,
            schema_generation: head.schema_generation,
            tables: head.tables,
        })
    }

    fn rows(&mut self, table: String, keys: Vec<wit::Span>, texts: Vec<u8>) -> Answer<wit::FoundRows> {
        answer(Given::new(texts).and_then(|texts| {
            let keys: Vec<&str> = keys.into_iter().map(|key| texts.text(key)).collect::<Result<_, _>>()?;
            let rows = self.store.head_rows(&table, &keys)?;
            let mut found = Packer::with_capacity(rows.iter().flatten().map(Bytes::len).sum());
            let images = rows.iter().map(|row| row.as_ref().map(|image| found.push(image))).collect();
            Ok(wit::FoundRows { images, texts: found.into_bytes() })
        }))
    }

    fn schema(&mut self, table: String) -> Answer<Option<TableSchema>> {
        answer(self.store.head_schema(&table).as_ref().map(schema).transpose())
    }

    fn commit(&mut self, given: wit::Batch) -> Answer<u64> {
        if self.committed.is_some() {
            let message = "the engine committed twice in one call".to_owned();
            return Ok(Err(wit::StoreError::Failed(message)));
        }
        answer(batch(given).map(|batch| {
            self.committed = Some(batch);
            self.store.head().sequence + 1
        }))
    }

    fn save_cursor(&mut self, subscription: String, acknowledged: u64) -> Answer<()> {
        match &self.save_cursor {
            Some(save_cursor) => answer(save_cursor(subscription, acknowledged)),
            None => Ok(Err(wit::StoreError::Failed("this instance has no cursors".to_owned()))),
        }
    }
}

impl wit::HostView for InstanceState {
    fn open(&mut self) -> Answer<Resource<StoreView>> {
        match self.store.view() {
            Ok(view) => Ok(Ok(self.resources.push(StoreView(view))?)),
            Err(error) => Ok(Err(wit_error(error))),
        }
    }

    fn bounds(&mut self, view: Resource<StoreView>) -> wasmtime::Result<wit::Bounds> {
        let bounds = self.view(&view)?.bounds();
        Ok(wit::Bounds { oldest: bounds.oldest, newest: bounds.newest, newest_timestamp: bounds.newest_timestamp_ms })
    }

    fn row(&mut self, view: Resource<StoreView>, table: String, key: String) -> Answer<Option<String>> {
        answer(self.view(&view)?.row(&table, &key).and_then(|row| optional_text(row.as_ref())))
    }

    fn scan(
        &mut self,
        view: Resource<StoreView>,
        table: String,
        after: Option<String>,
        max_rows: u32,
        max_bytes: u32,
    ) -> Answer<Vec<wit::Row>> {
        let rows = self.view(&view)?.scan(&table, after.as_deref(), max_rows as usize, max_bytes as usize);
        answer(rows.and_then(|rows| {
            rows.iter().map(|row| Ok(wit::Row { key: text(&row.key)?, image: text(&row.image)? })).collect()
        }))
    }

    fn events(&mut self, view: Resource<StoreView>, range: wit::EventRange) -> Answer<wit::EventSlice> {
        let found = self.view(&view)?.events(&store::EventRange {
            after: range.after,
            until: range.until,
            since_ms: range.since,
            table: range.table.as_deref(),
            operation: range.operation.map(stored_operation),
            key: range.key.as_deref(),
            max_events: range.max_events as usize,
            max_bytes: range.max_bytes as usize,
            newest_first: range.newest_first,
        });
        answer(found.map(|found| slice(&found)))
    }

    fn schema(
        &mut self,
        view: Resource<StoreView>,
        table: String,
        version: Option<u32>,
    ) -> Answer<Option<TableSchema>> {
        answer(self.view(&view)?.schema(&table, version).as_ref().map(schema).transpose())
    }

    fn schemas(&mut self, view: Resource<StoreView>) -> Answer<Vec<TableSchema>> {
        answer(self.view(&view)?.schemas().iter().map(schema).collect())
    }

    fn schema_history(&mut self, view: Resource<StoreView>, table: String) -> Answer<Vec<TableSchema>> {
        answer(self.view(&view)?.schema_history(&table).iter().map(schema).collect())
    }

    fn counters(&mut self, view: Resource<StoreView>) -> wasmtime::Result<wit::Counters> {
        let counters = self.view(&view)?.counters();
        Ok(wit::Counters {
            tables: counters
                .tables
                .iter()
                .map(|count| {
                    let [inserts, updates, deletes, truncates] = count.by_operation;
                    wit::TableCount { table: count.table.to_string(), inserts, updates, deletes, truncates }
                })
                .collect(),
            recent: counters.recent.iter().map(|&(second, events)| wit::SecondCount { second, events }).collect(),
        })
    }

    fn cursor(&mut self, view: Resource<StoreView>, subscription: String) -> Answer<Option<u64>> {
        Ok(Ok(self.view(&view)?.cursor(&subscription)))
    }

    fn drop(&mut self, view: Resource<StoreView>) -> wasmtime::Result<()> {
        self.resources.delete(view)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn span(offset: u32, length: u32) -> wit::Span {
        wit::Span { offset, length }
    }

    #[test]
    fn a_text_that_the_component_names_is_shared() {
        let given = Given::new("été".as_bytes().to_vec()).unwrap();
        assert_eq!(given.text(span(2, 3)).unwrap(), "té");
        assert_eq!(given.bytes(span(0, 2)).unwrap(), "é".as_bytes());
        assert_eq!(given.text(span(5, 0)).unwrap(), "");
    }

    #[test]
    fn a_span_that_is_no_text_fails_the_call_and_nothing_is_written() {
        assert!(matches!(Given::new(vec![0xff]), Err(store::StoreError::Failed(_))));
        let given = Given::new("été".as_bytes().to_vec()).unwrap();
        for wrong in [span(0, 1), span(1, 1), span(0, 6), span(6, 0), span(u32::MAX, u32::MAX)] {
            assert!(matches!(given.bytes(wrong), Err(store::StoreError::Failed(_))), "{wrong:?}");
            assert!(matches!(given.text(wrong), Err(store::StoreError::Failed(_))), "{wrong:?}");
        }
        let key = span(0, 6);
        let write = wit::Write {
            table: span(0, 5),
            key,
            operation: types::Operation::Insert,
            before: None,
            after: Some(span(0, 5)),
            schema_version: 1,
            origin: None,
        };
        let given = wit::Batch {
            timestamp: 1,
            schemas: Vec::new(),
            writes: vec![write],
            texts: "été".as_bytes().to_vec(),
            positions: Vec::new(),
        };
        assert!(matches!(batch(given), Err(store::StoreError::Failed(_))));
    }
}
