//! What a MariaDB has at this moment of a walk.

use serde::Deserialize;

use crate::walk::session::Session;

/// A table.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) engine: String,
    pub(super) versioned: bool,
    pub(super) partitions: Vec<String>,
    pub(super) columns: Vec<Column>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Column {
    schema: String,
    table: String,
    engine: Option<String>,
    versioned: u8,
    partitioned: u8,
    pub(super) name: String,
    /// `varchar(20)`.
    pub(super) kind: String,
    pub(super) not_null: u8,
    pub(super) in_key: u8,
    pub(super) generated: u8,
}

/// Of one database by its name: so the server need not look for others.
const COLUMNS: &str = "SELECT JSON_OBJECT('schema', t.TABLE_SCHEMA, 'table', t.TABLE_NAME, 'engine', t.ENGINE, \
    'versioned', IF(t.TABLE_TYPE = 'SYSTEM VERSIONED', 1, 0), 'partitioned', IF(t.CREATE_OPTIONS LIKE '%partitioned%', 1, 0), \
    'name', c.COLUMN_NAME, 'kind', c.COLUMN_TYPE, 'not_null', IF(c.IS_NULLABLE = 'NO', 1, 0), \
    'in_key', IF(c.COLUMN_KEY = 'PRI', 1, 0), 'generated', IF(c.IS_GENERATED = 'NEVER', 0, 1)) \
  FROM information_schema.TABLES t JOIN information_schema.COLUMNS c ON c.TABLE_SCHEMA = '{schema}' \
    AND c.TABLE_NAME = t.TABLE_NAME WHERE t.TABLE_SCHEMA = '{schema}' AND t.TABLE_NAME <> 'walk_marker' \
    AND t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY t.TABLE_NAME, c.ORDINAL_POSITION";

const PARTITIONS: &str = "SELECT PARTITION_NAME FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = '{schema}' \
    AND TABLE_NAME = '{table}' ORDER BY PARTITION_ORDINAL_POSITION";

/// All tables by their names.
pub(super) fn tables(session: &mut Session) -> Option<Vec<Table>> {
    let mut found: Vec<Table> = Vec::new();
    for schema in ["hidden", "s2", "walk"] {
        let listed = session.run(&COLUMNS.replace("{schema}", schema)).ok()?;
        for line in listed.lines() {
            let column: Column = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if found.last().is_none_or(|table| (&table.schema, &table.name) != (&column.schema, &column.table)) {
                let mut partitions = Vec::new();
                if column.partitioned == 1 {
                    let sql = PARTITIONS.replace("{schema}", schema).replace("{table}", &column.table);
                    partitions.extend(session.run(&sql).ok()?.lines().map(str::to_owned));
                }
                found.push(Table {
                    schema: column.schema.clone(),
                    name: column.table.clone(),
                    engine: column.engine.clone().unwrap_or_default(),
                    versioned: column.versioned == 1,
                    partitions,
                    columns: Vec::new(),
                });
            }
            found.last_mut()?.columns.push(column);
        }
    }
    Some(found)
}

impl Table {
    pub(super) fn quoted(&self) -> String {
        in_schema(&self.schema, &self.name)
    }

    pub(super) fn key(&self) -> Vec<&Column> {
        self.columns.iter().filter(|column| column.in_key == 1).collect()
    }

    /// Columns that are neither the key's nor generated.
    pub(super) fn free(&self) -> Vec<&Column> {
        self.columns.iter().filter(|column| column.in_key == 0 && column.generated == 0).collect()
    }
}

pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

pub(super) fn in_schema(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}
