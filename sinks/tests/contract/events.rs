//! Events that tests deliver: rows of the table `items`, and of others.

use std::sync::Arc;

use bytes::Bytes;
use cdc_rest::envelope::Subject;
use cdc_rest::{Column, ColumnType, EventRef, Operation, OriginRef, TableSchema, event_id, write_event};
use cdc_sinks::{Event, Sink};

/// An event with all that it borrows.
#[derive(Clone, Debug)]
pub struct Item {
    pub sequence: u64,
    pub operation: Operation,
    pub table: String,
    pub key: String,
    pub before: Option<String>,
    pub after: Option<String>,
    pub unavailable: Option<String>,
    pub is_row: bool,
    pub is_late: bool,
    pub schema: Arc<TableSchema>,
    id: String,
    native: Bytes,
}

/// `items(id text, n numeric, note text)`, by `id`.
pub fn items_schema(table: &str) -> Arc<TableSchema> {
    let column =
        |name: &str, column_type, nullable| Column { name: name.into(), column_type, nullable, native_type: None };
    let columns = vec![
        column("id", ColumnType::String, false),
        column("n", ColumnType::Number, false),
        column("note", ColumnType::String, true),
    ];
    Arc::new(TableSchema { name: table.into(), columns, primary_key: vec!["id".into()], version: 1, relation: None })
}

/// A row of `items`.
pub fn image(key: &str, n: u64, note: &str) -> String {
    format!(r#"{{"id":{},"n":{n},"note":{}}}"#, serde_json::Value::from(key), serde_json::Value::from(note))
}

impl Item {
    /// An event of any table.
    pub fn new(
        sequence: u64,
        operation: Operation,
        schema: &Arc<TableSchema>,
        key: &str,
        before: Option<String>,
        after: Option<String>,
    ) -> Self {
        Self {
            sequence,
            operation,
            table: schema.name.clone(),
            key: key.into(),
            before,
            after,
            unavailable: None,
            is_row: false,
            is_late: false,
            schema: schema.clone(),
            id: event_id(TIMESTAMP_MS, sequence),
            native: Bytes::new(),
        }
        .written()
    }

    /// The row `key` of `items` comes into being, or changes: its `n` is the event's sequence number.
    pub fn put(sequence: u64, key: &str) -> Self {
        Self::noted(sequence, key, "")
    }

    /// The same with a note.
    pub fn noted(sequence: u64, key: &str, note: &str) -> Self {
        let after = Some(image(key, sequence, note));
        Self::new(sequence, Operation::Insert, &items_schema("items"), key, None, after)
    }

    /// The row `key` of `items` goes.
    pub fn delete(sequence: u64, key: &str) -> Self {
        let before = Some(image(key, sequence, ""));
        Self::new(sequence, Operation::Delete, &items_schema("items"), key, before, None)
    }

    /// A row of a snapshot at an event.
    pub fn row(at: u64, key: &str, n: u64) -> Self {
        let mut item = Self::new(at, Operation::Insert, &items_schema("items"), key, None, Some(image(key, n, "")));
        item.is_row = true;
        item.id = format!("row_{at}_items/{key}");
        item.written()
    }

    /// The same as a dead letter that is tried again.
    pub fn late(mut self) -> Self {
        self.is_late = true;
        self
    }

    /// Values that nobody knew, and the image lacks.
    pub fn lacking(mut self, columns: &[&str]) -> Self {
        self.unavailable = Some(serde_json::json!(columns).to_string());
        self.written()
    }

    fn event(&self) -> EventRef<'_> {
        let origin = self.unavailable.as_deref().map(|unavailable| OriginRef {
            source: "pg",
            transaction: None,
            position: None,
            snapshot: false,
            committed_at_ms: None,
            unavailable: Some(unavailable),
        });
        EventRef {
            sequence: self.sequence,
            timestamp_ms: TIMESTAMP_MS,
            table: &self.table,
            operation: self.operation,
            before: self.before.as_deref().map(str::as_bytes),
            after: self.after.as_deref().map(str::as_bytes),
            schema_version: self.schema.version,
            origin,
        }
    }

    fn written(mut self) -> Self {
        let mut out = Vec::new();
        write_event(&mut out, &self.event());
        self.native = out.into();
        self
    }

    /// What a sink gets.
    pub fn lent(&self) -> Event<'_> {
        let (event, subscription) = (self.event(), Some("contract"));
        let subject = Subject { event, id: &self.id, key: &self.key, schema: &self.schema, subscription };
        Event { subject, native: &self.native, is_row: self.is_row, is_late: self.is_late }
    }

    /// What a receiver is to hold of it: key and `n`.
    pub fn written_row(&self) -> (String, u64) {
        let image = self.after.as_deref().or(self.before.as_deref()).unwrap();
        let image: serde_json::Value = serde_json::from_str(image).unwrap();
        (self.key.clone(), image["n"].as_u64().unwrap())
    }
}

const TIMESTAMP_MS: u64 = 1_764_000_000_000;

/// Events `from..from + count`, of keys that come again after every `keys`.
pub fn puts(from: u64, count: u64, keys: u64) -> Vec<Item> {
    (from..from + count).map(|sequence| Item::put(sequence, &format!("k{}", sequence % keys))).collect()
}

/// Delivers items as one batch.
pub async fn deliver(sink: &mut impl Sink, items: &[Item]) -> Result<(), cdc_sinks::Failure> {
    let batch: Vec<Event<'_>> = items.iter().map(Item::lent).collect();
    sink.deliver(&batch).await
}

/// Delivers items as the service does: again from the first that is not known to be safe, until all are.
pub async fn deliver_stubbornly(sink: &mut impl Sink, items: &[Item]) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut done = 0;
    while done < items.len() {
        if let Err(failure) = deliver(sink, &items[done..]).await {
            assert!(tokio::time::Instant::now() < deadline, "{failure}");
            assert_ne!(failure.remedy, cdc_sinks::Remedy::Reject, "{failure}");
            assert!(failure.index < items.len() - done, "{failure:?}");
            done += failure.index;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        } else {
            done = items.len();
        }
    }
}
