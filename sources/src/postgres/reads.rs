//! Which table is read next, and where its rows are put into the log: the follower's side of reading.
//!
//! A table is `Waiting`, then `Reading` from its `ReadBegan` on, then `Following`. The reader (`read.rs`) reads one
//! table at a time, in chunks; what it reads is put out here as soon as the log has reached the chunk's place. Where
//! the chunk turns out to be of no use (its snapshot is too early, the table's form changed, too much changed to be
//! remembered) the reading goes on anew from the last row that was handed out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::catalog::Published;
use super::checkpoint::{ReadState, TableMark};
use super::decode::Decoder;
use super::lsn::Lsn;
use super::queue::{Said, Shared};
use super::read::Task;
use super::shape::Shape;
use super::window::{Lacking, Snapshot, Window};
use crate::change::{Change, Step};
use crate::feed::FeedError;

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
    /// Nothing new can begin before somebody looks again.
    settled: bool,
}

impl Reads {
    pub(super) fn new(shared: Arc<Shared>, reader: Sender<Task>) -> Reads {
        Reads { shared, reader, reading: None, chunk: None, awaited: None, settled: false }
    }

    /// Whether rows wait for the log to reach their place, so that the server should be asked where it is.
    pub(super) fn wants_to_know_place(&self) -> bool {
        self.awaited.is_some()
    }

    /// Does one thing, between two transactions. False if there is nothing to do now.
    pub(super) fn take_one(&mut self, decoder: &mut Decoder) -> Result<bool, FeedError> {
        self.look_after(decoder)?;
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
            Said::Tables(published) => self.compare(decoder, published),
            Said::ChunkBegan { task: of, .. }
            | Said::Rows { task: of, .. }
            | Said::ChunkEnded { task: of }
            | Said::TableEnded { task: of }
            | Said::TableGone { task: of }
                if of != task => {}
            Said::ChunkBegan { snapshot, shape, .. } => self.chunk_began(decoder, snapshot, shape),
            Said::Rows { rows, last, .. } => self.rows(decoder, rows, last),
            Said::ChunkEnded { .. } => {
                if let (Some(chunk), Some((_, window))) = (self.chunk.take(), &mut decoder.window) {
                    window.forget(&chunk.snapshot);
                }
            }
            Said::TableEnded { .. } => self.table_ended(decoder),
            Said::TableGone { .. } => {
                if let Some(oid) = self.reading.take() {
                    decoder.tables.remove(&oid);
                    decoder.window = None;
                    self.settled = false;
                    decoder.tables_changed();
                }
            }
        }
        Ok(true)
    }

    /// What the decoder noticed.
    fn look_after(&mut self, decoder: &mut Decoder) -> Result<(), FeedError> {
        if !decoder.unknown.is_empty() {
            for oid in std::mem::take(&mut decoder.unknown) {
                let known = decoder.catalog.published(Some(oid));
                // Gone again already, if the catalog does not know it.
                for table in known.map_err(|error| error.into_feed("look up a new table"))? {
                    self.add(decoder, &table);
                }
            }
            decoder.tables_changed();
        }
        for oid in std::mem::take(&mut decoder.rekeyed) {
            self.read_anew(decoder, oid);
        }
        if std::mem::take(&mut decoder.reshaped) {
            self.restart(decoder);
        }
        if decoder.window.as_ref().is_some_and(|(_, window)| window.is_full()) {
            self.restart(decoder);
        }
        Ok(())
    }

    /// Compares what is published with what is known.
    fn compare(&mut self, decoder: &mut Decoder, published: Vec<Published>) {
        let now: BTreeSet<u32> = published.iter().map(|table| table.oid).collect();
        let gone: Vec<u32> = decoder.tables.keys().copied().filter(|oid| !now.contains(oid)).collect();
        let mut changed = !gone.is_empty();
        for oid in gone {
            decoder.tables.remove(&oid);
            if self.reading == Some(oid) {
                self.shared.next_task();
                self.reading = None;
                self.chunk = None;
                decoder.window = None;
                self.settled = false;
            }
        }
        for table in published {
            match decoder.tables.get(&table.oid) {
                None if table.key.is_some() => {
                    self.add(decoder, &table);
                    changed = true;
                }
                // Without a key it waits until it has one, or until a change of it comes, which is an error.
                _ => {}
            }
        }
        if changed {
            decoder.tables_changed();
        }
    }

    fn add(&mut self, decoder: &mut Decoder, table: &Published) {
        let read = decoder.options.snapshot;
        decoder.tables.entry(table.oid).or_insert_with(|| TableMark {
            oid: table.oid,
            namespace: table.namespace.clone(),
            relation: table.relation.clone(),
            key: table.key.clone().unwrap_or_default(),
            state: if read { ReadState::Waiting } else { ReadState::Following },
            after: None,
            // Somebody may have written to it before it was published, and not be done yet.
            late: true,
            again: false,
        });
        self.settled = false;
    }

    fn read_anew(&mut self, decoder: &mut Decoder, oid: u32) {
        if let Some(mark) = decoder.tables.get_mut(&oid) {
            mark.state = ReadState::Waiting;
            mark.after = None;
        }
        if self.reading == Some(oid) {
            self.shared.next_task();
            self.reading = None;
            self.chunk = None;
            decoder.window = None;
        }
        self.settled = false;
        decoder.tables_changed();
    }

    /// Begins with the next table that waits, or goes on with the one that was being read before a restart.
    fn begin_next(&mut self, decoder: &mut Decoder) -> Result<bool, FeedError> {
        let find = |state| decoder.tables.values().find(|mark| mark.state == state).map(|mark| mark.oid);
        let Some(oid) = find(ReadState::Reading).or_else(|| find(ReadState::Waiting)) else {
            self.settled = true;
            return Ok(false);
        };
        let found = decoder.catalog.published(Some(oid)).map_err(|error| error.into_feed("look up a table"))?.pop();
        let Some(table) = found else {
            decoder.tables.remove(&oid);
            decoder.tables_changed();
            return Ok(true);
        };
        let shape = match decoder.catalog.shape_of(&table) {
            Ok(shape) => shape,
            // Dropped between two looks, or without a key that a change could name.
            Err(error) if error.code == "no-key" && decoder.options.skip_tables_without_key => {
                decoder.tables.remove(&oid);
                decoder.tables_changed();
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        self.reading = Some(oid);
        decoder.describe(oid, &shape.table);
        if let Some(mark) = decoder.tables.get_mut(&oid) {
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
                decoder.out.push(Step::ReadBegan(shape.table.clone()));
            }
            decoder.tables_changed();
        }
        self.start(decoder, oid, Lacking::default());
        Ok(true)
    }

    /// Has the reader go on after the last row that was handed out, in a new window.
    fn start(&mut self, decoder: &mut Decoder, oid: u32, lacking: Lacking) {
        let Some(mark) = decoder.tables.get(&oid) else { return };
        self.chunk = None;
        // The window begins before the reader takes its snapshot.
        decoder.window = Some((oid, Window::new(decoder.recent(), WINDOW_ROWS_MAX, lacking)));
        let task = Task { number: self.shared.next_task(), oid, after: mark.after.clone(), late: mark.late };
        // A reader that died has said why.
        let _ = self.reader.send(task);
    }

    fn restart(&mut self, decoder: &mut Decoder) {
        if let Some(oid) = self.reading {
            let lacking = decoder.window.take().map(|(_, window)| window.into_lacking()).unwrap_or_default();
            self.start(decoder, oid, lacking);
        }
    }

    fn chunk_began(&mut self, decoder: &mut Decoder, snapshot: Snapshot, shape: Arc<Shape>) {
        let Some(oid) = self.reading else { return };
        if decoder.window.as_ref().is_some_and(|(_, window)| window.is_too_early(&snapshot)) {
            // Whoever waits for its standby is waited for, without being asked all the time.
            std::thread::sleep(std::time::Duration::from_millis(10));
            self.restart(decoder);
            return;
        }
        if decoder.tables.get(&oid).is_some_and(|mark| mark.key != shape.table.key) {
            self.read_anew(decoder, oid);
            return;
        }
        decoder.describe(oid, &shape.table);
        self.chunk = Some(Chunk { snapshot, shape });
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
                mark.after = Some(last);
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
        mark.state = ReadState::Following;
        self.reading = None;
        self.settled = false;
        if let Some(table) = decoder.described(oid) {
            decoder.out.push(Step::ReadDone(table));
        }
        decoder.tables_changed();
    }
}
