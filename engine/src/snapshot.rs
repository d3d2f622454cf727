//! Snapshots: a table's rows as they are, as they were, and as the log says they should be.
//!
//! All three are one merge, in key order, of the present rows with the rows that differ from them (see
//! [`crate::past`]), read page by page from one unchanging view.

use std::collections::VecDeque;
use std::collections::btree_map;
use std::iter::Peekable;

use xxhash_rust::xxh3::Xxh3;

use crate::event::TableSchema;
use crate::past::{self, Overrides, PastError};
use crate::store::{EventRange, Row, StoreError, View};

/// Pages of `verify`.
const PAGE_ROWS: u32 = 1_000;
const PAGE_BYTES: u32 = 1 << 20;

/// Why there is no snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// There is no such table.
    UnknownTable(String),
    /// The sequence number lies beyond the newest event, which is named.
    InTheFuture(u64),
    /// More keys changed since than may be remembered; how many may.
    TooFarBack(usize),
    /// The store failed, or retention has dropped what is needed.
    Store(StoreError),
}

impl From<StoreError> for SnapshotError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A table's rows at one sequence number, in the byte order of their keys.
#[derive(Debug)]
pub struct TableSnapshot<V> {
    view: V,
    sequence: u64,
    timestamp_ms: u64,
    schema: TableSchema,
    merge: Merge,
}

impl<V: View> TableSnapshot<V> {
    /// The table as it is, or as it was right after event `at`.
    pub fn open(view: V, table: &str, at: Option<u64>, max_keys: usize) -> Result<Self, SnapshotError> {
        let newest = view.bounds().newest;
        let sequence = at.unwrap_or(newest);
        let present = schema(&view, table)?;
        let overrides = undone(&view, table, sequence, max_keys)?;
        let schema = if sequence == newest { present } else { schema_at(&view, table, sequence, present)? };
        Ok(Self::new(view, sequence, schema, Merge::new(overrides, true)))
    }

    /// The table as the log says it should be: its state before the oldest event kept, with every event applied.
    pub fn replay(view: V, table: &str, max_keys: usize) -> Result<Self, SnapshotError> {
        let schema = schema(&view, table)?;
        let bounds = view.bounds();
        let (merge, _) = replayed(&view, table, bounds.oldest, bounds.newest, Overrides::new(), max_keys)?;
        Ok(Self::new(view, bounds.newest, schema, merge))
    }

    fn new(view: V, sequence: u64, schema: TableSchema, merge: Merge) -> Self {
        let timestamp_ms = view.bounds().newest_timestamp_ms;
        Self { view, sequence, timestamp_ms, schema, merge }
    }

    /// The snapshot holds the effect of every event up to and with this one.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The time of the newest event when it was opened, in ms since 1970.
    #[must_use]
    pub fn timestamp_ms(&self) -> u64 {
        self.timestamp_ms
    }

    /// The schema in force at its sequence number.
    #[must_use]
    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    /// The next rows; none at the end.
    pub fn next(&mut self, max_rows: u32, max_bytes: u32) -> Result<Vec<Row>, StoreError> {
        self.merge.next(&self.view, &self.schema.name, max_rows.max(1), max_bytes)
    }
}

/// A table rebuilt from the log, held against the live one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayReport {
    /// The table's name.
    pub table: String,
    /// The first event applied.
    pub from_sequence: u64,
    /// The last event applied.
    pub to_sequence: u64,
    /// How many events of the table were applied.
    pub events: u64,
    /// Rows by replay.
    pub replayed_rows: u64,
    /// XXH3-64 over their keys and images, in key order.
    pub replayed_checksum: u64,
    /// Rows as they were after `to_sequence`.
    pub live_rows: u64,
    /// The same over those.
    pub live_checksum: u64,
}

/// Applies the events `from..=to` (the oldest kept and the newest, if not given) to the table as it was before them,
/// and compares the outcome with the table as it was after `to`.
pub fn verify<V: View>(
    view: &V,
    table: &str,
    from: Option<u64>,
    to: Option<u64>,
    max_keys: usize,
) -> Result<ReplayReport, SnapshotError> {
    schema(view, table)?;
    let bounds = view.bounds();
    let from_sequence = from.unwrap_or(bounds.oldest).max(1);
    if from_sequence < bounds.oldest {
        return Err(StoreError::Dropped(bounds.oldest).into());
    }
    if from_sequence > bounds.newest + 1 {
        return Err(SnapshotError::InTheFuture(bounds.newest));
    }
    let to_sequence = to.unwrap_or(bounds.newest);
    let undo = undone(view, table, to_sequence, max_keys)?;
    // Before the first event there is nothing that a way back could lead to.
    let base = if from_sequence > 1 { undo.clone() } else { Overrides::new() };
    let mut live = Merge::new(undo, true);
    let (mut replay, events) = replayed(view, table, from_sequence, to_sequence, base, max_keys)?;
    let (replayed_rows, replayed_checksum) = checksum(view, table, &mut replay)?;
    let (live_rows, live_checksum) = checksum(view, table, &mut live)?;
    Ok(ReplayReport {
        table: table.to_owned(),
        from_sequence,
        to_sequence,
        events,
        replayed_rows,
        replayed_checksum,
        live_rows,
        live_checksum,
    })
}

fn schema<V: View>(view: &V, table: &str) -> Result<TableSchema, SnapshotError> {
    view.schema(table, None)?.ok_or_else(|| SnapshotError::UnknownTable(table.to_owned()))
}

fn undone<V: View>(view: &V, table: &str, at: u64, max_keys: usize) -> Result<Overrides, SnapshotError> {
    let bounds = view.bounds();
    if at > bounds.newest {
        return Err(SnapshotError::InTheFuture(bounds.newest));
    }
    if at < bounds.newest && at + 1 < bounds.oldest {
        return Err(StoreError::Dropped(bounds.oldest).into());
    }
    past::undo(view, table, at, max_keys).map_err(|error| past_error(error, max_keys))
}

fn replayed<V: View>(
    view: &V,
    table: &str,
    from: u64,
    to: u64,
    mut undone: Overrides,
    max_keys: usize,
) -> Result<(Merge, u64), SnapshotError> {
    let events =
        past::redo(view, table, from, to, &mut undone, max_keys).map_err(|error| past_error(error, max_keys))?;
    // Replayed from the first event on, a table starts empty: a present row without an event would be a fault, and is
    // left out here so that the comparison shows it.
    Ok((Merge::new(undone, from > 1), events))
}

fn past_error(error: PastError, max_keys: usize) -> SnapshotError {
    match error {
        PastError::TooManyKeys => SnapshotError::TooFarBack(max_keys),
        PastError::Store(error) => SnapshotError::Store(error),
    }
}

/// The schema in force at a past sequence number: the one that the table's last event until then names, or, when none
/// is kept, the one before its next event.
fn schema_at<V: View>(view: &V, table: &str, at: u64, present: TableSchema) -> Result<TableSchema, SnapshotError> {
    let bounds = view.bounds();
    let event = |after, until, newest_first| -> Result<Option<u32>, StoreError> {
        let range = EventRange {
            after,
            until,
            table: Some(table.to_owned()),
            max_events: 1,
            max_bytes: 1,
            newest_first,
            ..EventRange::default()
        };
        Ok(view.events(&range)?.entries.first().map(|event| event.schema_version))
    };
    let oldest = bounds.oldest.saturating_sub(1);
    let version = match event(oldest.min(at), at, true)? {
        Some(version) => Some(version),
        None if bounds.oldest <= 1 => Some(1),
        None => event(at, bounds.newest, false)?,
    };
    match version {
        Some(version) if version != present.version => Ok(view.schema(table, Some(version))?.unwrap_or(present)),
        _ => Ok(present),
    }
}

/// Rows and the checksum over them.
fn checksum<V: View>(view: &V, table: &str, merge: &mut Merge) -> Result<(u64, u64), StoreError> {
    let mut hash = Xxh3::new();
    let mut count = 0;
    loop {
        let rows = merge.next(view, table, PAGE_ROWS, PAGE_BYTES)?;
        if rows.is_empty() {
            return Ok((count, hash.digest()));
        }
        for row in rows {
            count += 1;
            for text in [&row.key, &row.image] {
                // The lengths keep ("ab", "c") and ("a", "bc") apart.
                hash.update(&(text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
        }
    }
}

/// The present rows with others in their place, in key order.
#[derive(Debug)]
struct Merge {
    overrides: Peekable<btree_map::IntoIter<String, past::Override>>,
    /// Present rows that were read and not yet answered.
    page: VecDeque<Row>,
    /// The last present row that was read.
    after: Option<String>,
    /// Whether there are no more present rows to read.
    exhausted: bool,
}

impl Merge {
    /// Without `base`, present rows that nothing stands in for are no part of it.
    fn new(overrides: Overrides, base: bool) -> Self {
        Self { overrides: overrides.into_iter().peekable(), page: VecDeque::new(), after: None, exhausted: !base }
    }

    fn next<V: View>(&mut self, view: &V, table: &str, max_rows: u32, max_bytes: u32) -> Result<Vec<Row>, StoreError> {
        if self.page.is_empty() && self.overrides.peek().is_none() {
            // Nothing stands in for anything (any more): the store's pages are the answer.
            return self.read(view, table, max_rows, max_bytes);
        }
        let mut rows = Vec::new();
        let mut bytes = 0;
        // No rows would mean the end, so there is always one to answer.
        while rows.is_empty() || (rows.len() < max_rows as usize && bytes < max_bytes as usize) {
            if self.page.is_empty() && !self.exhausted {
                self.page = self.read(view, table, max_rows, max_bytes)?.into();
            }
            let row = match (self.page.front(), self.overrides.peek()) {
                (None, None) => break,
                (Some(present), Some((key, _))) if present.key < *key => self.page.pop_front(),
                (Some(_), None) => self.page.pop_front(),
                (present, Some((key, _))) => {
                    if present.is_some_and(|present| present.key == *key) {
                        self.page.pop_front();
                    }
                    match self.overrides.next() {
                        Some((key, place)) => past::image(view, &key, place)?.map(|image| Row { key, image }),
                        None => None,
                    }
                }
            };
            if let Some(row) = row {
                bytes += row.image.len();
                rows.push(row);
            }
        }
        Ok(rows)
    }

    fn read<V: View>(&mut self, view: &V, table: &str, max_rows: u32, max_bytes: u32) -> Result<Vec<Row>, StoreError> {
        if self.exhausted {
            return Ok(Vec::new());
        }
        let rows = view.scan(table, self.after.as_deref(), max_rows, max_bytes)?;
        match rows.last() {
            Some(row) => self.after = Some(row.key.clone()),
            None => self.exhausted = true,
        }
        Ok(rows)
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
