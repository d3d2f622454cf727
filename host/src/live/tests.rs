//! The tail over a store in memory that counts what is read from it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};

use bytes::Bytes;
use cdc_rest::envelope::Format;

use super::{Tail, TailOptions};
use crate::schemas::Schemas;
use crate::store::{
    Batch, Bounds, Counters, Done, EmbeddedOptions, EmbeddedStore, Event, EventRange, EventSlice, Head, MemoryStore,
    Operation, Row, SchemaVersion, Sequence, Store, StoreError, View, Write,
};

/// A store that counts the events read from it, and can be told that retention has dropped some.
#[derive(Debug)]
struct Counting {
    store: Arc<MemoryStore>,
    read: Arc<AtomicUsize>,
    oldest: Arc<Mutex<Sequence>>,
}

#[derive(Debug)]
struct CountingView {
    view: Arc<dyn View>,
    read: Arc<AtomicUsize>,
    oldest: Sequence,
}

fn write() -> Write {
    Write {
        table: "users".into(),
        key: "1".into(),
        operation: Operation::Update,
        before: None,
        after: Some(Bytes::from_static(br#"{"id":"1","text":"a\nb"}"#)),
        schema_version: 1,
        origin: None,
        position: None,
    }
}

fn store() -> Arc<Counting> {
    Arc::new(Counting { store: MemoryStore::new(), read: Arc::default(), oldest: Arc::new(Mutex::new(1)) })
}

impl Counting {
    fn append_events(&self, count: usize) {
        let batch = Batch { timestamp_ms: 5, writes: vec![write(); count], ..Batch::default() };
        self.store.append(Arc::new(batch), Box::new(|_| {})).unwrap_or_else(|error| panic!("{error}"));
    }

    fn events_read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }
}

impl Store for Counting {
    fn view(&self) -> Result<Arc<dyn View>, StoreError> {
        let oldest = *self.oldest.lock().unwrap_or_else(|error| panic!("{error}"));
        Ok(Arc::new(CountingView { view: self.store.view()?, read: self.read.clone(), oldest }))
    }

    fn head(&self) -> Head {
        self.store.head()
    }

    fn head_rows(&self, table: &str, keys: &[&str]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.store.head_rows(table, keys)
    }

    fn head_document(&self, collection: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.head_document(collection, key)
    }

    fn head_position(&self, source: &str) -> Option<String> {
        self.store.head_position(source)
    }

    fn head_schema(&self, table: &str) -> Option<SchemaVersion> {
        self.store.head_schema(table)
    }

    fn append(&self, batch: Arc<Batch>, done: Done) -> Result<Sequence, StoreError> {
        self.store.append(batch, done)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.store.close()
    }
}

impl View for CountingView {
    fn bounds(&self) -> Bounds {
        self.view.bounds()
    }

    fn row(&self, table: &str, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.view.row(table, key)
    }

    fn scan(&self, table: &str, after: Option<&str>, rows: usize, bytes: usize) -> Result<Vec<Row>, StoreError> {
        self.view.scan(table, after, rows, bytes)
    }

    fn events(&self, range: &EventRange<'_>) -> Result<EventSlice, StoreError> {
        if range.after + 1 < self.oldest {
            return Err(StoreError::Dropped { oldest: self.oldest });
        }
        let slice = self.view.events(range)?;
        self.read.fetch_add(slice.events.len(), Ordering::Relaxed);
        Ok(slice)
    }

    fn schema(&self, table: &str, version: Option<u32>) -> Option<SchemaVersion> {
        self.view.schema(table, version)
    }

    fn schemas(&self) -> Vec<SchemaVersion> {
        self.view.schemas()
    }

    fn schema_history(&self, table: &str) -> Vec<SchemaVersion> {
        self.view.schema_history(table)
    }

    fn counters(&self) -> Counters {
        self.view.counters()
    }

    fn cursor(&self, subscription: &str) -> Option<Sequence> {
        self.view.cursor(subscription)
    }

    fn position(&self, source: &str) -> Option<String> {
        self.view.position(source)
    }

    fn document(&self, collection: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.view.document(collection, key)
    }

    fn documents(
        &self,
        collection: &str,
        after: Option<&[u8]>,
        max_documents: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.view.documents(collection, after, max_documents, max_bytes)
    }
}

fn tail(store: &Arc<Counting>, chunk_events: u64) -> Arc<Tail> {
    Tail::new(store.clone(), TailOptions { chunk_events, ..TailOptions::default() })
}

/// Reads everything after an event and answers the sequence numbers.
fn follow(tail: &Tail, mut after: Sequence) -> Vec<Sequence> {
    let mut seen = Vec::new();
    while let Some(chunk) = tail.read(after).unwrap_or_else(|error| panic!("{error}")) {
        seen.extend(chunk.events_after(after).iter().map(|event| event.event.sequence));
        after = chunk.last();
    }
    seen
}

#[test]
fn a_reader_gets_every_event_once_wherever_it_begins() {
    let store = store();
    store.append_events(25);
    let tail = tail(&store, 10);
    for after in [7, 0, 19, 24, 25, 1_000, Sequence::MAX] {
        assert_eq!(follow(&tail, after), (after.saturating_add(1)..=25).collect::<Vec<_>>(), "after {after}");
    }
    assert_eq!(store.events_read(), 25, "no event was read twice");
}

#[test]
fn a_chunk_that_the_end_of_the_log_cut_short_is_followed_by_another() {
    let store = store();
    let tail = tail(&store, 10);
    assert!(follow(&tail, 0).is_empty());
    store.append_events(3);
    assert_eq!(follow(&tail, 0), [1, 2, 3]);
    store.append_events(4);
    assert_eq!(follow(&tail, 0), (1..=7).collect::<Vec<_>>());
    let chunk = tail.read(4).ok().flatten().map(|chunk| (chunk.first(), chunk.last(), chunk.events_after(4).len()));
    assert_eq!(chunk, Some((4, 7, 3)));
    assert_eq!(store.events_read(), 7);
}

#[test]
fn readers_that_ask_at_once_share_one_read() {
    const READERS: usize = 8;
    for _ in 0..50 {
        let store = store();
        store.append_events(500);
        let tail = tail(&store, 256);
        let barrier = Barrier::new(READERS);
        std::thread::scope(|scope| {
            for _ in 0..READERS {
                scope.spawn(|| {
                    barrier.wait();
                    assert_eq!(follow(&tail, 0).len(), 500);
                });
            }
        });
        assert_eq!(store.events_read(), 500);
    }
}

#[test]
fn what_is_kept_is_bounded_by_events() {
    let store = store();
    store.append_events(1_000);
    let options = TailOptions { chunk_events: 10, cache_events: 100, ..TailOptions::default() };
    let tail = Tail::new(store.clone(), options);
    assert_eq!(follow(&tail, 0).len(), 1_000);
    assert!(tail.kept_events() <= 110, "{}", tail.kept_events());
    assert_eq!(follow(&tail, 960).len(), 40);
    assert_eq!(store.events_read(), 1_000, "the newest are still kept");
}

#[test]
fn what_is_kept_is_bounded_by_bytes_and_a_chunk_too_large_to_keep_is_still_read() {
    let store = store();
    store.append_events(1_000);
    let options = TailOptions { chunk_events: 10, cache_bytes: 16 << 10, ..TailOptions::default() };
    let tail = Tail::new(store.clone(), options);
    assert_eq!(follow(&tail, 0).len(), 1_000);
    assert!(tail.kept_events() < 100, "{}", tail.kept_events());
    let tail = Tail::new(store.clone(), TailOptions { cache_bytes: 1, ..options });
    assert_eq!(follow(&tail, 0).len(), 1_000);
    assert!(tail.kept_events() <= 20, "{}", tail.kept_events());
}

#[test]
fn a_chunk_ends_when_its_images_are_large() {
    let store = store();
    store.append_events(10);
    let tail = Tail::new(store.clone(), TailOptions { chunk_bytes: 30, ..TailOptions::default() });
    let chunk = tail.read(0).ok().flatten().map(|chunk| chunk.last());
    assert_eq!(chunk, Some(2), "two images of 24 bytes pass 30");
    assert_eq!(follow(&tail, 0).len(), 10);
}

#[test]
fn what_retention_has_dropped_is_said() {
    let store = store();
    store.append_events(20);
    let tail = tail(&store, 10);
    *store.oldest.lock().unwrap_or_else(|error| panic!("{error}")) = 15;
    assert!(matches!(tail.read(3), Err(StoreError::Dropped { oldest: 15 })));
    assert_eq!(follow(&tail, 14), (15..=20).collect::<Vec<_>>(), "the failed read is in nobody's way");
}

#[test]
fn an_event_is_written_as_json_once() {
    let store = store();
    store.append_events(1);
    let tail = tail(&store, 10);
    let json = || tail.read(0).ok().flatten().map(|chunk| chunk.events()[0].json()).unwrap_or_default();
    let (first, second) = (json(), json());
    assert_eq!(first.as_ptr(), second.as_ptr());
    assert_eq!(
        first,
        &br#"{"id":"evt_5_1","operation":"UPDATE","table":"users","timestamp":5,"after":{"id":"1","text":"a\nb"},"metadata":{"sequenceNumber":1,"source":"cdc-engine","schemaVersion":1}}"#[..]
    );
}

#[test]
fn the_newest_event_is_told_and_never_goes_back() {
    let store = store();
    store.append_events(4);
    let tail = tail(&store, 10);
    let mut newest = tail.newest();
    assert_eq!(*newest.borrow_and_update(), 4);
    tail.notify(4);
    assert!(newest.has_changed().is_ok_and(|changed| !changed));
    tail.notify(6);
    tail.notify(5);
    assert!(newest.has_changed().is_ok_and(|changed| changed));
    assert_eq!(*newest.borrow_and_update(), 6);
}

#[test]
fn the_store_tells_of_new_events_and_of_nothing_else() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let (heard, hearing) = mpsc::channel();
    let mut options = EmbeddedOptions::new(dir.path());
    options.on_durable = Some(Arc::new(move |newest| heard.send(newest).unwrap_or_else(|error| panic!("{error}"))));
    let store = EmbeddedStore::open(options).unwrap_or_else(|error| panic!("{error}"));
    let append = |count: usize| {
        let batch = Batch { timestamp_ms: 5, writes: vec![write(); count], ..Batch::default() };
        let (done, durable) = mpsc::channel();
        store
            .append(
                Arc::new(batch),
                Box::new(move |result| done.send(result.is_ok()).unwrap_or_else(|error| panic!("{error}"))),
            )
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(durable.recv(), Ok(true));
    };
    append(2);
    append(0);
    append(1);
    assert_eq!(hearing.try_iter().collect::<Vec<_>>(), [2, 3], "told before the batch is acknowledged");
}

#[test]
fn a_stream_has_the_wanted_events_in_pieces_that_are_shared() {
    let store = store();
    store.append_events(100);
    let tail = tail(&store, 256);
    let Some(chunk) = tail.read(0).ok().flatten() else { panic!("no chunk") };
    let schemas = Schemas::new(store.clone());
    let piece = |after, wants: &dyn Fn(&Event) -> bool| {
        chunk.piece(after, Format::Native, &schemas, wants).unwrap_or_else(|error| panic!("{error}"))
    };
    let read = |wants: fn(Sequence) -> bool| {
        let (mut after, mut text, mut count) = (7, Vec::new(), 0);
        while after < chunk.last() {
            let piece = piece(after, &|event| wants(event.sequence));
            assert!(piece.until > after);
            (after, count) = (piece.until, count + piece.events);
            text.extend_from_slice(&piece.bytes);
        }
        let ids: Vec<Sequence> =
            String::from_utf8_lossy(&text).lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
        assert_eq!(ids.len() as u64, count);
        ids
    };
    assert_eq!(read(|_| true), (8..=100).collect::<Vec<_>>());
    assert_eq!(read(|sequence| sequence % 10 < 2), (8..=100).filter(|n| n % 10 < 2).collect::<Vec<_>>());
    assert!(read(|_| false).is_empty());
    assert_eq!(piece(7, &|_| true).bytes.as_ptr(), piece(7, &|_| true).bytes.as_ptr());
    // 200 bytes an event: more than one block.
    assert!(piece(0, &|_| true).until < 100);
    let message = piece(99, &|_| true).bytes;
    let json = chunk.events()[99].json();
    assert_eq!(message, [&b"id: 100\ndata: "[..], &json, b"\n\n"].concat());
    assert!(message.as_ptr_range().contains(&json.as_ptr()), "the JSON is a part of the message");
}
