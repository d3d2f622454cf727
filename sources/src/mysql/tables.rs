//! The tables that are captured: how far each is read, and the reading of one beside the log.

use std::collections::HashMap;
use std::sync::Arc;

use super::catalog::{self, OWN_DATABASES};
use super::checkpoint::{Name, Reading, TableLine};
use super::connection::stop;
use super::follow::{Follower, away};
use super::form::Form;
use super::reading::{Chunk, Order, Request};
use super::table_map::MapColumn;
use crate::change::{Action, Change, Step, Table};
use crate::feed::FeedError;
use crate::rules::Treatment;

/// How many keys may change while a chunk waits for the log, before it is thrown away and read again.
const CHANGED_MAX: usize = 1_000_000;

/// How many rows the first chunk of a table has, whose width is not known yet.
const FIRST_ROWS: usize = 2_000;

/// A captured table.
pub(super) struct Tracked {
    pub(super) line: TableLine,
    pub(super) rows_read: u64,
    /// As it was last described in this run.
    pub(super) described: Option<(String, Arc<Table>)>,
    /// Its last table map, and the form that was made of it. None once a statement may have changed it.
    pub(super) form: Option<(Vec<u8>, Arc<Form>)>,
}

impl Tracked {
    fn new(reading: Reading) -> Tracked {
        let line = TableLine { form: String::new(), reading };
        Tracked { line, rows_read: 0, described: None, form: None }
    }

    /// A table of a checkpoint; `reread` says that what was captured of it no longer counts.
    pub(super) fn resumed(line: TableLine, reread: bool) -> Tracked {
        let mut table = Tracked::new(if reread { Reading::Waiting } else { line.reading });
        table.line.form = line.form;
        table
    }
}

/// What a table's id in the log stands for.
pub(super) enum Mapped {
    Captured {
        name: Name,
        form: Arc<Form>,
    },
    /// Not captured; its rows are counted.
    Other(Vec<MapColumn>),
}

/// The table that is being read.
pub(super) struct Active {
    name: Name,
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
}

impl Follower {
    pub(super) fn captures(&self, namespace: &str, relation: &str) -> bool {
        !OWN_DATABASES.iter().any(|own| own.eq_ignore_ascii_case(namespace)) && self.rules.captures(namespace, relation)
    }

    /// Adds tables that are there and not known yet.
    pub(super) async fn find_tables(&mut self) -> Result<(), FeedError> {
        for name in catalog::tables(&mut self.catalog).await? {
            if self.captures(&name.0, &name.1) {
                self.track(name);
            }
        }
        Ok(())
    }

    /// Knows a table from here on; a new one will be read.
    pub(super) fn track(&mut self, name: Name) -> &mut Tracked {
        let reading = if self.options.snapshot { Reading::Waiting } else { Reading::Following };
        self.tables.entry(name).or_insert_with(|| Tracked::new(reading))
    }

    /// Forgets a table, whose rows are gone.
    pub(super) fn forget(&mut self, name: &Name) {
        self.stop_reading(name);
        self.tables.remove(name);
        self.outlook().forget(name);
        self.moved();
    }

    /// Reads a table from its beginning, because the log does not tell what became of its rows.
    pub(super) fn read_anew(&mut self, name: &Name) {
        self.stop_reading(name);
        if let Some(table) = self.tables.get_mut(name) {
            table.line.reading = Reading::Waiting;
            table.line.form = String::new();
        }
        self.moved();
    }

    fn stop_reading(&mut self, name: &Name) {
        if self.active.as_ref().is_some_and(|active| active.name == *name) {
            self.active = None;
        }
    }

    /// Remembers that a row has changed, for what is being read of its table.
    #[inline]
    pub(super) fn note(&mut self, name: &Name, key: &[String], order: Order) {
        if let Some(active) = &mut self.active
            && active.name == *name
        {
            active.changed.insert(key.to_vec(), order);
        }
    }

    /// Goes on reading tables, as far as that does not have to wait. Only between transactions. Answers whether there
    /// is more to do at once.
    pub(super) async fn reading(&mut self) -> Result<bool, FeedError> {
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
        let in_the_middle = |table: &&Tracked| matches!(table.line.reading, Reading::After(_));
        let waiting = |table: &&Tracked| table.line.reading == Reading::Waiting;
        let next = self.tables.iter().find(|(_, table)| in_the_middle(table));
        let next = next.or_else(|| self.tables.iter().find(|(_, table)| waiting(table)));
        let Some((name, _)) = next else { return Ok(false) };
        let name = name.clone();
        let catalog = catalog::table(&mut self.catalog, self.server.mariadb, &name.0, &name.1).await?;
        let Some(catalog) = catalog else {
            // It was dropped meanwhile, and the log will come to that, or has. What is left to read of it is nothing.
            if let Some(table) = self.tables.get_mut(&name) {
                table.line.reading = Reading::Following;
            }
            return Ok(true);
        };
        let form = Form::of_catalog(&name.0, &name.1, &catalog, &self.rules, self.server.connector());
        let form = form.map_err(|problem| stop("table", problem.to_string()))?;
        let hidden = form.key.iter().any(|&place| form.columns[place].treatment != Treatment::Keep);
        let Some(table) = self.tables.get_mut(&name) else { return Ok(true) };
        let mut after = None;
        match &table.line.reading {
            Reading::After(key) if table.line.form == form.id => {
                let literal = |(&place, text): (&usize, &String)| form.columns[place].codec.literal(text);
                after = form.key.iter().zip(key).map(literal).collect::<Option<Vec<String>>>();
                after = after.filter(|after| !after.is_empty());
            }
            // New, or no longer as it was when its reading began.
            _ => {
                table.line = TableLine { form: form.id.clone(), reading: Reading::After(Vec::new()) };
                table.described = Some((form.id.clone(), Arc::clone(&form.table)));
                self.steps.push(Step::Describe(Arc::clone(&form.table)));
                self.steps.push(Step::ReadBegan(Arc::clone(&form.table)));
            }
        }
        self.generation += 1;
        let generation = self.generation;
        let limit = FIRST_ROWS.min(self.options.chunk_rows).max(1);
        let changed = HashMap::new();
        self.active = Some(Active { name, generation, changed, chunk: None, asked: None, limit, hidden });
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
        let Some(form) =
            chunk.form.filter(|form| self.tables.get(&name).is_some_and(|table| table.line.form == form.id))
        else {
            // Gone, or changed: from the beginning, with the form that it has now.
            self.read_anew(&name);
            return Ok(true);
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
        for (at, (image, key)) in chunk.rows.into_iter().enumerate() {
            let changed = self.active.as_ref().and_then(|active| active.changed.get(&key));
            let news = changed.is_none_or(|&at| at <= since || at <= low);
            let Some(table) = self.tables.get_mut(&name) else { return Ok(true) };
            // Where a portion may end.
            let full = self.step_bytes + image.len() + 64 >= self.options.portion_bytes;
            if !hidden && (full || at + 1 == count) {
                table.line.reading = Reading::After(key.clone());
            }
            table.rows_read += 1;
            if news {
                self.step_bytes += image.len() + 64;
                self.steps.push(Step::Change(Change {
                    table: Arc::clone(&form.table),
                    action: Action::Read,
                    key,
                    image: Some(image),
                    unchanged: Vec::new(),
                    previous_key: None,
                    before: None,
                    position: None,
                    transaction: None,
                    committed_at_ms: None,
                }));
            }
            if full && at + 1 < count {
                self.flush().await?;
            }
        }
        if chunk.end {
            if let Some(table) = self.tables.get_mut(&name) {
                table.line.reading = Reading::Following;
            }
            self.steps.push(Step::ReadDone(Arc::clone(&form.table)));
            self.active = None;
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
