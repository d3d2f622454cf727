//! A captured table is the table: every table of a source, row by row, against its database.
//!
//! The expected rows are made here from what SELECT shows and from the documented forms of each type, by code of its own,
//! so that a mistake of the service's is not repeated. Rows are compared as sorted lists: a key that is there twice
//! differs, and a name that the database does not have must have no rows.

mod forms;
mod mariadb;
mod postgres;
mod progress;

pub use mariadb::of_mariadb;
pub use postgres::of_postgres;
pub use progress::{Settled, Unsettled, progress, settle, settle_within};

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

use crate::harness::Server;
use crate::json::{Members, elements};

/// One row: columns by name, each with its value in the one form that values are compared in.
pub type Row = BTreeMap<String, String>;

/// What a database has of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Sorted.
    pub rows: Vec<Row>,
    /// Without one its rows can't be told apart: it is not followed, and not compared, unless its rows get ids.
    pub has_key: bool,
    /// Its rows get ids of their own here, for want of a key.
    pub has_ids: bool,
    /// Whether the log tells of it. Otherwise it may be stopped.
    pub is_published: bool,
    /// Columns that may be captured or not, such as those of a system versioning's period.
    pub optional: BTreeSet<String>,
}

/// Tables by the names under which they are captured.
pub type Truth = BTreeMap<String, Table>;

/// Which tables are captured, by the name of the schema (or database) and their own.
pub type Scope<'a> = &'a dyn Fn(&str, &str) -> bool;

/// Has tables without a key compared whose rows get ids of their own.
pub fn append_only(truth: &mut Truth, chosen: impl Fn(&str) -> bool) {
    for (name, table) in truth.iter_mut().filter(|(_, table)| !table.has_key) {
        table.has_ids = chosen(name);
    }
}

impl Table {
    /// Whether its rows are captured.
    fn is_captured(&self) -> bool {
        self.has_key || self.has_ids
    }
}

/// Every table that the service knows, with its rows.
pub fn captured(server: &Server) -> BTreeMap<String, Vec<Row>> {
    let schemas = server.get("/schemas").expect(200).json();
    let names = schemas["schemas"].as_array().expect("schemas are listed").iter();
    let names = names.map(|schema| schema["name"].as_str().expect("a schema has a name").to_owned());
    names.map(|name| (name.clone(), rows_of(server, &name))).collect()
}

fn rows_of(server: &Server, table: &str) -> Vec<Row> {
    #[derive(serde::Deserialize)]
    struct Snapshot {
        data: Vec<Box<RawValue>>,
    }
    let answer = server.get(&format!("/snapshot/{}", encoded(table)));
    if answer.status == 404 {
        return Vec::new();
    }
    let answer = answer.expect(200);
    let snapshot: Snapshot = serde_json::from_slice(&answer.body).expect("a snapshot is JSON");
    let row = |text: &str| Members::of(text).0.into_iter().map(|(name, value)| (name, canonical(&value))).collect();
    let mut rows: Vec<Row> = snapshot.data.iter().map(|text| row(text.get())).collect();
    rows.sort();
    rows
}

/// A name as a path's segment.
pub fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.$".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The text of a JSON value in one form: strings escaped in one way, no white space between tokens. The digits of
/// numbers and the order of members stay as they are.
pub fn canonical(text: &str) -> String {
    let text = text.trim();
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(text).map_or_else(|_| text.to_owned(), |plain| string(&plain)),
        Some(b'[') => {
            let elements: Vec<String> = elements(text).iter().map(|element| canonical(element)).collect();
            format!("[{}]", elements.join(","))
        }
        Some(b'{') => {
            let members = Members::of(text).0.into_iter();
            let members = members.map(|(name, value)| format!("{}:{}", string(&name), canonical(&value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        _ => text.to_owned(),
    }
}

/// A string as JSON, in the one form.
pub(crate) fn string(plain: &str) -> String {
    serde_json::to_string(plain).expect("a string is JSON")
}

/// How one table differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub table: String,
    /// Whether the database has it under this name.
    pub exists: bool,
    /// Rows that only the database has.
    pub missing: Vec<Row>,
    /// Rows that only the service has.
    pub surplus: Vec<Row>,
}

/// What differs, by table; empty if nothing does.
pub fn differences(truth: &Truth, captured: &BTreeMap<String, Vec<Row>>) -> Vec<Difference> {
    let none = Vec::new();
    let mut found = Vec::new();
    let names: BTreeSet<&String> = truth.keys().chain(captured.keys()).collect();
    for name in names {
        let here = captured.get(name).unwrap_or(&none);
        let (expected, here) = match truth.get(name) {
            Some(table) if !table.is_captured() => continue,
            Some(table) => comparable(table, here),
            None => (Vec::new(), here.clone()),
        };
        if expected == here {
            continue;
        }
        let (missing, surplus) = (less(&expected, &here), less(&here, &expected));
        found.push(Difference { table: name.clone(), exists: truth.contains_key(name), missing, surplus });
    }
    found
}

/// What is among some rows more often than among others. Both are sorted.
fn less(rows: &[Row], others: &[Row]) -> Vec<Row> {
    let mut others = others.iter().peekable();
    let mut left = Vec::new();
    for row in rows {
        while others.next_if(|other| *other < row).is_some() {}
        if others.next_if(|other| *other == row).is_none() {
            left.push(row.clone());
        }
    }
    left
}

/// Without the optional columns that the other side does not have.
fn comparable(table: &Table, here: &[Row]) -> (Vec<Row>, Vec<Row>) {
    let mut expected = table.rows.clone();
    for column in &table.optional {
        if !here.iter().any(|row| row.contains_key(column)) {
            expected.iter_mut().for_each(|row| {
                row.remove(column);
            });
        }
    }
    expected.sort();
    let mut here = here.to_vec();
    if table.has_ids {
        for row in &mut here {
            // A row without one differs.
            if row.remove("_row").is_none() {
                row.insert("_row".to_owned(), "missing".to_owned());
            }
        }
        here.sort();
    }
    (expected, here)
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Difference { table, exists, missing, surplus } = self;
        let (lacks, has) = (missing.len(), surplus.len());
        let gone = if *exists { "" } else { ", which the database does not have," };
        writeln!(f, "table {table}{gone} lacks {lacks} rows of the database's and has {has} of its own:")?;
        for (rows, whose) in [(missing, "in the database"), (surplus, "only here     ")] {
            for row in rows.iter().take(4) {
                writeln!(f, "  {whose}: {}", shown(row))?;
            }
            if rows.len() > 4 {
                writeln!(f, "  {whose}: … {} more", rows.len() - 4)?;
            }
        }
        Ok(())
    }
}

/// A row for people: long values are cut.
pub fn shown(row: &Row) -> String {
    let cut = |value: &String| match value.char_indices().nth(60) {
        Some((at, _)) => format!("{}…({} bytes, ends in {})", &value[..at], value.len(), tail(value)),
        None => value.clone(),
    };
    let members: Vec<String> = row.iter().map(|(name, value)| format!("{name}: {}", cut(value))).collect();
    format!("{{{}}}", members.join(", "))
}

fn tail(value: &str) -> String {
    let last: Vec<char> = value.chars().rev().take(12).collect();
    last.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, name: &str) -> Row {
        [("id".to_owned(), id.to_owned()), ("name".to_owned(), string(name))].into()
    }

    fn table(rows: &[Row]) -> Table {
        Table { rows: rows.to_vec(), has_key: true, is_published: true, ..Table::default() }
    }

    #[test]
    fn values_have_one_form_and_keep_their_digits() {
        assert_eq!(canonical(r#" { "b" : 1.10 , "a":["\u00e9\/", 1e400 ] }"#), r#"{"b":1.10,"a":["é/",1e400]}"#);
        assert_eq!(canonical("9223372036854775807"), "9223372036854775807");
    }

    #[test]
    fn rows_that_are_there_twice_or_under_a_name_that_is_gone_differ() {
        let truth: Truth = [("t".to_owned(), table(&[row("1", "a"), row("2", "b")]))].into();
        let both = || vec![row("1", "a"), row("2", "b")];
        let same = [("t".to_owned(), both()), ("gone".to_owned(), Vec::new())].into();
        assert_eq!(differences(&truth, &same), []);
        let twice = [("t".to_owned(), vec![row("1", "a"), row("1", "a"), row("2", "b")])].into();
        assert_eq!(differences(&truth, &twice)[0].surplus, [row("1", "a")]);
        let gone = [("t".to_owned(), both()), ("u".to_owned(), vec![row("1", "a")])];
        assert_eq!(differences(&truth, &gone.into())[0].table, "u");
    }

    #[test]
    fn rows_with_ids_are_compared_without_them_and_as_often_as_they_are_there() {
        let mut truth: Truth =
            [("t".to_owned(), Table { has_key: false, ..table(&[row("1", "a"), row("1", "a")]) })].into();
        let with_id = |id: &str| [("_row".to_owned(), id.to_owned())].into_iter().chain(row("1", "a")).collect::<Row>();
        let here = |rows: Vec<Row>| [("t".to_owned(), rows)].into();
        assert_eq!(differences(&truth, &here(Vec::new())), [], "it was not chosen");
        append_only(&mut truth, |name| name == "t");
        assert_eq!(differences(&truth, &here(vec![with_id("2"), with_id("1")])), []);
        assert_eq!(differences(&truth, &here(vec![with_id("1")]))[0].missing, [row("1", "a")]);
        assert_eq!(differences(&truth, &here(vec![row("1", "a"), with_id("1")])).len(), 1);
    }

    #[test]
    fn what_is_null_is_not_what_is_missing() {
        let null: Row = [("id".to_owned(), "1".to_owned()), ("x".to_owned(), "null".to_owned())].into();
        let lacks: Row = [("id".to_owned(), "1".to_owned())].into();
        let truth: Truth = [("t".to_owned(), table(&[null]))].into();
        assert_eq!(differences(&truth, &[("t".to_owned(), vec![lacks])].into()).len(), 1);
    }
}
