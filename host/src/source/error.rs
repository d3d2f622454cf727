//! What can be wrong with a request about a source.

use cdc_rest::{SourceName, SourceState, SourceTableState};

use crate::store::StoreError;

/// Why a source could not be started, shown or changed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such source.
    #[error("there is no source {0}")]
    Unknown(SourceName),
    /// It is in a state in which this cannot be done.
    #[error("source {name} is {}: {hint}", state.as_str())]
    WrongState {
        /// The source.
        name: SourceName,
        /// What it is doing.
        state: SourceState,
        /// What to do instead.
        hint: &'static str,
    },
    /// The source has no such table.
    #[error("source {name} has no table {table}")]
    UnknownTable {
        /// The source.
        name: SourceName,
        /// The name that was asked for.
        table: String,
    },
    /// A table is in a state in which this cannot be done.
    #[error("table {table} is {}: {hint}", state.as_str())]
    WrongTable {
        /// The table.
        table: String,
        /// What is done with it.
        state: SourceTableState,
        /// What to do instead.
        hint: &'static str,
    },
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}
