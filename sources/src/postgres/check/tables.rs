//! What stands in the way of single tables. A table that somebody named in the rules and that can't be captured is
//! missing; of one that is there because of a pattern it is said, because the others are captured all the same.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::catalog::{number, text};
use super::super::wire::{Connection, WireError, identifier, literal};
use super::super::{Options, shape, slot};
use super::{Address, Finding, answer, good, missing, warning};
use crate::keyless::{self, ROW_ID};
use crate::rules::{Rules, Treatment};

/// What the catalog says of a table.
#[derive(Debug, Deserialize)]
struct Looked {
    namespace: String,
    relation: String,
    /// `p` if it is in the log.
    persistence: String,
    /// `n` if its rows have no identity at all.
    identity: String,
    has_key: bool,
    /// It has a column with the name of ids of rows.
    has_row_id: bool,
    readable: bool,
    row_security: bool,
    /// Stored ones that the log leaves out.
    generated: Vec<String>,
    /// The unique index that would do best, and its columns that may be null.
    index: Option<Index>,
}

#[derive(Debug, Deserialize)]
struct Index {
    name: String,
    nullable: Vec<String>,
}

impl Looked {
    /// Whether its rows get ids of their own.
    fn is_append_only(&self, rules: &Rules) -> bool {
        !self.has_key && rules.appends(&self.namespace, &self.relation)
    }

    /// As it stands in SQL.
    fn place(&self) -> String {
        format!("{}.{}", identifier(&self.namespace), identifier(&self.relation))
    }
}

/// One JSON object a row.
fn looked(sql: &mut Connection, rules: &Rules) -> Result<Vec<Looked>, WireError> {
    const UNIQUE: &str = "x.indrelid = c.oid AND x.indisunique AND x.indisvalid AND x.indimmediate AND x.indpred IS NULL \
                          AND x.indexprs IS NULL";
    const NULLABLE: &str = "(SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (x.indkey) \
                            AND NOT a.attnotnull)";
    let rows = sql.query(&format!(
        "SELECT json_build_object('namespace', n.nspname, 'relation', c.relname, 'persistence', c.relpersistence, \
         'identity', c.relreplident, \
         'has_key', EXISTS (SELECT FROM pg_index x WHERE {UNIQUE} AND {NULLABLE} = 0 AND CASE c.relreplident \
           WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident WHEN 'f' THEN true ELSE x.indisprimary END), \
         'has_row_id', EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = '{ROW_ID}' \
           AND NOT a.attisdropped), \
         'readable', has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'), \
         'row_security', row_security_active(c.oid), \
         'generated', (SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]') FROM pg_attribute a \
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = 's'), \
         'index', (SELECT json_build_object('name', i.relname, 'nullable', (SELECT coalesce(json_agg(a.attname), '[]') \
           FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (x.indkey) AND NOT a.attnotnull)) \
           FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE {UNIQUE} AND NOT x.indisprimary \
           ORDER BY {NULLABLE}, i.relname LIMIT 1)) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
         AND NOT c.relispartition AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
         AND n.nspname NOT LIKE 'pg\\_toast%' AND c.oid >= 16384 ORDER BY n.nspname, c.relname"
    ))?;
    let mut tables = Vec::with_capacity(rows.len());
    for row in rows {
        let json = text(&mut row.into_iter())?;
        let table: Looked = serde_json::from_str(&json).map_err(|_| WireError::Protocol("a table of another form"))?;
        if rules.captures(&table.namespace, &table.relation) {
            tables.push(table);
        }
    }
    Ok(tables)
}

/// Looks at every table that the rules include.
pub(super) fn look(
    sql: &mut Connection,
    options: &Options,
    address: &Address,
    findings: &mut Vec<Finding>,
) -> Result<(), WireError> {
    let tables = looked(sql, &options.rules)?;
    if tables.is_empty() {
        findings.push(warning("tables", "the rules include no table of this database".into(), None));
        return Ok(());
    }
    let publishes_generated = publishes_generated(sql, &options.publication)?;
    let is_standby = slot::applied(sql)?.is_some();
    let user = identifier(&address.user);
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut usable = 0;
    for table in &tables {
        let asked = options.rules.include.contains(&format!("{}.{}", table.namespace, table.relation));
        let name = options.rules.captured_name(&address.database, &table.namespace, &table.relation);
        let problem = problem(table, options, &user, is_standby).or_else(|| {
            let other = names.insert(name.clone(), table.place())?;
            Some(Problem {
                code: "table-refused",
                message: format!(
                    "the tables {other} and {} would both be captured as `{name}`: the second one is not captured. \
                     Choose another template for names, or exclude one",
                    table.place()
                ),
                remedy: None,
            })
        });
        match problem {
            None => {
                usable += 1;
                if table.is_append_only(&options.rules) {
                    findings.push(append_only(table));
                }
            }
            Some(Problem { code, message, remedy }) if asked => findings.push(missing(code, message, remedy)),
            Some(Problem { code, message, remedy }) => findings.push(warning(code, message, remedy)),
        }
        if !table.generated.is_empty() && !publishes_generated {
            findings.push(generated(sql, table, &options.publication));
        }
    }
    let message = format!("{usable} of {} included tables can be captured", tables.len());
    findings.push(if usable > 0 { good("tables", message) } else { missing("tables", message, None) });
    Ok(())
}

struct Problem {
    code: &'static str,
    message: String,
    remedy: Option<String>,
}

/// What keeps a table from being captured.
fn problem(table: &Looked, options: &Options, user: &str, is_standby: bool) -> Option<Problem> {
    let place = table.place();
    let problem = |code, message: String, remedy: Option<String>| Some(Problem { code, message, remedy });
    let captured = options.rules.captured_name("", &table.namespace, &table.relation);
    if table.persistence == "u" {
        let message = format!("the table {place} is unlogged: the log does not tell its changes");
        return problem("unlogged", message, Some(format!("ALTER TABLE {place} SET LOGGED;")));
    }
    let is_append_only = table.is_append_only(&options.rules);
    // What is only inserted is told with its whole row.
    if table.identity == "n" && !options.rules.appends(&table.namespace, &table.relation) {
        let message = format!(
            "the table {place} has REPLICA IDENTITY NOTHING: PostgreSQL refuses its updates and deletes once it is \
             published"
        );
        return problem("replica-identity", message, Some(format!("ALTER TABLE {place} REPLICA IDENTITY DEFAULT;")));
    }
    if !table.has_key && !is_append_only {
        let message = format!(
            "no key tells the rows of the table {place} apart; PostgreSQL also refuses its updates and deletes once it \
             is published. Give it a key, or exclude it; or, {}",
            keyless::way_out(&table.namespace, &table.relation)
        );
        return problem("no-key", message, Some(key_for(table)));
    }
    let is_left_out = options.rules.treatment(&table.namespace, &table.relation, ROW_ID) == Treatment::LeaveOut;
    if is_append_only && table.has_row_id && !is_left_out {
        let message = format!("the table {place} can't be captured: {}", keyless::name_is_taken());
        return problem("table-refused", message, Some(key_for(table)));
    }
    if is_append_only && is_standby && options.snapshot {
        let message =
            format!("the table {place} has no key, and is not read on a standby: let the url name the primary");
        return problem("standby", message, None);
    }
    if let Err(error) = shape::check_captured_name(&captured, &table.namespace, &table.relation) {
        return problem("table-refused", error.message, None);
    }
    if !table.readable && options.snapshot {
        let message = format!("the role {user} may not read the table {place}");
        let schema = identifier(&table.namespace);
        let remedy = format!("GRANT USAGE ON SCHEMA {schema} TO {user}; GRANT SELECT ON {place} TO {user};");
        return problem("privileges", message, Some(remedy));
    }
    if table.row_security && options.snapshot {
        let message =
            format!("row level security of the table {place} would hide rows from the role {user}, so it is not read");
        return problem("row-security", message, Some(format!("ALTER ROLE {user} BYPASSRLS;")));
    }
    None
}

/// What is to be known of a table that is captured although it has no key.
fn append_only(table: &Looked) -> Finding {
    let place = table.place();
    let (message, remedy) = match table.identity.as_str() {
        "f" => (
            format!(
                "the table {place} has no key, and is captured as rows that are only ever inserted: an UPDATE or DELETE of \
                 it stops it until it is read anew"
            ),
            None,
        ),
        _ => (
            format!(
                "the table {place} has no key, and is captured as rows that are only ever inserted: PostgreSQL refuses UPDATE \
                 and DELETE of it, whoever sends them, while it is published. With REPLICA IDENTITY FULL they go through, \
                 and stop it until it is read anew"
            ),
            Some(format!("ALTER TABLE {place} REPLICA IDENTITY FULL; -- if somebody updates or deletes its rows")),
        ),
    };
    warning("append-only", message, remedy)
}

/// The least that gives the rows of a table a key.
fn key_for(table: &Looked) -> String {
    let place = table.place();
    match &table.index {
        Some(Index { name, nullable }) => {
            let not_null: Vec<String> =
                nullable.iter().map(|column| format!("ALTER COLUMN {} SET NOT NULL, ", identifier(column))).collect();
            format!("ALTER TABLE {place} {}REPLICA IDENTITY USING INDEX {};", not_null.concat(), identifier(name))
        }
        None => format!("ALTER TABLE {place} ADD COLUMN cdc_row_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"),
    }
}

fn generated(sql: &Connection, table: &Looked, publication: &str) -> Finding {
    let message = format!(
        "generated columns of the table {} are not in the log, and are left out: {}",
        table.place(),
        table.generated.join(", ")
    );
    let remedy = (sql.major_version() >= 18)
        .then(|| format!("ALTER PUBLICATION {} SET (publish_generated_columns = stored);", identifier(publication)));
    warning("generated-columns", message, remedy)
}

fn publishes_generated(sql: &mut Connection, publication: &str) -> Result<bool, WireError> {
    let rows = sql.query(&format!(
        "SELECT to_jsonb(p) ->> 'pubgencols' FROM pg_publication p WHERE pubname = {}",
        literal(publication)
    ))?;
    Ok(rows.into_iter().flatten().flatten().next().is_some_and(|told| told == "s"))
}

/// What a publication of somebody else leaves out of tables that the rules include.
pub(super) fn left_out(sql: &mut Connection, options: &Options, findings: &mut Vec<Finding>) -> Result<(), WireError> {
    // A column list is there from version 15 on; without one the view names every column.
    let rows = sql.query(&format!(
        "SELECT n.nspname, c.relname, coalesce((to_jsonb(r) ->> 'prqual') IS NOT NULL, false), \
         coalesce((SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid \
         AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
         AND CASE jsonb_typeof(to_jsonb(r) -> 'prattrs') WHEN 'array' THEN NOT (to_jsonb(r) -> 'prattrs') @> \
         to_jsonb(a.attnum) ELSE false END), '[]') \
         FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid JOIN pg_class c ON c.oid = r.prrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = {} ORDER BY 1, 2",
        literal(&options.publication)
    ))?;
    for row in rows {
        let mut cells = row.into_iter();
        let (namespace, relation) = (text(&mut cells)?, text(&mut cells)?);
        let filtered = text(&mut cells)? == "t";
        let columns: Vec<String> =
            serde_json::from_str(&text(&mut cells)?).map_err(|_| WireError::Protocol("names of another form"))?;
        let columns: Vec<String> = columns
            .into_iter()
            .filter(|column| options.rules.treatment(&namespace, &relation, column) != Treatment::LeaveOut)
            .collect();
        if !options.rules.captures(&namespace, &relation) {
            continue;
        }
        let place = format!("{}.{}", identifier(&namespace), identifier(&relation));
        let shown = identifier(&options.publication);
        if filtered {
            let message = format!("the publication {shown} leaves out rows of the table {place}, by a filter");
            findings.push(warning("row-filter", message, None));
        }
        if !columns.is_empty() {
            let message =
                format!("the publication {shown} leaves out columns of the table {place}: {}", columns.join(", "));
            findings.push(warning("column-list", message, None));
        }
    }
    Ok(())
}

/// Transactions that were prepared long ago and not ended: the server keeps its log for them.
pub(super) fn prepared(sql: &mut Connection, findings: &mut Vec<Finding>) -> Result<(), WireError> {
    let mut cells = answer(
        sql,
        "SELECT count(*), coalesce(min(gid), '') FROM pg_prepared_xacts WHERE database = current_database() \
         AND prepared < now() - interval '5 minutes'",
    )?;
    let (count, name): (u64, String) = (number(&mut cells)?, text(&mut cells)?);
    if count > 0 {
        let name = literal(&name);
        findings.push(warning(
            "prepared-transactions",
            format!(
                "{count} transactions have been prepared for more than five minutes: the server keeps its log for them, \
                 and tables that are added wait for them"
            ),
            Some(format!("COMMIT PREPARED {name}; -- or ROLLBACK PREPARED {name};")),
        ));
    }
    Ok(())
}
