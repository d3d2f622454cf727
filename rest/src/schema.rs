//! Schemas as JSON.

use serde::Deserialize;

use crate::json;

/// The type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// JSON strings.
    String,
    /// JSON numbers.
    Number,
    /// `true` and `false`.
    Boolean,
    /// JSON objects.
    Object,
    /// JSON arrays.
    Array,
    /// Values of more than one type, or none but null.
    Any,
}

impl ColumnType {
    /// The name as schemas show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Object => "object",
            Self::Array => "array",
            Self::Any => "any",
        }
    }
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The type of its values.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// Whether a row may lack it or hold null in it.
    pub nullable: bool,
    /// The database's own name of its type, for tables that are captured from one: `numeric(10,2)`.
    pub native_type: Option<String>,
}

/// The table of a database that a table is captured from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Relation {
    /// The name of the source that follows it.
    pub source: String,
    /// What kind of database it is: `postgresql`, `mysql`, `mariadb`.
    pub connector: String,
    /// The database.
    pub database: String,
    /// Its schema (PostgreSQL), or the database again (MariaDB, MySQL).
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// One version of a table's schema.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableSchema {
    /// The table's name.
    pub name: String,
    /// In the order in which they were declared or first seen.
    pub columns: Vec<Column>,
    /// The names of the key's columns, in key order.
    pub primary_key: Vec<String>,
    /// From 1.
    pub version: u32,
    /// Where it is captured from; none for a table that is written through our own door.
    pub relation: Option<Relation>,
}

impl TableSchema {
    /// Reads a schema that was written as [`write_schema`] writes it.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

/// Writes a schema: the answer to `GET` and `PUT /schema/:table`.
pub fn write_schema(out: &mut Vec<u8>, schema: &TableSchema) {
    out.extend_from_slice(b"{\"name\":");
    json::string(out, &schema.name);
    out.extend_from_slice(b",\"columns\":[");
    json::list(out, &schema.columns, |out, column| {
        out.extend_from_slice(b"{\"name\":");
        json::string(out, &column.name);
        out.extend_from_slice(b",\"type\":");
        json::string(out, column.column_type.as_str());
        out.extend_from_slice(b",\"nullable\":");
        json::boolean(out, column.nullable);
        if let Some(native_type) = &column.native_type {
            out.extend_from_slice(b",\"nativeType\":");
            json::string(out, native_type);
        }
        out.push(b'}');
    });
    out.extend_from_slice(b"],\"primaryKey\":[");
    json::list(out, &schema.primary_key, |out, name| json::string(out, name));
    out.extend_from_slice(b"],\"version\":");
    json::integer(out, schema.version);
    if let Some(relation) = &schema.relation {
        out.extend_from_slice(b",\"relation\":{\"source\":");
        json::string(out, &relation.source);
        out.extend_from_slice(b",\"connector\":");
        json::string(out, &relation.connector);
        out.extend_from_slice(b",\"database\":");
        json::string(out, &relation.database);
        out.extend_from_slice(b",\"namespace\":");
        json::string(out, &relation.namespace);
        out.extend_from_slice(b",\"name\":");
        json::string(out, &relation.name);
        out.push(b'}');
    }
    out.push(b'}');
}

/// Writes the answer to `GET /schemas`.
pub fn write_schemas(out: &mut Vec<u8>, schemas: &[TableSchema]) {
    out.extend_from_slice(b"{\"schemas\":[");
    json::list(out, schemas, write_schema);
    out.extend_from_slice(b"],\"count\":");
    json::integer(out, schemas.len() as u64);
    out.push(b'}');
}

/// Writes the answer to `GET /schema/:table/history`: the versions, oldest first.
pub fn write_schema_history(out: &mut Vec<u8>, name: &str, versions: &[TableSchema]) {
    out.extend_from_slice(b"{\"name\":");
    json::string(out, name);
    out.extend_from_slice(b",\"versions\":[");
    json::list(out, versions, write_schema);
    out.extend_from_slice(b"],\"count\":");
    json::integer(out, versions.len() as u64);
    out.push(b'}');
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::assert_golden;

    pub(crate) fn users(version: u32) -> TableSchema {
        let column =
            |name: &str, column_type, nullable| Column { name: name.into(), column_type, nullable, native_type: None };
        let mut columns = vec![column("id", ColumnType::String, false), column("e\"mail", ColumnType::String, false)];
        if version > 1 {
            columns.push(column("age", ColumnType::Any, true));
        }
        TableSchema { name: "users".into(), columns, primary_key: vec!["id".into()], version, relation: None }
    }

    #[test]
    fn a_schema_is_the_seeds() {
        let mut out = Vec::new();
        write_schema(&mut out, &users(1));
        assert_golden("schema.json", &out);
    }

    #[test]
    fn a_schema_of_a_database_tells_where_it_is_from_and_is_read_back() {
        let mut schema = users(2);
        schema.columns[0].native_type = Some("character varying(20)".into());
        schema.relation = Some(Relation {
            source: "pg".into(),
            connector: "postgresql".into(),
            database: "shop".into(),
            namespace: "public".into(),
            name: "users".into(),
        });
        let mut out = Vec::new();
        write_schema(&mut out, &schema);
        assert_golden("schema-captured.json", &out);
        assert_eq!(TableSchema::read(&out).ok(), Some(schema));
        out.clear();
        write_schema(&mut out, &users(1));
        assert_eq!(TableSchema::read(&out).ok(), Some(users(1)));
    }

    #[test]
    fn schemas_are_counted() {
        let lines = TableSchema {
            name: "lines".into(),
            columns: vec![],
            primary_key: vec!["order".into(), "line".into()],
            version: 1,
            relation: None,
        };
        let mut out = Vec::new();
        write_schemas(&mut out, &[lines, users(2)]);
        assert_golden("schemas.json", &out);
        out.clear();
        write_schemas(&mut out, &[]);
        assert_golden("schemas-empty.json", &out);
    }

    #[test]
    fn a_history_has_every_version() {
        let mut out = Vec::new();
        write_schema_history(&mut out, "users", &[users(1), users(2)]);
        assert_golden("schema-history.json", &out);
    }
}
