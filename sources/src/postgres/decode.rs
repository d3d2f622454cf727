//! From messages of the log to steps: transactions put together, rows written, positions counted. No sockets but the
//! catalog's.
//!
//! A change's position is `<commit record>/<number>`: the place of its transaction's commit record, and the number of
//! its message among those about rows of that transaction, from 0, also counting those of tables that are not captured.
//! Both are the same whenever the transaction is read again, streamed or not, because rolled back subtransactions are
//! not counted. Where one message is several changes, the second and later ones have `.1`, `.2` … after it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::Options;
use super::catalog::Catalog;
use super::checkpoint::{Place, ReadState, TableMark, Writer};
use super::lsn::Lsn;
use super::pgoutput::{self, Cell, Message, Old, Relation};
use super::portion::{Gathered, transaction_name};
use super::queue::Shared;
use super::shape::Shape;
use super::spill::{Replay, Spills};
use super::window::Window;
use crate::change::{Action, Change, Portion, Step, Table};
use crate::feed::{FeedError, Remedy, TableProgress, TableState};

/// How many transactions are remembered that were handed out last: more than can have committed while another one
/// still waits to be seen by snapshots.
const RECENT_MAX: usize = 1 << 16;

/// From 1970 to 2000, PostgreSQL's epoch.
const EPOCH_MS: i64 = 946_684_800_000;

/// A relation as the log announced it last.
enum Followed {
    Captured(Arc<Shape>),
    /// The rules leave it out.
    Passed,
}

/// The transaction whose messages come now.
struct Current {
    xid: u32,
    commit: Lsn,
    committed_at_ms: Option<u64>,
    name: Arc<str>,
    /// Messages about rows so far.
    count: u64,
    /// As many of them have been handed out before a restart.
    skip: u64,
}

/// The part of the feed that knows what the log means.
pub(super) struct Decoder {
    pub(super) options: Arc<Options>,
    pub(super) catalog: Catalog,
    pub(super) shared: Arc<Shared>,
    pub(super) tables: BTreeMap<u32, TableMark>,
    pub(super) out: Gathered,
    pub(super) rows_read: HashMap<u32, u64>,
    /// The reading that goes on: of which table, and what the log told since.
    pub(super) window: Option<(u32, Window)>,
    /// Every transaction whose commit record begins before it has been handed out.
    position: Lsn,
    /// Where the last checkpoint that was handed out is.
    pub(super) marked: Lsn,
    resume: Place,
    recent: VecDeque<u32>,
    relations: HashMap<u32, Followed>,
    described: HashMap<u32, Arc<Table>>,
    spills: Spills,
    streaming: Option<u32>,
    current: Option<Current>,
    replay: Option<(Replay, Lsn)>,
    writer: Writer,
    /// Tables that became known by the log and not by the catalog.
    pub(super) unknown: Vec<u32>,
    /// Tables whose key is another now, to be read anew.
    pub(super) rekeyed: Vec<u32>,
    /// Tables whose form changed while they were being read.
    pub(super) reshaped: bool,
}

impl Decoder {
    pub(super) fn new(
        options: Arc<Options>,
        catalog: Catalog,
        shared: Arc<Shared>,
        place: Place,
        tables: BTreeMap<u32, TableMark>,
        writer: Writer,
    ) -> Decoder {
        let mut decoder = Decoder {
            out: Gathered::new(&options),
            spills: Spills::new(options.spill_dir.clone(), options.transaction_memory_bytes),
            options,
            catalog,
            shared,
            tables,
            rows_read: HashMap::new(),
            window: None,
            position: place.lsn,
            marked: place.lsn,
            resume: place,
            recent: VecDeque::new(),
            relations: HashMap::new(),
            described: HashMap::new(),
            streaming: None,
            current: None,
            replay: None,
            writer,
            unknown: Vec::new(),
            rekeyed: Vec::new(),
            reshaped: false,
        };
        decoder.tables_changed();
        decoder
    }

    /// Call after any change to `tables`.
    pub(super) fn tables_changed(&mut self) {
        self.writer.set_tables(&self.tables);
        let tables = self.tables.values().map(|mark| TableProgress {
            table: self.options.rules.captured_name(self.catalog.database(), &mark.namespace, &mark.relation),
            state: match mark.state {
                ReadState::Waiting => TableState::Waiting,
                ReadState::Reading => TableState::Reading,
                ReadState::Following => TableState::Following,
            },
            reason: None,
            rows_read: self.rows_read.get(&mark.oid).copied().unwrap_or(0),
            rows_estimated: None,
        });
        let tables = tables.collect();
        super::queue::lock(&self.shared.progress).tables = tables;
    }

    /// Whether no transaction is in the middle of being handed out.
    pub(super) fn is_between(&self) -> bool {
        self.current.is_none() && self.replay.is_none()
    }

    pub(super) fn position(&self) -> Lsn {
        self.position
    }

    /// The transactions that were handed out last.
    pub(super) fn recent(&self) -> Vec<u32> {
        self.recent.iter().copied().collect()
    }

    /// The server has sent everything that was committed before this place.
    pub(super) fn reached(&mut self, lsn: Lsn) {
        if self.is_between() && lsn > self.position {
            self.position = lsn;
        }
    }

    /// The steps gathered so far, and where to go on after them.
    pub(super) fn portion(&mut self) -> Portion {
        let place = Place {
            lsn: self.position,
            partly: (self.current.as_ref())
                .filter(|current| current.skip < u64::MAX)
                .map(|current| (current.commit, current.count.max(current.skip))),
        };
        // A transaction to skip a part of that has not come again yet.
        let place = if place.partly.is_none() && self.resume.partly.is_some_and(|(commit, _)| commit >= self.position) {
            Place { lsn: self.position, partly: self.resume.partly }
        } else {
            place
        };
        self.marked = self.position;
        Portion { steps: self.out.take(), checkpoint: self.writer.checkpoint(place) }
    }

    /// Takes a message of the stream, with its letter.
    pub(super) fn message(&mut self, message: &[u8]) -> Result<(), FeedError> {
        let (&letter, mut rest) = message.split_first().ok_or_else(|| malformed(pgoutput::Malformed(b' ')))?;
        if let Some(xid) = self.streaming
            && pgoutput::is_tagged(letter)
        {
            let (subtransaction, untagged) =
                pgoutput::split_streamed(rest).ok_or_else(|| malformed(pgoutput::Malformed(letter)))?;
            rest = untagged;
            if matches!(letter, b'R' | b'I' | b'U' | b'D' | b'T') {
                self.spills.add(xid, subtransaction, letter, rest).map_err(|error| self.disk(error))?;
            }
            return Ok(());
        }
        match pgoutput::parse(letter, rest).map_err(malformed)? {
            Message::Begin { commit, committed_at_us, xid } => self.begin(xid, commit, committed_at_us),
            Message::Commit { end } => self.commit(end),
            Message::StreamStart { xid } => self.streaming = Some(xid),
            Message::StreamStop => self.streaming = None,
            Message::StreamAbort { xid, subtransaction } => self.spills.roll_back(xid, subtransaction),
            Message::StreamCommit { xid, commit, end, committed_at_us } => {
                let replay = self.spills.commit(xid).map_err(|error| self.disk(error))?;
                self.begin(xid, commit, committed_at_us);
                self.replay = Some((replay, end));
            }
            Message::Other => {}
            about_rows => self.row_message(about_rows)?,
        }
        Ok(())
    }

    /// Whether a transaction that was kept has more to hand out: call [`Decoder::replay_some`].
    pub(super) fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// Goes on with a transaction that was kept, until a portion is full or the transaction ends.
    pub(super) fn replay_some(&mut self) -> Result<(), FeedError> {
        let Some((mut replay, end)) = self.replay.take() else { return Ok(()) };
        while !self.out.is_full() {
            match replay.next() {
                Err(error) => return Err(self.disk(error)),
                Ok(None) => {
                    self.commit(end);
                    return Ok(());
                }
                Ok(Some((letter, rest))) => {
                    let message = pgoutput::parse(letter, rest).map_err(malformed)?;
                    self.row_message(message)?;
                }
            }
        }
        self.replay = Some((replay, end));
        Ok(())
    }

    fn begin(&mut self, xid: u32, commit: Lsn, committed_at_us: i64) {
        // What commits is sent in the order of the commits.
        self.reached(commit);
        let skip = match self.resume.partly {
            Some((partly, done)) if partly == commit => done,
            _ if commit < self.resume.lsn => u64::MAX,
            _ => 0,
        };
        let committed_at_ms = u64::try_from(committed_at_us.div_euclid(1000).saturating_add(EPOCH_MS)).ok();
        self.current = Some(Current { xid, commit, committed_at_ms, name: transaction_name(xid), count: 0, skip });
    }

    fn commit(&mut self, end: Lsn) {
        if let Some(current) = self.current.take() {
            if self.recent.len() == RECENT_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back(current.xid);
        }
        self.position = self.position.max(end);
    }

    fn row_message(&mut self, message: Message<'_>) -> Result<(), FeedError> {
        match message {
            Message::Relation(relation) => return self.relation(&relation),
            Message::Insert { relation, new } => {
                if let Some(shape) = self.captured(relation)? {
                    self.insert(relation, &shape, &new)?;
                }
            }
            Message::Update { relation, old, new } => {
                if let Some(shape) = self.captured(relation)? {
                    self.update(relation, &shape, old.as_ref(), &new)?;
                }
            }
            Message::Delete { relation, old } => {
                if let Some(shape) = self.captured(relation)? {
                    self.delete(relation, &shape, &old)?;
                }
            }
            Message::Truncate { relations } => {
                let mut place = 0;
                for relation in relations {
                    if let Some(shape) = self.captured(relation)? {
                        let change = self.change(&shape, Action::Truncate, Vec::new(), place);
                        self.push(relation, change);
                        place += 1;
                    }
                }
            }
            _ => return Ok(()),
        }
        if let Some(current) = &mut self.current {
            current.count += 1;
        }
        Ok(())
    }

    fn relation(&mut self, relation: &Relation<'_>) -> Result<(), FeedError> {
        if !self.options.rules.captures(relation.namespace, relation.name) {
            self.relations.insert(relation.oid, Followed::Passed);
            return Ok(());
        }
        let shape = match self.catalog.shape_in_log(relation) {
            Ok(shape) => Arc::new(shape),
            Err(error) if error.code == "no-key" && self.options.skip_tables_without_key => {
                self.relations.insert(relation.oid, Followed::Passed);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match self.tables.get_mut(&relation.oid) {
            None => self.unknown.push(relation.oid),
            Some(mark) => {
                if mark.key != shape.table.key {
                    self.rekeyed.push(relation.oid);
                }
                if (mark.namespace.as_str(), mark.relation.as_str()) != (relation.namespace, relation.name) {
                    relation.namespace.clone_into(&mut mark.namespace);
                    relation.name.clone_into(&mut mark.relation);
                    self.tables_changed();
                }
            }
        }
        if self.window.as_ref().is_some_and(|(oid, _)| *oid == relation.oid)
            && self.described.get(&relation.oid).is_some_and(|table| table.columns != shape.table.columns)
        {
            self.reshaped = true;
        }
        self.relations.insert(relation.oid, Followed::Captured(shape));
        Ok(())
    }

    fn captured(&self, relation: u32) -> Result<Option<Arc<Shape>>, FeedError> {
        match self.relations.get(&relation) {
            Some(Followed::Captured(shape)) => Ok(Some(shape.clone())),
            Some(Followed::Passed) => Ok(None),
            None => Err(FeedError {
                remedy: Remedy::Retry,
                code: "protocol",
                message: format!("the log told of a row of relation {relation}, which it had not described"),
                source: None,
            }),
        }
    }

    fn insert(&mut self, relation: u32, shape: &Shape, new: &[Cell<'_>]) -> Result<(), FeedError> {
        check_width(shape, new)?;
        let key = shape.key(new, None).ok_or_else(|| no_key(shape))?;
        let mut change = self.change(shape, Action::Replace, key, 0);
        change.image = Some(shape.image(new, None, &mut change.unchanged));
        self.push(relation, change);
        Ok(())
    }

    fn update(
        &mut self,
        relation: u32,
        shape: &Shape,
        old: Option<&Old<'_>>,
        new: &[Cell<'_>],
    ) -> Result<(), FeedError> {
        check_width(shape, new)?;
        let (old_cells, whole) = match old {
            Some(Old::Row(cells)) => (Some(cells.as_slice()), true),
            Some(Old::Key(cells)) => (Some(cells.as_slice()), false),
            None => (None, false),
        };
        if let Some(old) = old_cells {
            check_width(shape, old)?;
        }
        let key = shape.key(new, old_cells).ok_or_else(|| no_key(shape))?;
        let old_key = match old_cells {
            Some(old) => Some(shape.key(old, None).ok_or_else(|| no_key(shape))?),
            None => None,
        };
        let before = whole.then(|| old_cells.map(|old| shape.image(old, None, &mut Vec::new()))).flatten();
        let moved = old_key.filter(|old| *old != key);
        let mut place = 0;
        if let Some(old_key) = &moved {
            let mut removed = self.change(shape, Action::Remove, old_key.clone(), place);
            removed.before.clone_from(&before);
            self.push(relation, removed);
            place = 1;
        }
        let mut change = self.change(shape, Action::Replace, key, place);
        change.image = Some(shape.image(new, old_cells, &mut change.unchanged));
        change.previous_key = moved;
        // A row with another key has no row before of its own.
        change.before = before.filter(|_| change.previous_key.is_none());
        self.push(relation, change);
        Ok(())
    }

    fn delete(&mut self, relation: u32, shape: &Shape, old: &Old<'_>) -> Result<(), FeedError> {
        let (Old::Key(cells) | Old::Row(cells)) = old;
        check_width(shape, cells)?;
        let key = shape.key(cells, None).ok_or_else(|| no_key(shape))?;
        let mut change = self.change(shape, Action::Remove, key, 0);
        if let Old::Row(cells) = old {
            change.before = Some(shape.image(cells, None, &mut Vec::new()));
        }
        self.push(relation, change);
        Ok(())
    }

    fn change(&self, shape: &Shape, action: Action, key: Vec<String>, place: u32) -> Change {
        let current = self.current.as_ref();
        let position = current.map(|current| match place {
            0 => format!("{}/{}", current.commit, current.count),
            place => format!("{}/{}.{place}", current.commit, current.count),
        });
        Change {
            table: shape.table.clone(),
            action,
            key,
            image: None,
            unchanged: Vec::new(),
            previous_key: None,
            before: None,
            position,
            transaction: current.map(|current| current.name.clone()),
            committed_at_ms: current.and_then(|current| current.committed_at_ms),
        }
    }

    fn push(&mut self, relation: u32, change: Change) {
        let Some(current) = &self.current else { return };
        if let Some((oid, window)) = &mut self.window
            && *oid == relation
        {
            window.note(current.xid, &change);
            let lacking = !window.lacking().is_empty();
            self.mark_lacking(relation, lacking);
        }
        if self.current.as_ref().is_some_and(|current| current.count < current.skip) {
            return;
        }
        self.describe(relation, &change.table);
        self.out.push(Step::Change(change));
    }

    /// Has the next checkpoint say whether rows of the table that is being read lack something.
    pub(super) fn mark_lacking(&mut self, oid: u32, lacking: bool) {
        if let Some(mark) = self.tables.get_mut(&oid)
            && mark.again != lacking
        {
            mark.again = lacking;
            self.tables_changed();
        }
    }

    /// Tells how the table looks from here on, if that was not told already.
    pub(super) fn describe(&mut self, oid: u32, table: &Arc<Table>) {
        let told = self.described.get(&oid);
        if told.is_some_and(|told| Arc::ptr_eq(told, table)) {
            return;
        }
        if told.is_none_or(|told| told != table) {
            self.out.push(Step::Describe(table.clone()));
        }
        self.described.insert(oid, table.clone());
    }

    /// How the table looked when it was told last.
    pub(super) fn described(&self, oid: u32) -> Option<Arc<Table>> {
        self.described.get(&oid).cloned()
    }

    fn disk(&self, error: std::io::Error) -> FeedError {
        FeedError {
            remedy: Remedy::Retry,
            code: "disk",
            message: format!("an open transaction could not be kept in {}: {error}", self.options.spill_dir.display()),
            source: Some(error.into()),
        }
    }
}

fn malformed(error: pgoutput::Malformed) -> FeedError {
    FeedError { remedy: Remedy::Retry, code: "protocol", message: error.to_string(), source: Some(error.into()) }
}

fn check_width(shape: &Shape, cells: &[Cell<'_>]) -> Result<(), FeedError> {
    if cells.len() == shape.width() {
        return Ok(());
    }
    Err(FeedError {
        remedy: Remedy::Retry,
        code: "protocol",
        message: format!(
            "the log told a row of {} with {} values, and described {} columns",
            shape.table.name,
            cells.len(),
            shape.width()
        ),
        source: None,
    })
}

fn no_key(shape: &Shape) -> FeedError {
    FeedError {
        remedy: Remedy::Stop,
        code: "no-key",
        message: format!(
            "the log told of a row of {}.{} without its key ({}): its REPLICA IDENTITY does not cover the key. ALTER \
             TABLE … REPLICA IDENTITY DEFAULT, and repair this source; or exclude the table",
            shape.table.namespace,
            shape.table.relation,
            shape.table.key.join(", ")
        ),
        source: None,
    }
}
