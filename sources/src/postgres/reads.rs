//! Which table is read next, and where its rows are put into the log: the follower's side of reading.
//!
//! A table is `Waiting`, then `Reading` from its `ReadBegan` on, then `Following`. The reader (`read.rs`) reads one
//! table at a time, in chunks; what it reads is put out here as soon as the log has reached the chunk's place. Where
//! the chunk turns out to be of no use (its snapshot is too early, the table's form changed, too much changed to be
//! remembered) the reading goes on anew from the last row that was handed out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::catalog::{Defined, Published};
use super::checkpoint::{ReadState, TableMark};
use super::decode::Decoder;
use super::lsn::Lsn;
use super::queue::{Said, Shared};
use super::read::Task;
use super::shape::Shape;
use super::window::{Lacking, Snapshot, Window};
use crate::change::{Change, Step};
use crate::feed::{FeedError, Reason};

/// So many changed rows of the table being read are remembered.
const WINDOW_ROWS_MAX: usize = 200_000;

/// The chunk whose rows come now.
struct Chunk {
    snapshot: Snapshot,
    shape: Arc<Shape>,
}

/// The state of reading.
pub(super) struct Reads {
    shared: Arc<Shared>,
    reader: Sender<Task>,
    reading: Option<u32>,
    chunk: Option<Chunk>,
    /// The chunk that waits for the log to reach this place.
    awaited: Option<Lsn>,
    /// Tables that the catalog does not have as the log knows them: nothing can begin with them before the next look.
    postponed: BTreeSet<u32>,
    /// Nothing new can begin before somebody looks again.
    settled: bool,
}

impl Reads {
    pub(super) fn new(shared: Arc<Shared>, reader: Sender<Task>) -> Reads {
        Reads { shared, reader, reading: None, chunk: None, awaited: None, postponed: BTreeSet::new(), settled: false }
    }

    /// Whether rows wait for the log to reach their place, so that the server should be asked where it is.
    pub(super) fn wants_to_know_place(&self) -> bool {
        self.awaited.is_some() || self.shared.look_waits_for().is_some()
    }

    /// Does one thing, between two transactions. False if there is nothing to do now.
    pub(super) fn take_one(&mut self, decoder: &mut Decoder) -> Result<bool, FeedError> {
        self.look_after(decoder);
        if self.reading.is_none() && !self.settled {
            return self.begin_next(decoder);
        }
        let position = decoder.position();
        let task = self.shared.task();
        let mut awaited = None;
        let said = self.shared.hear(|said| match said {
            Said::ChunkBegan { task: of, place, .. } if *of == task && *place > position => {
                awaited = Some(*place);
                false
            }
            _ => true,
        });
        self.awaited = awaited;
        let Some(said) = said else { return Ok(false) };
        match said {
            Said::Failed(error) => return Err(error),
            Said::ChunkBegan { task: of, .. }
            | Said::Rows { task: of, .. }
            | Said::ChunkEnded { task: of }
            | Said::TableEnded { task: of }
            | Said::TableGone { task: of }
            | Said::TableStopped { task: of, .. }
                if of != task => {}
            Said::ChunkBegan { snapshot, found, defined, place, .. } => {
                self.chunk_began(decoder, snapshot, place, &found, &defined);
            }
            Said::Rows { rows, last, .. } => self.rows(decoder, rows, last),
            Said::ChunkEnded { .. } => {
                if let (Some(chunk), Some((_, window))) = (self.chunk.take(), &mut decoder.window) {
                    window.forget(&chunk.snapshot);
                }
            }
            Said::TableEnded { .. } => self.table_ended(decoder),
            Said::TableGone { .. } => {
                if let Some(oid) = self.reading {
                    self.call_off(decoder);
                    self.postponed.insert(oid);
                    self.shared.ask_for_look();
                }
            }
            Said::TableStopped { reason, .. } => {
                if let Some(oid) = self.reading {
                    self.call_off(decoder);
                    decoder.stop_table(oid, reason);
                }
            }
        }
        Ok(true)
    }

    /// What the decoder noticed, and what a look at the catalog showed.
    fn look_after(&mut self, decoder: &mut Decoder) {
        if let Some(look) = self.shared.take_look(decoder.position()) {
            decoder.apply_look(look);
            self.postponed.clear();
            self.settled = false;
        }
        for oid in std::mem::take(&mut decoder.called_off) {
            if self.reading == Some(oid) {
                self.call_off(decoder);
            }
            self.settled = false;
        }
        if std::mem::take(&mut decoder.reshaped) {
            self.restart(decoder);
        }
        if decoder.window.as_ref().is_some_and(|(_, window)| window.is_full()) || decoder.holds_too_much() {
            self.restart(decoder);
        }
    }

    /// The table is not read any more.
    fn call_off(&mut self, decoder: &mut Decoder) {
        self.shared.next_task();
        self.reading = None;
        self.chunk = None;
        decoder.window = None;
        decoder.appending = None;
        self.settled = false;
    }

    /// Begins with the next table that waits, or goes on with the one that was being read before a restart.
    fn begin_next(&mut self, decoder: &mut Decoder) -> Result<bool, FeedError> {
        let find = |state| {
            let is_next =
                |mark: &&TableMark| mark.state == state && !mark.unnamed && !self.postponed.contains(&mark.oid);
            decoder.tables.values().find(is_next).map(|mark| mark.oid)
        };
        let Some(oid) = find(ReadState::Reading).or_else(|| find(ReadState::Waiting)) else {
            self.settled = true;
            return Ok(false);
        };
        let found = decoder.catalog.find(oid).map_err(|error| error.into_feed("look up a table"))?;
        let is_same = |published: &Published| {
            decoder
                .tables
                .get(&oid)
                .is_some_and(|mark| (&mark.namespace, &mark.relation) == (&published.namespace, &published.relation))
        };
        let shape = match found.map(|found| (found.published, found.form)) {
            Some((published, Ok(defined))) if is_same(&published) => defined.shape,
            Some((published, Err(reason))) if is_same(&published) => {
                decoder.refuse(oid, &published.namespace, &published.relation, reason);
                return Ok(true);
            }
            // Gone, or called otherwise: the log is not that far yet, and the catalog will tell when it is.
            _ => {
                self.postponed.insert(oid);
                self.shared.ask_for_look();
                return Ok(true);
            }
        };
        let estimate = decoder.catalog.estimate(oid).map_err(|error| error.into_feed("look up a table"))?;
        decoder.rows_estimated.insert(oid, estimate);
        self.reading = Some(oid);
        let mut begins = false;
        if let Some(mark) = decoder.tables.get_mut(&oid) {
            if shape.table.is_append_only() {
                // From its beginning, in a snapshot that sees all that was passed over.
                (mark.state, mark.late) = (ReadState::Waiting, true);
            }
            if mark.state == ReadState::Reading && mark.key != shape.table.key {
                mark.state = ReadState::Waiting;
                mark.after = None;
            }
            if mark.again {
                // Which rows lacked something was known before the restart only.
                mark.again = false;
                mark.after = None;
            }
            mark.key.clone_from(&shape.table.key);
            if mark.state == ReadState::Waiting {
                mark.state = ReadState::Reading;
                mark.definition = None;
                decoder.rows_read.remove(&oid);
                begins = true;
            }
            decoder.tables_changed();
        }
        // Of a reading that goes on the first chunk says how the table looks, against how its rows look that are stored.
        if begins {
            decoder.begin_undefined(oid);
            decoder.describe(oid, &shape.table);
            if !shape.table.is_append_only() {
                decoder.out.push(Step::ReadBegan(shape.table.clone()));
            }
        }
        self.start(decoder, oid, Lacking::default());
        Ok(true)
    }

    /// Has the reader go on after the last row that was handed out, in a new window.
    fn start(&mut self, decoder: &mut Decoder, oid: u32, lacking: Lacking) {
        self.chunk = None;
        // The window begins before the reader takes its snapshot.
        decoder.window = Some((oid, Window::new(decoder.recent(), WINDOW_ROWS_MAX, lacking)));
        decoder.await_snapshot(oid);
        let Some(mark) = decoder.tables.get(&oid) else { return };
        let number = self.shared.next_task();
        let task = Task { number, oid, after: mark.after.clone(), key: mark.key.clone(), late: mark.late };
        // A reader that died has said why.
        let _ = self.reader.send(task);
    }

    fn restart(&mut self, decoder: &mut Decoder) {
        if let Some(oid) = self.reading {
            let lacking = decoder.window.take().map(|(_, window)| window.into_lacking()).unwrap_or_default();
            self.start(decoder, oid, lacking);
        }
    }

    fn chunk_began(
        &mut self,
        decoder: &mut Decoder,
        snapshot: Snapshot,
        place: Lsn,
        published: &Published,
        defined: &Defined,
    ) {
        let Some(oid) = self.reading else { return };
        if decoder.window.as_ref().is_some_and(|(_, window)| window.is_too_early(&snapshot)) {
            // Whoever waits for its standby is waited for, without being asked all the time.
            std::thread::sleep(std::time::Duration::from_millis(10));
            self.restart(decoder);
            return;
        }
        let Defined { shape, definition } = defined;
        let Some(mark) = decoder.tables.get_mut(&oid) else { return };
        let stamp = definition.stamp(&decoder.options.rules);
        let is_renamed = (&mark.namespace, &mark.relation) != (&published.namespace, &published.relation);
        if is_renamed || mark.definition.as_ref() != Some(&stamp) {
            // A look that began before is older than this.
            decoder.redefined_at = decoder.redefined_at.max(place);
        }
        if is_renamed {
            decoder.rename(&[(oid, published.namespace.clone(), published.relation.clone())]);
            return;
        }
        if mark.key != shape.table.key {
            decoder.read_anew(oid, Reason::new("key-changed", "its key is another one"));
            return;
        }
        match &mark.definition {
            None => {
                let heard = decoder.undefined.remove(&oid).unwrap_or_default();
                let is_other = |(columns, key, at): &(u64, Vec<String>, Lsn)| {
                    // Before the chunk's place it was an older one.
                    *at > place && (*columns, key) != (stamp.columns(), &shape.table.key)
                };
                if heard.told.as_ref().is_some_and(is_other) {
                    // The log has told rows of a newer form already: another chunk will have that.
                    decoder.undefined.insert(oid, heard);
                    self.restart(decoder);
                    return;
                }
                if heard.was_looked_at {
                    // The look may have been newer than the chunk is.
                    self.shared.ask_for_look();
                }
                mark.definition = Some(stamp);
                decoder.members.insert(oid, definition.members.clone());
                decoder.tables_changed();
            }
            Some(known) if *known == stamp => {}
            Some(_) => {
                decoder.redefine(oid, shape, definition);
                if decoder.reshaped || decoder.called_off.contains(&oid) {
                    return;
                }
            }
        }
        decoder.describe(oid, &shape.table);
        if !decoder.begin_appending(oid, &snapshot) {
            self.restart(decoder);
            return;
        }
        self.chunk = Some(Chunk { snapshot, shape: shape.clone() });
    }

    fn rows(&mut self, decoder: &mut Decoder, rows: Vec<Change>, last: Vec<String>) {
        let (Some(oid), Some(chunk)) = (self.reading, &self.chunk) else { return };
        // The log may have described another form since the chunk began; its rows are of the chunk's.
        decoder.describe(oid, &chunk.shape.table);
        *decoder.rows_read.entry(oid).or_default() += rows.len() as u64;
        if let Some((_, window)) = &mut decoder.window {
            for row in rows {
                if let Some(row) = window.judge(&chunk.snapshot, row) {
                    decoder.out.push(Step::Change(row));
                }
            }
            let lacking = !window.lacking().is_empty();
            if let Some(mark) = decoder.tables.get_mut(&oid) {
                mark.after = (!last.is_empty()).then_some(last);
                mark.again = lacking;
            }
        }
        decoder.tables_changed();
    }

    fn table_ended(&mut self, decoder: &mut Decoder) {
        let Some(oid) = self.reading else { return };
        let mut lacking = decoder.window.take().map(|(_, window)| window.into_lacking()).unwrap_or_default();
        let Some(mark) = decoder.tables.get_mut(&oid) else { return };
        mark.after = None;
        mark.late = false;
        if !lacking.is_empty() {
            lacking.read_once();
            self.start(decoder, oid, lacking);
            decoder.tables_changed();
            return;
        }
        mark.again = false;
        mark.reason = None;
        mark.state = ReadState::Following;
        self.reading = None;
        decoder.appending = None;
        self.settled = false;
        if let Some(table) = decoder.described(oid) {
            decoder.out.push(Step::ReadDone(table));
        }
        decoder.tables_changed();
    }
}
