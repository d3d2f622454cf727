//! Random changes through the real component, on each store, held against an oracle that knows neither: outcomes,
//! events, rows, schemas, and the table at every point of its past.
//!
//! The cases are the same in every run; `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask for more or for others. A failing
//! case is made small and printed.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};

use cdc_host::sandbox::{
    Action, Change, Column, ColumnType, CompileWith, Component, Declaration, EventQuery, Instance, Order, SchemaMode,
    Settings, Snapshot, SnapshotError,
};
use cdc_host::store::{Batch, EmbeddedOptions, EmbeddedStore, MemoryStore, Store, StoreError};
use proptest::prelude::*;
use proptest::sample::Index;

#[path = "../../engine/src/oracle.rs"]
mod oracle;

use oracle::{Oracle, Rows, word};

/// The engine, compiled once for all tests of this process.
pub(crate) fn component() -> &'static Component {
    static COMPONENT: OnceLock<Component> = OnceLock::new();
    COMPONENT.get_or_init(|| Component::load(None, None, &CompileWith::ThisProcess).expect("the engine can be loaded"))
}

/// Settings with the oracle's limits.
fn settings(oracle: &Oracle) -> Settings {
    Settings {
        schema_mode: if oracle.strict { SchemaMode::Strict } else { SchemaMode::Infer },
        max_row_bytes: oracle.max_row_bytes as u32,
        max_key_bytes: oracle.max_key_bytes as u32,
        max_depth: oracle::MAX_DEPTH as u32,
        max_columns: oracle.max_columns as u32,
        max_tables: oracle.max_tables as u32,
        max_name_bytes: 128,
        max_past_keys: 1_000_000,
    }
}

fn instance(store: &Arc<dyn Store>, oracle: &Oracle) -> Instance {
    Instance::new(component(), store.clone(), settings(oracle), None).expect("an instance can be made")
}

/// Batches that were given to the store and are not known to be durable yet.
#[derive(Default)]
struct Staged(Vec<Receiver<Result<(), StoreError>>>);

impl Staged {
    fn append(&mut self, store: &Arc<dyn Store>, batch: Batch) -> u64 {
        let (done, outcome) = channel();
        let done = Box::new(move |result| done.send(result).expect("the test waits for it"));
        self.0.push(outcome);
        store.append(Arc::new(batch), done).expect("the store takes it")
    }

    fn wait(&mut self) {
        for outcome in self.0.drain(..) {
            outcome.recv().expect("the store answers").expect("it is durable");
        }
    }
}

fn declare(store: &Arc<dyn Store>, oracle: &Oracle, staged: &mut Staged) {
    let mut writer = instance(store, oracle);
    for (name, columns, key) in oracle::declarations() {
        let columns = columns.iter().map(|column| Column {
            name: column.name.clone(),
            column_type: if column.kind == "String" { ColumnType::String } else { ColumnType::Number },
            nullable: column.nullable,
            native_type: None,
        });
        let declaration = Declaration {
            name: name.to_owned(),
            columns: columns.collect(),
            primary_key: key.into_iter().map(str::to_owned).collect(),
        };
        let (declared, batch) = writer.declare(&declaration).expect("the engine runs");
        assert_eq!(declared.expect("it is a schema").version, 1);
        staged.append(store, batch.expect("a new table is committed"));
    }
}

fn change(given: &oracle::Change) -> Change {
    Change {
        table: given.table.into(),
        action: match given.action {
            oracle::Action::Insert => Action::Insert,
            oracle::Action::Update => Action::Update,
            oracle::Action::Upsert => Action::Upsert,
            oracle::Action::Delete => Action::Delete,
        },
        key: given.address.clone(),
        image: given.bytes(),
    }
}

/// Opens the store anew.
type Open<'a> = &'a dyn Fn() -> Arc<dyn Store>;

/// Captures the batches through the component, one after another and without waiting for the disk in between, and
/// compares what became of each change. `reopen` closes and opens the store before the batch of that number. Answers the
/// time of every event.
fn capture(
    mut store: Arc<dyn Store>,
    oracle: &mut Oracle,
    batches: &[Vec<oracle::Change>],
    reopen: Option<(usize, Open<'_>)>,
) -> Result<(Arc<dyn Store>, Vec<u64>), TestCaseError> {
    let mut staged = Staged::default();
    declare(&store, oracle, &mut staged);
    let mut writer = instance(&store, oracle);
    let mut times = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        if let Some((_, open)) = reopen.filter(|&(place, _)| place == number) {
            staged.wait();
            store.close().expect("the store closes");
            drop(writer);
            drop(store);
            store = open();
            writer = instance(&store, oracle);
        }
        let expected: Vec<Result<u64, String>> =
            batch.iter().map(|change| oracle.decide(change).map_err(str::to_owned)).collect();
        let changes: Vec<Change> = batch.iter().map(change).collect();
        let (captured, committed) = writer.capture(&changes).expect("the engine runs");
        let captured = captured.expect("the store takes it");
        let outcomes: Vec<Result<u64, String>> =
            captured.outcomes.into_iter().map(|outcome| outcome.map_err(|refusal| word(refusal.code))).collect();
        prop_assert_eq!(&outcomes, &expected);
        prop_assert_eq!(committed.is_some(), expected.iter().any(Result::is_ok));
        if let Some(committed) = committed {
            times.extend(committed.writes.iter().map(|_| captured.timestamp));
            let first = staged.append(&store, committed);
            prop_assert_eq!(Some(&first), expected.iter().flatten().next());
        }
    }
    staged.wait();
    Ok((store, times))
}

/// Compares everything that can be read with the oracle. `points` choose among the past.
fn compare(store: &Arc<dyn Store>, oracle: &Oracle, times: &[u64], points: &[Index]) -> Result<(), TestCaseError> {
    let mut reader = instance(store, oracle);
    let newest = oracle.events.len() as u64;

    let everything = EventQuery {
        table: None,
        operation: None,
        key: None,
        since: None,
        after: Some(0),
        limit: 10_000,
        order: Order::Ascending,
    };
    let page = reader.events(&everything).expect("the engine runs").expect("nothing was dropped");
    prop_assert_eq!((page.next_after, page.bounds.oldest, page.bounds.newest), (newest, 1, newest));
    prop_assert_eq!(page.len(), oracle.events.len());
    let text = |image: Option<&[u8]>| image.map(|image| std::str::from_utf8(image).expect("it is text").to_owned());
    for ((event, expected), &time) in page.events().zip(&oracle.events).zip(times) {
        let found = oracle::Event {
            sequence: event.sequence,
            table: event.table.to_owned(),
            key: event.key.to_owned(),
            operation: expected.operation,
            before: text(event.before),
            after: text(event.after),
            schema_version: event.schema_version,
        };
        prop_assert_eq!(&found, expected);
        prop_assert_eq!(word(event.operation), expected.operation);
        prop_assert_eq!(event.timestamp_ms, time);
        prop_assert_eq!(&event.origin.is_some(), &false);
    }
    prop_assert!(times.is_sorted());

    let statistics = reader.stats().expect("the engine runs").expect("the store answers");
    prop_assert_eq!((statistics.total_events, statistics.current_sequence), (newest, newest));
    let mut counted = std::collections::BTreeMap::<String, u64>::new();
    for event in &oracle.events {
        *counted.entry(event.table.clone()).or_default() += 1;
    }
    prop_assert_eq!(statistics.tables, counted.into_iter().collect::<Vec<_>>());

    let schemas = reader.schemas().expect("the engine runs").expect("the store answers");
    let names: Vec<&String> = schemas.iter().map(|schema| &schema.name).collect();
    prop_assert_eq!(names, oracle.tables.keys().collect::<Vec<_>>());
    for (name, table) in &oracle.tables {
        let history = reader.schema_history(name).expect("the engine runs").expect("there is a table");
        let history: Vec<Vec<_>> = history.iter().map(|schema| columns(&schema.columns)).collect();
        let expected: Vec<Vec<_>> = table
            .versions
            .iter()
            .map(|columns| {
                columns.iter().map(|column| (column.name.clone(), column.kind.to_owned(), column.nullable)).collect()
            })
            .collect();
        prop_assert_eq!(history, expected);

        let present = oracle.rows_at(name, newest);
        for (key, image) in present.iter().filter(|_| table.key.len() == 1) {
            let row = reader.row(name, std::slice::from_ref(key)).expect("the engine runs");
            prop_assert_eq!(row.as_ref().ok(), Some(image));
        }
        let snapshot = |at| instance(store, oracle).snapshot(name, at).expect("the engine runs");
        prop_assert_eq!(&rows(snapshot(None)), &present);
        prop_assert_eq!(&rows(instance(store, oracle).replica(name).expect("the engine runs")), &present);
        for point in points {
            let at = point.index(newest as usize + 1) as u64;
            let snapshot = snapshot(Some(at));
            prop_assert_eq!(snapshot.as_ref().ok().map(|snapshot| snapshot.info().sequence), Some(at));
            prop_assert_eq!(rows(snapshot), oracle.rows_at(name, at));
        }
        let whole = reader.verify(name, None, None).expect("the engine runs").expect("nothing was dropped");
        let rows = (whole.replayed_rows, whole.replayed_checksum);
        prop_assert_eq!(rows, (whole.live_rows, whole.live_checksum));
        prop_assert_eq!(whole.live_rows, present.len() as u64);
        if let ([from, to, ..], 1..) = (points, newest) {
            let (from, to) = (from.index(newest as usize) as u64 + 1, to.index(newest as usize) as u64 + 1);
            let part = reader.verify(name, Some(from.min(to)), Some(from.max(to))).expect("the engine runs");
            let part = part.expect("nothing was dropped");
            prop_assert_eq!((part.replayed_rows, part.replayed_checksum), (part.live_rows, part.live_checksum));
        }
    }
    Ok(())
}

fn columns(columns: &[Column]) -> Vec<(String, String, bool)> {
    columns.iter().map(|column| (column.name.clone(), word(column.column_type), column.nullable)).collect()
}

/// All rows of a snapshot, which come in key order.
fn rows(snapshot: Result<Snapshot, SnapshotError>) -> Rows {
    let mut snapshot = snapshot.expect("there is a snapshot");
    let mut rows = Rows::new();
    loop {
        let page = snapshot.next(3, 200).expect("the engine runs").expect("the store answers");
        if page.is_empty() {
            return rows;
        }
        for row in page {
            assert!(rows.last_key_value().is_none_or(|(last, _)| *last < row.key), "rows are out of order");
            rows.insert(row.key, row.image);
        }
    }
}

fn embedded(folder: &Path) -> Arc<dyn Store> {
    let mut options = EmbeddedOptions::new(folder);
    // Small enough for random changes to pass it, so that rows are read from checkpoints too.
    options.checkpoint_entries = 8;
    EmbeddedStore::open(options).expect("the store opens")
}

fn points() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 3)
}

proptest! {
    #![proptest_config(oracle::config(64))]

    #[test]
    fn the_component_on_the_store_in_memory_does_what_the_oracle_does(
        batches in oracle::batches(8, 12),
        strict in any::<bool>(),
        points in points(),
    ) {
        let mut oracle = Oracle { strict, ..Oracle::declared() };
        let (store, times) = capture(MemoryStore::new(), &mut oracle, &batches, None)?;
        compare(&store, &oracle, &times, &points)?;
    }
}

proptest! {
    #![proptest_config(oracle::config(16))]

    #[test]
    fn the_component_on_the_embedded_store_does_what_the_oracle_does_over_a_restart(
        batches in oracle::batches(8, 12),
        strict in any::<bool>(),
        points in points(),
        restart in any::<Index>(),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let open = || embedded(folder.path());
        let mut oracle = Oracle { strict, ..Oracle::declared() };
        let reopen = Some((restart.index(batches.len()), &open as Open<'_>));
        let (store, times) = capture(open(), &mut oracle, &batches, reopen)?;
        compare(&store, &oracle, &times, &points)?;
        store.close().expect("the store closes");
    }
}
