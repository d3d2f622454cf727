//! The tables that are captured: how far each is read, and the reading of one beside the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::catalog::{self, Cascade};
use super::checkpoint::{Name, Reading, TableLine};
use super::follow::{Follower, away};
use super::form::Form;
use super::keyless::Appending;
use super::reading::{Chunk, Found, Order, Request};
use super::table_map::MapColumn;
use crate::change::{Action, Change, Step, Table};
use crate::feed::{FeedError, Hold, Reason};
use crate::keyless::identify;
use crate::rules::Treatment;

/// How many keys may change while a chunk waits for the log, before it is thrown away and read again.
const CHANGED_MAX: usize = 1_000_000;

/// How many rows the first chunk of a table has, whose width is not known yet.
const FIRST_ROWS: usize = 2_000;

/// A captured table.
pub(super) struct Tracked {
    pub(super) line: TableLine,
    /// Somebody wants it not to be followed.
    pub(super) held: Option<Hold>,
    /// Rows read since its reading began.
    pub(super) rows_read: u64,
    pub(super) rows_estimated: Option<u64>,
    /// As it was last described in this run.
    pub(super) described: Option<(String, Arc<Table>)>,
    /// Its last table map, and the form that was made of it. None once a statement may have changed it.
    pub(super) form: Option<(Vec<u8>, Arc<Form>)>,
    /// A table map whose rows can't be told, and why.
    pub(super) untold: Option<(Vec<u8>, Reason)>,
    /// Foreign keys by which its rows change without a word in the log; none if that was not looked at.
    pub(super) cascades: Option<Vec<Cascade>>,
    /// Where the log ended when the table was not there.
    pub(super) missing_since: Option<Order>,
    /// When it may be read again.
    pub(super) rests_until: Option<Instant>,
}

impl Tracked {
    pub(super) fn new(reading: Reading) -> Tracked {
        Tracked {
            line: TableLine::new(reading),
            held: None,
            rows_read: 0,
            rows_estimated: None,
            described: None,
            form: None,
            untold: None,
            cascades: None,
            missing_since: None,
            rests_until: None,
        }
    }
}

/// What a table's id in the log stands for.
pub(super) enum Mapped {
    Captured {
        name: Name,
        form: Arc<Form>,
    },
    /// Not captured, or not now; its rows are counted.
    Other {
        name: Name,
        columns: Vec<MapColumn>,
    },
    /// Captured, but what its rows hold can't be told here: it has to be read.
    Untold {
        name: Name,
        columns: Vec<MapColumn>,
        reason: Reason,
    },
}

impl Mapped {
    pub(super) fn name(&self) -> &Name {
        let (Mapped::Captured { name, .. } | Mapped::Other { name, .. } | Mapped::Untold { name, .. }) = self;
        name
    }

    /// How its rows are laid out.
    pub(super) fn layout(&self) -> &[MapColumn] {
        match self {
            Mapped::Captured { form, .. } => &form.layout,
            Mapped::Other { columns, .. } | Mapped::Untold { columns, .. } => columns,
        }
    }
}

/// The table that is being read.
pub(super) struct Active {
    pub(super) name: Name,
    generation: u64,
    /// What has changed since the oldest chunk that is on its way was asked for, and where.
    pub(super) changed: HashMap<Vec<String>, Order>,
    /// A chunk that waits until the log has been followed far enough.
    pub(super) chunk: Option<Chunk>,
    /// When the chunk on its way was asked for.
    asked: Option<Order>,
    limit: usize,
    /// The key's text may not leave the feed, so neither does a place in the middle of the table.
    hidden: bool,
    began: Instant,
    /// What the reading of a table without a key needs.
    pub(super) appending: Option<Appending>,
}

impl Follower {
    /// Ends a reading of a table without a word.
    pub(super) fn stop_reading(&mut self, name: &Name) {
        if self.active.as_ref().is_some_and(|active| active.name == *name) {
            self.active = None;
            self.unread = true;
            self.wanted.store(0, Ordering::Relaxed);
        }
    }

    /// Whether something is known of a table's rows that a change without a word in the log makes wrong. That is so from
    /// the beginning of its reading on: rows that change from there on count as read.
    pub(super) fn has_read(&self, name: &Name) -> bool {
        let reading = self.tables.get(name).map(|table| &table.line.reading);
        matches!(reading, Some(Reading::Following | Reading::After(_)))
    }

    /// Remembers that a row has changed, for what is being read of its table.
    #[inline]
    pub(super) fn note(&mut self, name: &Name, key: &[String], order: Order) {
        if let Some(active) = &mut self.active
            && active.name == *name
        {
            active.changed.insert(key.to_vec(), order);
        }
        self.audits.note(name, key, order);
    }

    /// Goes on reading tables, as far as that does not have to wait. Only between transactions. Answers whether there
    /// is more to do at once.
    pub(super) async fn reading(&mut self) -> Result<bool, FeedError> {
        if self.begin_appending() {
            return Ok(true);
        }
        let Some(active) = &mut self.active else { return self.begin_reading().await };
        if active.changed.len() > CHANGED_MAX {
            let name = active.name.clone();
            self.stop_reading(&name);
            return Ok(true);
        }
        match &active.chunk {
            Some(chunk) if self.place.order() >= chunk.high => {}
            _ => return Ok(false),
        }
        let Some(chunk) = active.chunk.take() else { return Ok(false) };
        self.hand_out(chunk).await
    }

    /// Begins with the next table that has to be read, or goes on with one in the middle.
    async fn begin_reading(&mut self) -> Result<bool, FeedError> {
        if !self.unread || self.asked > 0 {
            return Ok(false);
        }
        let place = self.place.order();
        let now = Instant::now();
        let ready = |table: &&Tracked| {
            table.held.is_none()
                && table.missing_since.is_none_or(|since| place >= since)
                && table.rests_until.is_none_or(|until| now >= until)
        };
        let in_the_middle = |table: &&Tracked| matches!(table.line.reading, Reading::After(_)) && ready(table);
        let waiting = |table: &&Tracked| table.line.reading == Reading::Waiting && ready(table);
        let next = self.tables.iter().find(|(_, table)| in_the_middle(table));
        let next = next.or_else(|| self.tables.iter().find(|(_, table)| waiting(table)));
        let Some((name, _)) = next else {
            self.unread = false;
            return Ok(false);
        };
        let name = name.clone();
        let form = match self.look_at(&name).await? {
            Ok(Some(form)) => form,
            Ok(None) => {
                self.missed(&name).await?;
                return Ok(true);
            }
            Err(reason) => {
                self.stop_table(&name, reason);
                return Ok(true);
            }
        };
        let estimate = catalog::estimate(&mut self.catalog, &name).await?;
        let hidden = form.key.iter().any(|&place| form.columns[place].treatment != Treatment::Keep);
        let Some(table) = self.tables.get_mut(&name) else { return Ok(true) };
        table.missing_since = None;
        table.rows_estimated = estimate;
        let mut after = None;
        match &table.line.reading {
            Reading::After(key) if table.line.form == form.id && !form.table.is_append_only() => {
                let literal = |(&place, text): (&usize, &String)| form.columns[place].codec.literal(text);
                after = form.key.iter().zip(key).map(literal).collect::<Option<Vec<String>>>();
                after = after.filter(|after| !after.is_empty());
            }
            // New, or no longer as it was when its reading began.
            _ => {
                table.line.form.clone_from(&form.id);
                table.line.reading = Reading::After(Vec::new());
                table.line.again = false;
                table.rows_read = 0;
                table.described = Some((form.id.clone(), Arc::clone(&form.table)));
                self.steps.push(Step::Describe(Arc::clone(&form.table)));
                // Without a key it begins where its snapshot is.
                if !form.table.is_append_only() {
                    self.steps.push(Step::ReadBegan(Arc::clone(&form.table)));
                }
            }
        }
        self.generation += 1;
        let generation = self.generation;
        let limit = FIRST_ROWS.min(self.options.chunk_rows).max(1);
        let changed = HashMap::new();
        let began = Instant::now();
        self.show(&name);
        let appending = form.table.is_append_only().then(Appending::default);
        self.wanted.store(generation, Ordering::Relaxed);
        self.active =
            Some(Active { name, generation, changed, chunk: None, asked: None, limit, hidden, began, appending });
        self.moved();
        self.ask(after).await?;
        Ok(true)
    }

    async fn ask(&mut self, after: Option<Vec<String>>) -> Result<(), FeedError> {
        let since = self.place.order();
        let since_seen = self.seen.clone();
        let Some(active) = &mut self.active else { return Ok(()) };
        active.asked = Some(since);
        let (name, generation, limit) = (active.name.clone(), active.generation, active.limit);
        let request = Request { name, generation, after, since, since_seen, limit };
        self.asked += 1;
        self.requests.send(request).await.map_err(|_| away("the reader of tables has ended"))
    }

    /// Keeps a chunk that came until the log has been followed far enough.
    pub(super) fn accept(&mut self, chunk: Chunk) {
        if let Some(active) = &mut self.active
            && active.generation == chunk.generation
        {
            active.asked = None;
            active.chunk = Some(chunk);
        }
    }

    /// Hands out a chunk whose place in the log has been reached, but for rows that the log has changed since.
    async fn hand_out(&mut self, chunk: Chunk) -> Result<bool, FeedError> {
        let name = chunk.name.clone();
        let form = match chunk.found {
            Found::Rows(form) if self.tables.get(&name).is_some_and(|table| table.line.form == form.id) => form,
            // Changed, or gone: from the beginning, with the form that it has now.
            Found::Rows(_) | Found::Nothing | Found::Snapshot => {
                self.stop_reading(&name);
                if let Some(table) = self.tables.get_mut(&name) {
                    table.line.reading = Reading::Waiting;
                }
                return Ok(true);
            }
            Found::Trouble(reason) => {
                self.stop_table(&name, reason);
                return Ok(true);
            }
        };
        // The next chunk is read while this one is handed out.
        if !chunk.end {
            if let Some(active) = &mut self.active {
                let each = (chunk.bytes / chunk.rows.len().max(1)).max(1);
                active.limit = (self.options.chunk_bytes / each).clamp(1, self.options.chunk_rows.max(1));
            }
            self.ask(chunk.last).await?;
        }
        self.describe(&name, &form);
        let (since, low) = (chunk.since, chunk.low);
        let hidden = self.active.as_ref().is_some_and(|active| active.hidden);
        let count = chunk.rows.len();
        for (at, (mut image, mut key)) in chunk.rows.into_iter().enumerate() {
            let appending = self.active.as_mut().and_then(|active| active.appending.as_mut());
            let is_append_only = appending.is_some();
            if let Some(appending) = appending {
                let id = appending.next_id();
                identify(&mut image, &id);
                key = vec![id];
            }
            let changed = self.active.as_ref().and_then(|active| active.changed.get(&key));
            let news = changed.is_none_or(|&at| at <= since || at <= low);
            let Some(table) = self.tables.get_mut(&name) else { return Ok(true) };
            // Where a portion may end.
            let full = self.step_bytes + image.len() + 64 >= self.options.portion_bytes;
            if !hidden && !is_append_only && (full || at + 1 == count) {
                table.line.reading = Reading::After(key.clone());
            }
            table.rows_read += 1;
            if news {
                self.step_bytes += image.len() + 64;
                let read = Change::unlogged(Arc::clone(&form.table), Action::Read, key, Some(image));
                self.steps.push(Step::Change(read));
            }
            if full && at + 1 < count {
                self.flush().await?;
            }
        }
        if chunk.end {
            let took = self.active.take().map(|active| active.began.elapsed()).unwrap_or_default();
            if let Some(table) = self.tables.get_mut(&name) {
                table.line.known = true;
                if std::mem::take(&mut table.line.again) {
                    table.line.reading = Reading::Waiting;
                } else {
                    table.line.reading = Reading::Following;
                    table.line.reason = None;
                }
            }
            self.steps.push(Step::ReadDone(Arc::clone(&form.table)));
            self.rest(&name, took);
            self.unread = true;
            self.show(&name);
        } else if let Some(active) = &mut self.active {
            // Only the chunk that has just been asked for counts from here on.
            let since = active.asked.unwrap_or_default();
            active.changed.retain(|_, at| *at > since);
        }
        self.moved();
        Ok(true)
    }

    /// Describes a table unless it was described so.
    #[inline]
    pub(super) fn describe(&mut self, name: &Name, form: &Form) {
        let Some(table) = self.tables.get_mut(name) else { return };
        if table.line.form.is_empty() {
            table.line.form.clone_from(&form.id);
        }
        if table.described.as_ref().is_none_or(|(id, _)| *id != form.id) {
            table.described = Some((form.id.clone(), Arc::clone(&form.table)));
            self.steps.push(Step::Describe(Arc::clone(&form.table)));
        }
    }

    /// A table as it was last described, or as much of it as its name tells, for what concerns the whole table.
    pub(super) fn known(&self, name: &Name) -> Arc<Table> {
        let described = self.tables.get(name).and_then(|table| table.described.as_ref());
        described.map_or_else(
            || {
                Arc::new(Table {
                    name: self.rules.captured_name(&name.0, &name.0, &name.1),
                    connector: self.server.connector(),
                    database: name.0.clone(),
                    namespace: name.0.clone(),
                    relation: name.1.clone(),
                    columns: Vec::new(),
                    key: Vec::new(),
                })
            },
            |(_, table)| Arc::clone(table),
        )
    }
}
