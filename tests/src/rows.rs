//! Row by row: what a database has in a table, against what the service has.
//!
//! Both sides are rows by their key, each as its columns in the order of their names with the text of its JSON value, so
//! that every digit counts. What PostgreSQL's `row_to_json` or MariaDB's `JSON_OBJECT` writes otherwise than the service
//! does (intervals, binary strings, times with zones) is no matter for these comparisons: test such types apart.

use std::collections::BTreeMap;

use cdc_test_servers::{MariaDb, Postgres};
use serde_json::value::RawValue;

use crate::harness::{Server, until};
use crate::json::Members;

/// Rows by key: columns by name, each with the text of its value.
pub type Rows = BTreeMap<String, BTreeMap<String, String>>;

/// What the service has, by `GET /snapshot/:table`. Empty while the table is not known.
pub fn captured(server: &Server, table: &str, key: &[&str]) -> Rows {
    #[derive(serde::Deserialize)]
    struct Snapshot {
        data: Vec<Box<RawValue>>,
    }
    let answer = server.get(&format!("/snapshot/{table}"));
    if answer.status == 404 {
        return Rows::new();
    }
    let answer = answer.expect(200);
    let snapshot: Snapshot = serde_json::from_slice(&answer.body).expect("a snapshot is JSON");
    by_key(snapshot.data.iter().map(|row| row.get().to_owned()), key)
}

/// What a PostgreSQL has.
pub fn in_postgres(server: &Postgres, database: &str, table: &str, key: &[&str]) -> Rows {
    let rows = server.psql(database, &format!("SELECT row_to_json(t) FROM {table} t"));
    by_key(rows.lines().map(str::to_owned), key)
}

/// What a MariaDB has.
pub fn in_mariadb(server: &MariaDb, database: &str, table: &str, key: &[&str]) -> Rows {
    let columns = server.sql(
        database,
        &format!(
            "SELECT GROUP_CONCAT(CONCAT('''', column_name, ''',`', column_name, '`') ORDER BY ordinal_position) \
             FROM information_schema.columns WHERE table_schema = '{database}' AND table_name = '{table}'"
        ),
    );
    let rows = server.sql(database, &format!("SELECT JSON_OBJECT({}) FROM `{table}`", columns.trim()));
    by_key(rows.lines().map(str::to_owned), key)
}

fn by_key(rows: impl Iterator<Item = String>, key: &[&str]) -> Rows {
    let mut found = Rows::new();
    for row in rows {
        let row: BTreeMap<String, String> = Members::of(&row).0.into_iter().collect();
        let key: Vec<&str> = key.iter().map(|&column| row[column].as_str()).collect();
        assert!(found.insert(key.join("/"), row.clone()).is_none(), "a key twice: {row:?}");
    }
    found
}

/// What differs, the first few rows of it; none if nothing does.
pub fn difference(expected: &Rows, found: &Rows) -> Option<String> {
    let keys = expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key)));
    let differing: Vec<&String> = keys.filter(|key| expected.get(*key) != found.get(*key)).collect();
    if differing.is_empty() {
        return None;
    }
    let shown = differing.iter().take(5).map(|key| {
        let (expected, found) = (expected.get(*key), found.get(*key));
        format!("  {key}: in the database {expected:?}, here {found:?}\n")
    });
    Some(format!("{} rows differ:\n{}", differing.len(), shown.collect::<String>()))
}

/// Waits until the service has what the database has.
pub fn until_equal(what: &str, server: &Server, expected: impl Fn() -> Rows, found: impl Fn() -> Rows) {
    let mut last = None;
    let mut asked = 0;
    until(what, || {
        last = difference(&expected(), &found());
        asked += 1;
        if last.is_some() && asked % 200 == 0 {
            eprintln!("{what}: {}{}", last.as_deref().unwrap_or_default(), server.get("/sources").text());
        }
        last.is_none().then_some(())
    });
}
