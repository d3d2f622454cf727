//! The rows that a subscription starts with: the selected tables as they were at one event, as inserts of a snapshot.
//!
//! Where it stands is noted with every batch. After a restart the tables are looked at again as they were at that same
//! event, which the log allows because the subscription's cursor stands there and holds what came after.

use std::sync::Arc;

use bytes::Bytes;

use super::deps::Deps;
use super::records::{SNAPSHOT_SOURCE, SnapshotProgress};
use crate::live::Chunk;
use crate::sandbox::{Snapshot, SnapshotError};
use crate::selection::Selection;
use crate::store::{Event, Operation, Origin, Sequence, StoreError, Write};

/// Rows read at once.
const ROWS: u32 = 256;
const BYTES: u32 = 1 << 20;

/// A snapshot being delivered.
pub(super) struct Rows {
    /// What is acknowledged.
    progress: SnapshotProgress,
    /// The table being read, and the snapshot of it.
    open: Option<(String, Snapshot)>,
    /// The last table that was read to its end.
    read: Option<String>,
    origin: Arc<Origin>,
    /// The event that the rows are as of.
    position: Bytes,
}

impl Rows {
    pub(super) fn new(progress: SnapshotProgress) -> Self {
        let origin = Arc::new(Origin {
            source: SNAPSHOT_SOURCE.into(),
            transaction: None,
            committed_at_ms: None,
            snapshot: true,
            unavailable: None,
        });
        let position = Bytes::from(progress.at.to_string());
        Self { progress, open: None, read: None, origin, position }
    }

    pub(super) fn progress(&self) -> &SnapshotProgress {
        &self.progress
    }

    /// Everything up to this row is done.
    pub(super) fn acknowledge(&mut self, row: &Event) {
        self.progress.table = row.write.table.to_string();
        self.progress.after = Some(String::from_utf8_lossy(&row.write.key).into_owned());
    }

    /// The next rows; none at the end of the last table.
    pub(super) fn next(&mut self, deps: &Deps, selection: &Selection) -> Result<Option<Arc<Chunk>>, StoreError> {
        loop {
            if self.open.is_none() {
                let Some(table) = self.next_table(deps, selection)? else { return Ok(None) };
                match open(deps, &table, self.progress.at)? {
                    Some(snapshot) => self.open = Some((table, snapshot)),
                    None => {
                        self.read = Some(table);
                        continue;
                    }
                }
            }
            let Some((table, snapshot)) = &mut self.open else { return Ok(None) };
            let rows = snapshot.next(ROWS, BYTES).map_err(failed)?.map_err(|error| failed(format!("{error:?}")))?;
            if rows.is_empty() {
                self.read = self.open.take().map(|(table, _)| table);
                continue;
            }
            let after = self.progress.after.as_deref().filter(|_| self.progress.table == *table);
            let (timestamp_ms, version) = (snapshot.info().timestamp, snapshot.info().schema.version);
            let name: Arc<str> = table.as_str().into();
            let events: Vec<Event> = rows
                .into_iter()
                .filter(|row| after.is_none_or(|after| row.key.as_str() > after))
                .map(|row| Event {
                    sequence: self.progress.at,
                    timestamp_ms,
                    write: Write {
                        table: name.clone(),
                        key: Bytes::from(row.key),
                        operation: Operation::Insert,
                        before: None,
                        after: Some(Bytes::from(row.image)),
                        schema_version: version,
                        origin: Some(self.origin.clone()),
                        position: Some(self.position.clone()),
                    },
                })
                .collect();
            if !events.is_empty() {
                return Ok(Some(Arc::new(Chunk::of(events))));
            }
        }
    }

    fn next_table(&self, deps: &Deps, selection: &Selection) -> Result<Option<String>, StoreError> {
        let view = deps.store.view()?;
        let mut tables: Vec<String> = view.schemas().iter().map(|schema| schema.table.to_string()).collect();
        tables.sort_unstable();
        Ok(tables.into_iter().find(|table| {
            let is_ahead = match &self.read {
                Some(read) => table > read,
                None => *table >= self.progress.table,
            };
            is_ahead && selection.selects_table(&table.as_str().into())
        }))
    }
}

/// The table as it was at an event; none if it was not there yet.
pub(super) fn open(deps: &Deps, table: &str, at: Sequence) -> Result<Option<Snapshot>, StoreError> {
    let instance = deps.readers.instance().map_err(failed)?;
    match instance.snapshot(table, Some(at)).map_err(failed)? {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(SnapshotError::UnknownTable(_)) => Ok(None),
        Err(error) => Err(failed(format!("the table {table} as it was at event {at} cannot be read: {error:?}"))),
    }
}

pub(super) fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string().into())
}
