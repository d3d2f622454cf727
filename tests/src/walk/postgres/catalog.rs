//! What a PostgreSQL has at this moment of a walk, seen in the walk's own session: also what is not committed yet.

use serde::Deserialize;

use crate::walk::session::Session;

/// A table, or a partition.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    /// Strategy (`l`, `r`, `h`) and column, if its rows are in partitions.
    pub(super) parts: Option<(String, String)>,
    pub(super) partition_of: Option<String>,
    /// Columns of the primary key.
    pub(super) key: Vec<String>,
    pub(super) key_name: Option<String>,
    pub(super) logged: bool,
    pub(super) published: bool,
    pub(super) columns: Vec<Column>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    /// As `format_type` writes it.
    pub(super) kind: String,
    pub(super) not_null: bool,
    pub(super) generated: bool,
    pub(super) identity: bool,
}

const TABLES: &str = "SELECT json_build_object('schema', n.nspname, 'name', c.relname, \
    'parts', CASE WHEN p.partstrat IS NOT NULL THEN json_build_array(p.partstrat, (SELECT attname FROM pg_attribute a \
      WHERE a.attrelid = c.oid AND a.attnum = p.partattrs[0])) END, \
    'partition_of', (SELECT m.relname FROM pg_inherits h JOIN pg_class m ON m.oid = h.inhparent WHERE h.inhrelid = c.oid), \
    'key', coalesce((SELECT json_agg(a.attname ORDER BY u.place) FROM unnest(k.indkey) WITH ORDINALITY u(number, place) \
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.number), '[]'), \
    'key_name', (SELECT x.conname FROM pg_constraint x WHERE x.conrelid = c.oid AND x.contype = 'p'), \
    'logged', c.relpersistence = 'p', \
    'published', EXISTS (SELECT FROM pg_publication_rel r WHERE r.prrelid = c.oid), \
    'columns', coalesce((SELECT json_agg(json_build_object('name', a.attname, 'kind', format_type(a.atttypid, a.atttypmod), \
      'not_null', a.attnotnull, 'generated', a.attgenerated <> '', 'identity', a.attidentity <> '') ORDER BY a.attnum) \
      FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]')) \
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid \
  LEFT JOIN pg_index k ON k.indrelid = c.oid AND k.indisprimary \
  WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
    AND n.nspname NOT LIKE 'pg\\_%' AND c.relname <> 'walk_marker' ORDER BY n.nspname, c.relname";

/// All tables by their names; none if the session can't say, because its transaction has failed.
pub(super) fn tables(session: &mut Session) -> Option<Vec<Table>> {
    let listed = session.run(TABLES).ok()?;
    Some(listed.lines().map(|line| serde_json::from_str(line).expect("the query writes JSON")).collect())
}

/// The labels of the walk's enum.
pub(super) fn moods(session: &mut Session) -> Vec<String> {
    let sql = "SELECT e.enumlabel FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid WHERE t.typname = 'mood' \
        ORDER BY e.enumsortorder";
    session.run(sql).unwrap_or_default().lines().map(str::to_owned).collect()
}

impl Table {
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    pub(super) fn is_partition(&self) -> bool {
        self.partition_of.is_some()
    }

    pub(super) fn is_key(&self, column: &Column) -> bool {
        self.key.contains(&column.name)
    }

    pub(super) fn is_partition_column(&self, column: &Column) -> bool {
        self.parts.as_ref().is_some_and(|(_, name)| *name == column.name)
    }

    /// Columns that may be dropped or given another type: neither the key's nor the partitions'.
    pub(super) fn free(&self) -> Vec<&Column> {
        self.columns.iter().filter(|column| !self.is_key(column) && !self.is_partition_column(column)).collect()
    }
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
