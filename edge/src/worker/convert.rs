//! The core's types as the contract's, and back.

use cdc_engine::event::{Column, ColumnType, Operation, Relation, TableSchema};
use cdc_engine::store::{Entry, OriginSpans, StoreError, Write};
use cdc_engine::texts::{Span, Texts};
use cdc_rest::{EventRef, OriginRef};

/// A schema as the contract knows it.
pub fn rest_schema(schema: TableSchema) -> cdc_rest::TableSchema {
    let TableSchema { name, columns, primary_key, version, relation } = schema;
    let column = |column: Column| cdc_rest::Column {
        name: column.name,
        column_type: match column.column_type {
            ColumnType::String => cdc_rest::ColumnType::String,
            ColumnType::Number => cdc_rest::ColumnType::Number,
            ColumnType::Boolean => cdc_rest::ColumnType::Boolean,
            ColumnType::Object => cdc_rest::ColumnType::Object,
            ColumnType::Array => cdc_rest::ColumnType::Array,
            ColumnType::Any => cdc_rest::ColumnType::Any,
        },
        nullable: column.nullable,
        native_type: column.native_type,
    };
    let relation = relation.map(|Relation { source, connector, database, namespace, name }| cdc_rest::Relation {
        source,
        connector,
        database,
        namespace,
        name,
    });
    cdc_rest::TableSchema { name, columns: columns.into_iter().map(column).collect(), primary_key, version, relation }
}

/// A column as the core knows it.
pub fn core_column(column: cdc_rest::Column) -> Column {
    Column {
        name: column.name,
        column_type: match column.column_type {
            cdc_rest::ColumnType::String => ColumnType::String,
            cdc_rest::ColumnType::Number => ColumnType::Number,
            cdc_rest::ColumnType::Boolean => ColumnType::Boolean,
            cdc_rest::ColumnType::Object => ColumnType::Object,
            cdc_rest::ColumnType::Array => ColumnType::Array,
            cdc_rest::ColumnType::Any => ColumnType::Any,
        },
        nullable: column.nullable,
        native_type: column.native_type,
    }
}

/// A schema as the core knows it.
pub fn core_schema(schema: cdc_rest::TableSchema) -> TableSchema {
    let cdc_rest::TableSchema { name, columns, primary_key, version, relation } = schema;
    let relation = relation.map(|cdc_rest::Relation { source, connector, database, namespace, name }| Relation {
        source,
        connector,
        database,
        namespace,
        name,
    });
    TableSchema { name, columns: columns.into_iter().map(core_column).collect(), primary_key, version, relation }
}

pub(super) fn core_operation(operation: cdc_rest::Operation) -> Operation {
    match operation {
        cdc_rest::Operation::Insert => Operation::Insert,
        cdc_rest::Operation::Update => Operation::Update,
        cdc_rest::Operation::Delete => Operation::Delete,
        cdc_rest::Operation::Truncate => Operation::Truncate,
    }
}

pub(super) fn rest_operation(operation: Operation) -> cdc_rest::Operation {
    match operation {
        Operation::Insert => cdc_rest::Operation::Insert,
        Operation::Update => cdc_rest::Operation::Update,
        Operation::Delete => cdc_rest::Operation::Delete,
        Operation::Truncate => cdc_rest::Operation::Truncate,
    }
}

/// An event of the log as it is shown.
pub(super) fn event_ref<'a>(entry: &Entry, texts: &'a Texts) -> Result<EventRef<'a>, StoreError> {
    let image = |span: Option<Span>| span.map(|span| texts.text(span).map(str::as_bytes)).transpose();
    let text = |span: Option<Span>| span.map(|span| texts.text(span)).transpose();
    let origin = |origin: OriginSpans| -> Result<OriginRef<'a>, StoreError> {
        Ok(OriginRef {
            source: texts.text(origin.source)?,
            transaction: text(origin.transaction)?,
            position: text(origin.position)?,
            snapshot: origin.snapshot,
            committed_at_ms: origin.committed_at_ms,
            unavailable: text(origin.unavailable)?,
        })
    };
    Ok(EventRef {
        sequence: entry.sequence,
        timestamp_ms: entry.timestamp_ms,
        table: texts.text(entry.table)?,
        operation: rest_operation(entry.operation),
        before: image(entry.before)?,
        after: image(entry.after)?,
        schema_version: entry.schema_version,
        origin: entry.origin.map(origin).transpose()?,
    })
}

/// What was written as the log has it.
pub(super) fn entry(write: &Write, sequence: u64, timestamp_ms: u64) -> Entry {
    Entry {
        sequence,
        timestamp_ms,
        table: write.table,
        key: write.key,
        operation: write.operation,
        before: write.before,
        after: write.after,
        schema_version: write.schema_version,
        origin: write.origin,
    }
}
