//! The embedded store: the log, row state beside it, and the threads that keep them, in one data folder.
//!
//! ```text
//! <dir>/lock               who has the folder
//! <dir>/log/<first>.seg    the log (`log::segment`)
//! <dir>/log/<first>.seg.torn   what a crash left half-written, for whoever wants to look
//! <dir>/views.redb         checkpoints of everything but events (`checkpoint`)
//! ```
//! The log alone is synced on the way of a commit. A start reads the last checkpoint and the log behind it.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use super::facts::Retention;
use super::keeper::Keeper;
use super::lock::Lock;
use super::log::appender::Appender;
use super::medium::{Disk, Medium};
use super::open::{self, OpenError};
use super::shared::{Durable, SYNC_BUCKETS_US, Shared};
use super::{
    Batch, Bounds, Counters, Done, EventRange, EventSlice, Head, Row, SchemaVersion, Sequence, Store, StoreError, View,
};

/// When an acknowledged batch is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Synced before it is acknowledged.
    Commit,
    /// Acknowledged once written, synced at the latest this much later: a crash of the machine (not of the process) may
    /// lose that much.
    Interval(Duration),
    /// Acknowledged once written, synced when the system pleases.
    None,
}

/// What is called, once and from a thread of the store, when the store takes no more writes.
pub type OnFatal = Arc<dyn Fn(&StoreError) + Send + Sync>;

/// What is called with the newest durable event whenever there is a newer one, on the thread that makes batches
/// durable: it must be quick and must not block.
pub type OnDurable = Arc<dyn Fn(Sequence) + Send + Sync>;

/// How to open an embedded store.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// The data folder; made when it is not there.
    pub dir: PathBuf,
    /// When an acknowledged batch is safe.
    pub durability: Durability,
    /// Which events are kept.
    pub retention: Retention,
    /// Size of a segment file, 64 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Unpacked frames kept in memory.
    pub frame_cache_bytes: usize,
    /// Pages of row state kept in memory.
    pub views_cache_bytes: usize,
    /// A checkpoint is written once this many rows have changed,
    pub checkpoint_entries: usize,
    /// or after this many events (which is what a start after a crash has to replay),
    pub checkpoint_events: u64,
    /// or once changed rows take this much memory,
    pub checkpoint_bytes: usize,
    /// or this long after a change.
    pub checkpoint_every: Duration,
    /// The writer waits for the checkpoint when this many more rows have changed while one is written.
    pub overlay_entries_max: usize,
    /// The writer waits while this much is staged.
    pub queue_bytes_max: usize,
    /// The writer waits while this many batches are staged.
    pub queue_batches_max: usize,
    /// The largest batch.
    pub batch_bytes_max: usize,
    /// Called when the store takes no more writes: the service must stop.
    pub on_fatal: Option<OnFatal>,
    /// Called whenever readers can see newer events.
    pub on_durable: Option<OnDurable>,
    pub(crate) medium: Arc<dyn Medium>,
}

impl EmbeddedOptions {
    /// The defaults: every acknowledged batch synced, the newest 10,000 events kept.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            durability: Durability::Commit,
            retention: Retention::default(),
            segment_bytes: 8 << 20,
            frame_cache_bytes: 8 << 20,
            views_cache_bytes: 8 << 20,
            checkpoint_entries: 32_768,
            checkpoint_events: 32_768,
            checkpoint_bytes: 16 << 20,
            checkpoint_every: Duration::from_secs(5),
            overlay_entries_max: 32_768,
            queue_bytes_max: 32 << 20,
            queue_batches_max: 4096,
            batch_bytes_max: 64 << 20,
            on_fatal: None,
            on_durable: None,
            medium: Arc::new(Disk),
        }
    }
}

impl Debug for EmbeddedOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedOptions")
            .field("dir", &self.dir)
            .field("durability", &self.durability)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

/// What the store has done and holds, for the metrics page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreMetrics {
    /// Syncs of the log.
    pub syncs: u64,
    /// Time spent in them, in µs.
    pub sync_us: u64,
    /// (upper bound in µs, syncs that took at most this and more than the bound before); the last bound is none.
    pub sync_histogram: Vec<(Option<u64>, u64)>,
    /// Writes to the log: each holds one batch or several.
    pub groups: u64,
    /// Batches made durable.
    pub batches: u64,
    /// Bytes written to the log.
    pub bytes_written: u64,
    /// Segment files.
    pub segments: u64,
    /// Their size.
    pub log_bytes: u64,
    /// Size of the checkpoint file.
    pub views_bytes: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Time from the start to the end of each, summed, in µs.
    pub checkpoint_us: u64,
    /// The newest event that a checkpoint stands for.
    pub checkpoint_sequence: Sequence,
    /// Changed rows that no checkpoint holds yet.
    pub overlay_entries: u64,
    /// Memory that they take, about.
    pub overlay_bytes: u64,
    /// Batches staged and not yet durable.
    pub queue_batches: u64,
    /// Bytes staged and not yet durable.
    pub queue_bytes: u64,
}

/// A store in a folder of the file system. Dropping it without `close` leaves the last checkpoint to the next start,
/// which is correct and takes a little longer.
#[derive(Debug)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
    _lock: Lock,
}

#[derive(Debug)]
struct Threads {
    log: JoinHandle<Appender>,
    keeper: JoinHandle<Keeper>,
}

impl EmbeddedStore {
    /// Opens a store, or makes one in an empty folder. Recovers from a crash; refuses what a crash cannot explain.
    pub fn open(options: EmbeddedOptions) -> Result<Arc<Self>, OpenError> {
        let opened = open::open(options)?;
        let spawn = |error: std::io::Error| OpenError::folder(Path::new("a thread"), error);
        let shared = Arc::new(opened.shared);
        let log = {
            let (shared, appender) = (shared.clone(), opened.appender);
            std::thread::Builder::new().name("cdc-log".into()).spawn(move || super::commit::run(&shared, appender))
        };
        let keeper = {
            let (shared, keeper) = (shared.clone(), opened.keeper);
            std::thread::Builder::new().name("cdc-checkpoint".into()).spawn(move || keeper.run(&shared))
        };
        let threads = Threads { log: log.map_err(spawn)?, keeper: keeper.map_err(spawn)? };
        Ok(Arc::new(Self { shared, threads: Mutex::new(Some(threads)), _lock: opened.lock }))
    }

    /// Why the store takes no more writes, once it does not.
    pub fn failed(&self) -> Option<StoreError> {
        self.shared.failed.get().cloned()
    }

    /// What the store has done and holds.
    pub fn metrics(&self) -> StoreMetrics {
        let gauges = &self.shared.gauges;
        let durable = self.shared.durable.load_full();
        let (entries, bytes) = {
            let rows = &self.shared.lock_head().version.rows;
            let sealed = rows.sealed.as_ref().map_or((0, 0), |sealed| (sealed.entries, sealed.bytes));
            (rows.active.entries + sealed.0, rows.active.bytes + sealed.1)
        };
        let (queue_batches, queue_bytes) = {
            let queue = self.shared.lock_queue();
            (queue.batches as u64, queue.bytes as u64)
        };
        let bounds = SYNC_BUCKETS_US.iter().copied().map(Some).chain([None]);
        let load = |gauge: &std::sync::atomic::AtomicU64| gauge.load(Ordering::Relaxed);
        let views = self.shared.options.dir.join(super::checkpoint::FILE);
        StoreMetrics {
            syncs: load(&gauges.syncs),
            sync_us: load(&gauges.sync_us),
            sync_histogram: bounds.zip(gauges.sync_buckets.iter().map(load)).collect(),
            groups: load(&gauges.groups),
            batches: load(&gauges.batches),
            bytes_written: load(&gauges.bytes_written),
            segments: durable.segments.len() as u64,
            log_bytes: durable.segments.iter().map(|segment| segment.file.len().unwrap_or(0)).sum(),
            views_bytes: std::fs::metadata(views).map_or(0, |views| views.len()),
            checkpoints: load(&gauges.checkpoints),
            checkpoint_us: load(&gauges.checkpoint_us),
            checkpoint_sequence: load(&gauges.checkpoint_sequence),
            overlay_entries: entries as u64,
            overlay_bytes: bytes as u64,
            queue_batches,
            queue_bytes,
        }
    }

    /// Ends the threads once everything staged has met its fate.
    fn stop(&self, checkpoint: bool) -> Result<(), StoreError> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(threads) = threads.take() else { return self.shared.check() };
        self.shared.lock_head().is_closed = true;
        self.shared.lock_queue().is_closed = true;
        self.shared.queued.notify_all();
        let panicked = |_| StoreError::Failed("a thread of the store panicked".into());
        let appender = threads.log.join().map_err(panicked);
        self.shared.lock_wishes().stop = true;
        self.shared.wished.notify_all();
        let keeper = threads.keeper.join().map_err(panicked);
        let (appender, mut keeper) = (appender?, keeper?);
        self.shared.check()?;
        if checkpoint {
            keeper.checkpoint(&self.shared)?;
            keeper.drop_segments(&self.shared);
            keeper.pack_segments(&self.shared);
            appender.close().map_err(|error| {
                let dir = self.shared.options.dir.display();
                StoreError::Failed(format!("the log in {dir} could not be closed: {error}").into())
            })?;
        }
        Ok(())
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        let _ = self.stop(false);
    }
}

impl Store for EmbeddedStore {
    fn view(&self) -> Result<Arc<dyn View>, StoreError> {
        Ok(Arc::new(EmbeddedView { durable: self.shared.durable.load_full(), shared: self.shared.clone() }))
    }

    fn head(&self) -> Head {
        self.shared.lock_head().version.facts.head()
    }

    fn head_rows(&self, table: &str, keys: &[&str]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let (table, rows) = {
            let version = &self.shared.lock_head().version;
            (version.facts.table_id(table), version.rows.clone())
        };
        let Some(table) = table else { return Ok(vec![None; keys.len()]) };
        rows.get_all(table, keys)
    }

    fn head_document(&self, collection: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let (collection, rows) = {
            let version = &self.shared.lock_head().version;
            (version.facts.collections.get(collection).copied(), version.rows.clone())
        };
        collection.map_or(Ok(None), |collection| rows.get(collection, key))
    }

    fn head_schema(&self, table: &str) -> Option<SchemaVersion> {
        self.shared.lock_head().version.facts.schema(table, None)
    }

    fn head_position(&self, source: &str) -> Option<String> {
        self.shared.lock_head().version.facts.positions.get(source).map(|position| position.to_string())
    }

    fn append(&self, batch: Arc<Batch>, done: Done) -> Result<Sequence, StoreError> {
        super::commit::append(&self.shared, &batch, done)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.stop(true)
    }
}

/// One published version.
#[derive(Debug)]
struct EmbeddedView {
    durable: Arc<Durable>,
    shared: Arc<Shared>,
}

impl View for EmbeddedView {
    fn bounds(&self) -> Bounds {
        self.durable.version.facts.bounds(self.durable.dropped)
    }

    fn row(&self, table: &str, key: &str) -> Result<Option<Bytes>, StoreError> {
        let version = &self.durable.version;
        match version.facts.table_id(table) {
            Some(table) => version.rows.get(table, key.as_bytes()),
            None => Ok(None),
        }
    }

    fn scan(
        &self,
        table: &str,
        after: Option<&str>,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let version = &self.durable.version;
        match version.facts.table_id(table) {
            Some(table) => version.rows.scan(table, after.map(str::as_bytes), max_rows, max_bytes),
            None => Ok(Vec::new()),
        }
    }

    fn events(&self, range: &EventRange<'_>) -> Result<EventSlice, StoreError> {
        super::log::read::events(&self.durable.segments, &self.shared.cache, &self.bounds(), range)
    }

    fn schema(&self, table: &str, version: Option<u32>) -> Option<SchemaVersion> {
        self.durable.version.facts.schema(table, version)
    }

    fn schemas(&self) -> Vec<SchemaVersion> {
        self.durable.version.facts.schemas()
    }

    fn schema_history(&self, table: &str) -> Vec<SchemaVersion> {
        self.durable.version.facts.schema_history(table)
    }

    fn counters(&self) -> Counters {
        self.durable.version.facts.counters()
    }

    fn cursor(&self, subscription: &str) -> Option<Sequence> {
        self.durable.version.facts.cursors.get(subscription).copied()
    }

    fn position(&self, source: &str) -> Option<String> {
        self.durable.version.facts.positions.get(source).map(|position| position.to_string())
    }

    fn document(&self, collection: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.durable.version.document(collection, key)
    }

    fn documents(
        &self,
        collection: &str,
        after: Option<&[u8]>,
        max_documents: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.durable.version.documents(collection, after, max_documents, max_bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

    use super::super::log::files;
    use super::super::log::index::{Selector, Window};
    use super::super::{Operation, Write};
    use super::*;

    fn batch(number: u64) -> Arc<Batch> {
        // Different everywhere, so that compression does not make it small.
        let text: String =
            (0..60).map(|i| format!("{:016x}", (number * 100 + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        let write = Write {
            table: "t".into(),
            key: number.to_string().into(),
            operation: Operation::Insert,
            before: None,
            after: Some(format!(r#"{{"id":{number},"text":"{text}"}}"#).into()),
            schema_version: 1,
            origin: None,
            position: None,
        };
        Arc::new(Batch { timestamp_ms: number, writes: vec![write], ..Batch::default() })
    }

    fn append(store: &EmbeddedStore, number: u64) {
        let (done, durable) = std::sync::mpsc::channel();
        store.append(batch(number), Box::new(move |outcome| done.send(outcome).unwrap())).unwrap();
        durable.recv().unwrap().unwrap();
    }

    /// A reader that has asked which frames to read may come to them after the segment's index has moved to the file.
    #[test]
    fn a_segment_that_is_sealed_in_the_middle_of_a_read_still_says_where_its_frames_are() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap();
        (1..=50).for_each(|number| append(&store, number));
        let segment = store.shared.durable.load().segments.last().unwrap().clone();
        let selector = Selector { table: None, operation: None, key_hash: None };
        let bounds = segment.bounds(25, None).unwrap();
        let window = Window { from: 0, to: bounds.0, newest_first: false, max: 1_000 };
        let mut frames = Vec::new();
        segment.candidates(&selector, window, &mut frames).unwrap();
        let before: Vec<_> = frames.iter().map(|frame| segment.extent(*frame).unwrap()).collect();
        assert!(!frames.is_empty() && segment.is_unsealed());
        files::seal(&segment).unwrap();
        assert!(!segment.is_unsealed());
        let after: Vec<_> = frames.iter().map(|frame| segment.extent(*frame).unwrap()).collect();
        assert_eq!(after, before);
        assert_eq!(segment.bounds(25, None).unwrap(), bounds);
        // What follows would be written into a sealed segment.
        std::mem::forget(store);
    }

    #[test]
    fn whoever_reads_while_segments_are_sealed_misses_nothing() {
        const EVENTS: u64 = 4_000;
        let dir = tempfile::tempdir().unwrap();
        let mut options = EmbeddedOptions::new(dir.path());
        options.durability = Durability::None;
        options.segment_bytes = 64 << 10;
        options.retention = Retention { events: None, ..options.retention };
        let store = EmbeddedStore::open(options).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut read = 0;
                    while read < EVENTS {
                        let view = store.view().unwrap();
                        let newest = view.bounds().newest;
                        // The oldest of what is new lies in a segment that is just being sealed as a rule.
                        let range = EventRange {
                            after: read,
                            until: newest,
                            max_events: 1_000_000,
                            max_bytes: usize::MAX,
                            ..EventRange::default()
                        };
                        let events = view.events(&range).unwrap().events;
                        assert_eq!(events.len() as u64, newest - read, "after {read}");
                        read = newest;
                    }
                });
            }
            (1..=EVENTS).for_each(|number| append(&store, number));
        });
    }
}
