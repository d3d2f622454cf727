//! The contract of [`Store`] as tests, run for every implementation. A new implementation is one line at the end.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::sync::mpsc::channel;
use std::time::Duration;

use super::memory::MemoryStore;
use super::*;

/// A store to test, and what must outlive it.
pub(super) type Opened = (Arc<dyn Store>, Option<tempfile::TempDir>);

pub(super) fn text(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

pub(super) fn write(table: &str, key: &str, operation: Operation, after: Option<&str>) -> Write {
    Write {
        table: table.into(),
        key: text(key),
        operation,
        before: None,
        after: after.map(text),
        schema_version: 1,
        origin: None,
        position: None,
    }
}

pub(super) fn insert(table: &str, key: &str, after: &str) -> Write {
    write(table, key, Operation::Insert, Some(after))
}

pub(super) fn batch(timestamp_ms: u64, writes: Vec<Write>) -> Batch {
    Batch { timestamp_ms, writes, ..Batch::default() }
}

pub(super) fn schema(table: &str, version: u32, definition: &str) -> SchemaVersion {
    SchemaVersion { table: table.into(), version, definition: text(definition) }
}

pub(super) fn document(collection: &str, key: impl Into<Bytes>, value: Option<&str>) -> Document {
    Document { collection: collection.into(), key: key.into(), value: value.map(text) }
}

/// A batch of documents alone, which has no time of its own.
pub(super) fn documents(store: &dyn Store, documents: Vec<Document>) -> Batch {
    Batch { documents, ..batch(store.head().timestamp_ms, vec![]) }
}

/// Every document of a collection.
pub(super) fn collection(view: &dyn View, collection: &str) -> Vec<(Bytes, Bytes)> {
    let rows = view.documents(collection, None, usize::MAX, usize::MAX).unwrap();
    rows.into_iter().map(|row| (row.key, row.image)).collect()
}

/// Stages a batch and waits for its fate.
pub(super) fn commit(store: &dyn Store, batch: Batch) -> Result<Sequence, StoreError> {
    let (fate, told) = channel();
    let first = store.append(Arc::new(batch), Box::new(move |result| fate.send(result).unwrap()))?;
    told.recv_timeout(Duration::from_secs(60)).unwrap()?;
    Ok(first)
}

pub(super) fn all() -> EventRange<'static> {
    EventRange { until: Sequence::MAX, max_events: usize::MAX, max_bytes: usize::MAX, ..EventRange::default() }
}

pub(super) fn sequences(view: &dyn View, range: &EventRange<'_>) -> (Vec<Sequence>, bool) {
    let slice = view.events(range).unwrap();
    (slice.events.iter().map(|event| event.sequence).collect(), slice.complete)
}

fn empty_store_is_before_the_first_event(store: &dyn Store) {
    let view = store.view().unwrap();
    assert_eq!(view.bounds(), Bounds { oldest: 1, newest: 0, newest_timestamp_ms: 0 });
    assert_eq!(store.head(), Head::default());
    assert_eq!(sequences(&*view, &all()), (vec![], true));
    assert_eq!(view.row("t", "k").unwrap(), None);
    assert!(view.scan("t", None, 10, 10).unwrap().is_empty());
    assert!(view.schemas().is_empty() && view.schema("t", None).is_none() && view.schema_history("t").is_empty());
    assert_eq!(view.counters(), Counters::default());
    assert_eq!((view.cursor("s"), view.position("p")), (None, None));
    assert_eq!(store.head_rows("t", &["k"]).unwrap(), [None]);
}

fn sequence_numbers_start_at_one_without_a_gap(store: &dyn Store) {
    assert_eq!(commit(store, batch(10, vec![insert("t", "a", "1"), insert("t", "b", "2")])).unwrap(), 1);
    assert_eq!(commit(store, batch(11, vec![])).unwrap(), 3);
    assert_eq!(commit(store, batch(12, vec![insert("u", "a", "3")])).unwrap(), 3);
    let view = store.view().unwrap();
    assert_eq!(sequences(&*view, &all()), (vec![1, 2, 3], true));
    assert_eq!(view.bounds(), Bounds { oldest: 1, newest: 3, newest_timestamp_ms: 12 });
    let head = store.head();
    assert_eq!((head.sequence, head.timestamp_ms), (3, 12));
}

fn an_event_is_read_as_it_was_written(store: &dyn Store) {
    let origin = Origin {
        source: "pg".into(),
        transaction: Some("7".into()),
        committed_at_ms: Some(1_700_000_000_000),
        snapshot: true,
        unavailable: Some("[\"big\"]".into()),
    };
    let writes = vec![
        Write {
            before: Some(text("{\"a\":1}")),
            schema_version: 300,
            origin: Some(Arc::new(origin)),
            position: Some(text("0/16B3748")),
            ..write("täble", "kéy,with \"all\"", Operation::Update, Some("{\"a\":2}"))
        },
        Write { before: Some(text("")), ..write("täble", "", Operation::Delete, None) },
        insert("other", "k", &"x".repeat(300_000)),
        write("täble", "", Operation::Truncate, None),
    ];
    commit(store, batch(77, writes.clone())).unwrap();
    let slice = store.view().unwrap().events(&all()).unwrap();
    assert_eq!(slice.events.iter().map(|event| event.write.clone()).collect::<Vec<_>>(), writes);
    assert!(slice.events.iter().all(|event| event.timestamp_ms == 77));
}

fn a_view_never_changes(store: &dyn Store) {
    commit(store, batch(1, vec![insert("t", "a", "1"), insert("t", "b", "1")])).unwrap();
    let view = store.view().unwrap();
    for i in 0..200 {
        let writes = vec![write("t", "a", Operation::Update, Some("2")), insert("t", &format!("c{i}"), "1")];
        commit(store, Batch { cursors: vec![("s".into(), i)], ..batch(2, writes) }).unwrap();
    }
    commit(store, batch(3, vec![write("t", "", Operation::Truncate, None)])).unwrap();
    assert_eq!(view.row("t", "a").unwrap(), Some(text("1")));
    assert_eq!(view.scan("t", None, 10, 1000).unwrap().len(), 2);
    assert_eq!(sequences(&*view, &all()), (vec![1, 2], true));
    assert_eq!(view.cursor("s"), None);
    assert_eq!(view.counters().tables[0].by_operation, [2, 0, 0, 0]);
    assert!(store.view().unwrap().scan("t", None, 10, 1000).unwrap().is_empty());
}

fn rows_follow_events(store: &dyn Store) {
    commit(store, batch(1, vec![insert("t", "a", "1"), insert("t", "b", "1"), insert("u", "a", "9")])).unwrap();
    commit(
        store,
        batch(2, vec![write("t", "a", Operation::Update, Some("2")), write("t", "b", Operation::Delete, None)]),
    )
    .unwrap();
    let keys = ["b", "a", "none"];
    assert_eq!(store.head_rows("t", &keys).unwrap(), [None, Some(text("2")), None]);
    let view = store.view().unwrap();
    assert_eq!(view.row("t", "a").unwrap(), Some(text("2")));
    assert_eq!(view.row("t", "b").unwrap(), None);
    commit(store, batch(3, vec![write("t", "", Operation::Truncate, None), insert("t", "z", "3")])).unwrap();
    let view = store.view().unwrap();
    assert_eq!(view.scan("t", None, 10, 1000).unwrap(), [Row { key: text("z"), image: text("3") }]);
    assert_eq!(view.row("u", "a").unwrap(), Some(text("9")));
}

fn a_scan_goes_in_byte_order_page_by_page(store: &dyn Store) {
    // In several batches, so that more than one tier has its share, and not in order.
    for part in 0..7 {
        let keys = (0..500).filter(|i| i * 31 % 7 == part);
        let writes = keys.map(|i| insert("t", &format!("{:03}", i * 37 % 500), &"v".repeat(i % 50))).collect();
        commit(store, batch(1, writes)).unwrap();
    }
    commit(
        store,
        batch(1, vec![insert("s", "x", "x"), insert("u", "y", "y"), write("t", "007", Operation::Delete, None)]),
    )
    .unwrap();
    let view = store.view().unwrap();
    let mut keys = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let rows = view.scan("t", after.as_deref(), 13, 1 << 20).unwrap();
        assert!(rows.len() <= 13);
        let Some(last) = rows.last() else { break };
        after = Some(String::from_utf8(last.key.to_vec()).unwrap());
        keys.extend(rows.into_iter().map(|row| row.key));
    }
    let wanted: Vec<_> = (0..500).filter(|i| *i != 7).map(|i| text(format!("{i:03}"))).collect();
    assert_eq!(keys, wanted);
    assert_eq!(view.scan("t", Some("499"), 5, 5).unwrap(), []);
    assert_eq!(view.scan("t", None, 100, 0).unwrap().len(), 2, "000 is empty and does not pass 0 bytes; 001 does");
}

fn reads_select(store: &dyn Store) {
    for i in 0..300u64 {
        let operation = if i % 10 == 3 { Operation::Update } else { Operation::Insert };
        let table = if i % 50 == 7 { "rare" } else { "common" };
        commit(store, batch(1000 + i, vec![write(table, &format!("k{}", i % 20), operation, Some("{}"))])).unwrap();
    }
    let view = store.view().unwrap();
    let newest = |range: EventRange<'_>| sequences(&*view, &EventRange { newest_first: true, max_events: 3, ..range });
    assert_eq!(newest(all()), (vec![300, 299, 298], false));
    assert_eq!(newest(EventRange { table: Some("rare"), ..all() }), (vec![258, 208, 158], false));
    assert_eq!(newest(EventRange { table: Some("none"), ..all() }), (vec![], true));
    assert_eq!(newest(EventRange { operation: Some(Operation::Update), ..all() }), (vec![294, 284, 274], false));
    assert_eq!(newest(EventRange { operation: Some(Operation::Delete), ..all() }), (vec![], true));
    assert_eq!(newest(EventRange { key: Some("k5"), ..all() }), (vec![286, 266, 246], false));
    assert_eq!(newest(EventRange { key: Some("k7"), table: Some("rare"), ..all() }), (vec![208, 108, 8], true));
    assert_eq!(newest(EventRange { since_ms: Some(1297), ..all() }), (vec![300, 299], true));
    let range = EventRange { after: 10, until: 12, ..all() };
    assert_eq!(sequences(&*view, &range), (vec![11, 12], true));
    assert_eq!(sequences(&*view, &EventRange { max_events: 1, ..range.clone() }), (vec![11], false));
    assert_eq!(sequences(&*view, &EventRange { max_events: 2, ..range.clone() }), (vec![11, 12], true));
    assert_eq!(sequences(&*view, &EventRange { since_ms: Some(1010), ..range }), (vec![12], true));
    assert_eq!(sequences(&*view, &EventRange { after: 300, ..all() }), (vec![], true));
    assert_eq!(sequences(&*view, &EventRange { after: 9999, ..all() }), (vec![], true));
    assert_eq!(sequences(&*view, &EventRange { max_bytes: 0, ..all() }), (vec![1], false), "at least one event");
    assert_eq!(sequences(&*view, &EventRange { max_bytes: 3, ..all() }), (vec![1, 2], false));
}

fn schemas_keep_every_version(store: &dyn Store) {
    let before = store.head();
    let first = Batch { schemas: vec![schema("t", 1, "one"), schema("u", 1, "u")], ..batch(1, vec![]) };
    commit(store, first).unwrap();
    commit(store, Batch { schemas: vec![schema("t", 2, "two")], ..batch(2, vec![insert("t", "a", "1")]) }).unwrap();
    let head = store.head();
    assert!(head.schema_generation > before.schema_generation);
    assert_eq!(head.tables, 2);
    assert_eq!(store.head_schema("t"), Some(schema("t", 2, "two")));
    let view = store.view().unwrap();
    assert_eq!(view.schema("t", Some(1)), Some(schema("t", 1, "one")));
    assert_eq!(view.schema("t", Some(3)), None);
    assert_eq!(view.schemas(), [schema("t", 2, "two"), schema("u", 1, "u")]);
    assert_eq!(view.schema_history("t"), [schema("t", 1, "one"), schema("t", 2, "two")]);
}

fn positions_and_cursors_are_the_last_ones(store: &dyn Store) {
    for i in 0..5 {
        let positions = vec![("pg".into(), format!("0/{i}"))];
        let cursors = vec![("a".into(), 9 - i), ("b".into(), i)];
        commit(store, Batch { positions, cursors, ..batch(1, vec![]) }).unwrap();
    }
    let view = store.view().unwrap();
    assert_eq!(view.position("pg").as_deref(), Some("0/4"));
    assert_eq!((view.cursor("a"), view.cursor("b"), view.cursor("c")), (Some(5), Some(4), None));
    assert_eq!(view.bounds().newest, 0);
    commit(store, Batch { cursors: vec![("a".into(), Sequence::MAX)], ..batch(1, vec![]) }).unwrap();
    assert_eq!(store.view().unwrap().cursor("a"), None, "forgotten");
}

fn counters_count(store: &dyn Store) {
    commit(store, batch(5_000, vec![insert("t", "a", "1"), insert("t", "b", "1"), insert("u", "b", "1")])).unwrap();
    commit(store, batch(5_999, vec![write("t", "a", Operation::Delete, None)])).unwrap();
    commit(store, batch(7_000, vec![write("t", "", Operation::Truncate, None)])).unwrap();
    let counters = store.view().unwrap().counters();
    let tables: Vec<_> = counters.tables.iter().map(|t| (&*t.table, t.by_operation)).collect();
    assert_eq!(tables, [("t", [2, 0, 1, 1]), ("u", [1, 0, 0, 0])]);
    assert_eq!(counters.recent, [(5, 4), (7, 1)]);
    for second in 0..40 {
        commit(store, batch(8_000 + second * 1000, vec![insert("t", "x", "1")])).unwrap();
    }
    let recent = store.view().unwrap().counters().recent;
    assert!(recent.len() >= 11 && recent.last() == Some(&(47, 1)));
}

fn batches_are_done_in_order_and_seen_when_done(store: &dyn Store) {
    let (fate, told) = channel();
    for i in 0..500u64 {
        let fate = fate.clone();
        let done = Box::new(move |result: Result<(), StoreError>| fate.send((i, result)).unwrap());
        let writes = vec![insert("t", &format!("{i}"), "1"), insert("t", &format!("{i}b"), "1")];
        assert_eq!(store.append(Arc::new(batch(i, writes)), done).unwrap(), i * 2 + 1);
        assert_eq!(store.head().sequence, i * 2 + 2);
        let rows = store.head_rows("t", &[format!("{i}").as_str()]).unwrap();
        assert_eq!(rows, [Some(text("1"))], "the head shows what is staged");
    }
    for i in 0..500 {
        let (which, result) = told.recv_timeout(Duration::from_secs(60)).unwrap();
        result.unwrap();
        assert_eq!(which, i);
        let newest = store.view().unwrap().bounds().newest;
        assert!(newest >= i * 2 + 2 && newest.is_multiple_of(2), "whole batches, at least up to this one");
    }
}

fn documents_are_set_replaced_and_removed(store: &dyn Store) {
    let (a, b) = (&[0xff, 0x00][..], &b"b"[..]);
    let set = |key: &'static [u8], value| document("c", key, value);
    commit(store, documents(store, vec![set(a, Some("1")), set(b, Some("")), set(a, Some("2"))])).unwrap();
    let before = store.view().unwrap();
    assert_eq!(before.document("c", a).unwrap(), Some(text("2")));
    assert_eq!(before.document("c", b).unwrap(), Some(text("")));
    assert_eq!((before.document("c", b"x").unwrap(), before.document("d", a).unwrap()), (None, None));
    commit(store, documents(store, vec![set(a, None), set(b"not there", None), set(b, Some("3"))])).unwrap();
    let view = store.view().unwrap();
    assert_eq!(collection(&*view, "c"), [(text("b"), text("3"))]);
    assert_eq!(store.head_document("c", b).unwrap(), Some(text("3")));
    assert_eq!(collection(&*before, "c"), [(text("b"), text("")), (Bytes::from_static(a), text("2"))], "unchanged");

    commit(store, documents(store, vec![document("d", b, Some("4")), document("c", "", None)])).unwrap();
    let view = store.view().unwrap();
    assert_eq!((collection(&*view, "c"), store.head_document("c", b).unwrap()), (vec![], None));
    assert_eq!(collection(&*view, "d"), [(text("b"), text("4"))]);
    let anew = vec![set(b"", Some("empty")), document("c", "", None), document("c", "", None), set(b"n", Some("5"))];
    commit(store, documents(store, anew)).unwrap();
    assert_eq!(collection(&*store.view().unwrap(), "c"), [(text("n"), text("5"))]);
    commit(store, documents(store, vec![set(b"", Some("empty"))])).unwrap();
    let view = store.view().unwrap();
    assert_eq!(collection(&*view, "c"), [(text(""), text("empty")), (text("n"), text("5"))]);
    assert_eq!(view.document("c", b"").unwrap(), Some(text("empty")));
    assert_eq!(view.documents("c", Some(b""), 9, 99).unwrap().len(), 1);
}

fn documents_commit_with_events_and_cursors(store: &dyn Store) {
    let both = Batch {
        documents: vec![document("c", "k", Some("1"))],
        cursors: vec![("s".into(), 1)],
        ..batch(7, vec![insert("t", "a", "1"), insert("t", "b", "2")])
    };
    assert_eq!(commit(store, both).unwrap(), 1);
    let view = store.view().unwrap();
    assert_eq!((view.cursor("s"), view.document("c", b"k").unwrap()), (Some(1), Some(text("1"))));
    assert_eq!(view.row("t", "b").unwrap(), Some(text("2")));
    // Documents alone take no sequence number and no time.
    assert_eq!(commit(store, documents(store, vec![document("c", "k", Some("2"))])).unwrap(), 3);
    assert_eq!(store.view().unwrap().bounds(), Bounds { oldest: 1, newest: 2, newest_timestamp_ms: 7 });
    assert_eq!(commit(store, batch(7, vec![insert("t", "c", "3")])).unwrap(), 3);
    let view = store.view().unwrap();
    assert_eq!(sequences(&*view, &all()), (vec![1, 2, 3], true));
    assert_eq!(sequences(&*view, &EventRange { newest_first: true, max_events: 1, ..all() }), (vec![3], false));
    assert_eq!(sequences(&*view, &EventRange { since_ms: Some(6), ..all() }), (vec![1, 2, 3], true));
}

fn documents_are_no_tables(store: &dyn Store) {
    for name in ["t", "\u{1}t", ""] {
        commit(store, documents(store, vec![document(name, "k", Some(name))])).unwrap();
    }
    let view = store.view().unwrap();
    assert_eq!((view.counters(), view.schemas(), store.head()), (Counters::default(), vec![], Head::default()));
    assert_eq!(view.row("t", "k").unwrap(), None);
    assert!(view.scan("t", None, 9, 99).unwrap().is_empty());
    commit(store, batch(1, vec![insert("t", "k", "row"), write("u", "", Operation::Truncate, None)])).unwrap();
    commit(store, batch(1, vec![write("t", "", Operation::Truncate, None)])).unwrap();
    commit(store, documents(store, vec![document("\u{1}t", "", None)])).unwrap();
    let view = store.view().unwrap();
    assert_eq!(view.document("t", b"k").unwrap(), Some(text("t")), "a table's end is not a collection's");
    assert_eq!(view.document("", b"k").unwrap(), Some(text("")));
    assert_eq!(view.document("\u{1}t", b"k").unwrap(), None);
    assert_eq!(view.counters().tables.len(), 2);
}

fn documents_page_in_byte_order(store: &dyn Store) {
    // Keys that are no text, in several batches and tiers; more than one frame takes.
    let key = |i: u16| Bytes::copy_from_slice(&(i.wrapping_mul(40_503)).to_be_bytes());
    for part in 0..8u16 {
        let value = "v".repeat(usize::from(part) * 40);
        let some = (0..2000).filter(|i| i % 8 == part).map(|i| document("c", key(i), Some(&value))).collect();
        commit(store, documents(store, some)).unwrap();
    }
    commit(store, documents(store, (0..1000).map(|i| document("c", key(i * 2), None)).collect())).unwrap();
    let mut wanted: Vec<Bytes> = (0..2000).filter(|i| i % 2 == 1).map(key).collect();
    wanted.sort();
    let view = store.view().unwrap();
    let mut keys: Vec<Bytes> = Vec::new();
    loop {
        let page = view.documents("c", keys.last().map(|key| &key[..]), 77, 20_000).unwrap();
        assert!(page.len() <= 77);
        if page.is_empty() {
            break;
        }
        keys.extend(page.into_iter().map(|row| row.key));
    }
    assert!(keys == wanted);
    assert_eq!(view.documents("c", None, 9, 0).unwrap().len(), 1, "at least one");
    let large = "x".repeat(300_000);
    let many = (0..5u8).map(|i| document("l", vec![i], Some(&large))).collect();
    commit(store, Batch { writes: vec![insert("t", "a", "1")], ..documents(store, many) }).unwrap();
    let view = store.view().unwrap();
    assert!(collection(&*view, "l").iter().all(|(_, value)| *value == large));
    assert_eq!(sequences(&*view, &all()), (vec![1], true));
}

fn closed_stores_take_no_more(store: &dyn Store) {
    commit(store, batch(1, vec![insert("t", "a", "1")])).unwrap();
    store.close().unwrap();
    let done = Box::new(|_| panic!("nothing was staged"));
    assert!(store.append(Arc::new(batch(1, vec![])), done).is_err());
    store.close().unwrap();
}

macro_rules! contract {
    ($($implementation:ident => $open:expr),+ ; $rules:tt) => {
        $(contract!(@one $implementation => $open ; $rules);)+
    };
    (@one $implementation:ident => $open:expr ; [$($rule:ident)+]) => {
        mod $implementation {
            use super::*;
            $(
                #[test]
                fn $rule() {
                    let (store, _dir): Opened = $open;
                    super::$rule(&*store);
                }
            )+
        }
    };
}

pub(super) fn embedded(change: impl FnOnce(&mut EmbeddedOptions)) -> Opened {
    let dir = tempfile::tempdir().unwrap();
    let mut options = EmbeddedOptions::new(dir.path());
    change(&mut options);
    (EmbeddedStore::open(options).unwrap(), Some(dir))
}

/// So small that a few batches fill segments, checkpoints and queues.
pub(super) fn tiny(options: &mut EmbeddedOptions) {
    options.segment_bytes = 64 << 10;
    options.checkpoint_entries = 10;
    options.overlay_entries_max = 20;
    options.queue_batches_max = 3;
    options.frame_cache_bytes = 4096;
}

contract! {
    memory => (MemoryStore::new() as Arc<dyn Store>, None),
    disk => embedded(|_| ()),
    disk_tiny => embedded(tiny),
    disk_interval => embedded(|options| options.durability = Durability::Interval(Duration::from_millis(1))),
    disk_unsynced => embedded(|options| options.durability = Durability::None);
    [
        empty_store_is_before_the_first_event
        sequence_numbers_start_at_one_without_a_gap
        an_event_is_read_as_it_was_written
        a_view_never_changes
        rows_follow_events
        a_scan_goes_in_byte_order_page_by_page
        reads_select
        schemas_keep_every_version
        positions_and_cursors_are_the_last_ones
        counters_count
        batches_are_done_in_order_and_seen_when_done
        documents_are_set_replaced_and_removed
        documents_commit_with_events_and_cursors
        documents_are_no_tables
        documents_page_in_byte_order
        closed_stores_take_no_more
    ]
}
