//! The component behind the host's door: what it promises an embedder besides capturing, and what the host does with
//! bytes that are no engine or with a compile cache that is damaged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cdc_host::sandbox::{
    Action, Change, CompileWith, Component, Event, Instance, Operation, SaveCursor, SchemaMode, Selection, Settings,
    SubscribeError, built_in_component,
};
use cdc_host::store::{Batch, MemoryStore, Store};

use crate::property::component;

const SETTINGS: Settings = Settings {
    schema_mode: SchemaMode::Infer,
    max_row_bytes: 1 << 20,
    max_key_bytes: 512,
    max_depth: 128,
    max_columns: 1_000,
    max_tables: 1_000,
    max_name_bytes: 128,
    max_past_keys: 1_000_000,
};

/// A store with these events: table and row, each an upsert.
fn store(events: &[(&str, &str)]) -> Arc<MemoryStore> {
    let store = MemoryStore::new();
    let mut writer = Instance::new(component(), store.clone(), SETTINGS, None).unwrap();
    for (table, image) in events {
        let change =
            Change { table: (*table).into(), action: Action::Upsert, key: vec![], image: image.as_bytes().to_vec() };
        let (captured, batch) = writer.capture(&[change]).unwrap();
        assert!(captured.unwrap().outcomes[0].is_ok());
        store.append(Arc::new(batch.unwrap()), Box::new(|durable| durable.unwrap())).unwrap();
    }
    store
}

/// An instance that may move cursors.
fn subscriber(store: &Arc<MemoryStore>) -> Instance {
    let cursors = store.clone();
    let save: SaveCursor = Arc::new(move |subscription, acknowledged| {
        let batch = Batch { cursors: vec![(subscription, acknowledged)], ..Batch::default() };
        cursors.append(Arc::new(batch), Box::new(|durable| durable.unwrap())).map(drop)
    });
    Instance::new(component(), store.clone(), SETTINGS, Some(save)).unwrap()
}

fn selection(tables: &[&str], operations: &[Operation]) -> Selection {
    Selection { tables: tables.iter().map(|&table| table.to_owned()).collect(), operations: operations.to_vec() }
}

fn events(instance: &mut Instance) -> Vec<Event> {
    instance.poll("everything", &selection(&[], &[]), 1_000).unwrap().unwrap().events
}

#[test]
fn a_subscription_is_polled_and_acknowledged_over_instances() {
    let row = r#"{"id":1}"#;
    let store = store(&[("odd", row), ("even", row), ("odd", row), ("even", row), ("odd", row)]);
    let odd = selection(&["odd"], &[]);
    let poll = |max_events| {
        let delivery = subscriber(&store).poll("s", &odd, max_events).unwrap().unwrap();
        let sequences: Vec<u64> = delivery.events.iter().map(|event| event.sequence).collect();
        (sequences, delivery.acknowledge_up_to)
    };
    let acknowledge = |up_to| subscriber(&store).acknowledge("s", up_to).unwrap();
    assert_eq!(poll(2), (vec![1, 3], 3));
    assert_eq!(poll(2), (vec![1, 3], 3));
    acknowledge(3).unwrap();
    assert_eq!(poll(2), (vec![5], 5));
    // Never backwards.
    acknowledge(1).unwrap();
    assert_eq!(poll(2), (vec![5], 5));
    acknowledge(5).unwrap();
    assert_eq!(poll(2), (vec![], 5));
    assert!(matches!(acknowledge(6), Err(SubscribeError::InvalidSequence(message)) if message.contains('6')));
    // Another subscription is another cursor.
    let others = subscriber(&store).poll("t", &odd, 9).unwrap().unwrap();
    assert_eq!(others.events.len(), 3);
}

#[test]
fn an_instance_without_cursors_acknowledges_nothing() {
    let store = store(&[("t", r#"{"id":1}"#)]);
    let mut reader = Instance::new(component(), store, SETTINGS, None).unwrap();
    assert!(matches!(reader.acknowledge("s", 1).unwrap(), Err(SubscribeError::Store(_))));
}

#[test]
fn events_are_matched_against_a_selection() {
    let store = store(&[("users", r#"{"id":1}"#), ("orders", r#"{"id":1}"#), ("users", r#"{"id":1}"#)]);
    let mut reader = Instance::new(component(), store, SETTINGS, None).unwrap();
    let events = events(&mut reader);
    let mut matches =
        |tables: &[&str], operations: &[Operation]| reader.matches(&selection(tables, operations), &events).unwrap();
    assert_eq!(matches(&[], &[]).unwrap(), [true, true, true]);
    assert_eq!(matches(&["user*"], &[]).unwrap(), [true, false, true]);
    assert_eq!(matches(&["*"], &[Operation::Update]).unwrap(), [false, false, true]);
    assert_eq!(matches(&["nothing"], &[Operation::Update]).unwrap(), [false, false, false]);
    assert!(matches!(matches(&[""], &[]), Err(SubscribeError::InvalidSelection(_))));
    assert!(matches!(matches(&["a/b"], &[]), Err(SubscribeError::InvalidSelection(_))));
}

#[test]
fn an_id_is_the_same_by_the_component_and_by_the_contract() {
    let row = r#"{"id":1}"#;
    let store = store(&[("t", row); 40]);
    let mut reader = Instance::new(component(), store, SETTINGS, None).unwrap();
    for event in events(&mut reader) {
        assert_eq!(event.id, cdc_rest::event_id(event.timestamp, event.sequence));
    }
}

/// Loads a component from these bytes; answers why that is refused.
fn refused(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("given.wasm");
    fs::write(&file, bytes).unwrap();
    let cache = folder.path().join("cache");
    let error = Component::load(Some(&file), Some(&cache), &CompileWith::ThisProcess).unwrap_err().to_string();
    assert!(error.contains("given.wasm"), "{error}");
    // Without a cache it is no other.
    assert_eq!(Component::load(Some(&file), None, &CompileWith::ThisProcess).unwrap_err().to_string(), error);
    error
}

#[test]
fn what_is_no_component_is_refused_by_name() {
    let real = built_in_component();
    for bytes in [&b""[..], b"no component", b"\0asm", &real[..real.len() / 2], &real[..real.len() - 1]] {
        let error = refused(bytes);
        assert!(error.contains("not a WebAssembly component"), "{error}");
    }
    // A module is WebAssembly, but no component.
    let error = refused(b"\0asm\x01\0\0\0");
    assert!(error.contains("not a WebAssembly component"), "{error}");
}

#[test]
fn a_component_that_is_no_engine_is_refused_with_what_does_not_fit() {
    // It exports nothing.
    let error = refused(b"\0asm\x0d\0\x01\0");
    assert!(error.contains("cdc:engine"), "{error}");
    // It imports the function `nope`, which nobody provides.
    let error = refused(b"\0asm\x0d\0\x01\0\x07\x05\x01\x40\x00\x01\x00\x0a\x09\x01\x00\x04nope\x01\x00");
    assert!(error.contains("does not fit") && error.contains("nope"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = Component::load(Some(Path::new("no/such.wasm")), None, &CompileWith::ThisProcess).unwrap_err();
    assert!(error.to_string().contains("no/such.wasm"), "{error}");
}

/// Every file of a folder: when it was written, and what it holds.
fn files(folder: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let file = |path: PathBuf| {
        let written = (fs::metadata(&path).unwrap().modified().unwrap(), fs::read(&path).unwrap());
        (path, written)
    };
    fs::read_dir(folder).unwrap().map(|entry| file(entry.unwrap().path())).collect()
}

fn load(cache: &Path) {
    let component = Component::load(None, Some(cache), &CompileWith::ThisProcess).unwrap();
    let mut instance = Instance::new(&component, MemoryStore::new(), SETTINGS, None).unwrap();
    assert_eq!(instance.stats().unwrap().unwrap().total_events, 0);
}

#[test]
fn a_second_load_compiles_nothing_and_a_damaged_cache_is_compiled_anew() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("made/when/needed");
    load(&cache);
    let compiled = files(&cache);
    load(&cache);
    assert_eq!(files(&cache), compiled, "the cache was written again");

    let (native, (_, bytes)) = compiled.iter().max_by_key(|(_, (_, bytes))| bytes.len()).unwrap();
    let (sum, _) = compiled.iter().min_by_key(|(_, (_, bytes))| bytes.len()).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let damages: [(&Path, Option<&[u8]>); 6] = [
        (native, Some(&bytes[..bytes.len() / 2])),
        (native, Some(&flipped)),
        (native, Some(b"")),
        (native, None),
        (sum, Some(b"0")),
        (sum, None),
    ];
    for (file, damage) in damages {
        match damage {
            Some(damage) => fs::write(file, damage).unwrap(),
            None => fs::remove_file(file).unwrap(),
        }
        load(&cache);
        let contents = |files: &BTreeMap<PathBuf, (SystemTime, Vec<u8>)>| {
            files.iter().map(|(path, (_, bytes))| (path.clone(), bytes.clone())).collect::<BTreeMap<_, _>>()
        };
        assert!(contents(&files(&cache)) == contents(&compiled), "{} was not made good", file.display());
    }
}

#[test]
fn a_cache_that_cannot_be_written_costs_time_and_not_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    load(&file.join("cache"));
}
