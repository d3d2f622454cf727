//! Tables without a key that are captured as rows that are only ever inserted.
//!
//! There is no key to go on after, and none by which a row that was read and a row that the log told could be known to be
//! one. So such a table is read in one snapshot S, at one place P of the log, and what the log tells of it before P is
//! not handed out where it stands: what S sees is in what is read, and is passed over; what S does not see (known only
//! once S has been taken, so it is kept until then) is handed out at P, before the rows that were read. What comes after
//! P is unseen by S, and is handed out as it comes. A restart before the end reads the table from its beginning.
//!
//! Rows are taken in as fast as the server gives them (`spool.rs`), so that no transaction stays open for a slow taker,
//! and nobody who waits for its lock is waited for.
//!
//! On a standby it is not known which transactions S sees, and such a table is not read there.

use super::catalog::Published;
use super::checkpoint::{Origin, ReadState};
use super::decode::Decoder;
use super::definition::digest;
use super::lsn::Lsn;
use super::portion::bytes_of;
use super::queue::Said;
use super::read::{Chunk, Line, PIECE_BYTES, Piece, Reader, not_utf8};
use super::shape::Shape;
use super::window::{Committed, Snapshot};
use super::wire::{WireError, identifier};
use crate::change::{Action, Change, Step, Table};
use crate::feed::{FeedError, Reason, Remedy};
use crate::keyless::{identify, rows_changed};
use crate::spool::Spool;

/// How much is kept of what the log tells while it is not known what the snapshot sees; beyond it another one is taken.
const HELD_BYTES_MAX: usize = 32 << 20;

/// How many bytes of rows are taken in between two looks at whether anybody still wants them.
const LOOK_BYTES: usize = 1 << 20;

/// What every id begins with: rows of another server, or of one that was set back, get others.
pub(super) fn id_prefix(Origin { system, timeline, database, .. }: &Origin) -> String {
    format!("{:08x}", digest(&format!("{system} {timeline} {database}")) >> 32)
}

/// The table without a key that is being read.
#[derive(Debug)]
pub(super) struct Appending {
    pub(super) oid: u32,
    /// Its snapshot's place has been reached.
    has_begun: bool,
    /// What the log told before that.
    held: Vec<(Committed, Told)>,
    bytes: usize,
}

#[derive(Debug)]
enum Told {
    Row(Box<Change>),
    /// A row was changed or deleted, and nobody knows which.
    Changed,
}

/// What becomes of what the log tells of such a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    HandedOut,
    Held,
    /// It was handed out before a restart, or will be read.
    PassedOver,
}

impl Appending {
    fn hold(&mut self, by: Committed, told: Told) {
        self.bytes += size_of::<(Committed, Told)>();
        if let Told::Row(change) = &told {
            self.bytes += bytes_of(change);
        }
        self.held.push((by, told));
    }
}

impl Decoder {
    fn fate(&self, relation: u32) -> Fate {
        let state = self.tables.get(&relation).map(|mark| mark.state);
        let reading = self.appending.as_ref().filter(|reading| reading.oid == relation);
        match (state, reading) {
            (Some(ReadState::Reading), Some(reading)) if !reading.has_begun => Fate::Held,
            // Before a restart.
            _ if self.is_skipping() => Fate::PassedOver,
            (Some(ReadState::Following), _) | (Some(ReadState::Reading), Some(_)) => Fate::HandedOut,
            _ => Fate::PassedOver,
        }
    }

    /// The log told of a new row of a table without a key.
    pub(super) fn append(&mut self, relation: u32, mut change: Change) {
        let Some((by, number)) = self.current_place() else { return };
        let id = format!("{}-{:016x}-{number:08x}", self.id_prefix, by.commit.0);
        if let Some(image) = &mut change.image {
            identify(image, &id);
        }
        change.key = vec![id];
        match (self.fate(relation), &mut self.appending) {
            (Fate::HandedOut, _) => {
                self.describe(relation, &change.table);
                self.out.push(Step::Change(change));
            }
            (Fate::Held, Some(reading)) => reading.hold(by, Told::Row(Box::new(change))),
            (Fate::Held | Fate::PassedOver, _) => {}
        }
    }

    /// The log told that a row of a table without a key was changed or deleted.
    pub(super) fn row_changed(&mut self, relation: u32, table: &Table) {
        let Some((by, number)) = self.current_place() else { return };
        match (self.fate(relation), &mut self.appending) {
            (Fate::HandedOut, _) => {
                let place = format!("{}/{number}", by.commit);
                self.stop_table(relation, rows_changed(&table.namespace, &table.relation, &place));
            }
            (Fate::Held, Some(reading)) => reading.hold(by, Told::Changed),
            (Fate::Held | Fate::PassedOver, _) => {}
        }
    }

    /// The log told that every row of a table is gone.
    pub(super) fn forget_held(&mut self, relation: u32) {
        if let Some(reading) = self.appending.as_mut().filter(|reading| reading.oid == relation) {
            reading.held.clear();
            reading.bytes = 0;
        }
    }

    /// A table's reading begins, as yet without a snapshot. One table without a key is read at a time.
    pub(super) fn await_snapshot(&mut self, oid: u32) {
        if self.described(oid).is_some_and(|table| table.is_append_only()) {
            self.appending = Some(Appending { oid, has_begun: false, held: Vec::new(), bytes: 0 });
        }
    }

    /// The table of which more was told than is kept: another snapshot sees it.
    pub(super) fn holds_too_much(&self) -> Option<u32> {
        self.appending.as_ref().filter(|reading| reading.bytes > HELD_BYTES_MAX).map(|reading| reading.oid)
    }

    /// The log has reached the place of a table's snapshot. False if another one has to be taken, because rows were
    /// changed since this one.
    pub(super) fn begin_appending(&mut self, oid: u32, snapshot: &Snapshot) -> bool {
        let Some(table) = self.described(oid) else { return true };
        let Some(reading) = self.appending.as_mut().filter(|reading| reading.oid == oid) else { return true };
        let unseen = |(by, _): &(Committed, Told)| !snapshot.sees(*by);
        if reading.held.iter().any(|told| unseen(told) && matches!(told.1, Told::Changed)) {
            return false;
        }
        let held = std::mem::take(&mut reading.held);
        reading.has_begun = true;
        reading.bytes = 0;
        self.rows_read.remove(&oid);
        // Whatever is known of it by now is of a reading that is over.
        self.out.push(Step::ReadBegan(table));
        for (_, told) in held.into_iter().filter(unseen) {
            if let Told::Row(change) = told {
                self.describe(oid, &change.table);
                self.out.push(Step::Change(*change));
            }
        }
        true
    }
}

/// Why a table can't be read where it is not known what a snapshot sees.
pub(super) fn on_standby(table: &Published) -> Reason {
    let message = format!(
        "the table {}.{} has no key, and on a standby it is not known which of its rows a reading finds and which the log \
         tells: let the url name the primary, or give the table a key, or exclude it",
        table.namespace, table.relation
    );
    Reason::new("standby", message)
}

impl Reader {
    /// Reads a whole table in the snapshot that was taken, whose place in the log is known.
    pub(super) fn whole(
        &mut self,
        number: u64,
        table: &Published,
        shape: &Shape,
        source: &str,
        place: Lsn,
    ) -> Result<Chunk, FeedError> {
        let doing =
            |error: WireError| error.into_feed(&format!("read the table {}.{}", table.namespace, table.relation));
        let columns: Vec<String> = shape.column_names().map(identifier).collect();
        let filter = table.filter.as_ref().map_or_else(String::new, |filter| format!(" WHERE ({filter})"));
        let sql = format!("COPY (SELECT {} FROM {source}{filter}) TO STDOUT", columns.join(", "));
        let folder = self.desk.options.spill_dir.clone();
        let disk = |error: std::io::Error| FeedError {
            remedy: Remedy::Retry,
            code: "disk",
            message: format!("rows of {} could not be kept in {}: {error}", table.relation, folder.display()),
            source: Some(error.into()),
        };
        let mut spool = Spool::new(&folder, self.desk.chunk_bytes());
        let connection = &mut self.catalog.connection;
        connection.copy_out(&sql).map_err(doing)?;
        let mut unlooked = 0;
        while let Some(line) = connection.copied().map_err(doing)? {
            spool.push(line).map_err(disk)?;
            unlooked += line.len();
            if unlooked > LOOK_BYTES {
                unlooked = 0;
                if !self.desk.shared.goes_on(number) {
                    self.reconnect()?;
                    return Ok(Chunk::CalledOff);
                }
            }
        }
        connection.query("COMMIT").map_err(doing)?;
        let mut spooled = spool.give_out().map_err(disk)?;
        let mut piece = Piece::default();
        let mut parsed = Line::default();
        let mut count: u64 = 0;
        while let Some(line) = spooled.next().map_err(disk)? {
            let cells = match parsed.cells(line, shape.width()) {
                Ok(cells) => cells,
                Err(error) => return Err(doing(not_utf8(line, shape).unwrap_or(error))),
            };
            let id = format!("{}-{:016x}-r{count:08x}", self.desk.id_prefix, place.0);
            let mut image = shape.image(&cells, None, &mut Vec::new());
            identify(&mut image, &id);
            piece.push(Change::unlogged(shape.table.clone(), Action::Read, vec![id], Some(image)));
            count += 1;
            if piece.bytes >= PIECE_BYTES {
                self.desk.shared.say(piece.said(number, &[]));
                if !self.desk.shared.wait_for_room(number, self.desk.options.read_chunk_bytes) {
                    return Ok(Chunk::CalledOff);
                }
            }
        }
        if !piece.rows.is_empty() {
            self.desk.shared.say(piece.said(number, &[]));
        }
        self.desk.shared.say(Said::ChunkEnded { task: number });
        Ok(Chunk::Last)
    }
}
