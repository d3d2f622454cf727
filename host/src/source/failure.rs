//! Why a source, or one of its tables, cannot go on, and what is done about it: the one place that decides that.

use cdc_rest::path_segment;
use cdc_sources::{FeedError, Remedy};

use super::door::Blamed;
use crate::ingest::{FollowError, IngestError};
use crate::sandbox::{Refusal, RefusalCode};
use crate::store::StoreError;

/// Why a session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may pass: another session is tried after a pause.
    Retry { code: String, message: String },
    /// The same, but asking often does harm: a login that is refused may lock the role.
    RetrySlowly { code: String, message: String },
    /// One table holds what can't be captured: it is held, and the others go on at once.
    Table { table: String, code: String, message: String },
    /// Somebody has to act.
    Stop { code: String, message: String },
}

impl Failure {
    pub(super) fn retry(code: &str, message: impl Into<String>) -> Self {
        Self::Retry { code: code.to_owned(), message: message.into() }
    }

    pub(super) fn stop(code: &str, message: impl Into<String>) -> Self {
        Self::Stop { code: code.to_owned(), message: message.into() }
    }

    /// What a feed's error asks for.
    pub(super) fn of_feed(error: &FeedError, name: &str) -> Self {
        let mut message = error.message.clone();
        let mut cause = std::error::Error::source(error);
        while let Some(found) = cause {
            // Many an error repeats what lies behind it.
            let told = found.to_string();
            if !message.contains(&told) {
                message = format!("{message}: {told}");
            }
            cause = found.source();
        }
        match error.remedy {
            // Whoever changed a password changes it here too, a little later or earlier, and asks nobody to resume.
            _ if error.code == "authentication" => Self::RetrySlowly { code: error.code.to_owned(), message },
            Remedy::Retry => Self::retry(error.code, message),
            Remedy::Stop => {
                let way_out = format!("{message}; when it is mended, POST /sources/{name}/resume goes on");
                Self::stop(error.code, way_out)
            }
            Remedy::Repair => {
                let way_out = format!(
                    "{message}; what happened since then cannot be followed any more: POST /sources/{name}/repair reads \
                     the tables anew and captures what differs"
                );
                Self::stop(error.code, way_out)
            }
        }
    }

    /// What it means for its source that a portion was not captured.
    pub(super) fn of_portion(error: FollowError, source: &str, portion: &Blamed) -> Self {
        match error {
            FollowError::Refused { change, refusal } => {
                let what = portion.names.of(change);
                let message = format!("{what} cannot be captured: {}", refusal.message);
                let code = code(refusal.code);
                match portion.names.table(change) {
                    Some(table) => Self::of_table(source, table, code, &message, &remedy(&refusal)),
                    None => Self::stop(code, message),
                }
            }
            FollowError::OutOfOrder { .. } => Self::retry("out-of-order", error.to_string()),
            FollowError::Ingest(IngestError::Store(StoreError::TooLarge(why))) => match &portion.heaviest {
                Some(table) => {
                    let message = format!("what changed at once in table {table} cannot be captured: too much, {why}");
                    let remedy = "leave out large columns with exclude-columns, or the table with exclude";
                    Self::of_table(source, table, TOO_LARGE, &message, remedy)
                }
                None => Self::stop(TOO_LARGE, why.to_string()),
            },
            FollowError::Ingest(error) => error.into(),
        }
    }

    fn of_table(source: &str, table: &str, code: &str, message: &str, remedy: &str) -> Self {
        let message = format!(
            "{message}; the table's rows here stay as they were. What helps: {remedy}; then POST \
             /sources/{source}/tables/{}/reread takes the table up again",
            path_segment(table)
        );
        Self::Table { table: table.to_owned(), code: code.to_owned(), message }
    }
}

const TOO_LARGE: &str = "portion-too-large";

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) | StoreError::GivenUp(_) => Self::retry("storage-full", error.to_string()),
            StoreError::TooLarge(_) => Self::stop(TOO_LARGE, error.to_string()),
            _ => Self::retry("store-failed", error.to_string()),
        }
    }
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Store(error) => error.into(),
            IngestError::EngineStore(message) => Self::retry("store-failed", &*message),
            IngestError::Engine(message) => Self::retry("engine-failed", &*message),
            IngestError::QueueFull { .. } => Self::retry("queue-full", error.to_string()),
            IngestError::Stopping => Self::retry("stopping", error.to_string()),
        }
    }
}

/// What somebody can do about a refusal: which limit to raise, or what to leave out.
fn remedy(refusal: &Refusal) -> String {
    let option = |option: &str| format!("raise {option} (in [limits] of cdc.toml) and restart the service");
    let column = match &refusal.column {
        Some(column) => format!("leave the column {column} out with exclude-columns"),
        None => "leave columns out with exclude-columns".to_owned(),
    };
    match refusal.code {
        RefusalCode::RowTooLarge => format!("{}, or {column}, or the table with exclude", option("max-row-bytes")),
        RefusalCode::TooDeep => format!("{}, or {column}, or the table with exclude", option("max-depth")),
        RefusalCode::TooManyColumns => format!("{}, or {column}, or the table with exclude", option("max-columns")),
        RefusalCode::KeyTooLong => format!("{}, or leave the table out with exclude", option("max-key-bytes")),
        RefusalCode::TooManyTables => format!("{}, or leave tables out with exclude", option("max-tables")),
        RefusalCode::InvalidTableName => {
            format!("give it another name with table-name, or {}", option("max-name-bytes"))
        }
        RefusalCode::InvalidColumnName => format!("{column}, or {}", option("max-name-bytes")),
        RefusalCode::SchemaConflict => {
            "give the source's tables other names with table-name, or leave the table out with exclude".to_owned()
        }
        RefusalCode::InvalidJson
        | RefusalCode::NotAnObject
        | RefusalCode::DuplicateMember
        | RefusalCode::MissingKey
        | RefusalCode::InvalidKey
        | RefusalCode::KeyMismatch
        | RefusalCode::UnknownTable
        | RefusalCode::UnknownRow
        | RefusalCode::RowExists
        | RefusalCode::SchemaViolation
        | RefusalCode::InvalidSchema
        | RefusalCode::CapturedTable => format!("change it in the database, or {column}, or the table with exclude"),
    }
}

/// The refusal's name, as the contract of the engine has it.
fn code(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::InvalidJson => "invalid-json",
        RefusalCode::NotAnObject => "not-an-object",
        RefusalCode::DuplicateMember => "duplicate-member",
        RefusalCode::MissingKey => "missing-key",
        RefusalCode::InvalidKey => "invalid-key",
        RefusalCode::KeyMismatch => "key-mismatch",
        RefusalCode::KeyTooLong => "key-too-long",
        RefusalCode::RowTooLarge => "row-too-large",
        RefusalCode::TooDeep => "too-deep",
        RefusalCode::TooManyColumns => "too-many-columns",
        RefusalCode::TooManyTables => "too-many-tables",
        RefusalCode::InvalidTableName => "invalid-table-name",
        RefusalCode::InvalidColumnName => "invalid-column-name",
        RefusalCode::UnknownTable => "unknown-table",
        RefusalCode::UnknownRow => "unknown-row",
        RefusalCode::RowExists => "row-exists",
        RefusalCode::SchemaViolation => "schema-violation",
        RefusalCode::SchemaConflict => "schema-conflict",
        RefusalCode::InvalidSchema => "invalid-schema",
        RefusalCode::CapturedTable => "captured-table",
    }
}
