//! From messages of the log to steps: transactions put together, rows written, positions counted. No sockets but the
//! catalog's.
//!
//! A change's position is `<commit record>/<number>`: the place of its transaction's commit record, and the number of
//! its message among those about rows of that transaction, from 0, also counting those of tables that are not captured.
//! Both are the same whenever the transaction is read again, streamed or not, because rolled back subtransactions are
//! not counted. Where one message is several changes, the second and later ones have `.1`, `.2` … after it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::Options;
use super::announced::Announced;
use super::catalog::Catalog;
use super::checkpoint::{Place, ReadState, TableMark, Writer};
use super::definition::Member;
use super::keyless::Appending;
use super::lsn::Lsn;
use super::pgoutput::{self, Cell, Message, Old};
use super::portion::{Gathered, transaction_name};
use super::prepared::Prepared;
use super::queue::Shared;
use super::reading::Reading;
use super::shape::Shape;
use super::spill::{Replay, Spills};
use super::tables::Heard;
use super::window::{Committed, Window};
use super::wire::identifier;
use crate::change::{Action, Change, Portion, Step, Table};
use crate::feed::{FeedError, Reason, Remedy};

/// How many transactions are remembered that were handed out last: more than can have committed while another one
/// still waits to be seen by snapshots.
const RECENT_MAX: usize = 1 << 16;

/// From 1970 to 2000, PostgreSQL's epoch.
const EPOCH_MS: i64 = 946_684_800_000;

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
    /// Portions that had to end before `out` began.
    cut: VecDeque<Portion>,
    pub(super) rows_read: HashMap<u32, u64>,
    pub(super) rows_estimated: HashMap<u32, u64>,
    /// Tables that are being read.
    pub(super) readings: BTreeMap<u32, Reading>,
    /// The reading that goes on, if it is of a table without a key.
    pub(super) appending: Option<Appending>,
    /// What ids of rows without a key begin with.
    pub(super) id_prefix: String,
    /// The table that is being compared, and what the log told of it since.
    pub(super) audit: Option<(u32, Window)>,
    /// Every transaction whose commit record begins before it has been handed out.
    position: Lsn,
    /// Where the last checkpoint that was handed out is.
    pub(super) marked: Lsn,
    resume: Place,
    recent: VecDeque<Committed>,
    pub(super) relations: HashMap<u32, Announced>,
    described: HashMap<u32, Arc<Table>>,
    /// How rows that are stored look, also those of before this run.
    pub(super) stored: HashMap<u32, Arc<Table>>,
    /// Tables that are being read and whose first chunk has not come yet.
    pub(super) undefined: HashMap<u32, Heard>,
    /// Tables that the service has rows of and that are none of ours.
    pub(super) orphans: Vec<Arc<Table>>,
    /// Tables that the rules include and that are not published, and why.
    pub(super) left_out: Vec<(String, Reason)>,
    /// Tables that the last look did not find published.
    pub(super) missing: BTreeSet<u32>,
    /// Partitions when they were last looked at.
    pub(super) members: HashMap<u32, Arc<Vec<Member>>>,
    /// Partitions that rows of a table came from since the catalog was last looked at, as far as the log names them.
    pub(super) told_partitions: HashMap<u32, BTreeSet<u32>>,
    /// The relation that the log announced last, before any row.
    announced: Option<u32>,
    /// Where the log last told that a table is another than before.
    pub(super) redefined_at: Lsn,
    /// The same of each table: what is older than that says nothing of it.
    pub(super) defined_at: HashMap<u32, Lsn>,
    spills: Spills,
    prepared: Prepared,
    /// Every table is read after the transactions of the time when the feed was opened.
    pub(super) reads_all: bool,
    streaming: Option<u32>,
    current: Option<Current>,
    replay: Option<(Replay, Lsn)>,
    writer: Writer,
    /// Whether tables that the rules include are added to the publication.
    pub(super) adds_tables: bool,
    /// Tables whose reading is called off, because it begins anew or never.
    pub(super) called_off: Vec<u32>,
    /// Tables that are being read whose columns changed, and whose reading goes on.
    pub(super) reshaped: Vec<u32>,
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
        let reads_all = tables.values().all(|mark| mark.state == ReadState::Waiting && mark.late);
        let mut decoder = Decoder {
            out: Gathered::new(&options),
            cut: VecDeque::new(),
            spills: Spills::new(options.spill_dir.clone(), options.transaction_memory_bytes),
            options,
            catalog,
            shared,
            tables,
            rows_read: HashMap::new(),
            rows_estimated: HashMap::new(),
            readings: BTreeMap::new(),
            appending: None,
            id_prefix: String::new(),
            audit: None,
            prepared: Prepared::default(),
            reads_all,
            position: place.lsn,
            marked: place.lsn,
            resume: place,
            recent: VecDeque::new(),
            relations: HashMap::new(),
            described: HashMap::new(),
            stored: HashMap::new(),
            undefined: HashMap::new(),
            orphans: Vec::new(),
            left_out: Vec::new(),
            missing: BTreeSet::new(),
            members: HashMap::new(),
            told_partitions: HashMap::new(),
            announced: None,
            redefined_at: Lsn(0),
            defined_at: HashMap::new(),
            streaming: None,
            current: None,
            replay: None,
            writer,
            adds_tables: false,
            called_off: Vec::new(),
            reshaped: Vec::new(),
        };
        decoder.resume_readings();
        decoder.know_stored();
        decoder.tables_changed();
        decoder
    }

    /// Goes on with what was being read before a restart.
    fn resume_readings(&mut self) {
        for mark in self.tables.values_mut().filter(|mark| mark.state == ReadState::Reading) {
            if std::mem::take(&mut mark.again) {
                // Which rows lacked something was known before the restart only.
                mark.begin_anew();
            }
            let reading = self.readings.entry(mark.oid).or_default();
            reading.is_split = mark.is_split();
        }
    }

    /// Call after any change to `tables`.
    pub(super) fn tables_changed(&mut self) {
        self.writer.set_tables(&self.tables);
        let progress = self.progress();
        super::queue::lock(&self.shared.progress).tables = progress;
        *super::queue::lock(&self.shared.known) = self.tables.keys().copied().collect();
    }

    /// Whether no transaction is in the middle of being handed out.
    pub(super) fn is_between(&self) -> bool {
        self.current.is_none() && self.replay.is_none()
    }

    /// Whether a prepared transaction is open, so that not everything can be confirmed that was sent.
    pub(super) fn holds_back(&self) -> bool {
        self.prepared.needed_from().is_some()
    }

    pub(super) fn position(&self) -> Lsn {
        self.position
    }

    /// The transactions that were handed out last.
    pub(super) fn recent(&self) -> Vec<Committed> {
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
        // It never goes back: the server does not either.
        let needed_from = self.prepared.needed_from().map(|from| from.max(self.resume.needed_from()));
        let place = Place {
            lsn: self.position,
            prepared: needed_from.filter(|from| *from < self.position),
            partly: (self.current.as_ref())
                .filter(|current| current.skip < u64::MAX)
                .map(|current| (current.commit, current.count.max(current.skip))),
        };
        // A transaction to skip a part of that has not come again yet.
        let place = if place.partly.is_none() && self.resume.partly.is_some_and(|(commit, _)| commit >= self.position) {
            Place { partly: self.resume.partly, ..place }
        } else {
            place
        };
        self.marked = self.position;
        Portion { steps: self.out.take(), checkpoint: self.writer.checkpoint(place) }
    }

    /// Ends the portion here if it has steps, so that the next step begins one.
    pub(super) fn cut(&mut self) {
        if !self.out.steps.is_empty() {
            let portion = self.portion();
            self.cut.push_back(portion);
        }
    }

    /// The next portion that is complete, or else what was gathered so far.
    pub(super) fn next_portion(&mut self) -> Portion {
        self.cut.pop_front().unwrap_or_else(|| self.portion())
    }

    /// Whether there are portions that had to end.
    pub(super) fn has_cut(&self) -> bool {
        !self.cut.is_empty()
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
        if letter == b'R' {
            self.prepared.describe(rest);
        }
        if let Some(xid) = self.prepared.coming()
            && matches!(letter, b'R' | b'I' | b'U' | b'D' | b'T')
        {
            return self.spills.add(xid, xid, letter, rest).map_err(|error| self.disk(error));
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
            Message::BeginPrepare { xid, prepared } => self.prepared.begin(xid, prepared),
            Message::Prepare { xid, prepared, end } | Message::StreamPrepare { xid, prepared, end } => {
                self.prepared.prepared(xid, prepared);
                self.reached(end);
            }
            Message::CommitPrepared { xid, commit, end, committed_at_us, name } => {
                self.commit_prepared(xid, name, commit, committed_at_us, end)?;
            }
            Message::RollbackPrepared { xid, end } => {
                self.prepared.end(xid);
                self.spills.roll_back(xid, xid);
                self.reached(end);
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
                    for newer in self.prepared.replayed() {
                        self.row_message(pgoutput::parse(b'R', &newer).map_err(malformed)?)?;
                    }
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

    /// A transaction that was prepared is committed: its rows come now.
    fn commit_prepared(
        &mut self,
        xid: u32,
        name: &str,
        commit: Lsn,
        committed_at_us: i64,
        end: Lsn,
    ) -> Result<(), FeedError> {
        let is_known = self.prepared.end(xid);
        self.begin(xid, commit, committed_at_us);
        let is_told = self.current.as_ref().is_some_and(|current| current.skip == u64::MAX);
        if !is_known && !is_told && !self.reads_all {
            return Err(prepared_before(&self.options.slot, name));
        }
        self.prepared.replay();
        self.replay = Some((self.spills.commit(xid).map_err(|error| self.disk(error))?, end));
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
            self.recent.push_back(Committed { xid: current.xid, commit: current.commit });
        }
        self.position = self.position.max(end);
    }

    fn row_message(&mut self, message: Message<'_>) -> Result<(), FeedError> {
        if self.prepared.has_waiting() {
            for relation in message.relations() {
                if let Some(description) = self.prepared.take_waiting(*relation) {
                    self.row_message(pgoutput::parse(b'R', &description).map_err(malformed)?)?;
                }
            }
        }
        // Where a partition's rows are told as its root's, the log announces it right before the first of them.
        if let Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. } =
            &message
            && let Some(announced) = self.announced.take()
            && announced != *relation
        {
            self.told_partitions.entry(*relation).or_default().insert(announced);
            let known = self.members.get(relation);
            if !known.is_some_and(|known| known.iter().any(|member| member.oid == announced)) {
                // It may be gone again before the catalog is looked at, which then looks as before.
                self.shared.ask_for_look();
            }
        }
        if !matches!(message, Message::Relation(_)) {
            // A truncate announces relations of which no row follows.
            self.announced = None;
        }
        match message {
            Message::Relation(relation) => {
                self.announced = Some(relation.oid);
                return self.relation(&relation);
            }
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
                        self.forget_held(relation);
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

    fn insert(&mut self, relation: u32, shape: &Shape, new: &[Cell<'_>]) -> Result<(), FeedError> {
        if !self.is_readable(relation, shape, new)? {
            return Ok(());
        }
        let Some(key) = shape.key(new, None) else { return self.keyless(relation, shape) };
        let mut change = self.change(shape, Action::Replace, key, 0);
        change.image = Some(shape.image(new, None, &mut change.unchanged));
        match shape.table.is_append_only() {
            true => self.append(relation, change),
            false => self.push(relation, change),
        }
        Ok(())
    }

    fn update(
        &mut self,
        relation: u32,
        shape: &Shape,
        old: Option<&Old<'_>>,
        new: &[Cell<'_>],
    ) -> Result<(), FeedError> {
        if shape.table.is_append_only() {
            self.row_changed(relation, &shape.table);
            return Ok(());
        }
        if !self.is_readable(relation, shape, new)? {
            return Ok(());
        }
        let (old_cells, whole) = match old {
            Some(Old::Row(cells)) => (Some(cells.as_slice()), true),
            Some(Old::Key(cells)) => (Some(cells.as_slice()), false),
            None => (None, false),
        };
        if let Some(old) = old_cells
            && !self.is_readable(relation, shape, old)?
        {
            return Ok(());
        }
        let Some(key) = shape.key(new, old_cells) else { return self.keyless(relation, shape) };
        let old_key = match old_cells.map(|old| shape.key(old, None)) {
            Some(None) => return self.keyless(relation, shape),
            other => other.flatten(),
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
        if shape.table.is_append_only() {
            self.row_changed(relation, &shape.table);
            return Ok(());
        }
        let (Old::Key(cells) | Old::Row(cells)) = old;
        if !self.is_readable(relation, shape, cells)? {
            return Ok(());
        }
        let Some(key) = shape.key(cells, None) else { return self.keyless(relation, shape) };
        let mut change = self.change(shape, Action::Remove, key, 0);
        if let Old::Row(cells) = old {
            change.before = Some(shape.image(cells, None, &mut Vec::new()));
        }
        self.push(relation, change);
        Ok(())
    }

    /// Whether a row can be told. If it holds what is no text, its table stops.
    fn is_readable(&mut self, relation: u32, shape: &Shape, cells: &[Cell<'_>]) -> Result<bool, FeedError> {
        check_width(shape, cells)?;
        match shape.not_utf8(cells) {
            Some(reason) => {
                self.stop_table(relation, reason);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// The log told of a row without its key: its table can't be followed as it is.
    fn keyless(&mut self, relation: u32, shape: &Shape) -> Result<(), FeedError> {
        let Table { namespace, relation: name, key, .. } = &*shape.table;
        let quoted = format!("{}.{}", identifier(namespace), identifier(name));
        let message = format!(
            "the log told of a row of {namespace}.{name} without its key ({}): its REPLICA IDENTITY does not cover the \
             key. ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT, and have the table read anew; or exclude it",
            key.join(", ")
        );
        self.stop_table(relation, Reason::new("no-key", message));
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
        if let Some((oid, window)) = &mut self.audit
            && *oid == relation
        {
            window.note(Committed { xid: current.xid, commit: current.commit }, &change);
        }
        if let Some(reading) = self.readings.get_mut(&relation) {
            reading.note(Committed { xid: current.xid, commit: current.commit }, &change);
            let lacking = !reading.lacking.is_empty();
            self.mark_lacking(relation, lacking);
        }
        if self.is_skipping() {
            return;
        }
        self.describe(relation, &change.table);
        self.out.push(Step::Change(change));
    }

    /// The transaction whose messages come now, and the number of the message.
    pub(super) fn current_place(&self) -> Option<(Committed, u64)> {
        let current = self.current.as_ref()?;
        Some((Committed { xid: current.xid, commit: current.commit }, current.count))
    }

    /// Whether what comes now was handed out before a restart.
    pub(super) fn is_skipping(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.count < current.skip)
    }

    /// Has the next checkpoint say whether rows of a table that is being read lack something.
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
        self.stored.insert(oid, table.clone());
    }

    /// Forgets how a table was described.
    pub(super) fn forget_described(&mut self, oid: u32) {
        self.described.remove(&oid);
        self.stored.remove(&oid);
    }

    /// Where in the log a change that is found out now is.
    pub(super) fn place(&self) -> Lsn {
        self.current.as_ref().map_or(self.position, |current| current.commit)
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

/// The server has sent what this transaction did before we followed the slot, and does not repeat it.
fn prepared_before(slot: &str, name: &str) -> FeedError {
    FeedError {
        remedy: Remedy::Repair,
        code: "slot-lost",
        message: format!(
            "the transaction that was prepared as `{name}` is committed, and the replication slot `{slot}` had been \
             confirmed beyond its preparation by somebody else: its changes are missing. Repair this source: its tables \
             are read anew and compared"
        ),
        source: None,
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
