//! The component: the core behind `wit/engine`.
//!
//! Only conversions, the clock, and the capturing cache live here. Texts move across as blocks; none is copied on the
//! way.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::texts::{Span, Texts};
use crate::{capture, event, follow, image, query, refusal, schema, selection, snapshot, store};

mod bindings {
    #![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
    wit_bindgen::generate!({
        path: ["../wit/event", "../wit/engine"],
        world: "cdc:engine/engine",
        generate_all,
    });
}

use bindings::cdc::engine::store as wit_store;
use bindings::cdc::event::types as wit;
use bindings::exports::cdc::engine::{
    capture as wit_capture, follow as wit_follow, query as wit_query, snapshot as wit_snapshot,
    subscribe as wit_subscribe,
};

struct Engine;

bindings::export!(Engine with_types_in bindings);

thread_local! {
    /// What the capturing instance remembers between calls.
    static CAPTURE: RefCell<capture::Capture> = RefCell::default();
}

#[expect(clippy::disallowed_methods, reason = "the shell is where the time comes from")]
fn now_ms() -> u64 {
    // A clock before 1970 is as good as none: timestamps then stay where the log left off.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn max_past_keys() -> usize {
    wit_store::get_settings().max_past_keys as usize
}

/// The imported store.
struct Imported;

/// One view of it.
struct ImportedView(wit_store::View);

impl store::Store for Imported {
    type View = ImportedView;

    fn settings(&self) -> store::Settings {
        let settings = wit_store::get_settings();
        store::Settings {
            schema_mode: match settings.schema_mode {
                wit_store::SchemaMode::Infer => store::SchemaMode::Infer,
                wit_store::SchemaMode::Strict => store::SchemaMode::Strict,
            },
            max_row_bytes: settings.max_row_bytes as usize,
            max_key_bytes: settings.max_key_bytes as usize,
            max_depth: settings.max_depth as usize,
            max_columns: settings.max_columns as usize,
            max_tables: settings.max_tables as usize,
            max_name_bytes: settings.max_name_bytes as usize,
            max_past_keys: settings.max_past_keys as usize,
        }
    }

    fn head(&self) -> Result<store::Head, store::StoreError> {
        let head = wit_store::get_head();
        Ok(store::Head {
            sequence: head.sequence,
            timestamp_ms: head.timestamp,
            schema_generation: head.schema_generation,
            tables: head.tables as usize,
        })
    }

    fn rows(&self, table: &str, keys: Vec<Span>, texts: Texts) -> Result<store::FoundRows, store::StoreError> {
        let keys: Vec<wit_store::Span> = keys.into_iter().map(Into::into).collect();
        let found = wit_store::rows(table, &keys, &texts.into_bytes())?;
        Ok(store::FoundRows {
            images: found.images.into_iter().map(|image| image.map(Into::into)).collect(),
            texts: found.texts.into(),
        })
    }

    fn schema(&self, table: &str) -> Result<Option<event::TableSchema>, store::StoreError> {
        Ok(wit_store::schema(table)?.map(Into::into))
    }

    fn commit(&self, batch: store::Batch) -> Result<u64, store::StoreError> {
        let batch = wit_store::Batch {
            timestamp: batch.timestamp_ms,
            schemas: batch.schemas.into_iter().map(Into::into).collect(),
            writes: batch
                .writes
                .into_iter()
                .map(|write| wit_store::Write {
                    table: write.table.into(),
                    key: write.key.into(),
                    operation: write.operation.into(),
                    before: write.before.map(Into::into),
                    after: write.after.map(Into::into),
                    schema_version: write.schema_version,
                    origin: write.origin.map(Into::into),
                })
                .collect(),
            texts: batch.texts.into_bytes(),
            positions: batch
                .positions
                .into_iter()
                .map(|position| wit_store::SourcePosition { source: position.source, position: position.position })
                .collect(),
        };
        Ok(wit_store::commit(&batch)?)
    }

    fn save_cursor(&self, subscription: &str, acknowledged: u64) -> Result<(), store::StoreError> {
        Ok(wit_store::save_cursor(subscription, acknowledged)?)
    }

    fn view(&self) -> Result<ImportedView, store::StoreError> {
        Ok(ImportedView(wit_store::View::open()?))
    }
}

impl store::View for ImportedView {
    fn bounds(&self) -> store::Bounds {
        let bounds = self.0.bounds();
        store::Bounds { oldest: bounds.oldest, newest: bounds.newest, newest_timestamp_ms: bounds.newest_timestamp }
    }

    fn row(&self, table: &str, key: &str) -> Result<Option<String>, store::StoreError> {
        Ok(self.0.row(table, key)?)
    }

    fn scan(
        &self,
        table: &str,
        after: Option<&str>,
        max_rows: u32,
        max_bytes: u32,
    ) -> Result<Vec<store::Row>, store::StoreError> {
        let rows = self.0.scan(table, after, max_rows, max_bytes)?;
        Ok(rows.into_iter().map(|row| store::Row { key: row.key, image: row.image }).collect())
    }

    fn events(&self, range: &store::EventRange) -> Result<store::EventSlice, store::StoreError> {
        let slice = self.0.events(&wit_store::EventRange {
            after: range.after,
            until: range.until,
            since: range.since_ms,
            table: range.table.clone(),
            operation: range.operation.map(Into::into),
            key: range.key.clone(),
            max_events: range.max_events,
            max_bytes: range.max_bytes,
            newest_first: range.newest_first,
        })?;
        Ok(store::EventSlice {
            entries: slice.entries.into_iter().map(Into::into).collect(),
            texts: slice.texts.into(),
            complete: slice.complete,
        })
    }

    fn schema(&self, table: &str, version: Option<u32>) -> Result<Option<event::TableSchema>, store::StoreError> {
        Ok(self.0.schema(table, version)?.map(Into::into))
    }

    fn schemas(&self) -> Result<Vec<event::TableSchema>, store::StoreError> {
        Ok(self.0.schemas()?.into_iter().map(Into::into).collect())
    }

    fn schema_history(&self, table: &str) -> Result<Vec<event::TableSchema>, store::StoreError> {
        Ok(self.0.schema_history(table)?.into_iter().map(Into::into).collect())
    }

    fn counters(&self) -> Result<store::Counters, store::StoreError> {
        let counters = self.0.counters();
        Ok(store::Counters {
            tables: counters
                .tables
                .into_iter()
                .map(|count| store::TableCount {
                    table: count.table,
                    inserts: count.inserts,
                    updates: count.updates,
                    deletes: count.deletes,
                    truncates: count.truncates,
                })
                .collect(),
            recent: counters.recent.into_iter().map(|count| (count.second, count.events)).collect(),
        })
    }

    fn cursor(&self, subscription: &str) -> Result<Option<u64>, store::StoreError> {
        Ok(self.0.cursor(subscription)?)
    }
}

/// A change whose texts are where its spans say.
fn change<'a>(change: &wit_capture::Change, texts: &'a Texts) -> Result<capture::Change<'a>, store::StoreError> {
    let wrong = || store::StoreError::Failed("a change has a span that is none of the texts given with it".to_owned());
    let bytes = |span: wit_store::Span| texts.bytes(span.into()).ok_or_else(wrong);
    let text = |span: wit_store::Span| std::str::from_utf8(bytes(span)?).map_err(|_| wrong());
    Ok(capture::Change {
        table: text(change.table)?,
        action: match change.action {
            wit_capture::Action::Insert => capture::Action::Insert,
            wit_capture::Action::Update => capture::Action::Update,
            wit_capture::Action::Upsert => capture::Action::Upsert,
            wit_capture::Action::Delete => capture::Action::Delete,
        },
        key: match &change.key {
            None => Vec::new(),
            Some(key) => key.iter().map(|&part| text(part)).collect::<Result<_, _>>()?,
        },
        image: bytes(change.image)?,
        origin: match &change.origin {
            None => None,
            Some(origin) => Some(event::OriginRef {
                source: text(origin.source)?,
                transaction: origin.transaction.map(text).transpose()?,
                position: origin.position.map(text).transpose()?,
                snapshot: origin.snapshot,
                committed_at_ms: origin.committed_at,
            }),
        },
    })
}

impl wit_capture::Guest for Engine {
    fn capture(
        changes: Vec<wit_capture::Change>,
        texts: Vec<u8>,
        positions: Vec<wit_store::SourcePosition>,
    ) -> Result<wit_capture::Captured, wit_store::StoreError> {
        let texts = Texts::from(texts);
        let changes = changes.iter().map(|given| change(given, &texts)).collect::<Result<_, _>>()?;
        let positions = positions
            .into_iter()
            .map(|position| store::SourcePosition { source: position.source, position: position.position })
            .collect();
        let captured = CAPTURE.with_borrow_mut(|capture| capture.capture(&Imported, now_ms(), changes, positions))?;
        Ok(wit_capture::Captured {
            timestamp: captured.timestamp_ms,
            outcomes: captured.outcomes.into_iter().map(|outcome| outcome.map_err(Into::into)).collect(),
        })
    }

    fn declare(declaration: wit_capture::Declaration) -> Result<wit::TableSchema, wit_capture::DeclareError> {
        let declaration = schema::Declaration {
            name: declaration.name,
            columns: declaration.columns.into_iter().map(Into::into).collect(),
            primary_key: declaration.primary_key,
        };
        match CAPTURE.with_borrow_mut(|capture| capture.declare(&Imported, now_ms(), declaration)) {
            Ok(schema) => Ok(schema.into()),
            Err(capture::DeclareError::Refused(refusal)) => Err(wit_capture::DeclareError::Refused(refusal.into())),
            Err(capture::DeclareError::Store(error)) => Err(wit_capture::DeclareError::Store(error.into())),
        }
    }
}

impl wit_follow::Guest for Engine {
    fn follow(portion: wit_follow::Portion) -> Result<wit_follow::Followed, wit_follow::FollowError> {
        let described = |table: wit_follow::Described| follow::Described {
            name: table.name,
            columns: table.columns.into_iter().map(Into::into).collect(),
            primary_key: table.primary_key,
            relation: table.relation.into(),
        };
        let transaction = |transaction: wit_follow::Transaction| follow::Transaction {
            name: transaction.name.into(),
            committed_at_ms: transaction.committed_at,
        };
        let detail = |detail: wit_follow::Detail| follow::Detail {
            unchanged: detail.unchanged,
            previous_key: detail.previous_key.map(Into::into),
        };
        let change = |change: wit_follow::Change| follow::Change {
            table: change.table,
            action: match change.action {
                wit_follow::Action::Describe => follow::Action::Describe,
                wit_follow::Action::Replace => follow::Action::Replace,
                wit_follow::Action::Remove => follow::Action::Remove,
                wit_follow::Action::Truncate => follow::Action::Truncate,
                wit_follow::Action::Read => follow::Action::Read,
            },
            key: change.key.into(),
            image: change.image.map(Into::into),
            before: change.before.map(Into::into),
            transaction: change.transaction,
            position: change.position.map(Into::into),
            detail: change.detail,
        };
        let portion = follow::Portion {
            source: portion.source,
            tables: portion.tables.into_iter().map(described).collect(),
            transactions: portion.transactions.into_iter().map(transaction).collect(),
            details: portion.details.into_iter().map(detail).collect(),
            changes: portion.changes.into_iter().map(change).collect(),
            texts: portion.texts.into(),
            checkpoint: portion.checkpoint,
        };
        match CAPTURE.with_borrow_mut(|capture| capture.follow(&Imported, now_ms(), portion)) {
            Ok(followed) => Ok(wit_follow::Followed {
                timestamp: followed.timestamp_ms,
                first: followed.first,
                events: followed.events,
            }),
            Err(follow::FollowError::Refused { change, refusal }) => {
                let refused = wit_follow::RefusedChange { change, refusal: refusal.into() };
                Err(wit_follow::FollowError::Refused(refused))
            }
            Err(follow::FollowError::Store(error)) => Err(wit_follow::FollowError::Store(error.into())),
        }
    }
}

fn view() -> Result<ImportedView, store::StoreError> {
    store::Store::view(&Imported)
}

impl wit_query::Guest for Engine {
    fn events(query: wit_query::EventQuery) -> Result<wit_query::EventPage, wit_query::QueryError> {
        let page = query::events(
            &view()?,
            query::EventQuery {
                table: query.table,
                operation: query.operation.map(Into::into),
                key: query.key,
                since_ms: query.since,
                after: query.after,
                limit: query.limit,
                order: match query.order {
                    wit_query::Order::Ascending => query::Order::Ascending,
                    wit_query::Order::Descending => query::Order::Descending,
                },
            },
        )?;
        Ok(wit_query::EventPage {
            entries: page.entries.into_iter().map(Into::into).collect(),
            texts: page.texts.into_bytes(),
            next_after: page.next_after,
            bounds: wit_store::Bounds {
                oldest: page.bounds.oldest,
                newest: page.bounds.newest,
                newest_timestamp: page.bounds.newest_timestamp_ms,
            },
        })
    }

    fn row(table: String, key: Vec<String>) -> Result<String, wit_query::QueryError> {
        Ok(query::row(&view()?, &table, &key)?)
    }

    fn stats() -> Result<wit_query::Statistics, wit_query::QueryError> {
        let statistics = query::statistics(&view()?, now_ms())?;
        Ok(wit_query::Statistics {
            total_events: statistics.total_events,
            inserts: statistics.inserts,
            updates: statistics.updates,
            deletes: statistics.deletes,
            truncates: statistics.truncates,
            tables: statistics.tables,
            last_event_time: statistics.last_event_time_ms,
            events_per_second: statistics.events_per_second,
            current_sequence: statistics.current_sequence,
        })
    }

    fn schema(table: String, version: Option<u32>) -> Result<wit::TableSchema, wit_query::QueryError> {
        Ok(query::schema(&view()?, &table, version)?.into())
    }

    fn schemas() -> Result<Vec<wit::TableSchema>, wit_query::QueryError> {
        Ok(query::schemas(&view()?)?.into_iter().map(Into::into).collect())
    }

    fn schema_history(table: String) -> Result<Vec<wit::TableSchema>, wit_query::QueryError> {
        Ok(query::schema_history(&view()?, &table)?.into_iter().map(Into::into).collect())
    }
}

impl wit_subscribe::Guest for Engine {
    type Matcher = selection::Matcher;

    fn poll(
        subscription: String,
        selection: wit_subscribe::Selection,
        max_events: u32,
    ) -> Result<wit_subscribe::Delivery, wit_subscribe::SubscribeError> {
        let delivery = selection::poll(&Imported, &subscription, &selection.into(), max_events)?;
        Ok(wit_subscribe::Delivery {
            events: delivery.events.into_iter().map(Into::into).collect(),
            acknowledge_up_to: delivery.acknowledge_up_to,
        })
    }

    fn acknowledge(subscription: String, up_to: u64) -> Result<(), wit_subscribe::SubscribeError> {
        Ok(selection::acknowledge(&Imported, &subscription, up_to)?)
    }
}

impl wit_subscribe::GuestMatcher for selection::Matcher {
    fn create(selection: wit_subscribe::Selection) -> Result<wit_subscribe::Matcher, wit_subscribe::SubscribeError> {
        Ok(wit_subscribe::Matcher::new(selection::Matcher::new(&selection.into())?))
    }

    fn matches(&self, events: Vec<wit::Event>) -> Vec<bool> {
        events.iter().map(|event| self.matches(&event.table, event.operation.into())).collect()
    }
}

impl wit_snapshot::Guest for Engine {
    type TableSnapshot = RefCell<snapshot::TableSnapshot<ImportedView>>;

    fn verify(
        table: String,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<wit_snapshot::ReplayReport, wit_snapshot::SnapshotError> {
        let report = snapshot::verify(&view()?, &table, from, to, max_past_keys())?;
        Ok(wit_snapshot::ReplayReport {
            table: report.table,
            from_sequence: report.from_sequence,
            to_sequence: report.to_sequence,
            events: report.events,
            replayed_rows: report.replayed_rows,
            replayed_checksum: report.replayed_checksum,
            live_rows: report.live_rows,
            live_checksum: report.live_checksum,
        })
    }
}

impl wit_snapshot::GuestTableSnapshot for RefCell<snapshot::TableSnapshot<ImportedView>> {
    fn open(table: String, at: Option<u64>) -> Result<wit_snapshot::TableSnapshot, wit_snapshot::SnapshotError> {
        let snapshot = snapshot::TableSnapshot::open(view()?, &table, at, max_past_keys())?;
        Ok(wit_snapshot::TableSnapshot::new(Self::new(snapshot)))
    }

    fn replay(table: String) -> Result<wit_snapshot::TableSnapshot, wit_snapshot::SnapshotError> {
        let snapshot = snapshot::TableSnapshot::replay(view()?, &table, max_past_keys())?;
        Ok(wit_snapshot::TableSnapshot::new(Self::new(snapshot)))
    }

    fn info(&self) -> wit_snapshot::SnapshotInfo {
        let snapshot = self.borrow();
        wit_snapshot::SnapshotInfo {
            sequence: snapshot.sequence(),
            timestamp: snapshot.timestamp_ms(),
            schema: snapshot.schema().clone().into(),
        }
    }

    fn next(&self, max_rows: u32, max_bytes: u32) -> Result<Vec<wit_store::Row>, wit_store::StoreError> {
        let rows = self.borrow_mut().next(max_rows, max_bytes)?;
        Ok(rows.into_iter().map(|row| wit_store::Row { key: row.key, image: row.image }).collect())
    }
}

impl From<wit_store::StoreError> for store::StoreError {
    fn from(error: wit_store::StoreError) -> Self {
        match error {
            wit_store::StoreError::Full(message) => Self::Full(message),
            wit_store::StoreError::Failed(message) => Self::Failed(message),
            wit_store::StoreError::Dropped(oldest) => Self::Dropped(oldest),
        }
    }
}

impl From<store::StoreError> for wit_store::StoreError {
    fn from(error: store::StoreError) -> Self {
        match error {
            store::StoreError::Full(message) => Self::Full(message),
            store::StoreError::Failed(message) | store::StoreError::Unsafe(message) => Self::Failed(message),
            // The host's store has one writer, so it never says this.
            store::StoreError::Conflict => Self::Failed("somebody else has committed in between".to_owned()),
            store::StoreError::Dropped(oldest) => Self::Dropped(oldest),
        }
    }
}

impl From<store::StoreError> for wit_query::QueryError {
    fn from(error: store::StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<query::QueryError> for wit_query::QueryError {
    fn from(error: query::QueryError) -> Self {
        match error {
            query::QueryError::UnknownTable(table) => Self::UnknownTable(table),
            query::QueryError::UnknownRow(row) => Self::UnknownRow(row),
            query::QueryError::UnknownVersion(version) => Self::UnknownVersion(version),
            query::QueryError::InTheFuture(newest) => Self::InTheFuture(newest),
            query::QueryError::Store(error) => Self::Store(error.into()),
        }
    }
}

impl From<selection::SubscribeError> for wit_subscribe::SubscribeError {
    fn from(error: selection::SubscribeError) -> Self {
        match error {
            selection::SubscribeError::InvalidSelection(message) => Self::InvalidSelection(message),
            selection::SubscribeError::InvalidSequence(message) => Self::InvalidSequence(message),
            selection::SubscribeError::Store(error) => Self::Store(error.into()),
        }
    }
}

impl From<store::StoreError> for wit_snapshot::SnapshotError {
    fn from(error: store::StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<snapshot::SnapshotError> for wit_snapshot::SnapshotError {
    fn from(error: snapshot::SnapshotError) -> Self {
        match error {
            snapshot::SnapshotError::UnknownTable(table) => Self::UnknownTable(table),
            snapshot::SnapshotError::InTheFuture(newest) => Self::InTheFuture(newest),
            snapshot::SnapshotError::TooFarBack(max_keys) => {
                Self::TooFarBack(u32::try_from(max_keys).unwrap_or(u32::MAX))
            }
            snapshot::SnapshotError::Store(error) => Self::Store(error.into()),
        }
    }
}

impl From<refusal::Refusal> for wit_capture::Refusal {
    fn from(refusal: refusal::Refusal) -> Self {
        use refusal::RefusalCode as Core;
        use wit_capture::RefusalCode as Wit;
        let code = match refusal.code {
            Core::InvalidJson => Wit::InvalidJson,
            Core::NotAnObject => Wit::NotAnObject,
            Core::DuplicateMember => Wit::DuplicateMember,
            Core::MissingKey => Wit::MissingKey,
            Core::InvalidKey => Wit::InvalidKey,
            Core::KeyMismatch => Wit::KeyMismatch,
            Core::KeyTooLong => Wit::KeyTooLong,
            Core::RowTooLarge => Wit::RowTooLarge,
            Core::TooDeep => Wit::TooDeep,
            Core::TooManyColumns => Wit::TooManyColumns,
            Core::TooManyTables => Wit::TooManyTables,
            Core::InvalidTableName => Wit::InvalidTableName,
            Core::InvalidColumnName => Wit::InvalidColumnName,
            Core::UnknownTable => Wit::UnknownTable,
            Core::UnknownRow => Wit::UnknownRow,
            Core::RowExists => Wit::RowExists,
            Core::SchemaViolation => Wit::SchemaViolation,
            Core::SchemaConflict => Wit::SchemaConflict,
            Core::InvalidSchema => Wit::InvalidSchema,
            Core::CapturedTable => Wit::CapturedTable,
        };
        Self { code, message: refusal.message, column: refusal.column }
    }
}

impl From<wit_subscribe::Selection> for selection::Selection {
    fn from(selection: wit_subscribe::Selection) -> Self {
        Self { tables: selection.tables, operations: selection.operations.into_iter().map(Into::into).collect() }
    }
}

impl From<wit::Operation> for event::Operation {
    fn from(operation: wit::Operation) -> Self {
        match operation {
            wit::Operation::Insert => Self::Insert,
            wit::Operation::Update => Self::Update,
            wit::Operation::Delete => Self::Delete,
            wit::Operation::Truncate => Self::Truncate,
        }
    }
}

impl From<event::Operation> for wit::Operation {
    fn from(operation: event::Operation) -> Self {
        match operation {
            event::Operation::Insert => Self::Insert,
            event::Operation::Update => Self::Update,
            event::Operation::Delete => Self::Delete,
            event::Operation::Truncate => Self::Truncate,
        }
    }
}

impl From<wit_store::Span> for Span {
    fn from(span: wit_store::Span) -> Self {
        Self { offset: span.offset, length: span.length }
    }
}

impl From<Span> for wit_store::Span {
    fn from(span: Span) -> Self {
        Self { offset: span.offset, length: span.length }
    }
}

impl From<wit_store::OriginSpans> for store::OriginSpans {
    fn from(origin: wit_store::OriginSpans) -> Self {
        Self {
            source: origin.source.into(),
            transaction: origin.transaction.map(Into::into),
            position: origin.position.map(Into::into),
            snapshot: origin.snapshot,
            committed_at_ms: origin.committed_at,
            unavailable: origin.unavailable.map(Into::into),
        }
    }
}

impl From<store::OriginSpans> for wit_store::OriginSpans {
    fn from(origin: store::OriginSpans) -> Self {
        Self {
            source: origin.source.into(),
            transaction: origin.transaction.map(Into::into),
            position: origin.position.map(Into::into),
            snapshot: origin.snapshot,
            committed_at: origin.committed_at_ms,
            unavailable: origin.unavailable.map(Into::into),
        }
    }
}

impl From<wit_store::Entry> for store::Entry {
    fn from(entry: wit_store::Entry) -> Self {
        Self {
            sequence: entry.sequence,
            timestamp_ms: entry.timestamp,
            table: entry.table.into(),
            key: entry.key.into(),
            operation: entry.operation.into(),
            before: entry.before.map(Into::into),
            after: entry.after.map(Into::into),
            schema_version: entry.schema_version,
            origin: entry.origin.map(Into::into),
        }
    }
}

impl From<store::Entry> for wit_store::Entry {
    fn from(entry: store::Entry) -> Self {
        Self {
            sequence: entry.sequence,
            timestamp: entry.timestamp_ms,
            table: entry.table.into(),
            key: entry.key.into(),
            operation: entry.operation.into(),
            before: entry.before.map(Into::into),
            after: entry.after.map(Into::into),
            schema_version: entry.schema_version,
            origin: entry.origin.map(Into::into),
        }
    }
}

impl From<event::Origin> for wit::Origin {
    fn from(origin: event::Origin) -> Self {
        Self {
            source: origin.source,
            transaction: origin.transaction,
            position: origin.position,
            snapshot: origin.snapshot,
            committed_at: origin.committed_at_ms,
            unavailable: origin.unavailable.as_deref().map_or_else(Vec::new, image::strings),
        }
    }
}

impl From<event::Event> for wit::Event {
    fn from(event: event::Event) -> Self {
        Self {
            sequence: event.sequence,
            id: event.id(),
            timestamp: event.timestamp_ms,
            table: event.table,
            key: event.key,
            operation: event.operation.into(),
            before: event.before,
            after: event.after,
            schema_version: event.schema_version,
            origin: event.origin.map(Into::into),
        }
    }
}

impl From<wit::Column> for event::Column {
    fn from(column: wit::Column) -> Self {
        let column_type = match column.column_type {
            wit::ColumnType::String => event::ColumnType::String,
            wit::ColumnType::Number => event::ColumnType::Number,
            wit::ColumnType::Boolean => event::ColumnType::Boolean,
            wit::ColumnType::Object => event::ColumnType::Object,
            wit::ColumnType::Array => event::ColumnType::Array,
            wit::ColumnType::Any => event::ColumnType::Any,
        };
        Self { name: column.name, column_type, nullable: column.nullable, native_type: column.native_type }
    }
}

impl From<event::Column> for wit::Column {
    fn from(column: event::Column) -> Self {
        let column_type = match column.column_type {
            event::ColumnType::String => wit::ColumnType::String,
            event::ColumnType::Number => wit::ColumnType::Number,
            event::ColumnType::Boolean => wit::ColumnType::Boolean,
            event::ColumnType::Object => wit::ColumnType::Object,
            event::ColumnType::Array => wit::ColumnType::Array,
            event::ColumnType::Any => wit::ColumnType::Any,
        };
        Self { name: column.name, column_type, nullable: column.nullable, native_type: column.native_type }
    }
}

impl From<wit::TableSchema> for event::TableSchema {
    fn from(schema: wit::TableSchema) -> Self {
        Self {
            name: schema.name,
            columns: schema.columns.into_iter().map(Into::into).collect(),
            primary_key: schema.primary_key,
            version: schema.version,
            relation: schema.relation.map(Into::into),
        }
    }
}

impl From<event::TableSchema> for wit::TableSchema {
    fn from(schema: event::TableSchema) -> Self {
        Self {
            name: schema.name,
            columns: schema.columns.into_iter().map(Into::into).collect(),
            primary_key: schema.primary_key,
            version: schema.version,
            relation: schema.relation.map(Into::into),
        }
    }
}

impl From<wit::Relation> for event::Relation {
    fn from(relation: wit::Relation) -> Self {
        let wit::Relation { source, connector, database, namespace, name } = relation;
        Self { source, connector, database, namespace, name }
    }
}

impl From<event::Relation> for wit::Relation {
    fn from(relation: event::Relation) -> Self {
        let event::Relation { source, connector, database, namespace, name } = relation;
        Self { source, connector, database, namespace, name }
    }
}
