//! The reading side: one head and the pages below it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::rc::Rc;

use cdc_engine::event::TableSchema;
use cdc_engine::store::{Bounds, Counters, EventRange, EventSlice, Row, StoreError, View};

use super::codec::damaged;
use super::head::Head;
use super::records::{self, StoredEvent};
use super::tree::Pages;
use super::{KeyValue, PageId};

/// One unchanging state of the store.
#[derive(Debug)]
pub struct KeyValueView<K> {
    pages: Rc<Pages<K>>,
    head: Head,
}

impl<K: KeyValue> KeyValueView<K> {
    pub(super) fn new(pages: Rc<Pages<K>>, head: Head) -> Self {
        Self { pages, head }
    }
}

/// The schema in force of a table.
pub(super) fn newest_schema<K: KeyValue>(
    pages: &Pages<K>,
    root: Option<PageId>,
    table: &str,
) -> Result<Option<TableSchema>, StoreError> {
    let (from, to) = records::schemas_of(table);
    let mut found = None;
    let _ = pages.walk(root, (&from, &to), true, &mut |_, value| {
        found = Some(records::decode_schema(value)?);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

impl<K: KeyValue> View for KeyValueView<K> {
    fn bounds(&self) -> Bounds {
        Bounds {
            oldest: self.head.oldest,
            newest: self.head.sequence,
            newest_timestamp_ms: if self.head.sequence == 0 { 0 } else { self.head.timestamp_ms },
        }
    }

    fn row(&self, table: &str, key: &str) -> Result<Option<String>, StoreError> {
        let image = self.pages.get(self.head.root, &records::row_key(table, key))?;
        image.map(|image| String::from_utf8(image).map_err(|_| damaged())).transpose()
    }

    fn scan(&self, table: &str, after: Option<&str>, max_rows: u32, max_bytes: u32) -> Result<Vec<Row>, StoreError> {
        let mut from = records::row_key(table, after.unwrap_or_default());
        if after.is_some() {
            // The next key there can be.
            from.push(0);
        }
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let _ = self.pages.walk(self.head.root, (&from, &records::end_of_rows(table)), false, &mut |key, image| {
            if rows.len() >= max_rows as usize || (bytes > max_bytes as usize && !rows.is_empty()) {
                return Ok(ControlFlow::Break(()));
            }
            bytes += image.len();
            let image = std::str::from_utf8(image).map_err(|_| damaged())?.to_owned();
            rows.push(Row { key: records::key_of_row(table, key)?.to_owned(), image });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }

    fn events(&self, range: &EventRange) -> Result<EventSlice, StoreError> {
        if range.after + 1 < self.head.oldest && range.after < self.head.sequence {
            return Err(StoreError::Dropped(self.head.oldest));
        }
        let mut slice = EventSlice { complete: true, ..EventSlice::default() };
        let mut bytes = 0;
        let (from, to) = (records::event_key(range.after + 1), records::event_key(range.until.saturating_add(1)));
        let _ = self.pages.walk(self.head.root, (&from, &to), range.newest_first, &mut |key, value| {
            let event = StoredEvent::decode(key, value)?;
            if range.since_ms.is_some_and(|since_ms| event.timestamp_ms <= since_ms) {
                // Time never goes back along the log, so before this one there is nothing either.
                return Ok(if range.newest_first { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
            }
            let wanted = range.table.as_deref().is_none_or(|table| event.table == table)
                && range.key.as_deref().is_none_or(|key| event.key == key)
                && range.operation.is_none_or(|operation| event.operation == operation);
            if !wanted {
                return Ok(ControlFlow::Continue(()));
            }
            if slice.entries.len() >= range.max_events as usize || bytes > range.max_bytes as usize {
                slice.complete = false;
                return Ok(ControlFlow::Break(()));
            }
            bytes += event.image_bytes();
            slice.entries.push(event.push(&mut slice.texts));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(slice)
    }

    fn schema(&self, table: &str, version: Option<u32>) -> Result<Option<TableSchema>, StoreError> {
        let Some(version) = version else { return newest_schema(&self.pages, self.head.root, table) };
        let found = self.pages.get(self.head.root, &records::schema_key(table, version))?;
        found.as_deref().map(records::decode_schema).transpose()
    }

    fn schemas(&self) -> Result<Vec<TableSchema>, StoreError> {
        let mut newest = BTreeMap::new();
        let _ = self.pages.walk(self.head.root, records::SCHEMAS, false, &mut |_, value| {
            let schema = records::decode_schema(value)?;
            newest.insert(schema.name.clone(), schema);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(newest.into_values().collect())
    }

    fn schema_history(&self, table: &str) -> Result<Vec<TableSchema>, StoreError> {
        let (from, to) = records::schemas_of(table);
        let mut versions = Vec::new();
        let _ = self.pages.walk(self.head.root, (&from, &to), false, &mut |_, value| {
            versions.push(records::decode_schema(value)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(versions)
    }

    fn counters(&self) -> Result<Counters, StoreError> {
        let mut counters = Counters { tables: Vec::new(), recent: self.head.recent.clone() };
        let _ = self.pages.walk(self.head.root, records::COUNTERS, false, &mut |key, value| {
            counters.tables.push(records::decode_count(records::table_of_counter(key)?, Some(value))?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(counters)
    }

    fn cursor(&self, subscription: &str) -> Result<Option<u64>, StoreError> {
        let found = self.pages.get(self.head.root, &records::cursor_key(subscription))?;
        found.as_deref().map(records::decode_cursor).transpose()
    }
}
