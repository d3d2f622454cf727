//! What the engine should do, said a second time and as plainly as it can be: one change after another, rows as lists
//! of members, every state kept. No batches, no caches, no scanning of text, no log to look into.
//!
//! The tests hold the engine against it, natively and, in `tests/suite`, as a component. It knows no type of either, so
//! that both can include this file. Words such as refusal codes are compared by their `Debug` text (see [`word`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use self::portable::{list, pick};

#[path = "portable.rs"]
pub(crate) mod portable;

/// The same cases in every run, unless `PROPTEST_CASES` or `PROPTEST_RNG_SEED` ask for more or for others.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let given = ProptestConfig::default();
    ProptestConfig {
        cases: if given.cases == 256 { cases } else { given.cases },
        rng_seed: if given.rng_seed == RngSeed::Random { RngSeed::Fixed(1) } else { given.rng_seed },
        failure_persistence: None,
        ..given
    }
}

/// The last segment of what `Debug` shows: `RefusalCode::UnknownRow` and `UnknownRow` are the same word.
pub(crate) fn word(shown: impl Debug) -> String {
    let shown = format!("{shown:?}");
    shown.rsplit("::").next().unwrap_or_default().to_owned()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Insert,
    Update,
    Upsert,
    Delete,
}

/// A member as it is written: `spelled` may hold escapes that `name` does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) spelled: String,
    pub(crate) value: String,
}

impl Member {
    pub(crate) fn new(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), spelled: name.to_owned(), value: value.to_owned() }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Image {
    Members(Vec<Member>),
    /// A text that is refused, and the word for why.
    Broken(&'static [u8], &'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) table: &'static str,
    pub(crate) action: Action,
    pub(crate) address: Vec<String>,
    pub(crate) image: Image,
    /// With white space between all tokens.
    pub(crate) spaced: bool,
}

impl Change {
    /// The image as a writer would send it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match &self.image {
            Image::Broken(bytes, _) => bytes.to_vec(),
            Image::Members(members) if self.spaced => {
                let members: Vec<String> =
                    members.iter().map(|member| format!("\n\"{}\" :\t{}", member.spelled, member.value)).collect();
                format!(" {{{}\r\n}} ", members.join(" ,")).into_bytes()
            }
            Image::Members(members) => text(members).into_bytes(),
        }
    }
}

fn text(members: &[Member]) -> String {
    let members: Vec<String> =
        members.iter().map(|member| format!("\"{}\":{}", member.spelled, member.value)).collect();
    format!("{{{}}}", members.join(","))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) nullable: bool,
}

pub(crate) fn column(name: &str, kind: &'static str, nullable: bool) -> Column {
    Column { name: name.to_owned(), kind, nullable }
}

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) key: Vec<String>,
    /// The columns of every version, from version 1.
    pub(crate) versions: Vec<Vec<Column>>,
    pub(crate) rows: BTreeMap<String, Vec<Member>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) sequence: u64,
    pub(crate) table: String,
    pub(crate) key: String,
    pub(crate) operation: &'static str,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
    pub(crate) schema_version: u32,
}

/// A table's rows, in key order.
pub(crate) type Rows = BTreeMap<String, String>;

#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    pub(crate) strict: bool,
    pub(crate) max_tables: usize,
    pub(crate) max_columns: usize,
    pub(crate) max_row_bytes: usize,
    pub(crate) max_key_bytes: usize,
    pub(crate) tables: BTreeMap<String, Table>,
    pub(crate) events: Vec<Event>,
    /// Every table's rows after each event; the first is the state before any.
    pub(crate) states: Vec<BTreeMap<String, Rows>>,
}

/// The limits are low enough for random changes to hit them.
impl Default for Oracle {
    fn default() -> Self {
        Self {
            strict: false,
            max_tables: 3,
            max_columns: 6,
            max_row_bytes: 110,
            max_key_bytes: 8,
            tables: BTreeMap::new(),
            events: Vec::new(),
            states: vec![BTreeMap::new()],
        }
    }
}

/// The tables that [`changes`] expects to be declared: (name, columns, key).
pub(crate) fn declarations() -> Vec<(&'static str, Vec<Column>, Vec<&'static str>)> {
    vec![
        (
            "pairs",
            vec![column("x", "String", false), column("y", "Number", false), column("n", "Number", true)],
            vec!["x", "y"],
        ),
        (
            "typed",
            vec![column("id", "Number", false), column("n", "Number", false), column("s", "String", true)],
            vec!["id"],
        ),
    ]
}

impl Oracle {
    pub(crate) fn declared() -> Self {
        let mut oracle = Self::default();
        for (name, columns, key) in declarations() {
            let key = key.into_iter().map(str::to_owned).collect();
            oracle.tables.insert(name.to_owned(), Table { key, versions: vec![columns], rows: BTreeMap::new() });
        }
        oracle
    }

    /// A table's rows right after an event; 0 is before any.
    pub(crate) fn rows_at(&self, table: &str, sequence: u64) -> Rows {
        self.states[sequence as usize].get(table).cloned().unwrap_or_default()
    }

    /// Decides one change: its event's sequence number, or the word for why it is refused.
    pub(crate) fn decide(&mut self, change: &Change) -> Result<u64, &'static str> {
        let known = self.tables.get(change.table);
        if known.is_none() && self.strict {
            return Err("UnknownTable");
        }
        let members = match &change.image {
            _ if change.action == Action::Delete => Vec::new(),
            _ if change.bytes().len() > self.max_row_bytes => return Err("RowTooLarge"),
            Image::Broken(_, code) => return Err(code),
            Image::Members(members) => members.clone(),
        };
        let columns = known.map_or_else(|| vec!["id".to_owned()], |table| table.key.clone());
        let key = self.key(change, &columns, &members)?;

        let row = known.and_then(|table| table.rows.get(&key)).cloned();
        let operation = match (change.action, &row) {
            (Action::Insert | Action::Upsert, None) => "Insert",
            (Action::Insert, Some(_)) => return Err("RowExists"),
            (Action::Update | Action::Upsert, Some(_)) => "Update",
            (Action::Delete, Some(_)) => "Delete",
            (Action::Update | Action::Delete, None) => {
                return Err(if known.is_some() { "UnknownRow" } else { "UnknownTable" });
            }
        };
        if known.is_none() && self.tables.len() >= self.max_tables {
            return Err("TooManyTables");
        }

        let present = known.and_then(|table| table.versions.last()).cloned();
        let mut members = members;
        if operation == "Insert" {
            let lacking: Vec<Member> = columns
                .iter()
                .zip(&change.address)
                .filter(|(column, _)| !members.iter().any(|member| &member.name == *column))
                .map(|(column, part)| {
                    let number = present.iter().flatten().any(|known| &known.name == column && known.kind == "Number");
                    let value = if number && is_integer(part) { part.clone() } else { format!("{part:?}") };
                    Member::new(column, &value)
                })
                .collect();
            members = lacking.into_iter().chain(members).collect();
        }
        let fitting = match operation {
            "Delete" => present.clone().unwrap_or_default(),
            _ => self.fit(present.as_deref(), &columns, &members, operation == "Insert")?,
        };
        let after = match operation {
            "Delete" => None,
            "Update" => Some(merged(row.clone().unwrap_or_default(), members)),
            _ => Some(members),
        };
        if after.as_ref().is_some_and(|after| text(after).len() > self.max_row_bytes) {
            return Err("RowTooLarge");
        }

        let table = self.tables.entry(change.table.to_owned()).or_insert_with(|| Table {
            key: columns,
            versions: Vec::new(),
            rows: BTreeMap::new(),
        });
        if present.as_ref() != Some(&fitting) {
            table.versions.push(fitting);
        }
        let mut state = self.states.last().cloned().unwrap_or_default();
        let rows = state.entry(change.table.to_owned()).or_default();
        match &after {
            Some(after) => {
                table.rows.insert(key.clone(), after.clone());
                rows.insert(key.clone(), text(after));
            }
            None => {
                table.rows.remove(&key);
                rows.remove(&key);
            }
        }
        self.states.push(state);
        let sequence = self.events.len() as u64 + 1;
        self.events.push(Event {
            sequence,
            table: change.table.to_owned(),
            key,
            operation,
            before: row.as_deref().map(text),
            after: after.as_deref().map(text),
            schema_version: table.versions.len() as u32,
        });
        Ok(sequence)
    }

    fn key(&self, change: &Change, columns: &[String], members: &[Member]) -> Result<String, &'static str> {
        let member = |column: &String| members.iter().find(|member| &member.name == column);
        let parts = if change.address.is_empty() {
            let part = |column| match member(column) {
                Some(member) => key_text(&member.value).ok_or("InvalidKey"),
                None => Err("MissingKey"),
            };
            columns.iter().map(part).collect::<Result<Vec<String>, _>>()?
        } else {
            if change.address.len() != columns.len() {
                return Err("UnknownRow");
            }
            if change.address.contains(&String::new()) {
                return Err("InvalidKey");
            }
            for (column, part) in columns.iter().zip(&change.address) {
                let Some(member) = member(column) else { continue };
                if &key_text(&member.value).ok_or("InvalidKey")? != part {
                    return Err("KeyMismatch");
                }
            }
            change.address.clone()
        };
        let key = match parts.as_slice() {
            [single] => single.clone(),
            several => {
                let parts: Vec<String> =
                    several.iter().map(|part| part.replace('%', "%25").replace('/', "%2F")).collect();
                parts.join("/")
            }
        };
        if key.len() > self.max_key_bytes { Err("KeyTooLong") } else { Ok(key) }
    }

    /// The columns that the row needs.
    fn fit(
        &self,
        present: Option<&[Column]>,
        key: &[String],
        members: &[Member],
        whole: bool,
    ) -> Result<Vec<Column>, &'static str> {
        let mut columns = present.unwrap_or_default().to_vec();
        let mut seen = BTreeSet::new();
        for member in members {
            let kind = kind(&member.value);
            let full = columns.len() >= self.max_columns;
            match columns.iter_mut().find(|column| column.name == member.name) {
                Some(column) => match kind {
                    None if column.nullable => {}
                    None if self.strict || key.contains(&column.name) => return Err("SchemaViolation"),
                    None => column.nullable = true,
                    Some(kind) if kind == column.kind || column.kind == "Any" => {}
                    Some(_) if self.strict => return Err("SchemaViolation"),
                    Some(_) => column.kind = "Any",
                },
                None if self.strict => return Err("SchemaViolation"),
                None if full => return Err("TooManyColumns"),
                None => {
                    let nullable = present.is_some() || kind.is_none();
                    columns.push(column(&member.name, kind.unwrap_or("Any"), nullable));
                }
            }
            if !seen.insert(&member.name) {
                return Err("DuplicateMember");
            }
        }
        for column in columns.iter_mut().filter(|column| whole && !seen.contains(&column.name)) {
            if !column.nullable && (self.strict || key.contains(&column.name)) {
                return Err("SchemaViolation");
            }
            column.nullable = true;
        }
        Ok(columns)
    }
}

fn merged(mut row: Vec<Member>, patch: Vec<Member>) -> Vec<Member> {
    for new in patch {
        match row.iter_mut().find(|member| member.name == new.name) {
            Some(member) => member.value = new.value,
            None => row.push(new),
        }
    }
    row
}

fn is_integer(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
}

fn key_text(value: &str) -> Option<String> {
    match serde_json::from_str::<String>(value) {
        Ok(text) => Some(text).filter(|text| !text.is_empty()),
        Err(_) => is_integer(value).then(|| value.to_owned()),
    }
}

fn kind(value: &str) -> Option<&'static str> {
    match value.as_bytes()[0] {
        b'n' => None,
        b'"' => Some("String"),
        b'{' => Some("Object"),
        b'[' => Some("Array"),
        b't' | b'f' => Some("Boolean"),
        _ => Some("Number"),
    }
}

/// Key texts: few, so that changes meet; with what composite keys escape, and one over the limit.
const KEYS: &[&str] = &["1", "2", "3", "-7", "x", "é", "7/7", "5%", "too long!"];
const VALUES: &[&str] = &[
    "1",
    "1.50",
    "-0",
    "1e400",
    "123456789012345678901234567890",
    "\"x\"",
    "\"\\ud83d\\ude00 \\\"\"",
    "\"0123456789012345678901234567890123456789\"",
    "true",
    "null",
    "{\"k\":[1,2]}",
    "[]",
];
const BROKEN: &[(&[u8], &str)] = &[
    (b"{\"id\":1", "InvalidJson"),
    (b"{\"id\":\"\\ud800\"}", "InvalidJson"),
    (b"{\"id\":\"\xff\"}", "InvalidJson"),
    (b"[1]", "NotAnObject"),
    (b"{\"id\":1,\"a\":[[[[[[[[]]]]]]]]}", "TooDeep"),
];
/// The depth that the last of [`BROKEN`] passes.
pub(crate) const MAX_DEPTH: usize = 8;

/// A value that spells a key: as a number where it can be one, as a string, with an escape; rarely none at all.
fn key_value(text: &'static str) -> impl Strategy<Value = String> {
    let number = if is_integer(text) { text.to_owned() } else { format!("{text:?}") };
    let escaped = text.chars().map(|character| format!("\\u{:04X}", u32::from(character))).collect::<String>();
    prop_oneof![
        8 => Just(number),
        8 => Just(format!("{text:?}")),
        2 => Just(format!("\"{escaped}\"")),
        1 => pick(&["null", "1.5", "\"\"", "{}", "1e2"]).prop_map(str::to_owned),
    ]
}

/// Members that are no part of a key.
fn members() -> impl Strategy<Value = Vec<Member>> {
    let name = pick(&[("n", "n"), ("n", "\\u006e"), ("s", "s"), ("é", "é"), ("é", "\\u00E9"), ("o", "o")]);
    let member = (name, pick(VALUES)).prop_map(|((name, spelled), value)| Member {
        name: name.to_owned(),
        spelled: spelled.to_owned(),
        value: value.to_owned(),
    });
    (list(member, 0..=3), prop::bool::weighted(0.1)).prop_map(|(mut members, twice)| {
        if !twice {
            let mut seen = BTreeSet::new();
            members.retain(|member| seen.insert(member.name.clone()));
        }
        members
    })
}

/// How a change is addressed.
#[derive(Clone, Copy, Debug)]
enum By {
    Image,
    Path,
    Both,
    /// The path names another row than the image.
    Mismatch,
}

/// One change of a table whose key is these columns.
fn change(table: &'static str, columns: &'static [&'static str]) -> impl Strategy<Value = Change> {
    let key = pick(KEYS).prop_flat_map(|text| (Just(text), key_value(text)));
    let action = prop_oneof![
        3 => Just(Action::Insert),
        3 => Just(Action::Update),
        2 => Just(Action::Upsert),
        2 => Just(Action::Delete),
    ];
    let by = prop_oneof![4 => Just(By::Image), 4 => Just(By::Path), 2 => Just(By::Both), 1 => Just(By::Mismatch)];
    let keys = columns.len() as u32;
    let broken = prop::option::weighted(0.05, pick(BROKEN));
    (list(key, keys..=keys), action, by, members(), 0..4_u32, broken, any::<bool>()).prop_map(
        move |(keys, action, by, mut members, place, broken, spaced)| {
            let by = if action == Action::Delete { By::Path } else { by };
            if !matches!(by, By::Path) {
                for (column, (_, value)) in columns.iter().zip(&keys) {
                    members.insert(members.len().min(place as usize), Member::new(column, value));
                }
            }
            let address = match by {
                By::Image => Vec::new(),
                By::Path | By::Both => keys.iter().map(|(text, _)| (*text).to_owned()).collect(),
                By::Mismatch => keys.iter().map(|_| "2".to_owned()).collect(),
            };
            let image = match broken {
                Some((bytes, code)) => Image::Broken(bytes, code),
                None => Image::Members(members),
            };
            Change { table, action, address, image, spaced }
        },
    )
}

/// Batches of changes of two declared tables and more undeclared ones than there is room for.
pub(crate) fn batches(batches: u32, changes: u32) -> impl Strategy<Value = Vec<Vec<Change>>> {
    let change = prop_oneof![
        4 => change("a", &["id"]),
        1 => change("b", &["id"]),
        3 => change("pairs", &["x", "y"]),
        3 => change("typed", &["id"]),
    ];
    list(list(change, 1..=changes), 1..=batches)
}
