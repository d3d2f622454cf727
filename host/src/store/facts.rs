//! What the store knows beside rows: schemas, counters, positions, cursors, and where the log stands.
//!
//! Persistent maps throughout: a clone is a few pointers, so every batch has its own version of everything, readers
//! keep theirs, and giving up a batch is going back to the version before it.

use std::sync::Arc;

use imbl::OrdMap;

use super::{Batch, Bounds, Counters, Head, SchemaVersion, Sequence, StoreError, TableCount};

/// The number in row state of the first collection of documents. Tables count from 0, collections from here; both keep
/// their rows in the same tiers and the same file.
const COLLECTIONS_FROM: u32 = 1 << 31;

/// Seconds of which counts are kept.
const RECENT_SECONDS: usize = 16;

/// Which events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The newest this many are kept; exact.
    pub events: Option<u64>,
    /// Events older than this are dropped, a little late.
    pub age_ms: Option<u64>,
    /// Segments are dropped, oldest first, while the log takes more than this.
    pub bytes: Option<u64>,
    /// Events that a subscription has not acknowledged are kept in spite of the above, but never more than this many.
    pub unacknowledged_events: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { events: Some(10_000), age_ms: None, bytes: None, unacknowledged_events: 1_000_000 }
    }
}

impl Retention {
    /// Keeps everything.
    pub fn unlimited() -> Self {
        Self { events: None, ..Self::default() }
    }
}

/// One table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Its number in row state. Never reused.
    pub(crate) id: u32,
    pub(crate) counts: [u64; 4],
    /// By version.
    pub(crate) schemas: Arc<Vec<SchemaVersion>>,
}

/// What a batch does to the rows of one number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// This one of its writes applies.
    Write(usize),
    /// This one of its documents applies.
    Document(usize),
    /// No row is left.
    Cleared,
}

/// One version of everything but rows and events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The newest event.
    pub(crate) sequence: Sequence,
    pub(crate) timestamp_ms: u64,
    pub(crate) schema_generation: u64,
    pub(crate) schema_tables: u32,
    /// Everything up to here is dropped: the oldest event kept is the one after. Never goes back.
    pub(crate) dropped: Sequence,
    pub(crate) tables: OrdMap<Arc<str>, Arc<Table>>,
    pub(crate) recent: Arc<Vec<(u64, u64)>>,
    pub(crate) positions: OrdMap<Arc<str>, Arc<str>>,
    pub(crate) cursors: OrdMap<Arc<str>, Sequence>,
    /// Collections of documents that are there, and their numbers in row state.
    pub(crate) collections: OrdMap<Arc<str>, u32>,
    /// How many numbers collections have used. None is used again, except by a replay that starts over.
    pub(crate) collections_made: u32,
}

impl Facts {
    /// Takes in a batch; tells through `change` what becomes of rows, by their table's or collection's number.
    pub(crate) fn apply(&mut self, batch: &Batch, retention: &Retention, mut change: impl FnMut(u32, Change)) {
        for schema in &batch.schemas {
            let table = self.table_mut(&schema.table);
            let versions = Arc::make_mut(&mut table.schemas);
            let is_first = versions.is_empty();
            match versions.binary_search_by_key(&schema.version, |known| known.version) {
                Ok(at) => versions[at] = schema.clone(),
                Err(at) => versions.insert(at, schema.clone()),
            }
            self.schema_generation += 1;
            self.schema_tables += u32::from(is_first);
        }
        let mut at = 0;
        while at < batch.writes.len() {
            // One look-up for a run of the same table.
            let name = &batch.writes[at].table;
            let table = self.table_mut(name);
            while let Some(write) = batch.writes.get(at).filter(|w| Arc::ptr_eq(&w.table, name) || w.table == *name) {
                table.counts[write.operation as usize] += 1;
                change(table.id, Change::Write(at));
                at += 1;
            }
        }
        self.timestamp_ms = self.timestamp_ms.max(batch.timestamp_ms);
        if !batch.writes.is_empty() {
            self.sequence += batch.writes.len() as u64;
            self.count_recent(batch.timestamp_ms / 1000, batch.writes.len() as u64);
        }
        for (source, position) in &batch.positions {
            if position.is_empty() {
                self.positions.remove(source.as_str());
            } else {
                self.positions.insert(source.as_str().into(), position.as_str().into());
            }
        }
        for (subscription, sequence) in &batch.cursors {
            if *sequence == Sequence::MAX {
                self.cursors.remove(subscription.as_str());
            } else {
                self.cursors.insert(subscription.as_str().into(), *sequence);
            }
        }
        self.apply_documents(batch, change);
        self.retain(retention);
    }

    /// Whether a batch was decided on rows that are there.
    pub(crate) fn check_generation(&self, batch: &Batch) -> Result<(), StoreError> {
        match batch.generation {
            Some(generation) if generation != self.schema_generation => {
                Err(StoreError::GivenUp("it was decided on changes that could not be written".into()))
            }
            _ => Ok(()),
        }
    }

    fn apply_documents(&mut self, batch: &Batch, mut change: impl FnMut(u32, Change)) {
        for (at, document) in batch.documents.iter().enumerate() {
            let collection = &document.collection;
            if document.key.is_empty() && document.value.is_none() {
                if let Some(number) = self.collections.remove(collection) {
                    change(number, Change::Cleared);
                }
                continue;
            }
            let known = self.collections.get(collection).copied();
            if known.is_none() && document.value.is_none() {
                continue;
            }
            let number = known.unwrap_or_else(|| {
                let number = COLLECTIONS_FROM + self.collections_made;
                self.collections_made += 1;
                self.collections.insert(collection.clone(), number);
                // A checkpoint that a crash cut short may have left rows under this number.
                change(number, Change::Cleared);
                number
            });
            change(number, Change::Document(at));
        }
    }

    /// Moves the mark below which events are dropped.
    pub(crate) fn retain(&mut self, retention: &Retention) {
        let Some(keep) = retention.events else { return };
        let wanted = self.sequence.saturating_sub(keep);
        if wanted > self.dropped {
            self.dropped = wanted.min(self.held(retention)).max(self.dropped);
        }
    }

    /// Up to where events may be dropped as far as subscriptions go.
    pub(crate) fn held(&self, retention: &Retention) -> Sequence {
        let slowest = self.cursors.values().copied().min().unwrap_or(Sequence::MAX);
        slowest.max(self.sequence.saturating_sub(retention.unacknowledged_events))
    }

    fn table_mut(&mut self, name: &Arc<str>) -> &mut Table {
        let next_id = self.tables.len() as u32;
        let table = self
            .tables
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Table { id: next_id, counts: [0; 4], schemas: Arc::default() }));
        Arc::make_mut(table)
    }

    fn count_recent(&mut self, second: u64, events: u64) {
        let recent = Arc::make_mut(&mut self.recent);
        match recent.last_mut() {
            Some((last, count)) if *last >= second => *count += events,
            _ => recent.push((second, events)),
        }
        if recent.len() > RECENT_SECONDS {
            recent.remove(0);
        }
    }

    pub(crate) fn head(&self) -> Head {
        Head {
            sequence: self.sequence,
            timestamp_ms: self.timestamp_ms,
            schema_generation: self.schema_generation,
            tables: self.schema_tables,
        }
    }

    pub(crate) fn bounds(&self, dropped: Sequence) -> Bounds {
        let oldest = self.dropped.max(dropped).min(self.sequence) + 1;
        Bounds { oldest, newest: self.sequence, newest_timestamp_ms: self.timestamp_ms }
    }

    pub(crate) fn table_id(&self, table: &str) -> Option<u32> {
        self.tables.get(table).map(|table| table.id)
    }

    pub(crate) fn schema(&self, table: &str, version: Option<u32>) -> Option<SchemaVersion> {
        let versions = &self.tables.get(table)?.schemas;
        match version {
            None => versions.last().cloned(),
            Some(version) => {
                versions.binary_search_by_key(&version, |known| known.version).ok().map(|at| versions[at].clone())
            }
        }
    }

    pub(crate) fn schemas(&self) -> Vec<SchemaVersion> {
        self.tables.values().filter_map(|table| table.schemas.last().cloned()).collect()
    }

    pub(crate) fn schema_history(&self, table: &str) -> Vec<SchemaVersion> {
        self.tables.get(table).map_or_else(Vec::new, |table| table.schemas.to_vec())
    }

    pub(crate) fn counters(&self) -> Counters {
        let counted = self.tables.iter().filter(|(_, table)| table.counts != [0; 4]);
        let tables = counted.map(|(name, t)| TableCount { table: name.clone(), by_operation: t.counts }).collect();
        Counters { tables, recent: self.recent.to_vec() }
    }
}
