//! Which rows of a table that is being read may lack values that nobody told. Pure.
//!
//! The log does not repeat values stored out of line that did not change. A row that keeps its key is read whole, or
//! completed from what is read (`window.rs`), in whichever part of the table it is. One that gets another key may come to
//! where the reader has been, from where it has not: it counts as lacking until it is told whole or read, and while a
//! row lacks something the table is read once more for its sake. This is known of the table and not of its parts, and
//! from the reading's beginning to its end, whether or not a part of it is being read.

use std::collections::HashSet;

use crate::change::{Action, Change};

/// Rows that came to keys that may have been read already, with values that nobody may know.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    rows: HashSet<Vec<String>>,
    /// Every other row is known whole: the table is read for these rows only.
    others_are_whole: bool,
    /// The row that the change before removed was lacking.
    removed: bool,
}

impl Lacking {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table has been read to its end.
    pub(super) fn read_once(&mut self) {
        self.others_are_whole = true;
    }

    /// The log told of a row, or of all of them.
    pub(super) fn note(&mut self, change: &Change) {
        let removed = std::mem::take(&mut self.removed);
        match change.action {
            Action::Truncate => self.rows.clear(),
            Action::Remove => self.removed = self.rows.remove(&change.key),
            Action::Replace if change.unchanged.is_empty() => {
                self.rows.remove(&change.key);
            }
            Action::Replace => {
                if change.previous_key.is_some() && (removed || !self.others_are_whole) {
                    self.rows.insert(change.key.clone());
                }
            }
            Action::Read => {}
        }
    }

    /// A row was read, and is whole: it is given back unless nobody needs it.
    pub(super) fn read(&mut self, read: Change) -> Option<Change> {
        let was_lacking = !self.rows.is_empty() && self.rows.remove(&read.key);
        (was_lacking || !self.others_are_whole).then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::tests::{change, moved, read};
    use super::*;

    fn lacking(lacking: &Lacking) -> Vec<&str> {
        lacking.rows.iter().map(|key| key[0].as_str()).collect()
    }

    #[test]
    fn a_row_that_moved_is_lacking_until_it_is_told_whole_read_or_gone() {
        let mut rows = Lacking::default();
        let moves = |from: &str, to: &str, rows: &mut Lacking| moved(from, to).iter().for_each(|c| rows.note(c));
        moves("9", "1", &mut rows);
        assert_eq!(lacking(&rows), ["1"]);
        moves("1", "2", &mut rows);
        assert_eq!(lacking(&rows), ["2"]);
        rows.note(&change(Action::Replace, "2", r#"{"id":2}"#, &["big"]));
        assert_eq!(lacking(&rows), ["2"], "its values are as unknown as before");
        rows.note(&change(Action::Replace, "2", r#"{"id":2,"big":"b"}"#, &[]));
        assert!(rows.is_empty());
        moves("9", "1", &mut rows);
        assert_eq!(rows.read(read("1")), Some(read("1")));
        assert!(rows.is_empty());
        for gone in [change(Action::Remove, "1", "", &[]), change(Action::Truncate, "", "", &[])] {
            moves("9", "1", &mut rows);
            rows.note(&gone);
            assert!(rows.is_empty(), "{gone:?}");
        }
    }

    #[test]
    fn a_table_is_read_once_more_for_the_rows_that_are_lacking_only() {
        let mut rows = Lacking::default();
        moved("9", "1").iter().for_each(|change| rows.note(change));
        rows.read_once();
        // It moves on, and another row moves that is known whole.
        for (from, to) in [("1", "2"), ("5", "6")] {
            moved(from, to).iter().for_each(|change| rows.note(change));
        }
        assert_eq!(rows.read(read("6")), None);
        assert_eq!(rows.read(read("2")), Some(read("2")));
        assert!(rows.is_empty());
    }
}
