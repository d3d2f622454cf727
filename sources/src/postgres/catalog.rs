//! What PostgreSQL's catalog says about tables: which are published, their keys, columns and types.

use std::collections::HashMap;
use std::sync::Arc;

use super::pgoutput::Relation;
use super::shape::{RawColumn, Shape, TableName};
use super::value::Form;
use super::wire::{Connection, Row, WireError, literal};
use crate::feed::{FeedError, Remedy};
use crate::rules::Rules;

/// A published table as the catalog describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) oid: u32,
    pub(super) namespace: String,
    pub(super) relation: String,
    /// Its rows are in its partitions.
    pub(super) partitioned: bool,
    /// `d`, `i`, `f` or `n`, as in `pg_class.relreplident`.
    pub(super) identity: u8,
    /// The columns that name its rows in the log; None if there are none.
    pub(super) key: Option<Vec<String>>,
    /// The columns that are published, if not all are.
    columns: Option<Vec<String>>,
    /// Which of its rows are published, as an SQL expression.
    pub(super) filter: Option<String>,
}

impl Published {
    /// Why its rows could not be told apart, and what to do.
    pub(super) fn no_key(&self) -> FeedError {
        let Published { namespace, relation, .. } = self;
        FeedError {
            remedy: Remedy::Stop,
            code: "no-key",
            message: format!(
                "the table {namespace}.{relation} has no key that the log tells: give it a primary key (ALTER TABLE \
                 \"{namespace}\".\"{relation}\" ADD PRIMARY KEY (…)), or a unique index over NOT NULL columns as its \
                 REPLICA IDENTITY, or exclude it"
            ),
            source: None,
        }
    }
}

/// The part of the query that finds a table's key, as the log tells it: the index of the replica identity, which is
/// the primary key by default; with the whole row as identity the primary key, or another unique index without nulls.
const KEY: &str = "LEFT JOIN LATERAL (SELECT i.indexrelid, i.indrelid, i.indkey, i.indnkeyatts FROM pg_index i \
    WHERE i.indrelid = c.oid AND i.indisvalid AND i.indisunique AND i.indimmediate AND i.indpred IS NULL \
    AND i.indexprs IS NULL AND CASE c.relreplident WHEN 'i' THEN i.indisreplident WHEN 'f' THEN NOT EXISTS ( \
    SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull) \
    ELSE i.indisprimary END ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1) k ON true";

const KEY_COLUMNS: &str = "(SELECT json_agg(a.attname ORDER BY u.place) FROM unnest(k.indkey) \
    WITH ORDINALITY u(number, place) JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.number \
    WHERE u.place <= k.indnkeyatts)";

/// A table that could be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) namespace: String,
    pub(super) relation: String,
    pub(super) has_key: bool,
    /// Whether the role may publish it.
    pub(super) owned: bool,
    /// Whether the role may read it.
    pub(super) readable: bool,
    pub(super) identity: u8,
}

/// Tables that could be published and that the rules include.
pub(super) fn candidates(connection: &mut Connection, rules: &Rules) -> Result<Vec<Candidate>, WireError> {
    let sql = format!(
        "SELECT n.nspname, c.relname, k.indexrelid IS NOT NULL AND c.relreplident <> 'n', pg_has_role(c.relowner, 'USAGE'), \
         has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'), c.relreplident FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace {KEY} WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition \
         AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
         AND n.nspname NOT LIKE 'pg\\_toast%' AND c.oid >= 16384 ORDER BY 1, 2"
    );
    let mut found = Vec::new();
    for row in connection.query(&sql)? {
        let mut cells = row.into_iter();
        let (namespace, relation) = (text(&mut cells)?, text(&mut cells)?);
        let (has_key, owned, readable) = (flag(&mut cells)?, flag(&mut cells)?, flag(&mut cells)?);
        let identity = letter(&text(&mut cells)?);
        if rules.captures(&namespace, &relation) {
            found.push(Candidate { namespace, relation, has_key, owned, readable, identity });
        }
    }
    Ok(found)
}

/// Looks things up over a connection of its own.
pub(super) struct Catalog {
    pub(super) connection: Connection,
    publication: String,
    database: String,
    rules: Arc<Rules>,
    types: HashMap<u32, Type>,
}

#[derive(Clone, Debug)]
struct Type {
    /// `d` for a domain.
    kind: u8,
    base: u32,
    /// The type of its elements, if it is an array.
    element: Option<u32>,
    delimiter: u8,
}

/// A column as the catalog has it now.
struct Attribute {
    name: String,
    type_oid: u32,
    type_modifier: i32,
    nullable: bool,
    native_type: String,
    generated: bool,
}

impl Catalog {
    pub(super) fn new(connection: Connection, publication: &str, database: &str, rules: Arc<Rules>) -> Catalog {
        Catalog {
            connection,
            publication: publication.to_owned(),
            database: database.to_owned(),
            rules,
            types: HashMap::new(),
        }
    }

    /// The database that is followed.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// All tables that are published and included by the rules, or the one with this number if it is.
    pub(super) fn published(&mut self, oid: Option<u32>) -> Result<Vec<Published>, WireError> {
        let details =
            if self.connection.major_version() >= 15 { "to_json(p.attnames), p.rowfilter" } else { "NULL, NULL" };
        let only = oid.map(|oid| format!("AND c.oid = {oid}")).unwrap_or_default();
        let sql = format!(
            "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relreplident, {KEY_COLUMNS}, {details} \
             FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname \
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename {KEY} \
             WHERE p.pubname = {} {only} ORDER BY n.nspname, c.relname",
            literal(&self.publication)
        );
        let mut tables = Vec::new();
        for row in self.connection.query(&sql)? {
            let mut cells = row.into_iter();
            let table = Published {
                oid: number(&mut cells)?,
                namespace: text(&mut cells)?,
                relation: text(&mut cells)?,
                partitioned: text(&mut cells)? == "p",
                identity: letter(&text(&mut cells)?),
                key: names(&mut cells)?,
                columns: names(&mut cells)?,
                filter: cells.next().flatten(),
            };
            if self.rules.captures(&table.namespace, &table.relation) {
                tables.push(table);
            }
        }
        Ok(tables)
    }

    /// The form of a published table's rows as they are read now.
    pub(super) fn shape_of(&mut self, table: &Published) -> Result<Shape, FeedError> {
        let attributes = self.attributes(table.oid).map_err(|error| error.into_feed("look up columns"))?;
        let key = table.key.clone().ok_or_else(|| table.no_key())?;
        let listed = |name: &String| table.columns.as_ref().is_none_or(|columns| columns.contains(name));
        // Before version 18 generated columns are listed as published, and are not in the log.
        let generated_are_published = table.columns.is_some() && self.connection.major_version() >= 18;
        let chosen: Vec<Attribute> = attributes
            .into_iter()
            .filter(|column| listed(&column.name) && (generated_are_published || !column.generated))
            .collect();
        let forms = self.forms(chosen.iter().map(|column| column.type_oid))?;
        let columns = chosen.into_iter().zip(forms).map(|(column, form)| RawColumn {
            name: column.name,
            form,
            nullable: column.nullable,
            native_type: column.native_type,
        });
        let name = TableName { database: &self.database, namespace: &table.namespace, relation: &table.relation };
        Shape::new(name, columns.collect(), &key, &self.rules)
    }

    /// The form of a table's rows as the log announces it. Names, types and key are the log's, because the catalog may
    /// have changed since; it only adds what the log does not tell.
    pub(super) fn shape_in_log(&mut self, relation: &Relation<'_>) -> Result<Shape, FeedError> {
        let looked_up = |error: WireError| error.into_feed("look up columns");
        let now = self.published(Some(relation.oid)).map_err(looked_up)?.pop();
        let attributes = self.attributes(relation.oid).map_err(looked_up)?;
        let forms = self.forms(relation.columns.iter().map(|column| column.type_oid))?;
        let mut columns = Vec::with_capacity(relation.columns.len());
        for (column, form) in relation.columns.iter().zip(forms) {
            let known = attributes.iter().find(|attribute| attribute.name == column.name);
            let native_type = match known {
                Some(known) if (known.type_oid, known.type_modifier) == (column.type_oid, column.type_modifier) => {
                    known.native_type.clone()
                }
                _ => self.type_name(column.type_oid, column.type_modifier).map_err(looked_up)?,
            };
            let nullable = known.is_none_or(|known| known.nullable);
            columns.push(RawColumn { name: column.name.to_owned(), form, nullable, native_type });
        }
        let identity: Vec<String> =
            (relation.columns.iter().filter(|column| column.identity)).map(|column| column.name.to_owned()).collect();
        let catalog_key = now.as_ref().and_then(|table| table.key.clone()).unwrap_or_default();
        let in_log = |key: &[String]| {
            !key.is_empty() && key.iter().all(|part| relation.columns.iter().any(|column| column.name == part))
        };
        let same = |key: &[String]| key.len() == identity.len() && key.iter().all(|part| identity.contains(part));
        let key = match relation.identity {
            // The whole row is told, so any key of the table does.
            b'f' | b'n' if in_log(&catalog_key) => catalog_key,
            // The catalog knows the order of the key's columns.
            b'd' | b'i' if same(&catalog_key) => catalog_key,
            b'd' | b'i' if !identity.is_empty() => identity,
            _ => {
                let table = now.unwrap_or_else(|| Published {
                    oid: relation.oid,
                    namespace: relation.namespace.to_owned(),
                    relation: relation.name.to_owned(),
                    partitioned: false,
                    identity: relation.identity,
                    key: None,
                    columns: None,
                    filter: None,
                });
                return Err(table.no_key());
            }
        };
        let name = TableName { database: &self.database, namespace: relation.namespace, relation: relation.name };
        Shape::new(name, columns, &key, &self.rules)
    }

    fn attributes(&mut self, oid: u32) -> Result<Vec<Attribute>, WireError> {
        let sql = format!(
            "SELECT attname, atttypid, atttypmod, NOT attnotnull, format_type(atttypid, atttypmod), attgenerated <> '' \
             FROM pg_attribute WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        );
        let mut attributes = Vec::new();
        for row in self.connection.query(&sql)? {
            let mut cells = row.into_iter();
            attributes.push(Attribute {
                name: text(&mut cells)?,
                type_oid: number(&mut cells)?,
                type_modifier: number(&mut cells)?,
                nullable: flag(&mut cells)?,
                native_type: text(&mut cells)?,
                generated: flag(&mut cells)?,
            });
        }
        Ok(attributes)
    }

    fn type_name(&mut self, oid: u32, modifier: i32) -> Result<String, WireError> {
        let rows = self.connection.query(&format!("SELECT format_type({oid}, {modifier})"))?;
        Ok(rows.into_iter().flatten().next().flatten().unwrap_or_else(|| format!("type {oid}")))
    }

    fn forms(&mut self, oids: impl Iterator<Item = u32>) -> Result<Vec<Form>, FeedError> {
        let oids: Vec<u32> = oids.collect();
        self.load_types(&oids).map_err(|error| error.into_feed("look up types"))?;
        Ok(oids.into_iter().map(|oid| self.form(oid, 0)).collect())
    }

    fn form(&self, oid: u32, depth: u32) -> Form {
        match self.types.get(&oid) {
            // Types are nested as deep as somebody defined them, and never in a circle.
            _ if depth > 32 => Form::Text,
            Some(Type { kind: b'd', base, .. }) => self.form(*base, depth + 1),
            Some(Type { element: Some(element), .. }) => Form::Array {
                element: Box::new(self.form(*element, depth + 1)),
                delimiter: self.types.get(element).map_or(b',', |element| element.delimiter),
            },
            _ => Form::of_base(oid),
        }
    }

    /// Types never change what they are, so each is looked up once.
    fn load_types(&mut self, oids: &[u32]) -> Result<(), WireError> {
        let unknown: Vec<String> =
            oids.iter().filter(|oid| !self.types.contains_key(oid)).map(ToString::to_string).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "WITH RECURSIVE found AS (SELECT oid, typtype, typbasetype, typelem, typdelim, typinput FROM pg_type \
             WHERE oid IN ({}) UNION SELECT t.oid, t.typtype, t.typbasetype, t.typelem, t.typdelim, t.typinput \
             FROM pg_type t JOIN found f ON t.oid IN (f.typbasetype, f.typelem)) \
             SELECT oid, typtype, typbasetype, typelem, typinput = 'array_in'::regproc, typdelim FROM found",
            unknown.join(",")
        );
        for row in self.connection.query(&sql)? {
            let mut cells = row.into_iter();
            let oid = number(&mut cells)?;
            let kind = letter(&text(&mut cells)?);
            let base = number(&mut cells)?;
            let element: u32 = number(&mut cells)?;
            let element = flag(&mut cells)?.then_some(element);
            self.types.insert(oid, Type { kind, base, element, delimiter: letter(&text(&mut cells)?) });
        }
        Ok(())
    }
}

/// The cells of a row that were not taken yet.
pub(super) type Cells = std::vec::IntoIter<Option<String>>;

const UNEXPECTED: WireError = WireError::Protocol("an answer from the catalog that has another form");

/// The next cell, which is never null.
pub(super) fn text(cells: &mut Cells) -> Result<String, WireError> {
    cells.next().flatten().ok_or(UNEXPECTED)
}

pub(super) fn number<N: std::str::FromStr>(cells: &mut Cells) -> Result<N, WireError> {
    text(cells)?.parse().map_err(|_| UNEXPECTED)
}

pub(super) fn flag(cells: &mut Cells) -> Result<bool, WireError> {
    Ok(text(cells)? == "t")
}

/// A list of names as JSON, or null.
fn names(cells: &mut Cells) -> Result<Option<Vec<String>>, WireError> {
    match cells.next().flatten() {
        Some(json) => serde_json::from_str(&json).map(Some).map_err(|_| UNEXPECTED),
        None => Ok(None),
    }
}

fn letter(text: &str) -> u8 {
    text.as_bytes().first().copied().unwrap_or(b' ')
}

/// The only row of an answer.
pub(super) fn one_row(rows: Vec<Row>) -> Result<Cells, WireError> {
    Ok(rows.into_iter().next().ok_or(UNEXPECTED)?.into_iter())
}
