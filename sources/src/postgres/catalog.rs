//! What PostgreSQL's catalog says about tables: which are published, their keys, columns and types.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::definition::{DefinedColumn, Definition, Member, Parts, digest};
use super::pgoutput::Relation;
use super::shape::{RawColumn, Shape, TableName};
use super::value::Form;
use super::wire::{Connection, Row, WireError, identifier, literal};
use crate::feed::{Hold, Reason, TableOrders};
use crate::keyless;
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
    /// Whether the role may read it.
    pub(super) readable: bool,
    /// Whether the publication names it.
    is_listed: bool,
    /// What else its rows depend on.
    parts: Parts,
    /// A hash over everything that is known of its columns.
    details: String,
}

/// A table with its definition and the form of its rows, or why it can't be captured.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) published: Published,
    pub(super) form: Result<Defined, Reason>,
}

/// How a table's rows are read, and what they depend on.
#[derive(Clone, Debug)]
pub(super) struct Defined {
    pub(super) shape: Arc<Shape>,
    pub(super) definition: Arc<Definition>,
}

impl Published {
    /// Why its rows could not be told apart, and what to do.
    pub(super) fn no_key(&self) -> Reason {
        no_key(&self.namespace, &self.relation, self.identity)
    }
}

/// Why rows of a table could not be told apart, and what to do.
pub(super) fn no_key(namespace: &str, relation: &str, identity: u8) -> Reason {
    let name = format!("{}.{}", identifier(namespace), identifier(relation));
    let way_out = if identity == b'n' {
        format!("its REPLICA IDENTITY is NOTHING: ALTER TABLE {name} REPLICA IDENTITY DEFAULT")
    } else {
        format!(
            "give it a primary key (ALTER TABLE {name} ADD PRIMARY KEY (…)), or a unique index over NOT NULL columns as \
             its identity (ALTER TABLE {name} REPLICA IDENTITY USING INDEX …)"
        )
    };
    Reason::new(
        "no-key",
        format!(
            "the table {namespace}.{relation} has no key that the log tells: {way_out}, or exclude it; or, {}",
            keyless::way_out(namespace, relation)
        ),
    )
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

/// What changes of a partition when it is attached anew, or its rows are in another file.
const MEMBER_STAMP: &str = "i.inhparent || ':' || i.xmin || ':' || m.relfilenode";

const MEMBERS: &str = "FROM pg_partition_tree({table}) p JOIN pg_class m ON m.oid = p.relid \
    JOIN pg_inherits i ON i.inhrelid = p.relid";

/// The query for published tables: what names them, their key, and what their rows depend on.
fn published_sql(publication: &str, version: u32, only: &str) -> String {
    let details = if version >= 15 {
        "to_json(p.attnames) AS attnames, p.rowfilter"
    } else {
        "NULL::json AS attnames, NULL::text AS rowfilter"
    };
    let by_schema = if version >= 15 {
        "(SELECT string_agg(pn.oid || ':' || pn.xmin, ',') FROM pg_publication_namespace pn WHERE pn.pnpubid = pub.oid \
         AND pn.pnnspid = c.relnamespace)"
    } else {
        "''"
    };
    let members = MEMBERS.replace("{table}", "c.oid");
    format!(
        "WITH RECURSIVE named AS (SELECT c.oid, c.relnamespace, c.relname, c.relkind, c.relreplident, c.relnatts, \
         c.relfilenode, n.nspname, {details}, pub.xmin AS pubxmin, pub.oid AS puboid, \
         concat_ws(',', pub.oid, pub.xmin, {by_schema}, (SELECT string_agg(pr.oid || ':' || pr.xmin, ',') \
         FROM pg_publication_rel pr WHERE pr.prpubid = pub.oid AND pr.prrelid = c.oid)) AS membership, EXISTS (SELECT FROM pg_publication_rel pr \
         WHERE pr.prpubid = pub.oid AND pr.prrelid = c.oid) AS listed \
         FROM pg_publication_tables p JOIN pg_publication pub ON pub.pubname = p.pubname \
         JOIN pg_namespace n ON n.nspname = p.schemaname \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename WHERE p.pubname = {} {only}), \
         used AS (SELECT DISTINCT a.attrelid, a.atttypid AS type FROM pg_attribute a JOIN named ON a.attrelid = named.oid \
         WHERE a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384), \
         reached(root, type) AS (SELECT DISTINCT type, type FROM used UNION SELECT r.root, next.type FROM reached r \
         JOIN pg_type t ON t.oid = r.type CROSS JOIN LATERAL (SELECT t.typbasetype UNION SELECT t.typelem \
         UNION SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped \
         UNION SELECT g.rngsubtype FROM pg_range g WHERE g.rngtypid = t.oid) next(type) WHERE next.type >= 16384), \
         spelled AS (SELECT r.root, string_agg(concat_ws(',', r.type, \
         (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = r.type), \
         (SELECT string_agg(a.attname || ' ' || a.atttypid, ',' ORDER BY a.attnum) FROM pg_attribute a \
         WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND NOT a.attisdropped AND a.attnum > 0)), ';' \
         ORDER BY r.type) AS text FROM reached r JOIN pg_type t ON t.oid = r.type GROUP BY r.root) \
         SELECT c.oid, c.nspname, c.relname, c.relkind, c.relreplident, {KEY_COLUMNS}, {}, \
         coalesce(has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(c.relnamespace, 'USAGE'), false), \
         c.listed, c.relnatts, c.relfilenode, (SELECT a.xmin FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 \
         AND NOT a.attisdropped ORDER BY age(a.xmin) DESC, a.attnum LIMIT 1), \
         (SELECT coalesce(string_agg(a.attnum || ':' || a.xmin, ',' ORDER BY a.attnum), '') FROM pg_attribute a \
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), \
         concat_ws(',', (SELECT string_agg(s.text, '/' ORDER BY s.root) FROM used u JOIN spelled s ON s.root = u.type \
         WHERE u.attrelid = c.oid), (SELECT string_agg(d.adnum || ':' || d.oid || ':' || d.xmin, ',' ORDER BY d.adnum) \
         FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE d.adrelid = c.oid \
         AND a.attgenerated <> '')), \
         CASE c.relkind WHEN 'p' THEN (SELECT coalesce(string_agg({MEMBER_STAMP}, ',' ORDER BY m.oid), '') {members}) \
         ELSE '' END, c.membership || coalesce(c.rowfilter, ''), \
         (SELECT coalesce(md5(string_agg(concat_ws(':', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, \
         a.attgenerated, a.attisdropped, a.atthasmissing), ',' ORDER BY a.attnum)), '') FROM pg_attribute a \
         WHERE a.attrelid = c.oid AND a.attnum > 0) \
         FROM named c {KEY} ORDER BY c.nspname, c.relname",
        literal(publication),
        "c.attnames, c.rowfilter",
    )
}

/// A table that could be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) oid: u32,
    pub(super) namespace: String,
    pub(super) relation: String,
    /// Whether its rows have names: a key, or ids of their own.
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
        "SELECT c.oid, n.nspname, c.relname, k.indexrelid IS NOT NULL AND c.relreplident <> 'n', pg_has_role(c.relowner, 'USAGE'), \
         coalesce(has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'), false), c.relreplident FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace {KEY} WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition \
         AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
         AND n.nspname NOT LIKE 'pg\\_toast%' AND c.oid >= 16384 ORDER BY 2, 3"
    );
    let mut found = Vec::new();
    for row in connection.query(&sql)? {
        let mut cells = row.into_iter();
        let oid = number(&mut cells)?;
        let (namespace, relation) = (text(&mut cells)?, text(&mut cells)?);
        let (has_key, owned, readable) = (flag(&mut cells)?, flag(&mut cells)?, flag(&mut cells)?);
        let has_key = has_key || rules.appends(&namespace, &relation);
        let identity = letter(&text(&mut cells)?);
        if rules.captures(&namespace, &relation) {
            found.push(Candidate { oid, namespace, relation, has_key, owned, readable, identity });
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
    /// Whether the query for one table has been prepared on this connection.
    is_prepared: bool,
    /// Names of tables that are as if the rules excluded them.
    dropped: BTreeSet<String>,
    /// What was made of tables when they were last looked at.
    known: HashMap<u32, Found>,
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
    number: i16,
    name: String,
    type_oid: u32,
    type_modifier: i32,
    nullable: bool,
    native_type: String,
    generated: bool,
    /// What rows have that were there before it, if that is not null.
    missing: Option<String>,
}

/// What rows that were there before a column have in it, over all partitions.
enum MissingInPartitions {
    Same(Option<String>),
    Differs,
}

/// All that is known of tables, as of one moment.
#[derive(Clone, Debug)]
pub(super) struct Overview {
    /// Those that are published and that the rules include.
    pub(super) tables: Vec<Found>,
    /// Every table that there is, and whether it is a partition, by its number.
    pub(super) present: HashMap<u32, Present>,
    /// Tables that the rules include and that are not published.
    pub(super) unpublished: Vec<Candidate>,
}

/// A table that is there, whether or not it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Present {
    pub(super) namespace: String,
    pub(super) relation: String,
    /// The number of the table that it is a partition of, by however many steps.
    pub(super) root: Option<u32>,
    /// Whether the log tells its changes: not those of an UNLOGGED one.
    pub(super) is_logged: bool,
}

impl Catalog {
    pub(super) fn new(connection: Connection, publication: &str, database: &str, rules: Arc<Rules>) -> Catalog {
        Catalog {
            connection,
            publication: publication.to_owned(),
            database: database.to_owned(),
            rules,
            types: HashMap::new(),
            is_prepared: false,
            dropped: BTreeSet::new(),
            known: HashMap::new(),
        }
    }

    /// Leaves out what somebody dropped from the source.
    pub(super) fn without(mut self, orders: &TableOrders) -> Catalog {
        let dropped = orders.held.iter().filter(|(_, hold)| **hold == Hold::Dropped);
        self.dropped = dropped.map(|(name, _)| name.clone()).collect();
        self
    }

    /// Goes on over another connection.
    pub(super) fn reconnect(&mut self, connection: Connection) {
        self.connection = connection;
        self.is_prepared = false;
    }

    /// Whether a table is captured.
    pub(super) fn captures(&self, namespace: &str, relation: &str) -> bool {
        let is_dropped = || self.dropped.contains(&self.rules.captured_name(&self.database, namespace, relation));
        self.rules.captures(namespace, relation) && (self.dropped.is_empty() || !is_dropped())
    }

    /// The database that is followed.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// All tables that are published and included by the rules, or the one with this number if it is.
    pub(super) fn published(&mut self, oid: Option<u32>) -> Result<Vec<Published>, WireError> {
        let mut tables = Vec::new();
        let sql = |only| published_sql(&self.publication, self.connection.major_version(), only);
        let sql = match oid {
            None => sql(""),
            Some(oid) => {
                // It is asked for with every chunk that is read, and planning it costs ten times what running it does.
                if !self.is_prepared {
                    let sql = sql("AND c.oid = $1");
                    self.connection.query(&format!(
                        "SET plan_cache_mode = force_generic_plan; PREPARE cdc_published(oid) AS {sql}"
                    ))?;
                    self.is_prepared = true;
                }
                format!("EXECUTE cdc_published({oid})")
            }
        };
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
                readable: flag(&mut cells)?,
                is_listed: flag(&mut cells)?,
                parts: Parts {
                    last: number(&mut cells)?,
                    file: number(&mut cells)?,
                    // A table without columns has none.
                    since: cells.next().flatten().and_then(|xmin| xmin.parse().ok()).unwrap_or(0),
                    attributes: digest(&text(&mut cells)?),
                    types: digest(&text(&mut cells)?),
                    members: digest(&text(&mut cells)?),
                    published: digest(&text(&mut cells)?),
                },
                details: text(&mut cells)?,
            };
            if self.captures(&table.namespace, &table.relation) {
                tables.push(table);
            }
        }
        Ok(tables)
    }

    /// A published table with its definition, if it is one and the rules include it.
    pub(super) fn find(&mut self, oid: u32) -> Result<Option<Found>, WireError> {
        match self.published(Some(oid))?.pop() {
            Some(table) => self.found(table).map(Some),
            None => Ok(None),
        }
    }

    /// Looks at everything. In a transaction of its own, so that it is of one moment.
    pub(super) fn overview(&mut self) -> Result<Overview, WireError> {
        self.connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        let seen = self.look_around();
        self.connection.query(if seen.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        seen
    }

    fn look_around(&mut self) -> Result<Overview, WireError> {
        let mut tables = Vec::new();
        for table in self.published(None)? {
            tables.push(self.found(table)?);
        }
        let listed: std::collections::HashSet<u32> = tables.iter().map(|found| found.published.oid).collect();
        self.known.retain(|oid, _| listed.contains(oid));
        let sql = "SELECT c.oid, n.nspname, c.relname, CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid END, c.relpersistence = 'p' FROM pg_class c JOIN pg_namespace n \
                   ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384";
        let mut present = HashMap::new();
        for row in self.connection.query(sql)? {
            let mut cells = row.into_iter();
            let oid = number(&mut cells)?;
            let (namespace, relation) = (text(&mut cells)?, text(&mut cells)?);
            let root = cells.next().flatten().map(|root| root.parse().map_err(|_| UNEXPECTED)).transpose()?;
            present.insert(oid, Present { namespace, relation, root, is_logged: flag(&mut cells)? });
        }
        let mut unpublished = candidates(&mut self.connection, &self.rules)?;
        unpublished.retain(|table| !listed.contains(&table.oid) && self.captures(&table.namespace, &table.relation));
        Ok(Overview { tables, present, unpublished })
    }

    /// What is known of a table, looked up if it changed.
    fn found(&mut self, table: Published) -> Result<Found, WireError> {
        if let Some(known) = self.known.get(&table.oid)
            && known.published == table
        {
            return Ok(known.clone());
        }
        let form = self.define(&table)?;
        let found = Found { published: table, form };
        self.known.insert(found.published.oid, found.clone());
        Ok(found)
    }

    /// The form of a published table's rows as they are read now, and what they depend on.
    fn define(&mut self, table: &Published) -> Result<Result<Defined, Reason>, WireError> {
        let Published { oid, namespace, relation, .. } = table;
        let (attributes, dropped) = self.attributes(*oid)?;
        let key = match &table.key {
            Some(key) => key.clone(),
            None if self.rules.appends(namespace, relation) => Vec::new(),
            None => return Ok(Err(table.no_key())),
        };
        let listed = |name: &String| table.columns.as_ref().is_none_or(|columns| columns.contains(name));
        // Before version 18 generated columns are listed as published, and are not in the log.
        let generated_are_published = table.columns.is_some() && self.connection.major_version() >= 18;
        let chosen: Vec<Attribute> = attributes
            .into_iter()
            .filter(|column| listed(&column.name) && (generated_are_published || !column.generated))
            .collect();
        let forms = self.forms(chosen.iter().map(|column| column.type_oid))?;
        let in_partitions = if table.partitioned { self.missing_in_partitions(*oid)? } else { HashMap::new() };
        let mut columns = Vec::with_capacity(chosen.len());
        let mut raw = Vec::with_capacity(chosen.len());
        for (column, form) in chosen.into_iter().zip(forms) {
            let written = |missing: Option<&String>| match missing {
                Some(text) => {
                    let mut value = String::new();
                    form.write(&mut value, text);
                    value
                }
                None => "null".to_owned(),
            };
            let added_value = match in_partitions.get(&column.name) {
                Some(MissingInPartitions::Differs) => None,
                Some(MissingInPartitions::Same(missing)) => Some(written(missing.as_ref())),
                None => Some(written(column.missing.as_ref())),
            };
            columns.push(DefinedColumn {
                number: column.number,
                name: column.name.clone(),
                type_oid: column.type_oid,
                type_modifier: column.type_modifier,
                native_type: column.native_type.clone(),
                treatment: self.rules.treatment(namespace, relation, &column.name),
                added_value,
            });
            raw.push(RawColumn { name: column.name, form, nullable: column.nullable, native_type: column.native_type });
        }
        let members = if table.partitioned { self.members(*oid)? } else { Arc::default() };
        let name = TableName { database: &self.database, namespace, relation };
        let shape = match Shape::new(name, raw, &key, &self.rules) {
            Ok(shape) => Arc::new(shape),
            Err(error) => return Ok(Err(Reason::new(error.code, error.message))),
        };
        let (parts, is_listed, key) = (table.parts, table.is_listed, shape.table.key.clone());
        let definition = Definition { columns, dropped, parts, members, key, is_listed };
        Ok(Ok(Defined { shape, definition: Arc::new(definition) }))
    }

    /// What rows of a partitioned table's partitions have in columns that came later, by the columns' names.
    fn missing_in_partitions(&mut self, oid: u32) -> Result<HashMap<String, MissingInPartitions>, WireError> {
        let sql = format!(
            "SELECT a.attname, count(DISTINCT coalesce(v.text, '')) = 1 AND count(v.text) IN (0, count(*)), max(v.text) \
             FROM pg_partition_tree({oid}) p JOIN pg_attribute a ON a.attrelid = p.relid CROSS JOIN LATERAL (SELECT CASE \
             WHEN a.atthasmissing AND a.attmissingval IS NOT NULL THEN (a.attmissingval::text::text[])[1] END) v(text) \
             WHERE p.isleaf AND a.attnum > 0 AND NOT a.attisdropped GROUP BY a.attname"
        );
        let mut found = HashMap::new();
        for row in self.connection.query(&sql)? {
            let mut cells = row.into_iter();
            let (name, is_same) = (text(&mut cells)?, flag(&mut cells)?);
            let missing = cells.next().flatten();
            found.insert(name, if is_same { MissingInPartitions::Same(missing) } else { MissingInPartitions::Differs });
        }
        Ok(found)
    }

    /// How many rows a table has, by the server's own estimate.
    pub(super) fn estimate(&mut self, oid: u32) -> Result<u64, WireError> {
        let sql = format!(
            "SELECT coalesce(sum(greatest(m.reltuples, 0)), 0)::bigint FROM pg_class m WHERE m.oid = {oid} \
             OR m.oid IN (SELECT p.relid FROM pg_partition_tree({oid}) p WHERE p.isleaf)"
        );
        number(&mut one_row(self.connection.query(&sql)?)?)
    }

    /// How many bytes the rows of tables take, without what is stored out of line.
    pub(super) fn sizes(&mut self, tables: &[u32]) -> Result<HashMap<u32, u64>, WireError> {
        let listed: Vec<String> = tables.iter().map(u32::to_string).collect();
        let sql = format!(
            "SELECT c.oid, coalesce(pg_relation_size(c.oid), 0) + coalesce((SELECT sum(pg_relation_size(p.relid)) \
             FROM pg_partition_tree(c.oid) p WHERE p.relid <> c.oid), 0)::bigint FROM pg_class c WHERE c.oid IN ({})",
            listed.join(", ")
        );
        let mut sizes = HashMap::new();
        for row in self.connection.query(&sql)? {
            let mut cells = row.into_iter();
            sizes.insert(number(&mut cells)?, number(&mut cells)?);
        }
        Ok(sizes)
    }

    /// The partitions of a table that have rows of their own. One that was not there before is looked into.
    fn members(&mut self, oid: u32) -> Result<Arc<Vec<Member>>, WireError> {
        let before = match self.known.get(&oid).map(|found| &found.form) {
            Some(Ok(defined)) => defined.definition.members.clone(),
            _ => Arc::default(),
        };
        let sql = format!(
            "SELECT p.relid::oid, {MEMBER_STAMP}, n.nspname, m.relname, m.relkind = 'r' \
             AND coalesce(has_table_privilege(m.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'), false) {MEMBERS} \
             JOIN pg_namespace n ON n.oid = m.relnamespace WHERE p.isleaf",
        )
        .replace("{table}", &oid.to_string());
        let mut members = Vec::new();
        for row in self.connection.query(&sql)? {
            let mut cells = row.into_iter();
            let (oid, stamp) = (number(&mut cells)?, text(&mut cells)?);
            let name = format!("{}.{}", identifier(&text(&mut cells)?), identifier(&text(&mut cells)?));
            let readable = flag(&mut cells)?;
            let known = before.iter().find(|member| member.oid == oid && member.stamp == stamp);
            let filled = match known {
                Some(known) => known.filled,
                // What can't be looked into counts as filled.
                None if !readable => true,
                None => {
                    let sql = format!("SELECT EXISTS (SELECT FROM ONLY {name})");
                    flag(&mut one_row(self.connection.query(&sql)?)?)?
                }
            };
            members.push(Member { oid, stamp, filled });
        }
        Ok(Arc::new(members))
    }

    /// The form of a table's rows as the log announces it. Names, types and key are the log's, because the catalog may
    /// have changed since; it only adds what the log does not tell.
    pub(super) fn shape_in_log(&mut self, relation: &Relation<'_>) -> Result<Result<Shape, Reason>, WireError> {
        let now = self.published(Some(relation.oid))?.pop();
        let (attributes, _) = self.attributes(relation.oid)?;
        let forms = self.forms(relation.columns.iter().map(|column| column.type_oid))?;
        let mut columns = Vec::with_capacity(relation.columns.len());
        for (column, form) in relation.columns.iter().zip(forms) {
            let known = attributes.iter().find(|attribute| attribute.name == column.name);
            let native_type = match known {
                Some(known) if (known.type_oid, known.type_modifier) == (column.type_oid, column.type_modifier) => {
                    known.native_type.clone()
                }
                _ => self.type_name(column.type_oid, column.type_modifier)?,
            };
            let nullable = known.is_none_or(|known| known.nullable);
            columns.push(RawColumn { name: column.name.to_owned(), form, nullable, native_type });
        }
        let identity: Vec<String> =
            (relation.columns.iter().filter(|column| column.identity)).map(|column| column.name.to_owned()).collect();
        let catalog_key = match now {
            Some(table) => table.key,
            None => self.key(relation.oid)?,
        };
        let catalog_key = catalog_key.unwrap_or_default();
        let in_log = |key: &[String]| {
            !key.is_empty() && key.iter().all(|part| relation.columns.iter().any(|column| column.name == part))
        };
        let same = |key: &[String]| key.len() == identity.len() && key.iter().all(|part| identity.contains(part));
        let key = match relation.identity {
            // The whole row is told, so any key of the table does.
            b'f' | b'n' if in_log(&catalog_key) => catalog_key,
            // The catalog knows the order of the key's columns.
            b'd' | b'i' if !catalog_key.is_empty() && same(&catalog_key) => catalog_key,
            b'd' | b'i' if !identity.is_empty() => identity,
            _ if self.rules.appends(relation.namespace, relation.name) => Vec::new(),
            _ => return Ok(Err(no_key(relation.namespace, relation.name, relation.identity))),
        };
        let name = TableName { database: &self.database, namespace: relation.namespace, relation: relation.name };
        let shape = Shape::new(name, columns, &key, &self.rules);
        Ok(shape.map_err(|error| Reason::new(error.code, error.message)))
    }

    /// The key of a table that may not be published any more, though the log still tells of it; None without any, or if
    /// it is gone.
    fn key(&mut self, oid: u32) -> Result<Option<Vec<String>>, WireError> {
        let sql = format!("SELECT {KEY_COLUMNS} FROM pg_class c {KEY} WHERE c.oid = {oid}");
        let Some(row) = self.connection.query(&sql)?.into_iter().next() else { return Ok(None) };
        names(&mut row.into_iter())
    }

    /// Columns that there are, in the order of their numbers, and the numbers of those that were dropped.
    fn attributes(&mut self, oid: u32) -> Result<(Vec<Attribute>, Vec<i16>), WireError> {
        // The value of a column that was added without writing rows is kept as an array with one element.
        let sql = format!(
            "SELECT attnum, attname, atttypid, atttypmod, NOT attnotnull, CASE WHEN attisdropped THEN '' \
             ELSE format_type(atttypid, atttypmod) END, attgenerated <> '', attisdropped, \
             CASE WHEN atthasmissing AND attmissingval IS NOT NULL THEN (attmissingval::text::text[])[1] END \
             FROM pg_attribute WHERE attrelid = {oid} AND attnum > 0 ORDER BY attnum"
        );
        let (mut attributes, mut dropped) = (Vec::new(), Vec::new());
        for row in self.connection.query(&sql)? {
            let mut cells = row.into_iter();
            let attribute = Attribute {
                number: number(&mut cells)?,
                name: text(&mut cells)?,
                type_oid: number(&mut cells)?,
                type_modifier: number(&mut cells)?,
                nullable: flag(&mut cells)?,
                native_type: text(&mut cells)?,
                generated: flag(&mut cells)?,
                missing: None,
            };
            let is_dropped = flag(&mut cells)?;
            let missing = cells.next().flatten();
            if is_dropped {
                dropped.push(attribute.number);
            } else {
                attributes.push(Attribute { missing, ..attribute });
            }
        }
        Ok((attributes, dropped))
    }

    fn type_name(&mut self, oid: u32, modifier: i32) -> Result<String, WireError> {
        let rows = self.connection.query(&format!("SELECT format_type({oid}, {modifier})"))?;
        Ok(rows.into_iter().flatten().next().flatten().unwrap_or_else(|| format!("type {oid}")))
    }

    fn forms(&mut self, oids: impl Iterator<Item = u32>) -> Result<Vec<Form>, WireError> {
        let oids: Vec<u32> = oids.collect();
        self.load_types(&oids)?;
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
