//! Schemas as the store keeps them: JSON text in the shape of the reference.

use serde::{Deserialize, Serialize};

use super::bindings::cdc::event::types::{Column, ColumnType, TableSchema};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredSchema {
    name: String,
    columns: Vec<StoredColumn>,
    primary_key: Vec<String>,
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct StoredColumn {
    name: String,
    #[serde(rename = "type")]
    column_type: StoredType,
    nullable: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredType {
    String,
    Number,
    Boolean,
    Object,
    Array,
    Any,
}

/// The schema as JSON text.
pub(super) fn encode(schema: &TableSchema) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&StoredSchema {
        name: schema.name.clone(),
        columns: schema
            .columns
            .iter()
            .map(|column| StoredColumn {
                name: column.name.clone(),
                column_type: match column.column_type {
                    ColumnType::String => StoredType::String,
                    ColumnType::Number => StoredType::Number,
                    ColumnType::Boolean => StoredType::Boolean,
                    ColumnType::Object => StoredType::Object,
                    ColumnType::Array => StoredType::Array,
                    ColumnType::Any => StoredType::Any,
                },
                nullable: column.nullable,
            })
            .collect(),
        primary_key: schema.primary_key.clone(),
        version: schema.version,
    })
}

/// The schema that a JSON text is of.
pub(super) fn decode(definition: &[u8]) -> Result<TableSchema, serde_json::Error> {
    let stored: StoredSchema = serde_json::from_slice(definition)?;
    Ok(TableSchema {
        name: stored.name,
        columns: stored
            .columns
            .into_iter()
            .map(|column| Column {
                name: column.name,
                column_type: match column.column_type {
                    StoredType::String => ColumnType::String,
                    StoredType::Number => ColumnType::Number,
                    StoredType::Boolean => ColumnType::Boolean,
                    StoredType::Object => ColumnType::Object,
                    StoredType::Array => ColumnType::Array,
                    StoredType::Any => ColumnType::Any,
                },
                nullable: column.nullable,
            })
            .collect(),
        primary_key: stored.primary_key,
        version: stored.version,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_schema_is_stored_in_the_shape_of_the_reference() {
        let schema = TableSchema {
            name: "users".to_owned(),
            columns: vec![Column { name: "id".to_owned(), column_type: ColumnType::String, nullable: false }],
            primary_key: vec!["id".to_owned()],
            version: 3,
        };
        let text = encode(&schema).unwrap();
        let golden = r#"{"name":"users","columns":[{"name":"id","type":"string","nullable":false}],"primaryKey":["id"],"version":3}"#;
        assert_eq!(std::str::from_utf8(&text).unwrap(), golden);
        assert_eq!(encode(&decode(&text).unwrap()).unwrap(), text);
    }
}
