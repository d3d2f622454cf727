//! What an instance of the engine may call: the store, and WASI with nothing behind it.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::bindings::cdc::engine::store as wit;
use super::bindings::cdc::event::types::{self, TableSchema};
use super::schema_json;
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
    schema_json::decode(&version.definition).map_err(|error| {
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

fn entry(event: &store::Event) -> Result<wit::Entry, store::StoreError> {
    let write = &event.write;
    Ok(wit::Entry {
        sequence: event.sequence,
        timestamp: event.timestamp_ms,
        table: write.table.to_string(),
        key: text(&write.key)?,
        operation: operation(write.operation),
        before: optional_text(write.before.as_ref())?,
        after: optional_text(write.after.as_ref())?,
        schema_version: write.schema_version,
        origin: write.origin.as_ref().map(|origin| types::Origin {
            source: origin.source.clone(),
            transaction: origin.transaction.clone(),
            position: origin.position.clone(),
            snapshot: origin.snapshot,
        }),
    })
}

/// The component's batch as the store takes it: strings become shared bytes without a copy.
fn batch(batch: wit::Batch) -> Result<store::Batch, store::StoreError> {
    let mut table: Arc<str> = Arc::from("");
    let writes = batch.writes.into_iter().map(|write| {
        if *table != *write.table {
            table = write.table.into();
        }
        store::Write {
            table: table.clone(),
            key: write.key.into(),
            operation: stored_operation(write.operation),
            before: write.before.map(Bytes::from),
            after: write.after.map(Bytes::from),
            schema_version: write.schema_version,
            origin: write.origin.map(|origin| {
                Arc::new(store::Origin {
                    source: origin.source,
                    transaction: origin.transaction,
                    position: origin.position,
                    snapshot: origin.snapshot,
                })
            }),
        }
    });
    let writes = writes.collect();
    let schemas = batch.schemas.iter().map(|schema| {
        let definition = schema_json::encode(schema)
            .map_err(|error| store::StoreError::Failed(format!("a schema cannot be encoded: {error}").into()))?;
        Ok(store::SchemaVersion {
            table: schema.name.as_str().into(),
            version: schema.version,
            definition: definition.into(),
        })
    });
    Ok(store::Batch {
        timestamp_ms: batch.timestamp,
        schemas: schemas.collect::<Result<_, store::StoreError>>()?,
        writes,
        positions: batch.positions.into_iter().map(|position| (position.source, position.position)).collect(),
        cursors: Vec::new(),
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

    fn rows(&mut self, table: String, keys: Vec<String>) -> Answer<Vec<Option<String>>> {
        let rows = self.store.head_rows(&table, &keys);
        answer(rows.and_then(|rows| rows.iter().map(|row| optional_text(row.as_ref())).collect()))
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
        let slice = self.view(&view)?.events(&store::EventRange {
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
        answer(slice.and_then(|slice| {
            let events = slice.events.iter().map(entry).collect::<Result<_, _>>()?;
            Ok(wit::EventSlice { events, complete: slice.complete })
        }))
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
