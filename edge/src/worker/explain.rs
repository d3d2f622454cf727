//! The core's errors as the contract's problems. What each means to a client is stated in `cdc-rest`, once for host and
//! edge.

use cdc_engine::capture::DeclareError;
use cdc_engine::query::QueryError;
use cdc_engine::refusal::{Refusal, RefusalCode};
use cdc_engine::snapshot::SnapshotError;
use cdc_engine::store::StoreError;
use cdc_rest::{Failure, Problem};

fn store_failure(error: StoreError) -> Failure {
    match error {
        StoreError::Full(_) => Failure::StorageFull,
        StoreError::Dropped(oldest) => Failure::Dropped(oldest),
        StoreError::Conflict => Failure::WriteConflict,
        StoreError::Unsafe(message) => Failure::UnsafeStore(message),
        // What failed in there is for the embedder to log, where it failed: it is nothing that a client should see.
        StoreError::Failed(_) => Failure::StoreFailed,
    }
}

pub(super) fn store(error: StoreError) -> Problem {
    store_failure(error).into()
}

pub(super) fn query(error: QueryError, table: &str) -> Problem {
    Problem::from(match error {
        QueryError::UnknownTable(table) => Failure::UnknownTable(table),
        QueryError::UnknownRow(message) => Failure::UnknownRow(message),
        QueryError::UnknownVersion(version) => Failure::UnknownVersion { table: table.to_owned(), version },
        QueryError::InTheFuture(newest) => Failure::InTheFuture(newest),
        QueryError::Store(error) => store_failure(error),
    })
}

pub(super) fn schema_query(error: QueryError, table: &str) -> Problem {
    match error {
        QueryError::UnknownTable(table) => Failure::UnknownSchema(table).into(),
        other => query(other, table),
    }
}

pub(super) fn snapshot(error: SnapshotError) -> Problem {
    Problem::from(match error {
        SnapshotError::UnknownTable(table) => Failure::UnknownTable(table),
        SnapshotError::InTheFuture(newest) => Failure::InTheFuture(newest),
        SnapshotError::TooFarBack(max_keys) => Failure::TooFarBack(u32::try_from(max_keys).unwrap_or(u32::MAX)),
        SnapshotError::Store(error) => store_failure(error),
    })
}

pub(super) fn declare(error: DeclareError) -> Problem {
    match error {
        DeclareError::Refused(refusal) => refused(refusal),
        DeclareError::Store(error) => store(error),
    }
}

pub(super) fn refused(refusal: Refusal) -> Problem {
    let code = cdc_rest::code_of_refusal!(RefusalCode, refusal.code);
    Problem::refused(code, refusal.message, refusal.column)
}
