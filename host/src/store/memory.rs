//! The store in memory: the same contract without a disk, for tests and for measuring what the disk costs.
//!
//! A batch is durable (as far as memory is) when `append` returns; `done` is called before that, on the caller's thread.
//! Nothing is dropped: the log grows without a bound. Filtered reads look at every event.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use imbl::Vector;

use super::checkpoint::Base;
use super::facts::Retention;
use super::rows::Rows;
use super::shared::Version;
use super::{
    Batch, Bounds, Counters, Done, Event, EventRange, EventSlice, Head, Row, SchemaVersion, Sequence, Store,
    StoreError, View,
};

const RETENTION: Retention = Retention { events: None, age_ms: None, bytes: None, unacknowledged_events: 0 };

/// A store that forgets everything when it is dropped.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    version: Version,
    events: Vector<Event>,
    is_closed: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Arc<Self> {
        let rows = Rows::new(Arc::new(Base::none()));
        let version = Version { ordinal: 0, facts: super::facts::Facts::default(), rows };
        Arc::new(Self { state: Mutex::new(State { version, events: Vector::new(), is_closed: false }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn view(&self) -> Result<Arc<dyn View>, StoreError> {
        let state = self.lock();
        Ok(Arc::new(MemoryView { version: state.version.clone(), events: state.events.clone() }))
    }

    fn head(&self) -> Head {
        self.lock().version.facts.head()
    }

    fn head_rows(&self, table: &str, keys: &[&str]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let state = self.lock();
        let Some(table) = state.version.facts.table_id(table) else { return Ok(vec![None; keys.len()]) };
        state.version.rows.get_all(table, keys)
    }

    fn head_document(&self, collection: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.lock().version.document(collection, key)
    }

    fn head_schema(&self, table: &str) -> Option<SchemaVersion> {
        self.lock().version.facts.schema(table, None)
    }

    fn head_position(&self, source: &str) -> Option<String> {
        self.lock().version.facts.positions.get(source).map(|position| position.to_string())
    }

    fn append(&self, batch: Arc<Batch>, done: Done) -> Result<Sequence, StoreError> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(StoreError::Failed("it was closed".into()));
        }
        state.version.facts.check_generation(&batch)?;
        let first = state.version.facts.sequence + 1;
        state.version.apply(&batch, &RETENTION);
        for (sequence, write) in (first..).zip(&batch.writes) {
            state.events.push_back(Event { sequence, timestamp_ms: batch.timestamp_ms, write: write.clone() });
        }
        drop(state);
        done(Ok(()));
        Ok(first)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.lock().is_closed = true;
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryView {
    version: Version,
    events: Vector<Event>,
}

impl View for MemoryView {
    fn bounds(&self) -> Bounds {
        self.version.facts.bounds(0)
    }

    fn row(&self, table: &str, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self.version.facts.table_id(table) {
            Some(table) => self.version.rows.get(table, key.as_bytes()),
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
        match self.version.facts.table_id(table) {
            Some(table) => self.version.rows.scan(table, after.map(str::as_bytes), max_rows, max_bytes),
            None => Ok(Vec::new()),
        }
    }

    fn events(&self, range: &EventRange<'_>) -> Result<EventSlice, StoreError> {
        let newest = self.events.len() as u64;
        let from = range.after.min(newest) as usize;
        let to = (range.until.min(newest) as usize).max(from);
        let mut slice = EventSlice { events: Vec::new(), complete: true };
        let mut bytes = 0;
        let mut is_full = false;
        let mut pick = |event: &Event| {
            let write = &event.write;
            let is_wanted = range.table.is_none_or(|table| *table == *write.table)
                && range.operation.is_none_or(|operation| operation == write.operation)
                && range.key.is_none_or(|key| key.as_bytes() == &write.key[..])
                && range.since_ms.is_none_or(|since_ms| event.timestamp_ms > since_ms);
            if !is_wanted {
                return true;
            }
            if is_full {
                slice.complete = false;
                return false;
            }
            bytes += write.before.as_ref().map_or(0, Bytes::len) + write.after.as_ref().map_or(0, Bytes::len);
            slice.events.push(event.clone());
            is_full = slice.events.len() >= range.max_events || bytes > range.max_bytes;
            true
        };
        let events = self.events.focus().narrow(from..to);
        if range.newest_first {
            events.into_iter().rev().all(&mut pick);
        } else {
            events.into_iter().all(&mut pick);
        }
        Ok(slice)
    }

    fn schema(&self, table: &str, version: Option<u32>) -> Option<SchemaVersion> {
        self.version.facts.schema(table, version)
    }

    fn schemas(&self) -> Vec<SchemaVersion> {
        self.version.facts.schemas()
    }

    fn schema_history(&self, table: &str) -> Vec<SchemaVersion> {
        self.version.facts.schema_history(table)
    }

    fn counters(&self) -> Counters {
        self.version.facts.counters()
    }

    fn cursor(&self, subscription: &str) -> Option<Sequence> {
        self.version.facts.cursors.get(subscription).copied()
    }

    fn position(&self, source: &str) -> Option<String> {
        self.version.facts.positions.get(source).map(|position| position.to_string())
    }

    fn document(&self, collection: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.version.document(collection, key)
    }

    fn documents(
        &self,
        collection: &str,
        after: Option<&[u8]>,
        max_documents: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.version.documents(collection, after, max_documents, max_bytes)
    }
}
