//! A store in memory for the core's own tests: whole states, copied for every view.
#![allow(clippy::unwrap_used, reason = "only tests use it")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::capture::{self, Action, Capture, Captured};
use crate::event::{Column, ColumnType, Event, Operation, Origin, OriginRef, TableSchema};
use crate::oracle::{self, Oracle};
use crate::schema::Declaration;
use crate::store::{
    Batch, Bounds, Counters, Entry, EventRange, EventSlice, FoundRows, Head, OriginSpans, Row, SchemaMode, Settings,
    SourcePosition, Store, StoreError, TableCount, View,
};
use crate::texts::{Span, Texts};

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) events: Vec<Event>,
    pub(crate) rows: BTreeMap<(String, String), String>,
    schemas: BTreeMap<String, Vec<TableSchema>>,
    cursors: BTreeMap<String, u64>,
    pub(crate) positions: BTreeMap<String, String>,
    generation: u64,
    /// Events up to this one count as dropped.
    pub(crate) dropped: u64,
}

#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    state: RefCell<Rc<State>>,
    pub(crate) settings: RefCell<Settings>,
    /// The next commit fails with this.
    pub(crate) failure: RefCell<Option<StoreError>>,
    pub(crate) commits: RefCell<usize>,
    /// Every call of `rows`: table and keys.
    pub(crate) reads: RefCell<Vec<(String, Vec<String>)>>,
}

impl MemoryStore {
    pub(crate) fn state(&self) -> Rc<State> {
        self.state.borrow().clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(Rc::make_mut(&mut self.state.borrow_mut()));
    }

    /// Captures one insert through the engine.
    pub(crate) fn insert(&self, table: &str, id: u64) {
        let captured = self.capture(1_000 + id, vec![change(Action::Insert, table, &[], &format!("{{\"id\":{id}}}"))]);
        assert!(captured.outcomes[0].is_ok());
    }

    pub(crate) fn capture(&self, now_ms: u64, changes: Vec<Change>) -> Captured {
        self.capture_with(&mut Capture::default(), now_ms, changes, vec![]).expect("the store takes it")
    }

    pub(crate) fn capture_with(
        &self,
        capture: &mut Capture,
        now_ms: u64,
        changes: Vec<Change>,
        positions: Vec<SourcePosition>,
    ) -> Result<Captured, StoreError> {
        capture.capture(self, now_ms, changes.iter().map(Change::borrowed).collect(), positions)
    }

    /// An empty store with the oracle's limits and tables.
    pub(crate) fn like(oracle: &Oracle) -> Self {
        let store = Self::default();
        for (name, columns, key) in oracle::declarations() {
            let declaration = declaration(name, &columns, &key);
            Capture::default().declare(&store, 0, declaration).expect("it is a schema");
        }
        *store.settings.borrow_mut() = Settings {
            schema_mode: if oracle.strict { SchemaMode::Strict } else { SchemaMode::Infer },
            max_row_bytes: oracle.max_row_bytes,
            max_key_bytes: oracle.max_key_bytes,
            max_depth: oracle::MAX_DEPTH,
            max_columns: oracle.max_columns,
            max_tables: oracle.max_tables,
            ..Settings::default()
        };
        store
    }

    /// A store that has captured the batches at 1,000 ms, 2,000 ms and so on, and the oracle that agrees with it.
    pub(crate) fn filled(batches: &[Vec<oracle::Change>]) -> (Self, Oracle) {
        let mut oracle = Oracle::declared();
        let store = Self::like(&oracle);
        for (batch, now_ms) in batches.iter().zip((1_000..).step_by(1_000)) {
            store.capture(now_ms, batch.iter().map(Into::into).collect());
            for change in batch {
                // Whether it should have been refused is what capture's own tests are about.
                let _ = oracle.decide(change);
            }
        }
        (store, oracle)
    }
}

/// A [`capture::Change`] that owns what it is made of.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) table: String,
    pub(crate) action: Action,
    pub(crate) key: Vec<String>,
    pub(crate) image: Vec<u8>,
    pub(crate) origin: Option<Origin>,
}

fn origin_ref(origin: &Origin) -> OriginRef<'_> {
    OriginRef {
        source: &origin.source,
        transaction: origin.transaction.as_deref(),
        position: origin.position.as_deref(),
        snapshot: origin.snapshot,
        committed_at_ms: origin.committed_at_ms,
    }
}

impl Change {
    pub(crate) fn borrowed(&self) -> capture::Change<'_> {
        capture::Change {
            table: &self.table,
            action: self.action,
            key: self.key.iter().map(String::as_str).collect(),
            image: &self.image,
            origin: self.origin.as_ref().map(origin_ref),
        }
    }
}

impl From<&oracle::Change> for Change {
    fn from(given: &oracle::Change) -> Self {
        Self {
            table: given.table.to_owned(),
            action: match given.action {
                oracle::Action::Insert => Action::Insert,
                oracle::Action::Update => Action::Update,
                oracle::Action::Upsert => Action::Upsert,
                oracle::Action::Delete => Action::Delete,
            },
            key: given.address.clone(),
            image: given.bytes(),
            origin: None,
        }
    }
}

pub(crate) fn declaration(name: &str, columns: &[oracle::Column], key: &[&str]) -> Declaration {
    let column_type = |kind| match kind {
        "String" => ColumnType::String,
        "Number" => ColumnType::Number,
        "Boolean" => ColumnType::Boolean,
        "Object" => ColumnType::Object,
        "Array" => ColumnType::Array,
        _ => ColumnType::Any,
    };
    let columns = columns.iter().map(|column| Column {
        name: column.name.clone(),
        column_type: column_type(column.kind),
        nullable: column.nullable,
        native_type: None,
    });
    Declaration {
        name: name.to_owned(),
        columns: columns.collect(),
        primary_key: key.iter().map(|&name| name.to_owned()).collect(),
    }
}

pub(crate) fn change(action: Action, table: &str, key: &[&str], image: &str) -> Change {
    Change {
        table: table.to_owned(),
        action,
        key: key.iter().map(|&part| part.to_owned()).collect(),
        image: image.as_bytes().to_vec(),
        origin: None,
    }
}

impl Store for MemoryStore {
    type View = Rc<State>;

    fn settings(&self) -> Settings {
        self.settings.borrow().clone()
    }

    fn head(&self) -> Result<Head, StoreError> {
        let state = self.state();
        Ok(Head {
            sequence: state.events.len() as u64,
            timestamp_ms: state.events.last().map_or(0, |event| event.timestamp_ms),
            schema_generation: state.generation,
            tables: state.schemas.len(),
        })
    }

    fn rows(&self, table: &str, keys: Vec<Span>, texts: Texts) -> Result<FoundRows, StoreError> {
        let keys: Vec<String> = keys.iter().map(|&key| texts.text(key).unwrap().to_owned()).collect();
        self.reads.borrow_mut().push((table.to_owned(), keys.clone()));
        let state = self.state();
        let mut texts = Texts::default();
        let images = keys.into_iter().map(|key| state.rows.get(&(table.to_owned(), key)).map(|row| texts.push(row)));
        Ok(FoundRows { images: images.collect(), texts })
    }

    fn schema(&self, table: &str) -> Result<Option<TableSchema>, StoreError> {
        self.state().schema(table, None)
    }

    fn commit(&self, batch: Batch) -> Result<u64, StoreError> {
        if let Some(failure) = self.failure.borrow_mut().take() {
            return Err(failure);
        }
        *self.commits.borrow_mut() += 1;
        let first = self.head()?.sequence + 1;
        self.change(|state| {
            for schema in batch.schemas {
                state.generation += 1;
                state.schemas.entry(schema.name.clone()).or_default().push(schema);
            }
            for position in batch.positions {
                state.positions.insert(position.source, position.position);
            }
            let text = |span| batch.texts.text(span).unwrap().to_owned();
            for write in batch.writes {
                let after = write.after.map(text);
                let row = (text(write.table), text(write.key));
                match &after {
                    None if write.operation == Operation::Truncate => {
                        state.rows.retain(|(table, _), _| *table != row.0)
                    }
                    Some(image) => drop(state.rows.insert(row, image.clone())),
                    None => drop(state.rows.remove(&row)),
                };
                state.events.push(Event {
                    sequence: state.events.len() as u64 + 1,
                    timestamp_ms: batch.timestamp_ms,
                    table: text(write.table),
                    key: text(write.key),
                    operation: write.operation,
                    before: write.before.map(text),
                    after,
                    schema_version: write.schema_version,
                    origin: write.origin.map(|origin| origin.origin(&batch.texts).unwrap()),
                });
            }
        });
        Ok(first)
    }

    fn save_cursor(&self, subscription: &str, acknowledged: u64) -> Result<(), StoreError> {
        self.change(|state| {
            state.cursors.insert(subscription.to_owned(), acknowledged);
        });
        Ok(())
    }

    fn view(&self) -> Result<Rc<State>, StoreError> {
        Ok(self.state())
    }
}

impl View for Rc<State> {
    fn bounds(&self) -> Bounds {
        Bounds {
            oldest: self.dropped + 1,
            newest: self.events.len() as u64,
            newest_timestamp_ms: self.events.last().map_or(0, |event| event.timestamp_ms),
        }
    }

    fn row(&self, table: &str, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.rows.get(&(table.to_owned(), key.to_owned())).cloned())
    }

    fn scan(&self, table: &str, after: Option<&str>, max_rows: u32, max_bytes: u32) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        for ((_, key), image) in
            self.rows.range((table.to_owned(), String::new())..).take_while(|((t, _), _)| t == table)
        {
            if after.is_some_and(|after| key.as_str() <= after) {
                continue;
            }
            if rows.len() == max_rows as usize || (bytes > max_bytes && !rows.is_empty()) {
                break;
            }
            bytes += image.len() as u32;
            rows.push(Row { key: key.clone(), image: image.clone() });
        }
        Ok(rows)
    }

    fn events(&self, range: &EventRange) -> Result<EventSlice, StoreError> {
        if range.after < self.dropped && range.after < self.events.len() as u64 {
            return Err(StoreError::Dropped(self.dropped + 1));
        }
        let mut found: Vec<Event> = self
            .events
            .iter()
            .filter(|event| event.sequence > range.after && event.sequence <= range.until)
            .filter(|event| range.since_ms.is_none_or(|since| event.timestamp_ms > since))
            .filter(|event| range.table.as_ref().is_none_or(|table| &event.table == table))
            .filter(|event| range.key.as_ref().is_none_or(|key| &event.key == key))
            .filter(|event| range.operation.is_none_or(|operation| event.operation == operation))
            .cloned()
            .collect();
        if range.newest_first {
            found.reverse();
        }
        let mut bytes = 0;
        let fitting = found.iter().take(range.max_events as usize).take_while(|event| {
            let fits = bytes <= range.max_bytes as usize;
            bytes += [&event.before, &event.after].into_iter().flatten().map(String::len).sum::<usize>();
            fits
        });
        let fitting = fitting.count();
        let complete = fitting == found.len();
        found.truncate(fitting);
        let mut texts = Texts::default();
        let mut entry = |event: &Event| Entry {
            sequence: event.sequence,
            timestamp_ms: event.timestamp_ms,
            table: texts.push(&event.table),
            key: texts.push(&event.key),
            operation: event.operation,
            before: event.before.as_ref().map(|image| texts.push(image)),
            after: event.after.as_ref().map(|image| texts.push(image)),
            schema_version: event.schema_version,
            origin: event.origin.as_ref().map(|origin| OriginSpans::push(origin_ref(origin), &mut texts)),
        };
        let entries = found.iter().map(&mut entry).collect();
        Ok(EventSlice { entries, texts, complete })
    }

    fn schema(&self, table: &str, version: Option<u32>) -> Result<Option<TableSchema>, StoreError> {
        let versions = self.schema_history(table)?;
        Ok(match version {
            Some(version) => versions.into_iter().find(|schema| schema.version == version),
            None => versions.into_iter().last(),
        })
    }

    fn schemas(&self) -> Result<Vec<TableSchema>, StoreError> {
        Ok(self.schemas.values().filter_map(|versions| versions.last().cloned()).collect())
    }

    fn schema_history(&self, table: &str) -> Result<Vec<TableSchema>, StoreError> {
        Ok(self.schemas.get(table).cloned().unwrap_or_default())
    }

    fn counters(&self) -> Result<Counters, StoreError> {
        let mut tables: BTreeMap<&str, TableCount> = BTreeMap::new();
        let mut recent: BTreeMap<u64, u64> = BTreeMap::new();
        for event in &self.events {
            let count = tables.entry(&event.table).or_default();
            count.table.clone_from(&event.table);
            match event.operation {
                Operation::Insert => count.inserts += 1,
                Operation::Update => count.updates += 1,
                Operation::Delete => count.deletes += 1,
                Operation::Truncate => count.truncates += 1,
            }
            *recent.entry(event.timestamp_ms / 1_000).or_default() += 1;
        }
        Ok(Counters { tables: tables.into_values().collect(), recent: recent.into_iter().collect() })
    }

    fn cursor(&self, subscription: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.cursors.get(subscription).copied())
    }
}
