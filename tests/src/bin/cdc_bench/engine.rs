//! The engine as a component against the same core compiled natively, per event: writes in batches of 256, and a
//! database's log in portions of 1,000 rows.
//!
//! Both sides decide the same changes over the same kind of store in memory. Timed is the call of the engine with what
//! it asks of the store; applying the batch to the store is the store's work and is left out on both sides.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc_engine::capture as core;
use cdc_engine::event::{ColumnType, Operation, Relation, TableSchema};
use cdc_engine::follow as core_follow;
use cdc_engine::store as core_store;
use cdc_engine::texts::{Span, Texts};
use cdc_host::sandbox::{self, CompileWith, Component, Instance};
use cdc_host::store::{self, MemoryStore, Store};

use crate::Scale;
use crate::rows::write_row;
use crate::table::Table;

const BATCH: u64 = 256;
/// Rows in a portion, and in a transaction of it.
const PORTION: u64 = 1_000;
const TRANSACTION: u64 = 100;
/// The columns of every row of this benchmark.
const COLUMNS: [(&str, ColumnType); 7] = [
    ("id", ColumnType::String),
    ("email", ColumnType::String),
    ("city", ColumnType::String),
    ("balance", ColumnType::Number),
    ("is_active", ColumnType::Boolean),
    ("created_at", ColumnType::Number),
    ("t", ColumnType::String),
];

pub(crate) fn measure(scale: Scale, table: &mut Table) {
    let batches = if scale.log_events < 1_000_000 { 100 } else { 400 };
    let component = Component::load(None, None, &CompileWith::ThisProcess).expect("the built-in engine loads");
    let batches_of = |rows: u64| (batches * BATCH / rows).max(1);
    for (what, door, updates) in [
        ("insert", Door::Capture, false),
        ("update", Door::Capture, true),
        ("followed insert", Door::Follow, false),
        ("followed update", Door::Follow, true),
    ] {
        let mut ratios = Vec::new();
        let mut figures = Vec::new();
        for _ in 0..scale.rounds {
            let batches = batches_of(door.rows());
            let native = per_event(&mut Native::new(), door, batches, updates);
            let guest = per_event(&mut Guest::new(&component), door, batches, updates);
            ratios.push(guest.as_secs_f64() / native.as_secs_f64());
            figures.push((guest, native));
        }
        ratios.sort_by(f64::total_cmp);
        figures.sort();
        let (guest, native) = figures[figures.len() / 2];
        let micros = |time: Duration| format!("{:.2} µs", time.as_secs_f64() * 1e6);
        let what = format!("engine as component, {what}, per event");
        match door {
            Door::Capture => {
                let ratio = ratios[ratios.len() / 2];
                table.at_most_of_peer(&format!("{what} (peer: native)"), micros(guest), micros(native), ratio, 1.6);
            }
            // A source is drained beside it, so what counts is what it leaves of a core.
            Door::Follow => {
                let what = format!("{what} (native: {})", micros(native));
                table.against_bar(&what, micros(guest), "<= 3.5 µs", guest <= Duration::from_nanos(3_500));
            }
        }
    }
}

/// How changes come.
#[derive(Clone, Copy)]
enum Door {
    /// As writes.
    Capture,
    /// As a database's log.
    Follow,
}

impl Door {
    /// How many rows come together.
    fn rows(self) -> u64 {
        match self {
            Self::Capture => BATCH,
            Self::Follow => PORTION,
        }
    }
}

/// A way to run the engine.
trait Engine {
    /// Captures changes; answers how long that took.
    fn capture(&mut self, changes: Vec<(bool, Vec<u8>)>) -> Duration;
    /// Captures a portion of rows, whose keys come with them; answers how long that took.
    fn follow(&mut self, rows: Vec<(String, String)>) -> Duration;
}

/// Inserts a table's rows and, if asked, measures their updates instead.
fn per_event(engine: &mut dyn Engine, door: Door, batches: u64, updates: bool) -> Duration {
    let image = |number: u64| {
        let mut row = Vec::new();
        write_row(number, &mut row);
        row
    };
    let keyed = |image: Vec<u8>| {
        let image = String::from_utf8(image).expect("text");
        let row: serde_json::Value = serde_json::from_str(&image).expect("JSON");
        (row["id"].as_str().expect("a key").to_owned(), image)
    };
    let mut run = |update: bool| -> Duration {
        let batch = |batch: u64| {
            let images = (batch * door.rows()..(batch + 1) * door.rows()).map(image);
            match door {
                Door::Capture => engine.capture(images.map(|image| (update, image)).collect()),
                Door::Follow => engine.follow(images.map(keyed).collect()),
            }
        };
        (0..batches).map(batch).sum()
    };
    let mut time = run(false);
    if updates {
        time = run(true);
    }
    time / u32::try_from(batches * door.rows()).unwrap()
}

/// The component in the sandbox.
struct Guest {
    store: Arc<MemoryStore>,
    instance: Instance,
}

impl Guest {
    fn new(component: &Component) -> Self {
        let store = MemoryStore::new();
        let settings = sandbox::Settings {
            schema_mode: sandbox::SchemaMode::Infer,
            max_row_bytes: 1 << 20,
            max_key_bytes: 512,
            max_depth: 128,
            max_columns: 1_000,
            max_tables: 1_000,
            max_name_bytes: 128,
            max_past_keys: 1_000_000,
        };
        let instance = Instance::new(component, store.clone(), settings, None).expect("the engine is instantiated");
        Self { store, instance }
    }
}

impl Engine for Guest {
    fn capture(&mut self, changes: Vec<(bool, Vec<u8>)>) -> Duration {
        let table: Arc<str> = Arc::from("users");
        let changes: Vec<sandbox::Change> = changes
            .into_iter()
            .map(|(update, image)| sandbox::Change {
                table: table.clone(),
                action: if update { sandbox::Action::Upsert } else { sandbox::Action::Insert },
                key: Vec::new(),
                image,
            })
            .collect();
        let start = Instant::now();
        let (captured, batch) = self.instance.capture(&changes).expect("no trap");
        let time = start.elapsed();
        assert!(captured.expect("the store is sound").outcomes.iter().all(Result::is_ok));
        self.store.append(Arc::new(batch.expect("events")), Box::new(|_| {})).expect("memory takes it");
        time
    }

    fn follow(&mut self, rows: Vec<(String, String)>) -> Duration {
        let start = Instant::now();
        let position = self.store.head_position("bench");
        let mut portion = sandbox::Portion::new("bench", position.as_deref());
        portion.reserve(rows.len(), rows.iter().map(|(_, image)| image.len() + 48).sum());
        let table = portion.table(described());
        let mut transaction = 0;
        for (place, (key, image)) in (0..).zip(rows) {
            if place % TRANSACTION == 0 {
                transaction = portion.transaction(&format!("{place}"), Some(1_699_380_000_000));
            }
            portion.change(&sandbox::FollowChange {
                table,
                action: sandbox::FollowAction::Replace,
                key: &[key],
                image: Some(&image),
                unchanged: &[],
                previous_key: None,
                before: None,
                transaction: Some(transaction),
                position: Some(&format!("0/16B3748/{place}")),
            });
        }
        portion.set_checkpoint(self.store.head().sequence.to_string());
        let (followed, batch) = self.instance.follow(&portion).expect("no trap");
        let time = start.elapsed();
        assert_eq!(u64::from(followed.expect("the store is sound").events), PORTION);
        self.store.append(Arc::new(batch.expect("events")), Box::new(|_| {})).expect("memory takes it");
        time
    }
}

fn described() -> sandbox::Described {
    let column = |&(name, column_type): &(&str, ColumnType)| sandbox::Column {
        name: name.to_owned(),
        column_type: match column_type {
            ColumnType::Number => sandbox::ColumnType::Number,
            ColumnType::Boolean => sandbox::ColumnType::Boolean,
            _ => sandbox::ColumnType::String,
        },
        nullable: false,
        native_type: None,
    };
    let Relation { source, connector, database, namespace, name } = relation();
    sandbox::Described {
        name: "users".to_owned(),
        columns: COLUMNS.iter().map(column).collect(),
        primary_key: vec!["id".to_owned()],
        relation: sandbox::Relation { source, connector, database, namespace, name },
    }
}

fn relation() -> Relation {
    let word = |word: &str| word.to_owned();
    Relation {
        source: word("bench"),
        connector: word("postgresql"),
        database: word("bench"),
        namespace: word("public"),
        name: word("users"),
    }
}

/// The core, linked into this program.
struct Native {
    capture: core::Capture,
    store: Adapter,
}

impl Native {
    fn new() -> Self {
        let store = Adapter { memory: MemoryStore::new(), committed: RefCell::new(None), relation: RefCell::new(None) };
        Self { capture: core::Capture::default(), store }
    }
}

impl Engine for Native {
    fn capture(&mut self, changes: Vec<(bool, Vec<u8>)>) -> Duration {
        let changes = changes
            .iter()
            .map(|(update, image)| core::Change {
                table: "users",
                action: if *update { core::Action::Upsert } else { core::Action::Insert },
                key: Vec::new(),
                image,
                origin: None,
            })
            .collect();
        let start = Instant::now();
        let captured = self.capture.capture(&self.store, 1_699_380_000_000, changes, Vec::new());
        let time = start.elapsed();
        assert!(captured.expect("the store is sound").outcomes.iter().all(Result::is_ok));
        self.store.apply();
        time
    }

    fn follow(&mut self, rows: Vec<(String, String)>) -> Duration {
        let start = Instant::now();
        let mut texts = Texts::with_capacity(rows.iter().map(|(_, image)| image.len() + 48).sum());
        let mut transactions = Vec::new();
        let mut changes = Vec::with_capacity(rows.len());
        for (place, (key, image)) in (0..).zip(&rows) {
            if place % TRANSACTION == 0 {
                let name = texts.push(&format!("{place}"));
                transactions.push(core_follow::Transaction { name, committed_at_ms: Some(1_699_380_000_000) });
            }
            changes.push(core_follow::Change {
                table: 0,
                action: core_follow::Action::Replace,
                key: texts.push(key),
                image: Some(texts.push(image)),
                before: None,
                transaction: Some(transactions.len() as u32 - 1),
                position: Some(texts.push(&format!("0/16B3748/{place}"))),
                detail: None,
            });
        }
        let described = core_follow::Described {
            name: "users".to_owned(),
            columns: columns(),
            primary_key: vec!["id".to_owned()],
            relation: relation(),
        };
        let portion = core_follow::Portion {
            source: "bench".to_owned(),
            tables: vec![described],
            transactions,
            details: Vec::new(),
            changes,
            texts,
            checkpoint: Some("1".to_owned()),
        };
        let followed = self.capture.follow(&self.store, 1_699_380_000_000, portion);
        let time = start.elapsed();
        assert_eq!(u64::from(followed.expect("the store is sound").events), PORTION);
        self.store.relation.replace(Some(relation()));
        self.store.apply();
        time
    }
}

/// The columns as the core knows them.
fn columns() -> Vec<cdc_engine::event::Column> {
    let column = |&(name, column_type): &(&str, ColumnType)| cdc_engine::event::Column {
        name: name.to_owned(),
        column_type,
        nullable: false,
        native_type: None,
    };
    COLUMNS.iter().map(column).collect()
}

/// The store in memory, as the core knows stores.
struct Adapter {
    memory: Arc<MemoryStore>,
    committed: RefCell<Option<core_store::Batch>>,
    /// Where the table is captured from, if it is.
    relation: RefCell<Option<Relation>>,
}

impl Adapter {
    /// Gives the committed batch to the store: outside of what is timed, like on the other side.
    fn apply(&self) {
        let batch = self.committed.take().expect("events");
        let table: Arc<str> = Arc::from("users");
        let texts = bytes::Bytes::from(batch.texts.into_bytes());
        let text = |span: Span| texts.slice(span.offset as usize..(span.offset + span.length) as usize);
        let batch = store::Batch {
            timestamp_ms: batch.timestamp_ms,
            schemas: batch
                .schemas
                .iter()
                .map(|schema| store::SchemaVersion {
                    table: table.clone(),
                    version: schema.version,
                    definition: bytes::Bytes::new(),
                })
                .collect(),
            writes: batch
                .writes
                .into_iter()
                .map(|write| store::Write {
                    table: table.clone(),
                    key: text(write.key),
                    operation: match write.operation {
                        Operation::Insert => store::Operation::Insert,
                        Operation::Update => store::Operation::Update,
                        Operation::Delete => store::Operation::Delete,
                        Operation::Truncate => store::Operation::Truncate,
                    },
                    before: write.before.map(text),
                    after: write.after.map(text),
                    schema_version: write.schema_version,
                    origin: None,
                    position: None,
                })
                .collect(),
            ..store::Batch::default()
        };
        self.memory.append(Arc::new(batch), Box::new(|_| {})).expect("memory takes it");
    }
}

impl core_store::Store for Adapter {
    type View = NoView;

    fn settings(&self) -> core_store::Settings {
        core_store::Settings::default()
    }

    fn head(&self) -> Result<core_store::Head, core_store::StoreError> {
        let head = self.memory.head();
        Ok(core_store::Head {
            sequence: head.sequence,
            timestamp_ms: head.timestamp_ms,
            schema_generation: head.schema_generation,
            tables: head.tables as usize,
        })
    }

    fn rows(
        &self,
        table: &str,
        keys: Vec<Span>,
        texts: Texts,
    ) -> Result<core_store::FoundRows, core_store::StoreError> {
        let keys: Vec<&str> = keys.into_iter().map(|key| texts.text(key)).collect::<Result<_, _>>()?;
        let rows = self.memory.head_rows(table, &keys).expect("memory is sound");
        let mut texts = Texts::with_capacity(rows.iter().flatten().map(bytes::Bytes::len).sum());
        let mut image = |image: &bytes::Bytes| texts.push(std::str::from_utf8(image).expect("text"));
        let images = rows.iter().map(|row| row.as_ref().map(&mut image)).collect();
        Ok(core_store::FoundRows { images, texts })
    }

    fn schema(&self, table: &str) -> Result<Option<TableSchema>, core_store::StoreError> {
        // The bytes' own columns: the one schema that every row of this benchmark has.
        Ok(self.memory.head_schema(table).map(|version| TableSchema {
            name: table.to_owned(),
            columns: columns(),
            primary_key: vec!["id".to_owned()],
            version: version.version,
            relation: self.relation.borrow().clone(),
        }))
    }

    fn commit(&self, batch: core_store::Batch) -> Result<u64, core_store::StoreError> {
        self.committed.replace(Some(batch));
        Ok(self.memory.head().sequence + 1)
    }

    fn save_cursor(&self, _: &str, _: u64) -> Result<(), core_store::StoreError> {
        unreachable!("capturing moves no cursor")
    }

    fn view(&self) -> Result<NoView, core_store::StoreError> {
        unreachable!("capturing opens no view")
    }
}

/// Capturing reads no view.
enum NoView {}

impl core_store::View for NoView {
    fn bounds(&self) -> core_store::Bounds {
        match *self {}
    }

    fn row(&self, _: &str, _: &str) -> Result<Option<String>, core_store::StoreError> {
        match *self {}
    }

    fn scan(&self, _: &str, _: Option<&str>, _: u32, _: u32) -> Result<Vec<core_store::Row>, core_store::StoreError> {
        match *self {}
    }

    fn events(&self, _: &core_store::EventRange) -> Result<core_store::EventSlice, core_store::StoreError> {
        match *self {}
    }

    fn schema(&self, _: &str, _: Option<u32>) -> Result<Option<TableSchema>, core_store::StoreError> {
        match *self {}
    }

    fn schemas(&self) -> Result<Vec<TableSchema>, core_store::StoreError> {
        match *self {}
    }

    fn schema_history(&self, _: &str) -> Result<Vec<TableSchema>, core_store::StoreError> {
        match *self {}
    }

    fn counters(&self) -> Result<core_store::Counters, core_store::StoreError> {
        match *self {}
    }

    fn cursor(&self, _: &str) -> Result<Option<u64>, core_store::StoreError> {
        match *self {}
    }
}
