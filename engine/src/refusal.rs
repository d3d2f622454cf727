//! Why a change was refused: a stable code for programs, a message for people.

/// The stable code of a refusal (`refusal-code` in `wit/engine`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// Not a JSON text, not UTF-8, or a string with a lone surrogate.
    InvalidJson,
    /// JSON, but not an object.
    NotAnObject,
    /// A member name stands twice.
    DuplicateMember,
    /// A key column is missing.
    MissingKey,
    /// A key column is null, empty, or neither a string nor an integer.
    InvalidKey,
    /// The row's key is not the one it was addressed by.
    KeyMismatch,
    /// The key passes its limit.
    KeyTooLong,
    /// The row passes its limit.
    RowTooLarge,
    /// The nesting passes its limit.
    TooDeep,
    /// The table's columns pass their limit.
    TooManyColumns,
    /// The tables pass their limit.
    TooManyTables,
    /// The table's name is none.
    InvalidTableName,
    /// A member's name cannot be a column's.
    InvalidColumnName,
    /// There is no such table.
    UnknownTable,
    /// There is no such row.
    UnknownRow,
    /// The row is there already.
    RowExists,
    /// The row does not fit the declared schema.
    SchemaViolation,
    /// The declaration is not compatible with the schema in force.
    SchemaConflict,
    /// The declaration is not a schema.
    InvalidSchema,
    /// The table follows a database: it is written there.
    CapturedTable,
}

/// Why a change was refused. Nothing of it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// The column that it is about.
    pub column: Option<String>,
}

impl From<Box<Self>> for Refusal {
    fn from(boxed: Box<Self>) -> Self {
        *boxed
    }
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), column: None }
    }

    pub(crate) fn about(code: RefusalCode, column: &str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), column: Some(column.to_owned()) }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
