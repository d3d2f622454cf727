//! What the server's information schema says about tables: the present, which may be ahead of the log.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::connection::failed;
use crate::feed::FeedError;

/// Databases that are the server's own and never captured.
pub(super) const OWN_DATABASES: [&str; 4] = ["mysql", "information_schema", "performance_schema", "sys"];

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
    /// MariaDB's JSON: the server checks that the text is valid.
    pub(super) json: bool,
}

/// A table as the information schema describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CatalogTable {
    pub(super) columns: Vec<CatalogColumn>,
    /// The primary key, or else the first unique one without nulls; empty if there is neither.
    pub(super) key: Vec<String>,
    /// Whether its engine has transactions, so that a consistent snapshot holds for it.
    pub(super) transactional: bool,
}

/// Every table of people's databases: its name, and whether it has transactions.
pub(super) async fn tables(conn: &mut Conn) -> Result<Vec<(String, String)>, FeedError> {
    let sql = "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' \
        AND TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys') ORDER BY 1, 2";
    conn.query(sql).await.map_err(|error| failed("listing tables", error))
}

/// One table; None if it is not there, or not a table with rows of its own.
pub(super) async fn table(
    conn: &mut Conn,
    mariadb: bool,
    namespace: &str,
    relation: &str,
) -> Result<Option<CatalogTable>, FeedError> {
    let name = (namespace, relation);
    let doing = |error| failed(&format!("reading the form of {namespace}.{relation}"), error);
    let sql = "SELECT ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? \
        AND TABLE_TYPE = 'BASE TABLE'";
    let engine: Option<Option<String>> = conn.exec_first(sql, name).await.map_err(doing)?;
    let Some(engine) = engine else { return Ok(None) };
    let transactional = matches!(engine.as_deref(), Some("InnoDB" | "ROCKSDB" | "TokuDB"));

    let sql = "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME, CHARACTER_OCTET_LENGTH, \
        NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION FROM information_schema.COLUMNS \
        WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";
    type Row = (String, String, String, String, Option<String>, Option<u64>, Option<u64>, Option<u64>, Option<u64>);
    let rows: Vec<Row> = conn.exec(sql, name).await.map_err(doing)?;
    let mut columns: Vec<CatalogColumn> = rows
        .into_iter()
        .map(|(name, data_type, column_type, nullable, charset, octets, precision, scale, second_digits)| {
            let data_type = data_type.to_ascii_lowercase();
            let nullable = nullable == "YES";
            // MariaDB appends attributes in a comment: `text /*M!100301 COMPRESSED*/`.
            let column_type = column_type.split(" /*").next().unwrap_or_default().to_owned();
            let json = false;
            CatalogColumn {
                name,
                data_type,
                column_type,
                nullable,
                charset,
                octets,
                precision,
                scale,
                second_digits,
                json,
            }
        })
        .collect();
    if mariadb {
        let sql = "SELECT CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS \
            WHERE CONSTRAINT_SCHEMA = ? AND TABLE_NAME = ?";
        let checks: Vec<(String, String)> = conn.exec(sql, name).await.map_err(doing)?;
        for (_, clause) in checks {
            for column in &mut columns {
                column.json |= clause.eq_ignore_ascii_case(&format!("json_valid(`{}`)", column.name));
            }
        }
    }

    let sql = "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS \
        WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0 ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, \
        SEQ_IN_INDEX";
    let parts: Vec<(String, Option<String>, Option<u64>)> = conn.exec(sql, name).await.map_err(doing)?;
    Ok(Some(CatalogTable { key: key(&columns, &parts), columns, transactional }))
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
fn key(columns: &[CatalogColumn], parts: &[(String, Option<String>, Option<u64>)]) -> Vec<String> {
    for index in parts.chunk_by(|one, other| one.0 == other.0) {
        let primary = index.first().is_some_and(|(name, ..)| name == "PRIMARY");
        let names: Option<Vec<&String>> = index.iter().map(|(_, column, _)| column.as_ref()).collect();
        let usable = |name: &String| columns.iter().any(|column| column.name == *name && !column.nullable);
        if let Some(names) = names
            && names.iter().all(|name| usable(name))
            && (primary || index.iter().all(|(_, _, part)| part.is_none()))
        {
            return names.into_iter().cloned().collect();
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
        assert_eq!(key(&columns, &all), ["b", "a"]);
        assert_eq!(key(&columns, &[part("t", "a", None), part("t", "c", None), part("u", "a", None)]), ["a"]);
        assert!(key(&columns, &[part("u", "a", Some(2)), ("v".into(), None, None)]).is_empty());
    }
}
