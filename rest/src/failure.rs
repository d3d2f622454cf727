//! The engine's failures as problems: the one table, whoever calls the engine and through whatever boundary.
//!
//! The host has the engine behind WIT and the edge worker links it, so each has error types of its own. Both turn them
//! into a [`Failure`], and their refusal codes by [`code_of_refusal!`](crate::code_of_refusal).

use crate::{Code, Problem};

/// When a client may try again after something that passes by itself.
pub const SOON_SECONDS: u32 = 1;
/// When a client may try again after something that a person must mend.
pub const LATER_SECONDS: u32 = 30;

/// Why the engine has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such table.
    UnknownTable(String),
    /// There is no such table, when its schema was asked for.
    UnknownSchema(String),
    /// There is no such row; says which.
    UnknownRow(String),
    /// The table's schema has no such version.
    UnknownVersion {
        /// The table.
        table: String,
        /// The version.
        version: u32,
    },
    /// The sequence number lies beyond the newest event, which is named.
    InTheFuture(u64),
    /// More keys changed since than may be remembered; how many may.
    TooFarBack(u32),
    /// Retention has dropped what was asked for; the oldest event kept.
    Dropped(u64),
    /// The store has no room.
    StorageFull,
    /// The store failed. How is for the log.
    StoreFailed,
    /// Others committed first, as often as it was tried.
    WriteConflict,
    /// The store cannot take writes safely; what to do.
    UnsafeStore(String),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::UnknownTable(table) => Self::unknown_table(&table),
            Failure::UnknownSchema(table) => Self::unknown_schema(&table),
            Failure::UnknownRow(message) => Self::new(Code::UnknownRow, message),
            Failure::UnknownVersion { table, version } => Self::unknown_version(&table, version),
            Failure::InTheFuture(newest) => Self::in_the_future(newest),
            Failure::TooFarBack(max_keys) => Self::too_far_back(max_keys),
            Failure::Dropped(oldest) => Self::dropped(oldest),
            Failure::StorageFull => Self::storage_full(LATER_SECONDS),
            Failure::StoreFailed => Self::store_failed(),
            Failure::WriteConflict => Self::new(
                Code::WriteConflict,
                "other writers were first each time it was tried; nothing was captured, try again",
            )
            .with_retry_after(SOON_SECONDS),
            Failure::UnsafeStore(message) => Self::new(Code::UnsafeStore, message),
        }
    }
}

/// The [`Code`](crate::Code) that carries the name of one of the engine's refusal codes, whose type is named first:
/// the core's own or the one of its WIT. Both have these variants; one more or less does not compile.
#[macro_export]
macro_rules! code_of_refusal {
    ($refusal_code:ident, $refused:expr) => {
        $crate::code_of_refusal!(@each $refusal_code, $refused,
            InvalidJson NotAnObject DuplicateMember MissingKey InvalidKey KeyMismatch KeyTooLong RowTooLarge TooDeep
            TooManyColumns TooManyTables InvalidTableName InvalidColumnName UnknownTable UnknownRow RowExists
            SchemaViolation SchemaConflict InvalidSchema CapturedTable)
    };
    (@each $refusal_code:ident, $refused:expr, $($variant:ident)*) => {
        match $refused { $($refusal_code::$variant => $crate::Code::$variant,)* }
    };
}
