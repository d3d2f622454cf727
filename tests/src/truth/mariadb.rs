//! What a MariaDB has.

use std::collections::{BTreeMap, BTreeSet};

use cdc_test_servers::MariaDb;
use serde::Deserialize;

use super::{Scope, Table, Truth, forms};

/// A line for each column of each table with rows of its own. Sequences and views are none; those with system versioning
/// are, and the columns of their period may be captured or not.
const COLUMNS: &str = "SELECT JSON_OBJECT('namespace', t.TABLE_SCHEMA, 'table', t.TABLE_NAME, 'name', c.COLUMN_NAME, \
    'type', IF(k.CHECK_CLAUSE IS NULL, LOWER(c.DATA_TYPE), 'json'), \
    'period', IF(c.GENERATION_EXPRESSION IN ('ROW START', 'ROW END'), 1, 0), \
    'keyed', IF(EXISTS (SELECT 1 FROM information_schema.STATISTICS s WHERE s.TABLE_SCHEMA = t.TABLE_SCHEMA \
      AND s.TABLE_NAME = t.TABLE_NAME AND s.NON_UNIQUE = 0 GROUP BY s.INDEX_NAME \
      HAVING s.INDEX_NAME = 'PRIMARY' OR (SUM(s.NULLABLE = 'YES') = 0 AND SUM(s.SUB_PART IS NOT NULL) = 0 \
        AND COUNT(s.COLUMN_NAME) = COUNT(*))), 1, 0)) \
  FROM information_schema.TABLES t JOIN information_schema.COLUMNS c USING (TABLE_SCHEMA, TABLE_NAME) \
  LEFT JOIN information_schema.CHECK_CONSTRAINTS k ON k.CONSTRAINT_SCHEMA = t.TABLE_SCHEMA \
    AND k.TABLE_NAME = t.TABLE_NAME AND k.CHECK_CLAUSE = CONCAT('json_valid(`', c.COLUMN_NAME, '`)') \
  WHERE t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') \
    AND t.TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys') \
  ORDER BY t.TABLE_SCHEMA, t.TABLE_NAME, c.ORDINAL_POSITION;";

#[derive(Deserialize)]
struct Column {
    namespace: String,
    table: String,
    name: String,
    #[serde(rename = "type")]
    data_type: String,
    period: u8,
    keyed: u8,
}

/// All tables of a server within a scope, each row as SELECT shows it and as the service should.
pub fn of_mariadb(server: &MariaDb, scope: Scope<'_>) -> Truth {
    let listed = server.sql("", COLUMNS);
    let mut tables: BTreeMap<(String, String), Vec<Column>> = BTreeMap::new();
    for line in listed.lines() {
        // The client escapes backslashes.
        let line = line.replace("\\\\", "\\");
        let column: Column = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if scope(&column.namespace, &column.table) {
            tables.entry((column.namespace.clone(), column.table.clone())).or_default().push(column);
        }
    }
    let mut sql = "SET time_zone = '+00:00'; SET sql_mode = ''; SET NAMES utf8mb4;\n".to_owned();
    for ((namespace, table), columns) in &tables {
        let columns: Vec<String> = columns
            .iter()
            .map(|column| {
                let name = quoted(&column.name);
                let digits = match column.data_type.as_str() {
                    "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => format!("HEX({name})"),
                    "bit" | "year" => format!("HEX(CAST({name} + 0 AS CHAR))"),
                    _ => format!("HEX(CONVERT(CAST({name} AS CHAR) USING utf8mb4))"),
                };
                format!("IFNULL(CONCAT('x', {digits}), '-')")
            })
            .collect();
        let name = format!("{}.{}", quoted(namespace), quoted(table));
        sql.push_str(&format!("SELECT '@';\nSELECT CONCAT_WS(' ', '=', {}) FROM {name};\n", columns.join(", ")));
    }
    let answer = server.sql("", &sql);
    let mut answers = answer.split('@').skip(1);
    let mut truth = Truth::new();
    for ((namespace, table), columns) in tables {
        let rows = answers.next().expect("each table has an answer").lines().filter(|line| line.starts_with('='));
        let row = |line: &str| {
            let values = line.split(' ').skip(1).zip(&columns).map(|(value, column)| {
                let value = value.strip_prefix('x').map(forms::from_hex);
                let value = value.map(|text| forms::of_mariadb(&column.data_type, &text));
                (column.name.clone(), value.unwrap_or_else(|| "null".to_owned()))
            });
            values.collect()
        };
        let mut rows: Vec<_> = rows.map(row).collect();
        rows.sort();
        let optional: BTreeSet<String> =
            columns.iter().filter(|column| column.period == 1).map(|column| column.name.clone()).collect();
        let has_key = columns.iter().all(|column| column.keyed == 1);
        truth.insert(
            format!("{namespace}.{table}"),
            Table { rows, has_key, has_ids: false, is_published: true, optional },
        );
    }
    truth
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
