//! Schemas in their three forms: the component's, the contract's, and the JSON text of the contract's that the store
//! keeps.

use super::bindings::cdc::event::types::{Column, ColumnType, Relation, TableSchema};

/// The schema as the store keeps it.
pub(super) fn encode(schema: TableSchema) -> Vec<u8> {
    let mut text = Vec::new();
    cdc_rest::write_schema(&mut text, &rest_schema(schema));
    text
}

/// The schema that a stored text is of.
pub(super) fn decode(definition: &[u8]) -> Result<TableSchema, serde_json::Error> {
    let cdc_rest::TableSchema { name, columns, primary_key, version, relation } =
        cdc_rest::TableSchema::read(definition)?;
    let relation = relation.map(|cdc_rest::Relation { source, connector, database, namespace, name }| Relation {
        source,
        connector,
        database,
        namespace,
        name,
    });
    Ok(TableSchema { name, columns: columns.into_iter().map(wit_column).collect(), primary_key, version, relation })
}

/// A schema as the contract knows it.
#[must_use]
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
    let columns = columns.into_iter().map(column).collect();
    cdc_rest::TableSchema { name, columns, primary_key, version, relation }
}

/// A column as the component knows it.
#[must_use]
pub fn wit_column(column: cdc_rest::Column) -> Column {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_schema_is_stored_in_the_shape_of_the_reference() {
        let id = Column { name: "id".to_owned(), column_type: ColumnType::String, nullable: false, native_type: None };
        let schema = TableSchema {
            name: "users".to_owned(),
            columns: vec![id],
            primary_key: vec!["id".to_owned()],
            version: 3,
            relation: None,
        };
        let text = encode(schema);
        let golden = r#"{"name":"users","columns":[{"name":"id","type":"string","nullable":false}],"primaryKey":["id"],"version":3}"#;
        assert_eq!(std::str::from_utf8(&text).unwrap(), golden);
        assert_eq!(encode(decode(&text).unwrap()), text);
    }

    #[test]
    fn a_schema_of_a_database_is_stored_with_where_it_is() {
        let golden = concat!(
            r#"{"name":"users","columns":[{"name":"id","type":"string","nullable":false,"nativeType":"uuid"}],"#,
            r#""primaryKey":["id"],"version":3,"relation":{"source":"shop","connector":"postgresql","#,
            r#""database":"shop_db","namespace":"public","name":"users"}}"#
        );
        let schema = decode(golden.as_bytes()).unwrap();
        assert_eq!(schema.relation.as_ref().map(|relation| relation.source.as_str()), Some("shop"));
        assert_eq!(schema.columns[0].native_type.as_deref(), Some("uuid"));
        assert_eq!(std::str::from_utf8(&encode(schema)).unwrap(), golden);
    }
}
