//! What went wrong, as the problem that a client sees. The one place where the host's errors become answers;
//! what the engine's mean is `cdc-rest`'s to say.

use cdc_rest::{Code, Failure, LATER_SECONDS, Problem, SOON_SECONDS};
use http::{Response, StatusCode};

use super::{Answer, AnswerBody, extend};
use crate::components::ComponentError;
use crate::delivery::SubscriptionError;
use crate::ingest::IngestError;
use crate::live::OpenStreamError;
use crate::sandbox::{DeclareError, EngineError, QueryError, Refusal, RefusalCode, SnapshotError, WitStoreError};
use crate::source::SourceError;
use crate::store::StoreError;

pub(super) fn answer(problem: &Problem) -> Answer {
    let mut out = Vec::with_capacity(256);
    problem.write(&mut out);
    let mut answer = Response::new(AnswerBody::from(bytes::Bytes::from(out)));
    *answer.status_mut() = StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    extend(answer.headers_mut(), problem.headers());
    answer
}

pub(super) fn ingest(error: &IngestError) -> Problem {
    match error {
        IngestError::QueueFull { .. } => Problem::queue_full(SOON_SECONDS),
        IngestError::Store(error) => store(error),
        IngestError::EngineStore(message) => {
            tracing::error!(error = %message, "the engine could not use the store");
            Problem::store_failed()
        }
        // The ingest thread has logged it with its backtrace.
        IngestError::Engine(_) => Problem::engine_failed(),
        IngestError::Stopping => Problem::shutting_down(SOON_SECONDS),
    }
}

pub(super) fn store(error: &StoreError) -> Problem {
    match error {
        // What is given up stood behind a batch that found no room.
        StoreError::Full(_) | StoreError::GivenUp(_) => Problem::storage_full(LATER_SECONDS),
        StoreError::Dropped { oldest } => Problem::dropped(*oldest),
        StoreError::TooLarge(message) => Problem::new(Code::BodyTooLarge, message.to_string()),
        StoreError::Failed(_) | StoreError::Corrupt(_) => {
            tracing::error!(%error, "the store failed");
            Problem::store_failed()
        }
    }
}

/// As many snapshots and replays as may run at once are running.
pub(super) fn long_calls() -> Problem {
    Problem::new(Code::QueueFull, "as many snapshots and replays as may run at once are running; try again soon")
        .with_retry_after(SOON_SECONDS)
}

pub(super) fn engine(_logged: &EngineError) -> Problem {
    Problem::engine_failed()
}

fn engine_store(error: WitStoreError) -> Failure {
    match error {
        WitStoreError::Full(_) => Failure::StorageFull,
        WitStoreError::Dropped(oldest) => Failure::Dropped(oldest),
        WitStoreError::Failed(message) => {
            tracing::error!(error = %message, "the engine could not use the store");
            Failure::StoreFailed
        }
    }
}

pub(super) fn open_stream(error: &OpenStreamError) -> Problem {
    match error {
        OpenStreamError::TooMany(max) => Problem::too_many_streams(*max, LATER_SECONDS),
        OpenStreamError::Stopping => Problem::shutting_down(SOON_SECONDS),
        OpenStreamError::InTheFuture(newest) => Problem::in_the_future(*newest),
        OpenStreamError::Store(error) => store(error),
    }
}

pub(super) fn subscription(error: &SubscriptionError) -> Problem {
    let with = |code| Problem::new(code, error.to_string());
    match error {
        SubscriptionError::Unknown(id) => Problem::unknown_subscription(id),
        SubscriptionError::Declared(_) => with(Code::DeclaredInConfiguration),
        SubscriptionError::TooMany { .. } => with(Code::LimitReached),
        SubscriptionError::Selection(_)
        | SubscriptionError::UnknownBuiltIn(_)
        | SubscriptionError::NotAFilter(_)
        | SubscriptionError::KeyvalueInLanes => with(Code::InvalidSubscription),
        SubscriptionError::Sink(invalid) => {
            with(Code::InvalidSubscription).with_text("member", format!("subscriber.{}", invalid.member))
        }
        SubscriptionError::NothingToTry(_)
        | SubscriptionError::RangeTooLong { .. }
        | SubscriptionError::NotAudited { .. } => with(Code::InvalidBody),
        SubscriptionError::Component(error) => component(error),
        SubscriptionError::InTheFuture { newest } => Problem::in_the_future(*newest),
        SubscriptionError::Busy(_) => with(Code::SubscriptionBusy).with_retry_after(SOON_SECONDS),
        SubscriptionError::Of { source, .. } => subscription(source),
        SubscriptionError::Store(error) => store(error),
        SubscriptionError::Unreadable { .. } | SubscriptionError::Thread(_) => {
            tracing::error!(%error, "a subscription cannot be used");
            Problem::store_failed()
        }
    }
}

pub(super) fn source(error: &SourceError) -> Problem {
    match error {
        SourceError::Unknown(name) => Problem::unknown_source(name),
        SourceError::WrongState { state, .. } => Problem::wrong_source_state(error.to_string(), state.as_str()),
        SourceError::UnknownTable { name, table } => Problem::unknown_source_table(name, table),
        SourceError::WrongTable { state, .. } => Problem::wrong_table_state(error.to_string(), state.as_str()),
        SourceError::Store(error) => store(error),
    }
}

pub(super) fn component(error: &ComponentError) -> Problem {
    let with = |code| Problem::new(code, error.to_string());
    match error {
        ComponentError::UnknownName(name) => Problem::unknown_component(name),
        ComponentError::UnknownVersion { name, version, .. } => Problem::unknown_component_version(name, *version),
        ComponentError::NothingBefore(_) => with(Code::NothingBefore),
        ComponentError::Misfit(_) => with(Code::UnfitComponent),
        ComponentError::TooMany { .. } => with(Code::LimitReached),
        ComponentError::Store(error) => store(error),
        ComponentError::File { .. } | ComponentError::Replaced { .. } | ComponentError::Damaged { .. } => {
            tracing::error!(%error, "a component cannot be used");
            Problem::store_failed()
        }
    }
}

/// A component that subscriptions need.
pub(super) fn component_in_use(name: &cdc_rest::ComponentName, users: &str) -> Problem {
    Problem::new(Code::ComponentInUse, format!("component {name} is used by {users}; remove or change these first"))
}

pub(super) fn query(error: QueryError, table: &str) -> Problem {
    Problem::from(match error {
        QueryError::UnknownTable(table) => Failure::UnknownTable(table),
        QueryError::UnknownRow(message) => Failure::UnknownRow(message),
        QueryError::UnknownVersion(version) => Failure::UnknownVersion { table: table.to_owned(), version },
        QueryError::InTheFuture(newest) => Failure::InTheFuture(newest),
        QueryError::Store(error) => engine_store(error),
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
        SnapshotError::TooFarBack(max_keys) => Failure::TooFarBack(max_keys),
        SnapshotError::Store(error) => engine_store(error),
    })
}

pub(super) fn declare(error: DeclareError) -> Problem {
    match error {
        DeclareError::Refused(refusal) => refused(refusal),
        DeclareError::Store(error) => engine_store(error).into(),
    }
}

pub(super) fn refused(refusal: Refusal) -> Problem {
    let code = cdc_rest::code_of_refusal!(RefusalCode, refusal.code);
    Problem::refused(code, refusal.message, refusal.column)
}
