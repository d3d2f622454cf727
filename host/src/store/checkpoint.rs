//! The views on disk: `views.redb`, an embedded B-tree that holds row state and all other facts as of one sequence
//! number.
//!
//! It is not the truth, the log is: a checkpoint may be late, and the file may be thrown away while the log still
//! reaches back to its first event. Row state that the log no longer covers exists only here.
//!
//! Tables of the file, format version 2:
//! - `meta`: "format", "sequence", "timestamp_ms", "dropped", and the retention in force ("keep_events",
//!   "unacknowledged_events"), so that a replay drops what was dropped before; `recent` counts as (second, events).
//! - `tables`: name → id, 4 counts. `schemas`: (table id, version) → definition. `positions`, `cursors`: by name.
//! - `collections`: name → id, of those that have documents; `meta` has "collections_made", the ids ever used. They begin
//!   at 2^31, so that documents are rows which no table has.
//! - `rows`: table or collection id (big-endian) and key → a page (`pages`) of the rows from this key up to the next page's. The first
//!   page of a table has the empty key, so that every key has its page.
//!
//! Version 1 had no collections, and is read as what it is: a file without any.

use std::fmt::Debug;
use std::iter::Peekable;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::facts::{Facts, Retention, Table};
use super::log::codec::Reader;
use super::log::frame::Damage;
use super::pages;
use super::rows::Overlay;
use super::{Row, SchemaVersion, Sequence, StoreError};

/// The file's name in the data folder.
pub(crate) const FILE: &str = "views.redb";
/// The format this binary writes, and the newest it reads.
pub(crate) const VERSION: u64 = 2;

/// How many pages one commit changes at most, about: what a checkpoint needs of room and memory beside what it changes.
const PAGES_PER_COMMIT: usize = if cfg!(test) { 3 } else { 4096 };

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const RECENT: TableDefinition<'_, u64, u64> = TableDefinition::new("recent");
const TABLES: TableDefinition<'_, &str, (u32, [u64; 4])> = TableDefinition::new("tables");
const SCHEMAS: TableDefinition<'_, (u32, u32), &[u8]> = TableDefinition::new("schemas");
const POSITIONS: TableDefinition<'_, &str, &str> = TableDefinition::new("positions");
const CURSORS: TableDefinition<'_, &str, u64> = TableDefinition::new("cursors");
const COLLECTIONS: TableDefinition<'_, &str, u32> = TableDefinition::new("collections");
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// What redb says, its kinds aside: none of them is handled differently.
#[derive(Debug)]
pub(crate) struct ViewsError(pub(crate) String);

impl<E: Into<redb::Error>> From<E> for ViewsError {
    fn from(error: E) -> Self {
        Self(error.into().to_string())
    }
}

/// What a checkpoint file was found to be.
#[derive(Debug)]
pub(crate) enum Found {
    /// No checkpoint was ever written.
    Empty,
    /// From a newer version of this program.
    Newer(u64),
    /// Facts, and the retention that was in force.
    Checkpoint(Box<(Facts, Retention)>),
}

/// The file.
#[derive(Debug)]
pub(crate) struct Views {
    db: Database,
    path: Arc<PathBuf>,
}

/// One checkpoint, unchanging as long as it is held.
pub(crate) struct Base {
    /// The newest event in it.
    pub(crate) sequence: Sequence,
    path: Arc<PathBuf>,
    rows: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

fn row_key(table: u32, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + key.len());
    out.extend_from_slice(&table.to_be_bytes());
    out.extend_from_slice(key);
    out
}

impl Views {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: PathBuf, cache_bytes: usize) -> Result<Self, ViewsError> {
        let db = Database::builder().set_cache_size(cache_bytes).create(&path)?;
        Ok(Self { db, path: Arc::new(path) })
    }

    /// Over bytes that are not a plain file (for reading one without changing it).
    pub(crate) fn with_backend(path: PathBuf, backend: impl redb::StorageBackend) -> Result<Self, ViewsError> {
        let db = Database::builder().set_cache_size(8 << 20).create_with_backend(backend)?;
        Ok(Self { db, path: Arc::new(path) })
    }

    /// Reads everything but the rows.
    pub(crate) fn load(&self) -> Result<Found, ViewsError> {
        let read = self.db.begin_read()?;
        let meta = match read.open_table(META) {
            Ok(meta) => meta,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Found::Empty),
            Err(error) => return Err(error.into()),
        };
        let number = |name: &str| -> Result<Option<u64>, ViewsError> { Ok(meta.get(name)?.map(|value| value.value())) };
        match number("format")? {
            Some(1..=VERSION) => {}
            Some(newer) => return Ok(Found::Newer(newer)),
            None => return Ok(Found::Empty),
        }
        let mut facts = Facts {
            sequence: number("sequence")?.unwrap_or_default(),
            timestamp_ms: number("timestamp_ms")?.unwrap_or_default(),
            dropped: number("dropped")?.unwrap_or_default(),
            collections_made: number("collections_made")?.unwrap_or_default() as u32,
            ..Facts::default()
        };
        let retention = Retention {
            events: number("keep_events")?,
            age_ms: None,
            bytes: None,
            unacknowledged_events: number("unacknowledged_events")?.unwrap_or_default(),
        };
        let schemas = read.open_table(SCHEMAS)?;
        for entry in read.open_table(TABLES)?.iter()? {
            let (name, value) = entry?;
            let name: Arc<str> = name.value().into();
            let (id, counts) = value.value();
            let mut versions = Vec::new();
            for entry in schemas.range((id, 0)..=(id, u32::MAX))? {
                let (key, definition) = entry?;
                let definition = Bytes::copy_from_slice(definition.value());
                versions.push(SchemaVersion { table: name.clone(), version: key.value().1, definition });
            }
            facts.schema_generation += versions.len() as u64;
            facts.schema_tables += u32::from(!versions.is_empty());
            facts.tables.insert(name, Arc::new(Table { id, counts, schemas: Arc::new(versions) }));
        }
        for entry in read.open_table(POSITIONS)?.iter()? {
            let (source, position) = entry?;
            facts.positions.insert(source.value().into(), position.value().into());
        }
        for entry in read.open_table(CURSORS)?.iter()? {
            let (subscription, sequence) = entry?;
            facts.cursors.insert(subscription.value().into(), sequence.value());
        }
        match read.open_table(COLLECTIONS) {
            Ok(collections) => {
                for entry in collections.iter()? {
                    let (name, id) = entry?;
                    facts.collections.insert(name.value().into(), id.value());
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let mut recent = Vec::new();
        for entry in read.open_table(RECENT)?.iter()? {
            let (second, events) = entry?;
            recent.push((second.value(), events.value()));
        }
        facts.recent = Arc::new(recent);
        Ok(Found::Checkpoint(Box::new((facts, retention))))
    }

    /// The newest checkpoint's rows.
    pub(crate) fn base(&self, sequence: Sequence) -> Result<Base, ViewsError> {
        let rows = match self.db.begin_read()?.open_table(ROWS) {
            Ok(rows) => Some(rows),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Base { sequence, path: self.path.clone(), rows })
    }

    /// Writes a checkpoint: the changed rows, and what changed of the facts since the last one.
    ///
    /// A large one is committed in parts, the facts with the last, and `partly` gets what is there after each part: a
    /// tree that is never written in place needs room for all that one commit changes. A crash in between is harmless.
    /// The checkpoint then still stands for the sequence number of the one before; the log behind that is replayed, and
    /// sets every row that is ahead to what it already is.
    pub(crate) fn write(
        &self,
        overlay: &Overlay,
        facts: &Facts,
        before: &Facts,
        retention: &Retention,
        mut partly: impl FnMut(Base),
    ) -> Result<(), ViewsError> {
        let mut write = self.begin()?;
        let mut left = PAGES_PER_COMMIT;
        for (&table, changed) in &overlay.tables {
            let mut rows = write.open_table(ROWS)?;
            if changed.is_whole {
                let (from, to) = (row_key(table, &[]), row_key(table + 1, &[]));
                rows.retain_in(&from[..]..&to[..], |_, _| false)?;
            }
            let mut changes = changed.rows.iter().peekable();
            while changes.peek().is_some() {
                if left == 0 {
                    drop(rows);
                    write.commit()?;
                    partly(self.base(before.sequence)?);
                    write = self.begin()?;
                    left = PAGES_PER_COMMIT;
                    rows = write.open_table(ROWS)?;
                }
                write_page(&mut rows, table, &mut changes)?;
                left -= 1;
            }
        }
        // Also without a row, so that the table is there to be read.
        drop(write.open_table(ROWS)?);
        write_facts(&write, facts, before, retention)?;
        write.commit()?;
        Ok(())
    }

    fn begin(&self) -> Result<WriteTransaction, ViewsError> {
        let mut write = self.db.begin_write()?;
        // A start after a crash then needs no pass over the whole file.
        write.set_quick_repair(true);
        Ok(write)
    }
}

type Changes<'a> = Peekable<imbl::ordmap::Iter<'a, Bytes, Option<Bytes>, imbl::shared_ptr::DefaultSharedPtr>>;

/// Takes the next changes of a table, as many as belong to one page, and rewrites that page.
fn write_page(
    rows: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    table: u32,
    changes: &mut Changes<'_>,
) -> Result<(), ViewsError> {
    let Some((key, _)) = changes.peek() else { return Ok(()) };
    let page = page_of(rows, table, key)?;
    let (fence, page, end) = page.unwrap_or_else(|| (row_key(table, &[]), Bytes::new(), None));
    let mut kept: Vec<(&[u8], &[u8])> = Vec::with_capacity(64);
    let mut reader = Reader { bytes: &page, at: 0 };
    let mut row = pages::next_row(&mut reader).map_err(in_page)?;
    while let Some((key, image)) = changes.next_if(|(key, _)| end.as_ref().is_none_or(|end| key[..] < end[4..])) {
        while let Some(before) = row.filter(|(before, _)| *before <= &key[..]) {
            if before.0 != &key[..] {
                kept.push(before);
            }
            row = pages::next_row(&mut reader).map_err(in_page)?;
        }
        if let Some(image) = image {
            kept.push((key, image));
        }
    }
    while let Some(rest) = row {
        kept.push(rest);
        row = pages::next_row(&mut reader).map_err(in_page)?;
    }
    let packed = pages::pack_rows(&kept);
    if packed.is_empty() {
        rows.remove(&fence[..])?;
    }
    for (i, (first, page)) in packed.into_iter().enumerate() {
        // The first of them takes the old one's place, whatever its first row is now.
        if i == 0 {
            rows.insert(&fence[..], &page[..])?;
        } else {
            rows.insert(&row_key(table, first)[..], &page[..])?;
        }
    }
    Ok(())
}

/// A page with its key and the next page's.
type Page = (Vec<u8>, Bytes, Option<Vec<u8>>);

/// The page that a row belongs to, none when it comes before the table's first.
fn page_of(
    rows: &redb::Table<'_, &'static [u8], &'static [u8]>,
    table: u32,
    key: &[u8],
) -> Result<Option<Page>, ViewsError> {
    let (from, to, end) = (row_key(table, &[]), row_key(table, key), row_key(table + 1, &[]));
    let Some(found) = rows.range(&from[..]..=&to[..])?.next_back() else {
        // The first page may have been removed while later ones are left: what comes before them is a page of its own.
        let next = rows.range(&from[..]..&end[..])?.next().transpose()?.map(|(key, _)| key.value().to_vec());
        return Ok(next.map(|next| (from, Bytes::new(), Some(next))));
    };
    let (fence, page) = found?;
    let fence = fence.value().to_vec();
    let next = rows.range::<&[u8]>((Bound::Excluded(&fence[..]), Bound::Excluded(&end[..])))?.next().transpose()?;
    let page = pages::unpack(page.value()).map_err(in_page)?;
    Ok(Some((fence, page, next.map(|(key, _)| key.value().to_vec()))))
}

fn in_page(Damage(reason): Damage) -> ViewsError {
    ViewsError(reason.to_owned())
}

fn write_facts(
    write: &WriteTransaction,
    facts: &Facts,
    before: &Facts,
    retention: &Retention,
) -> Result<(), ViewsError> {
    let mut meta = write.open_table(META)?;
    for (name, value) in [
        ("format", Some(VERSION)),
        ("sequence", Some(facts.sequence)),
        ("timestamp_ms", Some(facts.timestamp_ms)),
        ("dropped", Some(facts.dropped)),
        ("collections_made", Some(u64::from(facts.collections_made))),
        ("keep_events", retention.events),
        ("unacknowledged_events", Some(retention.unacknowledged_events)),
    ] {
        match value {
            Some(value) => meta.insert(name, value)?,
            None => meta.remove(name)?,
        };
    }
    let mut recent = write.open_table(RECENT)?;
    recent.retain(|_, _| false)?;
    for (second, events) in facts.recent.iter() {
        recent.insert(second, events)?;
    }
    let mut tables = write.open_table(TABLES)?;
    let mut schemas = write.open_table(SCHEMAS)?;
    for (name, table) in &facts.tables {
        let known = before.tables.get(name);
        if known.is_some_and(|known| Arc::ptr_eq(known, table)) {
            continue;
        }
        tables.insert(&**name, (table.id, table.counts))?;
        if known.is_none_or(|known| !Arc::ptr_eq(&known.schemas, &table.schemas)) {
            for schema in table.schemas.iter() {
                schemas.insert((table.id, schema.version), &schema.definition[..])?;
            }
        }
    }
    let mut positions = write.open_table(POSITIONS)?;
    for (source, position) in &facts.positions {
        if before.positions.get(source) != Some(position) {
            positions.insert(&**source, &**position)?;
        }
    }
    for source in before.positions.keys() {
        if !facts.positions.contains_key(source) {
            positions.remove(&**source)?;
        }
    }
    let mut cursors = write.open_table(CURSORS)?;
    for (subscription, sequence) in &facts.cursors {
        if before.cursors.get(subscription) != Some(sequence) {
            cursors.insert(&**subscription, sequence)?;
        }
    }
    for subscription in before.cursors.keys() {
        if !facts.cursors.contains_key(subscription) {
            cursors.remove(&**subscription)?;
        }
    }
    let mut collections = write.open_table(COLLECTIONS)?;
    for (name, id) in &facts.collections {
        if before.collections.get(name) != Some(id) {
            collections.insert(&**name, id)?;
        }
    }
    for name in before.collections.keys() {
        if !facts.collections.contains_key(name) {
            collections.remove(&**name)?;
        }
    }
    Ok(())
}

/// The page that was looked at last, and how far: keys are looked for in ascending order.
#[derive(Debug)]
pub(crate) struct LastPage {
    fence: Vec<u8>,
    end: End,
    page: Bytes,
    at: usize,
}

/// Where the rows of a page end.
#[derive(Debug)]
enum End {
    /// Not looked up for a page that only one key was looked for in.
    Unknown,
    /// Before this key.
    Before(Vec<u8>),
    /// With the table.
    Table,
}

impl LastPage {
    fn covers(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Unknown => false,
            End::Before(end) => key < &end[..],
            End::Table => true,
        }
    }

    fn find(&mut self, key: &[u8]) -> Result<Option<Bytes>, Damage> {
        let (image, at) = pages::find(&self.page, self.at, key)?;
        self.at = at;
        Ok(image)
    }
}

impl Base {
    /// Without any row.
    pub(crate) fn none() -> Self {
        Self { sequence: 0, path: Arc::default(), rows: None }
    }

    /// One row's image. Keeps the page that it looked at in `last`, for the next key of the same table, which comes
    /// after this one.
    pub(crate) fn get(&self, table: u32, key: &[u8], last: &mut Option<LastPage>) -> Result<Option<Bytes>, StoreError> {
        let Some(rows) = &self.rows else { return Ok(None) };
        let damaged = |Damage(reason)| self.damaged(reason);
        if let Some(last) = last.as_mut().filter(|last| last.covers(key)) {
            return last.find(key).map_err(damaged);
        }
        let (from, to) = (row_key(table, &[]), row_key(table, key));
        let found = rows.range(&from[..]..=&to[..]).map_err(|error| self.unreadable(error))?.next_back();
        let Some(found) = found else { return Ok(None) };
        let (fence, page) = found.map_err(|error| self.unreadable(error))?;
        match last {
            Some(last) if last.fence[..] == *fence.value() => {
                // The second key of this page: there may be more of them, so it is worth knowing where it ends.
                let end = row_key(table + 1, &[]);
                let mut behind = rows.range(&last.fence[..]..&end[..]).map_err(|error| self.unreadable(error))?.skip(1);
                last.end = match behind.next() {
                    Some(next) => End::Before(next.map_err(|error| self.unreadable(error))?.0.value()[4..].to_vec()),
                    None => End::Table,
                };
            }
            _ => {
                let page = pages::unpack(page.value()).map_err(damaged)?;
                *last = Some(LastPage { fence: fence.value().to_vec(), end: End::Unknown, page, at: 0 });
            }
        }
        last.as_mut().map_or(Ok(None), |last| last.find(key)).map_err(damaged)
    }

    /// Rows in the order of their keys, after the given one.
    pub(crate) fn scan(&self, table: u32, after: Option<&[u8]>) -> Result<BaseRows, StoreError> {
        let Some(rows) = &self.rows else { return Ok(BaseRows::none()) };
        let end = row_key(table + 1, &[]);
        let mut from = row_key(table, &[]);
        if let Some(after) = after {
            let to = row_key(table, after);
            let found = rows.range(&from[..]..=&to[..]).map_err(|error| self.unreadable(error))?.next_back();
            if let Some(found) = found {
                from = found.map_err(|error| self.unreadable(error))?.0.value().to_vec();
            }
        }
        let pages = rows.range(&from[..]..&end[..]).map_err(|error| self.unreadable(error))?;
        Ok(BaseRows {
            pages: Some(pages),
            after: after.map(<[u8]>::to_vec),
            ready: Vec::new().into_iter(),
            path: self.path.clone(),
        })
    }

    fn unreadable(&self, error: redb::StorageError) -> StoreError {
        unreadable(&self.path, &error)
    }

    fn damaged(&self, reason: &str) -> StoreError {
        damaged(&self.path, reason)
    }
}

fn unreadable(path: &Path, error: &redb::StorageError) -> StoreError {
    StoreError::Corrupt(format!("{} cannot be read: {error}", path.display()).into())
}

fn damaged(path: &Path, reason: &str) -> StoreError {
    StoreError::Corrupt(
        format!(
            "{} is damaged: {reason}. While the log reaches back to the first event, stop, remove this file and start \
             again: it is rebuilt",
            path.display()
        )
        .into(),
    )
}

/// Rows of one table, page by page.
pub(crate) struct BaseRows {
    pages: Option<redb::Range<'static, &'static [u8], &'static [u8]>>,
    after: Option<Vec<u8>>,
    ready: std::vec::IntoIter<Row>,
    path: Arc<PathBuf>,
}

impl BaseRows {
    pub(crate) fn none() -> Self {
        Self { pages: None, after: None, ready: Vec::new().into_iter(), path: Arc::default() }
    }
}

impl Iterator for BaseRows {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.ready.next() {
                return Some(Ok(row));
            }
            let (_, page) = match self.pages.as_mut()?.next()? {
                Ok(page) => page,
                Err(error) => return Some(Err(unreadable(&self.path, &error))),
            };
            let mut rows = Vec::with_capacity(32);
            let result =
                pages::unpack(page.value()).and_then(|page| pages::rows_after(&page, self.after.as_deref(), &mut rows));
            if let Err(Damage(reason)) = result {
                return Some(Err(damaged(&self.path, reason)));
            }
            self.after = None;
            self.ready = rows.into_iter();
        }
    }
}
