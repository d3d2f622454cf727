//! Follow: a portion of a database's log, captured whole or not at all.
//!
//! The source has decided what happened; what is decided here is what that means for the rows as they are known: which
//! event it is, what the row was before, and what it is after where the source's log did not repeat every column. A
//! table's schema is the database's, so any change of it is a new version.
//!
//! Invariants:
//! - A portion is one batch: its events in the order of its changes, its schemas, its checkpoint. One change that cannot
//!   be captured refuses all of it, because a source passes over nothing.
//! - A value that nobody knows is left out of the image and named in the event's origin; it is never made up.
//! - The texts of a portion go on as they are: an image that is whole is not copied.

use crate::capture::{Capture, Checked, KnownTable, key_value, known_names, too_many_tables};
use crate::event::{Column, Operation, Relation, TableSchema};
use crate::image::{self, Image};
use crate::refusal::{Refusal, RefusalCode};
use crate::rows::{Rows, SlotImage, key_of};
use crate::schema::{self, Declaration, Table};
use crate::store::{Batch, OriginSpans, Settings, SourcePosition, Store, StoreError, Write};
use crate::texts::{Span, Texts};

/// A table as it looks from a place of the source's log on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name here.
    pub name: String,
    /// In the database's order. Empty for a table that is known and looks as it did, as when it is only emptied.
    pub columns: Vec<Column>,
    /// The key's columns, in key order.
    pub primary_key: Vec<String>,
    /// Where it is.
    pub relation: Relation,
}

/// A transaction of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// In the source's own notation.
    pub name: Span,
    /// In ms since 1970, by the source's clock.
    pub committed_at_ms: Option<u64>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The table looks as described from here on.
    Describe,
    /// The row is `image` now.
    Replace,
    /// The row is gone.
    Remove,
    /// Every row is gone.
    Truncate,
    /// The row was read and is `image`: an event only if that is news.
    Read,
}

/// What few changes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Places of columns that the image lacks because they did not change.
    pub unchanged: Vec<u32>,
    /// The key that the row had, which an earlier change of the portion removed.
    pub previous_key: Option<Span>,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The place of its table in the portion's tables.
    pub table: u32,
    /// What happened.
    pub action: Action,
    /// The row's canonical key; empty for a describe and a truncate.
    pub key: Span,
    /// The row, for a replace and a read.
    pub image: Option<Span>,
    /// The row before, if the source told it.
    pub before: Option<Span>,
    /// The place of its transaction.
    pub transaction: Option<u32>,
    /// Its place in the source's log.
    pub position: Option<Span>,
    /// The place of its detail.
    pub detail: Option<u32>,
}

/// Changes that are captured together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Portion {
    /// The source's name.
    pub source: String,
    /// Tables that the changes name by place.
    pub tables: Vec<Described>,
    /// Transactions that the changes name by place.
    pub transactions: Vec<Transaction>,
    /// What few changes have.
    pub details: Vec<Detail>,
    /// In the order of the source's log.
    pub changes: Vec<Change>,
    /// What the spans are spans of.
    pub texts: Texts,
    /// Where the source goes on.
    pub checkpoint: Option<String>,
}

/// What became of a portion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The time of its events, in ms since 1970.
    pub timestamp_ms: u64,
    /// Its first event's sequence number; the next event's, if it has none.
    pub first: u64,
    /// How many events it became.
    pub events: u32,
}

/// Why nothing of a portion was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowError {
    /// A change cannot be captured.
    Refused {
        /// Its place.
        change: u32,
        /// Why.
        refusal: Refusal,
    },
    /// The store failed, or the portion is none.
    Store(StoreError),
}

impl From<StoreError> for FollowError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Capture {
    /// Captures a portion at the time `now_ms`.
    pub fn follow<S: Store>(&mut self, store: &S, now_ms: u64, portion: Portion) -> Result<Followed, FollowError> {
        let followed = self.try_follow(store, now_ms, portion);
        if followed.is_err() {
            // Tables may have been described by changes that are given up with the one that failed.
            self.forget();
        }
        followed
    }

    fn try_follow<S: Store>(&mut self, store: &S, now_ms: u64, portion: Portion) -> Result<Followed, FollowError> {
        let head = self.begin(store)?;
        let settings = self.settings.get_or_insert_with(|| store.settings()).clone();
        let timestamp_ms = now_ms.max(head.timestamp_ms);
        let Portion { source, tables, transactions, details, changes, mut texts, checkpoint } = portion;

        let mut places = Vec::with_capacity(tables.len());
        for described in &tables {
            let place = self.table(store, &described.name, settings.max_name_bytes)?;
            places.push(place.map_err(|refusal| refused(&changes, described, &tables, refusal))?);
        }
        let mut rows = Rows::with_capacity(changes.len());
        let mut slots = Vec::with_capacity(changes.len());
        for (at, change) in changes.iter().enumerate() {
            let &table = places.get(change.table as usize).ok_or_else(no_place)?;
            let previous = match change.detail {
                Some(detail) => details.get(detail as usize).ok_or_else(no_place)?.previous_key,
                None => None,
            };
            let mut slot = |key: Span| {
                let key = texts.text(key)?;
                check_key(key, &settings).map_err(|refusal| FollowError::Refused { change: at as u32, refusal })?;
                Ok::<_, FollowError>(rows.slot(table, key))
            };
            let row = match change.action {
                Action::Describe | Action::Truncate => 0,
                Action::Replace | Action::Remove | Action::Read => slot(change.key)?,
            };
            slots.push((row, previous.map(slot).transpose()?));
        }
        rows.read(store, &known_names(&self.tables))?;

        let source_name = texts.push(&source);
        let mut following = Following {
            settings: &settings,
            source: &source,
            source_name,
            room_for_tables: settings.max_tables.saturating_sub(head.tables),
            schemas: Vec::new(),
            writes: Vec::with_capacity(changes.len()),
            names: vec![None; self.tables.len()],
            looks: vec![None; self.tables.len()],
            texts,
            rows,
        };
        for (at, (change, (row, previous))) in changes.iter().zip(slots).enumerate() {
            let table = change.table as usize;
            let transaction = match change.transaction {
                Some(place) => Some(*transactions.get(place as usize).ok_or_else(no_place)?),
                None => None,
            };
            let place = Place { table: places[table], row, previous };
            let unchanged = change.detail.map_or(&[][..], |detail| &details[detail as usize].unchanged);
            let outcome = following.decide(&mut self.tables, &tables[table], change, place, transaction, unchanged);
            outcome.map_err(|failure| match failure {
                Failure::Refused(refusal) => FollowError::Refused { change: at as u32, refusal },
                Failure::Store(error) => FollowError::Store(error),
            })?;
        }

        let Following { schemas, writes, texts, .. } = following;
        let events = writes.len() as u32;
        let is_news = !writes.is_empty() || !schemas.is_empty() || checkpoint.is_some();
        let first = if is_news {
            let positions = checkpoint.map(|position| SourcePosition { source, position });
            let positions = positions.into_iter().collect();
            store.commit(Batch { timestamp_ms, schemas, writes, texts, positions })?
        } else {
            head.sequence + 1
        };
        if self.tables.iter().any(|known| known.table.schema().version == 0) {
            self.forget();
        }
        Ok(Followed { timestamp_ms, first, events })
    }
}

fn no_place() -> StoreError {
    StoreError::Failed("a change names a place that its portion has not".to_owned())
}

/// A table's name was refused: said of the first change that is about it.
fn refused(changes: &[Change], described: &Described, tables: &[Described], refusal: Refusal) -> FollowError {
    let is_about =
        |change: &Change| tables.get(change.table as usize).is_some_and(|table| table.name == described.name);
    let change = changes.iter().position(is_about).unwrap_or(0) as u32;
    FollowError::Refused { change, refusal }
}

fn check_key(key: &str, settings: &Settings) -> Checked<()> {
    if key.is_empty() {
        return Err(Refusal::new(RefusalCode::InvalidKey, "the row's key is empty"));
    }
    if key.len() > settings.max_key_bytes {
        let message = format!("the row's key is {} bytes long, and a key may be {}", key.len(), settings.max_key_bytes);
        return Err(Refusal::new(RefusalCode::KeyTooLong, message));
    }
    Ok(())
}

/// Which rows a change is about: places among tables and rows.
#[derive(Clone, Copy)]
struct Place {
    table: usize,
    row: usize,
    /// The row's place under the key that it had.
    previous: Option<usize>,
}

/// Why a change was not decided.
enum Failure {
    Refused(Refusal),
    Store(StoreError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A portion being decided.
struct Following<'a> {
    settings: &'a Settings,
    source: &'a str,
    source_name: Span,
    room_for_tables: usize,
    rows: Rows,
    schemas: Vec<TableSchema>,
    writes: Vec<Write>,
    texts: Texts,
    /// The tables' names among `texts`, by place.
    names: Vec<Option<Span>>,
    /// The places of the descriptions that the tables are known to fit, by the tables' places.
    looks: Vec<Option<u32>>,
}

impl Following<'_> {
    fn decide(
        &mut self,
        tables: &mut [KnownTable],
        described: &Described,
        change: &Change,
        place: Place,
        transaction: Option<Transaction>,
        unchanged: &[u32],
    ) -> Result<(), Failure> {
        if self.looks[place.table] != Some(change.table) {
            self.describe(&mut tables[place.table], described)?;
            self.looks[place.table] = Some(change.table);
        }
        let table = &tables[place.table].table;
        let mut unavailable = None;
        let (operation, key, before, after) = match change.action {
            Action::Describe => return Ok(()),
            Action::Truncate => {
                self.rows.clear(place.table);
                (Operation::Truncate, Span::default(), None, None)
            }
            Action::Remove => {
                let known = self.before(place.row, change)?;
                let before = match known {
                    Some(before) => before,
                    None => self.key_image(table.schema(), change.key)?,
                };
                let slot = &mut self.rows.slots[place.row];
                slot.removed = known.map_or(SlotImage::None, SlotImage::Written);
                slot.image = SlotImage::None;
                (Operation::Delete, change.key, Some(before), None)
            }
            Action::Replace | Action::Read => {
                let given = change.image.ok_or_else(|| StoreError::Failed("a row has no image".to_owned()))?;
                let bytes = self.texts.bytes(given).ok_or_else(no_place)?;
                let image = Image::scan(bytes, self.settings.max_row_bytes, self.settings.max_depth)?;
                let merged = if unchanged.is_empty() {
                    // White space between tokens is cut, should there be any.
                    (image.text().len() != bytes.len()).then(|| image.text().to_owned())
                } else {
                    let (row, unknown) =
                        self.merged(table.schema(), described, &image, place, change.before, unchanged)?;
                    unavailable = (!unknown.is_empty()).then(|| format!("[{}]", unknown.join(",")));
                    Some(row)
                };
                let after = match merged {
                    Some(row) if row.len() > self.settings.max_row_bytes => {
                        let (length, max) = (row.len(), self.settings.max_row_bytes);
                        let message = format!("the row would be {length} bytes long, and a row may be {max}");
                        return Err(Refusal::new(RefusalCode::RowTooLarge, message).into());
                    }
                    Some(row) => self.texts.push(&row),
                    None => given,
                };
                if change.action == Action::Read && self.is_known(place, after)? {
                    return Ok(());
                }
                let before = self.before(place.row, change)?;
                self.rows.slots[place.row].image = SlotImage::Written(after);
                let operation = if before.is_some() { Operation::Update } else { Operation::Insert };
                (operation, change.key, before, Some(after))
            }
        };
        let name = &tables[place.table].name;
        let table_name = *self.names[place.table].get_or_insert_with(|| self.texts.push(name));
        let origin = OriginSpans {
            source: self.source_name,
            transaction: transaction.map(|transaction| transaction.name),
            position: change.position,
            snapshot: change.action == Action::Read,
            committed_at_ms: transaction.and_then(|transaction| transaction.committed_at_ms),
            unavailable: unavailable.map(|names| self.texts.push(&names)),
        };
        let schema_version = tables[place.table].table.schema().version;
        let origin = Some(origin);
        self.writes.push(Write { table: table_name, key, operation, before, after, schema_version, origin });
        Ok(())
    }

    /// The table looks as described: a new version of its schema, if it looked otherwise.
    fn describe(&mut self, known: &mut KnownTable, described: &Described) -> Checked<()> {
        let schema = known.table.schema();
        if schema.version > 0 {
            match &schema.relation {
                Some(relation) if relation.source == self.source => {
                    // Said of the whole table, by a source that knows no more of it than its name.
                    if described.columns.is_empty() {
                        return Ok(());
                    }
                    let is_same = schema.columns == described.columns
                        && schema.primary_key == described.primary_key
                        && *relation == described.relation;
                    if is_same {
                        return Ok(());
                    }
                }
                Some(relation) => {
                    let message = format!(
                        "table `{}` follows the source `{}` already: give it another name here",
                        known.name, relation.source
                    );
                    return Err(Refusal::new(RefusalCode::SchemaConflict, message));
                }
                None => {
                    let message = format!(
                        "table `{}` is written through the service's own API: give the source's table another name here",
                        known.name
                    );
                    return Err(Refusal::new(RefusalCode::SchemaConflict, message));
                }
            }
        }
        let Described { name, columns, primary_key, relation } = described.clone();
        let declaration = Declaration { name, columns, primary_key };
        schema::check_shape(&declaration, self.settings)?;
        if schema.version == 0 {
            if self.room_for_tables == 0 {
                return Err(too_many_tables(&known.name, self.settings.max_tables));
            }
            self.room_for_tables -= 1;
        }
        let Declaration { name, columns, primary_key } = declaration;
        let version = schema.version + 1;
        let schema = TableSchema { name, columns, primary_key, version, relation: Some(relation) };
        self.schemas.push(schema.clone());
        known.table = Table::new(schema);
        Ok(())
    }

    /// What the row was before a change: what is stored, because that is what events have said, or else what the
    /// source's log told.
    fn before(&mut self, row: usize, change: &Change) -> Result<Option<Span>, Failure> {
        let stored = self.stored(row)?;
        let (None, Some(told)) = (stored, change.before) else { return Ok(stored) };
        let bytes = self.texts.bytes(told).ok_or_else(no_place)?;
        let image = Image::scan(bytes, self.settings.max_row_bytes, self.settings.max_depth)?;
        let respaced = (image.text().len() != bytes.len()).then(|| image.text().to_owned());
        Ok(Some(respaced.map_or(told, |text| self.texts.push(&text))))
    }

    /// A row's image as it is now, among the texts to be written.
    fn stored(&mut self, row: usize) -> Result<Option<Span>, StoreError> {
        let slot = &self.rows.slots[row];
        Ok(match slot.image {
            SlotImage::None => None,
            SlotImage::Written(span) => Some(span),
            SlotImage::Read(span) => Some(self.texts.push(self.rows.found[slot.table].text(span)?)),
        })
    }

    fn image_text(&self, table: usize, image: SlotImage) -> Result<Option<&str>, StoreError> {
        match image {
            SlotImage::None => Ok(None),
            SlotImage::Written(span) => self.texts.text(span).map(Some),
            SlotImage::Read(span) => self.rows.found[table].text(span).map(Some),
        }
    }

    /// Whether the row is known to look so.
    fn is_known(&self, place: Place, image: Span) -> Result<bool, StoreError> {
        let known = self.image_text(place.table, self.rows.slots[place.row].image)?;
        Ok(known == Some(self.texts.text(image)?))
    }

    /// The row with its unchanged columns as they were, in the order of the schema; and those that nobody knows, as JSON
    /// strings.
    fn merged(
        &self,
        schema: &TableSchema,
        described: &Described,
        image: &Image<'_>,
        place: Place,
        told: Option<Span>,
        unchanged: &[u32],
    ) -> Result<(String, Vec<String>), Failure> {
        let slots = &self.rows.slots;
        let stored = match place.previous {
            Some(previous) => slots[previous].removed,
            None => slots[place.row].image,
        };
        let damaged = |refusal: Refusal| {
            let key = key_of(&self.rows.keys, &slots[place.row]);
            StoreError::Failed(format!("the stored row {key:?} of `{}` is damaged: {refusal}", schema.name))
        };
        let stored = self.image_text(place.table, stored)?;
        let stored = stored.map(|text| Image::stored(text).map_err(damaged)).transpose()?;
        let told = match told {
            Some(told) => {
                let bytes = self.texts.bytes(told).ok_or_else(no_place)?;
                Some(Image::scan(bytes, self.settings.max_row_bytes, self.settings.max_depth)?)
            }
            None => None,
        };
        let mut names = Vec::with_capacity(unchanged.len());
        for &column in unchanged {
            names.push(described.columns.get(column as usize).ok_or_else(no_place)?.name.as_str());
        }
        let value_in = |image: &'_ Image<'_>, name: &str| {
            let member = (0..image.len()).find(|&member| image.is_named(member, name))?;
            Some(image.value(member).to_owned())
        };
        let mut row = String::with_capacity(image.text().len() + 256);
        let mut unknown = Vec::new();
        for column in &schema.columns {
            let mut value = value_in(image, &column.name);
            if value.is_none() && names.contains(&column.name.as_str()) {
                let known = [&stored, &told].into_iter().flatten();
                value = known.into_iter().find_map(|row| value_in(row, &column.name));
                if value.is_none() {
                    unknown.push(image::quote(&column.name));
                }
            }
            if let Some(value) = value {
                row.push(if row.is_empty() { '{' } else { ',' });
                row.push_str(&image::quote(&column.name));
                row.push(':');
                row.push_str(&value);
            }
        }
        row.push_str(if row.is_empty() { "{}" } else { "}" });
        Ok((row, unknown))
    }

    /// What is known of a row when nothing but its key is.
    fn key_image(&mut self, schema: &TableSchema, key: Span) -> Result<Span, StoreError> {
        let key = self.texts.text(key)?;
        let parts: Vec<String> = match schema.primary_key.len() {
            1 => vec![key.to_owned()],
            _ => key.split('/').map(|part| part.replace("%2F", "/").replace("%25", "%")).collect(),
        };
        let mut row = String::new();
        for (column, part) in schema.primary_key.iter().zip(&parts) {
            row.push(if row.is_empty() { '{' } else { ',' });
            row.push_str(&image::quote(column));
            row.push(':');
            row.push_str(&key_value(schema, column, part));
        }
        row.push('}');
        Ok(self.texts.push(&row))
    }
}

#[cfg(test)]
#[path = "follow_property.rs"]
mod property;
#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
