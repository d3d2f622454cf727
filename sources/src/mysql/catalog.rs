//! What the server's information schema says about tables: the present, which may be ahead of the log.
//!
//! A table is read as one: its definition is asked for before and after its parts, and if it changed between, all of it
//! is asked for again. A table that is not there is told from one that may not be looked at.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use super::checkpoint::Name;
use super::connection::failed;
use crate::feed::{FeedError, Remedy};

/// Databases that are the server's own and never captured.
pub(super) const OWN_DATABASES: [&str; 4] = ["mysql", "information_schema", "performance_schema", "sys"];

/// How often a table that changes while it is looked at is looked at again.
const ATTEMPTS: u32 = 100;

/// A column as the information schema describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CatalogColumn {
    pub(super) name: String,
    /// `varchar`.
    pub(super) data_type: String,
    /// `varchar(10)`, `int(10) unsigned`.
    pub(super) column_type: String,
    pub(super) nullable: bool,
    pub(super) charset: Option<String>,
    pub(super) octets: Option<u64>,
    pub(super) precision: Option<u64>,
    pub(super) scale: Option<u64>,
    pub(super) second_digits: Option<u64>,
    /// What it is computed from; empty if it is not.
    pub(super) generation: String,
    /// MariaDB's JSON: the server checks that the text is valid.
    pub(super) json: bool,
}

/// A foreign key by which the server changes rows of its table without a word in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cascade {
    /// The constraint's name.
    pub(super) constraint: String,
    pub(super) parent: Name,
    /// The parent's columns that it refers to.
    pub(super) columns: Vec<String>,
    /// It acts when a row of the parent is deleted.
    pub(super) on_delete: bool,
    /// It acts when those columns change.
    pub(super) on_update: bool,
}

/// A table as the information schema describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CatalogTable {
    pub(super) columns: Vec<CatalogColumn>,
    /// The primary key, or else the first unique one without nulls; empty if there is neither.
    pub(super) key: Vec<String>,
    /// Whether its engine has transactions, so that a consistent snapshot holds for it.
    pub(super) transactional: bool,
    /// With system versioning, the columns that say from when and until when a row is the present one.
    pub(super) period: Option<(String, String)>,
    pub(super) cascades: Vec<Cascade>,
    /// What tells one version of its definition from another.
    pub(super) stamp: String,
}

impl CatalogTable {
    /// Whether its versions are told by transactions, which the server logs as statements instead of rows.
    pub(super) fn is_versioned_by_transactions(&self) -> bool {
        let start = self.period.as_ref().map(|(start, _)| start);
        self.columns.iter().any(|column| Some(&column.name) == start && column.data_type == "bigint")
    }
}

/// What came of looking for a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Found(Box<CatalogTable>),
    /// There is no such table, or it has no rows of its own (a view, a sequence).
    Gone,
    /// The user may not look; whether it is there is not known.
    Denied(String),
    /// The server can't open it now.
    Unreadable(String),
}

/// Every table of people's databases.
pub(super) async fn tables(conn: &mut Conn) -> Result<Vec<Name>, FeedError> {
    let sql = "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
        WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') \
        AND TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys') ORDER BY 1, 2";
    conn.query(sql).await.map_err(|error| failed("listing tables", error))
}

/// How many rows the server takes a table to have.
pub(super) async fn estimate(conn: &mut Conn, (namespace, relation): &Name) -> Result<Option<u64>, FeedError> {
    let sql = "SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
    let rows: Option<Option<u64>> = conn
        .exec_first(sql, (namespace.as_str(), relation.as_str()))
        .await
        .map_err(|error| failed("asking how large a table is", error))?;
    Ok(rows.flatten())
}

/// Which server errors say that one table can't be used, and not that the server can't.
pub(super) fn trouble(error: &Error) -> Option<Look> {
    let Error::Server(problem) = error else { return None };
    let message = problem.message.clone();
    match problem.code {
        // Unknown table, unknown database, and a view of which a part is gone.
        1146 | 1049 | 1356 => Some(Look::Gone),
        1044 | 1142 | 1143 | 1227 | 1370 => Some(Look::Denied(message)),
        // Damaged, without its tablespace, of an engine that is not there.
        1016 | 1017 | 1030 | 1033 | 1034 | 1035 | 1194 | 1195 | 1286 | 1296 | 1429 | 1812 | 1813 | 1814 | 1877
        | 1932 => Some(Look::Unreadable(message)),
        _ => None,
    }
}

/// One table, as it is at one moment.
pub(super) async fn look(conn: &mut Conn, mariadb: bool, name: &Name) -> Result<Look, FeedError> {
    for _ in 0..ATTEMPTS {
        let before = match definition(conn, name).await? {
            Ok(text) => text,
            Err(look) => return Ok(look),
        };
        let table = parts(conn, mariadb, name, &before).await;
        let after = definition(conn, name).await?;
        if after.as_ref() == Ok(&before) {
            return table.map(|table| Look::Found(Box::new(table)));
        }
    }
    let message = format!("{}.{} changes all the time, so that its columns can't be told", name.0, name.1);
    Err(FeedError { remedy: Remedy::Retry, code: "catalog", message, source: None })
}

/// The statement that would make the table as it is now, without what changes with its rows.
pub(super) async fn definition(
    conn: &mut Conn,
    (namespace, relation): &Name,
) -> Result<Result<String, Look>, FeedError> {
    let sql = format!("SHOW CREATE TABLE {}.{}", quoted(namespace), quoted(relation));
    let row: Option<Row> = match conn.query_first(sql).await {
        Ok(row) => row,
        Err(error) => {
            let doing = format!("reading the form of {namespace}.{relation}");
            return trouble(&error).map(Err).ok_or_else(|| failed(&doing, error));
        }
    };
    let Some(row) = row else { return Ok(Err(Look::Gone)) };
    if row.columns_ref().first().is_none_or(|column| column.name_ref() != b"Table") {
        return Ok(Err(Look::Gone));
    }
    let text: Vec<u8> = row.get_opt(1).and_then(Result::ok).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    if unquoted(tail(&text)).contains(" SEQUENCE=1") {
        return Ok(Err(Look::Gone));
    }
    Ok(Ok(without_counter(&text)))
}

/// What runs when a statement writes these tables: the databases and the bodies of their triggers, and of functions that
/// its text may call; none where the user may not see a body.
pub(super) async fn called(
    conn: &mut Conn,
    written: &[Name],
    text: &str,
) -> Result<Vec<(String, Option<String>)>, FeedError> {
    let doing = |error| failed("looking for triggers and functions", error);
    let mut bodies = Vec::new();
    for (namespace, relation) in written {
        let sql = "SELECT TRIGGER_SCHEMA, ACTION_STATEMENT FROM information_schema.TRIGGERS \
            WHERE EVENT_OBJECT_SCHEMA = ? AND EVENT_OBJECT_TABLE = ?";
        let found: Vec<(String, Option<String>)> =
            conn.exec(sql, (namespace.as_str(), relation.as_str())).await.map_err(doing)?;
        bodies.extend(found);
    }
    if text.contains('(') {
        let sql = "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_DEFINITION FROM information_schema.ROUTINES \
            WHERE ROUTINE_TYPE = 'FUNCTION' AND ROUTINE_SCHEMA NOT IN ('mysql', 'sys')";
        let found: Vec<(String, String, Option<String>)> = conn.query(sql).await.map_err(doing)?;
        let lower = text.to_lowercase();
        let named = found.into_iter().filter(|(_, name, _)| lower.contains(&name.to_lowercase()));
        bodies.extend(named.map(|(namespace, _, body)| (namespace, body)));
    }
    Ok(bodies)
}

pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// What follows the columns.
fn tail(definition: &str) -> &str {
    definition.find("\n)").map_or("", |at| &definition[at + 1..])
}

/// The text without what stands between quotes, of whatever kind.
fn unquoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if let quote @ ('\'' | '"' | '`') = character {
            while let Some(inside) = characters.next() {
                if inside == '\\' && quote != '`' {
                    characters.next();
                } else if inside == quote {
                    break;
                }
            }
            continue;
        }
        out.push(character);
    }
    out
}

/// The text without `AUTO_INCREMENT=…` behind the columns.
fn without_counter(definition: &str) -> String {
    let tail = tail(definition);
    let Some(at) = tail.find(" AUTO_INCREMENT=") else { return definition.to_owned() };
    let at = definition.len() - tail.len() + at;
    let rest = definition[at + " AUTO_INCREMENT=".len()..].trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{}{rest}", &definition[..at])
}

/// What the server's tables tell of a table, to go with its definition.
async fn parts(conn: &mut Conn, mariadb: bool, name: &Name, definition: &str) -> Result<CatalogTable, FeedError> {
    let doing = |error| failed(&format!("reading the form of {}.{}", name.0, name.1), error);
    let sql = "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME, CHARACTER_OCTET_LENGTH, \
        NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, GENERATION_EXPRESSION FROM information_schema.COLUMNS \
        WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";
    type Column = (
        String,
        String,
        String,
        String,
        Option<String>,
        Option<u64>,
        Option<u64>,
        Option<u64>,
        Option<u64>,
        Option<String>,
    );
    let rows: Vec<Column> = conn.exec(sql, (name.0.as_str(), name.1.as_str())).await.map_err(doing)?;
    let mut columns: Vec<CatalogColumn> = rows
        .into_iter()
        .map(
            |(name, data_type, column_type, nullable, charset, octets, precision, scale, second_digits, generation)| {
                CatalogColumn {
                    name,
                    data_type: data_type.to_ascii_lowercase(),
                    // MariaDB appends attributes in a comment: `text /*M!100301 COMPRESSED*/`.
                    column_type: column_type.split(" /*").next().unwrap_or_default().to_owned(),
                    nullable: nullable == "YES",
                    charset,
                    octets,
                    precision,
                    scale,
                    second_digits,
                    generation: generation.unwrap_or_default(),
                    json: false,
                }
            },
        )
        .collect();
    if mariadb {
        let sql = "SELECT CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS \
            WHERE CONSTRAINT_SCHEMA = ? AND TABLE_NAME = ?";
        let checks: Vec<(String, String)> = conn.exec(sql, (name.0.as_str(), name.1.as_str())).await.map_err(doing)?;
        for (_, clause) in checks {
            for column in &mut columns {
                column.json |= clause.eq_ignore_ascii_case(&format!("json_valid(`{}`)", column.name));
            }
        }
    }
    let sql = "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS \
        WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0 ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, \
        SEQ_IN_INDEX";
    let indexes: Vec<(String, Option<String>, Option<u64>)> =
        conn.exec(sql, (name.0.as_str(), name.1.as_str())).await.map_err(doing)?;

    let behind = unquoted(tail(definition));
    let engine = behind.split_once("ENGINE=").map_or("", |(_, rest)| rest);
    let engine = engine.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    let period = period(definition, &behind);
    // When a row ends is no part of what tells it from others at one time.
    let end = period.as_ref().map(|(_, end)| end.as_str());
    Ok(CatalogTable {
        key: key(&columns, &indexes, end),
        columns,
        transactional: matches!(engine, "InnoDB" | "ROCKSDB" | "TokuDB"),
        period,
        cascades: definition.lines().filter_map(|line| cascade(line, &name.0)).collect(),
        stamp: definition.to_owned(),
    })
}

/// The columns of system versioning; those without names of their own are hidden.
fn period(definition: &str, behind: &str) -> Option<(String, String)> {
    if !behind.contains("WITH SYSTEM VERSIONING") {
        return None;
    }
    let told = definition.lines().find_map(|line| line.trim_start().strip_prefix("PERIOD FOR SYSTEM_TIME ("));
    let names = told.and_then(|rest| {
        let mut names = Names(rest);
        Some((names.next()?, names.next()?))
    });
    Some(names.unwrap_or_else(|| ("row_start".to_owned(), "row_end".to_owned())))
}

/// Quoted names, whatever stands between them.
struct Names<'a>(&'a str);

impl Iterator for Names<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let (_, inside) = self.0.split_once('`')?;
        let mut name = String::new();
        let mut characters = inside.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            if character != '`' {
                name.push(character);
            } else if characters.next_if(|&(_, next)| next == '`').is_some() {
                name.push('`');
            } else {
                self.0 = &inside[at + 1..];
                return Some(name);
            }
        }
        None
    }
}

/// A line of a definition, if it is that of a foreign key that changes rows:
/// ``CONSTRAINT `c` FOREIGN KEY (`p`) REFERENCES `shop`.`p` (`id`) ON DELETE CASCADE ON UPDATE SET NULL``.
fn cascade(line: &str, database: &str) -> Option<Cascade> {
    let line = line.trim_start().strip_prefix("CONSTRAINT ")?;
    let mut names = Names(line);
    let constraint = names.next()?;
    let rest = names.0.strip_prefix(" FOREIGN KEY (")?;
    let mut names = Names(rest);
    while !names.0.starts_with(") REFERENCES ") {
        names.next()?;
    }
    let mut parent = (database.to_owned(), names.next()?);
    if names.0.starts_with('.') {
        parent = (parent.1, names.next()?);
    }
    let mut columns = Vec::new();
    while !names.0.starts_with(')') {
        columns.push(names.next()?);
    }
    let acts = |event: &str| {
        let action = names.0.split_once(event).map_or("", |(_, action)| action);
        ["CASCADE", "SET NULL", "SET DEFAULT"].iter().any(|known| action.starts_with(known))
    };
    let (on_delete, on_update) = (acts("ON DELETE "), acts("ON UPDATE "));
    (on_delete || on_update).then_some(Cascade { constraint, parent, columns, on_delete, on_update })
}

/// How many parts of a table's indexes are expressions instead of columns (MySQL 8.0.13 and later).
pub(super) async fn expressions(conn: &mut Conn, namespace: &str, relation: &str) -> Result<usize, FeedError> {
    let sql = "SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND \
        COLUMN_NAME IS NULL";
    let count: Option<usize> = conn
        .exec_first(sql, (namespace, relation))
        .await
        .map_err(|error| failed(&format!("reading the indexes of {namespace}.{relation}"), error))?;
    Ok(count.unwrap_or_default())
}

/// Chooses among unique indexes, whose columns come together and in order.
fn key(columns: &[CatalogColumn], parts: &[(String, Option<String>, Option<u64>)], end: Option<&str>) -> Vec<String> {
    for index in parts.chunk_by(|one, other| one.0 == other.0) {
        let primary = index.first().is_some_and(|(name, ..)| name == "PRIMARY");
        let names: Option<Vec<&String>> = index.iter().map(|(_, column, _)| column.as_ref()).collect();
        let usable = |name: &String| columns.iter().any(|column| column.name == *name && !column.nullable);
        if let Some(mut names) = names
            && names.iter().all(|name| usable(name))
            && (primary || index.iter().all(|(_, _, part)| part.is_none()))
        {
            names.retain(|name| Some(name.as_str()) != end);
            if !names.is_empty() {
                return names.into_iter().cloned().collect();
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_primary_one_or_a_unique_one_without_nulls() {
        let column = |name: &str, nullable| CatalogColumn { name: name.into(), nullable, ..CatalogColumn::default() };
        let columns = [column("a", false), column("b", false), column("c", true)];
        let part = |index: &str, column: &str, part| (index.to_owned(), Some(column.to_owned()), part);
        let all = [part("PRIMARY", "b", Some(3)), part("PRIMARY", "a", None), part("u", "a", None)];
        assert_eq!(key(&columns, &all, None), ["b", "a"]);
        assert_eq!(key(&columns, &all, Some("a")), ["b"]);
        assert_eq!(key(&columns, &[part("t", "a", None), part("t", "c", None), part("u", "a", None)], None), ["a"]);
        assert!(key(&columns, &[part("u", "a", Some(2)), ("v".into(), None, None)], None).is_empty());
    }

    #[test]
    fn a_definition_tells_foreign_keys_periods_and_versions() {
        let line = "  CONSTRAINT `c``1` FOREIGN KEY (`a`,`b`) REFERENCES `e`.`p q` (`x`, `y`) ON DELETE CASCADE ON UPDATE \
                    SET NULL,";
        let expected = Cascade {
            constraint: "c`1".into(),
            parent: ("e".into(), "p q".into()),
            columns: vec!["x".into(), "y".into()],
            on_delete: true,
            on_update: true,
        };
        assert_eq!(cascade(line, "d"), Some(expected));
        assert_eq!(cascade("  CONSTRAINT `c` FOREIGN KEY (`a`) REFERENCES `p` (`x`) ON UPDATE NO ACTION", "d"), None);
        assert_eq!(cascade("  KEY `p` (`p`),", "d"), None);
        let text = "CREATE TABLE `y` (\n  `s` bigint,\n  PERIOD FOR SYSTEM_TIME (`s`, `e`)\n) ENGINE=InnoDB AUTO_INCREMENT=12 \
                    DEFAULT CHARSET=latin1 COMMENT='x' WITH SYSTEM VERSIONING";
        assert_eq!(period(text, &unquoted(tail(text))), Some(("s".into(), "e".into())));
        assert!(without_counter(text).contains("ENGINE=InnoDB DEFAULT"));
        let plain = "CREATE TABLE `y` (\n  `s` bigint\n) ENGINE=InnoDB COMMENT='WITH SYSTEM VERSIONING'";
        assert_eq!(period(plain, &unquoted(tail(plain))), None);
    }
}
