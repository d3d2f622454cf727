//! The store: one durable, ordered event log with the row state, schemas, counters, source positions and cursors that
//! belong to it.
//!
//! It knows no engine: images and schema definitions are bytes that it never decodes. It decides nothing about a
//! change; it gives accepted ones their place.
//!
//! Invariants, for every implementation (the contract suite in `contract.rs` holds each to them):
//! - Sequence numbers start at 1 and have no gap, over restarts too.
//! - A batch is visible as a whole or not at all, and to readers only once it is durable.
//! - What was reported durable is there after a crash. What was not may be, but only as a whole batch, in order.
//! - A view never changes.

mod checkpoint;
mod commit;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod crash;
mod embedded;
mod facts;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod golden;
mod keeper;
mod lock;
mod log;
mod medium;
mod memory;
mod open;
mod pages;
#[cfg(test)]
mod retention;
mod rows;
mod shared;
mod unchanged;
mod verify;

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

pub use embedded::{Durability, EmbeddedOptions, EmbeddedStore, OnDurable, OnFatal, StoreMetrics};
pub use facts::Retention;
pub use log::recovery::recover_bytes;
pub use memory::MemoryStore;
pub use open::OpenError;
pub use shared::SYNC_BUCKETS_US;
pub use verify::{Finding, Report, verify};

/// A place in the log: 1 for the first event, gap-free. 0 stands for "before the first".
pub type Sequence = u64;

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Operation {
    /// The row came into being.
    Insert = 0,
    /// The row changed.
    Update = 1,
    /// The row is gone.
    Delete = 2,
    /// Every row of the table is gone.
    Truncate = 3,
}

/// Where an event came from, when it was not a REST write: what the events of a transaction have in common. Each one's
/// own place in the source's log is [`Write::position`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The source's name.
    pub source: String,
    /// The source's transaction, in its own notation.
    pub transaction: Option<String>,
    /// When the transaction was committed, in ms since 1970 by the source's clock.
    pub committed_at_ms: Option<u64>,
    /// Whether the event is part of an initial snapshot.
    pub snapshot: bool,
    /// Names of columns whose values nobody knew, as a JSON array of strings; none if there are none. Opaque here.
    pub unavailable: Option<String>,
}

/// One event to be written. Applying it sets the row's image to `after`, or removes the row when that is none; a
/// truncate (empty key) removes every row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The table's name.
    pub table: Arc<str>,
    /// The row's key: UTF-8.
    pub key: Bytes,
    /// What happened.
    pub operation: Operation,
    /// The image before: UTF-8 JSON.
    pub before: Option<Bytes>,
    /// The image after: UTF-8 JSON.
    pub after: Option<Bytes>,
    /// The version of the table's schema.
    pub schema_version: u32,
    /// None for a REST write. Shared by the events of a transaction, which the log then writes once.
    pub origin: Option<Arc<Origin>>,
    /// The source's position, in its own notation: UTF-8. Only where there is an origin.
    pub position: Option<Bytes>,
}

impl Write {
    /// The source's position as text.
    #[must_use]
    pub fn position_text(&self) -> Option<&str> {
        // What is no text was refused at the door.
        self.position.as_deref().and_then(|position| std::str::from_utf8(position).ok())
    }
}

/// One version of a table's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// The table's name.
    pub table: Arc<str>,
    /// From 1.
    pub version: u32,
    /// The definition, opaque here (JSON text in practice).
    pub definition: Bytes,
}

/// A small piece of state that is no row of a table: what subscriptions and their subscribers keep. A document has no
/// events and no history; only its last value is there. Nobody sees it in schemas, counters or tables.
///
/// Applying it sets the document's value, or removes the document when that is none. An empty key and no value remove
/// the whole collection (so a document whose key is empty goes only with its collection). What is not there may be
/// removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The collection's name. Collections have their own names: one may be called like a table.
    pub collection: Arc<str>,
    /// Any bytes.
    pub key: Bytes,
    /// Any bytes.
    pub value: Option<Bytes>,
}

/// What is committed together or not at all. A batch without writes is a commit too (schemas, positions, cursors,
/// documents).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The time of every event in it, in ms since 1970; never below an earlier batch's (the store does not check).
    pub timestamp_ms: u64,
    /// New schema versions, in order.
    pub schemas: Vec<SchemaVersion>,
    /// The events, in order.
    pub writes: Vec<Write>,
    /// Source name and position; an empty one forgets the source's.
    pub positions: Vec<(String, String)>,
    /// Subscription name and the last sequence number that it acknowledged; `Sequence::MAX` forgets the cursor, so that
    /// it holds no events any more.
    pub cursors: Vec<(String, Sequence)>,
    /// Documents, in order.
    pub documents: Vec<Document>,
    /// The head's schema generation that the batch was decided under, if that matters: when staged batches were given up
    /// since, it was decided on rows that are not there, and is given up too. Not kept.
    pub generation: Option<u64>,
}

/// An event as it is in the log. Cheap to clone: images are shared bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place.
    pub sequence: Sequence,
    /// In ms since 1970.
    pub timestamp_ms: u64,
    /// What was written.
    pub write: Write,
}

/// The newest point as the writer must see it: staged batches included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Newest sequence number; 0 for an empty log.
    pub sequence: Sequence,
    /// Newest timestamp; 0 for an empty log.
    pub timestamp_ms: u64,
    /// Changes with every schema change and whenever staged batches are given up.
    pub schema_generation: u64,
    /// How many tables have a schema.
    pub tables: u32,
}

/// Which events to read. Every condition given must hold.
#[derive(Clone, Debug, Default)]
pub struct EventRange<'a> {
    /// Events after this one.
    pub after: Sequence,
    /// Events up to and with this one.
    pub until: Sequence,
    /// Events later than this, in ms since 1970.
    pub since_ms: Option<u64>,
    /// Of this table.
    pub table: Option<&'a str>,
    /// Of this kind.
    pub operation: Option<Operation>,
    /// Of the rows with this key (in any table, unless `table` is given).
    pub key: Option<&'a str>,
    /// The most events to answer; at least 1.
    pub max_events: usize,
    /// Stop once the answered images pass this many bytes; at least one event is answered.
    pub max_bytes: usize,
    /// From the newest down instead of from the oldest up.
    pub newest_first: bool,
}

/// Events in the direction asked for.
#[derive(Clone, Debug, Default)]
pub struct EventSlice {
    /// The events.
    pub events: Vec<Event>,
    /// Whether the range holds nothing more.
    pub complete: bool,
}

/// What the log holds, seen by one view. A subscription has lost events when `oldest` is more than one above its cursor:
/// its next event is not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest event kept; `newest + 1` when none is.
    pub oldest: Sequence,
    /// The newest event; 0 for an empty log.
    pub newest: Sequence,
    /// The newest event's time; 0 for an empty log.
    pub newest_timestamp_ms: u64,
}

/// Events ever captured of one table, by operation (indexed by `Operation as usize`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableCount {
    /// The table's name.
    pub table: Arc<str>,
    /// Insert, update, delete, truncate.
    pub by_operation: [u64; 4],
}

/// Counts since the log began, whatever retention has dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Per table, by name.
    pub tables: Vec<TableCount>,
    /// (second since 1970, events), oldest first: at least the last eleven seconds that had events.
    pub recent: Vec<(u64, u64)>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// UTF-8.
    pub key: Bytes,
    /// UTF-8 JSON.
    pub image: Bytes,
}

/// Why the store could not do what was asked. Cheap to clone: one failed fsync answers many writers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No room on the disk. Nothing of the batch is visible, now or after a restart; writing may be tried again.
    #[error("no room left for the log: {0}")]
    Full(Arc<str>),
    /// Writing or syncing failed in a way that leaves it unknown what is on disk: the store takes no more writes and
    /// the service must stop.
    #[error("the store failed: {0}")]
    Failed(Arc<str>),
    /// A batch staged before this one failed, so this one was given up: try again.
    #[error("given up, because a batch before it failed: {0}")]
    GivenUp(Arc<str>),
    /// A batch is larger than the store takes (an option says how large). Nothing was staged.
    #[error("too large for the log: {0}")]
    TooLarge(Arc<str>),
    /// Retention has dropped what was asked for.
    #[error("the oldest event that is kept is {oldest}")]
    Dropped {
        /// The oldest event that is kept.
        oldest: Sequence,
    },
    /// Something on disk is not what was written there. Names the file, the place and the way out.
    #[error("{0}")]
    Corrupt(Arc<str>),
}

/// Called once when a batch's fate is known, from a thread of the store, in the order of `append`.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The writer's door (one thread at a time) and the source of views (any thread).
pub trait Store: Send + Sync + Debug {
    /// A consistent reading of the newest durable state. Cheap; keep it only as long as needed, since it holds disk
    /// space that retention or a checkpoint would free.
    fn view(&self) -> Result<Arc<dyn View>, StoreError>;

    /// The newest point, staged batches included.
    fn head(&self) -> Head;

    /// Row images as of `head`, one per key in order.
    fn head_rows(&self, table: &str, keys: &[&str]) -> Result<Vec<Option<Bytes>>, StoreError>;

    /// A document's value as of `head`.
    fn head_document(&self, collection: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// A table's newest schema as of `head`.
    fn head_schema(&self, table: &str) -> Option<SchemaVersion>;

    /// How far a source has been read as of `head`.
    fn head_position(&self, source: &str) -> Option<String>;

    /// Stages a batch after everything staged before and answers its first event's sequence number (`head + 1`, also
    /// for a batch without writes). Returns before it is durable; batches staged while one is synced share the next
    /// sync. Blocks while too much is staged. When it errs, nothing was staged and `done` is not called. When a staged
    /// batch cannot be written, it and every batch staged after it fail, and `head` goes back to before it. A batch with
    /// a `generation` that is not the head's any more errs with `GivenUp`.
    fn append(&self, batch: Arc<Batch>, done: Done) -> Result<Sequence, StoreError>;

    /// Waits until everything staged has met its fate, checkpoints and closes. Later calls of `append` err.
    fn close(&self) -> Result<(), StoreError>;
}

/// One unchanging reading. Safe to use from any thread, while writing goes on.
pub trait View: Send + Sync + Debug {
    /// What the log holds.
    fn bounds(&self) -> Bounds;

    /// One row's image.
    fn row(&self, table: &str, key: &str) -> Result<Option<Bytes>, StoreError>;

    /// Rows in byte order of their keys, after the given one; empty at the end. Stops early when the images pass
    /// `max_bytes`; at least one row is answered.
    fn scan(&self, table: &str, after: Option<&str>, max_rows: usize, max_bytes: usize)
    -> Result<Vec<Row>, StoreError>;

    /// Events in a range. `Dropped` when `after + 1` is below the oldest kept event and `after` is below `newest`.
    fn events(&self, range: &EventRange<'_>) -> Result<EventSlice, StoreError>;

    /// A version of a table's schema, or its newest.
    fn schema(&self, table: &str, version: Option<u32>) -> Option<SchemaVersion>;

    /// The newest schema of every table, by name.
    fn schemas(&self) -> Vec<SchemaVersion>;

    /// Every version of a table's schema, oldest first.
    fn schema_history(&self, table: &str) -> Vec<SchemaVersion>;

    /// Counts since the log began.
    fn counters(&self) -> Counters;

    /// The last sequence number that a subscription acknowledged.
    fn cursor(&self, subscription: &str) -> Option<Sequence>;

    /// How far a source has been read.
    fn position(&self, source: &str) -> Option<String>;

    /// A document's value.
    fn document(&self, collection: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// A collection's documents in byte order of their keys, after the given one; empty at the end, and for a collection
    /// that is not there. The rows' keys and images are the documents' keys and values: any bytes. Stops early when the
    /// values pass `max_bytes`; at least one is answered.
    fn documents(
        &self,
        collection: &str,
        after: Option<&[u8]>,
        max_documents: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, StoreError>;
}
