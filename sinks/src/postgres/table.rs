//! A table that rows go to: what it is, what it should be, and the statements that write into it.
//!
//! Images hold values as the PostgreSQL source writes them (`sources/src/postgres/value.rs`): what JSON has no form for
//! is PostgreSQL's own text, and `bytea` is base64. So a column takes the JSON value by its type's own input, and the
//! few types whose input that is not are converted.

use cdc_rest::{Column, ColumnType, TableSchema};
use tokio_postgres::Client;

use super::failure::PostgresFailure;
use super::plan::{quoted, quoted_table};

/// A column of a table that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Present {
    name: String,
    /// As `format_type` writes it.
    type_name: String,
    form: Form,
    /// Whether it may be written at all.
    is_generated: bool,
}

/// How a type takes a value of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// By its own input.
    Own,
    /// As base64.
    Bytea,
    ByteaArray,
    /// Whose elements may be arrays themselves.
    JsonArray,
    /// As itself, or taken out of the mark by which a source tells JSON's null from SQL's.
    Json,
    /// As its text, which is no JSON object.
    Composite,
    CompositeArray,
}

/// A table that rows go to.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Quoted.
    name: String,
    columns: Vec<Present>,
    /// The newest schema that it is known to hold rows of.
    version: u32,
}

/// Columns with how their base types, below domains, take values.
const COLUMNS: &str = "
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '',
  CASE WHEN b.oid = 'bytea'::regtype THEN 'bytea' WHEN b.oid IN ('json'::regtype, 'jsonb'::regtype) THEN 'json' WHEN b.typtype = 'c' THEN 'composite'
    WHEN e.oid = 'bytea'::regtype THEN 'bytea[]'
    WHEN e.oid IN ('json'::regtype, 'jsonb'::regtype) THEN 'json[]' WHEN e.typtype = 'c' THEN 'composite[]' ELSE '' END
FROM pg_attribute a
CROSS JOIN LATERAL (
  WITH RECURSIVE base(id) AS (
    SELECT a.atttypid UNION ALL SELECT typbasetype FROM base JOIN pg_type ON oid = id WHERE typtype = 'd')
  SELECT t.* FROM base JOIN pg_type t ON t.oid = id WHERE t.typtype <> 'd') b
LEFT JOIN pg_type e ON e.oid = b.typelem AND b.typcategory = 'A'
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

impl Table {
    /// Looks at the table, and makes it what the schema says if `creates` is set.
    pub(super) async fn prepare(
        client: &Client,
        name: &str,
        schema: &TableSchema,
        creates: bool,
        places: &str,
    ) -> Result<Self, PostgresFailure> {
        let quoted_name = quoted_table(name);
        let mut columns = present(client, &quoted_name).await?;
        if columns.is_empty() {
            let sql = create(client, &quoted_name, schema).await?;
            if !creates {
                return Err(PostgresFailure::NoTable { table: quoted_name, sql });
            }
            if let Some((namespace, _)) = name.split_once('.')
                && client.query_one("SELECT to_regnamespace($1) IS NULL", &[&quoted(namespace)]).await?.get(0)
            {
                client.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(namespace))).await?;
            }
            client.batch_execute(&sql).await?;
            columns = present(client, &quoted_name).await?;
        }
        let mut alterations = Vec::new();
        for column in &schema.columns {
            if !columns.iter().any(|present| present.name == column.name) {
                let type_name = type_of(client, schema, column).await?;
                alterations.push(format!("ADD COLUMN IF NOT EXISTS {} {type_name}", quoted(&column.name)));
            }
        }
        if !alterations.is_empty() && !creates {
            let sql = format!("ALTER TABLE {quoted_name} {}", alterations.join(", "));
            return Err(PostgresFailure::NoColumn { table: quoted_name, sql });
        }
        let mut version = schema.version;
        if creates {
            version = agreed_version(client, places, &quoted_name, schema.version).await?;
            if version < schema.version {
                // A type that has changed since: the column follows, as it did in the source.
                for column in &schema.columns {
                    let present = columns.iter().find(|present| present.name == column.name);
                    let wanted = native_type(schema, column);
                    if let (Some(present), Some(wanted)) = (present, wanted)
                        && present.type_name != wanted
                        && exists(client, wanted).await?
                    {
                        let name = quoted(&column.name);
                        alterations.push(format!("ALTER COLUMN {name} TYPE {wanted} USING {name}::{wanted}"));
                    }
                }
            }
            if !alterations.is_empty() || version < schema.version {
                let alter = match alterations.is_empty() {
                    true => String::new(),
                    false => format!("ALTER TABLE {quoted_name} {}; ", alterations.join(", ")),
                };
                let note = format!(
                    "UPDATE {places} SET epoch = greatest(epoch, {}) WHERE subscription = '{}' AND lane = 0",
                    schema.version,
                    note_of(&quoted_name).replace('\'', "''"),
                );
                // One string of several statements is one transaction.
                client.batch_execute(&format!("{alter}{note}")).await?;
                columns = present(client, &quoted_name).await?;
                version = schema.version;
            }
        }
        let key = &schema.primary_key;
        if !has_key(client, &quoted_name, key).await? {
            let key: Vec<String> = key.iter().map(|name| quoted(name)).collect();
            let sql = format!("ALTER TABLE {quoted_name} ADD PRIMARY KEY ({})", key.join(", "));
            return Err(PostgresFailure::NoKey { table: quoted_name, sql });
        }
        Ok(Self { name: quoted_name, columns, version })
    }

    /// Whether rows of this schema can be written without another look.
    pub(super) fn knows(&self, schema: &TableSchema) -> bool {
        schema.version <= self.version
    }

    /// `$1`: a JSON array of images. What has the image's key becomes what the image says.
    pub(super) fn put(&self, schema: &TableSchema, unavailable: Option<&str>) -> String {
        let lacking: Vec<String> = unavailable.and_then(|names| serde_json::from_str(names).ok()).unwrap_or_default();
        let is_known = |present: &&Present| !lacking.contains(&present.name);
        let columns: Vec<&Present> = self.written(schema).into_iter().filter(is_known).collect();
        let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
        let values: Vec<String> = columns.iter().map(|column| self.image_value(schema, column)).collect();
        let definitions: Vec<String> = columns.iter().map(|column| column.definition()).collect();
        let key: Vec<String> = schema.primary_key.iter().map(|name| quoted(name)).collect();
        let updates: Vec<String> =
            names.iter().filter(|name| !key.contains(name)).map(|name| format!("{name} = EXCLUDED.{name}")).collect();
        let conflict = match updates.is_empty() {
            true => "DO NOTHING".to_owned(),
            false => format!("DO UPDATE SET {}", updates.join(", ")),
        };
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM json_to_recordset($1::text::json) AS x({}) ON CONFLICT \
             ({}) {conflict}",
            self.name,
            names.join(", "),
            values.join(", "),
            definitions.join(", "),
            key.join(", "),
        )
    }

    /// `$1`: a JSON array of images. The place in it of each that the table does not have as it is, from 1, with the
    /// table's row of that key.
    pub(super) fn differing(&self, schema: &TableSchema) -> String {
        let columns = self.written(schema);
        let differs = |column: &&Present| {
            let name = quoted(&column.name);
            format!("(\"the row\".{name})::text IS DISTINCT FROM ({})::text", self.image_value(schema, column))
        };
        let is_no_key = |column: &&Present| !schema.primary_key.contains(&column.name);
        let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
        let definitions: Vec<String> = columns.iter().map(|column| column.definition()).collect();
        let key: Vec<&Present> = self.key(schema);
        let matches: Vec<String> =
            key.iter().map(|column| format!("\"the row\".{} = {}", quoted(&column.name), column.value())).collect();
        let is_missing = key
            .first()
            .map_or_else(|| "false".to_owned(), |column| format!("\"the row\".{} IS NULL", quoted(&column.name)));
        let mut conditions = vec![is_missing];
        conditions.extend(columns.iter().copied().filter(is_no_key).map(|column| differs(&column)));
        format!(
            "SELECT x.\"the place\", to_json(\"the row\")::text FROM ROWS FROM (json_to_recordset($1::text::json) AS ({})) WITH \
             ORDINALITY AS x({}, \"the place\") LEFT JOIN {} AS \"the row\" ON {} WHERE {} ORDER BY 1",
            definitions.join(", "),
            names.join(", "),
            self.name,
            matches.join(" AND "),
            conditions.join(" OR "),
        )
    }

    /// Makes a table for keys, which is gone at the end of the transaction.
    pub(super) fn keep_keys(&self, schema: &TableSchema, kept: &str) -> String {
        let names: Vec<String> = self.key(schema).iter().map(|column| quoted(&column.name)).collect();
        format!(
            "CREATE TEMPORARY TABLE {kept} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA",
            names.join(", "),
            self.name
        )
    }

    /// `$1`: a JSON array of images, whose keys go into that table.
    pub(super) fn keep(&self, schema: &TableSchema, kept: &str) -> String {
        let key = self.key(schema);
        let values: Vec<String> = key.iter().map(|column| column.value()).collect();
        let definitions: Vec<String> = key.iter().map(|column| column.definition()).collect();
        format!(
            "INSERT INTO {kept} SELECT {} FROM json_to_recordset($1::text::json) AS x({})",
            values.join(", "),
            definitions.join(", ")
        )
    }

    /// Rows whose keys are not in that table, with the texts of their keys.
    pub(super) fn others(&self, schema: &TableSchema, kept: &str, rows_max: usize) -> String {
        let names: Vec<String> = self.key(schema).iter().map(|column| quoted(&column.name)).collect();
        let matches: Vec<String> = names.iter().map(|name| format!("k.{name} = \"the row\".{name}")).collect();
        let texts: Vec<String> = names.iter().map(|name| format!("\"the row\".{name}::text")).collect();
        format!(
            "SELECT ARRAY[{}], to_json(\"the row\")::text FROM {} AS \"the row\" WHERE NOT EXISTS (SELECT FROM {kept} AS k WHERE {}) ORDER BY 1 \
             LIMIT {rows_max}",
            texts.join(", "),
            self.name,
            matches.join(" AND "),
        )
    }

    pub(super) fn count(&self) -> String {
        format!("SELECT count(*) FROM {}", self.name)
    }

    fn key(&self, schema: &TableSchema) -> Vec<&Present> {
        let of = |name: &String| self.columns.iter().find(|present| present.name == *name);
        schema.primary_key.iter().filter_map(of).collect()
    }

    /// The columns of the schema that are here, but for those that the database computes.
    fn written(&self, schema: &TableSchema) -> Vec<&Present> {
        let of = |column: &Column| self.columns.iter().find(|present| present.name == column.name);
        schema.columns.iter().filter_map(of).filter(|present| !present.is_generated).collect()
    }

    /// What an image has for a column, as a value of it.
    fn image_value(&self, schema: &TableSchema, present: &Present) -> String {
        // Columns whose values are of any type, and of a database, are its JSON columns.
        let column = schema.columns.iter().find(|column| column.name == present.name);
        let is_marked =
            column.is_some_and(|column| column.column_type == ColumnType::Any && column.native_type.is_some());
        match present.form {
            Form::Json if is_marked => present.unmarked(),
            _ => present.value(),
        }
    }

    /// `$1`: a JSON array of keys.
    pub(super) fn delete(&self, schema: &TableSchema) -> String {
        let key = self.key(schema);
        let matches: Vec<String> =
            key.iter().map(|column| format!("t.{} = {}", quoted(&column.name), column.value())).collect();
        let definitions: Vec<String> = key.iter().map(|column| column.definition()).collect();
        format!(
            "DELETE FROM {} AS t USING json_to_recordset($1::text::json) AS x({}) WHERE {}",
            self.name,
            definitions.join(", "),
            matches.join(" AND "),
        )
    }
}

impl Present {
    /// As a column of what comes in.
    fn definition(&self) -> String {
        let name = quoted(&self.name);
        match self.form {
            Form::Own => format!("{name} {}", self.type_name),
            Form::Bytea | Form::Composite => format!("{name} text"),
            Form::ByteaArray | Form::JsonArray | Form::Json => format!("{name} json"),
            Form::CompositeArray => format!("{name} text[]"),
        }
    }

    /// The same of a JSON column, where `{"$json":…}` stands for what is in it: JSON's null, which is not SQL's.
    fn unmarked(&self) -> String {
        let name = format!("x.{}", quoted(&self.name));
        format!(
            "(CASE WHEN {name}::text LIKE '{{\"$json\":%' AND (SELECT count(*) FROM json_object_keys({name})) = 1 \
             THEN {name} -> '$json' ELSE {name} END)::{}",
            self.type_name
        )
    }

    /// What comes in as a value of the column.
    fn value(&self) -> String {
        let name = format!("x.{}", quoted(&self.name));
        match self.form {
            Form::Own => name,
            Form::Bytea => format!("decode({name}, 'base64')"),
            Form::Composite | Form::CompositeArray | Form::Json => format!("{name}::{}", self.type_name),
            Form::ByteaArray => format!(
                "CASE WHEN json_typeof({name}) = 'array' THEN ARRAY(SELECT decode(e, 'base64') FROM \
                 json_array_elements_text({name}) WITH ORDINALITY AS j(e, o) ORDER BY o) END"
            ),
            Form::JsonArray => format!(
                "CASE WHEN json_typeof({name}) = 'array' THEN ARRAY(SELECT CASE WHEN json_typeof(e) <> 'null' THEN e END \
                 FROM json_array_elements({name}) WITH ORDINALITY AS j(e, o) ORDER BY o)::{} END",
                self.type_name
            ),
        }
    }
}

async fn present(client: &Client, table: &str) -> Result<Vec<Present>, PostgresFailure> {
    let rows = client.query(COLUMNS, &[&table]).await?;
    let column = |row: &tokio_postgres::Row| Present {
        name: row.get(0),
        type_name: row.get(1),
        is_generated: row.get(2),
        form: match row.get::<_, &str>(3) {
            "bytea" => Form::Bytea,
            "bytea[]" => Form::ByteaArray,
            "json[]" => Form::JsonArray,
            "json" => Form::Json,
            "composite" => Form::Composite,
            "composite[]" => Form::CompositeArray,
            _ => Form::Own,
        },
    };
    Ok(rows.iter().map(column).collect())
}

/// Whether there is a unique index on exactly these columns.
async fn has_key(client: &Client, table: &str, key: &[String]) -> Result<bool, PostgresFailure> {
    const UNIQUE: &str = "
SELECT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid
  AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indimmediate
  AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text) FROM unnest(i.indkey[0:i.indnkeyatts - 1]) AS k(n)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n) = $2)";
    let mut key = key.to_vec();
    key.sort();
    // Sorted by the database, whose order may be another.
    let sorted = "SELECT array_agg(n ORDER BY n) FROM unnest($1::text[]) AS k(n)";
    let key: Vec<String> = client.query_one(sorted, &[&key]).await?.get(0);
    Ok(client.query_one(UNIQUE, &[&table, &key]).await?.get(0))
}

/// The statement that makes a table.
async fn create(client: &Client, table: &str, schema: &TableSchema) -> Result<String, PostgresFailure> {
    let mut parts = Vec::new();
    for column in &schema.columns {
        parts.push(format!("{} {}", quoted(&column.name), type_of(client, schema, column).await?));
    }
    let key: Vec<String> = schema.primary_key.iter().map(|name| quoted(name)).collect();
    parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    Ok(format!("CREATE TABLE IF NOT EXISTS {table} ({})", parts.join(", ")))
}

/// The type of a column that is to be made: the source's own if this database has it, or one for the JSON type.
async fn type_of(client: &Client, schema: &TableSchema, column: &Column) -> Result<String, PostgresFailure> {
    if let Some(native) = native_type(schema, column)
        && exists(client, native).await?
    {
        return Ok(native.to_owned());
    }
    let is_key = schema.primary_key.contains(&column.name);
    let name = match column.column_type {
        ColumnType::Number => "numeric",
        ColumnType::Boolean => "boolean",
        ColumnType::String => "text",
        _ if is_key => "text",
        ColumnType::Object | ColumnType::Array | ColumnType::Any => "jsonb",
    };
    Ok(name.to_owned())
}

fn native_type<'a>(schema: &TableSchema, column: &'a Column) -> Option<&'a str> {
    let is_postgres = schema.relation.as_ref().is_some_and(|relation| relation.connector == "postgresql");
    column.native_type.as_deref().filter(|_| is_postgres)
}

/// Whether a text is the name of a type here. It comes from a source, and stands in statements unquoted.
async fn exists(client: &Client, type_name: &str) -> Result<bool, PostgresFailure> {
    // Names of types are words, dots, numbers in parentheses, brackets, and quoted names.
    if type_name.contains([';', '\'', '-', '/', '\\', '\0']) {
        return Ok(false);
    }
    match client.query_one("SELECT to_regtype($1) IS NOT NULL", &[&type_name]).await {
        Ok(row) => Ok(row.get(0)),
        Err(error) if error.code().is_some_and(|code| code.code().starts_with("42")) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Under which name the newest version of a table's schema is noted among the places; no subscription has such a name.
fn note_of(table: &str) -> String {
    format!("table:{table}")
}

/// The newest version of the schema that any lane has made the table into.
async fn agreed_version(client: &Client, places: &str, table: &str, version: u32) -> Result<u32, PostgresFailure> {
    let note = note_of(table);
    let sql = format!("SELECT epoch FROM {places} WHERE subscription = $1 AND lane = 0");
    if let Some(row) = client.query_opt(&sql, &[&note]).await? {
        return Ok(u32::try_from(row.get::<_, i64>(0)).unwrap_or(u32::MAX));
    }
    let sql = format!(
        "INSERT INTO {places} (subscription, lane, epoch, sequence) VALUES ($1, 0, $2, 0) ON CONFLICT DO NOTHING"
    );
    client.execute(&sql, &[&note, &i64::from(version)]).await?;
    Ok(version)
}
