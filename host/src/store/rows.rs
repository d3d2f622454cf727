//! Row state in three tiers: what changed since the last checkpoint began, what that checkpoint is writing, and what
//! checkpoints have written (`checkpoint`). A row is looked for in this order. Collections of documents are tables here,
//! with numbers of their own (`facts`); keys and images are any bytes.
//!
//! The first two are persistent maps, so that every batch can have its own version.

use std::collections::HashMap;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use super::checkpoint::{Base, BaseRows};
use super::facts::Change;
use super::{Batch, Operation, Row, StoreError};

/// What a map costs per row beside key and image.
const ENTRY_BYTES: usize = 96;

/// Changed rows of every table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    pub(crate) tables: OrdMap<u32, TableRows>,
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

/// Changed rows of one table.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableRows {
    /// The table was truncated: nothing in the tiers below counts.
    pub(crate) is_whole: bool,
    /// None for a row that is gone.
    pub(crate) rows: OrdMap<Bytes, Option<Bytes>>,
}

impl Overlay {
    /// Takes in a row's new image, or that it is gone.
    pub(crate) fn set(&mut self, table: u32, key: Bytes, image: Option<Bytes>) {
        let rows = self.tables.entry(table).or_default();
        self.bytes += cost(&key, image.as_ref());
        let key_len = key.len();
        match rows.rows.insert(key, image) {
            Some(before) => self.bytes -= ENTRY_BYTES + key_len + before.map_or(0, |image| image.len()),
            None => self.entries += 1,
        }
    }

    /// Takes in that every row of a table is gone.
    pub(crate) fn clear(&mut self, table: u32) {
        let rows = self.tables.entry(table).or_default();
        let gone = std::mem::take(&mut rows.rows);
        rows.is_whole = true;
        self.entries -= gone.len();
        self.bytes -= gone.iter().map(|(key, image)| cost(key, image.as_ref())).sum::<usize>();
    }

    /// Whether this tier says something of any row from the first key to the last.
    fn says_something_of(&self, table: u32, first: &str, last: &str) -> bool {
        let Some(rows) = self.tables.get(&table) else { return false };
        let range = (Bound::Included(first.as_bytes()), Bound::Included(last.as_bytes()));
        rows.is_whole || rows.rows.range::<_, [u8]>(range).next().is_some()
    }

    /// What this tier says of a row: nothing, that it is gone, or its image.
    fn get(&self, table: u32, key: &[u8]) -> Option<Option<Bytes>> {
        let rows = self.tables.get(&table)?;
        match rows.rows.get(key) {
            Some(image) => Some(image.clone()),
            None => rows.is_whole.then_some(None),
        }
    }
}

/// Changed rows on their way into an overlay: many at once, which is faster than one by one.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    tables: HashMap<u32, (bool, HashMap<Bytes, Option<Bytes>>)>,
    pub(crate) entries: usize,
    /// What was taken in since the last `take`, replaced images included.
    pub(crate) bytes: usize,
}

impl Gathered {
    /// Takes in a change of a batch.
    pub(crate) fn apply(&mut self, table: u32, batch: &Batch, change: Change) {
        let (is_whole, rows) = self.tables.entry(table).or_default();
        let Some((key, image)) = row_of(batch, change) else {
            self.entries -= rows.len();
            rows.clear();
            *is_whole = true;
            return;
        };
        self.bytes += cost(key, image);
        if rows.insert(key.clone(), image.cloned()).is_none() {
            self.entries += 1;
        }
    }

    /// The overlay, leaving nothing here.
    pub(crate) fn take(&mut self) -> Overlay {
        self.bytes = 0;
        let mut overlay = Overlay { entries: std::mem::take(&mut self.entries), ..Overlay::default() };
        for (table, (is_whole, rows)) in self.tables.drain() {
            overlay.bytes += rows.iter().map(|(key, image)| cost(key, image.as_ref())).sum::<usize>();
            let mut rows: Vec<_> = rows.into_iter().collect();
            rows.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            overlay.tables.insert(table, TableRows { is_whole, rows: rows.into_iter().collect() });
        }
        overlay
    }
}

/// The row that a change sets, with its image if it has one; none when the change clears the table.
fn row_of(batch: &Batch, change: Change) -> Option<(&Bytes, Option<&Bytes>)> {
    match change {
        Change::Cleared => None,
        Change::Document(at) => Some((&batch.documents[at].key, batch.documents[at].value.as_ref())),
        Change::Write(at) => {
            let write = &batch.writes[at];
            (write.operation != Operation::Truncate).then_some((&write.key, write.after.as_ref()))
        }
    }
}

fn cost(key: &Bytes, image: Option<&Bytes>) -> usize {
    ENTRY_BYTES + key.len() + image.map_or(0, Bytes::len)
}

/// One version of row state.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(crate) active: Overlay,
    pub(crate) sealed: Option<Arc<Overlay>>,
    pub(crate) base: Arc<Base>,
}

impl Rows {
    pub(crate) fn new(base: Arc<Base>) -> Self {
        Self { active: Overlay::default(), sealed: None, base }
    }

    /// Takes in a change of a batch. Its texts are copied: they are parts of the batch's one block, which a single row
    /// would keep alive.
    pub(crate) fn apply(&mut self, table: u32, batch: &Batch, change: Change) {
        match row_of(batch, change) {
            Some((key, image)) => {
                let image = image.map(|image| Bytes::copy_from_slice(image));
                self.active.set(table, Bytes::copy_from_slice(key), image);
            }
            None => self.active.clear(table),
        }
    }

    /// One row's image.
    pub(crate) fn get(&self, table: u32, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.changed(table, key) {
            Some(known) => Ok(known),
            None => self.base.get(table, key, &mut None),
        }
    }

    /// The images of several rows, in the order of the keys given.
    pub(crate) fn get_all(&self, table: u32, keys: &[&str]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut images = vec![None; keys.len()];
        let (Some(first), Some(last)) = (keys.iter().min(), keys.iter().max()) else { return Ok(images) };
        // New rows often come with keys that lie together, and nothing is known there yet.
        let tiers: Vec<_> = self.tiers().filter(|tier| tier.says_something_of(table, first, last)).collect();
        let mut unknown = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            match tiers.iter().find_map(|tier| tier.get(table, key.as_bytes())) {
                Some(known) => images[i] = known,
                None => unknown.push(i),
            }
        }
        // Neighbours are often on one page.
        unknown.sort_unstable_by(|a, b| keys[*a].cmp(keys[*b]));
        let mut page = None;
        for i in unknown {
            images[i] = self.base.get(table, keys[i].as_bytes(), &mut page)?;
        }
        Ok(images)
    }

    /// What the tiers above the base say of a row.
    fn changed(&self, table: u32, key: &[u8]) -> Option<Option<Bytes>> {
        self.tiers().find_map(|tier| tier.get(table, key))
    }

    /// The tiers above the base, the one that has the last word first.
    fn tiers(&self) -> impl Iterator<Item = &Overlay> {
        [Some(&self.active), self.sealed.as_deref()].into_iter().flatten()
    }

    /// Rows in the order of their keys, after the given one.
    pub(crate) fn scan(
        &self,
        table: u32,
        after: Option<&[u8]>,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let mut overlays = Vec::new();
        let mut is_whole = false;
        for overlay in self.tiers() {
            if is_whole {
                break;
            }
            if let Some(rows) = overlay.tables.get(&table) {
                is_whole |= rows.is_whole;
                let range = match after {
                    Some(after) => rows.rows.range::<_, [u8]>((Bound::Excluded(after), Bound::Unbounded)),
                    None => rows.rows.range::<_, [u8]>(..),
                };
                overlays.push(range.peekable());
            }
        }
        let mut base: Peekable<BaseRows> =
            if is_whole { BaseRows::none() } else { self.base.scan(table, after)? }.peekable();

        let mut found = Vec::new();
        let mut bytes = 0;
        let max_rows = max_rows.max(1);
        loop {
            let mut smallest = match base.peek() {
                Some(Ok(row)) => Some(row.key.clone()),
                Some(Err(error)) => return Err(error.clone()),
                None => None,
            };
            for overlay in &mut overlays {
                if let Some((key, _)) = overlay.peek()
                    && smallest.as_ref().is_none_or(|smallest| *key < smallest)
                {
                    smallest = Some((*key).clone());
                }
            }
            let Some(key) = smallest else { break };
            let mut image = match base.next_if(|row| row.as_ref().is_ok_and(|row| row.key == key)) {
                Some(row) => Some(row?.image),
                None => None,
            };
            // The upper tier has the last word.
            for overlay in overlays.iter_mut().rev() {
                if let Some((_, changed)) = overlay.next_if(|(candidate, _)| **candidate == key) {
                    image = changed.clone();
                }
            }
            let Some(image) = image else { continue };
            bytes += image.len();
            found.push(Row { key, image });
            if found.len() >= max_rows || bytes > max_bytes {
                break;
            }
        }
        Ok(found)
    }
}
