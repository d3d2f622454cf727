//! Which tables are read next, and where their rows are put into the log: the follower's side of reading.
//!
//! A table is `Waiting`, then `Reading` from its `ReadBegan` on, then `Following`. So many lanes read at once, each with a
//! reader of its own (`read.rs`): a table, or a part of a large one (`split.rs`), in chunks. What a lane reads is put out
//! here as soon as the log has reached the chunk's place, whatever the other lanes wait for. Where the chunk turns out to
//! be of no use (its snapshot is too early, the table's form changed, too much changed to be remembered) the lane goes on
//! anew from the last row that was handed out.
//!
//! Tables begin in the order of their size, so that no small one waits for a large one. A lane for which no table is
//! left goes on with a part of one that is being read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::catalog::{Defined, Published};
use super::checkpoint::{KeyRange, ReadState, TableMark};
use super::decode::Decoder;
use super::lsn::Lsn;
use super::queue::{Said, Shared};
use super::read::Task;
use super::readers::Readers;
use super::reading::Reading;
use super::shape::Shape;
use super::window::{Snapshot, Window};
use crate::change::{Change, Step};
use crate::feed::{FeedError, Reason};
use crate::keyless::ROW_ID;

/// So many changed rows of tables that are being read are remembered, in all windows together.
const WINDOW_ROWS_MAX: usize = 200_000;

/// The chunk whose rows come now.
struct Chunk {
    snapshot: Snapshot,
    shape: Arc<Shape>,
}

/// What a reader is at.
struct Lane {
    task: u64,
    oid: u32,
    /// The end of the range that it reads, which tells it from the table's others.
    until: Option<Vec<String>>,
    chunk: Option<Chunk>,
}

/// The state of reading.
pub(super) struct Reads {
    shared: Arc<Shared>,
    readers: Readers,
    lanes: BTreeMap<usize, Lane>,
    lanes_max: usize,
    /// The first place of which a chunk waits for the log to reach it.
    awaited: Option<Lsn>,
    /// Tables that the catalog does not have as the log knows them: nothing can begin with them before the next look.
    postponed: BTreeSet<u32>,
    /// How large tables that wait were when they were first seen.
    sizes: HashMap<u32, u64>,
    /// Nothing new can begin before something changes.
    settled: bool,
}

impl Reads {
    pub(super) fn new(shared: Arc<Shared>, readers: Readers) -> Reads {
        let lanes_max = readers.options().read_parallelism.max(1);
        let (lanes, postponed, sizes) = (BTreeMap::new(), BTreeSet::new(), HashMap::new());
        Reads { shared, readers, lanes, lanes_max, awaited: None, postponed, sizes, settled: false }
    }

    /// Whether rows wait for the log to reach their place, so that the server should be asked where it is.
    pub(super) fn wants_to_know_place(&self) -> bool {
        self.awaited.is_some() || self.shared.look_waits_for().is_some()
    }

    /// Does one thing, between two transactions. False if there is nothing to do now.
    pub(super) fn take_one(&mut self, decoder: &mut Decoder) -> Result<bool, FeedError> {
        self.look_after(decoder)?;
        if !self.settled && self.lanes.len() < self.lanes_max && self.begin_next(decoder)? {
            return Ok(true);
        }
        let Some(said) = self.hear(decoder.position()) else { return Ok(false) };
        match said {
            Said::Failed(error) => return Err(error),
            Said::NoReader { lane, error } => self.do_without(decoder, lane, error)?,
            said => {
                let of = said.task();
                if let Some(id) = self.lanes.iter().find(|(_, lane)| Some(lane.task) == of).map(|(id, _)| *id) {
                    self.heard(decoder, id, said)?;
                }
            }
        }
        Ok(true)
    }

    /// What was said first of what is not of a chunk whose place the log has not reached.
    fn hear(&mut self, position: Lsn) -> Option<Said> {
        let (lanes, mut awaited) = (&self.lanes, None::<Lsn>);
        let mut waiting = BTreeSet::new();
        let said = self.shared.hear(|said| {
            let Some(task) = said.task() else { return true };
            match said {
                _ if waiting.contains(&task) => false,
                Said::ChunkBegan { place, .. } if *place > position && lanes.values().any(|lane| lane.task == task) => {
                    waiting.insert(task);
                    awaited = Some(awaited.map_or(*place, |first| first.min(*place)));
                    false
                }
                _ => true,
            }
        });
        self.awaited = awaited;
        said
    }

    /// A lane's reader said something of what it is at.
    fn heard(&mut self, decoder: &mut Decoder, id: usize, said: Said) -> Result<(), FeedError> {
        let Some(lane) = self.lanes.get_mut(&id) else { return Ok(()) };
        let oid = lane.oid;
        match said {
            Said::ChunkBegan { snapshot, found, defined, place, .. } => {
                self.chunk_began(decoder, id, snapshot, place, &found, &defined)?;
            }
            Said::Split { bounds, .. } => {
                let first = bounds.first().cloned();
                if let (Some(mark), Some(reading)) = (decoder.tables.get_mut(&oid), decoder.readings.get_mut(&oid)) {
                    reading.is_split = true;
                    lane.until = first.or(lane.until.take());
                    mark.split(bounds);
                    decoder.tables_changed();
                }
                self.settled = false;
            }
            Said::Rows { rows, last, .. } => self.rows(decoder, id, rows, last),
            Said::ChunkEnded { .. } => {
                let window = decoder.readings.get_mut(&oid).and_then(|reading| reading.window(id));
                if let (Some(chunk), Some(window)) = (lane.chunk.take(), window) {
                    window.forget(&chunk.snapshot);
                }
                if self.is_wanted(decoder, id) {
                    self.release(decoder, id);
                }
            }
            Said::Ended { .. } => self.ended(decoder, id)?,
            Said::TableGone { .. } => {
                self.leave(decoder, oid);
                self.postponed.insert(oid);
                self.shared.ask_for_look();
            }
            Said::TableStopped { reason, .. } => decoder.stop_table(oid, reason),
            Said::NoReader { .. } | Said::Failed(_) => {}
        }
        Ok(())
    }

    /// A lane's reader could not connect. What it was to read is left to the others, if there are any.
    fn do_without(&mut self, decoder: &mut Decoder, id: usize, error: FeedError) -> Result<(), FeedError> {
        self.readers.keep(|lane| lane != id);
        let Some(lane) = self.lanes.get(&id) else { return Ok(()) };
        if self.lanes.len() < 2 {
            return Err(error);
        }
        let oid = lane.oid;
        self.lanes_max = self.lanes.len() - 1;
        tracing::warn!(readers = self.lanes_max, "fewer tables are read at once: {error}");
        self.release(decoder, id);
        decoder.appending.take_if(|reading| reading.oid == oid);
        Ok(())
    }

    /// What the decoder noticed, and what a look at the catalog showed.
    fn look_after(&mut self, decoder: &mut Decoder) -> Result<(), FeedError> {
        if let Some(look) = self.shared.take_look(decoder.position()) {
            decoder.apply_look(look);
            self.postponed.clear();
            self.settled = false;
        }
        for oid in std::mem::take(&mut decoder.called_off) {
            self.leave(decoder, oid);
            decoder.end_reading(oid);
        }
        for oid in std::mem::take(&mut decoder.reshaped).into_iter().chain(decoder.holds_too_much()) {
            for id in self.lanes_of(oid) {
                self.restart(decoder, id)?;
            }
        }
        self.relieve(decoder)
    }

    /// Windows hold so many rows and no more.
    fn relieve(&mut self, decoder: &mut Decoder) -> Result<(), FeedError> {
        if decoder.readings.is_empty() {
            return Ok(());
        }
        let windows =
            |decoder: &Decoder| -> Vec<(usize, usize)> { decoder.readings.values().flat_map(Reading::lanes).collect() };
        while windows(decoder).iter().map(|(_, rows)| rows).sum::<usize>() > WINDOW_ROWS_MAX {
            let Some((id, _)) = windows(decoder).into_iter().max_by_key(|(_, rows)| *rows) else { break };
            let Some(oid) = self.lanes.get(&id).map(|lane| lane.oid) else { break };
            if self.lanes_of(oid).len() > 1
                && let Some(reading) = decoder.readings.get_mut(&oid)
            {
                // Each part remembers what changes in all of the table.
                reading.is_narrow = true;
                self.release(decoder, id);
            } else {
                self.restart(decoder, id)?;
            }
        }
        Ok(())
    }

    /// Whether a table waits for a lane, and this one is one of several that are at the same table.
    fn is_wanted(&self, decoder: &Decoder, id: usize) -> bool {
        let waits = |mark: &TableMark| {
            mark.state == ReadState::Waiting
                && !mark.unnamed
                && !self.postponed.contains(&mark.oid)
                // One without a key may have to wait for another such.
                && mark.key != [ROW_ID]
        };
        self.lanes.len() >= self.lanes_max
            && self.lanes.get(&id).is_some_and(|lane| self.lanes_of(lane.oid).len() > 1)
            && decoder.tables.values().any(waits)
    }

    fn lanes_of(&self, oid: u32) -> Vec<usize> {
        self.lanes.iter().filter(|(_, lane)| lane.oid == oid).map(|(id, _)| *id).collect()
    }

    /// A lane leaves what it reads for another one.
    fn release(&mut self, decoder: &mut Decoder, id: usize) {
        let Some(lane) = self.lanes.remove(&id) else { return };
        self.shared.call_off(lane.task);
        if let Some(reading) = decoder.readings.get_mut(&lane.oid) {
            reading.close(id);
        }
        self.settled = false;
    }

    /// All lanes leave a table.
    fn leave(&mut self, decoder: &mut Decoder, oid: u32) {
        for id in self.lanes_of(oid) {
            self.release(decoder, id);
        }
        decoder.appending.take_if(|reading| reading.oid == oid);
        self.settled = false;
    }

    /// Begins with the next table that waits, or goes on with one of which something is left that nobody reads.
    fn begin_next(&mut self, decoder: &mut Decoder) -> Result<bool, FeedError> {
        for oid in self.next_tables(decoder)? {
            if self.begin(decoder, oid)? {
                return Ok(true);
            }
        }
        if let Some((oid, range)) = self.next_range(decoder) {
            return self.start(decoder, oid, range).map(|()| true);
        }
        self.settled = true;
        let lanes = &self.lanes;
        self.readers.keep(|id| lanes.contains_key(&id));
        Ok(false)
    }

    /// Tables that nobody reads: those that were being read, and then those that wait, the smallest first.
    fn next_tables(&mut self, decoder: &mut Decoder) -> Result<Vec<u32>, FeedError> {
        let is_free = |mark: &&TableMark| {
            !mark.unnamed && !self.postponed.contains(&mark.oid) && self.lanes_of(mark.oid).is_empty()
        };
        let find = |decoder: &Decoder, state| -> Vec<u32> {
            decoder.tables.values().filter(|mark| mark.state == state).filter(is_free).map(|mark| mark.oid).collect()
        };
        let (mut tables, mut waiting) = (find(decoder, ReadState::Reading), find(decoder, ReadState::Waiting));
        let unknown: Vec<u32> = waiting.iter().copied().filter(|oid| !self.sizes.contains_key(oid)).collect();
        if waiting.len() > 1 && !unknown.is_empty() {
            let sizes = decoder.catalog.sizes(&unknown).map_err(|error| error.into_feed("look up tables"))?;
            self.sizes.extend(unknown.iter().map(|oid| (*oid, sizes.get(oid).copied().unwrap_or(0))));
        }
        waiting.sort_by_key(|oid| self.sizes.get(oid).copied().unwrap_or(0));
        tables.extend(waiting);
        Ok(tables)
    }

    /// A part of a table that is being read and that nobody is at, of the table with the fewest lanes.
    fn next_range(&self, decoder: &Decoder) -> Option<(u32, KeyRange)> {
        let lanes = |oid: u32| self.lanes.values().filter(move |lane| lane.oid == oid);
        let is_wide = |oid: &u32| decoder.readings.get(oid).is_some_and(|reading| !reading.is_narrow);
        let mut tables: Vec<u32> = self.lanes.values().map(|lane| lane.oid).filter(is_wide).collect();
        tables.sort_by_key(|oid| lanes(*oid).count());
        tables.into_iter().find_map(|oid| {
            let left = decoder.tables.get(&oid)?.left();
            let range = left.into_iter().find(|range| lanes(oid).all(|lane| lane.until != range.until))?;
            Some((oid, range))
        })
    }

    /// Begins with a table, or goes on with it. False if that has to wait for another one.
    fn begin(&mut self, decoder: &mut Decoder, oid: u32) -> Result<bool, FeedError> {
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
                // It may be passed over without a word.
                self.postponed.insert(oid);
                return Ok(true);
            }
            // Gone, or called otherwise: the log is not that far yet, and the catalog will tell when it is.
            _ => {
                self.postponed.insert(oid);
                self.shared.ask_for_look();
                return Ok(true);
            }
        };
        if shape.table.is_append_only() && decoder.appending.is_some() {
            return Ok(false);
        }
        let estimate = decoder.catalog.estimate(oid).map_err(|error| error.into_feed("look up a table"))?;
        decoder.rows_estimated.insert(oid, estimate);
        let Some(mark) = decoder.tables.get_mut(&oid) else { return Ok(true) };
        if shape.table.is_append_only() {
            // From its beginning, in a snapshot that sees all that was passed over.
            (mark.state, mark.late) = (ReadState::Waiting, true);
        }
        if mark.key != shape.table.key || !decoder.readings.contains_key(&oid) {
            mark.state = ReadState::Waiting;
        }
        mark.key.clone_from(&shape.table.key);
        let begins = mark.state == ReadState::Waiting;
        if begins {
            mark.state = ReadState::Reading;
            mark.definition = None;
            mark.again = false;
            mark.begin_anew();
            decoder.rows_read.remove(&oid);
            decoder.readings.insert(oid, Reading::default());
        }
        let range = mark.left().into_iter().next().unwrap_or_default();
        decoder.tables_changed();
        // Of a reading that goes on the first chunk says how the table looks, against how its rows look that are stored.
        if begins {
            decoder.begin_undefined(oid);
            decoder.describe(oid, &shape.table);
            if !shape.table.is_append_only() {
                decoder.out.push(Step::ReadBegan(shape.table.clone()));
            }
        }
        self.start(decoder, oid, range)?;
        Ok(true)
    }

    /// A free lane begins with a range of a table.
    fn start(&mut self, decoder: &mut Decoder, oid: u32, range: KeyRange) -> Result<(), FeedError> {
        let Some(id) = (0..self.lanes_max).find(|id| !self.lanes.contains_key(id)) else { return Ok(()) };
        let task = self.shared.next_task();
        self.lanes.insert(id, Lane { task, oid, until: range.until, chunk: None });
        self.send(decoder, id)
    }

    /// A lane goes on after the last row that was handed out, in a new window.
    fn restart(&mut self, decoder: &mut Decoder, id: usize) -> Result<(), FeedError> {
        let Some(lane) = self.lanes.get_mut(&id) else { return Ok(()) };
        self.shared.call_off(lane.task);
        lane.task = self.shared.next_task();
        lane.chunk = None;
        self.send(decoder, id)
    }

    /// Has a lane's reader read what is left of its range.
    fn send(&mut self, decoder: &mut Decoder, id: usize) -> Result<(), FeedError> {
        let Some(Lane { task, oid, until, .. }) = self.lanes.get(&id) else { return Ok(()) };
        let oid = *oid;
        // The window begins before the reader takes its snapshot.
        let window = Window::new(decoder.recent(), WINDOW_ROWS_MAX);
        decoder.await_snapshot(oid);
        let (Some(mark), Some(reading)) = (decoder.tables.get(&oid), decoder.readings.get_mut(&oid)) else {
            return Ok(());
        };
        reading.open(id, window);
        let task = Task {
            number: *task,
            oid,
            range: mark.range(until.as_ref()).unwrap_or_default(),
            key: mark.key.clone(),
            late: mark.late && !reading.has_begun,
            splits: !reading.is_split && !mark.is_split(),
        };
        self.readers.send(id, task)
    }

    fn chunk_began(
        &mut self,
        decoder: &mut Decoder,
        id: usize,
        snapshot: Snapshot,
        place: Lsn,
        published: &Published,
        defined: &Defined,
    ) -> Result<(), FeedError> {
        let Some(oid) = self.lanes.get(&id).map(|lane| lane.oid) else { return Ok(()) };
        let window = decoder.readings.get_mut(&oid).and_then(|reading| reading.window(id));
        if window.is_some_and(|window| window.is_too_early(&snapshot)) {
            // Whoever waits for its standby is waited for, without being asked all the time.
            std::thread::sleep(std::time::Duration::from_millis(10));
            return self.restart(decoder, id);
        }
        let Defined { shape, definition } = defined;
        let Some(mark) = decoder.tables.get_mut(&oid) else { return Ok(()) };
        let stamp = definition.stamp(&decoder.options.rules);
        let is_renamed = (&mark.namespace, &mark.relation) != (&published.namespace, &published.relation);
        let is_other = is_renamed || mark.definition.as_ref().is_some_and(|known| *known != stamp);
        if is_other && decoder.defined_at.get(&oid).is_some_and(|at| place < *at) {
            // It is older than what the log has told since.
            return self.restart(decoder, id);
        }
        if is_renamed || mark.definition.as_ref() != Some(&stamp) {
            // A look that began before is older than this.
            decoder.redefined_at = decoder.redefined_at.max(place);
        }
        if is_renamed {
            decoder.rename(&[(oid, published.namespace.clone(), published.relation.clone())]);
            // Under the same name here its reading goes on.
            return if decoder.called_off.contains(&oid) { Ok(()) } else { self.restart(decoder, id) };
        }
        if mark.key != shape.table.key {
            decoder.read_anew(oid, Reason::new("key-changed", "its key is another one"));
            return Ok(());
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
                    return self.restart(decoder, id);
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
                decoder.redefine(oid, shape, definition, place);
                if decoder.reshaped.contains(&oid) || decoder.called_off.contains(&oid) {
                    return Ok(());
                }
            }
        }
        decoder.describe(oid, &shape.table);
        if !decoder.begin_appending(oid, &snapshot) {
            return self.restart(decoder, id);
        }
        if let (Some(lane), Some(reading)) = (self.lanes.get_mut(&id), decoder.readings.get_mut(&oid)) {
            reading.has_begun = true;
            lane.chunk = Some(Chunk { snapshot, shape: shape.clone() });
        }
        Ok(())
    }

    fn rows(&mut self, decoder: &mut Decoder, id: usize, rows: Vec<Change>, last: Vec<String>) {
        let Some(Lane { oid, until, chunk: Some(chunk), .. }) = self.lanes.get(&id) else { return };
        // The log may have described another form since the chunk began; its rows are of the chunk's.
        decoder.describe(*oid, &chunk.shape.table);
        *decoder.rows_read.entry(*oid).or_default() += rows.len() as u64;
        if let Some(reading) = decoder.readings.get_mut(oid) {
            for row in rows {
                if let Some(row) = reading.judge(id, &chunk.snapshot, row) {
                    decoder.out.push(Step::Change(row));
                }
            }
            let lacking = !reading.lacking.is_empty();
            if let Some(mark) = decoder.tables.get_mut(oid) {
                if !last.is_empty() {
                    mark.advance(until.as_ref(), last);
                }
                mark.again = lacking;
            }
        }
        decoder.tables_changed();
    }

    /// A lane has read its range to the end.
    fn ended(&mut self, decoder: &mut Decoder, id: usize) -> Result<(), FeedError> {
        let Some(lane) = self.lanes.get(&id) else { return Ok(()) };
        let (oid, until) = (lane.oid, lane.until.clone());
        self.release(decoder, id);
        let (Some(mark), Some(reading)) = (decoder.tables.get_mut(&oid), decoder.readings.get_mut(&oid)) else {
            return Ok(());
        };
        if !mark.finish(until.as_ref()) {
            decoder.tables_changed();
            return Ok(());
        }
        mark.late = false;
        if !reading.lacking.is_empty() {
            reading.lacking.read_once();
            reading.is_split = true;
            decoder.tables_changed();
            return self.start(decoder, oid, KeyRange::default());
        }
        mark.again = false;
        mark.reason = None;
        mark.state = ReadState::Following;
        decoder.end_reading(oid);
        if let Some(table) = decoder.described(oid) {
            decoder.out.push(Step::ReadDone(table));
        }
        decoder.tables_changed();
        Ok(())
    }
}
