//! The rows that a batch is about, each once, and how they look as the batch goes on.

use hashbrown::HashTable;
use std::hash::{Hash, Hasher};

use crate::store::{Store, StoreError};
use crate::texts::{Span, Texts};

/// The rows of a batch.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) slots: Vec<Slot>,
    /// Places in `slots`, by table and key.
    index: HashTable<usize>,
    /// The keys, end to end.
    pub(crate) keys: String,
    /// What was read of each table.
    pub(crate) found: Vec<Texts>,
}

/// One row.
pub(crate) struct Slot {
    pub(crate) table: usize,
    /// From and to where in the keys.
    key: (usize, usize),
    pub(crate) image: SlotImage,
    /// What it was when the batch last removed it.
    pub(crate) removed: SlotImage,
}

/// Where a row's image is.
#[derive(Clone, Copy)]
pub(crate) enum SlotImage {
    /// There is no row.
    None,
    /// Among what was read of its table.
    Read(Span),
    /// Among what is to be written, by an earlier change of the batch.
    Written(Span),
}

fn hash(table: usize, key: &str) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    (table, key).hash(&mut hasher);
    hasher.finish()
}

impl Rows {
    pub(crate) fn with_capacity(changes: usize) -> Self {
        Self { slots: Vec::with_capacity(changes), index: HashTable::with_capacity(changes), ..Self::default() }
    }

    /// The place of a row.
    pub(crate) fn slot(&mut self, table: usize, key: &str) -> usize {
        let Self { slots, index, keys, .. } = self;
        let found = index.entry(
            hash(table, key),
            |&slot| slots[slot].table == table && key_of(keys, &slots[slot]) == key,
            |&slot| hash(slots[slot].table, key_of(keys, &slots[slot])),
        );
        match found {
            hashbrown::hash_table::Entry::Occupied(found) => *found.get(),
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                vacant.insert(slots.len());
                let start = keys.len();
                keys.push_str(key);
                let key = (start, keys.len());
                slots.push(Slot { table, key, image: SlotImage::None, removed: SlotImage::None });
                slots.len() - 1
            }
        }
    }

    /// Reads every row, with one call for each table. `tables` are the tables' names by place; a table without one has
    /// no rows yet.
    pub(crate) fn read<S: Store>(&mut self, store: &S, tables: &[Option<&str>]) -> Result<(), StoreError> {
        let mut of_table: Vec<Vec<usize>> = vec![Vec::new(); tables.len()];
        for (place, slot) in self.slots.iter().enumerate() {
            of_table[slot.table].push(place);
        }
        self.found.resize_with(tables.len(), Texts::default);
        for (table, places) in of_table.iter().enumerate() {
            let Some(name) = tables[table].filter(|_| !places.is_empty()) else { continue };
            let mut texts = Texts::with_capacity(self.keys.len());
            let keys = places.iter().map(|&place| texts.push(key_of(&self.keys, &self.slots[place])));
            let keys: Vec<Span> = keys.collect();
            let found = store.rows(name, keys, texts)?;
            if found.images.len() != places.len() {
                let (asked, given) = (places.len(), found.images.len());
                return Err(StoreError::Failed(format!("asked for {asked} rows, given {given}")));
            }
            for (&place, image) in places.iter().zip(found.images) {
                self.slots[place].image = image.map_or(SlotImage::None, SlotImage::Read);
            }
            self.found[table] = found.texts;
        }
        Ok(())
    }

    /// How many bytes were read.
    pub(crate) fn found_bytes(&self) -> usize {
        self.found.iter().map(Texts::len).sum()
    }

    /// A table has lost all of its rows.
    pub(crate) fn clear(&mut self, table: usize) {
        for slot in self.slots.iter_mut().filter(|slot| slot.table == table) {
            slot.image = SlotImage::None;
        }
    }
}

/// A row's key, among all of them.
pub(crate) fn key_of<'a>(keys: &'a str, slot: &Slot) -> &'a str {
    &keys[slot.key.0..slot.key.1]
}
