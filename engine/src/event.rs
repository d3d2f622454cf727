//! Events and schemas: the core's own form of `wit/event`.

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// The row came into being: no before image.
    Insert,
    /// The row changed: both images.
    Update,
    /// The row is gone: no after image.
    Delete,
    /// Every row of the table is gone: no key, no images.
    Truncate,
}

/// Where an event came from, when it was not written through the engine's own door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The source's name.
    pub source: String,
    /// The source's transaction, in its own notation.
    pub transaction: Option<String>,
    /// The source's position of this change, in its own notation.
    pub position: Option<String>,
    /// Whether the event is part of an initial snapshot.
    pub snapshot: bool,
    /// When the source's transaction was committed, in ms since 1970 by the source's clock.
    pub committed_at_ms: Option<u64>,
    /// Columns whose values nobody knew, as a JSON array of strings.
    pub unavailable: Option<String>,
}

/// An [`Origin`] whose strings stand elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginRef<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The source's transaction, in its own notation.
    pub transaction: Option<&'a str>,
    /// The source's position of this change, in its own notation.
    pub position: Option<&'a str>,
    /// Whether the event is part of an initial snapshot.
    pub snapshot: bool,
    /// When the source's transaction was committed, in ms since 1970 by the source's clock.
    pub committed_at_ms: Option<u64>,
}

/// One captured change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the log, from 1.
    pub sequence: u64,
    /// In ms since 1970.
    pub timestamp_ms: u64,
    /// The table's name.
    pub table: String,
    /// The row's key (see [`crate::key`]).
    pub key: String,
    /// What happened.
    pub operation: Operation,
    /// The whole row before.
    pub before: Option<String>,
    /// The whole row after.
    pub after: Option<String>,
    /// The version of the table's schema.
    pub schema_version: u32,
    /// None for the engine's own door.
    pub origin: Option<Origin>,
}

impl Event {
    /// The event's id.
    #[must_use]
    pub fn id(&self) -> String {
        event_id(self.timestamp_ms, self.sequence)
    }
}

/// `evt_<timestamp in ms>_<sequence in base 36>`: unique because the sequence is, and derived, so stored nowhere.
#[must_use]
pub fn event_id(timestamp_ms: u64, sequence: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = [0u8; 13];
    let mut at = digits.len();
    let mut rest = sequence;
    loop {
        at -= 1;
        digits[at] = DIGITS[(rest % 36) as usize];
        rest /= 36;
        if rest == 0 {
            break;
        }
    }
    let mut id = format!("evt_{timestamp_ms}_");
    id.extend(digits[at..].iter().map(|&digit| char::from(digit)));
    id
}

/// The type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// JSON strings.
    String,
    /// JSON numbers.
    Number,
    /// `true` and `false`.
    Boolean,
    /// JSON objects.
    Object,
    /// JSON arrays.
    Array,
    /// More than one type has been seen, or none but null.
    Any,
}

impl ColumnType {
    /// The name that schemas show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Object => "object",
            Self::Array => "array",
            Self::Any => "any",
        }
    }
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The member's name in the row.
    pub name: String,
    /// The type of its values.
    pub column_type: ColumnType,
    /// Whether a row may lack it or hold null in it.
    pub nullable: bool,
    /// The database's own name of its type, for a table that is captured from one.
    pub native_type: Option<String>,
}

/// The table of a database that a table is captured from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The name of the source that follows it.
    pub source: String,
    /// What kind of database it is.
    pub connector: String,
    /// The database.
    pub database: String,
    /// Its schema (PostgreSQL), or the database again.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// One version of a table's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// The table's name.
    pub name: String,
    /// In the order in which they were declared or first seen.
    pub columns: Vec<Column>,
    /// The key's columns, in key order; never empty.
    pub primary_key: Vec<String>,
    /// From 1.
    pub version: u32,
    /// Where it is captured from; none for the engine's own door.
    pub relation: Option<Relation>,
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn an_id_is_the_time_and_the_sequence_in_base_36() {
        assert_eq!(event_id(1_699_380_000_000, 1), "evt_1699380000000_1");
        assert_eq!(event_id(0, 36), "evt_0_10");
        assert_eq!(event_id(7, u64::MAX), "evt_7_3w5e11264sgsf");
    }
}
