//! What a PostgreSQL has.

use cdc_test_servers::Postgres;
use serde::Deserialize;

use super::{Scope, Table, Truth, canonical, forms};

/// Every table that could be captured: those with rows in the log, partitioned ones as one. Columns are those that the log
/// has: generated ones only where they are published, which version 18 made possible. The key is what the replica
/// identity says, or else the primary one.
const TABLES: &str = "SELECT json_build_object('namespace', n.nspname, 'name', c.relname, 'columns', \
    (SELECT json_agg(json_build_object('name', a.attname, 'base', coalesce(b.typname, t.typname), \
       'array', coalesce(b.typcategory, t.typcategory) = 'A', 'key', coalesce(a.attnum = ANY (k.indkey), false)) \
       ORDER BY a.attnum) \
     FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = nullif(t.typbasetype, 0) \
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''), \
    'keyed', k.indexrelid IS NOT NULL AND c.relreplident <> 'n', 'plain', c.relkind = 'r', \
    'published', EXISTS (SELECT FROM pg_publication_tables p WHERE p.schemaname = n.nspname AND p.tablename = c.relname)) \
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN LATERAL (SELECT * FROM pg_index i \
    WHERE i.indrelid = c.oid AND i.indisvalid AND i.indisunique AND i.indimmediate AND i.indpred IS NULL \
    AND i.indexprs IS NULL AND CASE c.relreplident WHEN 'i' THEN i.indisreplident WHEN 'f' THEN NOT EXISTS ( \
      SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull) \
    ELSE i.indisprimary END ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1) k ON true \
  WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1::text";

/// How values are shown in this session, whatever the database is set to.
const SETTINGS: &str = "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'iso_8601'; \
    SET bytea_output = 'hex'; SET extra_float_digits = 1; SET enable_indexscan = off; SET enable_indexonlyscan = off;\n";

#[derive(Deserialize)]
struct Found {
    namespace: String,
    name: String,
    columns: Option<Vec<Column>>,
    keyed: bool,
    plain: bool,
    published: bool,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    base: String,
    array: bool,
    key: bool,
}

/// All tables of a database within a scope, each row as SELECT shows it and as the service should.
pub fn of_postgres(server: &Postgres, database: &str, scope: Scope<'_>) -> Truth {
    let listed = server.psql(database, TABLES);
    let found = listed.lines().map(|line| serde_json::from_str::<Found>(line).expect("the query writes JSON"));
    let found: Vec<Found> = found.filter(|table| scope(&table.namespace, &table.name)).collect();
    let mut sql = SETTINGS.to_owned();
    for table in &found {
        let columns = table.columns.iter().flatten().map(|column| {
            let name = quoted(&column.name);
            // Not a cast, which takes the spaces off a `char(n)`.
            let text = if column.array { format!("to_json({name})::text") } else { format!("format('%s', {name})") };
            format!("CASE WHEN {name} IS NULL THEN '-' ELSE 'x' || encode(convert_to({text}, 'UTF8'), 'hex') END")
        });
        let columns: Vec<String> = columns.collect();
        // Tables that inherit from it are tables of their own.
        let only = if table.plain { "ONLY " } else { "" };
        let name = format!("{only}{}.{}", quoted(&table.namespace), quoted(&table.name));
        sql.push_str(&format!("SELECT '@';\nSELECT concat_ws(' ', '=', {}) FROM {name};\n", columns.join(", ")));
        if columns.is_empty() {
            sql = sql.replace(", ) FROM", ") FROM");
        }
    }
    let answer = server.psql(database, &sql);
    let mut answers = answer.split('@').skip(1);
    let mut truth = Truth::new();
    for table in found {
        let columns: Vec<Column> = table.columns.into_iter().flatten().collect();
        let rows = answers.next().expect("each table has an answer").lines().filter(|line| line.starts_with('='));
        let row = |line: &str| {
            let values = line.split(' ').skip(1).zip(&columns).map(|(value, column)| {
                let value = match value.strip_prefix('x') {
                    None => "null".to_owned(),
                    Some(hex) => {
                        let text = String::from_utf8(forms::from_hex(hex)).expect("the query writes UTF-8");
                        if column.array {
                            canonical(&text)
                        } else {
                            forms::of_postgres(&column.base, column.key, &text)
                        }
                    }
                };
                (column.name.clone(), value)
            });
            values.collect()
        };
        let mut rows: Vec<_> = rows.map(row).collect();
        rows.sort();
        let captured_as = format!("{}.{}", table.namespace, table.name);
        let is_published = table.published;
        truth.insert(captured_as, Table { rows, has_key: table.keyed, is_published, ..Table::default() });
    }
    truth
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
