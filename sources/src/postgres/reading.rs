//! What is known of a table while its rows are read, beside its mark: from its `ReadBegan` to its end, whether or not
//! anybody is at it.

use std::collections::BTreeMap;

use super::decode::Decoder;
use super::lacking::Lacking;
use super::window::{Committed, Snapshot, Window};
use crate::change::Change;

/// A table that is being read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) lacking: Lacking,
    /// What the log told while each lane reads a part of it. Every window has all of the table's rows: a row may come
    /// from any part to any other.
    windows: BTreeMap<usize, Window>,
    /// Its first chunk was taken: writers of before have been waited for, and its definition is known.
    pub(super) has_begun: bool,
    /// Whether it is read in parts has been decided.
    pub(super) is_split: bool,
    /// It changes so much that it is read by one lane only.
    pub(super) is_narrow: bool,
}

impl Reading {
    /// A lane begins with a part of it.
    pub(super) fn open(&mut self, lane: usize, window: Window) {
        self.windows.insert(lane, window);
    }

    /// A lane has left it.
    pub(super) fn close(&mut self, lane: usize) {
        self.windows.remove(&lane);
    }

    pub(super) fn window(&mut self, lane: usize) -> Option<&mut Window> {
        self.windows.get_mut(&lane)
    }

    /// The lanes that are at it, and how many rows each remembers.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.windows.iter().map(|(lane, window)| (*lane, window.rows()))
    }

    /// The log told of a row, or of all of them.
    pub(super) fn note(&mut self, by: Committed, change: &Change) {
        self.lacking.note(change);
        self.windows.values_mut().for_each(|window| window.note(by, change));
    }

    /// What becomes of a row that a lane has read in this snapshot.
    pub(super) fn judge(&mut self, lane: usize, snapshot: &Snapshot, read: Change) -> Option<Change> {
        let judged = self.windows.get(&lane)?.judge(snapshot, read)?;
        self.lacking.read(judged)
    }
}

impl Decoder {
    /// A table is not read any more.
    pub(super) fn end_reading(&mut self, oid: u32) {
        self.readings.remove(&oid);
        self.appending.take_if(|reading| reading.oid == oid);
    }
}
