//! What is here of a source: its tables by their schemas, and their rows page by page.

use std::sync::Arc;

use bytes::Bytes;
use cdc_rest::{ColumnType, TableSchema};
use cdc_sources::{Action, Change, Column, Kind, Table};

use crate::store::{Row, StoreError, View};

/// Rows looked at in one go.
pub(super) const PAGE_ROWS: usize = 512;
/// The same, in bytes.
const PAGE_BYTES: usize = 1 << 20;

/// Does what may read from the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// The rows after a key; none at the end.
pub(super) fn page(view: &dyn View, table: &str, after: Option<&str>) -> Result<Vec<Row>, StoreError> {
    view.scan(table, after, PAGE_ROWS, PAGE_BYTES)
}

/// Whether a table has rows.
pub(super) fn has_rows(view: &dyn View, table: &str) -> Result<bool, StoreError> {
    Ok(!view.scan(table, None, 1, 1)?.is_empty())
}

/// The tables of this source that are here, as they looked last.
pub(super) fn tables(view: &dyn View, source: &str) -> Result<Vec<Arc<Table>>, StoreError> {
    let read = |found: crate::store::SchemaVersion| {
        let schema = TableSchema::read(&found.definition).map_err(|error| {
            StoreError::Corrupt(format!("the schema of {} cannot be read: {error}", found.table).into())
        })?;
        Ok(table(schema, source).map(Arc::new))
    };
    view.schemas().into_iter().filter_map(|schema| read(schema).transpose()).collect()
}

/// Those of them that have rows.
pub(super) fn with_rows(view: &dyn View, source: &str) -> Result<Vec<Arc<Table>>, StoreError> {
    let mut found = Vec::new();
    for table in tables(view, source)? {
        if has_rows(view, &table.name)? {
            found.push(table);
        }
    }
    Ok(found)
}

/// Whether a table of this name is here and follows this source.
pub(super) fn is_of(view: &dyn View, source: &str, name: &str) -> bool {
    let schema = view.schema(name, None).and_then(|found| TableSchema::read(&found.definition).ok());
    schema.and_then(|schema| schema.relation).is_some_and(|relation| relation.source == source)
}

/// A schema as the source had described it; none if it is of something else.
fn table(schema: TableSchema, source: &str) -> Option<Table> {
    let TableSchema { name, columns, primary_key, version: _, relation } = schema;
    let relation = relation.filter(|relation| relation.source == source)?;
    let column = |column: cdc_rest::Column| Column {
        name: column.name,
        kind: match column.column_type {
            ColumnType::String => Kind::String,
            ColumnType::Number => Kind::Number,
            ColumnType::Boolean => Kind::Boolean,
            ColumnType::Object => Kind::Object,
            ColumnType::Array => Kind::Array,
            ColumnType::Any => Kind::Any,
        },
        nullable: column.nullable,
        native_type: column.native_type.unwrap_or_default(),
    };
    Some(Table {
        name,
        connector: match relation.connector.as_str() {
            "postgresql" => "postgresql",
            "mysql" => "mysql",
            _ => "mariadb",
        },
        database: relation.database,
        namespace: relation.namespace,
        relation: relation.name,
        columns: columns.into_iter().map(column).collect(),
        key: primary_key,
    })
}

/// A change that the service itself makes: of the row with this key, as the store has it, or of the whole table.
pub(super) fn change(table: &Arc<Table>, action: Action, key: Option<&Bytes>, image: Option<String>) -> Change {
    // In one part it is taken as it stands, also where the table's key is another one by now.
    let key = key.map(|key| String::from_utf8_lossy(key).into_owned()).into_iter().collect();
    Change::unlogged(table.clone(), action, key, image)
}
