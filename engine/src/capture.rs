//! Capture: a batch of changes decided in order, and committed as one.
//!
//! A batch is decided in three steps, so that the store is asked once for all rows and told once of all events:
//! every change is checked on its own and its key is found; the rows of all keys are read; then each change is decided
//! against the rows as the changes before it left them.

use rustc_hash::FxHashMap;

use crate::event::{ColumnType, Operation, OriginRef, Relation, TableSchema};
use crate::image::{self, Image};
use crate::key;
use crate::refusal::{Refusal, RefusalCode};
use crate::rows::{Rows, SlotImage, key_of};
use crate::schema::{self, Declaration, Table};
use crate::store::{Batch, Head, OriginSpans, SchemaMode, Settings, SourcePosition, Store, StoreError, Write};
use crate::texts::{Span, Texts};

/// What is to happen to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A new row; refused if its key is there.
    Insert,
    /// Members replaced; refused if the row is missing.
    Update,
    /// Update, or insert if the row is missing.
    Upsert,
    /// The row removed; refused if it is missing.
    Delete,
}

/// One change as a writer or source reports it.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// The table's name.
    pub table: &'a str,
    /// What is to happen.
    pub action: Action,
    /// The key's columns as text; empty to take them from the image.
    pub key: Vec<&'a str>,
    /// A JSON object as it came. Not looked at in a delete.
    pub image: &'a [u8],
    /// Where it came from.
    pub origin: Option<OriginRef<'a>>,
}

/// What became of a batch of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The time of every event of the batch, in ms since 1970.
    pub timestamp_ms: u64,
    /// Per change, in order: its event's sequence number, or why it was refused.
    pub outcomes: Vec<Result<u64, Refusal>>,
}

/// Why a declaration was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeclareError {
    /// It is not a schema, or not compatible with the one in force.
    Refused(Refusal),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for DeclareError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The capturing instance's side of the engine: its caches.
#[derive(Debug, Default)]
pub struct Capture {
    pub(crate) settings: Option<Settings>,
    /// What the tables were read under; none when they must be read anew.
    generation: Option<u64>,
    pub(crate) tables: Vec<KnownTable>,
    places: FxHashMap<String, usize>,
    /// The table of the change before.
    latest: usize,
    /// Scratch: the key of the change at hand.
    key: String,
}

#[derive(Debug)]
pub(crate) struct KnownTable {
    pub(crate) name: String,
    /// Version 0 until its first row is accepted.
    pub(crate) table: Table,
}

/// The names of the tables that have rows in the store, by place.
pub(crate) fn known_names(tables: &[KnownTable]) -> Vec<Option<&str>> {
    let name = |known: &'_ KnownTable| known.table.schema().version > 0;
    tables.iter().map(|known| name(known).then_some(known.name.as_str())).collect()
}

impl Capture {
    /// Decides a batch of changes at the time `now_ms` and commits what is accepted.
    pub fn capture<S: Store>(
        &mut self,
        store: &S,
        now_ms: u64,
        changes: Vec<Change<'_>>,
        positions: Vec<SourcePosition>,
    ) -> Result<Captured, StoreError> {
        let head = self.begin(store)?;
        let settings = self.settings.get_or_insert_with(|| store.settings()).clone();
        let timestamp_ms = now_ms.max(head.timestamp_ms);

        let image_bytes: usize = changes.iter().map(|change| change.image.len()).sum();
        let mut rows = Rows::with_capacity(changes.len());
        let mut prepared = Vec::with_capacity(changes.len());
        for change in changes {
            prepared.push(self.prepare(store, change, &mut rows, &settings)?);
        }
        rows.read(store, &known_names(&self.tables))?;
        let mut decision = Decision {
            settings: &settings,
            room_for_tables: settings.max_tables.saturating_sub(head.tables),
            schemas: Vec::new(),
            writes: Vec::with_capacity(prepared.len()),
            // Of an update both images, of which the one after is mostly as long as the one before.
            texts: Texts::with_capacity(image_bytes + 2 * rows.found_bytes() + rows.keys.len() + 64),
            names: vec![None; self.tables.len()],
            rows,
            places: Vec::new(),
            merged: String::new(),
            damaged: None,
        };
        let mut outcomes: Vec<Result<u64, Refusal>> = Vec::with_capacity(prepared.len());
        for prepared in prepared {
            let outcome = prepared.and_then(|prepared| decision.decide(&mut self.tables, &prepared));
            outcomes.push(outcome.map(|()| decision.writes.len() as u64 - 1));
        }
        if let Some(error) = decision.damaged {
            // Tables may have been widened by changes that are given up with this one.
            self.forget();
            return Err(error);
        }

        let Decision { schemas, writes, texts, .. } = decision;
        // A name that turned out to be no table is not worth remembering.
        let keep = self.tables.iter().all(|known| known.table.schema().version > 0);
        if !writes.is_empty() || !positions.is_empty() {
            let batch = Batch { timestamp_ms, schemas, writes, texts, positions };
            let first = store.commit(batch).inspect_err(|_| self.forget())?;
            for sequence in outcomes.iter_mut().flatten() {
                *sequence += first;
            }
        }
        if !keep {
            self.forget();
        }
        Ok(Captured { timestamp_ms, outcomes })
    }

    /// Declares or evolves a table's schema and answers the one in force.
    pub fn declare<S: Store>(
        &mut self,
        store: &S,
        now_ms: u64,
        declaration: Declaration,
    ) -> Result<TableSchema, DeclareError> {
        let settings = self.settings.get_or_insert_with(|| store.settings()).clone();
        let head = store.head()?;
        let present = store.schema(&declaration.name)?;
        if let Some(relation) = present.as_ref().and_then(|present| present.relation.as_ref()) {
            return Err(DeclareError::Refused(captured_table(&declaration.name, relation)));
        }
        let evolved = schema::evolve(declaration, present.as_ref(), &settings).map_err(DeclareError::Refused)?;
        let Some(schema) = evolved else {
            // Nothing to change means that there is one.
            return present.ok_or_else(|| StoreError::Failed("the schema in force is gone".to_owned()).into());
        };
        if present.is_none() && head.tables >= settings.max_tables {
            return Err(DeclareError::Refused(too_many_tables(&schema.name, settings.max_tables)));
        }
        self.forget();
        store.commit(Batch {
            timestamp_ms: now_ms.max(head.timestamp_ms),
            schemas: vec![schema.clone()],
            ..Batch::default()
        })?;
        Ok(schema)
    }

    /// The newest point; what was cached under another generation of schemas is forgotten.
    pub(crate) fn begin<S: Store>(&mut self, store: &S) -> Result<Head, StoreError> {
        let head = store.head()?;
        if self.generation != Some(head.schema_generation) {
            self.forget();
            self.generation = Some(head.schema_generation);
        }
        Ok(head)
    }

    pub(crate) fn forget(&mut self) {
        self.generation = None;
        self.tables.clear();
        self.places.clear();
    }

    /// The place of a table in the cache, read from the store at its first use.
    pub(crate) fn table<S: Store>(
        &mut self,
        store: &S,
        name: &str,
        max_name_bytes: usize,
    ) -> Result<Checked<usize>, StoreError> {
        // Batches are mostly about one table.
        if self.tables.get(self.latest).is_some_and(|known| known.name == name) {
            return Ok(Ok(self.latest));
        }
        if let Some(&place) = self.places.get(name) {
            self.latest = place;
            return Ok(Ok(place));
        }
        if let Err(refusal) = schema::check_table_name(name, max_name_bytes) {
            return Ok(Err(refusal));
        }
        let table = store.schema(name)?.map_or_else(|| Table::unborn(name), Table::new);
        self.latest = self.tables.len();
        self.places.insert(name.to_owned(), self.latest);
        self.tables.push(KnownTable { name: name.to_owned(), table });
        Ok(Ok(self.latest))
    }

    /// Checks a change on its own and finds its row's key.
    fn prepare<'a, S: Store>(
        &mut self,
        store: &S,
        change: Change<'a>,
        rows: &mut Rows,
        settings: &Settings,
    ) -> Result<Checked<Prepared<'a>>, StoreError> {
        let table = match self.table(store, change.table, settings.max_name_bytes)? {
            Ok(table) => table,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let schema = self.tables[table].table.schema();
        if schema.version == 0 && settings.schema_mode == SchemaMode::Strict {
            // Nothing in a batch can bring the table about, so what else is wrong with the change does not matter.
            return Ok(Err(unknown_table(change.table)));
        }
        if let Some(relation) = &schema.relation {
            return Ok(Err(captured_table(change.table, relation)));
        }
        Ok(keyed(&change, schema, settings, &mut self.key).map(|(image, lacking)| {
            let row = rows.slot(table, &self.key);
            Prepared { table, row, action: change.action, image, lacking, origin: change.origin }
        }))
    }
}

/// Refused or not: a failure of the change, never of the store.
pub(crate) type Checked<T> = Result<T, Refusal>;

/// Key columns that a change's address names and its image lacks, with their parts of it: needed for an insert.
type Lacking = Vec<(String, String)>;

/// A change whose row is known.
struct Prepared<'a> {
    table: usize,
    row: usize,
    action: Action,
    /// None for a delete.
    image: Option<Image<'a>>,
    lacking: Lacking,
    origin: Option<OriginRef<'a>>,
}

/// Scans a change's image and finds its key in the address, the image, or both. The key is written to `key`.
fn keyed<'a>(
    change: &Change<'a>,
    schema: &TableSchema,
    settings: &Settings,
    key: &mut String,
) -> Checked<(Option<Image<'a>>, Lacking)> {
    let address = &change.key;
    let image = match change.action {
        Action::Delete => None,
        _ => Some(Image::scan(change.image, settings.max_row_bytes, settings.max_depth)?),
    };
    let columns = &schema.primary_key;
    let mut lacking = Lacking::new();
    if address.is_empty() {
        let Some(image) = &image else { return Err(key::missing(&columns[0])) };
        let part = |column: &String| match member(image, column) {
            Some(member) => key::part(image, member, column),
            None => Err(key::missing(column)),
        };
        match columns.as_slice() {
            [single] => key::write_canonical(&[part(single)?], settings.max_key_bytes, key)?,
            several => {
                let parts: Vec<_> = several.iter().map(part).collect::<Result<_, _>>()?;
                key::write_canonical(&parts, settings.max_key_bytes, key)?;
            }
        }
    } else {
        check_address(address, schema)?;
        if let Some(image) = &image {
            for (column, part) in columns.iter().zip(address) {
                match member(image, column) {
                    Some(member) => {
                        if key::part(image, member, column)? != *part {
                            return Err(mismatch(column, part, image.value(member)));
                        }
                    }
                    None => lacking.push((column.clone(), (*part).to_owned())),
                }
            }
        }
        key::write_canonical(address, settings.max_key_bytes, key)?;
    }
    Ok((image, lacking))
}

fn member(image: &Image<'_>, column: &str) -> Option<usize> {
    (0..image.len()).find(|&index| image.is_named(index, column))
}

/// A key given in parts must have as many as the table's key has columns.
pub fn check_address(address: &[impl AsRef<str>], schema: &TableSchema) -> Checked<()> {
    let columns = &schema.primary_key;
    if schema.version == 0 && address.len() > 1 {
        return Err(unknown_table(&schema.name));
    }
    if address.len() != columns.len() {
        return Err(Refusal::new(
            RefusalCode::UnknownRow,
            format!(
                "table `{}` has no such row: its key is ({}), which is {} part(s), not {}",
                schema.name,
                columns.join(", "),
                columns.len(),
                address.len()
            ),
        ));
    }
    match address.iter().position(|part| part.as_ref().is_empty()) {
        Some(part) => Err(Refusal::about(RefusalCode::InvalidKey, &columns[part], "the key is empty")),
        None => Ok(()),
    }
}

/// A key column's value made of its text: a number where the column holds numbers and the text is one.
pub(crate) fn key_value(schema: &TableSchema, column: &str, part: &str) -> String {
    let number = schema.columns.iter().any(|known| known.name == column && known.column_type == ColumnType::Number);
    if number && key::is_integer(part) { part.to_owned() } else { image::quote(part) }
}

fn mismatch(column: &str, part: &str, value: &str) -> Refusal {
    let value: String = value.chars().take(40).collect();
    let part: String = part.chars().take(40).collect();
    Refusal::about(
        RefusalCode::KeyMismatch,
        column,
        format!("the row is addressed as {part:?}, but its `{column}` says {value}: a key cannot be changed"),
    )
}

pub(crate) fn too_many_tables(name: &str, max_tables: usize) -> Refusal {
    Refusal::new(RefusalCode::TooManyTables, format!("`{name}` would be one table more than the {max_tables} allowed"))
}

/// A batch being decided.
struct Decision<'a> {
    settings: &'a Settings,
    room_for_tables: usize,
    rows: Rows,
    schemas: Vec<TableSchema>,
    writes: Vec<Write>,
    texts: Texts,
    /// The tables' names among `texts`, by place.
    names: Vec<Option<Span>>,
    /// Scratch: the columns of the members of the image at hand.
    places: Vec<usize>,
    /// Scratch: the row after an update.
    merged: String,
    /// A row in the store that is none: not the writer's fault, so the batch fails.
    damaged: Option<StoreError>,
}

impl Decision<'_> {
    /// Decides one change. Refused, it leaves everything as it was.
    fn decide(&mut self, tables: &mut [KnownTable], change: &Prepared<'_>) -> Checked<()> {
        let Rows { slots, keys, found, .. } = &mut self.rows;
        let slot = &mut slots[change.row];
        let KnownTable { name, table } = &tables[change.table];
        let key = key_of(keys, slot);
        let known = table.schema().version > 0;
        let exists = !matches!(slot.image, SlotImage::None);
        let operation = match change.action {
            Action::Insert | Action::Upsert if !exists => Operation::Insert,
            Action::Insert => return Err(row_exists(name, key)),
            Action::Delete if exists => Operation::Delete,
            _ if exists => Operation::Update,
            _ if known => return Err(unknown_row(name, key)),
            _ => return Err(unknown_table(name)),
        };
        if !known && self.room_for_tables == 0 {
            return Err(too_many_tables(name, self.settings.max_tables));
        }
        let whole = operation == Operation::Insert;
        let completed = match &change.image {
            Some(image) if whole && !change.lacking.is_empty() => {
                // Valued by the schema as the changes before left it, so that it does not matter which of them came
                // in the same batch.
                let members: Vec<(String, String)> = change
                    .lacking
                    .iter()
                    .map(|(column, part)| (column.clone(), key_value(table.schema(), column, part)))
                    .collect();
                Some(Image::stored(image::prepend(image, &members))?)
            }
            _ => None,
        };
        let image = completed.as_ref().or(change.image.as_ref());
        let widened = match image {
            Some(image) => table.fit(image, whole, self.settings, &mut self.places)?,
            None => None,
        };
        let mut damage = |reason: &dyn std::fmt::Display| {
            let message = format!("the stored row {key:?} of `{name}` is damaged: {reason}");
            self.damaged.get_or_insert_with(|| StoreError::Failed(message.clone()));
            Refusal::new(RefusalCode::InvalidJson, message)
        };
        let stored = match slot.image {
            SlotImage::Read(span) => Some(found[change.table].text(span).map_err(|error| damage(&error))?),
            SlotImage::None | SlotImage::Written(_) => None,
        };
        let after = match image {
            Some(patch) if operation == Operation::Update => {
                let columns = widened.as_ref().unwrap_or(table.schema()).columns.len();
                let text = match slot.image {
                    SlotImage::Written(span) => self.texts.text(span).map_err(|error| damage(&error))?,
                    _ => stored.unwrap_or_default(),
                };
                let row = Image::stored(text).map_err(|refusal| damage(&refusal))?;
                merge(&row, patch, table, columns, &self.places, &mut self.merged);
                Some(self.merged.as_str())
            }
            image => image.map(Image::text),
        };
        if let Some(after) = after.filter(|after| after.len() > self.settings.max_row_bytes) {
            return Err(Refusal::new(
                RefusalCode::RowTooLarge,
                format!(
                    "the row would be {} bytes long, and a row may be {}",
                    after.len(),
                    self.settings.max_row_bytes
                ),
            ));
        }
        // Accepted: from here on nothing can fail.
        let before = match slot.image {
            SlotImage::Written(span) => Some(span),
            _ => stored.map(|row| self.texts.push(row)),
        };
        let after = after.map(|after| self.texts.push(after));
        slot.image = after.map_or(SlotImage::None, SlotImage::Written);
        let table_name = *self.names[change.table].get_or_insert_with(|| self.texts.push(name));
        let key = self.texts.push(key);
        let origin = change.origin.map(|origin| OriginSpans::push(origin, &mut self.texts));
        if !known {
            self.room_for_tables -= 1;
        }
        if let Some(schema) = widened {
            self.schemas.push(schema.clone());
            tables[change.table].table = Table::new(schema);
        }
        let schema_version = tables[change.table].table.schema().version;
        self.writes.push(Write { table: table_name, key, operation, before, after, schema_version, origin });
        Ok(())
    }
}

/// The row with the patch's members in it; `places` are the columns of the patch's members.
fn merge(row: &Image<'_>, patch: &Image<'_>, table: &Table, columns: usize, places: &[usize], merged: &mut String) {
    let mut patched: Vec<Option<usize>> = vec![None; columns];
    for (member, &place) in places.iter().enumerate() {
        patched[place] = Some(member);
    }
    let replaced_by: Vec<Option<usize>> = (0..row.len())
        .map(|member| table.column(&row.name(member), member).and_then(|place| patched[place].take()))
        .collect();
    let added: Vec<usize> = {
        // What no member of the row took is new, in the patch's order.
        let mut added: Vec<usize> = patched.into_iter().flatten().collect();
        added.sort_unstable();
        added
    };
    image::merge(row, patch, &replaced_by, &added, merged);
}

fn unknown_table(name: &str) -> Refusal {
    Refusal::new(RefusalCode::UnknownTable, format!("there is no table `{name}`"))
}

fn captured_table(table: &str, relation: &Relation) -> Refusal {
    let Relation { source, database, namespace, name, .. } = relation;
    let place =
        if database == namespace { format!("{database}.{name}") } else { format!("{database}.{namespace}.{name}") };
    Refusal::new(
        RefusalCode::CapturedTable,
        format!("table `{table}` follows {place} by the source `{source}`: change it in the database"),
    )
}

fn unknown_row(table: &str, key: &str) -> Refusal {
    Refusal::new(RefusalCode::UnknownRow, format!("table `{table}` has no row {key:?}"))
}

fn row_exists(table: &str, key: &str) -> Refusal {
    Refusal::new(RefusalCode::RowExists, format!("table `{table}` has a row {key:?} already: update it, or upsert"))
}

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
