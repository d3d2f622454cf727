//! What the core asks of its embedder: the trait form of `wit/engine`'s `store` interface, whose documentation holds
//! the contract.

use crate::event::{Event, Operation, Origin, OriginRef, TableSchema};
use crate::texts::{Span, Texts};

/// Why the store could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// There is no room; nothing was written.
    Full(String),
    /// The store failed; nothing was written.
    Failed(String),
    /// Somebody else has committed since the head was asked for; nothing was written. Decide anew and try again. Only
    /// a store that several instances write to answers this.
    Conflict,
    /// The store cannot take writes in a way that would keep what the log promises; nothing was written. Says what to
    /// do.
    Unsafe(String),
    /// Retention has dropped what was asked for; the oldest event kept.
    Dropped(u64),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(message) | Self::Failed(message) | Self::Unsafe(message) => f.write_str(message),
            Self::Conflict => f.write_str("somebody else has committed in between"),
            Self::Dropped(oldest) => write!(f, "the oldest event that is kept is {oldest}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// How tables come into being and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaMode {
    /// Inferred from what is written.
    Infer,
    /// Declared; what does not fit is refused.
    Strict,
}

/// What the embedder decided. Lengths are in bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Inferred or declared schemas.
    pub schema_mode: SchemaMode,
    /// The longest row image.
    pub max_row_bytes: usize,
    /// The longest key.
    pub max_key_bytes: usize,
    /// The deepest nesting; the row is level 1.
    pub max_depth: usize,
    /// The most columns of a table.
    pub max_columns: usize,
    /// The most tables.
    pub max_tables: usize,
    /// The longest table or column name.
    pub max_name_bytes: usize,
    /// The most keys that a look into the past may remember.
    pub max_past_keys: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            schema_mode: SchemaMode::Infer,
            max_row_bytes: 1 << 20,
            max_key_bytes: 512,
            max_depth: 128,
            max_columns: 1_000,
            max_tables: 1_000,
            max_name_bytes: 128,
            max_past_keys: 1_000_000,
        }
    }
}

/// The newest point as the capturing instance must see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// 0 for an empty log.
    pub sequence: u64,
    /// 0 for an empty log.
    pub timestamp_ms: u64,
    /// What was cached under another number is stale.
    pub schema_generation: u64,
    /// How many tables there are.
    pub tables: usize,
}

/// An event's origin, by spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginSpans {
    /// The source's name.
    pub source: Span,
    /// The source's transaction.
    pub transaction: Option<Span>,
    /// The source's position.
    pub position: Option<Span>,
    /// Whether the event is part of an initial snapshot.
    pub snapshot: bool,
    /// When the source's transaction was committed, in ms since 1970.
    pub committed_at_ms: Option<u64>,
    /// Columns whose values nobody knew, as a JSON array of strings.
    pub unavailable: Option<Span>,
}

impl OriginSpans {
    /// Adds an origin's strings to the texts.
    pub fn push(origin: OriginRef<'_>, texts: &mut Texts) -> Self {
        Self {
            source: texts.push(origin.source),
            transaction: origin.transaction.map(|transaction| texts.push(transaction)),
            position: origin.position.map(|position| texts.push(position)),
            snapshot: origin.snapshot,
            committed_at_ms: origin.committed_at_ms,
            unavailable: None,
        }
    }

    /// The origin with its strings.
    pub fn origin(self, texts: &Texts) -> Result<Origin, StoreError> {
        let text = |span| texts.text(span).map(str::to_owned);
        Ok(Origin {
            source: text(self.source)?,
            transaction: self.transaction.map(text).transpose()?,
            position: self.position.map(text).transpose()?,
            snapshot: self.snapshot,
            committed_at_ms: self.committed_at_ms,
            unavailable: self.unavailable.map(text).transpose()?,
        })
    }
}

/// One event to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The table's name.
    pub table: Span,
    /// The row's key.
    pub key: Span,
    /// What happened.
    pub operation: Operation,
    /// The row before.
    pub before: Option<Span>,
    /// The row after; none removes it.
    pub after: Option<Span>,
    /// The version of the table's schema.
    pub schema_version: u32,
    /// Where it came from.
    pub origin: Option<OriginSpans>,
}

/// How far a source has been read, in its own notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePosition {
    /// The source's name.
    pub source: String,
    /// Its position.
    pub position: String,
}

/// What one call of capture writes, all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The time of every event, in ms since 1970.
    pub timestamp_ms: u64,
    /// New schema versions, in order.
    pub schemas: Vec<TableSchema>,
    /// The events, in order.
    pub writes: Vec<Write>,
    /// What the spans of the writes are spans of.
    pub texts: Texts,
    /// Source positions.
    pub positions: Vec<SourcePosition>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The row's key.
    pub key: String,
    /// The row itself.
    pub image: String,
}

/// Rows that were asked for by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundRows {
    /// The rows' images, one for each key and in their order; none where there is no row.
    pub images: Vec<Option<Span>>,
    /// What the spans are spans of.
    pub texts: Texts,
}

/// An event as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log, from 1.
    pub sequence: u64,
    /// In ms since 1970.
    pub timestamp_ms: u64,
    /// The table's name.
    pub table: Span,
    /// The row's key.
    pub key: Span,
    /// What happened.
    pub operation: Operation,
    /// The whole row before.
    pub before: Option<Span>,
    /// The whole row after.
    pub after: Option<Span>,
    /// The version of the table's schema.
    pub schema_version: u32,
    /// Where it came from.
    pub origin: Option<OriginSpans>,
}

impl Entry {
    /// The event with its texts.
    pub fn event(&self, texts: &Texts) -> Result<Event, StoreError> {
        let text = |span| texts.text(span).map(str::to_owned);
        Ok(Event {
            sequence: self.sequence,
            timestamp_ms: self.timestamp_ms,
            table: text(self.table)?,
            key: text(self.key)?,
            operation: self.operation,
            before: self.before.map(text).transpose()?,
            after: self.after.map(text).transpose()?,
            schema_version: self.schema_version,
            origin: self.origin.map(|origin| origin.origin(texts)).transpose()?,
        })
    }
}

/// Which events to read. Every condition given must hold.
#[derive(Clone, Debug, Default)]
pub struct EventRange {
    /// Events after this one.
    pub after: u64,
    /// Events up to and with this one.
    pub until: u64,
    /// Events later than this, in ms since 1970.
    pub since_ms: Option<u64>,
    /// Of this table.
    pub table: Option<String>,
    /// Of this kind.
    pub operation: Option<Operation>,
    /// Of the row with this key.
    pub key: Option<String>,
    /// The most events.
    pub max_events: u32,
    /// Stop once the images pass this.
    pub max_bytes: u32,
    /// From the newest down.
    pub newest_first: bool,
}

/// Events in the direction asked for.
#[derive(Clone, Debug, Default)]
pub struct EventSlice {
    /// The events.
    pub entries: Vec<Entry>,
    /// What the spans of the entries are spans of.
    pub texts: Texts,
    /// Whether there is nothing more in the range.
    pub complete: bool,
}

/// What the log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest event kept; `newest + 1` when none is.
    pub oldest: u64,
    /// 0 for an empty log.
    pub newest: u64,
    /// 0 for an empty log.
    pub newest_timestamp_ms: u64,
}

/// Events of a table ever captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableCount {
    /// The table's name.
    pub table: String,
    /// Inserts ever captured.
    pub inserts: u64,
    /// Updates ever captured.
    pub updates: u64,
    /// Deletes ever captured.
    pub deletes: u64,
    /// Truncates ever captured.
    pub truncates: u64,
}

/// Counts since the log began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Per table, by name.
    pub tables: Vec<TableCount>,
    /// (second since 1970, events), oldest first: at least the last eleven seconds that had events.
    pub recent: Vec<(u64, u64)>,
}

/// The capturing side of the store.
pub trait Store {
    /// A consistent reading.
    type View: View;

    /// What the embedder decided.
    fn settings(&self) -> Settings;
    /// The newest point.
    fn head(&self) -> Result<Head, StoreError>;
    /// Rows as of the head, by keys that are spans of `texts`.
    fn rows(&self, table: &str, keys: Vec<Span>, texts: Texts) -> Result<FoundRows, StoreError>;
    /// A table's newest schema as of the head.
    fn schema(&self, table: &str) -> Result<Option<TableSchema>, StoreError>;
    /// Writes a batch and answers its first event's sequence number.
    fn commit(&self, batch: Batch) -> Result<u64, StoreError>;
    /// Moves a subscription's cursor.
    fn save_cursor(&self, subscription: &str, acknowledged: u64) -> Result<(), StoreError>;
    /// Opens a consistent reading of what is durable.
    fn view(&self) -> Result<Self::View, StoreError>;
}

/// The reading side of the store: one unchanging state.
pub trait View {
    /// What the log holds.
    fn bounds(&self) -> Bounds;
    /// One row's image.
    fn row(&self, table: &str, key: &str) -> Result<Option<String>, StoreError>;
    /// Rows in the byte order of their keys, after the given one; empty at the end.
    fn scan(&self, table: &str, after: Option<&str>, max_rows: u32, max_bytes: u32) -> Result<Vec<Row>, StoreError>;
    /// Events in a range.
    fn events(&self, range: &EventRange) -> Result<EventSlice, StoreError>;
    /// A version of a table's schema, or its newest.
    fn schema(&self, table: &str, version: Option<u32>) -> Result<Option<TableSchema>, StoreError>;
    /// The newest schema of every table, by name.
    fn schemas(&self) -> Result<Vec<TableSchema>, StoreError>;
    /// Every version of a table's schema, oldest first.
    fn schema_history(&self, table: &str) -> Result<Vec<TableSchema>, StoreError>;
    /// Counts since the log began.
    fn counters(&self) -> Result<Counters, StoreError>;
    /// The last sequence number that a subscription acknowledged.
    fn cursor(&self, subscription: &str) -> Result<Option<u64>, StoreError>;
}
