//! What stands in the tree: keys by kind, and the bytes of events, schemas and counters.

use cdc_engine::event::{Operation, TableSchema};
use cdc_engine::store::{Entry, StoreError, TableCount, Write};
use cdc_engine::texts::Texts;

use super::codec::{Decoder, Encoder, damaged};
use crate::worker::convert::{core_schema, rest_schema};

/// A table's name has no character below `$`, so this ends it, and the next byte ends all of its keys.
const END_OF_NAME: u8 = 0;

pub(super) fn event_key(sequence: u64) -> Vec<u8> {
    let mut key = vec![b'e'];
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

fn of_table(kind: u8, table: &str, end: u8) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(table.as_bytes());
    key.push(end);
    key
}

pub(super) fn row_key(table: &str, key: &str) -> Vec<u8> {
    let mut found = of_table(b'r', table, END_OF_NAME);
    found.extend_from_slice(key.as_bytes());
    found
}

/// Behind every row of a table.
pub(super) fn end_of_rows(table: &str) -> Vec<u8> {
    of_table(b'r', table, END_OF_NAME + 1)
}

/// The row's own key of one that [`row_key`] made.
pub(super) fn key_of_row<'a>(table: &str, key: &'a [u8]) -> Result<&'a str, StoreError> {
    let own = key.get(table.len() + 2..).ok_or_else(damaged)?;
    std::str::from_utf8(own).map_err(|_| damaged())
}

pub(super) fn schema_key(table: &str, version: u32) -> Vec<u8> {
    let mut key = of_table(b's', table, END_OF_NAME);
    key.extend_from_slice(&version.to_be_bytes());
    key
}

/// Every version of a table's schema.
pub(super) fn schemas_of(table: &str) -> (Vec<u8>, Vec<u8>) {
    (of_table(b's', table, END_OF_NAME), of_table(b's', table, END_OF_NAME + 1))
}

/// Every version of every schema, and every counter.
pub(super) const SCHEMAS: (&[u8], &[u8]) = (b"s", b"t");
pub(super) const COUNTERS: (&[u8], &[u8]) = (b"c", b"d");

/// Where a subscription's cursor stands.
pub(super) fn cursor_key(subscription: &str) -> Vec<u8> {
    let mut key = vec![b'a'];
    key.extend_from_slice(subscription.as_bytes());
    key
}

pub(super) fn encode_cursor(acknowledged: u64) -> Vec<u8> {
    let mut out = Encoder::default();
    out.number(acknowledged);
    out.0
}

pub(super) fn decode_cursor(bytes: &[u8]) -> Result<u64, StoreError> {
    Decoder(bytes).number()
}

pub(super) fn counter_key(table: &str) -> Vec<u8> {
    let mut key = vec![b'c'];
    key.extend_from_slice(table.as_bytes());
    key
}

pub(super) fn encode_event(write: &Write, timestamp_ms: u64, texts: &Texts) -> Result<Vec<u8>, StoreError> {
    if write.origin.is_some() || write.operation == Operation::Truncate {
        return Err(StoreError::Failed("databases are not followed at the edge".to_owned()));
    }
    let mut out = Encoder::default();
    out.number(timestamp_ms);
    out.number(match write.operation {
        Operation::Insert => 0,
        Operation::Update => 1,
        Operation::Delete => 2,
        Operation::Truncate => 3,
    });
    out.number(u64::from(write.schema_version));
    out.bytes(texts.text(write.table)?.as_bytes());
    out.bytes(texts.text(write.key)?.as_bytes());
    for image in [write.before, write.after] {
        out.optional(image.map(|image| texts.text(image)).transpose()?.map(str::as_bytes));
    }
    Ok(out.0)
}

/// An event as it stands in the log.
#[derive(Debug)]
pub(super) struct StoredEvent<'a> {
    pub(super) sequence: u64,
    pub(super) timestamp_ms: u64,
    pub(super) operation: Operation,
    schema_version: u32,
    pub(super) table: &'a str,
    pub(super) key: &'a str,
    before: Option<&'a str>,
    after: Option<&'a str>,
}

impl<'a> StoredEvent<'a> {
    pub(super) fn decode(key: &[u8], value: &'a [u8]) -> Result<Self, StoreError> {
        let sequence = key.get(1..).and_then(|sequence| sequence.try_into().ok()).ok_or_else(damaged)?;
        let mut from = Decoder(value);
        Ok(Self {
            sequence: u64::from_be_bytes(sequence),
            timestamp_ms: from.number()?,
            operation: match from.number()? {
                0 => Operation::Insert,
                1 => Operation::Update,
                2 => Operation::Delete,
                _ => return Err(damaged()),
            },
            schema_version: u32::try_from(from.number()?).map_err(|_| damaged())?,
            table: from.text()?,
            key: from.text()?,
            before: from.optional_text()?,
            after: from.optional_text()?,
        })
    }

    pub(super) fn image_bytes(&self) -> usize {
        self.before.map_or(0, str::len) + self.after.map_or(0, str::len)
    }

    pub(super) fn push(&self, texts: &mut Texts) -> Entry {
        Entry {
            sequence: self.sequence,
            timestamp_ms: self.timestamp_ms,
            table: texts.push(self.table),
            key: texts.push(self.key),
            operation: self.operation,
            before: self.before.map(|image| texts.push(image)),
            after: self.after.map(|image| texts.push(image)),
            schema_version: self.schema_version,
            origin: None,
        }
    }
}

/// A schema as the contract shows it.
pub(super) fn encode_schema(schema: TableSchema) -> Vec<u8> {
    let mut out = Vec::new();
    cdc_rest::write_schema(&mut out, &rest_schema(schema));
    out
}

pub(super) fn decode_schema(value: &[u8]) -> Result<TableSchema, StoreError> {
    cdc_rest::TableSchema::read(value).map(core_schema).map_err(|_| damaged())
}

pub(super) fn encode_count(count: &TableCount) -> Vec<u8> {
    let mut out = Encoder::default();
    for number in [count.inserts, count.updates, count.deletes, count.truncates] {
        out.number(number);
    }
    out.0
}

pub(super) fn decode_count(table: &str, value: Option<&[u8]>) -> Result<TableCount, StoreError> {
    let mut count = TableCount { table: table.to_owned(), ..TableCount::default() };
    if let Some(value) = value {
        let mut from = Decoder(value);
        for number in [&mut count.inserts, &mut count.updates, &mut count.deletes, &mut count.truncates] {
            *number = from.number()?;
        }
    }
    Ok(count)
}

/// The table of a counter.
pub(super) fn table_of_counter(key: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(key.get(1..).ok_or_else(damaged)?).map_err(|_| damaged())
}
