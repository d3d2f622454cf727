//! Rows without a key that are read anew: no id tells which of them are here already, so they are compared by what they
//! hold. Of rows that are alike as many stay as were read, whichever; the others go, and what is lacking comes.
//!
//! What a row holds is remembered by 128 bits of its hash, as keys are (`reading.rs`).

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use cdc_sources::keyless::content;
use cdc_sources::{Change, Step};
use xxhash_rust::xxh3::xxh3_128;

use super::reading::Spread;
use super::stored;
use crate::store::{StoreError, View};

/// What rows of before hold, and how many of each were not read again yet.
#[derive(Debug, Default)]
pub(super) struct Contents(HashMap<u128, u32, BuildHasherDefault<Spread>>);

impl Contents {
    /// Those of the rows that are stored.
    pub(super) fn stored(view: &dyn View, table: &str) -> Result<Self, StoreError> {
        let mut contents = Self::default();
        let mut after: Option<String> = None;
        loop {
            let rows = stored::page(view, table, after.as_deref())?;
            let Some(last) = rows.last() else { break };
            after = Some(String::from_utf8_lossy(&last.key).into_owned());
            rows.iter().for_each(|row| contents.count(&row.key, &row.image));
        }
        Ok(contents)
    }

    /// A change on its way after them, from before the reading.
    pub(super) fn add(&mut self, change: &Change) {
        match (&change.image, change.key.as_slice()) {
            (Some(image), [key]) => self.count(key.as_bytes(), image.as_bytes()),
            (None, []) => self.clear(),
            _ => {}
        }
    }

    fn count(&mut self, key: &[u8], image: &[u8]) {
        if let Some(hash) = hash_of(key, image) {
            *self.0.entry(hash).or_default() += 1;
        }
    }

    /// Every row of before is gone.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether a row that was read is one of before.
    pub(super) fn has(&mut self, read: &Change) -> bool {
        let (Some(image), [key]) = (&read.image, read.key.as_slice()) else { return false };
        hash_of(key.as_bytes(), image.as_bytes()).is_some_and(|hash| self.take(hash))
    }

    /// At the end, whether a row of before was not read again: it has no id, or there are more of its kind than were read.
    pub(super) fn lacks(&mut self, key: &[u8], image: &[u8]) -> bool {
        hash_of(key, image).is_none_or(|hash| self.take(hash))
    }

    fn take(&mut self, hash: u128) -> bool {
        match self.0.get_mut(&hash) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }
}

/// The changes of one table among steps, but for those that were left out.
pub(super) fn changes_of<'s>(
    steps: &'s [Step],
    table: &'s str,
    left_out: &'s [usize],
) -> impl Iterator<Item = &'s Change> {
    steps.iter().enumerate().filter_map(move |(at, step)| match step {
        Step::Change(change) if change.table.name == table && left_out.binary_search(&at).is_err() => Some(change),
        _ => None,
    })
}

/// None of a row that has no id.
fn hash_of(key: &[u8], image: &[u8]) -> Option<u128> {
    let (key, image) = (std::str::from_utf8(key).ok()?, std::str::from_utf8(image).ok()?);
    content(image, key).map(|content| xxh3_128(content.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, n: u32) -> String {
        format!(r#"{{"_row":"{id}","n":{n}}}"#)
    }

    #[test]
    fn of_rows_that_are_alike_as_many_stay_as_were_read() {
        let mut contents = Contents::default();
        for (id, n) in [("a", 1), ("b", 1), ("c", 1), ("d", 2)] {
            contents.count(id.as_bytes(), row(id, n).as_bytes());
        }
        let table = crate::source::scripted::table("t");
        let mut read = |id: &str, n| {
            let change = crate::source::scripted::change(&table, cdc_sources::Action::Read, id);
            contents.has(&Change { image: Some(row(id, n)), ..change })
        };
        assert_eq!([read("1", 1), read("2", 1), read("3", 3)], [true, true, false]);
        let lacks = ["a", "b", "c"].map(|id| contents.lacks(id.as_bytes(), row(id, 1).as_bytes()));
        assert_eq!(lacks.iter().filter(|lacks| **lacks).count(), 1);
        assert!(contents.lacks(b"d", row("d", 2).as_bytes()));
        assert!(contents.lacks(b"7", br#"{"id":7}"#), "it was captured when the table had a key");
    }
}
